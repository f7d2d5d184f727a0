"""The training loop."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from dataload.batch import Batch
from dataload.system.console import console, shown_console
from dataload.system.locks import hold
from dataload.training_data import Loaders, TrainingData
from engine.interrupt import Stop, graceful_stop
from engine.precision import describe_precision, pick_device
from engine.training import checkpoint
from engine.training.build import Engine, build_engine, find_run_folder, write_options
from engine.training.checkpoint import Position
from engine.training.config import TrainConfig
from engine.training.log import Cost, RunLog, is_log_step, loss_scalars, peak_gib, read_scalars
from engine.training.memory import named_out_of_memory
from engine.training.optim import learning_rate_at, set_learning_rate
from engine.training.showing import SCALAR_NAMES, Snapshot, Truth, source_names
from engine.training.step import LossTerms
from engine.training.timing import Stopwatch, clock
from engine.training.update import Updater, seed_step
from engine.training.validation import Validation
from engine.weights import InputSize, save_weights, weights_folder
from splits.errors import InputError

# How often the progress bar is updated; reading the loss waits for the device.
SHOW_EVERY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """Where a run stands after ``train``.

    Attributes:
        finished: whether it came to its end; False when it was interrupted (Ctrl-C, SIGTERM) and can be resumed.
        run_folder: of the whole run: options, logs, weights.
        weights_folder: the last weights it has saved, ``models/weights_<epoch>``, or where it was interrupted ``models/step_<n>``.
        best_weights_folder: ``models/best``, those of the best validation; None where none was completed.
        epoch: how many epochs are complete. global_step: how many steps were made, of all epochs together.
        best_val_loss, best_val_abs_rel: the least so far; infinite where no validation was completed, abs_rel also where the validation
            list has no ground truth.
    """

    finished: bool
    run_folder: Path
    weights_folder: Path
    best_weights_folder: Path | None
    epoch: int
    global_step: int
    best_val_loss: float
    best_val_abs_rel: float


def train(config: TrainConfig) -> TrainResult:
    """Train from the config's start (or checkpoint) to its end, or until Ctrl-C; returns where the run stands then.

    The run folder is held from first to last, so that no two runs, new or resumed, ever write into one.

    Args:
        config: as ``TrainConfig.from_options`` makes it.

    Raises:
        InputError: missing files, unusable weights, an occupied run folder or one that another process writes, a loss that is no number,
            or not enough memory.
        OSError: a checkpoint could not be written.
    """
    with shown_console(), hold(config.run_folder, "wait until it has ended, or choose another --model_name", folder=True):
        return _train(config)


def _train(config: TrainConfig) -> TrainResult:
    device = pick_device(no_cuda=config.no_cuda)
    # What fails soon comes first, what takes long last: files and weights may be missing, a store takes minutes to make.
    data = TrainingData(config.data)
    models = find_run_folder(config)
    with named_out_of_memory(config, device):
        engine = build_engine(config, device, metric_factor=data.dataset.metric_factor)
    validation = Validation(config, data.dataset, data.val_refs)
    with (
        data.loaders(device, frames_to_load=config.frames_to_load) as loaders,
        named_out_of_memory(config, device, loaders.gpu_frames_bytes),
    ):
        if not config.resume:
            write_options(config, models, metric_factor=data.dataset.metric_factor)
        position = resume(engine, models, config.data.batch_size) if config.resume else Position()
        updater = Updater(engine, parts=config.grad_accumulation, capture=config.cuda_graph is not False)
        describe(config, engine, updater, loaders)
        total_steps = config.total_steps(loaders.train.steps_per_epoch)
        with RunLog(config.run_folder, total_steps=total_steps, done_steps=position.global_step) as log, graceful_stop() as stop:
            run = Run(config, engine, updater, data, loaders, validation, models, log, position)
            return run.result(finished=run.to_the_end(stop))


def resume(engine: Engine, models: Path, batch_size: int) -> Position:
    """Put the engine where the run's last checkpoint left it."""
    folder = checkpoint.latest_resumable(models)
    position = checkpoint.load_checkpoint(folder, engine.networks, engine.optimizer, engine.scaler)
    console.info("Resuming from %s: epoch %d, step %d", folder, position.epoch, position.global_step)
    # Versions that did not count samples trained with one process.
    return position if position.samples is not None else position._replace(samples=position.step * batch_size)


def describe(config: TrainConfig, engine: Engine, updater: Updater, loaders: Loaders) -> None:
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
    if config.cuda_graph and engine.device.type != "cuda":
        console.info("--cuda_graph does nothing here: it is for a GPU")
    epochs = f"{config.num_epochs} epochs of {train.steps_per_epoch} steps"
    console.info("Training    %s, validation %d batches", epochs, val.steps_per_epoch)


class Run:
    """One run: its parts, where it stands, and what happens around each update."""

    def __init__(
        self,
        config: TrainConfig,
        engine: Engine,
        updater: Updater,
        data: TrainingData,
        loaders: Loaders,
        validation: Validation,
        models: Path,
        log: RunLog,
        position: Position,
    ) -> None:
        self.config, self.engine, self.updater = config, engine, updater
        self.data, self.loaders, self.validation = data, loaders, validation
        self.models, self.log, self.position = models, log, position
        self.size = InputSize(*config.data.size_px, config.data.use_stereo)
        self._saved: Path | None = None
        self._finite = torch.ones((), dtype=torch.bool, device=engine.device)
        self._started_s = self._shown_s = self._saved_s = time.monotonic()
        self._watch = Stopwatch(lambda: loaders.train.waited_s)
        self._shown = self._logged = self._watch.mark()

    def result(self, *, finished: bool) -> TrainResult:
        """Where the run stands."""
        best, position = self.models / "best", self.position
        return TrainResult(
            finished=finished,
            run_folder=self.config.run_folder,
            # A run that was complete already has saved nothing this time.
            weights_folder=self._saved or weights_folder(self.models),
            best_weights_folder=best if best.is_dir() else None,
            epoch=position.epoch,
            global_step=position.global_step,
            best_val_loss=position.best_val_loss,
            best_val_abs_rel=position.best_val_abs_rel,
        )

    def to_the_end(self, stop: Stop) -> bool:
        """Epoch after epoch: train, validate, save. False when stopped early, the position saved."""
        while self.position.epoch < self.config.num_epochs and self.position.global_step < self.log.total_steps:
            if not self.train_epoch(stop):
                self.save(self.models / f"step_{self.position.global_step}")
                console.info("Stopped at step %d; repeat the command with --resume to continue", self.position.global_step)
                return False
            epoch = self.position.epoch
            self.validate()
            if self.position.step == self.loaders.train.steps_per_epoch:
                self.position = self.position._replace(epoch=epoch + 1, step=0, samples=0)
            last = self.position.epoch == self.config.num_epochs or self.position.global_step == self.log.total_steps
            if last or (epoch + 1) % self.config.save_frequency == 0:
                self.save(self.models / f"weights_{epoch}")
        console.info("Done: weights in %s", self.models)
        return True

    def train_epoch(self, stop: Stop) -> bool:
        """The rest of the present epoch; False when a stop was asked for on the way."""
        config = self.config
        epoch = self.position.epoch
        set_learning_rate(self.engine.optimizer, learning_rate_at(epoch, base=config.learning_rate, step_size=config.scheduler_step_size))
        batches = self.loaders.train.epoch(epoch, self.position.step)
        self.engine.step.train()
        for batch in batches:
            self._watch.count(config.data.batch_size)
            seed_step(self.engine.step, config.data.seed, self.position.global_step)
            stop.at_once = self.updater.compiles_next
            terms = self.updater(batch)
            stop.at_once = False
            if self.updater.prepared:
                self._watch.restart()
            self._finite &= terms.loss.isfinite()
            self.after_step(batch, terms)
            if self.position.global_step >= self.log.total_steps:
                break
            if stop.requested:
                return False
            if self.is_save_due(stop):
                self.save(self.models / f"step_{self.position.global_step}")
        return True

    def is_save_due(self, stop: Stop) -> bool:
        """Whether to save within the epoch: a save is requested, which is then done with, or enough steps or minutes have passed."""
        config = self.config
        is_due_step = config.save_every_steps is not None and self.position.global_step % config.save_every_steps == 0
        return stop.take_save_request() or is_due_step or time.monotonic() - self._saved_s >= 60 * config.save_minutes

    def after_step(self, batch: Batch, terms: LossTerms) -> None:
        """Log where it is due, show, and move the position on."""
        epoch, batch_index, step, *_ = self.position
        if is_log_step(batch_index, step, log_frequency=self.config.log_frequency):
            self.log_training(batch, terms)
        self.position = self.position._replace(
            step=batch_index + 1, global_step=step + 1, samples=(batch_index + 1) * self.config.data.batch_size
        )
        self.log.bar.update()
        if time.monotonic() - self._shown_s >= SHOW_EVERY_S:
            self._shown_s = time.monotonic()
            self.log.progress(epoch, read_scalars({"loss": terms.loss})["loss"], self._watch.pace(self._shown))
            self._shown = self._watch.mark()

    def log_training(self, batch: Batch, terms: LossTerms) -> None:
        """Losses, depth metrics where there is ground truth, pictures; Monodepth2's line on the console."""
        epoch, batch_index, step, *_ = self.position
        # Waits for the device, so that the pause hides none of its training.
        values = read_scalars(loss_scalars(terms, self.config.model.scales))
        self.require_finite()
        cost = Cost(self._watch.pace(self._logged), peak_gib(self.engine.device))
        self._logged = self._watch.mark()
        with self._watch.paused():
            self.log.write("train", step, epoch, values | cost.scalars(), lambda: self._snapshot(batch))
        overall = self._watch.pace()
        left_s = self._watch.left_s((self.log.total_steps - step - 1) * self.config.data.batch_size)
        console.info(
            "epoch %3d | batch %6d | samples/s: %5s | loss: %.5f | time elapsed: %s | time left: %s%s",
            epoch, batch_index, "-" if overall is None else f"{overall.samples_per_s:.1f}", values["loss"],
            clock(time.monotonic() - self._started_s), clock(left_s), cost,
        )  # fmt: skip

    def _snapshot(self, batch: Batch) -> Snapshot:
        data, model = self.config.data, self.config.model
        truth = Truth(
            self.data.dataset, self.loaders.train.refs, (model.min_depth, model.max_depth), drawn=(data.seed, self.position.epoch)
        )
        return Snapshot(self.engine.step, batch, source_names(data.frame_ids, data.use_stereo), truth)

    def validate(self) -> None:
        """Mean losses and, where there is ground truth, errors over the validation list; keeps the weights in ``best`` when they are."""
        self.require_finite_weights()
        epoch, _, step, *_ = self.position
        with self._watch.paused():
            losses, errors, snapshot = self.validation.run(self.engine, self.loaders.val)
            scores = {SCALAR_NAMES[name]: value for name, value in errors.items()}
            self.log.write("val", step, epoch, {**losses, **scores}, lambda: snapshot)
            best = self.position
            better = errors["abs_rel"] < best.best_val_abs_rel if errors else losses["loss"] < best.best_val_loss
            if better:
                abs_rel = errors.get("abs_rel", best.best_val_abs_rel)
                self.position = best._replace(best_val_loss=losses["loss"], best_val_abs_rel=abs_rel)
                save_weights(self.models / "best", self.engine.networks, self.size)
        shown = f" | abs_rel: {errors['abs_rel']:.3f}" if errors else ""
        console.info("epoch %3d | validation loss: %.5f%s%s", epoch, losses["loss"], shown, " (best so far)" if better else "")

    def require_finite(self) -> None:
        """Raise InputError once a loss or weight was NaN or infinite, before such weights could be saved."""
        if not bool(self._finite):
            raise InputError(
                f"the loss or a weight became NaN or infinite by step {self.position.global_step}; checkpoints in {self.models} are older; "
                "try a lower --learning_rate or --amp off"
            )

    def require_finite_weights(self) -> None:
        """As ``require_finite``, and for the weights: the last update's damage shows in no loss yet."""
        self._finite &= torch.stack([parameter.isfinite().all() for parameter in self.engine.networks.parameters()]).all()
        self.require_finite()

    def save(self, folder: Path) -> None:
        """Write a checkpoint, then remove the mid-epoch ones it supersedes."""
        self.require_finite_weights()
        with self._watch.paused():
            # A run that is resumed from here logs none of the steps before again.
            self.log.drain()
            checkpoint.save_checkpoint(folder, self.engine.networks, self.size, self.engine.optimizer, self.engine.scaler, self.position)
            checkpoint.remove_superseded(self.models, folder)
        self._saved = folder
        self._saved_s = time.monotonic()
