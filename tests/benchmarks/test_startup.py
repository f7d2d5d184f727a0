"""The benchmark of a start: a tree with every file the lines need, and stages measured in processes of their own."""

from benchmarks.bench_startup import make_tree, measure_start, stage_row, write_tenth
from dataload.datasets.kitti import KittiRaw
from dataload.datasets.presence import require_files
from dataload.frames.frame_ref import parse_split
from splits import read_lines

FOLDER = "2011_09_26/2011_09_26_drive_0001_sync"


def test_a_start_is_measured_stage_by_stage_in_a_tree_with_every_file(tmp_path):
    lines = {subset: [f"{FOLDER} {number} {side}" for number in range(1, 81) for side in "lr"] for subset in ("train", "val")}
    make_tree(tmp_path, lines)
    dataset, refs = KittiRaw(tmp_path, ".jpg"), parse_split(lines["train"], source="lines")
    require_files(dataset, refs, frame_ids=(0, -1, 1), use_stereo=False)
    assert len({dataset.image_path(ref).stat().st_ino for ref in refs}) == len(refs)
    write_tenth(tmp_path / "tenth", lines)
    assert len(read_lines(str(tmp_path / "tenth"), "train")) == 16
    stages = measure_start(tmp_path, str(tmp_path / "tenth"))
    *parts, together, batches = stages
    assert parts == ["reading the lists", "checking that all files are there", "finding the frame store", "making the loaders"]
    assert together == "together"
    assert abs(stages[together][0] - sum(stages[part][0] for part in parts)) < 1e-6
    assert stages[batches][0] > 0
    assert len(list((tmp_path / "stores").glob("*.frames"))) == 1


def test_a_row_holds_medians_of_both_lengths_of_the_split():
    row = stage_row([(30.0, 3.0), (10.0, 1.0), (20.0, 2.0)], [(1.0, 0.1), (3.0, 0.3), (2.0, 0.2)])
    assert row == {"n": 3, "ms": 20.0, "fastest_ms": 10.0, "slowest_ms": 30.0, "mib": 2.0, "tenth_mib": 0.2}
