"""Losses: against pixel-by-pixel references, and by what must hold of them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden.formulas import image
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import losses as reference
from torch import Tensor

from engine.loss import terms as losses

SIZE_PX = (9, 13)


def _images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(1, count, 3, *SIZE_PX, generator=torch.Generator().manual_seed(seed))


def _hwc(images: Tensor) -> np.ndarray:
    return images.movedim(-3, -1).double().numpy()


@pytest.mark.parametrize("use_ssim", [True, False])
def test_photometric_agrees_with_the_reference(use_ssim: bool) -> None:
    pred, target = _images(2)[0]
    found = losses.photometric(pred, losses.prepare_target(target, use_ssim=use_ssim))
    np.testing.assert_allclose(found.numpy(), reference.photometric(_hwc(pred), _hwc(target), use_ssim=use_ssim), atol=1e-5)


@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("with_automask", [True, False])
def test_the_reduction_agrees_with_the_reference(average: bool, with_automask: bool) -> None:
    sources, warped, target = _images(2, 1), _images(2, 2), _images(1, 3)
    prepared = losses.prepare_target(target)
    found = losses.reduce_sources(losses.photometric(warped, prepared), average=average)
    if with_automask:
        found, used = losses.automask(found, losses.reduce_sources(losses.photometric(sources, prepared), average=average))
        assert 0 < used.mean() < 1
    expected = reference.per_pixel_loss(
        list(_hwc(sources)[0]), list(_hwc(warped)[0]), _hwc(target)[0, 0], use_ssim=True, automask=with_automask, average=average
    )
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-5)


def test_smoothness_agrees_with_the_reference() -> None:
    disp, picture = 0.1 + 0.8 * image(2, 1, *SIZE_PX, 1.1), image(2, 3, *SIZE_PX, 0.0)
    expected = np.mean([reference.smoothness(disp[i, 0].double().numpy(), _hwc(picture[i])) for i in range(2)])
    assert losses.smoothness(disp, picture).item() == pytest.approx(expected, rel=1e-5)


def _by_the_formula(pred: Tensor, target: Tensor) -> Tensor:
    """The photometric loss as published, by plain operators."""

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x.flatten(0, -3), (1, 1, 1, 1), mode="reflect"), 3, 1).unflatten(0, x.shape[:-2])

    mean_x, mean_y = mean(pred), mean(target)
    spread = mean(pred**2) - mean_x**2 + mean(target**2) - mean_y**2
    numerator = (2 * mean_x * mean_y + 0.01**2) * (2 * (mean(pred * target) - mean_x * mean_y) + 0.03**2)
    ssim = numerator / ((mean_x**2 + mean_y**2 + 0.01**2) * (spread + 0.03**2))
    return 0.85 * ((1 - ssim) / 2).clamp(0, 1).mean(dim=-3) + 0.15 * (pred - target).abs().mean(dim=-3)


def test_the_gradient_of_smoothness_is_that_of_its_formula() -> None:
    disp = torch.rand(2, 1, 7, 9, dtype=torch.float64).add(0.1).float().requires_grad_()
    picture = torch.rand(2, 3, 7, 9)
    exact = disp.detach().double().requires_grad_()
    normalised = exact / (exact.mean(dim=(2, 3), keepdim=True) + 1e-7)
    edges = [picture.double().diff(dim=dim).abs().mean(dim=1, keepdim=True) for dim in (2, 3)]
    expected = sum((normalised.diff(dim=dim).abs() * (-edge).exp()).mean() for dim, edge in zip((2, 3), edges, strict=True))
    found = losses.smoothness(disp, picture)
    torch.testing.assert_close(found.double(), expected)
    gradients = [torch.autograd.grad(3.0 * loss, x)[0].double() for loss, x in ((found, disp), (expected, exact))]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-7)


@settings(max_examples=15, deadline=None)
@given(height_px=st.integers(2, 9), width_px=st.integers(2, 9))
def test_photometric_and_its_gradient_are_those_of_the_formula(height_px: int, width_px: int) -> None:
    pred = torch.rand(2, 2, 3, height_px, width_px, dtype=torch.float64, requires_grad=True)
    target = torch.rand(2, 1, 3, height_px, width_px, dtype=torch.float64)
    weights = torch.rand(2, 2, height_px, width_px, dtype=torch.float64)
    found, expected = losses.photometric(pred, losses.prepare_target(target)), _by_the_formula(pred, target.expand_as(pred))
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad((weights * each).sum(), pred)[0] for each in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_photometric_by_hand_is_as_exact_as_by_plain_operators() -> None:
    # Smooth images, whose variances are small differences of large means.
    pred, target = image(2, 3, 48, 64, 0.3).requires_grad_(), image(2, 3, 48, 64, 0.0)
    exact = pred.detach().double().requires_grad_()
    expected = _by_the_formula(exact, target.double())
    (true,) = torch.autograd.grad(expected.sum(), exact)
    errors = []
    for each in (losses.photometric(pred, losses.prepare_target(target)), _by_the_formula(pred, target)):
        (gradient,) = torch.autograd.grad(each.sum(), pred)
        errors.append(((each - expected).norm().item(), (gradient - true).norm().item()))
    by_hand, plain = errors
    assert by_hand[0] < 2 * plain[0]
    assert by_hand[1] < 2 * plain[1]


@given(seed=st.integers(0, 99), use_ssim=st.booleans())
@settings(max_examples=10, deadline=None)
def test_an_image_does_not_differ_from_itself(seed: int, use_ssim: bool) -> None:
    same = _images(1, seed)
    assert losses.photometric(same, losses.prepare_target(same, use_ssim=use_ssim)).abs().max().item() <= 2e-5


def test_a_tie_belongs_to_the_unmoved_source_and_to_the_first_source() -> None:
    equal = torch.full((1, 2, 2, 2), 0.5, requires_grad=True)
    least = losses.reduce_sources(equal, average=False)
    (gradient,) = torch.autograd.grad(least.sum(), equal, retain_graph=True)
    assert gradient[:, 0].eq(1).all()
    assert gradient[:, 1].eq(0).all()
    chosen, used = losses.automask(least, least.detach())
    assert used.sum() == 0
    assert not torch.autograd.grad(chosen.sum(), equal)[0].any()


def test_the_tie_break_is_small_centred_and_can_be_off() -> None:
    identity = torch.zeros(4, 64, 64)
    assert losses.tie_break(identity, torch.arange(4), 0.0) is identity
    noise = losses.tie_break(identity, torch.arange(4))
    assert noise.std().item() == pytest.approx(1e-5, rel=0.05)
    assert abs(noise.mean().item()) < 1e-6


def test_the_mask_loss_is_a_fifth_of_the_cross_entropy_with_one() -> None:
    mask = torch.rand(2, 2, 4, 4).clamp(min=1e-3)
    mask[0, 0, 0, 0] = 0.0
    assert losses.mask_loss(mask).item() == pytest.approx(0.2 * F.binary_cross_entropy(mask, torch.ones_like(mask)).item(), rel=1e-5)


def test_smoothness_ignores_the_unit_of_disp_and_spares_edges() -> None:
    disp = 0.2 + 0.6 * torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    flat, busy = torch.zeros(1, 3, 8, 8), _images(1)[0, :, :, :8, :8]
    assert losses.smoothness(3.0 * disp, flat).item() == pytest.approx(losses.smoothness(disp, flat).item(), rel=1e-4)
    assert losses.smoothness(disp, busy) < losses.smoothness(disp, flat)
    assert losses.smoothness(torch.full_like(disp, 0.3), flat) == 0


def test_autocast_around_it_changes_nothing() -> None:
    pred, target = _images(2)[0]
    expected = losses.photometric(pred, losses.prepare_target(target))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(losses.photometric(pred, losses.prepare_target(target)), expected, atol=0, rtol=0)
