"""Mathematical answers: as recorded in both modes, and bounded whatever sympy does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_rewards import math_python
from tests.rewards.hostile import LONG, SIZES, anything, cases, seconds

pytest.importorskip("math_verify", reason="the extra `math` is not installed")


@pytest.mark.parametrize("case", cases("math.json"), ids=lambda case: str(case["id"]))
def test_both_modes_equal_the_recorded_scores(case: dict):
    assert math_python.score(case["text"], case["gold"]) == case["math_rubric"]
    assert math_python.score(case["text"], case["gold"], "strict") == case["strict_box"]


# text, gold, official, strict
TABLE = [
    ("\\boxed{34}", "34", 1.0, 1.0),
    ("34", "34", 1.0, 0.0),
    ("\\boxed{12}, no: \\boxed{34}", "34", 1.0, 1.0),
    ("\\boxed{34}, no: \\boxed{12}", "34", 0.0, 0.0),
    ("<think>\\boxed{12}</think>\\boxed{34}", "34", 1.0, 1.0),
    ("<think>\\boxed{34}</think>", "34", 0.0, 0.0),
    ("\\boxed{\\frac{2}{4}}", "\\frac{1}{2}", 1.0, 1.0),
    ("\\boxed{0.5}", "\\frac{1}{2}", 1.0, 1.0),
    ("\\boxed{123456789012345678901234567890}", "123456789012345678901234567890", 1.0, 1.0),
    ("\\boxed{123456789012345678901234567891}", "123456789012345678901234567890", 0.0, 0.0),
    ("\\boxed{}", "34", 0.0, 0.0),
    ("", "34", 0.0, 0.0),
    ("\\boxed{34}", "", 0.0, 0.0),
    ("\\boxed{34}", 34, 1.0, 1.0),
    (None, "34", 0.0, 0.0),
    ("\\boxed{34}", None, 0.0, 0.0),
]


@pytest.mark.parametrize(("text", "gold", "official", "strict"), TABLE)
def test_modes_by_example(text: object, gold: object, official: float, strict: float):
    assert math_python.score(text, gold) == official
    assert math_python.score(text, gold, "strict") == strict


@pytest.fixture(scope="module")
def helper() -> Iterator[math_python.Helper]:
    helper = math_python.Helper()
    yield helper
    helper.close()


@pytest.fixture
def hasty(helper: math_python.Helper, monkeypatch: pytest.MonkeyPatch) -> math_python.Helper:
    """A helper that gives up sooner."""
    monkeypatch.setattr(math_python, "CPU_SECONDS", 0.5)
    monkeypatch.setattr(math_python, "_helper", helper)
    return helper


@pytest.mark.parametrize(
    "answer",
    [
        "9^{9^{9^{9}}}",
        "\\prod_{n=1}^{10000000} n",
        "(" * 4000 + "1" + ")" * 4000,
        "{" * 3000 + "}" * 3000,
        "\\sqrt" * 2000 + "2",
        "\\frac{1}{" * 800 + "2" + "}" * 800,
        "x^{x^{x^{x^{x^{x}}}}}" * 40,
        "1" * 9_999,
        "100000000000!",
        "\ud800",
        "\\begin{pmatrix}" + "1 & " * 500 + "\\end{pmatrix}",
    ],
    ids=lambda answer: answer[:16].encode("ascii", "backslashreplace").decode(),
)
def test_hostile_answers_cost_a_bounded_time_and_break_nothing(answer: str, hasty: math_python.Helper):
    assert math_python.score(f"\\boxed{{{answer}}}", "34") == 0.0
    assert math_python.score("\\boxed{34}", "34") == 1.0


def test_a_comparison_that_never_ends_is_ended(hasty: math_python.Helper):
    assert hasty.verify("34", "34") is True
    first = hasty._worker.process.pid
    assert hasty.verify("34", "9^{9^{9^{9}}}") is False
    assert hasty.verify("34", "34") is True
    assert hasty._worker.process.pid != first


def test_memory_is_bounded():
    assert math_python.score("\\boxed{34}", "34") == 1.0
    limits = Path(f"/proc/{math_python._helper._worker.process.pid}/limits").read_text().splitlines()
    bound = next(line.split()[3] for line in limits if line.startswith("Max address space"))
    assert int(bound) == math_python.MEMORY_BYTES


def test_one_helper_serves_all_and_a_dead_one_is_replaced():
    helper = math_python.Helper()
    try:
        for _ in range(3):
            assert helper.verify("34", "34")
        first = helper._worker.process
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        assert helper.verify("34", "34")
        assert helper._worker.process.pid != first.pid
    finally:
        helper.close()


def test_threads_share_the_helper():
    wrong: list[int] = []

    def work(i: int) -> None:
        for j in range(20):
            gold = str(i * 1000 + j)
            if math_python.score(f"\\boxed{{{gold}}}", gold) != 1.0 or math_python.score("\\boxed{7/11}", gold):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_forked_child_has_a_helper_of_its_own_and_processes_end_with_theirs():
    script = """
import os, sys
from rlm_rewards import math_python
assert math_python.score("\\\\boxed{1}", "1") == 1.0
child = os.fork()
if not child:
    assert math_python._helper._worker is None
    assert math_python.score("\\\\boxed{2}", "2") == 1.0
    math_python._helper.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert math_python.score("\\\\boxed{3}", "3") == 1.0
print(math_python._helper._worker.process.pid)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_nothing_heavy_is_imported_with_the_module():
    script = "import rlm_rewards.math_python, sys; print('sympy' in sys.modules, 'math_verify' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_without_math_verify_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(ImportError, match=r"pip install 'rlm-env\[math\]'"):
        math_python.score("\\boxed{1}", "1")


def test_unknown_mode_is_refused_by_name():
    with pytest.raises(ValueError, match="mode must be official or strict, got 'kind'"):
        math_python.score("1", "1", "kind")


near_latex = st.lists(
    st.sampled_from(
        ["\\boxed{", "}", "{", "\\frac", "\\sqrt", "1", "x", "^", "_", "=", ",", "(", "]", "\\pi", "%", "\\"]
    ),
    max_size=12,
).map("".join)


@settings(max_examples=150)
@given(anything | near_latex, anything | near_latex, st.sampled_from(math_python.MODES))
def test_score_is_total(text: object, gold: object, mode: str):
    assert math_python.score(text, gold, mode) in (0.0, 1.0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LONG)
def test_megabytes_take_linear_time(name: str, size: int):
    text, started = LONG[name](size), time.process_time()
    for mode in math_python.MODES:
        assert math_python.score(text, "34", mode) == 0.0
    assert time.process_time() - started < seconds(size)
