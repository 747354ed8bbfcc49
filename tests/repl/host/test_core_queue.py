"""How long a process has waited for a core, by files like those of /proc."""

import os
import shutil
from pathlib import Path

import pytest

from rlm_env.repl.host.core_queue import CoreQueue


class Tasks:
    """A process whose threads wait as the test says."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.queue = CoreQueue(str(directory))

    def wait(self, **seconds: float) -> float:
        """`t7=1.5`: thread 7 has waited that long since it began. Returns what the queue says then."""
        for name, waited in seconds.items():
            task = self.directory / "task" / name[1:]
            task.mkdir(parents=True, exist_ok=True)
            (task / "schedstat").write_text(f"5000000 {int(waited * 1e9)} 17\n")
        return self.queue.since_last_look()


@pytest.fixture
def tasks(tmp_path: Path) -> Tasks:
    return Tasks(tmp_path)


def test_the_longest_wait_of_any_one_thread_counts_and_not_their_sum(tasks: Tasks):
    assert tasks.wait(t10=1.0) == pytest.approx(1.0)
    assert tasks.wait(t10=1.0) == 0
    assert tasks.wait(t10=1.1, t11=0.5, t12=0.4) == pytest.approx(0.5)
    assert tasks.wait(t10=1.2, t11=0.6, t12=2.4) == pytest.approx(2.0)


def test_a_crowd_of_waiting_threads_excuses_no_more_than_one(tasks: Tasks):
    tasks.wait(**{f"t{10 + number}": 0.0 for number in range(200)})
    assert tasks.wait(**{f"t{10 + number}": 0.01 for number in range(200)}) == pytest.approx(0.01)


def test_a_thread_that_is_read_for_the_first_time_but_was_there_counts_from_then_on(tasks: Tasks):
    names = [f"t{10 + number}" for number in range(20)]
    tasks.wait(**dict.fromkeys(names, 5.0))
    for name in names[-4:]:
        shutil.rmtree(tasks.directory / "task" / name[1:])
    assert tasks.wait() == 0  # others are read in their place, and have waited for long
    assert tasks.wait(t25=5.5) == pytest.approx(0.5)


def test_threads_that_end_and_begin_under_one_number_count_nothing_twice(tasks: Tasks):
    tasks.wait(t10=0.0, t11=3.0)
    assert tasks.wait(t11=0.2) == 0
    assert tasks.wait(t11=0.3) == pytest.approx(0.1)


def test_a_kernel_that_does_not_say_excuses_nothing(tasks: Tasks):
    assert tasks.wait() == 0
    (tasks.directory / "task" / "10").mkdir(parents=True)
    assert tasks.wait() == 0
    (tasks.directory / "task" / "10" / "schedstat").write_text("0\n")
    assert tasks.wait() == 0


def test_this_process_has_waited_for_a_finite_time():
    queue = CoreQueue(f"/proc/{os.getpid()}")
    assert 0 <= queue.since_last_look() < 1e6
