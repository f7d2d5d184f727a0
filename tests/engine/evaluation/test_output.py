"""What an evaluation leaves for other programs: names are text in tables, and numbers that are none are empty in JSON."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from engine.evaluation.metrics import METRICS
from engine.evaluation.output import write_csv, write_json
from engine.evaluation.report import Candidate
from engine.evaluation.scores import BAND_EDGES_M, ERROR_EDGES, Scores

FORMULAS = ["=cmd|' /C calc'!A0", "+1", "-rf/weights_1", "@SUM(1)", "\t=1", "\r=1"]
PLAIN = ["drive 0001 l", "a=b", "'quoted'", "caf\u00e9", "two\nlines", '"', ""]


def scores_of(per_image: list[float]) -> Scores:
    values = np.tile(np.array(per_image)[:, None], (1, len(METRICS)))
    bands = np.zeros((len(BAND_EDGES_M) - 1, len(METRICS) + 1))
    return Scores(values, None, bands, np.zeros(len(ERROR_EDGES) - 1, np.int64))


def test_no_name_is_a_formula_to_a_table_program(tmp_path: Path) -> None:
    frames = FORMULAS + PLAIN
    for number, name in enumerate(frames):
        write_csv(tmp_path / f"{number}.csv", [Candidate(name, scores_of([-1.5] * len(frames)))], frames)
        with (tmp_path / f"{number}.csv").open(newline="", encoding="utf-8") as file:
            _, *rows = csv.reader(file)
        assert {row[0] for row in rows} == {f"'{name}" if name in FORMULAS else name}
        assert [row[1] for row in rows] == [f"'{name}" for name in FORMULAS] + PLAIN
        assert {row[2] for row in rows} == {"-1.5"}, "a number stays one"


def test_numbers_that_are_none_are_null(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", [Candidate("a", scores_of([0.5, math.nan]))], {"share": math.inf})
    read = json.loads((tmp_path / "a.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert read["settings"] == {"share": None}
    assert read["models"][0]["abs_rel"] is None
    assert read["models"][0]["by_distance"][0]["rmse"] is None
