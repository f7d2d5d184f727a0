"""The options of a training run, validated once. Plain data: importing this file costs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataload.config import OPTIMISATION, DataConfig
from dataload.option import check_options, option, saved_values
from dataload.system.home import expand_home
from engine.choices import AMP_MODES, MODULES
from engine.options import LossConfig, ModelConfig
from splits.errors import InputError

WEIGHTS_HELP = "Start a new run from these weights: a run or weights folder, a zip, hf:USER/REPO, or a released model (md-predict --help)."
GRAD_ACCUMULATION_HELP = "Work through each batch in so many equal parts before its one update: less memory; BatchNorm then sees the parts."

RUN = "Run"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole training run: data, networks, loss, optimisation, and where it is kept."""

    data: DataConfig
    model: ModelConfig
    loss: LossConfig
    learning_rate: float = option(1e-4, "Adam's learning rate.", heading=OPTIMISATION, above=0)
    num_epochs: int = option(20, "Passes over the training samples.", heading=OPTIMISATION, above=0, resumable=True)
    scheduler_step_size: int = option(
        15, "The learning rate drops tenfold after so many epochs.", heading=OPTIMISATION, metavar="EPOCHS", above=0
    )
    max_steps: int | None = option(
        None, "Stop after so many steps, whatever --num_epochs says.", heading=OPTIMISATION, metavar="STEPS", above=0, resumable=True
    )
    amp: str = option("auto", "Precision of the networks; the loss stays in fp32.", heading=OPTIMISATION, choices=AMP_MODES)
    compile: bool | None = option(None, "torch.compile the step", heading=OPTIMISATION, default_help="on a GPU", resumable=True)
    cuda_graph: bool | None = option(
        None, "Replay the whole step as one CUDA graph", heading=OPTIMISATION, default_help="on a GPU", resumable=True
    )
    grad_accumulation: int = option(1, GRAD_ACCUMULATION_HELP, heading=OPTIMISATION, metavar="PARTS", above=0)
    checkpoint_activations: bool = option(
        False, "Compute activations again in the backward pass instead of keeping them: less memory.", heading=OPTIMISATION, resumable=True
    )
    no_cuda: bool = option(False, "Train on the CPU.", heading=OPTIMISATION, resumable=True)
    log_dir: Path = option(Path("~/tmp"), "Where run folders lie.", heading=RUN, resumable=True)
    model_name: str = option("mdp", "Name of the run folder.", heading=RUN, resumable=True)
    load_weights_folder: Path | None = option(None, WEIGHTS_HELP, heading=RUN, metavar="FOLDER|NAME|hf:USER/REPO")
    models_to_load: tuple[str, ...] = option(MODULES[:4], f"Of {' '.join(MODULES)}.", heading=RUN, metavar="NAME...", choices=MODULES)
    resume: bool = option(
        False, "Continue the run exactly where its last checkpoint left it, with its own options.", heading=RUN, saved=False
    )
    log_frequency: int = option(
        250, "Log every so many batches (after step 2000: every 2000 steps).", heading=RUN, metavar="BATCHES", above=0, resumable=True
    )
    save_frequency: int = option(1, "Save weights every so many epochs.", heading=RUN, metavar="EPOCHS", above=0, resumable=True)
    save_minutes: float = option(
        10.0, "Save a resumable checkpoint this often within an epoch.", heading=RUN, metavar="MINUTES", least=0, resumable=True
    )

    def __post_init__(self) -> None:
        check_options(self)
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

    def frames_to_load(self, train_samples: int, val_samples: int) -> int:
        """How many frames the whole run reads, those of validation included."""
        batch = self.data.batch_size
        steps_per_epoch = max(train_samples // batch, 1)
        steps = self.total_steps(steps_per_epoch)
        return (steps * batch + -(-steps // steps_per_epoch) * val_samples) * (1 + self.data.num_sources)

    @property
    def run_folder(self) -> Path:
        """Where the run keeps its options, logs and weights."""
        return Path(expand_home(str(self.log_dir))) / self.model_name


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
