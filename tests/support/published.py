"""Networks, steps and objectives with md-train's defaults but for the options that a test names."""

from typing import Any

import torch

from benchmarks.step_inputs import default_config
from engine.loss.constants import TIE_BREAK_NOISE
from engine.loss.objective import Objective
from engine.networks import Networks
from engine.training.build import make_networks
from engine.training.step import TrainStep


def networks_of(**options: Any) -> Networks:
    """Untrained networks; a predictive mask comes without the automask."""
    return make_networks(default_config(**{"automask": not options.get("predictive_mask"), **options}))


def step_of(networks: Networks, *, autocast_dtype: torch.dtype | None = None, noise: float = TIE_BREAK_NOISE, **options: Any) -> TrainStep:
    """The step of networks that were made with the same options."""
    config = default_config(**options)
    frames = {"frame_ids": config.data.frame_ids, "use_stereo": config.data.use_stereo}
    return TrainStep(networks, **frames, model=config.model, loss=config.loss, autocast_dtype=autocast_dtype, noise=noise)


def objective_of(*, noise: float = TIE_BREAK_NOISE, **options: Any) -> Objective:
    """The objective alone."""
    config = default_config(**options)
    return Objective(frame_ids=config.data.frame_ids, use_stereo=config.data.use_stereo, model=config.model, loss=config.loss, noise=noise)
