"""One run: epoch after epoch of steps, what is logged and saved around them, and where the run stands."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from dataload.batch import Batch
from dataload.system.console import console
from dataload.training_data import Loaders, TrainingData
from engine.interrupt import Stop, Stopped
from engine.parallel.exchange import Exchange, Wishes
from engine.training import checkpoint
from engine.training.bad_frames import name_bad_frames
from engine.training.build import Engine
from engine.training.checkpoint import Position
from engine.training.config import TrainConfig, learning_rate_factor
from engine.training.faults import Diverged, last_checkpoint
from engine.training.log import Cost, NoLog, RunLog, is_log_step, loss_scalars, peak_gib, read_scalars
from engine.training.optim import learning_rate_at, set_learning_rate
from engine.training.result import TrainResult
from engine.training.showing import SCALAR_NAMES, Snapshot, Truth, source_names
from engine.training.step import LossTerms
from engine.training.timing import Crowd, Mark, Pace, Stopwatch, clock
from engine.training.update import Updater, seed_step
from engine.training.validation import Validation
from engine.weights import InputSize, save_weights, weights_folder
from splits.errors import InputError
from splits.faults import describe_fault

T = TypeVar("T")
# How often the progress bar is updated; reading the loss waits for the device.
SHOW_EVERY_S = 1.0


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
        log: RunLog | NoLog,
        position: Position,
        exchange: Exchange,
        crowd: Crowd,
        *,
        total_steps: int,
    ) -> None:
        self.config, self.engine, self.updater = config, engine, updater
        self.data, self.loaders, self.validation = data, loaders, validation
        self.models, self.log, self.position, self.total_steps = models, log, position, total_steps
        self.exchange, self.ranks, self.crowd = exchange, exchange.ranks, crowd
        # The samples of one step, of all processes.
        self.per_step = config.data.batch_size * self.ranks.world
        self.size = InputSize(*config.data.size_px, config.data.use_stereo)
        self._saved: Path | None = None
        # What a user has to mend before the run can continue, kept until its position is saved.
        self._fault: Exception | None = None
        self._finite = torch.ones((), dtype=torch.bool, device=engine.device)
        self._started_s = self._shown_s = self._saved_s = time.monotonic()
        self._watch = Stopwatch(lambda: loaders.train.waited_s)
        self._shown = self._logged = self._watch.mark()

    def _result(self, stopped_by: int | None = None) -> TrainResult:
        """Where the run stands, stopped by a signal or at its end."""
        best, position = self.models / "best", self.position
        return TrainResult(
            finished=stopped_by is None,
            stopped_by=stopped_by,
            run_folder=self.config.run_folder,
            # A run that was complete already has saved nothing this time.
            weights_folder=self._saved or weights_folder(self.models),
            best_weights_folder=best if best.is_dir() else None,
            epoch=position.epoch,
            global_step=position.global_step,
            best_val_loss=position.best_val_loss,
            best_val_abs_rel=position.best_val_abs_rel,
        )

    def to_the_end(self, stop: Stop, *, validated: bool) -> TrainResult:
        """Epoch after epoch: train, validate, save. Where it is stopped early, or cannot continue, the position is saved.

        Args:
            validated: whether the position is validated, as before ``weights_<epoch>`` is written.

        Raises:
            InputError: something is missing, damaged or became no number. OSError: something cannot be written.
        """
        done = self._is_complete() or (self._is_at_limit() and validated)
        while not done:
            epoch = self.position.epoch
            asked = Wishes() if self._is_at_limit() else self.train_epoch(stop)
            if not asked.ends:
                asked = self._validated(stop)
            if asked.ends:
                self._save_position()
                console.info("Stopped at step %d; repeat the command with --resume to continue", self.position.global_step)
                # Where another process has the fault, this one hears of it at the end.
                return self._result(asked.stop)
            if len(self.data.train_refs) - self._samples_done() < self.per_step:
                self.position = self.position._replace(epoch=epoch + 1, step=0, samples=0)
            done = self._is_complete() or self._is_at_limit()
            if done or (epoch + 1) % self.config.save_frequency == 0:
                self.save(self.models / f"weights_{epoch}")
                self._raise_fault()
        console.info("Done: weights in %s", self.models)
        return self._result()

    def _validated(self, stop: Stop) -> Wishes:
        """Validate; what ends the run then."""
        try:
            self._try_to(lambda: self.validate(stop))
        except Stopped:
            return Wishes(stop=stop.number)
        return self._with_own_fault(Wishes())

    def _try_to(self, work: Callable[[], T]) -> T | None:
        """What the work between two steps gives; None where it has a fault, which is kept until the position is saved.

        Of several processes the others wait for this one in their next step, and learn by its end that it has a fault.
        """
        try:
            return work()
        except (Diverged, Stopped):
            raise
        except Exception as fault:
            if self.ranks.world > 1:
                raise
            self._fault = self._fault or fault
            return None

    def _save_position(self) -> None:
        """Save where the run stands between two epochs' checkpoints, then raise the fault that ends it, if there is one."""
        try:
            self.save(self._step_folder())
        except (InputError, OSError) as error:
            if self._fault is None or isinstance(error, Diverged):
                raise
            unsaved = f"Step {self.position.global_step} could not be saved: {describe_fault(error)}"
            if isinstance(self._fault, (InputError, OSError)):
                raise InputError(f"{describe_fault(self._fault)}. {unsaved}") from self._fault
            console.warning("%s", unsaved)
            raise self._fault from error
        self._raise_fault()

    def _raise_fault(self) -> None:
        if self._fault is None:
            return
        if not isinstance(self._fault, (InputError, OSError)):  # a line of its own, as that keeps its traceback
            console.warning("Step %d is saved in %s", self.position.global_step, self._saved)
        raise self._fault

    def train_epoch(self, stop: Stop) -> Wishes:
        """The rest of the present epoch; what ended it before."""
        config, heart = self.config, self.ranks.heart
        epoch = self.position.epoch
        rate = learning_rate_at(epoch, base=config.learning_rate, step_size=config.scheduler_step_size)
        set_learning_rate(self.engine.optimizer, rate * learning_rate_factor(config.scale_lr, self.ranks.world))
        self.engine.step.train()
        heart.tell("loading", self.position.global_step)
        batches = self.loaders.train.epoch(epoch, samples_done=self._samples_done())
        while (batch := self._try_to(lambda: next(batches, None))) is not None:
            heart.tell("training")
            self._watch.count(config.data.batch_size)
            seed_step(self.engine.step, config.data.seed, self.position.global_step)
            stop.at_once = self.updater.compiles_next
            terms = self.updater(batch)
            stop.at_once = False
            if self.updater.prepared:
                self._watch.restart()
            self._finite &= terms.loss.isfinite()
            self.after_step(batch, terms)
            agreed = self.exchange.agreed(self._wishes(stop))
            if agreed.show:
                self.show(terms)
            if self._is_at_limit():
                return Wishes()
            if agreed.ends:
                return agreed
            if agreed.save or self._is_due_step():
                self.save(self._step_folder())
            heart.tell("loading", self.position.global_step)
        # What was wanted at the last step, before a validation that may take long.
        agreed = self.exchange.outstanding()
        if agreed.save:
            self.save(self._step_folder())
        return self._with_own_fault(agreed)

    def _with_own_fault(self, agreed: Wishes) -> Wishes:
        """What ends the run; a fault that several processes have not agreed on ends it when they do."""
        return agreed._replace(fault=agreed.fault or (self.ranks.world == 1 and self._fault is not None))

    def after_step(self, batch: Batch, terms: LossTerms) -> None:
        """Log where it is due, and move the position on."""
        _, batch_index, step, *_ = self.position
        if is_log_step(batch_index, step, log_frequency=self.config.log_frequency):
            self.log_training(batch, terms)
        self.position = self.position._replace(step=batch_index + 1, global_step=step + 1, samples=self._samples_done() + self.per_step)
        self.log.advance()

    def _name_bad_frames(self) -> None:
        """Name all frames that were skipped, by all processes and also before the run was resumed, in a file of the run folder."""
        if self.loaders.bad is None:
            return
        found = [line for lines in self.ranks.gather(self.loaders.bad.lines()) for line in lines]
        if self.ranks.is_first and found:
            self._log(lambda: name_bad_frames(self.config.run_folder, found))

    def _log(self, work: Callable[[], None]) -> None:
        """Write something beside checkpoints; its faults end the run after this step, of several processes too: all save first."""
        try:
            work()
        except (InputError, OSError) as fault:
            self._fault = self._fault or fault

    def _wishes(self, stop: Stop) -> Wishes:
        """What this process wants all to do; the clock is that of rank 0."""
        now_s, is_first = time.monotonic(), self.ranks.is_first
        return Wishes(
            stop=stop.number,
            save=stop.take_save_request() or (is_first and now_s - self._saved_s >= 60 * self.config.save_minutes),
            show=is_first and now_s - self._shown_s >= SHOW_EVERY_S,
            fault=self._fault is not None,
        )

    def show(self, terms: LossTerms) -> None:
        """Bring the progress bar up to date."""
        self._shown_s = time.monotonic()
        values, cost = self._over_ranks({"loss": terms.loss}, self._shown)
        self.log.progress(self.position.epoch, values["loss"], cost.pace)
        self._shown = self._watch.mark()

    def log_training(self, batch: Batch, terms: LossTerms) -> None:
        """Losses, depth metrics where there is ground truth, pictures; Monodepth2's line on the console."""
        epoch, batch_index, step, *_ = self.position
        # Waits for the device, so that the pause hides none of its training.
        values, cost = self._over_ranks(loss_scalars(terms, self.config.model.scales), self._logged)
        self.require_finite()
        self._logged = self._watch.mark()
        with self._watch.paused():
            self._log(lambda: self.log.write("train", step, epoch, values | cost.scalars(), lambda: self._snapshot(batch)))
        overall = self._watch.pace()
        left_s = self._watch.left_s((self.total_steps - step - 1) * self.config.data.batch_size)
        console.info(
            "epoch %3d | batch %6d | samples/s: %5s | loss: %.5f | time elapsed: %s | time left: %s%s",
            epoch, batch_index, "-" if overall is None else f"{overall.samples_per_s * self.ranks.world:.1f}", values["loss"],
            clock(time.monotonic() - self._started_s), clock(left_s), cost,
        )  # fmt: skip
        self.crowd.look()

    def _over_ranks(self, losses: dict[str, Tensor], since: Mark) -> tuple[dict[str, float], Cost]:
        """Losses, means over the global batch; what training costs since a mark: the pace of all processes together, their mean share of
        waiting, the most memory that one of them has taken."""
        self.exchange.meet()
        values, pace, memory_gib = read_scalars(losses), self._watch.pace(since), peak_gib(self.engine.device)
        *sums, samples_per_s, wait_share = self.exchange.sums([*values.values(), *(pace or (math.nan, math.nan))])
        if memory_gib is not None:
            memory_gib = self.exchange.most([memory_gib])[0]
        world = self.ranks.world
        means = {name: total / world for name, total in zip(values, sums, strict=True)}
        return means, Cost(None if math.isnan(samples_per_s) else Pace(samples_per_s, wait_share / world), memory_gib)

    def _snapshot(self, batch: Batch) -> Snapshot:
        data, model = self.config.data, self.config.model
        truth = Truth(
            self.data.dataset, self.loaders.train.refs, (model.min_depth, model.max_depth), drawn=(data.seed, self.position.epoch)
        )
        return Snapshot(self.engine.step, batch, source_names(data.frame_ids, data.use_stereo), truth)

    def validate(self, stop: Stop) -> None:
        """Mean losses and, where there is ground truth, errors over the validation list; keeps the weights in ``best`` when they are.

        Raises:
            Stopped: this is requested. It may take minutes, which a cluster does not wait for, and is made again by a resumed run.
        """
        self.require_finite_weights()
        self.ranks.heart.tell("validating", self.position.global_step)
        epoch, _, step, *_ = self.position
        with self._watch.paused():
            self.exchange.share_buffers(self.engine.networks)
            losses, errors, snapshot = self.validation.run(self.engine, self.loaders.val, stop)
            scores = {SCALAR_NAMES[name]: value for name, value in errors.items()}
            self._log(lambda: self.log.write("val", step, epoch, {**losses, **scores}, lambda: snapshot))
        best = self.position
        better = errors["abs_rel"] < best.best_val_abs_rel if errors else losses["loss"] < best.best_val_loss
        if better:
            self._keep_best()
            # Only now: a position says nothing of a best that could not be written.
            abs_rel = errors.get("abs_rel", best.best_val_abs_rel)
            self.position = best._replace(best_val_loss=losses["loss"], best_val_abs_rel=abs_rel)
        shown = f" | abs_rel: {errors['abs_rel']:.3f}" if errors else ""
        console.info("epoch %3d | validation loss: %.5f%s%s", epoch, losses["loss"], shown, " (best so far)" if better else "")

    def _keep_best(self) -> None:
        if self._saved is None and not self.config.resume:
            # A run that is killed with its best weights alone could neither be resumed nor begun again.
            self.save(self._step_folder())
        if self.ranks.is_first:
            with self._watch.paused():
                save_weights(self.models / "best", self.engine.networks, self.size)

    def require_finite(self) -> None:
        """Raise InputError once a loss or weight was NaN or infinite, before such weights could be saved; on all ranks alike."""
        if self.exchange.most([float(not bool(self._finite))])[0]:
            raise Diverged(f"the loss or a weight became NaN or infinite by step {self.position.global_step}; {self._after_divergence()}")

    def _after_divergence(self) -> str:
        """What to do about it: a resumed run would come to the same end, with the options on which its numbers depend."""
        gentler = f"a --learning_rate below {self.config.learning_rate:g}" + (" or --amp off" if self.engine.autocast is not None else "")
        folder = last_checkpoint(self.models)
        if folder is None:
            return f"start again with {gentler}"
        return f"begin another run from the weights before (--load_weights_folder {folder}) with {gentler}"

    def require_finite_weights(self) -> None:
        """As ``require_finite``, and for all that a checkpoint holds: the last update's damage shows in no loss yet."""
        self.exchange.meet()
        moments = (moment for state in self.engine.optimizer.state.values() for moment in state.values())
        kept = [*self.engine.networks.state_dict().values(), *moments]
        self._finite &= torch.stack([tensor.isfinite().all() for tensor in kept]).all()
        self.require_finite()

    def save(self, folder: Path) -> None:
        """Write a checkpoint, then remove the mid-epoch ones it supersedes; rank 0 does it for all."""
        self.require_finite_weights()
        self._name_bad_frames()
        self.ranks.heart.tell("saving", self.position.global_step)
        if self.ranks.is_first:
            with self._watch.paused():
                # A run that is resumed from here logs none of the steps before again.
                self._log(self.log.drain)
                engine = self.engine
                checkpoint.save_checkpoint(folder, engine.networks, self.size, engine.optimizer, engine.scaler, self.position)
                checkpoint.remove_superseded(self.models, folder)
        self._saved = folder
        self._saved_s = time.monotonic()

    def _step_folder(self) -> Path:
        return self.models / f"step_{self.position.global_step}"

    def _is_due_step(self) -> bool:
        """Whether --save_every_steps asks for a checkpoint here."""
        every = self.config.save_every_steps
        return every is not None and self.position.global_step % every == 0

    def _samples_done(self) -> int:
        """Of the present epoch, by all processes."""
        return self.position.samples or 0

    def _is_complete(self) -> bool:
        return self.position.epoch >= self.config.num_epochs

    def _is_at_limit(self) -> bool:
        return self.config.max_steps is not None and self.position.global_step >= self.config.max_steps
