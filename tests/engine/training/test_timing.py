"""The stopwatch tells training from the loader's waits, and both from what is no training."""

from contextlib import suppress

import pytest
import torch

from engine.training.log import Cost, peak_gib
from engine.training.timing import Pace, Stopwatch, clock


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
