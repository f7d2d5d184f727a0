"""The comparison of trainings over seeds: what it calls equal, and that the plain path's losses are torch's."""

import pytest
import torch
from published import objective_of

from benchmarks import demo_seeds
from benchmarks.demo_seeds import OURS, PLAIN, equal, summary, train_and_score_plainly

META = torch.device("meta")


def rows(ours: list[float], plain: list[float]) -> dict[str, dict[str, float]]:
    def summed(values: list[float]) -> dict[str, float]:
        return summary([dict.fromkeys(demo_seeds.SHOWN, value) for value in values])

    return {OURS: summed(ours), PLAIN: summed(plain)}


def test_equal_is_what_differs_no_more_than_seeds_do():
    assert summary([dict.fromkeys(demo_seeds.SHOWN, value) for value in (1.0, 2.0, 3.0)])["abs_rel"] == pytest.approx(2.0)
    assert equal(rows([0.10, 0.12, 0.14], [0.12, 0.14, 0.16]), "abs_rel")
    assert not equal(rows([0.10, 0.101, 0.102], [0.12, 0.121, 0.122]), "abs_rel")
    assert not equal(rows([0.12, 0.121, 0.122], [0.10, 0.101, 0.102]), "abs_rel")


def test_the_plain_path_trains_by_torchs_losses(tmp_path, monkeypatch):
    pytest.importorskip("triton")
    objective = objective_of(frame_ids=(0, -1, 1), use_stereo=False)
    seen = []
    monkeypatch.setattr(demo_seeds, "train_and_score", lambda folder, name, options: seen.append((objective.fuses(META), options)))
    train_and_score_plainly(tmp_path, "plain_0", "--seed 0")
    assert seen == [(False, "--amp off --no_compile --no_cuda_graph --seed 0")]
    assert objective.fuses(META)
