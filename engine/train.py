"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataload.batch import Batch
from dataload.check import require_files
from dataload.config import DataConfig
from dataload.console import console, set_up_console
from dataload.datasets import open_dataset
from dataload.datasets.base import Dataset
from dataload.decoders import decoder_of
from dataload.loader import Loader, require_full_batch
from dataload.split import FrameRef
from dataload.store_choice import open_store
from engine import checkpoint
from engine.build import Engine, build_engine, find_run_folder, write_options
from engine.checkpoint import Position
from engine.config import TrainConfig
from engine.interrupt import Stop, graceful_stop
from engine.log import Cost, RunLog, is_log_step, peak_gib, read_scalars
from engine.optim import learning_rate_at, set_learning_rate
from engine.precision import dtype_name, pick_device
from engine.showing import SCALAR_NAMES, depth_metrics, images_to_show
from engine.step import LossTerms
from engine.timing import Stopwatch, clock
from engine.update import Updater, seed_step
from engine.validation import Validation
from engine.weights import InputSize, save_weights
from splits import subset_source
from splits.errors import InputError

# How often the progress bar is brought up to date; reading the loss waits for the device.
SHOW_EVERY_S = 1.0


def train(config: TrainConfig) -> bool:
    """Train from the config's start (or checkpoint) to its end; returns whether it ended, False when it was interrupted.

    Raises:
        InputError: missing files, unusable weights, an occupied run folder, a loss that is no number.
        OSError: a checkpoint could not be written.
    """
    set_up_console()
    device = pick_device(no_cuda=config.no_cuda)
    dataset = open_dataset(config.data)
    train_refs, val_refs = (checked_refs(config.data, dataset, subset) for subset in ("train", "val"))
    require_full_batch(len(train_refs), config.data.batch_size)
    # What fails soon comes first, what takes long last: weights may be missing, a store takes minutes to make.
    models = find_run_folder(config)
    engine = build_engine(config, device, metric_factor=dataset.metric_factor)
    validation = Validation(config, dataset, val_refs)
    decoder = decoder_of(config.data, device)
    store = open_store(
        config.data,
        dataset,
        [*train_refs, *val_refs],
        decoder=decoder,
        device=device,
        frames_to_load=config.frames_to_load(len(train_refs), len(val_refs)),
    )
    with (
        closing(store) if store else nullcontext(),
        Loader(config.data, dataset, train_refs, training=True, device=device, store=store) as train_loader,
        Loader(config.data, dataset, val_refs, training=False, device=device, store=store) as val_loader,
    ):
        if not config.resume:
            write_options(config, models, metric_factor=dataset.metric_factor)
        run = Run(config, engine, dataset, models, validation)
        run.describe(train_loader, val_loader, decoder.made_by)
        with run.open_log(train_loader), graceful_stop() as stop:
            return run.to_the_end(train_loader, val_loader, stop)


def checked_refs(config: DataConfig, dataset: Dataset, subset: str) -> tuple[FrameRef, ...]:
    """The samples of a split's subset that can be trained on, all their files known to exist."""
    refs, source = dataset.read(config.split, subset), subset_source(config.split, subset)
    refs = dataset.with_sources(refs, source=source, frame_ids=config.frame_ids, use_stereo=config.use_stereo)
    require_files(dataset, refs, frame_ids=config.frame_ids, use_stereo=config.use_stereo)
    return refs


class Run:
    """One run: its parts, where it stands, and what happens around each update."""

    def __init__(self, config: TrainConfig, engine: Engine, dataset: Dataset, models: Path, validation: Validation) -> None:
        self.config, self.engine, self.dataset, self.models, self.validation = config, engine, dataset, models, validation
        self.updater = Updater(engine, parts=config.grad_accumulation, capture=config.cuda_graph is not False)
        self.size = InputSize(*config.data.size_px, config.data.use_stereo)
        self.position = Position()
        if config.resume:
            folder = checkpoint.latest_resumable(models)
            self.position = checkpoint.load_checkpoint(folder, engine.networks, engine.optimizer, engine.scaler)
            console.info("Resuming from %s: epoch %d, step %d", folder, self.position.epoch, self.position.global_step)
        self._finite = torch.ones((), dtype=torch.bool, device=engine.device)
        self._started_s = self._shown_s = self._saved_s = time.monotonic()

    def describe(self, train_loader: Loader, val_loader: Loader, made_by: str) -> None:
        """Say what is about to happen; ``made_by`` is what makes the frames."""
        config, engine = self.config, self.engine
        parameters = sum(p.numel() for p in engine.networks.parameters())
        console.info("Run folder  %s", config.run_folder)
        console.info(
            "Data        %s, split %s: %d training, %d validation samples",
            config.data.dataset,
            config.data.split,
            len(train_loader.refs),
            len(val_loader.refs),
        )
        console.info("Loader      %s, Lanczos by %s", train_loader.backend, made_by)
        console.info(
            "Networks    %.1f M parameters in %s on %s",
            parameters / 1e6,
            dtype_name(engine.autocast),
            engine.device,
        )
        console.info("Step        %s", self.updater)
        if config.cuda_graph and engine.device.type != "cuda":
            console.info("--cuda_graph does nothing here: it is for a GPU")
        console.info(
            "Training    %d epochs of %d steps, validation %d batches",
            config.num_epochs,
            train_loader.steps_per_epoch,
            val_loader.steps_per_epoch,
        )

    def open_log(self, loader: Loader) -> RunLog:
        """The run's log, and its clock; the total is what is planned of steps."""
        self._watch = Stopwatch(lambda: loader.waited_s)
        self._shown = self._logged = self._watch.mark()
        self.total_steps = min(self.config.num_epochs * loader.steps_per_epoch, self.config.max_steps or 2**62)
        self.log = RunLog(self.config.run_folder, total_steps=self.total_steps, done_steps=self.position.global_step)
        return self.log

    def to_the_end(self, train_loader: Loader, val_loader: Loader, stop: Stop) -> bool:
        """Epoch after epoch: train, validate, save. False when stopped early, the position saved."""
        while self.position.epoch < self.config.num_epochs and self.position.global_step < self.total_steps:
            if not self.train_epoch(train_loader, stop):
                self.save(self.models / f"step_{self.position.global_step}")
                console.info("Stopped at step %d; the same command with --resume continues", self.position.global_step)
                return False
            epoch = self.position.epoch
            self.validate(val_loader)
            if self.position.step == train_loader.steps_per_epoch:
                self.position = self.position._replace(epoch=epoch + 1, step=0)
            last = self.position.epoch == self.config.num_epochs or self.position.global_step == self.total_steps
            if last or (epoch + 1) % self.config.save_frequency == 0:
                self.save(self.models / f"weights_{epoch}")
        console.info("Done: weights in %s", self.models)
        return True

    def train_epoch(self, loader: Loader, stop: Stop) -> bool:
        """The rest of the present epoch; False when a stop was asked for on the way."""
        config = self.config
        epoch = self.position.epoch
        set_learning_rate(self.engine.optimizer, learning_rate_at(epoch, base=config.learning_rate, step_size=config.scheduler_step_size))
        batches = loader.epoch(epoch, self.position.step)
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
            self.after_step(batch, terms, loader.refs)
            if self.position.global_step >= self.total_steps:
                break
            if stop.requested:
                return False
            if time.monotonic() - self._saved_s >= 60 * config.save_minutes:
                self.save(self.models / f"step_{self.position.global_step}")
        return True

    def after_step(self, batch: Batch, terms: LossTerms, refs: Sequence[FrameRef]) -> None:
        """Log where it is due, show, and move the position on."""
        epoch, batch_index, step, *_ = self.position
        if is_log_step(batch_index, step, log_frequency=self.config.log_frequency):
            self.log_training(batch, terms, refs)
        self.position = self.position._replace(step=batch_index + 1, global_step=step + 1)
        self.log.bar.update()
        if time.monotonic() - self._shown_s >= SHOW_EVERY_S:
            self._shown_s = time.monotonic()
            self.log.progress(epoch, read_scalars({"loss": terms.loss})["loss"], self._watch.pace(self._shown))
            self._shown = self._watch.mark()

    def log_training(self, batch: Batch, terms: LossTerms, refs: Sequence[FrameRef]) -> None:
        """Losses, depth metrics where there is ground truth, pictures; Monodepth2's line on the console."""
        epoch, batch_index, step, *_ = self.position
        values = read_scalars(self._loss_scalars(terms))
        self.require_finite()
        pictures = self.engine.step.pictures(batch)
        depth_range = (self.config.model.min_depth, self.config.model.max_depth)
        values |= depth_metrics(pictures, batch, self.dataset, refs, depth_range=depth_range, drawn=(self.config.data.seed, epoch))
        cost = Cost(self._watch.pace(self._logged), peak_gib(self.engine.device))
        self._logged = self._watch.mark()
        self.log.scalars("train", step, epoch, values | cost.scalars())
        self.log.images("train", step, images_to_show(pictures, batch, self.config.data.frame_ids, self.config.data.use_stereo))
        elapsed_s, overall = time.monotonic() - self._started_s, self._watch.pace()
        left_s = None if overall is None else (self.total_steps - step - 1) * self.config.data.batch_size / overall.samples_per_s
        console.info(
            "epoch %3d | batch %6d | examples/s: %5s | loss: %.5f | time elapsed: %s | time left: %s%s",
            epoch, batch_index, "-" if overall is None else f"{overall.samples_per_s:.1f}", values["loss"], clock(elapsed_s),
            clock(left_s), cost,
        )  # fmt: skip

    def _loss_scalars(self, terms: LossTerms) -> dict[str, Tensor]:
        return {"loss": terms.loss, **{f"loss/{s}": value for s, value in zip(self.config.model.scales, terms.per_scale, strict=True)}}

    def validate(self, loader: Loader) -> None:
        """Mean losses and, where there is ground truth, errors over the validation list; keeps the weights in ``best`` when they are."""
        self.require_finite_weights()
        epoch, _, step, *_ = self.position
        sums: dict[str, Tensor] = {}
        errors = self.validation.score(self._validation_batches(loader, sums))
        values = read_scalars({name: total / len(loader.refs) for name, total in sums.items()})
        self.log.scalars("val", step, epoch, values | {SCALAR_NAMES[name]: value for name, value in errors.items()})
        self.require_finite()
        self._shown = self._logged = self._watch.mark()
        best = self.position
        better = errors["abs_rel"] < best.best_val_abs_rel if errors else values["loss"] < best.best_val_loss
        if better:
            abs_rel = errors.get("abs_rel", best.best_val_abs_rel)
            self.position = best._replace(best_val_loss=values["loss"], best_val_abs_rel=abs_rel)
            save_weights(self.models / "best", self.engine.networks, self.size)
        shown = f" | abs_rel: {errors['abs_rel']:.3f}" if errors else ""
        console.info("epoch %3d | validation loss: %.5f%s%s", epoch, values["loss"], shown, " (best so far)" if better else "")

    def _validation_batches(self, loader: Loader, sums: dict[str, Tensor]) -> Iterator[NDArray[np.float32]]:
        """Validate batch by batch: add each one's losses to ``sums``, show the first, and yield what is to be scored."""
        engine, data = self.engine, self.config.data
        engine.step.eval()
        for number, batch in enumerate(loader.epoch(0)):
            seed_step(engine.step, data.seed, number)
            # Not around the loop: the loader and whoever scores go on in between.
            with torch.no_grad():
                # Not the compiled call: without gradients it would be compiled again, which takes longer than it ever saves.
                for name, value in self._loss_scalars(engine.step.forward(batch)).items():
                    sums[name] = sums.get(name, torch.zeros((), device=value.device)) + value * batch.K.shape[0]
                if number == 0:
                    pictures = engine.step.pictures(batch)
                    self.log.images("val", self.position.global_step, images_to_show(pictures, batch, data.frame_ids, data.use_stereo))
            yield self.validation.inv_depths(engine.networks, batch, engine.autocast)

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
        checkpoint.save_checkpoint(folder, self.engine.networks, self.size, self.engine.optimizer, self.engine.scaler, self.position)
        checkpoint.remove_superseded(self.models, folder)
        self._saved_s = time.monotonic()
