"""Copies to the host: the values are those of the moment, and on a GPU one is waited for when the next has its work."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from meta_copies import record_copies

from engine.host_copy import HostCopy, one_behind

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[needs_gpu, pytest.mark.gpu])]


@pytest.mark.parametrize("device", DEVICES)
def test_a_copy_is_of_the_moment_whatever_the_types_and_layouts(device) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "bytes": torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8, generator=generator).movedim(-1, 0),
        "one": torch.tensor(2.5),
        "numbers": torch.randn(2, 3, 4, 4, generator=generator).contiguous(memory_format=torch.channels_last),
        "none": torch.empty(0, 4),
        "wide": torch.arange(5),
    }
    expected = {name: tensor.numpy().copy() for name, tensor in tensors.items()}
    there = {name: tensor.to(device) for name, tensor in tensors.items()}
    copy = HostCopy(there)
    for tensor in there.values():
        tensor.zero_()
    found = copy.arrays()
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].flags.aligned
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("device", DEVICES)
def test_all_come_in_their_order(device) -> None:
    blocks = [torch.full((size, 2), float(number), device=device) for number, size in enumerate((3, 3, 1))]
    found = list(one_behind(iter(blocks)))
    assert [block.tolist() for block in found] == [block.cpu().tolist() for block in blocks]
    assert list(one_behind([])) == []


@pytest.mark.parametrize(
    ("device", "order"),
    [("cpu", ["work", "copy", "read", "work", "copy", "read"]), ("meta", ["work", "copy", "work", "copy", "read", "read"])],
)
def test_a_device_has_its_next_work_before_it_is_waited_for(monkeypatch, device, order) -> None:
    happened: list[str] = []
    record_copies(monkeypatch, happened)

    def work() -> Iterator[torch.Tensor]:
        for number in range(2):
            happened.append("work")
            yield torch.empty(number, device=device)

    assert [len(block) for block in one_behind(work())] == [0, 1]
    assert happened == order
