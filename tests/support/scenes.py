"""What the tests of the fused losses share: random scenes and a small step, on a GPU where there is one."""

from typing import Any

import pytest
import torch
from published import networks_of, step_of
from reference import photometric as reference
from steps import make_batch
from torch import Tensor

from benchmarks.step_inputs import to_device
from dataload.batch import Batch
from engine import geometry
from engine.training.step import TrainStep

# The kernels are made as this is imported: for the interpreter, unless there is a GPU (see conftest).
photometric_triton = pytest.importorskip("engine.loss.photometric_triton")
operators = pytest.importorskip("engine.loss.photometric_triton.operators")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SWITCHES = [
    {"ssim": True, "average": False, "automask": True},
    {"ssim": True, "average": True, "automask": True},
    {"ssim": True, "average": False, "automask": False},
    {"ssim": False, "average": False, "automask": True},
    {"ssim": False, "average": True, "automask": False},
]


class Scene:
    """Random disparities and motions, and images that are noise on a pattern, so that windows differ in all their statistics."""

    def __init__(self, size_px: tuple[int, int], *, samples: int = 2, num_sources: int = 2, num_scales: int = 1, seed: int = 0) -> None:
        random = torch.Generator().manual_seed(seed)
        height_px, width_px = size_px
        if DEVICE == "cpu":
            operators.ROWS = height_px
        y, x = torch.meshgrid(torch.arange(height_px + 4), torch.arange(width_px + 8), indexing="ij")
        noise = torch.rand(samples, 3, *x.shape, generator=random)
        pattern = (255 * (0.5 + 0.3 * torch.sin(x / 3 + y / 5) + 0.4 * (noise - 0.5))).clamp(0, 255).to(torch.uint8)
        views = [
            pattern[..., dy : dy + height_px, dx : dx + width_px] for dy, dx in ((2, 4), (2, 2), (1, 6), (3, 5), (0, 3), (4, 4), (2, 7))
        ]
        self.target, self.sources = views[0].contiguous().to(DEVICE), torch.stack(views[1 : 1 + num_sources], dim=1).to(DEVICE)
        self.disps = [
            (0.02 + 0.4 * torch.rand(samples, 1, height_px >> s, width_px >> s, generator=random)).to(DEVICE) for s in range(num_scales)
        ]
        K = [[0.58 * width_px, 0, 0.5 * width_px], [0, 1.92 * height_px, 0.5 * height_px], [0, 0, 1]]
        self.K = torch.tensor(K).repeat(samples, 1, 1).to(DEVICE)
        motions = (0.02 * torch.randn(2, samples * num_sources, 3, generator=random)).to(DEVICE)
        self.T = geometry.transform_from_axisangle(motions[0], motions[1]).unflatten(0, (samples, num_sources))

    def fused(self, *, ssim: bool, average: bool, automask: bool) -> tuple[Tensor, list[Tensor]]:
        """The losses by scale, and the gradients of their weighted sum with respect to disparities and transforms."""
        disps, T = [disp.clone().requires_grad_() for disp in self.disps], self.T.clone().requires_grad_()
        target, sources = photometric_triton.pack(self.target), photometric_triton.pack(self.sources)
        identity = None
        if automask:
            seeds = torch.zeros(len(target), dtype=torch.int64, device=DEVICE)
            identity = photometric_triton.identity_loss(target, sources, seeds, noise=0.0, ssim=ssim, average=average)
        motions = geometry.pixel_motions(self.K, T)
        losses = photometric_triton.photometric(
            disps, motions.expand(len(disps), *motions.shape), target, sources, identity,
            min_depth=0.1, max_depth=100.0, ssim=ssim, average=average,
        )  # fmt: skip
        return losses, gradients(losses, [*disps, T])

    def plain(self, *, ssim: bool, average: bool, automask: bool) -> tuple[Tensor, list[Tensor]]:
        """The same in float64."""
        disps, T = [disp.double().requires_grad_() for disp in self.disps], self.T.double().requires_grad_()
        losses = reference.losses_by_scale(
            disps, self.K.double(), T, self.target, self.sources, ssim=ssim, average=average, automask=automask
        )
        return losses, gradients(losses, [*disps, T])


def gradients(losses: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """Of the sum of losses, the s-th counted s + 1 times."""
    weights = 1 + torch.arange(len(losses), device=losses.device)
    return list(torch.autograd.grad((losses * weights).sum(), leaves))


def small_step(
    frame_ids: tuple[int, ...] = (0, -1, 1), use_stereo: bool = False, samples: int = 1, **options: Any
) -> tuple[TrainStep, Batch]:
    """A step without noise on images of 64x96, and its batch."""
    torch.manual_seed(0)
    frames = {"frame_ids": frame_ids, "use_stereo": use_stereo}
    shape = {key: options[key] for key in ("pose_model_type", "scales") if key in options}
    step = step_of(networks_of(**frames, **shape), **frames, noise=0.0, **options).to(DEVICE)
    batch = make_batch(**frames, samples=samples, source_levels=4 if options.get("v1_multiscale") else 1)
    return step, to_device(batch, torch.device(DEVICE))
