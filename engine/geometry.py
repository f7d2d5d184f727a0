"""From disparity and motion to sampling positions, in fp32 whatever the precision around it.

Every function switches autocast off: half precision here costs up to ten pixels of position, TF32 half a pixel. Products of
pixels are written as multiply-adds, never as matrix products, so that no matmul precision setting reaches them.

``T_a_b`` maps points of camera b into camera a: p_a = T_a_b @ p_b. Pixel centres lie at whole numbers.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

# Keeps the axis of a zero rotation and the projection of a point in the camera plane finite.
EPSILON = 1e-7


def disp_to_depth(
    disp: Float[Tensor, "*N H W"], min_depth: float, max_depth: float
) -> tuple[Float[Tensor, "*N H W"], Float[Tensor, "*N H W"]]:
    """``(inv_depth in 1/m, depth in m)`` of a sigmoid output: inv_depth = 1/max + (1/min - 1/max) disp."""
    with torch.autocast(disp.device.type, enabled=False):
        lowest, highest = 1.0 / max_depth, 1.0 / min_depth
        inv_depth = lowest + (highest - lowest) * disp.float()
        return inv_depth, 1.0 / inv_depth


def matrix_product(a: Float[Tensor, "*#N n k"], b: Float[Tensor, "*#N k m"]) -> Float[Tensor, "*#N n m"]:
    """a @ b of small matrices by multiply and sum, in full fp32 on any device."""
    return (a[..., :, :, None] * b[..., None, :, :]).sum(dim=-2)


def rotation_from_axisangle(axisangle: Float[Tensor, "B 3"]) -> Float[Tensor, "B 3 3"]:
    """Rodrigues' formula: R = cos I + sin [a]x + (1 - cos) a aT, with angle |v| in radians and axis a = v / (|v| + 1e-7)."""
    with torch.autocast(axisangle.device.type, enabled=False):
        axisangle = axisangle.float()
        angle = torch.linalg.vector_norm(axisangle, dim=1, keepdim=True)
        axis = axisangle / (angle + EPSILON)
        cos, sin = torch.cos(angle), torch.sin(angle)
        outer = (1.0 - cos)[:, :, None] * axis[:, :, None] * axis[:, None, :]
        x, y, z = (sin * axis).unbind(dim=1)
        c = cos[:, 0]
        zero = torch.zeros_like(c)
        turned = torch.stack([c, -z, y, z, c, -x, -y, x, c + zero], dim=1).unflatten(1, (3, 3))
        return outer + turned


def transform_from_axisangle(
    axisangle: Float[Tensor, "B 3"], translation: Float[Tensor, "B 3"], invert: bool = False
) -> Float[Tensor, "B 4 4"]:
    """The rigid transform p -> R p + t, or with ``invert`` its inverse p -> RT (p - t)."""
    return transforms_from_axisangles([axisangle], [translation], [invert])[:, 0]


def transforms_from_axisangles(
    axisangles: Sequence[Float[Tensor, "B 3"]], translations: Sequence[Float[Tensor, "B 3"]], inverted: Sequence[bool]
) -> Float[Tensor, "B N 4 4"]:
    """``transform_from_axisangle`` of N motions, at least one, at once."""
    with torch.autocast(axisangles[0].device.type, enabled=False):
        # The inverse of a rotation turns by as much about the opposite axis.
        vectors = torch.stack([-vector if invert else vector for vector, invert in zip(axisangles, inverted, strict=True)], dim=1)
        R = rotation_from_axisangle(vectors.flatten(0, 1)).unflatten(0, vectors.shape[:2])
        t = torch.stack(list(translations), dim=1).float()[..., None]
        if any(inverted):
            turned = -matrix_product(R, t)
            t = torch.stack([(turned if invert else t)[:, i] for i, invert in enumerate(inverted)], dim=1)
        last_row = F.pad(torch.ones_like(t[..., :1, :]), (3, 0))
        return torch.cat([torch.cat([R, t], dim=-1), last_row], dim=-2)


def K_at_level(K: Float[Tensor, "B 3 3"], level: int) -> Float[Tensor, "B 3 3"]:
    """Intrinsics in pixels of pyramid level ``level``: focal lengths and centre halved ``level`` times."""
    return torch.cat([K[:, :2] * 0.5**level, K[:, 2:]], dim=1)


def invert_K(K: Float[Tensor, "B 3 3"]) -> Float[Tensor, "B 3 3"]:
    """The inverse of pinhole intrinsics without skew: pixel (u, v) looks along ((u - cx) / fx, (v - cy) / fy, 1)."""
    fx, fy, cx, cy = K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2]
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    return torch.stack([1.0 / fx, zero, -cx / fx, zero, 1.0 / fy, -cy / fy, zero, zero, one], dim=1).unflatten(1, (3, 3))


def backproject(depth: Float[Tensor, "B 1 H W"], K_inv: Float[Tensor, "B 3 3"]) -> Float[Tensor, "B 3 H W"]:
    """Points in metres before the camera: p = depth K_inv (x, y, 1), with ``depth`` in metres."""
    with torch.autocast(depth.device.type, enabled=False):
        depth = depth.float()
        x, y = _pixel_centres(depth)
        columns = _columns(K_inv.float())
        return depth * (columns[0] * x + columns[1] * y + columns[2])


def project(points: Float[Tensor, "*#N 3 H W"], K: Float[Tensor, "*#N 3 3"], T: Float[Tensor, "*#N 4 4"]) -> Float[Tensor, "*#N H W 2"]:
    """Where camera T, K sees ``points``, as x and y from -1 (first pixel centre) to 1 (last): q = K T p, (x, y) = q_xy / (q_z + 1e-7).

    Points behind the camera are treated like those in front of it.
    """
    with torch.autocast(points.device.type, enabled=False):
        height_px, width_px = points.shape[-2:]
        columns = _columns(matrix_product(K.float(), T[..., :3, :].float()))
        x, y, z = points.float().split(1, dim=-3)
        q = torch.addcmul(torch.addcmul(columns[0] * x, columns[1], y), columns[2], z) + columns[3]
        xy = q[..., :2, :, :] / (q[..., 2:, :, :] + EPSILON)
        x, y = xy[..., 0, :, :] * (2.0 / (width_px - 1)) - 1.0, xy[..., 1, :, :] * (2.0 / (height_px - 1)) - 1.0
        return torch.stack([x, y], dim=-1)


def _columns(matrix: Tensor) -> tuple[Tensor, ...]:
    """The columns of (..., 3, n) as n tensors (..., 3, 1, 1), to be multiplied with maps."""
    return matrix[..., None, None].unbind(dim=-3)


def pixel_motions(K: Float[Tensor, "B 3 3"], T: Float[Tensor, "*N B S 4 4"]) -> Float[Tensor, "*N B S 3 4"]:
    """[A b] such that target pixel (x, y) at ``depth`` is the sources' pixel q = depth A (x, y, 1) + b, in homogeneous form."""
    K_T = matrix_product(K[:, None], T[..., :3, :])
    return torch.cat([matrix_product(K_T[..., :3], invert_K(K)[:, None]), K_T[..., 3:]], dim=-1)


def warp(source: Float[Tensor, "B C H W"], grid: Float[Tensor, "B h w 2"]) -> Float[Tensor, "B C h w"]:
    """``source`` sampled bilinearly at ``grid`` (-1..1, pixel centres at the ends); beyond the border, the border's value.

    A position that is no number takes the first pixel, and has no gradient.
    """
    with torch.autocast(source.device.type, enabled=False):
        # torch's backward on a CPU crashes the process at a NaN position; on a GPU it samples the first pixel by itself.
        if grid.device.type == "cpu" and (torch.compiler.is_compiling() or not grid.sum().isfinite()):
            grid = grid.nan_to_num(nan=-1.0)
        return F.grid_sample(source.float(), grid.float(), mode="bilinear", padding_mode="border", align_corners=True)


def sampling_grids(depth: Float[Tensor, "B 1 H W"], K: Float[Tensor, "B 3 3"], T: Float[Tensor, "B S 4 4"]) -> Float[Tensor, "B S H W 2"]:
    """Where each of S sources sees each target pixel, for T_source_target; target and sources share K."""
    if depth.device.type == "cpu" and not torch.compiler.is_compiling():
        with torch.autocast("cpu", enabled=False):
            grids: Tensor = _SamplingGrids.apply(depth.float(), *_pixels_to_grid(K.float(), T.float(), depth.shape[-2:]))
            return grids
    points = backproject(depth, invert_K(K))
    return project(points[:, None], K[:, None], T)


def _pixels_to_grid(K: Tensor, T: Tensor, size_px: Sequence[int]) -> tuple[Tensor, Tensor]:
    """``(M, t)`` such that q = depth M (x, y, 1) + t has the grid position q_xy / q_z of target pixel (x, y); (B, S, 3, 3), (B, S, 3)."""
    height_px, width_px = size_px
    # From pixels q to -1..1: 2 q_x / (W - 1) - q_z, as everything is divided by q_z afterwards.
    to_grid = torch.tensor([[2.0 / (width_px - 1), 0.0, -1.0], [0.0, 2.0 / (height_px - 1), -1.0], [0.0, 0.0, 1.0]])
    K_T = matrix_product(matrix_product(to_grid, K)[:, None], T[..., :3, :])
    shift = EPSILON * torch.tensor([-1.0, -1.0, 1.0])
    return matrix_product(K_T[..., :3], invert_K(K)[:, None]), K_T[..., 3] + shift


class _SamplingGrids(torch.autograd.Function):
    """q_xy / q_z of q = depth M (x, y, 1) + t, its backward written out: on a CPU, passes over memory dominate the cost."""

    @staticmethod
    def forward(ctx: Any, depth: Tensor, M: Tensor, t: Tensor) -> Tensor:
        """(B, 1, H, W), (B, S, 3, 3), (B, S, 3) to (B, S, H, W, 2)."""
        x, y = _pixel_centres(depth)
        m = M[..., None, None]
        rays = m[..., 0, :, :] * x + (m[..., 1, :, :] * y + m[..., 2, :, :])
        q = torch.addcmul(t[..., None, None], rays, depth[:, None], out=rays)
        inverse = q[..., 2, :, :].reciprocal()
        grids = q[..., :2, :, :] * inverse[..., None, :, :]
        ctx.save_for_backward(depth, t, inverse, grids)
        return grids.movedim(-3, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of depth, M and t."""
        depth, t, inverse, grids = ctx.saved_tensors
        x, y = _pixel_centres(depth)
        of_q = grids.new_empty(*t.shape, *depth.shape[-2:])
        torch.mul(upstream.movedim(-1, -3), inverse[..., None, :, :], out=of_q[..., :2, :, :])
        of_x, of_y, of_z = of_q.unbind(dim=-3)
        torch.mul(of_x, grids[..., 0, :, :], out=of_z).addcmul_(of_y, grids[..., 1, :, :]).neg_()
        # Along q nothing changes, so q - depth M (x, y, 1) = t tells the same of depth as M (x, y, 1) does.
        turned = torch.addcmul(t[..., :2, None, None], grids, t[..., 2:, None, None], value=-1.0)
        of_depth = turned.mul_(of_q[..., :2, :, :]).sum(dim=(1, 2)).div_(depth[:, 0]).neg_()[:, None]
        of_t = of_q.sum(dim=(-2, -1))
        of_points = of_q.mul_(depth[:, None])
        over_rows, over_columns = of_points.sum(dim=-1), of_points.sum(dim=-2)
        of_M = torch.stack([(over_columns * x[0]).sum(-1), (over_rows * y[:, 0]).sum(-1), over_rows.sum(-1)], dim=-1)
        return of_depth, of_M, of_t


def _pixel_centres(depth: Tensor) -> tuple[Tensor, Tensor]:
    """x of each column (1, W) and y of each row (H, 1)."""
    x = torch.arange(depth.shape[-1], dtype=depth.dtype, device=depth.device)
    y = torch.arange(depth.shape[-2], dtype=depth.dtype, device=depth.device)
    return x[None], y[:, None]
