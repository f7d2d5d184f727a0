"""Scores of a model in training as md-eval scores it afterwards: the same code, on the validation list's own ground truth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import chain, islice, zip_longest
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataload.batch import Batch
from dataload.datasets.base import Dataset
from dataload.frames.frame_ref import FrameRef
from dataload.ground_truth import dataset_for, lazy_ground_truth
from dataload.loader import Loader
from dataload.system.console import console
from engine.evaluation.metrics import ALL_GT, EIGEN
from engine.evaluation.scoring import Rules, require_scored, score
from engine.evaluation.sharing import gather_scores
from engine.geometry import disp_to_depth
from engine.host_copy import one_behind
from engine.inference.depth_network import at_full_size
from engine.interrupt import Stop, Stopped
from engine.parallel.ranks import ALONE, Ranks
from engine.parallel.sharing import share_of
from engine.training.build import Engine
from engine.training.config import TrainConfig
from engine.training.log import loss_scalars, read_scalars
from engine.training.showing import Snapshot, source_names
from engine.training.update import seed_step


class Validated(NamedTuple):
    """The outcome of one validation.

    Attributes:
        losses: means over the list, by their names in the metrics.
        errors: the seven errors by name; none where no image has ground truth.
        snapshot: the pictures of the first batch; None on ranks that log none.
    """

    losses: Mapping[str, float]
    errors: Mapping[str, float]
    snapshot: Snapshot | None


class Validation:
    """What the validation list is scored by, checked before training starts: damaged truth is found while nothing can be lost.

    Attributes:
        truths: of those images that have ground truth; empty where none has. Made again in each epoch, in other threads while the network
            predicts: thousands of annotated images would fill gigabytes.
        rules: the dataset's protocol; a model trained on stereo pairs is scored in metres, any other scaled by the median.

    Raises:
        InputError: damaged ground truth, or an image none of whose truth counts.
    """

    def __init__(self, config: TrainConfig, dataset: Dataset, refs: Sequence[FrameRef], ranks: Ranks = ALONE) -> None:
        dataset = dataset_for(config.data.split, dataset)
        self._ranks = ranks
        # The loader's order, by which the device need not be asked which images these are.
        share = share_of(ranks, len(refs), config.data.batch_size)
        self._is_scored = np.array([dataset.depth_source(refs[index]) is not None for index in share], bool)
        self._positions = [index for index, is_scored in zip(share, self._is_scored, strict=True) if is_scored]
        self.truths = lazy_ground_truth(dataset, [refs[index] for index in self._positions])
        self.names = [f"'{refs[index].line}'" for index in self._positions]
        self._num_scored = sum(ranks.gather(len(self._positions)))
        protocol = ALL_GT if dataset.scores_all_depth else EIGEN
        self.rules = Rules(protocol, "none", dataset.metric_factor) if config.data.use_stereo else Rules(protocol)
        require_scored(self.truths, self.rules.protocol, self.names, progress=True)
        self._seed, self._scales = config.data.seed, config.model.scales
        self._source_names = source_names(config.data.frame_ids, config.data.use_stereo)
        self._depth_range = config.model.min_depth, config.model.max_depth
        console.info("Validation  %s", self._description(len(refs)))

    def _description(self, num_images: int) -> str:
        if not self._num_scored:
            return "no image has ground truth: the best weights are those of the lowest loss"
        return f"{self._num_scored} of {num_images} images have ground truth: the best weights are those of the lowest abs_rel"

    def run(self, engine: Engine, loader: Loader, stop: Stop | None = None) -> Validated:
        """Losses, errors and pictures of the whole list; the step is in eval mode afterwards.

        On a GPU nothing waits for it between two batches, but for the inverse depths of the one before. The last batch may be smaller:
        then cuDNN searches its algorithms once for that size.

        Args:
            loader: of the validation list.
            stop: a request by which it is left, where one process makes it; of several none may leave the others waiting.

        Raises:
            Stopped: that was requested.
        """
        engine.step.eval()
        batches = loader.epoch(0)
        # The first batch of all is rank 0's.
        first = list(islice(batches, 1)) if self._ranks.is_first else []
        snapshot = Snapshot(engine.step, first[0], self._source_names) if first else None
        losses: list[tuple[int, Mapping[str, Tensor]]] = []
        errors = self._score(self._inv_depths(engine, self._until(stop, chain(first, batches)), losses), loader.replaced)
        return Validated(self._means(losses), errors, snapshot)

    def _until(self, stop: Stop | None, batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:
            if stop is not None and stop.requested and self._ranks.world == 1:
                raise Stopped
            yield batch

    def _score(self, inv_depths: Iterator[Tensor], replaced: Set[int]) -> dict[str, float]:
        """Use up the inverse depths of this rank's images; the seven errors of all ranks by name, none without any truth.

        Images that were ``replaced`` by others, as they cannot be read, do not count: the truth is not that of what was predicted.
        """
        if self._num_scored:
            mine = score(self._scored(one_behind(inv_depths)), self.truths, self.rules, names=self.names)
            rows = [row for row, position in enumerate(self._positions) if position not in replaced]
            ratios = None if mine.median_ratios is None else mine.median_ratios[rows]
            mine = mine._replace(per_image=mine.per_image[rows], median_ratios=ratios)
            everyone = gather_scores(self._ranks, mine, [self._positions[row] for row in rows])
            return everyone.means if everyone.num_images else {}
        for _ in inv_depths:
            pass
        return {}

    def _means(self, losses: Sequence[tuple[int, Mapping[str, Tensor]]]) -> dict[str, float]:
        """The means over all samples of all ranks, added up in the list's order: the same for any number of ranks.

        Args:
            losses: of each of this rank's batches, its size and its losses.
        """
        read = read_scalars({f"{number} {name}": value for number, (_, of) in enumerate(losses) for name, value in of.items()})
        mine = [[size, {name: read[f"{number} {name}"] for name in of}] for number, (size, of) in enumerate(losses)]
        dealt = zip_longest(*self._ranks.gather(mine))
        batches = [batch for of_ranks in dealt for batch in of_ranks if batch is not None]
        return {name: sum(size * of[name] for size, of in batches) / sum(size for size, _ in batches) for name in batches[0][1]}

    def _scored(self, blocks: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Of consecutive blocks (B,h,w) of the list, the images that have ground truth."""
        first = 0
        for block in blocks:
            yield block[self._is_scored[first : first + len(block)]]
            first += len(block)

    def _inv_depths(self, engine: Engine, batches: Iterable[Batch], losses: list[tuple[int, Mapping[str, Tensor]]]) -> Iterator[Tensor]:
        """Inverse depths (B,h,w) of the targets, batch by batch, whose size and losses are added to ``losses``."""
        step = engine.step
        # One seed for all batches: a sample's loss is the same in whichever batch it is.
        seed_step(step, self._seed, 0)
        for batch in batches:
            # Not around the loop: the loader and the scoring run in between.
            with torch.no_grad():
                # Not the compiled call: without gradients it would be compiled again, which takes longer than it ever saves.
                predictions = step.predict(batch)
                terms = step.objective(predictions, batch, step.noise_seed)
                losses.append((len(batch.K), loss_scalars(terms, self._scales)))
                disp = at_full_size(predictions.disps, batch.target_input.shape[-2:])
                inv_depth = disp_to_depth(disp, *self._depth_range)[0][:, 0]
            yield inv_depth
