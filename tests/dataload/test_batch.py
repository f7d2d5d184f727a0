"""What every user of a batch does with its tensors."""

import pytest
import torch
from steps import make_batch

from dataload.batch import Batch


def assert_same(one: Batch, other: Batch) -> None:
    assert (len(one.target), len(one.sources)) == (len(other.target), len(other.sources))
    for left, right in zip(one.tensors(), other.tensors(), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("source_levels", [1, 4])
def test_a_batch_is_what_its_tensors_make(source_levels: int) -> None:
    batch = make_batch(source_levels=source_levels)
    again = batch.with_tensors(batch.tensors())
    assert all(left is right for left, right in zip(again.tensors(), batch.tensors(), strict=True))
    assert_same(again, batch)
    assert again.indices is batch.indices


def test_parts_are_views_of_consecutive_samples() -> None:
    batch = make_batch(samples=6)
    for number, part in enumerate(batch.parts(3)):
        assert part.indices.tolist() == [2 * number, 2 * number + 1]
        assert_same(part, batch.samples(slice(2 * number, 2 * number + 2)))
        assert part.target_input.data_ptr() == batch.target_input[2 * number :].data_ptr()
    assert list(batch.parts(1)) == [batch]
    with pytest.raises(AssertionError, match="6 samples in 4 parts"):
        next(batch.parts(4))
