"""A parcel: several tensors in one stretch of memory, each aligned, none in another's place."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dataload.pipeline.parcel import ALIGNMENT, Parcel

CPU = torch.device("cpu")
DTYPES = [torch.uint8, torch.int16, torch.int32, torch.int64, torch.float32, torch.float64, torch.bool]
SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)
CONTENTS = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.tuples(SHAPES, st.sampled_from(DTYPES)), max_size=6)


def random(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.randint(0, 2 if dtype == torch.bool else 120, shape).to(dtype)


def memory(tensor: torch.Tensor) -> range:
    return range(tensor.data_ptr(), tensor.data_ptr() + tensor.numel() * tensor.element_size())


@settings(max_examples=150, deadline=None)
@given(contents=CONTENTS)
def test_every_tensor_has_its_own_aligned_place_in_one_buffer(contents) -> None:
    parcel = Parcel(contents, pin_memory=False)
    assert list(parcel.tensors) == list(contents)
    assert all((tuple(parcel.tensors[name].shape), parcel.tensors[name].dtype) == content for name, content in contents.items())
    assert len({tensor.untyped_storage().data_ptr() for tensor in parcel.tensors.values()}) <= 1
    assert all(tensor.storage_offset() * tensor.element_size() % ALIGNMENT == 0 for tensor in parcel.tensors.values())
    assert all(tensor.data_ptr() % tensor.element_size() == 0 for tensor in parcel.tensors.values())
    values = {name: random(*content) for name, content in contents.items()}
    for name, value in values.items():
        parcel.tensors[name].copy_(value)
    # Had one been written over another, the first would no longer be what it was.
    assert all(torch.equal(parcel.tensors[name], value) for name, value in values.items())
    there = parcel.to(CPU)
    assert all(torch.equal(there[name], value) for name, value in values.items())


@settings(max_examples=100, deadline=None)
@given(contents=CONTENTS)
def test_a_copy_of_tensors_with_room_for_more(contents) -> None:
    known = {name: random(*content) for name, content in contents.items()}
    parcel = Parcel.of(known, pin_memory=False, zz=((2, 3), torch.float32))
    assert list(parcel.tensors) == [*known, "zz"]
    parcel.tensors["zz"].fill_(7)
    for name, tensor in known.items():
        assert torch.equal(parcel.tensors[name], tensor)
        assert parcel.tensors[name].dtype == tensor.dtype
        assert not tensor.numel() or parcel.tensors[name].data_ptr() != tensor.data_ptr()
    spans = sorted((memory(tensor) for tensor in parcel.tensors.values() if tensor.numel()), key=lambda span: span.start)
    assert all(a.stop <= b.start for a, b in pairwise(spans))


def test_tensors_that_do_not_lie_in_a_row_are_copied_as_they_are_seen() -> None:
    image = torch.arange(24).reshape(2, 3, 4)
    seen = {"turned": image.permute(2, 0, 1), "part": image[:, 1:, ::2], "mirrored": image.flip(1)}
    parcel = Parcel.of(seen, pin_memory=False)
    assert all(torch.equal(parcel.tensors[name], tensor) for name, tensor in seen.items())
    assert all(tensor.is_contiguous() for tensor in parcel.tensors.values())


@pytest.mark.parametrize("contents", [{}, {"none": ((0, 3), torch.float32)}, {"one": ((), torch.int64)}])
def test_next_to_nothing(contents) -> None:
    parcel = Parcel(contents, pin_memory=False)
    assert {name: tuple(tensor.shape) for name, tensor in parcel.to(CPU).items()} == {name: shape for name, (shape, _) in contents.items()}


def test_another_device_gets_all_of_it_in_one_copy() -> None:
    # "meta" stands for a device whose memory is its own: what comes back are views of one new buffer there.
    parcel = Parcel({"a": ((2, 3), torch.float32), "b": ((5,), torch.uint8)}, pin_memory=False)
    there = parcel.to(torch.device("meta"))
    assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in there.items()} == {
        "a": ((2, 3), torch.float32),
        "b": ((5,), torch.uint8),
    }
    assert there["a"].is_meta
    assert there["b"].storage_offset() == ALIGNMENT
    assert there["a"].untyped_storage().nbytes() == there["b"].untyped_storage().nbytes() == 2 * ALIGNMENT


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gets_the_values() -> None:
    known = {"a": torch.randn(3, 5), "b": torch.arange(7), "c": torch.tensor([True, False])}
    parcel = Parcel.of(known, pin_memory=True)
    assert all(tensor.is_pinned() for tensor in parcel.tensors.values())
    there = parcel.to(torch.device("cuda"))
    torch.cuda.synchronize()
    assert all(there[name].is_cuda and torch.equal(there[name].cpu(), tensor) for name, tensor in known.items())
