"""From disparity and motion to sampling positions, in fp32 whatever the precision around it.

Every function switches autocast off: half precision here costs up to ten pixels of position, TF32 half a pixel. Products of
pixels are written as multiply-adds, never as matrix products, so that no matmul precision setting reaches them.

``T_a_b`` maps points of camera b into camera a: p_a = T_a_b @ p_b. Pixel centres lie at whole numbers.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

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
    with torch.autocast(axisangle.device.type, enabled=False):
        R = rotation_from_axisangle(axisangle)
        t = translation.float()[:, :, None]
        if invert:
            R = R.transpose(1, 2)
            t = -matrix_product(R, t)
        last_row = F.pad(torch.ones_like(t[:, :1]), (3, 0))
        return torch.cat([torch.cat([R, t], dim=2), last_row], dim=1)


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
        height_px, width_px = depth.shape[-2:]
        x = torch.arange(width_px, dtype=torch.float32, device=depth.device)
        y = torch.arange(height_px, dtype=torch.float32, device=depth.device)[:, None]
        columns = _columns(K_inv.float())
        return depth.float() * (columns[0] * x + columns[1] * y + columns[2])


def project(points: Float[Tensor, "*#N 3 H W"], K: Float[Tensor, "*#N 3 3"], T: Float[Tensor, "*#N 4 4"]) -> Float[Tensor, "*#N H W 2"]:
    """Where camera T, K sees ``points``, as x and y from -1 (first pixel centre) to 1 (last): q = K T p, (x, y) = q_xy / (q_z + 1e-7).

    Points behind the camera are not told apart.
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


def warp(source: Float[Tensor, "B C H W"], grid: Float[Tensor, "B h w 2"]) -> Float[Tensor, "B C h w"]:
    """``source`` sampled bilinearly at ``grid`` (-1..1, pixel centres at the ends); beyond the border, the border's value."""
    with torch.autocast(source.device.type, enabled=False):
        if grid.device.type == "cpu":
            # torch's CPU backward crashes the process on a NaN position; a GPU's samples the border.
            grid = grid.nan_to_num(nan=0.0)
        return F.grid_sample(source.float(), grid.float(), mode="bilinear", padding_mode="border", align_corners=True)


def sampling_grids(depth: Float[Tensor, "B 1 H W"], K: Float[Tensor, "B 3 3"], T: Float[Tensor, "B S 4 4"]) -> Float[Tensor, "B S H W 2"]:
    """Where each of S sources sees each target pixel, for T_source_target; target and sources share K."""
    points = backproject(depth, invert_K(K))
    return project(points[:, None], K[:, None], T)
