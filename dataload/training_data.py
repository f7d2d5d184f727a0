"""The entry point of training: the lists of a run, checked before anything takes long, and then its loaders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

import torch

from dataload.config import DataConfig
from dataload.datasets import open_dataset
from dataload.datasets.presence import require_files
from dataload.loader import Loader, require_full_batch
from dataload.pipeline.decoders import decoder_of
from dataload.store.choice import open_store
from splits import subset_source

if TYPE_CHECKING:
    from dataload.frames.frame_ref import FrameRef


class Loaders(NamedTuple):
    """The loaders of a run; ``decoder_name`` is what decodes and resizes their frames."""

    train: Loader
    val: Loader
    decoder_name: str


class TrainingData:
    """The dataset and the lists of a run, with all their files known to exist.

    Attributes:
        train_refs, val_refs: the samples that can be trained on and those that validate, in list order.

    Raises:
        InputError: missing files, or a training list too short for one batch.
    """

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        # The dataset first: the demo world makes its split with itself.
        self.dataset = open_dataset(config)
        self.train_refs, self.val_refs = self._read("train"), self._read("val")
        require_full_batch(len(self.train_refs), config.batch_size)

    @contextmanager
    def loaders(self, device: torch.device, *, frames_to_load: Callable[[int, int], int]) -> Iterator[Loaders]:
        """The loaders onto a device; a frame store is made first where one is wanted and missing.

        Args:
            frames_to_load: from the numbers of training and validation samples, how many frames the run would decode without a store.

        Raises:
            StoreError: a store is asked for and cannot be had.
            InputError: a frame is missing or damaged.
        """
        config, dataset = self.config, self.dataset
        decoder = decoder_of(config, device)
        store = open_store(
            config,
            dataset,
            [*self.train_refs, *self.val_refs],
            decoder=decoder,
            device=device,
            frames_to_load=frames_to_load(len(self.train_refs), len(self.val_refs)),
        )
        with (
            closing(store) if store else nullcontext(),
            Loader(config, dataset, self.train_refs, training=True, device=device, store=store) as train,
            Loader(config, dataset, self.val_refs, training=False, device=device, store=store) as val,
        ):
            yield Loaders(train, val, decoder.name)

    def _read(self, subset: str) -> tuple[FrameRef, ...]:
        config, source = self.config, subset_source(self.config.split, subset)
        refs = self.dataset.read(config.split, subset)
        refs = self.dataset.with_sources(refs, source=source, frame_ids=config.frame_ids, use_stereo=config.use_stereo)
        require_files(self.dataset, refs, frame_ids=config.frame_ids, use_stereo=config.use_stereo)
        return refs
