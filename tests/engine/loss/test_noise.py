"""The tie-break's noise: Gaussian, and the same for a sample whatever batch, chunk, part or process it is in."""

from collections.abc import Callable, Sequence

import pytest
import torch
from steps import SIZE_PX, make_batch, make_step
from torch import Tensor

from dataload.batch import Batch
from engine.loss import objective
from engine.loss.noise import sample_seeds, standard_normal
from engine.loss.objective import Objective, Predictions

# Far apart and side by side, as a shuffled list has them.
INDICES = torch.tensor([7, 39000, 8, 0, 123456, 1])
SEED = torch.tensor(2**62 + 12345)
# As large as the losses: a sample with other noise has another loss.
NOISE = 0.3


def test_the_noise_is_gaussian() -> None:
    noise = standard_normal(sample_seeds(SEED, INDICES), (96, 320)).double()
    count = noise.numel()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((noise**power).mean().item() - moment) < 4 * (variance / count) ** 0.5, power
    assert 4 < noise.abs().max() < 6


def test_no_pixel_sample_or_seed_follows_another() -> None:
    seeds = [0, 1, 2, 2**32, 2**33, 2**63 - 1, int(SEED)]
    noise = torch.cat([standard_normal(sample_seeds(torch.tensor(seed), INDICES), (64, 96)) for seed in seeds]).flatten(1)
    between = torch.corrcoef(noise).fill_diagonal_(0.0).abs()
    assert between.max() < 5 / noise.shape[1] ** 0.5
    for lag in (1, 2, 95, 96, 97, 192):
        assert abs((noise[:, lag:] * noise[:, :-lag]).mean().item()) < 4 / noise.numel() ** 0.5, lag


def test_seeds_of_samples_wrap_around() -> None:
    found = sample_seeds(SEED, INDICES)
    assert found.tolist() == [(int(SEED) + 6364136223846793005 * index + 2**63) % 2**64 - 2**63 for index in INDICES.tolist()]
    assert torch.equal(sample_seeds(None, INDICES), sample_seeds(torch.tensor(0), INDICES))


@pytest.mark.slow
def test_compiled_the_noise_is_the_same() -> None:
    def noise(indices: Tensor) -> Tensor:
        return standard_normal(sample_seeds(SEED, indices), SIZE_PX)

    torch.testing.assert_close(torch.compile(noise, fullgraph=True)(INDICES), noise(INDICES), rtol=1e-5, atol=1e-6)


def by_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a CPU does it: two samples at a time."""
    monkeypatch.setattr(objective, "CHUNK_PIXELS", 2 * 2 * SIZE_PX[0] * SIZE_PX[1])


def by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a compiled step or a GPU without Triton does it: all at once."""

    def all_at_once(self: Objective, predictions: Predictions, batch: Batch, noise_seed: Tensor) -> objective.LossTerms:
        per_scale = torch.stack([result.loss for result in self.results(predictions, batch, noise_seed).values()])
        return objective.LossTerms(per_scale.mean(), per_scale.detach().unbind())

    monkeypatch.setattr(Objective, "__call__", all_at_once)


def by_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU does it; here in Triton's interpreter, which takes wide blocks quickest."""
    operators = pytest.importorskip("engine.loss.photometric_triton.operators")
    monkeypatch.setattr(objective, "FUSED_DEVICES", ("cpu",))
    monkeypatch.setattr(operators, "LANES", 128)
    monkeypatch.setattr(operators, "ROWS", 8)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are made for a GPU, and the tensors lie on the CPU")
@pytest.mark.parametrize("way", [by_chunks, by_torch, pytest.param(by_kernels, marks=pytest.mark.slow)])
def test_a_batch_is_the_mean_of_its_parts_in_any_order(way: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    way(monkeypatch)
    # Images so small that the interpreter can take many.
    step, _ = make_step(noise=NOISE, v1_multiscale=True, scales=(3,))
    batch = make_batch(samples=6)._replace(indices=INDICES)
    predictions = step.predict(batch)

    def of(rows: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """The loss of these samples, and its gradients with respect to disps and motions, sample by sample."""
        picked = list(rows)
        disps = {scale: disp.detach()[picked].requires_grad_() for scale, disp in predictions.disps.items()}
        motions = [(a.detach()[picked].requires_grad_(), t.detach()[picked].requires_grad_()) for a, t in predictions.motions]
        part = batch.with_tensors([tensor[picked] for tensor in batch.tensors()])
        loss = step.objective(Predictions(disps, motions=motions), part, SEED).loss
        return loss.detach(), list(torch.autograd.grad(loss, [*disps.values(), *(each for motion in motions for each in motion)]))

    loss, gradients = of(range(6))
    for parts in ([[5, 3, 1, 0, 2, 4]], [[0, 1, 2], [3, 4, 5]], [[5, 0], [4, 1], [3, 2]]):
        losses, found = zip(*map(of, parts), strict=True)
        torch.testing.assert_close(torch.stack(losses).mean(), loss, rtol=1e-6, atol=0)
        order = torch.tensor(parts).flatten().argsort()
        for number, expected in enumerate(gradients):
            together = torch.cat([of_part[number] for of_part in found])[order] / len(parts)
            torch.testing.assert_close(together, expected, rtol=1e-5, atol=1e-4 * expected.abs().max().item())
    other = step.objective(predictions, batch._replace(indices=INDICES + 1), SEED).loss
    assert abs(other.item() - loss.item()) > 1e-4 * loss.item(), "the noise counts in the loss"
