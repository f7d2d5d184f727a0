"""What counts as waiting for data: nothing that training does itself, and on a GPU nothing that it is busy beside."""

import time

import pytest
import torch

from dataload.pipeline.waits import UNUSED_BATCHES, GpuWaits, HostWaits


def slow(seconds: float, number: int = 4):
    for item in range(number):
        time.sleep(seconds)
        yield item


def test_on_a_cpu_it_is_the_time_until_the_next_batch() -> None:
    waits = HostWaits()
    got = []
    for item in waits.measure(slow(0.05)):
        time.sleep(0.05)
        got.append(item)
    assert got == [0, 1, 2, 3]
    assert 0.2 <= waits.waited_s < 0.35


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.gpu
def test_on_a_gpu_it_is_the_time_that_it_has_nothing_to_do() -> None:
    device = torch.device("cuda")
    work = torch.rand(4096, 4096, device=device)

    def waited(seconds: float, products: int) -> float:
        waits = GpuWaits(device)
        for _ in waits.measure(slow(seconds, 10)):
            for _ in range(products):
                torch.mm(work, work)
        torch.cuda.synchronize()
        assert len(waits._pending) <= UNUSED_BATCHES
        return waits.waited_s

    assert waited(0.0, 0) < 0.02
    # Nothing to do but to wait.
    assert waited(0.02, 0) > 0.15
    # Each batch gives the GPU more to do than the next takes.
    assert waited(0.002, 40) < 0.02
