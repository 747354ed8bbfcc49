"""When the watchdog counts, by hand: soon enough for every way over the bound, and seldom where nothing happens."""

import os
from pathlib import Path

import pytest

from rlm_env.repl.host import watchdog
from rlm_env.repl.host.watchdog import Watchdog

BOUND = 256


class Fake:
    """A process that has as many threads as the test says."""

    scratch = None

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.threads = 1
        self.ended = ""

    def cpu_seconds(self) -> float:
        return 0.0

    def end_from_thread(self, reason: str) -> None:
        self.ended = reason


class Machine:
    """A watchdog over fake processes, without its thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
        self.counted = 0
        self.all = {-pid: Fake(-pid) for pid in range(1, processes + 1)}
        monkeypatch.setattr(watchdog, "_all_threads", lambda _: 500 + sum(one.threads for one in self.all.values()))
        monkeypatch.setattr(watchdog, "thread_count", self._count)
        self.dog = Watchdog(2**40, BOUND)
        for one in self.all.values():
            self.dog.add(one)
        for _ in range(20):
            self.dog.look_at_threads()
        self.counted = 0

    def _count(self, pid: int) -> int:
        self.counted += 1
        return self.all[pid].threads


def test_a_few_threads_over_the_bound_are_seen_at_the_next_look(monkeypatch: pytest.MonkeyPatch):
    machine = Machine(monkeypatch, 30)
    one = machine.all[-7]
    for count in (250, BOUND):
        one.threads = count
        machine.dog.look_at_threads()
        assert not one.ended
    one.threads = BOUND + 1
    machine.dog.look_at_threads()
    assert "had 257 threads at a time" in one.ended


@pytest.mark.parametrize("step", [1, 10, 63, 64, 300])
def test_however_fast_they_come_none_is_missed(monkeypatch: pytest.MonkeyPatch, step: int):
    machine = Machine(monkeypatch, 30)
    one = machine.all[-7]
    while one.threads <= BOUND:
        assert not one.ended
        one.threads += step
        machine.dog.look_at_threads()
    assert one.ended


def test_threads_that_others_give_back_hide_them_for_ten_looks_at_most(monkeypatch: pytest.MonkeyPatch):
    machine = Machine(monkeypatch, 30)
    one, other = machine.all[-7], machine.all[-8]
    one.threads, other.threads = 100, 250
    machine.dog.look_at_threads()
    one.threads, other.threads = 300, 50
    for _ in range(10):
        machine.dog.look_at_threads()
    assert one.ended


def test_a_thousand_idle_processes_are_counted_in_turns(monkeypatch: pytest.MonkeyPatch):
    machine = Machine(monkeypatch, 1000)
    for _ in range(10):
        machine.dog.look_at_threads()
    assert machine.counted == 1000


def test_free_memory_is_what_can_be_had_and_not_only_what_lies_idle(tmp_path: Path):
    """Else nothing seems to be taken on a machine whose page cache has filled the rest."""
    told = tmp_path / "meminfo"
    told.write_text("MemTotal: 16000000 kB\nMemFree: 90000 kB\nMemAvailable: 12000000 kB\nBuffers: 10 kB\n")
    assert watchdog._free_memory(watchdog._KernelFile("/proc/meminfo")) > 0
    meminfo = watchdog._KernelFile(str(told))
    assert watchdog._free_memory(meminfo) == 12_000_000 * 1024
    told.write_text("nothing\n")
    assert watchdog._free_memory(meminfo) == 0
    meminfo.close()
    assert watchdog._free_memory(watchdog._KernelFile("/nowhere")) == 0


def test_looking_leaves_the_number_of_open_files_as_it_is(monkeypatch: pytest.MonkeyPatch):
    """A count of this process's descriptors at any time is the same, as tests of what is left behind want it."""
    loadavg, meminfo = watchdog._KernelFile("/proc/loadavg"), watchdog._KernelFile("/proc/meminfo")
    before = len(os.listdir("/proc/self/fd"))
    assert watchdog._all_threads(loadavg)
    assert watchdog._free_memory(meminfo)
    assert len(os.listdir("/proc/self/fd")) == before + 2
    opened = []
    with monkeypatch.context() as patch:
        for name in ("os.open", "builtins.open"):
            patch.setattr(name, lambda *arguments, **_: opened.append(arguments))
        assert watchdog._all_threads(loadavg)
        assert watchdog._free_memory(meminfo)
    assert opened == []
    loadavg.close(), meminfo.close()
    assert len(os.listdir("/proc/self/fd")) == before
