"""A network's predictions of many images: post-processing, order, batches."""

import copy

import numpy as np
import pytest
import torch
from golden.formulas import formula_numbers, image
from reference import metrics as plain
from torch import nn

from dataload.batch import Batch
from engine.inference.predictions import blend_flipped, predict_inv_depths


def test_published_post_processing() -> None:
    disp, flipped = image(1, 1, 4, 40, 0.0)[:, 0], image(1, 1, 4, 40, 0.7)[:, 0]
    blended = blend_flipped(disp, flipped)
    found = [blended.double().mean().item(), *blended[0, 1, :6].tolist()]
    assert found == pytest.approx(formula_numbers()["postproc mean, [0,1,:6]"], rel=1e-6)


def test_post_processing_twin() -> None:
    rng = np.random.default_rng(0)
    disp, flipped = rng.random((2, 5, 64))
    found = blend_flipped(torch.from_numpy(disp), torch.from_numpy(flipped)).numpy()
    np.testing.assert_allclose(found, plain.blend_flipped(disp, flipped), rtol=1e-12)


def _batches(images: torch.Tensor, batch_size: int) -> list[Batch]:
    K, T, none = torch.eye(3), torch.eye(4), torch.empty(0)
    return [Batch((part,), (), part, none, K, T, none) for part in images.split(batch_size)]


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[needs_gpu, pytest.mark.gpu])])
@pytest.mark.parametrize("batch_size", [2, 5])
@pytest.mark.parametrize("post_process", [False, True])
def test_predictions_keep_their_order_whatever_the_batch_size(post_process: bool, batch_size: int, device: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 1, 3, padding=1), nn.Sigmoid())
    images = torch.randint(0, 256, (5, 3, 6, 44), dtype=torch.uint8)
    batches = _batches(images.to(device), batch_size)
    blocks = predict_inv_depths(copy.deepcopy(network).to(device), batches, min_depth=0.1, max_depth=100.0, post_process=post_process)
    found = np.concatenate(list(blocks))
    with torch.no_grad():
        disp = network(images / 255.0)[:, 0].numpy()
        flipped = network(images.flip(-1) / 255.0)[:, 0].flip(-1).numpy()
    if post_process:
        disp = np.stack([plain.blend_flipped(*pair) for pair in zip(disp, flipped, strict=True)])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 0.01 + 9.99 * disp, rtol=1e-5 if device == "cpu" else 1e-2)
