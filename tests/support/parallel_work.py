"""A program for any number of processes under torchrun: gradients, batches and validation, which rank 0 writes for tests to compare.

``parallel_work.py OUT TREE`` writes ``OUT/<world>.pt``: of each case of ``CASES`` the gradients by parameter; the losses and errors of a
validation on the untrained networks of each of ``VALIDATED``; and the samples that each rank loads in an epoch.

What has BatchNorm over all processes is computed in float64: in float32 the samples of one process in another order change its gradients by
1e-4 of the largest.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from steps import make_batch
from torch import Tensor

from benchmarks.step_inputs import default_config
from dataload.batch import Batch
from dataload.training_data import TrainingData
from engine.parallel.exchange import Exchange
from engine.parallel.ranks import Ranks, joined
from engine.training.build import Engine, build_engine
from engine.training.config import TrainConfig
from engine.training.optim import set_learning_rate
from engine.training.update import Updater
from engine.training.validation import Validation

CPU = torch.device("cpu")
GLOBAL_BATCH = 12
SIZE = {"height_px": 64, "width_px": 96, "amp": "off"}
STEREO = {"frame_ids": (0,), "use_stereo": True}
# Options of md-train; "frozen" is no option: BatchNorm in eval mode.
CASES: dict[str, dict[str, Any]] = {
    "mono": {"frozen": True},
    "stereo": {"frozen": True, **STEREO},
    "mono in two parts": {"frozen": True, "grad_accumulation": 2},
    "mono, activations recomputed": {"frozen": True, "checkpoint_activations": True},
    "a shared pose network and a predictive mask": {
        "frozen": True, "pose_model_type": "shared", "automask": False, "predictive_mask": True
    },
    "mono in two parts, BatchNorm over all": {"sync_bn": True, "grad_accumulation": 2},
    "stereo, BatchNorm over all, activations recomputed": {"sync_bn": True, "checkpoint_activations": True, **STEREO},
}  # fmt: skip
VALIDATED: dict[str, dict[str, Any]] = {"mono": {}, "stereo": STEREO}


def share(batch: Batch, ranks: Ranks, parts: int) -> Batch:
    """A rank's samples of a global batch, so that part p of all ranks together is part p of one process."""
    by_part = torch.arange(GLOBAL_BATCH).view(parts, GLOBAL_BATCH // parts)
    mine = by_part[:, ranks.rank :: ranks.world].flatten()
    return batch.with_tensors([tensor[mine] for tensor in batch.tensors()])


@contextmanager
def in_double(wanted: bool) -> Iterator[None]:
    """Within the block torch computes in float64 what else is in float32."""
    torch.set_default_dtype(torch.float64 if wanted else torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def built(config: TrainConfig, exchange: Exchange) -> Engine:
    """The engine, in torch's default dtype."""
    engine = build_engine(config, CPU, metric_factor=1.0, exchange=exchange)
    engine.networks.to(torch.get_default_dtype())
    return engine


def gradients(case: dict[str, Any], exchange: Exchange) -> dict[str, Tensor]:
    """The gradients of one update on the global batch."""
    options = {key: value for key, value in case.items() if key != "frozen"}
    config = default_config(**SIZE, **options)
    engine = built(config, exchange)
    engine.step.train(not case.get("frozen", False))
    stereo = config.data.use_stereo
    batch = make_batch(config.data.frame_ids, stereo, samples=GLOBAL_BATCH)
    updater = Updater(engine, parts=config.grad_accumulation)
    set_learning_rate(engine.optimizer, 0.0)
    for _ in range(2):  # DDP orders its buckets anew after the first
        updater(share(batch, exchange.ranks, config.grad_accumulation))
    # Of each parameter every 16th, as all of them are gigabytes.
    return {name: p.grad.flatten()[::16].clone() for name, p in engine.networks.named_parameters() if p.grad is not None}


def on_files(tree: Path, options: dict[str, Any]) -> TrainConfig:
    """The config of a small training on a tree of KITTI's form."""
    where = {"data_path": tree, "split": str(tree / "split"), "frame_store": "none", "num_workers": 1}
    return default_config(**SIZE, **where, batch_size=3, **options)


def validated(config: TrainConfig, exchange: Exchange) -> dict[str, float]:
    """The figures of a validation."""
    data = TrainingData(config.data, exchange.ranks.world)
    engine = build_engine(config, CPU, metric_factor=data.dataset.metric_factor, exchange=exchange)
    validation = Validation(config, data.dataset, data.val_refs, exchange.ranks)
    with data.loaders(CPU, frames_to_load=lambda *_: 0, place=exchange.ranks.place) as loaders:
        losses, errors, _ = validation.run(engine, loaders.val)
    return {**losses, **errors}


def loaded(config: TrainConfig, ranks: Ranks) -> list[list[int]]:
    """The samples of each of a rank's batches in an epoch that goes on after five samples."""
    with TrainingData(config.data, ranks.world).loaders(CPU, frames_to_load=lambda *_: 0, place=ranks.place) as loaders:
        return [batch.indices.tolist() for batch in loaders.train.epoch(1, samples_done=5)]


def main(out: Path, tree: Path) -> None:
    with joined() as ranks:
        exchange = Exchange(ranks, CPU, timedelta(minutes=2))
        found = {}
        for name, case in CASES.items():
            with in_double("sync_bn" in case):
                found[name] = gradients(case, exchange)
        figures = {name: validated(on_files(tree, options), exchange) for name, options in VALIDATED.items()}
        batches = ranks.gather(loaded(on_files(tree, STEREO), ranks))
        # All ranks have the same: their sums differ from none.
        sums = ranks.gather({name: float(sum(g.double().abs().sum() for g in of.values())) for name, of in found.items()})
        if ranks.is_first:
            content = {"gradients": found, "validated": figures, "batches": batches, "sums": sums}
            torch.save(content, out / f"{ranks.world}.pt")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
