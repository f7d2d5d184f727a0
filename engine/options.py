"""The options of networks and losses: what both are built from. Plain data: importing this file costs nothing."""

from __future__ import annotations

from dataclasses import dataclass

from dataload.option import check_options, option
from engine.choices import NUM_LAYERS, POSE_MODEL_INPUTS, POSE_MODEL_TYPES, WEIGHTS_INIT, check_scales
from splits.errors import InputError

NETWORKS, LOSS = "Networks", "Loss"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The networks. ``min_depth`` and ``max_depth`` bound depth in the network's own unit (nominal baseline 0.1)."""

    num_layers: int = option(18, "Depth of the ResNet encoders.", heading=NETWORKS, choices=NUM_LAYERS)
    weights_init: str = option("pretrained", "ImageNet weights, or random ones.", heading=NETWORKS, choices=WEIGHTS_INIT)
    pose_model_type: str = option("separate_resnet", "What predicts the camera's motion.", heading=NETWORKS, choices=POSE_MODEL_TYPES)
    pose_model_input: str = option("pairs", "Frames the pose network sees at once.", heading=NETWORKS, choices=POSE_MODEL_INPUTS)
    batch_pose_pairs: bool = option(
        False, "Run all pose pairs as one batch: faster, but other BatchNorm statistics than published.", heading=NETWORKS
    )
    scales: tuple[int, ...] = option(
        (0, 1, 2, 3), "Scales of the network's output at which the loss is computed.", heading=NETWORKS, metavar="S..."
    )
    min_depth: float = option(0.1, "Smallest depth, in the networks' unit (5.4 m on KITTI).", heading=NETWORKS)
    max_depth: float = option(100.0, "Largest depth, in the networks' unit.", heading=NETWORKS)
    initial_depth_m: float | None = option(
        None, "Depth that an untrained network predicts at first; helps when training from scratch.",
        heading=NETWORKS, name="initial_depth", metavar="METRES", above=0,
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_options(self)
        check_scales(self.scales)
        if not 0 < self.min_depth < self.max_depth:
            raise InputError(f"min_depth={self.min_depth} and max_depth={self.max_depth} must satisfy 0 < min_depth < max_depth")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Switches of the loss, positive where the options are negative (``automask`` is not ``--disable_automasking``)."""

    disparity_smoothness: float = option(1e-3, "Weight of the smoothness term.", heading=LOSS, least=0)
    v1_multiscale: bool = option(False, "Warp and compare at each scale's own size.", heading=LOSS)
    avg_reprojection: bool = option(False, "Average the error over the sources instead of taking the smallest.", heading=LOSS)
    automask: bool = option(
        True,
        "Keep pixels that match the unwarped source better than the warped one.",
        heading=LOSS,
        name="disable_automasking",
        switch=(True, False),
    )
    predictive_mask: bool = option(False, "Learn one mask per source; needs --disable_automasking.", heading=LOSS)
    ssim: bool = option(True, "Compare images by L1 alone, without SSIM.", heading=LOSS, name="no_ssim", switch=(True, False))

    def __post_init__(self) -> None:
        check_options(self)
        if self.predictive_mask and self.automask:
            raise InputError("predictive_mask replaces automasking and cannot be combined with it; add --disable_automasking")
