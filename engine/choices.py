"""The names that options and networks share, and the checks of them. Light, so that a command's help needs no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence

from splits.errors import InputError

NUM_LAYERS = (18, 34, 50, 101, 152)
WEIGHTS_INIT = ("pretrained", "scratch")
AMP_MODES = ("auto", "off", "bf16", "fp16")
# How the learning rate follows the number of processes that train together.
LEARNING_RATE_RULES = ("none", "linear", "sqrt")
SCALES = (0, 1, 2, 3)
EVAL_BATCH_SIZE = 16

POSE_MODEL_TYPES = ("separate_resnet", "shared", "posecnn")
POSE_MODEL_INPUTS = ("pairs", "all")
# The networks of a model in the order of the checkpoint files and of the optimizer's parameters.
MODULES = ("encoder", "depth", "pose_encoder", "pose", "predictive_mask")
# What brings a prediction to the truth's scale, and the parts of an image that are scored.
ALIGNMENTS = ("none", "median", "lstsq")
CROP_NAMES = ("garg", "eigen", "none")
DEFAULT_EVAL_SPLIT = "eigen"
# Annotated depth, of which every pixel counts, as published.
ANNOTATED_SPLIT = "eigen_benchmark"
# The depth benchmark's own test images: only its server has their truth, and takes 16-bit PNG files.
SERVER_SPLIT = "benchmark"
# Sequences of odometry, on which ego-motion is evaluated.
POSE_SPLIT = re.compile(r"odom(?:_(.*))?")
# The colour scales on offer, by matplotlib's names; magma is Monodepth2's.
COLORMAPS = ("magma", "inferno", "plasma", "viridis", "cividis", "turbo", "gray")


def is_pose_split(eval_split: str) -> bool:
    """Whether a split is a sequence of odometry, on which ego-motion is evaluated and not depth."""
    return POSE_SPLIT.fullmatch(eval_split) is not None


def check_scales(scales: Sequence[int]) -> None:
    """Raise InputError unless ``scales`` are distinct members of 0..3, at least one."""
    if not scales or len(set(scales)) != len(scales) or not set(scales) <= set(SCALES):
        shown = " ".join(map(str, scales)) or "(none)"
        raise InputError(f"scales={shown} must be one or more of 0 1 2 3, each once")
