"""What the tests of loading share: the images of a batch, whether two batches are the same, the backends that are here."""

import pytest
import torch

from dataload.batch import Batch
from dataload.pipeline.backend import has_dali
from dataload.pipeline.torch_graph import Images

HAS_DALI = has_dali()
BACKENDS = ["torch", pytest.param("dali", marks=pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed"))]


def images(batch: Batch | Images) -> list[torch.Tensor]:
    return [*batch.target, *batch.sources, batch.target_input, batch.source_inputs]


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.tensors(), b.tensors(), strict=True))


def count_builds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one whenever DALI builds a pipeline, as it does."""
    from nvidia.dali import Pipeline

    built: list[int] = []
    init = Pipeline._init_pipeline_backend

    def counted(pipeline: Pipeline) -> None:
        built.append(len(built))
        init(pipeline)

    monkeypatch.setattr(Pipeline, "_init_pipeline_backend", counted)
    return built
