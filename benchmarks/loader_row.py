"""One row of ``bench_loader`` in a process of its own, ``python -m benchmarks.loader_row ROW``: an epoch each time it is asked.

The process is bound to its cores before torch starts, so that no loader can use more than its row says.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    from dataload.config import DataConfig
    from dataload.datasets.base import Dataset
    from dataload.frames.frame_ref import FrameRef
    from dataload.store.reading import FrameStore

# A shorter epoch is repeated: else the clock and the threads' start would be measured.
LEAST_S = 0.3
PILLOW_SIMD = "pillow-simd"

# Goes through the epoch of a number and returns how many samples it delivered.
Epoch = Callable[[int], int]


class Row(NamedTuple):
    """What a row measures.

    Attributes:
        kind: "plain", "loader", "gather" (stored frames read and checked, nothing else) or "build" (of a store).
        cores: the cores that the process is bound to, by number; it has as many workers.
        config: options of ``DataConfig``; no ``num_workers``.
        repeats: how often an epoch repeats the split's lines.
        resizer: replaces ``dataload.pipeline.decode``'s own choice.
        hardware_share: the share of frames for the GPU's JPEG engine.
    """

    kind: str
    cores: list[int]
    device: str
    config: dict[str, Any]
    repeats: int = 1
    resizer: str | None = None
    hardware_share: float = 0.0


def main() -> None:
    """Prepares the row, says so, then answers each line on standard input with the samples and seconds of an epoch."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Libraries' prints must not mix with the answers.
    row = Row(**json.loads(sys.argv[1]))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, row.cores)
    run = prepare(row)
    print(json.dumps("ready"), file=answers)
    number = 0
    for _ in sys.stdin:
        samples, epochs, start = 0, 0, time.perf_counter()
        while epochs == 0 or (row.kind != "build" and time.perf_counter() - start < LEAST_S):
            samples += run(number)
            number, epochs = number + 1, epochs + 1
        seconds = time.perf_counter() - start
        print(json.dumps({"samples": samples, "epochs": epochs, "seconds": seconds}), file=answers)


def prepare(row: Row) -> Epoch:
    """Everything that comes before an epoch: imports, the split, the store, the loader."""
    from dataload.config import DataConfig
    from dataload.datasets import open_dataset
    from dataload.pipeline import decode

    if row.resizer is not None:
        require_resizer(row.resizer)
        decode.RESIZER = row.resizer
    values: dict[str, Any] = row.config | {name: Path(row.config[name]) for name in ("data_path", "frame_store_dir")}
    config = DataConfig(**values, num_workers=len(row.cores))
    dataset = open_dataset(config)
    return KINDS[row.kind](row, config, dataset, dataset.read(config.split, "train") * row.repeats)


def require_resizer(resizer: str) -> None:
    """Raise unless ``PIL`` is pillow-simd, which takes Pillow's place wherever it is installed."""
    import PIL

    if resizer == PILLOW_SIMD and ".post" not in PIL.__version__:
        raise RuntimeError(f"{PIL.__file__} is Pillow {PIL.__version__}, not pillow-simd")


def plain_epochs(row: Row, config: DataConfig, dataset: Dataset, refs: tuple[FrameRef, ...]) -> Epoch:
    """The plain loader's epochs; its batches go to the device by a copy per tensor."""
    import torch

    from benchmarks.plain_loader import plain_loader

    loader = plain_loader(config, dataset, refs, num_workers=config.num_workers)

    def epoch(_: int) -> int:
        samples = 0
        for batch in loader:
            if row.device != "cpu":
                batch = {name: tensor.to(row.device, non_blocking=True) for name, tensor in batch.items()}
            samples += len(batch["K", 0])
        _wait(torch.device(row.device))
        return samples

    return epoch


def loader_epochs(row: Row, config: DataConfig, dataset: Dataset, refs: tuple[FrameRef, ...]) -> Epoch:
    """Our loader's epochs, from the files or from the store that is there already."""
    import torch

    from dataload.loader import Loader
    from dataload.pipeline.decoders import DaliDecoder, decoder_of

    device = torch.device(row.device)
    decoder = decoder_of(config, device)
    if row.hardware_share:
        decoder = DaliDecoder(config, device, hardware_share=row.hardware_share)
    loader = Loader(config, dataset, refs, training=True, device=device, store=_store(config, dataset, refs, device), decoder=decoder)

    def epoch(number: int) -> int:
        samples = sum(len(batch.indices) for batch in loader.epoch(number))
        _wait(device)
        return samples

    return epoch


def gather_epochs(row: Row, config: DataConfig, dataset: Dataset, refs: tuple[FrameRef, ...]) -> Epoch:
    """Stored frames read and checked into batch buffers, which are used again; no flip, jitter or pyramid."""
    import numpy as np
    import torch

    from dataload.pipeline.batch_maker import loader_workers
    from dataload.pipeline.order import epoch_batches

    store: FrameStore = _store(config, dataset, refs, torch.device("cpu"))
    rows = store.table.rows(refs)
    workers, ahead = loader_workers(config)
    shape = (config.batch_size, rows.shape[1], *config.size_px, 3)
    # The batches begun ahead, the one being delivered, and the one being begun.
    buffers = [np.empty(shape, np.uint8) for _ in range(ahead + 2)]

    def read(wanted: np.ndarray, frames: np.ndarray) -> None:
        for frame_row, frame in zip(wanted.tolist(), frames, strict=True):
            store.read(frame_row, frame)

    def parts(job: tuple[np.ndarray, np.ndarray]) -> list[Callable[[], object]]:
        return [partial(read, wanted, frames) for wanted, frames in zip(*job, strict=True)]

    def epoch(number: int) -> int:
        batches = epoch_batches(len(refs), batch_size=config.batch_size, seed=config.seed, epoch=number)
        jobs = ((rows[index], buffers[step % len(buffers)]) for step, index in enumerate(batches))
        return sum(len(frames) for _, frames in workers.run(jobs, parts, ahead=ahead))

    return epoch


def build_epochs(row: Row, config: DataConfig, dataset: Dataset, refs: tuple[FrameRef, ...]) -> Epoch:
    """Makes the store that the other rows use; counts frames in place of samples, and can run only once."""
    import torch

    if config.loader == "dali":
        import dataload.pipeline.dali_graph  # noqa: F401, DALI's own start is no part of the building

    return lambda _: len(_store(config, dataset, refs, torch.device(row.device)).table)


KINDS: dict[str, Callable[..., Epoch]] = {
    "plain": plain_epochs,
    "loader": loader_epochs,
    "gather": gather_epochs,
    "build": build_epochs,
}


def _store(config: DataConfig, dataset: Dataset, refs: tuple[FrameRef, ...], device: Any) -> Any:
    from dataload.pipeline.decoders import decoder_of
    from dataload.store.choice import open_store

    return open_store(config, dataset, refs, decoder=decoder_of(config, device), device=device, frames_to_load=len(refs))


def _wait(device: Any) -> None:
    """Returns when all batches are on their device."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
