"""Geometry: against one-pixel-at-a-time references, and by what must hold of it."""

import numpy as np
import pytest
import torch
from golden.formulas import image, nominal_K, stereo_transforms
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import geometry as reference

from engine import geometry

SIZE_PX = (12, 20)
ANGLES = st.tuples(*[st.floats(-1.5, 1.5)] * 3)
SHIFTS = st.tuples(*[st.floats(-2.0, 2.0)] * 3)


def _depth(seed: int = 0) -> torch.Tensor:
    return 2.0 + 8.0 * torch.rand(2, 1, *SIZE_PX, generator=torch.Generator().manual_seed(seed))


def test_warp_agrees_with_the_reference() -> None:
    source, depth, K = image(2, 3, *SIZE_PX, 0.3), _depth(), nominal_K(2, *SIZE_PX)
    axisangle, translation = torch.tensor([[0.02, -0.05, 0.03], [0.0, 0.0, 0.0]]), torch.tensor([[0.3, -0.1, 0.5], [-0.4, 0.0, 0.2]])
    T = geometry.transform_from_axisangle(axisangle, translation)
    grids = geometry.sampling_grids(depth, K, T[:, None])
    warped = geometry.warp(source, grids[:, 0])
    for i in range(2):
        T_reference = np.eye(4)
        T_reference[:3, :3] = reference.rotation(axisangle[i].double().numpy())
        T_reference[:3, 3] = translation[i].numpy()
        expected = reference.warp(
            source[i].permute(1, 2, 0).double().numpy(), depth[i, 0].double().numpy(), K[i].double().numpy(), T_reference
        )
        np.testing.assert_allclose(warped[i].permute(1, 2, 0).numpy(), expected, atol=2e-5)


@settings(max_examples=25, deadline=None)
@given(angles=ANGLES)
def test_rotation_is_the_matrix_exponential(angles: tuple[float, float, float]) -> None:
    R = geometry.rotation_from_axisangle(torch.tensor([angles]))[0]
    np.testing.assert_allclose(R.numpy(), reference.rotation(np.array(angles)), atol=3e-6)


@settings(max_examples=25, deadline=None)
@given(angles=ANGLES, shift=SHIFTS)
def test_the_inverted_transform_undoes_the_transform(angles: tuple[float, ...], shift: tuple[float, ...]) -> None:
    motion = torch.tensor([angles]), torch.tensor([shift])
    there, back = geometry.transform_from_axisangle(*motion), geometry.transform_from_axisangle(*motion, invert=True)
    torch.testing.assert_close(geometry.matrix_product(there, back), torch.eye(4)[None], atol=2e-6, rtol=0)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99), fx=st.floats(5, 50), fy=st.floats(5, 50), cx=st.floats(0, 20), cy=st.floats(0, 12))
def test_an_identity_warp_returns_the_image(seed: int, fx: float, fy: float, cx: float, cy: float) -> None:
    source = torch.rand(2, 3, *SIZE_PX, generator=torch.Generator().manual_seed(seed))
    K = torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]).expand(2, 3, 3)
    grids = geometry.sampling_grids(_depth(seed), K, torch.eye(4).expand(2, 1, 4, 4))
    torch.testing.assert_close(geometry.warp(source, grids[:, 0]), source, atol=3e-5, rtol=0)


def test_a_sideways_step_before_a_wall_shifts_by_whole_pixels() -> None:
    source, K = image(2, 3, *SIZE_PX, 0.0), nominal_K(2, *SIZE_PX)
    depth_m, shift_px = 4.0, 3
    T = stereo_transforms(*[-shift_px * depth_m / K[0, 0, 0].item()] * 2)
    warped = geometry.warp(source, geometry.sampling_grids(torch.full((2, 1, *SIZE_PX), depth_m), K, T[:, None])[:, 0])
    torch.testing.assert_close(warped[..., shift_px:], source[..., :-shift_px], atol=1e-5, rtol=0)
    # Beyond the border stands the border's value.
    torch.testing.assert_close(warped[..., :shift_px], source[..., :1].expand(-1, -1, -1, shift_px), atol=1e-5, rtol=0)


@given(disp=st.floats(0, 1), min_depth=st.floats(0.01, 1), span=st.floats(1.5, 1000))
def test_depth_stays_in_its_range_and_inverts_inv_depth(disp: float, min_depth: float, span: float) -> None:
    max_depth = min_depth * span
    inv_depth, depth = geometry.disp_to_depth(torch.full((1, 1, 1, 1), disp), min_depth, max_depth)
    assert min_depth * 0.9999 <= depth.item() <= max_depth * 1.0001
    assert inv_depth.item() * depth.item() == pytest.approx(1.0, rel=1e-5)


def test_intrinsics_invert_and_scale() -> None:
    K = nominal_K(2, 192, 640)
    torch.testing.assert_close(geometry.matrix_product(K, geometry.invert_K(K)), torch.eye(3).expand(2, 3, 3))
    torch.testing.assert_close(geometry.K_at_level(K, 2), nominal_K(2, 48, 160))


def test_autocast_around_it_changes_nothing() -> None:
    source, depth, K = image(2, 3, *SIZE_PX, 0.3), _depth(), nominal_K(2, *SIZE_PX)
    motion = torch.tensor([[0.02, -0.05, 0.03]] * 2), torch.tensor([[0.3, -0.1, 0.5]] * 2)

    def warped() -> torch.Tensor:
        T = geometry.transform_from_axisangle(*motion)
        return geometry.warp(source, geometry.sampling_grids(depth, K, T[:, None])[:, 0])

    expected = warped()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(warped(), expected, atol=0, rtol=0)


def test_grids_and_their_gradients_are_those_of_the_plain_formula() -> None:
    K = nominal_K(2, *SIZE_PX)
    inputs = [
        _depth().requires_grad_(),
        geometry.transforms_from_axisangles(
            [torch.tensor([[0.02, -0.05, 0.03]] * 2), torch.tensor([[-0.1, 0.0, 0.2]] * 2)], [torch.full((2, 3), 0.3)] * 2, [False, True]
        ).requires_grad_(),
    ]
    found = geometry.sampling_grids(inputs[0], K, inputs[1])
    weights = torch.rand(found.shape, generator=torch.Generator().manual_seed(1))
    exact = [each.detach().double().requires_grad_() for each in inputs]
    y, x = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in SIZE_PX), indexing="ij")
    points = exact[0] * (torch.linalg.inv(K.double()) @ torch.stack([x, y, torch.ones_like(x)]).flatten(1)).unflatten(2, SIZE_PX)
    seen = (K.double()[:, None] @ exact[1][..., :3, :3]) @ points.flatten(2)[:, None] + K.double()[:, None] @ exact[1][..., :3, 3:]
    pixels = (seen[..., :2, :] / (seen[..., 2:, :] + geometry.EPSILON)).unflatten(-1, SIZE_PX).movedim(2, -1)
    expected = 2.0 * pixels / torch.tensor([SIZE_PX[1] - 1.0, SIZE_PX[0] - 1.0], dtype=torch.float64) - 1.0
    torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=0)
    for got, true in zip(
        torch.autograd.grad((found * weights).sum(), inputs), torch.autograd.grad((expected * weights).sum(), exact), strict=True
    ):
        # The last row of a transform is read by neither.
        torch.testing.assert_close(got.double(), true, rtol=1e-4, atol=1e-5 * true.abs().max().item())


def test_motions_at_once_are_each_by_itself() -> None:
    axisangles, translations, inverted = torch.rand(3, 2, 3).unbind(), torch.rand(3, 2, 3).unbind(), (True, False, True)
    found = geometry.transforms_from_axisangles(axisangles, translations, inverted)
    for i in range(3):
        R = geometry.rotation_from_axisangle(axisangles[i])
        t = translations[i][:, :, None]
        expected = torch.cat([R.mT, -R.mT @ t], dim=2) if inverted[i] else torch.cat([R, t], dim=2)
        torch.testing.assert_close(found[:, i, :3], expected)


def test_a_position_that_is_no_number_takes_the_first_pixel() -> None:
    source, grid = image(1, 3, *SIZE_PX, 0.3), torch.zeros(1, 1, 2, 2)
    grid[0, 0, 0] = float("nan")
    torch.testing.assert_close(geometry.warp(source, grid)[..., 0, 0], source[..., 0, 0])


def test_positions_that_are_no_numbers_do_not_end_the_process() -> None:
    # torch's CPU backward of grid_sample writes out of bounds there.
    grid = torch.full((1, 64, 96, 2), float("nan"), requires_grad=True)
    geometry.warp(torch.rand(1, 3, 64, 96), grid).sum().backward()
    assert grid.grad is not None
    assert torch.equal(grid.grad, torch.zeros_like(grid))
