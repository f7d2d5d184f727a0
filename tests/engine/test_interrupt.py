"""What signals ask of a loop, in this process; whole runs that get them are in training/test_stopping.py."""

import signal
import threading
import time

import pytest

from dataload.system.interrupts import signal_of
from dataload.system.launch import VARIABLES
from engine import interrupt
from engine.interrupt import ending_restored, graceful_stop, save_requests_ignored

ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """No launcher, whatever started the tests."""
    for name in ("TORCHELASTIC_RUN_ID", *VARIABLES):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("number", ENDING)
def test_asking_to_stop_waits_for_the_step_but_not_where_nothing_would_be_lost(number: int) -> None:
    with graceful_stop() as stop:
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested
        assert stop.number == number
    with graceful_stop() as stop:
        stop.at_once = True
        with pytest.raises(KeyboardInterrupt) as raised:
            signal.raise_signal(number)
        assert signal_of(raised.value) == number


@pytest.mark.parametrize("then", [signal.SIGHUP, signal.SIGTERM])
def test_a_terminal_that_is_closed_sends_more_than_one(monkeypatch: pytest.MonkeyPatch, then: int) -> None:
    """The system and the shell both send SIGHUP, and the session's manager SIGTERM too."""
    monkeypatch.setattr(interrupt, "SAME_REQUEST_S", 0.5)
    with graceful_stop() as stop:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(then)
        assert stop.number == signal.SIGHUP
        time.sleep(0.6)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with graceful_stop() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.requested
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_several_processes_are_deaf_from_the_end_of_training_to_the_end_of_the_run() -> None:
    before = {number: signal.getsignal(number) for number in ENDING}
    with ending_restored():
        with graceful_stop(then_deaf=True):
            pass
        assert [signal.getsignal(number) for number in ENDING] == [before[signal.SIGINT], signal.SIG_IGN, signal.SIG_IGN]
    assert before == {number: signal.getsignal(number) for number in ENDING}


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="Windows has no SIGUSR1")
def test_before_training_a_request_to_save_does_nothing() -> None:
    with save_requests_ignored():
        signal.raise_signal(signal.SIGUSR1)
        with graceful_stop() as stop:
            signal.raise_signal(signal.SIGUSR1)
            assert stop.save_requested
        signal.raise_signal(signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


@pytest.mark.parametrize("world", [None, "1"])
def test_the_second_one_stops_at_once(monkeypatch: pytest.MonkeyPatch, world: str | None) -> None:
    if world is not None:
        monkeypatch.setenv("WORLD_SIZE", world)
    with graceful_stop() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert stop.requested


@pytest.mark.parametrize("variables", [{"TORCHELASTIC_RUN_ID": "none"}, dict(zip(VARIABLES, "1212", strict=True))])
def test_under_a_launcher_the_second_one_is_the_same_request_for_a_while(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(interrupt, "SAME_REQUEST_S", 0.5)
    with graceful_stop() as stop:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
        assert stop.requested
        time.sleep(0.6)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_under_a_launcher_the_second_one_does_not_interrupt_what_the_first_ended_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with graceful_stop() as stop:
        stop.at_once = True
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="Windows has no SIGUSR1")
def test_a_save_is_requested_and_taken_once_and_ends_nothing() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with graceful_stop() as stop:
        assert not stop.take_save_request()
        stop.at_once = True
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)
        assert stop.save_requested
        assert stop.take_save_request()
        assert not stop.take_save_request()
        assert not stop.requested
    assert signal.getsignal(signal.SIGUSR1) == before


def test_in_another_thread_signals_keep_their_meaning() -> None:
    before = {number: signal.getsignal(number) for number in ENDING}
    after = []

    def inside() -> None:
        with graceful_stop() as stop:
            after.append({number: signal.getsignal(number) for number in ENDING})
            assert not stop.requested

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert after == [before]
