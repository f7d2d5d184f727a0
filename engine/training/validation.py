"""Scores of a model in training as md-eval scores it afterwards: the same code, on the validation list's own ground truth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from dataload.batch import Batch
from dataload.datasets.base import Dataset
from dataload.frames.frame_ref import FrameRef
from dataload.ground_truth import dataset_for, lazy_ground_truth
from dataload.system.console import console
from engine.evaluation.metrics import ALL_GT, EIGEN
from engine.evaluation.scoring import Rules, require_scored, score
from engine.geometry import disp_to_depth
from engine.inference.depth_network import finest_disp
from engine.inference.predictions import predict_disp
from engine.networks import Networks
from engine.training.config import TrainConfig


class Validation:
    """What the validation list is scored by, checked before training starts: damaged truth is found while nothing can be lost.

    Attributes:
        truths: of those images that have ground truth; empty where none has. Made again in each epoch, in other threads while the network
            predicts: thousands of annotated images would fill gigabytes.
        rules: the dataset's protocol; a model trained on stereo pairs is scored in metres, any other scaled by the median.

    Raises:
        InputError: damaged ground truth, or an image none of whose truth counts.
    """

    def __init__(self, config: TrainConfig, dataset: Dataset, refs: Sequence[FrameRef]) -> None:
        dataset = dataset_for(config.data.split, dataset)
        scored = [(index, ref) for index, ref in enumerate(refs) if dataset.depth_source(ref) is not None]
        self.truths = lazy_ground_truth(dataset, [ref for _, ref in scored])
        self.names = [f"'{ref.line}'" for _, ref in scored]
        self._is_scored = np.zeros(len(refs), bool)
        self._is_scored[[index for index, _ in scored]] = True
        protocol = ALL_GT if dataset.scores_all_depth else EIGEN
        self.rules = Rules(protocol, "none", dataset.metric_factor) if config.data.use_stereo else Rules(protocol)
        require_scored(self.truths, self.rules.protocol, self.names, progress=True)
        self._size_px = config.data.size_px
        self._depth_range = config.model.min_depth, config.model.max_depth
        console.info("Validation  %s", self._description(len(refs)))

    def _description(self, num_images: int) -> str:
        if not self.truths:
            return "no image has ground truth: the best weights are those of the lowest loss"
        return f"{len(self.truths)} of {num_images} images have ground truth: the best weights are those of the lowest abs_rel"

    def score(self, inv_depths: Iterable[NDArray[np.float32]]) -> dict[str, float]:
        """Use up the predictions of the whole list, as ``inv_depths`` makes them; the seven errors by name, none without any truth."""
        if self.truths:
            return score(inv_depths, self.truths, self.rules, names=self.names).means
        for _ in inv_depths:
            pass
        return {}

    def inv_depths(self, networks: Networks, batch: Batch, autocast_dtype: torch.dtype | None) -> NDArray[np.float32]:
        """Inverse depth (b,h,w) of those targets of a batch that have ground truth, maybe none."""
        rows = torch.from_numpy(self._is_scored[batch.indices.cpu().numpy()])
        images = batch.target_input[rows.to(batch.target_input.device)]
        if not len(images):
            return np.empty((0, *self._size_px), np.float32)
        disp = predict_disp(partial(finest_disp, networks.encoder, networks.depth), images, autocast_dtype=autocast_dtype)
        inv_depth: NDArray[np.float32] = disp_to_depth(disp, *self._depth_range)[0][:, 0].cpu().numpy()
        return inv_depth
