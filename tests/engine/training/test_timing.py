"""The stopwatch tells training from the loader's waits, and both from what is no training; what other programs take is said."""

import subprocess
import sys
import time
from contextlib import suppress

import pytest
import torch

from dataload.system.machine import CoreTimes, OtherPrograms, core_times
from engine.training.log import Cost, peak_gib
from engine.training.timing import Crowd, Pace, Stopwatch, clock


class Scene:
    """A clock and a loader that stand still unless told otherwise."""

    def __init__(self) -> None:
        self.now_s = self.waited_s = 0.0
        self.watch = Stopwatch(lambda: self.waited_s, lambda: self.now_s)

    def train(self, samples: int, *, takes_s: float, of_it_waiting_s: float = 0.0) -> None:
        self.now_s += takes_s
        self.waited_s += of_it_waiting_s
        self.watch.count(samples)


def test_a_pace_is_that_of_its_span() -> None:
    scene = Scene()
    scene.train(100, takes_s=1)
    begin = scene.watch.mark()
    scene.train(12, takes_s=4, of_it_waiting_s=1)
    assert scene.watch.pace(begin) == Pace(3.0, 0.25)
    assert scene.watch.pace() == Pace(112 / 5, 0.2)
    later = scene.watch.mark()
    scene.now_s += 1
    assert scene.watch.pace(later) is None


def test_a_restart_leaves_what_was_before_out_of_every_pace() -> None:
    scene = Scene()
    before = scene.watch.mark()
    scene.train(1000, takes_s=300, of_it_waiting_s=300)
    scene.watch.restart()
    assert scene.watch.pace() is None
    assert scene.watch.pace(before) is None
    assert scene.watch.left_s(12) is None
    scene.train(12, takes_s=4)
    assert scene.watch.pace() == scene.watch.pace(before) == Pace(3.0, 0.0)
    assert scene.watch.left_s(120) == 40


def test_pauses_are_in_no_pace_but_in_the_time_that_is_left() -> None:
    scene = Scene()
    marks = [scene.watch.mark()]
    for _ in range(2):
        scene.train(12, takes_s=4, of_it_waiting_s=1)
        with scene.watch.paused():
            scene.now_s += 100
        marks.append(scene.watch.mark())
    assert [scene.watch.pace(mark) for mark in marks] == [Pace(3.0, 0.25), Pace(3.0, 0.25), None]
    assert scene.watch.pace() == Pace(3.0, 0.25)
    assert scene.watch.left_s(24) == 208


def test_a_pause_ends_with_an_error_too() -> None:
    scene = Scene()
    with suppress(OSError), scene.watch.paused():
        scene.now_s += 100
        raise OSError("the disk is full")
    scene.train(12, takes_s=4)
    assert scene.watch.pace() == Pace(3.0, 0.0)


def test_a_clock_that_knows_no_time_says_so() -> None:
    assert clock(3725.9) == "01h02m05s"
    assert clock(None) == "--h--m--s"


def test_a_cost_tells_what_is_known() -> None:
    assert Cost(None, None).scalars() == {}
    assert str(Cost(None, None)) == ""
    cost = Cost(Pace(25.0, 0.017), 9.8765)
    assert cost.scalars() == {"time/data_wait": 0.017, "time/samples_per_s": 25.0, "memory/peak_gib": 9.8765}
    assert str(cost) == " | waiting for data: 2 % | peak memory: 9.88 GiB"


def test_a_cpu_has_no_peak_of_gpu_memory() -> None:
    assert peak_gib(torch.device("cpu")) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_peak_of_gpu_memory_holds_what_was_freed_again() -> None:
    torch.cuda.reset_peak_memory_stats()
    before = peak_gib(torch.device("cuda"))
    torch.empty(2**30, dtype=torch.uint8, device="cuda")
    assert peak_gib(torch.device("cuda")) == pytest.approx(before + 1, abs=0.01)


def looks(*times: CoreTimes | None) -> OtherPrograms:
    """Other programs as these times tell of them, one per look."""
    left = iter(times)
    return OtherPrograms(lambda: next(left))


@pytest.mark.parametrize(
    ("threads", "busy_s", "own_s", "said"),
    [
        (2, 38.0, 2.0, "Other programs take 1.8 of 2 cores, so PyTorch's 2 threads wait for each other, slowly; --threads 1 may be faster"),
        (2, 30.0, 20.0, "take 0.5 of 2 cores, so PyTorch's 2 threads wait for each other, slowly; --threads 1 may be faster"),
        (2, 26.0, 20.0, ""),  # 0.3 of a core: a desktop
        (2, 40.0, 40.0, ""),  # all of it is this process
        (1, 38.0, 2.0, ""),  # one thread waits for no other
    ],
)
def test_cores_that_others_take_are_said_with_the_figure(caplog, threads, busy_s, own_s, said) -> None:
    caplog.set_level("INFO", "md")
    crowd = Crowd(threads, looks(CoreTimes(100.0, 500.0, 50.0, 2), CoreTimes(120.0, 500.0 + busy_s, 50.0 + own_s, 2)))
    crowd.look()
    assert said in caplog.text
    assert bool(said) == bool(caplog.text)


def test_cores_that_others_take_are_said_once_and_when_they_come(caplog) -> None:
    caplog.set_level("INFO", "md")
    quiet, busy = CoreTimes(10.0, 8.0, 8.0, 8), CoreTimes(20.0, 48.0, 16.0, 8)
    crowd = Crowd(8, looks(CoreTimes(0.0, 0.0, 0.0, 8), quiet, busy, CoreTimes(30.0, 88.0, 24.0, 8)))
    crowd.look()
    assert not caplog.text
    crowd.look()
    crowd.look()
    assert caplog.text.count("Other programs take 3.2 of 8 cores") == 1
    assert "--threads 5 may be faster" in caplog.text


@pytest.mark.parametrize(
    "times", [(None, None), (CoreTimes(0.0, 0.0, 0.0, 2), CoreTimes(0.5, 1.0, 0.0, 2)), (CoreTimes(0.0, 0.0, 0.0, 2), None)]
)
def test_nothing_is_said_where_nothing_can_be_told(caplog, times) -> None:
    caplog.set_level("INFO", "md")
    Crowd(2, looks(*times)).look()
    assert not caplog.text


@pytest.mark.skipif(core_times() is None, reason="this system does not count what its cores do")
def test_a_program_that_computes_is_seen_and_this_one_is_left_out() -> None:
    others = OtherPrograms()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as program:
        time.sleep(2)
        program.kill()
    found = others.cores_taken()
    assert found is not None
    taken, cores = found
    assert 0.2 < taken <= cores
    begin = core_times()
    end_s = time.process_time() + 0.5
    while time.process_time() < end_s:
        pass
    end = core_times()
    assert end.own_s - begin.own_s >= 0.5
    assert end.busy_s - begin.busy_s >= 0.4, "the cores are busy with this process too"
