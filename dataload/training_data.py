"""The entry point of training: the lists of a run, checked before anything takes long, and then its loaders; or one list alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

import torch

from dataload.config import DataConfig
from dataload.datasets import open_dataset
from dataload.datasets.presence import require_files
from dataload.frames.bad_frames import BadFrames
from dataload.loader import Loader, bad_frames_of, require_full_batch, usable_device
from dataload.option import whole_number
from dataload.pipeline.decoders import decoder_of
from dataload.store.choice import open_store
from dataload.store.reading import DeviceFrames
from dataload.system.launch import ALONE, Launch
from splits import subset_source

if TYPE_CHECKING:
    from dataload.datasets.base import Dataset
    from dataload.frames.frame_ref import FrameRef


class Loaders(NamedTuple):
    """The loaders of a run.

    Attributes:
        bad: the frames that could not be read, so far; None where one ends the run.
        decoder_name: what decodes and resizes their frames.
        gpu_frames_bytes: what a frame store holds of the GPU's memory.
    """

    train: Loader
    val: Loader
    bad: BadFrames | None
    decoder_name: str
    gpu_frames_bytes: int


class TrainingData:
    """The dataset and the lists of a run, with all their files known to exist.

    Attributes:
        train_refs, val_refs: the samples that can be trained on and those that validate, in list order.

    Args:
        world: how many processes train together.

    Raises:
        InputError: missing files, or a training list too short for one batch of each process.
    """

    def __init__(self, config: DataConfig, world: int = 1) -> None:
        self.config = config
        # The dataset first: the demo world makes its split with itself.
        self.dataset = open_dataset(config)
        self.train_refs, self.val_refs = (read_list(config, self.dataset, subset) for subset in ("train", "val"))
        require_full_batch(len(self.train_refs), config.batch_size, world)

    @contextmanager
    def loaders(self, device: torch.device, *, frames_to_load: Callable[[int, int], int], place: Launch = ALONE) -> Iterator[Loaders]:
        """The loaders onto a device; a frame store is made first where one is wanted and missing, once for all processes of a machine.

        Args:
            frames_to_load: from the numbers of training and validation samples, how many frames a machine would decode without a store.
            place: of this process among those that train together.

        Raises:
            StoreError: a store is asked for and cannot be made or used.
            InputError: a frame is missing or damaged.
        """
        config, dataset = self.config, self.dataset
        decoder = decoder_of(config, device)
        refs = [*self.train_refs, *self.val_refs]
        bad = bad_frames_of(config, len(refs))
        store = open_store(
            config,
            dataset,
            refs,
            decoder=decoder,
            device=device,
            frames_to_load=frames_to_load(len(self.train_refs), len(self.val_refs)),
            bad=bad,
        )

        def loader(refs: Sequence[FrameRef], *, training: bool) -> Loader:
            return Loader(
                config,
                dataset,
                refs,
                training=training,
                device=device,
                rank=place.rank,
                world=place.world,
                store=store,
                decoder=decoder,
                bad=bad,
            )

        with (
            closing(store) if store else nullcontext(),
            loader(self.train_refs, training=True) as train,
            loader(self.val_refs, training=False) as val,
        ):
            yield Loaders(train, val, bad, decoder.name, store.frames.nbytes if isinstance(store, DeviceFrames) else 0)


@contextmanager
def open_loader(
    config: DataConfig,
    subset: str = "train",
    *,
    device: torch.device | str = "cpu",
    num_epochs: int = 1,
    training: bool | None = None,
    rank: int = 0,
    world: int = 1,
) -> Iterator[Loader]:
    """The loader of one list, for your own training loop; each ``for batch in loader`` is one epoch, in order.

    ``with open_loader(data_config(dataset="demo", use_stereo=True), device="cuda", num_epochs=20) as loader: ...``

    Args:
        config: what is loaded; see ``data_config``, which knows the defaults of datasets. The losses read as many pyramid levels as the
            networks have scales (``num_levels``, 4), and with ``v1_multiscale`` as many of the sources (``source_levels``, else 1).
        subset: train, val, test, or another list of the split.
        device: where the batches go.
        num_epochs: how many epochs you will run; with ``frame_store="auto"`` it decides whether frames are kept decoded.
        training: shuffled, full batches only, with flips and colour jitter; by default only for the train list. Otherwise in the
            list's order, and the last batch may be smaller.
        rank: this process's number among those that share each epoch, from 0.
        world: how many share it, see ``Loader``.

    Raises:
        InputError: no such dataset, list, device or rank, missing or damaged files, none that can be trained on, or fewer than one batch.
        StoreError: a frame store is asked for and cannot be made or used.
    """
    device, num_epochs = usable_device(device), whole_number("num_epochs", num_epochs, least=1)
    dataset = open_dataset(config)
    refs = read_list(config, dataset, subset)
    frames_to_load = num_epochs * len(refs) * (1 + config.num_sources)
    decoder = decoder_of(config, device)
    bad = bad_frames_of(config, len(refs))
    store = open_store(config, dataset, refs, decoder=decoder, device=device, frames_to_load=frames_to_load, bad=bad)
    shuffled = subset == "train" if training is None else training
    with (
        closing(store) if store else nullcontext(),
        Loader(
            config, dataset, refs, training=shuffled, device=device, rank=rank, world=world, store=store, decoder=decoder, bad=bad
        ) as loader,
    ):
        yield loader


def read_list(config: DataConfig, dataset: Dataset, subset: str) -> tuple[FrameRef, ...]:
    """The samples of a list that have the sources of ``config``, with all their files known to exist, in list order.

    Args:
        config: which split, and which frames are used with each target.
        dataset: where its files lie.
        subset: train, val, test, or another list of the split.

    Raises:
        InputError: no such list, a malformed line, none that can be trained on, or missing files.
    """
    refs = dataset.read(config.split, subset)
    source = subset_source(config.split, subset)
    refs = dataset.with_sources(refs, source=source, frame_ids=config.frame_ids, use_stereo=config.use_stereo)
    require_files(dataset, refs, frame_ids=config.frame_ids, use_stereo=config.use_stereo)
    return refs
