"""The options of a training run, validated once. Plain data: importing this file costs nothing."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dataload.config import DataConfig
from engine.choices import MODULES, POSE_MODEL_INPUTS, POSE_MODEL_TYPES, check_choice, check_positive
from splits.errors import InputError

NUM_LAYERS = (18, 34, 50, 101, 152)
WEIGHTS_INIT = ("pretrained", "scratch")
AMP_MODES = ("auto", "off", "bf16", "fp16")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The networks. ``min_depth`` and ``max_depth`` bound depth in the network's own unit (nominal baseline 0.1)."""

    num_layers: int = 18
    weights_init: str = "pretrained"
    pose_model_type: str = "separate_resnet"
    pose_model_input: str = "pairs"
    scales: tuple[int, ...] = (0, 1, 2, 3)
    min_depth: float = 0.1
    max_depth: float = 100.0
    batch_pose_pairs: bool = False
    initial_depth_m: float | None = None

    def __post_init__(self) -> None:
        check_choice("num_layers", self.num_layers, NUM_LAYERS)
        check_choice("weights_init", self.weights_init, WEIGHTS_INIT)
        check_choice("pose_model_type", self.pose_model_type, POSE_MODEL_TYPES)
        check_choice("pose_model_input", self.pose_model_input, POSE_MODEL_INPUTS)
        if not self.scales or len(set(self.scales)) != len(self.scales) or not set(self.scales) <= {0, 1, 2, 3}:
            raise InputError(f"scales={' '.join(map(str, self.scales))} must name some of 0 1 2 3, each once")
        if not 0 < self.min_depth < self.max_depth:
            raise InputError(f"min_depth={self.min_depth} and max_depth={self.max_depth} must satisfy 0 < min_depth < max_depth")
        if self.initial_depth_m is not None:
            check_positive("initial_depth", self.initial_depth_m)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Switches of the loss, positive where the options are negative (``automask`` is not ``--disable_automasking``)."""

    disparity_smoothness: float = 1e-3
    ssim: bool = True
    automask: bool = True
    avg_reprojection: bool = False
    v1_multiscale: bool = False
    predictive_mask: bool = False

    def __post_init__(self) -> None:
        check_positive("disparity_smoothness", self.disparity_smoothness, zero=True)
        if self.predictive_mask and self.automask:
            raise InputError("predictive_mask replaces automasking and cannot be combined with it; add --disable_automasking")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole training run: data, networks, loss, optimisation, and where it is kept."""

    data: DataConfig
    model: ModelConfig
    loss: LossConfig
    model_name: str = "mdp"
    log_dir: Path = Path("~/tmp")
    learning_rate: float = 1e-4
    num_epochs: int = 20
    scheduler_step_size: int = 15
    load_weights_folder: Path | None = None
    models_to_load: tuple[str, ...] = ("encoder", "depth", "pose_encoder", "pose")
    log_frequency: int = 250
    save_frequency: int = 1
    save_minutes: float = 10.0
    max_steps: int | None = None
    resume: bool = False
    amp: str = "auto"
    compile: bool | None = None
    cuda_graph: bool | None = None
    grad_accumulation: int = 1
    checkpoint_activations: bool = False
    no_cuda: bool = False

    def __post_init__(self) -> None:
        for name in ("learning_rate", "num_epochs", "scheduler_step_size", "log_frequency", "save_frequency", "grad_accumulation"):
            check_positive(name, getattr(self, name))
        _check_parts(self.grad_accumulation, self.data.batch_size)
        check_positive("save_minutes", self.save_minutes, zero=True)
        if self.max_steps is not None:
            check_positive("max_steps", self.max_steps)
        check_choice("amp", self.amp, AMP_MODES)
        for name in self.models_to_load:
            check_choice("models_to_load", name, MODULES)
        if not self.model_name or Path(self.model_name).is_absolute() or ".." in Path(self.model_name).parts:
            raise InputError(f"model_name={self.model_name!r} must be a plain folder name below --log_dir")
        if self.data.num_sources == 0:
            raise InputError("frame_ids=0 alone leaves nothing to compare the target with; add neighbours (0 -1 1) or --use_stereo")

    def frames_to_load(self, train_samples: int, val_samples: int) -> int:
        """How many frames the whole run reads, those of validation included."""
        batch = self.data.batch_size
        steps_per_epoch = max(train_samples // batch, 1)
        steps = min(self.num_epochs * steps_per_epoch, self.max_steps or 2**62)
        return (steps * batch + -(-steps // steps_per_epoch) * val_samples) * (1 + self.data.num_sources)

    @property
    def run_folder(self) -> Path:
        """Where the run keeps its options, logs and weights."""
        return self.log_dir.expanduser() / self.model_name


def _check_parts(parts: int, batch_size: int) -> None:
    if batch_size % parts == 0:
        return
    fitting = [n for n in range(1, batch_size + 1) if batch_size % n == 0]
    nearest = [*[n for n in fitting if n < parts][-1:], *[n for n in fitting if n > parts][:1]]
    raise InputError(
        f"grad_accumulation={parts} must divide batch_size={batch_size} into equal parts; nearest: {' or '.join(map(str, nearest))}, "
        f"or a batch_size of {' or '.join(str(n) for n in (batch_size // parts * parts, -(-batch_size // parts) * parts) if n)}"
    )


def saved_options(config: TrainConfig) -> dict[str, Any]:
    """The run's options under Monodepth2's names, as written to ``opt.json`` (``frame_ids`` ends with "s" in stereo)."""
    data, model, loss = config.data, config.model, config.loss
    options: dict[str, Any] = {
        "data_path": str(data.data_path),
        "dataset": data.dataset,
        "split": data.split,
        "height": data.height_px,
        "width": data.width_px,
        "frame_ids": [*data.frame_ids, *(["s"] if data.use_stereo else [])],
        "use_stereo": data.use_stereo,
        "png": data.image_ext == ".png",
        "batch_size": data.batch_size,
        "num_workers": data.num_workers,
        "seed": data.seed,
        "loader": data.loader,
        "frame_store": data.frame_store,
        "frame_store_dir": _plain(data.frame_store_dir),
        "depth_scale": data.depth_scale,
        "intrinsics": _plain(data.intrinsics),
        "initial_depth": model.initial_depth_m,
        "disable_automasking": not loss.automask,
        "no_ssim": not loss.ssim,
    }
    renamed = {"initial_depth_m", "automask", "ssim", "data", "model", "loss", "resume"}
    for part in (model, loss, config):
        options |= {f.name: _plain(getattr(part, f.name)) for f in fields(part) if f.name not in renamed}
    return dict(sorted(options.items()))


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
