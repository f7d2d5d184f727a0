"""The options of a training run, validated once. Plain data: importing this file costs nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dataload.config import DEFAULT_DATA_PATH, OPTIMISATION, DataConfig
from dataload.datasets import locate
from dataload.given import given_options, located, read_option
from dataload.option import (
    annotations_of,
    check_options,
    config_from,
    default_of,
    option,
    options_of,
    saved_values,
    whole_number,
)
from dataload.system.home import expand_home
from dataload.system.launch import launch
from engine.checkpoints import resumable_folders
from engine.choices import AMP_MODES, LEARNING_RATE_RULES, MODULES
from engine.options import LossConfig, ModelConfig
from engine.run_options import OPTIONS_FILE, read_options
from splits.errors import InputError
from splits.faults import describe_fault

WEIGHTS_HELP = "Start a new run from these weights: a run or weights folder, a zip, hf:USER/REPO, or a released model (md-predict --help)."
GRAD_ACCUMULATION_HELP = (
    "Process each batch in this many equal parts, then update once: less memory, but BatchNorm sees one part at a time."
)
SCALE_LR_HELP = "With several processes, multiply the learning rate by their number (linear) or its square root (sqrt)."
TIMEOUT_HELP = "Minutes that one of several processes may leave the others waiting; then the run ends and names it."
THREADS_HELP = "Threads that PyTorch computes with on the CPU; a resumed run takes as many as it began with."
DETERMINISTIC_HELP = "On a GPU use deterministic algorithms alone: the same command gives the same bits, slower. A CPU does so anyway."
RESUME_HELP = (
    "Continue the run exactly where its last checkpoint left it, with its own options. With auto, begin it where it has no checkpoint."
)

RUN = "Run"
# In ``opt.json`` of a run that several processes began: how many.
WORLD_SIZE = "world_size"
# In ``opt.json`` of a run that began on a CPU: with how many threads.
THREADS = "threads"
# Of ``--resume``: whether there is something to resume decides.
AUTO = "auto"
# The options that say where a run is.
PLACE = ("log_dir", "model_name")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole training run: data, networks, loss, optimisation, and where it is kept.

    The pyramid levels that ``data`` makes are set to those that the networks' scales and the loss need.
    """

    data: DataConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    learning_rate: float = option(1e-4, "Adam's learning rate.", heading=OPTIMISATION, above=0)
    num_epochs: int = option(20, "Passes over the training samples.", heading=OPTIMISATION, above=0, resumable=True)
    scheduler_step_size: int = option(
        15, "Divide the learning rate by 10 each time this many epochs are done.", heading=OPTIMISATION, metavar="EPOCHS", above=0
    )
    max_steps: int | None = option(
        None, "Stop after this many steps, whatever --num_epochs says.", heading=OPTIMISATION, metavar="STEPS", above=0, resumable=True
    )
    amp: str = option("auto", "Precision of the networks; the loss stays in fp32.", heading=OPTIMISATION, choices=AMP_MODES)
    compile: bool | None = option(None, "torch.compile the step", heading=OPTIMISATION, default_help="on a GPU", resumable=True)
    cuda_graph: bool | None = option(
        None, "Replay the whole step as one CUDA graph", heading=OPTIMISATION, default_help="on a GPU", resumable=True
    )
    grad_accumulation: int = option(1, GRAD_ACCUMULATION_HELP, heading=OPTIMISATION, metavar="PARTS", above=0)
    checkpoint_activations: bool = option(
        False, "Recompute activations in the backward pass instead of keeping them: less memory.", heading=OPTIMISATION, resumable=True
    )
    scale_lr: str = option("none", SCALE_LR_HELP, heading=OPTIMISATION, choices=LEARNING_RATE_RULES)
    sync_bn: bool = option(False, "Let BatchNorm see the samples of all processes, not those of its own alone.", heading=OPTIMISATION)
    no_cuda: bool = option(False, "Train on the CPU.", heading=OPTIMISATION, resumable=True)
    threads: int | None = option(
        None, THREADS_HELP, heading=OPTIMISATION, metavar="N", default_help="PyTorch's choice", above=0, most=1024, saved=False
    )
    deterministic: bool = option(False, DETERMINISTIC_HELP, heading=OPTIMISATION)
    log_dir: Path = option(Path("~/tmp"), "Folder of the run folders.", heading=RUN, resumable=True)
    model_name: str = option("mdp", "Name of the run folder.", heading=RUN, resumable=True)
    load_weights_folder: Path | None = option(None, WEIGHTS_HELP, heading=RUN, metavar="FOLDER|NAME|hf:USER/REPO")
    models_to_load: tuple[str, ...] = option(
        MODULES[:4], f"Which networks to load: {' '.join(MODULES)}.", heading=RUN, metavar="NAME...", choices=MODULES
    )
    resume: bool = option(False, RESUME_HELP, heading=RUN, word=AUTO, saved=False)
    log_frequency: int = option(
        250, "Batches from one log entry to the next (after step 2000: 2000).", heading=RUN, metavar="BATCHES", above=0, resumable=True
    )
    save_frequency: int = option(
        1, "Epochs from one saved weights folder to the next.", heading=RUN, metavar="EPOCHS", above=0, resumable=True
    )
    save_minutes: float = option(
        10.0, "Minutes from one resumable checkpoint to the next within an epoch.", heading=RUN, metavar="MINUTES", least=0, resumable=True
    )
    save_every_steps: int | None = option(
        None, "Steps from one resumable checkpoint to the next within an epoch.", heading=RUN, metavar="STEPS", above=0, resumable=True
    )

    timeout_minutes: float = option(10.0, TIMEOUT_HELP, heading=RUN, metavar="MINUTES", above=0, resumable=True)

    @classmethod
    def from_options(cls, **options: Any) -> TrainConfig:
        """The config of md-train's options by name, with its defaults: ``dataset="demo", use_stereo=True, height=96, width=320``.

        Paths may be text, values in a row any sequence. With ``resume=True`` the run's own options hold, as at the command line;
        with ``resume="auto"`` too where the run has a checkpoint, and otherwise a new run begins.

        Args:
            options: md-train's options, without their dashes.

        Raises:
            InputError: an unknown name, with the nearest one; a value of another type or out of its range; values that do not fit together;
                or nothing to resume.
        """
        return _train_config(options)

    def __post_init__(self) -> None:
        check_options(self)
        levels = max(self.model.scales) + 1
        data = replace(self.data, num_levels=levels, source_levels=levels if self.loss.v1_multiscale else 1)
        object.__setattr__(self, "data", data)
        _check_parts(self.grad_accumulation, self.data.batch_size)
        if not self.model_name or Path(self.model_name).is_absolute() or ".." in Path(self.model_name).parts or self.model_name[0] == "~":
            raise InputError(f"model_name={self.model_name!r} must be a plain folder name below --log_dir")
        if any("\ud800" <= letter <= "\udfff" for letter in str(self.run_folder)):
            raise InputError(f"log_dir={self.log_dir} or model_name is no UTF-8 text, which TensorBoard's files need; name another folder")
        if self.data.num_sources == 0:
            raise InputError(
                "frame_ids=0 alone leaves no source, and so leaves nothing to compare the target with; "
                "add neighbours (0 -1 1) or --use_stereo"
            )

    def total_steps(self, steps_per_epoch: int) -> int:
        """How many steps the whole run will make."""
        steps = self.num_epochs * steps_per_epoch
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def frames_to_load(self, train_samples: int, val_samples: int, world: int = 1) -> int:
        """How many frames the whole run reads, those of validation included.

        Args:
            train_samples: targets in the training list.
            val_samples: targets in the validation list.
            world: how many processes train together.
        """
        batch = self.data.batch_size * world
        steps_per_epoch = max(train_samples // batch, 1)
        steps = self.total_steps(steps_per_epoch)
        return (steps * batch + -(-steps // steps_per_epoch) * val_samples) * (1 + self.data.num_sources)

    @property
    def run_folder(self) -> Path:
        """Where the run keeps its options, logs and weights."""
        return _run_folder(self.log_dir, self.model_name)


def _run_folder(log_dir: Path, model_name: str) -> Path:
    return Path(expand_home(str(log_dir))) / model_name


def learning_rate_factor(rule: str, world: float) -> float:
    """What the learning rate is multiplied by for ``world`` processes, whose global batch is so many times one's.

    ``linear``: world (Goyal et al. 2017); ``sqrt``: its square root (Krizhevsky 2014); ``none``: 1.
    """
    return {"none": 1.0, "linear": float(world), "sqrt": math.sqrt(world)}[rule]


# Whose fields are md-train's options.
CONFIGS = (DataConfig, ModelConfig, LossConfig, TrainConfig)


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
    options: dict[str, Any] = {}
    for part in (config.data, config.model, config.loss, config):
        options |= saved_values(part)
    options["frame_ids"] += ["s"] if config.data.use_stereo else []
    return dict(sorted(options.items()))


def _train_config(given: Mapping[str, Any]) -> TrainConfig:
    """The config of the options that are given.

    Raises:
        InputError: values that do not fit together.
    """
    o = given_options(given, CONFIGS)
    if o["resume"] == AUTO:
        o["resume"] = bool(resumable_folders(_run_folder(o["log_dir"], o["model_name"]) / "models"))
    if not o["resume"]:
        if o["load_weights_folder"] is not None and o["initial_depth"] is not None:
            raise InputError("--load_weights_folder starts from trained weights; leave out --initial_depth")
        return _config_of(o)
    path = _run_folder(o["log_dir"], o["model_name"]) / "models" / OPTIONS_FILE
    o = _resumed_options({name: o[name] for name in given if o[name] is not None}, o, path)
    try:
        return _config_of(o)
    except (InputError, OSError) as error:
        raise InputError(f"{path}, the run's options: {describe_fault(error)}") from error


def _config_of(options: Mapping[str, Any]) -> TrainConfig:
    return config_from(
        TrainConfig, options, data=located(options), model=config_from(ModelConfig, options), loss=config_from(LossConfig, options)
    )


def _resumed_options(given: Mapping[str, Any], options: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The run's own options, with those ``given`` that a resumed run may change; ``options`` are all, with their defaults.

    Raises:
        InputError: no such run, a damaged ``opt.json`` at ``path``, or an option given that differs from the run's and would change its
            numbers.
    """
    if not path.is_file():
        raise InputError(f"nothing to resume: no file {path}; check --log_dir and --model_name")
    saved = _saved_values(path)
    global_batch = saved["batch_size"] * saved[WORLD_SIZE]
    split = options["split"]
    if split is not None:
        _, split = locate(saved["dataset"], options["data_path"] or saved["data_path"] or DEFAULT_DATA_PATH, split)
    result = dict(options)
    for cls in CONFIGS:
        for _, found in options_of(cls):
            name = found.name
            # Where the run is, is known: a copied folder's options may name another place.
            if not found.saved or name in PLACE:
                continue
            if name not in given:
                result[name] = saved[name]
            elif not found.resumable and (asked := split if name == "split" else given[name]) != saved[name]:
                remedy = "leave the option out, or start a new run with --load_weights_folder"
                if name == "batch_size":
                    if asked * launch().world == global_batch:
                        continue
                    remedy = _batch_remedy(global_batch)
                raise InputError(
                    f"--{name} differs from the run's ({_text(asked)} given, {_text(saved[name])} in {path}); --resume continues a run "
                    f"exactly: {remedy}"
                )
    # The global batch is the same, and so is the learning rate, by which factor the other number of processes multiplies it.
    fewer_each = saved["batch_size"] / result["batch_size"]
    result["learning_rate"] /= learning_rate_factor(result["scale_lr"], fewer_each)
    # The weights that the run started from are in its checkpoints by now.
    return result | {"load_weights_folder": None}


def _saved_values(path: Path) -> dict[str, Any]:
    """Every option that an ``opt.json`` may hold, and ``WORLD_SIZE``: as the run had it, or its default where it did not exist yet.

    Raises:
        InputError: the file is damaged, or a value in it is none of its option.
    """
    saved = read_options(path, "restore it to resume the run")
    if isinstance(saved.get("frame_ids"), list):
        saved["frame_ids"] = [frame_id for frame_id in saved["frame_ids"] if frame_id != "s"]
    values: dict[str, Any] = {}
    try:
        for cls in CONFIGS:
            for each, found in options_of(cls):
                name, default = found.name, default_of(each, found)
                values[name] = read_option(saved[name], found, annotations_of(cls)[each.name], default) if name in saved else default
        values[WORLD_SIZE] = whole_number(WORLD_SIZE, saved.get(WORLD_SIZE, 1), least=1)
    except InputError as error:
        raise InputError(f"{path} is damaged: {error}; correct it there, or restore the file, to resume the run") from error
    return values


def _batch_remedy(global_batch: int) -> str:
    """Which batch of a process keeps the run's global batch."""
    world = launch().world
    if global_batch % world:
        return (
            f"its global batch of {global_batch} samples does not divide among {world} processes; start another number of them, or leave "
            "the option out, and the global batch becomes another"
        )
    return f"leave the option out, or give {global_batch // world}, which keeps its global batch of {global_batch} samples"


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
