"""Training from a config to its end: the parts of a run are made in the order in which they can fail, then it goes through its epochs."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dataload.system.console import console, shown_console
from dataload.system.locks import hold
from dataload.training_data import Loaders, TrainingData
from engine.checkpoints import WEIGHTS_FOLDER
from engine.interrupt import ending_restored, graceful_stop, save_requests_ignored
from engine.parallel.exchange import Exchange
from engine.parallel.ranks import Ranks, joined
from engine.parallel.sameness import OF_A_MACHINE, digest, require_same, require_shared, versions
from engine.precision import describe_precision, pick_device
from engine.training import checkpoint
from engine.training.build import Engine, build_engine, find_run_folder, write_options
from engine.training.checkpoint import Position
from engine.training.config import TrainConfig, learning_rate_factor, saved_options
from engine.training.faults import told_where_it_stands
from engine.training.log import NoLog, RunLog
from engine.training.memory import named_out_of_memory
from engine.training.repeatable import computing_threads, repeatable
from engine.training.result import TrainResult
from engine.training.run import Run
from engine.training.timing import Crowd
from engine.training.update import Updater
from engine.training.validation import Validation

LOST_REMEDY = "What was saved is whole: start all processes again with --resume auto, or let torchrun do so (--max_restarts)"


def train(config: TrainConfig) -> TrainResult:
    """Train from the config's start (or checkpoint) to its end, or until Ctrl-C, SIGTERM or SIGHUP; returns where the run stands then.

    A fault in the middle of it (a damaged image, a full disk) ends it after its present step, which is saved where that is possible.

    Processes that torchrun has started train together, where all of them call this with the same config. The run folder is held from
    first to last, so that no two runs, new or resumed, ever write into one.

    Args:
        config: as ``TrainConfig.from_options`` makes it.

    Raises:
        InputError: missing files, unusable weights, an occupied run folder or one that another process writes, a loss that is no number,
            not enough memory, what cannot be written; processes that do not fit together, or have lost one of them.
        FaultElsewhere: another of several processes reports such a fault.
        OSError: the options of a new run could not be written.
    """
    with save_requests_ignored(), ending_restored(), joined(LOST_REMEDY) as ranks, shown_console(), ExitStack() as stack:
        device = pick_device(no_cuda=config.no_cuda)
        require_same(ranks, common_facts(config, device))
        stack.enter_context(repeatable(config, device))
        if ranks.is_first:
            stack.enter_context(hold(config.run_folder, "wait until it has ended, or choose another --model_name", folder=True))
        return _train(config, device, ranks)


def common_facts(config: TrainConfig, device: torch.device) -> dict[str, Any]:
    """What all processes of a run must have alike before they load anything, by the name that a message gives it."""
    options = {f"--{name}": value for name, value in saved_options(config).items() if name not in OF_A_MACHINE}
    resumes = {"--resume (whether the run has a checkpoint, in a --log_dir that all machines share)": config.resume}
    return {**resumes, **options, **versions(), "the device": device.type}


def _train(config: TrainConfig, device: torch.device, ranks: Ranks) -> TrainResult:
    # Of the time before training, in which little else of this process runs: what takes the cores then are others.
    crowd = Crowd(computing_threads(device) or 1)
    # What fails soon comes first, what takes long last: files and weights may be missing, a store takes minutes to make.
    with ranks.machine_first():
        data = TrainingData(config.data, ranks.world)
    lists = {"training": data.train_refs, "validation": data.val_refs}
    require_same(ranks, {f"the {name} list": digest(ref.line for ref in refs) for name, refs in lists.items()})
    models = find_run_folder(config) if ranks.is_first else config.run_folder / "models"
    exchange = Exchange(ranks, device, timedelta(minutes=config.timeout_minutes))
    with named_out_of_memory(config, device):
        engine = build_engine(config, device, metric_factor=data.dataset.metric_factor, exchange=exchange)
    validation = Validation(config, data.dataset, data.val_refs, ranks)
    with ExitStack() as stack:
        with ranks.machine_first():
            loaders = stack.enter_context(data.loaders(device, frames_to_load=partial(_frames_to_load, config, ranks), place=ranks.place))
        stack.enter_context(named_out_of_memory(config, device, loaders.gpu_frames_bytes))
        if ranks.is_first and not config.resume:
            factor, threads = data.dataset.metric_factor, computing_threads(device)
            write_options(config, models, metric_factor=factor, world=ranks.world, threads=threads)
        require_shared(ranks, models, "put --log_dir on one that they share")
        position, validated = resume(engine, models, ranks, config.data.batch_size) if config.resume else (Position(samples=0), False)
        updater = Updater(engine, parts=config.grad_accumulation, capture=config.cuda_graph is not False and ranks.world == 1)
        describe(config, engine, updater, loaders, ranks)
        crowd.look()
        steps = planned_steps(config, position, len(data.train_refs), ranks.world)
        with (
            told_where_it_stands(models),
            RunLog(config.run_folder, total_steps=steps, done_steps=position.global_step, validated=validated)
            if ranks.is_first
            else NoLog() as log,
            graceful_stop(then_deaf=ranks.world > 1) as stop,
        ):
            run = Run(config, engine, updater, data, loaders, validation, models, log, position, exchange, crowd, total_steps=steps)
            return run.to_the_end(stop, validated=validated)


def _frames_to_load(config: TrainConfig, ranks: Ranks, train_samples: int, val_samples: int) -> int:
    """How many frames the run decodes on this machine without a store."""
    return config.frames_to_load(train_samples, val_samples, ranks.world) * ranks.place.local_world // ranks.world


def resume(engine: Engine, models: Path, ranks: Ranks, batch_size: int) -> tuple[Position, bool]:
    """Put the engine where the run's last checkpoint left it; whether its validation is done, as before ``weights_<epoch>`` is written."""
    # Rank 0 chooses: others may not see the newest yet.
    names = [name for name, _ in engine.networks.named_children()]
    folder = models / ranks.of_first(checkpoint.latest_resumable(models, names).name if ranks.is_first else None)
    position = checkpoint.load_checkpoint(folder, engine.networks, engine.optimizer, engine.scaler)
    console.info("Resuming from %s: epoch %d, step %d", folder, position.epoch, position.global_step)
    # Versions that did not count samples trained with one process.
    samples = position.step * batch_size if position.samples is None else position.samples
    return position._replace(samples=samples), WEIGHTS_FOLDER.fullmatch(folder.name) is not None


def planned_steps(config: TrainConfig, position: Position, num_samples: int, world: int) -> int:
    """How many steps the whole run will have made, those before ``position`` included, which another number of processes may have made.

    Args:
        num_samples: in the training list.
        world: how many processes make the rest of them.
    """
    per_step = config.data.batch_size * world
    left = (num_samples - (position.samples or 0)) // per_step + (config.num_epochs - position.epoch - 1) * (num_samples // per_step)
    steps = position.global_step + max(left, 0)
    return steps if config.max_steps is None else min(steps, max(config.max_steps, position.global_step))


def describe(config: TrainConfig, engine: Engine, updater: Updater, loaders: Loaders, ranks: Ranks) -> None:
    """Show what is about to happen."""
    train, val = loaders.train, loaders.val
    parameters = sum(p.numel() for p in engine.networks.parameters())
    lists = f"{len(train.refs)} training, {len(val.refs)} validation samples"
    console.info("Run folder  %s", config.run_folder)
    console.info("Data        %s, split %s: %s", config.data.dataset, config.data.split, lists)
    console.info("Loader      %s, Lanczos by %s", train.backend, loaders.decoder_name)
    precision = describe_precision(engine.autocast, engine.device)
    console.info("Networks    %.1f M parameters in %s on %s", parameters / 1e6, precision, engine.device)
    console.info("Step        %s", updater)
    if ranks.world > 1:
        batch_size, rate = config.data.batch_size, config.learning_rate * learning_rate_factor(config.scale_lr, ranks.world)
        console.info(
            "Processes   %d, global batch %d samples (%d each), learning rate %g (--scale_lr %s), BatchNorm sees %s",
            ranks.world, ranks.world * batch_size, batch_size, rate, config.scale_lr,
            "the global batch" if config.sync_bn else "a process's own samples",
        )  # fmt: skip
    if config.cuda_graph and engine.device.type != "cuda":
        console.info("--cuda_graph does nothing here: it is for a GPU")
    elif config.cuda_graph and ranks.world > 1:
        console.info("--cuda_graph does nothing here: it is for one process, whose step exchanges no gradients")
    if config.deterministic and engine.device.type == "cpu":
        console.info("--deterministic does nothing here: a CPU repeats its bits anyway, with as many threads")
    epochs = f"{config.num_epochs} epochs of {train.steps_per_epoch} steps"
    console.info("Training    %s, validation %d images", epochs, len(val.refs))
