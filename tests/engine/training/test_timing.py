"""The stopwatch tells the loader's waits from everything else."""

import time

import pytest
import torch

from engine.training.log import Cost, peak_gib
from engine.training.timing import Pace, Stopwatch, clock


def test_a_pace_is_that_of_its_span() -> None:
    waited_s = 1.0
    watch = Stopwatch(lambda: waited_s)
    begin = watch.mark()
    time.sleep(0.2)
    watch.count(12)
    waited_s += 0.1
    whole = watch.pace(begin)
    assert whole.wait_share == pytest.approx(0.5, abs=0.2)
    assert 12 / 0.4 < whole.samples_per_s < 12 / 0.2
    later = watch.mark()
    time.sleep(0.02)
    assert watch.pace(later) is None


def test_a_restart_leaves_what_was_before_out_of_every_pace() -> None:
    waited_s = 0.0
    watch = Stopwatch(lambda: waited_s)
    before = watch.mark()
    time.sleep(0.3)
    waited_s += 0.3
    watch.count(1000)
    watch.restart()
    assert watch.pace() is None
    assert watch.pace(before) is None
    time.sleep(0.1)
    watch.count(12)
    for pace in (watch.pace(), watch.pace(before)):
        assert pace.wait_share == 0.0
        assert 12 / 0.3 < pace.samples_per_s < 12 / 0.1


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
