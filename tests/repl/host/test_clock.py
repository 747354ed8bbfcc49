"""The clock of a step, by hand: each second is booked once and to the right side."""

import pytest

from rlm_env.repl.host import clock
from rlm_env.repl.host.clock import StepClock


class Hands:
    """A clock that is moved by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.cpu = self.queued = self.late = 0.0
        monkeypatch.setattr(clock.time, "monotonic", lambda: self.now)
        self.step = StepClock(lambda: self.cpu, self.queued_since, lambda _now: self.late)

    def queued_since(self) -> float:
        queued, self.queued = self.queued, 0.0
        return queued

    def move(self, wall: float, cpu: float = 0.0, queued: float = 0.0, late: float = 0.0) -> None:
        self.now += wall
        self.cpu += cpu
        self.queued += queued
        self.late += late


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    return Hands(monkeypatch)


def test_waiting_is_free_and_computing_meanwhile_is_not(hands: Hands):
    hands.move(1.0)
    hands.step.busy(True)
    hands.move(5.0, cpu=2.0)
    assert hands.step.code_seconds == pytest.approx(3.0)
    hands.move(1.0)
    hands.step.busy(False)
    hands.move(0.5)
    assert hands.step.code_seconds == pytest.approx(3.5)
    assert hands.step.booked[1] == pytest.approx(6.0)
    assert hands.step.wall_seconds == pytest.approx(7.5)


def test_many_threads_cost_no_more_than_the_wall(hands: Hands):
    hands.step.busy(True)
    hands.move(1.0, cpu=8.0)
    assert hands.step.code_seconds == pytest.approx(1.0)


def test_queueing_for_a_core_is_left_out_from_the_beginning_once_it_is_watched(hands: Hands):
    hands.move(1.0, queued=0.9)  # before anybody looked
    hands.step.watch_queue()
    assert hands.step.code_seconds == pytest.approx(0.1)
    hands.move(4.0, queued=3.0)
    assert hands.step.code_seconds == pytest.approx(1.1)
    assert hands.step.code_seconds == pytest.approx(1.1)


def test_queueing_in_earlier_cells_excuses_no_more_than_until_the_first_look(hands: Hands):
    hands.queued = 100.0
    hands.move(0.5, cpu=0.2)
    hands.step.watch_queue()
    assert hands.step.code_seconds == pytest.approx(0.2)
    hands.move(3.0)
    assert hands.step.code_seconds == pytest.approx(3.2)


def test_queueing_behind_a_waiting_batch_forgives_nothing(hands: Hands):
    hands.step.watch_queue()
    hands.step.busy(True)
    hands.move(4.0, cpu=2.0, queued=2.0)
    hands.step.busy(False)
    hands.move(1.0)
    assert hands.step.code_seconds == pytest.approx(3.0)


def test_lateness_of_the_host_is_left_out_of_code_and_wall(hands: Hands):
    hands.move(8.1, cpu=0.1, late=8.0)
    assert hands.step.code_seconds == pytest.approx(0.1)
    assert hands.step.wall_seconds == pytest.approx(0.1)


def test_what_was_computed_while_the_host_was_late_is_booked(hands: Hands):
    hands.move(8.1, cpu=7.0, late=8.0)
    assert hands.step.code_seconds == pytest.approx(7.0)


def test_lateness_behind_a_waiting_batch_excuses_nothing_later(hands: Hands):
    hands.step.busy(True)
    hands.move(8.0, late=8.0)
    hands.step.busy(False)
    hands.move(1.0)
    assert hands.step.code_seconds == pytest.approx(1.0)


def test_queueing_behind_its_own_threads_is_its_own(hands: Hands):
    hands.step.watch_queue()
    hands.move(13.5, cpu=5.9, queued=11.9)
    assert hands.step.code_seconds == pytest.approx(5.9)


def test_threads_cost_no_more_than_the_wall(hands: Hands):
    hands.step.watch_queue()
    hands.move(2.0, cpu=8.0, queued=1.5)
    assert hands.step.code_seconds == pytest.approx(2.0)
