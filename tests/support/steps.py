"""What the tests of training share: a small step, its batch, its gradients."""

from typing import Any

import torch
from golden.formulas import NUM_LEVELS, image, nominal_K, stereo_transforms
from published import networks_of, step_of

from dataload.batch import Batch
from engine.networks import Networks
from engine.training.step import TrainStep

SIZE_PX = (64, 96)
MONO = (0, -1, 1)


def make_batch(frame_ids: tuple[int, ...] = MONO, use_stereo: bool = False, *, source_levels: int = NUM_LEVELS, samples: int = 2) -> Batch:
    """Sine patterns that move a little from frame to frame, channels last in memory as the loader ships them."""

    def frame(phase: float, level: int) -> torch.Tensor:
        pattern = image(samples, 3, SIZE_PX[0] >> level, SIZE_PX[1] >> level, phase)
        return (255 * pattern).to(torch.uint8).contiguous(memory_format=torch.channels_last)

    phases = [0.3 * offset for offset in frame_ids[1:]] + ([0.5] if use_stereo else [])
    temporal = [frame(phase, 0) for phase in phases[: len(frame_ids) - 1]]
    return Batch(
        target=tuple(frame(0.0, level) for level in range(NUM_LEVELS)),
        sources=tuple(torch.stack([frame(phase, level) for phase in phases], dim=1) for level in range(source_levels)),
        target_input=frame(0.0, 0),
        source_inputs=torch.stack(temporal, dim=1) if temporal else torch.empty(samples, 0, 3, *SIZE_PX, dtype=torch.uint8),
        K=nominal_K(samples, *SIZE_PX).contiguous(),
        T_stereo=stereo_transforms(*[0.1 * use_stereo * (-1) ** (i + 1) for i in range(samples)]),
        indices=torch.arange(samples),
    )


def make_step(seed: int = 0, **options: Any) -> tuple[TrainStep, Batch]:
    """A step on small networks with those options, and a batch for it."""
    torch.manual_seed(seed)
    frames = {"frame_ids": options.pop("frame_ids", MONO), "use_stereo": options.pop("use_stereo", False)}
    shape = {key: options[key] for key in ("pose_model_type", "pose_model_input", "predictive_mask", "scales") if key in options}
    step = step_of(networks_of(**frames, **shape), **frames, **options)
    return step, make_batch(**frames, source_levels=NUM_LEVELS if options.get("v1_multiscale") else 1)


def gradients(networks: Networks) -> dict[str, torch.Tensor]:
    """The gradient of every parameter that has one, which are then cleared."""
    found = {name: p.grad for name, p in networks.named_parameters() if p.grad is not None}
    networks.zero_grad(set_to_none=True)
    return found
