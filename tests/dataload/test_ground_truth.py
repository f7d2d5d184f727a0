"""Ground truth kept and read back unchanged; unfit files refused; nothing half written."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from benchmarks.plain_ground_truth import write_plain_ground_truth
from dataload.datasets.kitti import KittiRaw
from dataload.datasets.kitti_depth import KittiDepth
from dataload.datasets.kitti_odom import KittiOdom
from dataload.datasets.kitti_test import KittiTest
from dataload.frames.frame_ref import FrameRef
from dataload.frames.sparse_depth import SparseDepth
from dataload.ground_truth import (
    dataset_for,
    default_path,
    ground_truth,
    lazy_ground_truth,
    read_ground_truth,
    require_current,
    write_ground_truth,
)
from splits.errors import InputError

FOLDER = "2011_09_26/2011_09_26_drive_0001_sync"
REFS = [FrameRef(FOLDER, frame, side) for frame in (4, 1, 2) for side in "lr"]


@pytest.fixture(scope="module")
def dataset(kitti_tree: Callable[..., Path]) -> KittiRaw:
    return KittiRaw(kitti_tree(size_px=(37, 123)), ".jpg")


def test_kept_depths_equal_the_datasets_own(dataset: KittiRaw, tmp_path: Path) -> None:
    path = write_ground_truth(tmp_path / "deep" / "gt.npz", dataset, REFS, progress=False)
    kept, fresh, lazy = read_ground_truth(path, REFS), ground_truth(dataset, REFS), lazy_ground_truth(dataset, REFS)
    for ref, *depths in zip(REFS, kept, fresh, lazy, strict=True):
        dense = dataset.eval_depth_m(ref)
        for depth in depths:
            assert depth.values_m.dtype == np.float32
            assert depth.size_px == (37, 123)
            np.testing.assert_array_equal((depth.rows, depth.columns), np.nonzero(dense))
            np.testing.assert_array_equal(depth.dense(), dense, strict=True)
    with np.load(path, allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)
        assert file["sources"].tolist() == [f"{FOLDER}/velodyne_points/data/{ref.frame_index:010d}.bin" for ref in REFS]


def test_items_come_in_any_order_and_from_threads(dataset: KittiRaw, tmp_path: Path) -> None:
    path = write_ground_truth(tmp_path / "gt.npz", dataset, REFS, progress=False)
    order = [5, 0, -1, 3, -6, 2] * 20
    with ThreadPoolExecutor(4) as pool:
        for depths in (read_ground_truth(path), lazy_ground_truth(dataset, REFS)):
            assert len(depths) == len(REFS)
            for index, depth in zip(order, pool.map(depths.__getitem__, order), strict=True):
                np.testing.assert_array_equal(depth.dense(), dataset.eval_depth_m(REFS[index]))
            assert [d.values_m.size for d in depths[1:4]] == [depths[i].values_m.size for i in (1, 2, 3)]
            with pytest.raises(IndexError):
                depths[len(REFS)]


def test_other_frames_are_refused(dataset: KittiRaw, tmp_path: Path) -> None:
    path = write_ground_truth(tmp_path / "gt.npz", dataset, REFS, progress=False)
    with pytest.raises(InputError, match=r"ground truth of other frames \(6\) than the split's test list \(6\); make it again: md-data gt"):
        read_ground_truth(path, REFS[::-1])


def test_failure_leaves_the_old_file_and_nothing_else(dataset: KittiRaw, tmp_path: Path) -> None:
    path = write_ground_truth(tmp_path / "gt.npz", dataset, REFS, progress=False)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"^1 laser scan of 7 missing from .*0000000099.bin; "):
        write_ground_truth(path, dataset, [*REFS, FrameRef(FOLDER, 99, "l")], progress=False)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def break_scan(source: Path, root: Path, content: bytes | None) -> KittiRaw:
    """A copy of the tree whose third scan has another content, or is gone."""
    shutil.copytree(source, root)
    scan = root / FOLDER / "velodyne_points" / "data" / "0000000002.bin"
    scan.unlink() if content is None else scan.write_bytes(content)
    return KittiRaw(root, ".jpg")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"0000000002.bin is empty.*fetch it again"),
        (bytes(33), r"0000000002.bin is no whole number of 16-byte laser points \(33 bytes\)"),
        (np.float32([[-5, 0, 0, 0]] * 3).tobytes(), r"0000000002.bin gives no pixel of '.*0001_sync 2' a depth; fetch it again, or take"),
        (
            None,
            r"^2 laser scans of 6 missing from .*: .*02.bin, .*02.bin; unpack KITTI raw's 2011_09_26_drive_0001_sync.zip",
        ),
    ],
)
def test_unfit_scans(dataset: KittiRaw, tmp_path: Path, content: bytes | None, message: str) -> None:
    broken = break_scan(dataset.data_path, tmp_path / "kitti", content)
    with pytest.raises(InputError, match=message) as caught:
        write_ground_truth(tmp_path / "gt.npz", broken, REFS, progress=False)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "kitti"]
    if content is not None:
        with pytest.raises(InputError, match=message):
            lazy_ground_truth(broken, REFS)[4]


def test_size_of_jobs_changes_nothing(dataset: KittiRaw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = write_ground_truth(tmp_path / "alone.npz", dataset, REFS, progress=False)
    monkeypatch.setattr("dataload.ground_truth.FRAMES_PER_JOB", 1)
    shared_out = write_ground_truth(tmp_path / "shared.npz", dataset, REFS, progress=False)
    with np.load(alone) as one, np.load(shared_out) as other:
        assert one.files == other.files
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name], strict=True)


def test_unwritable_place_is_found_before_anything_is_made(dataset: KittiRaw, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "gt.npz", tmp_path):
        with pytest.raises(InputError, match=rf"^{path} cannot be written \(.*\); name another file with --out$"):
            write_ground_truth(path, dataset, REFS, progress=False)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_arrays_that_do_not_belong_together(dataset: KittiRaw, tmp_path: Path) -> None:
    path = write_ground_truth(tmp_path / "gt.npz", dataset, REFS, progress=False)
    with np.load(path) as file:
        arrays = dict(file)
    for name in ("values", "columns", "row_counts", "shapes"):
        np.savez(path, **{**arrays, name: arrays[name][:-1]})
        with pytest.raises(InputError, match=r"gt.npz is not a file of ground truth .*md-data gt"):
            read_ground_truth(path)


def test_a_drive_outside_the_dataset_is_named_whole(dataset: KittiRaw, tmp_path: Path) -> None:
    outside = dataset.data_path / FOLDER
    elsewhere = KittiRaw(tmp_path, ".jpg")
    path = write_ground_truth(tmp_path / "gt.npz", elsewhere, [FrameRef(str(outside), 1, "l")], progress=False)
    with np.load(path) as file:
        assert file["sources"].tolist() == [f"{outside.as_posix()}/velodyne_points/data/0000000001.bin"]
    with pytest.raises(InputError, match=r"^1 laser scan of 1 missing from .*0000000099.bin; "):
        ground_truth(elsewhere, [FrameRef(str(outside), 99, "l")])


def test_a_dataset_without_depth(tmp_path: Path) -> None:
    for dataset, message in (
        (KittiOdom(tmp_path, ".jpg"), "kitti_odom has no"),
        (KittiTest(tmp_path, ".png"), "the KITTI benchmark's server"),
    ):
        with pytest.raises(InputError, match=message):
            ground_truth(dataset, REFS)


def test_monodepth2_pickle_is_not_read(dataset: KittiRaw, tmp_path: Path) -> None:
    path = tmp_path / "gt_depths.npz"
    write_plain_ground_truth(path, dataset.data_path, REFS)
    with np.load(path, allow_pickle=True) as file:
        for depth, plain in zip(ground_truth(dataset, REFS), file["data"], strict=True):
            np.testing.assert_array_equal(depth.dense(), plain, strict=True)
    with pytest.raises(InputError, match=r"Monodepth2's own file, a pickle, which is not read.*md-data gt"):
        read_ground_truth(path)


@pytest.mark.parametrize("form", ["stack", "list", "other_name"])
def test_plain_maps_of_someone_else_are_read(dataset: KittiRaw, tmp_path: Path, form: str) -> None:
    depths = ground_truth(dataset, REFS)
    maps = [depth.dense() for depth in depths]
    maps[0][0, 0] = np.nan  # not measured
    path = tmp_path / "gt_depths.npz"
    if form == "list":
        np.savez(path, *maps)
    else:
        np.savez(path, **{"data" if form == "stack" else "depth": np.stack(maps)})
    for read, depth in zip(read_ground_truth(path, REFS), depths, strict=True):
        np.testing.assert_array_equal(read.dense(), depth.dense(), strict=True)
    with pytest.raises(InputError, match=rf"holds {len(REFS)} maps, the split's test list 2 images"):
        read_ground_truth(path, REFS[:2])
    np.savez(path, data=np.ones((len(REFS), 4, 4), np.uint16))
    with pytest.raises(InputError, match=r"it holds uint16 of shape .*, not depth maps of floats in metres"):
        read_ground_truth(path, REFS)


@pytest.mark.parametrize("cut", [0, 100, -50])
def test_damaged_file(dataset: KittiRaw, tmp_path: Path, cut: int) -> None:
    path = write_ground_truth(tmp_path / "gt.npz", dataset, REFS, progress=False)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"gt.npz is not a file of ground truth .*md-data gt"):
        read_ground_truth(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gt.npz is missing; make it again: md-data gt"):
        read_ground_truth(tmp_path / "gt.npz")


def test_no_frames_at_all(dataset: KittiRaw, tmp_path: Path) -> None:
    assert list(ground_truth(dataset, [])) == []
    assert list(read_ground_truth(write_ground_truth(tmp_path / "gt.npz", dataset, [], progress=False), [])) == []


def test_places(tmp_path: Path) -> None:
    assert default_path(str(tmp_path), Path("data")) == tmp_path / "gt_depths.npz"
    assert default_path("eigen", Path("data")) == Path("data/gt_depths_eigen.npz")


def test_annotated_depth_for_eigen_benchmark_only(dataset: KittiRaw) -> None:
    assert dataset_for("eigen", dataset) is dataset
    annotated = dataset_for("eigen_benchmark", dataset)
    assert isinstance(annotated, KittiDepth)
    assert annotated.data_path == dataset.data_path
    assert dataset_for("eigen_benchmark", annotated) is annotated


class Changed(KittiRaw):
    """Scans whose depth is other than it was: by a factor, or in part."""

    depth_scale: float | None = None
    factor, part = 1.0, 1.0

    def eval_sparse_depth(self, ref: FrameRef) -> SparseDepth:
        depth = super().eval_sparse_depth(ref).dense() * np.float32(self.factor)
        depth[: round((1 - self.part) * len(depth))] = 0
        return SparseDepth.of(depth)


@pytest.mark.parametrize(("factor", "part", "depth_scale"), [(1.0, 0.5, None), (3.9, 1.0, 1000.0), (1.5, 0.9, None)])
def test_a_file_of_other_data_than_there_is_now_is_refused(
    factor: float, part: float, depth_scale: float | None, dataset: KittiRaw, tmp_path: Path
) -> None:
    path = write_ground_truth(tmp_path / "gt.npz", dataset, REFS, progress=False)
    depths = read_ground_truth(path, REFS)
    require_current(path, dataset, REFS, depths)
    changed = Changed(dataset.data_path, ".jpg")
    changed.factor, changed.part, changed.depth_scale = factor, part, depth_scale
    with pytest.raises(
        InputError, match=r"gt\.npz was made of other data, or with another --depth_scale: .*\.bin gives .*--eval_from_file"
    ):
        require_current(path, changed, REFS, depths)


def test_a_file_of_another_scale_is_taken_where_none_is_given_and_said(
    dataset: KittiRaw, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_ground_truth(tmp_path / "gt.npz", dataset, REFS, progress=False)
    changed = Changed(dataset.data_path, ".jpg")
    changed.factor = 0.25
    require_current(path, changed, REFS, read_ground_truth(path, REFS))
    assert "is 4 times what" in caplog.text


def test_a_file_serves_where_its_sources_are_gone(dataset: KittiRaw, tmp_path: Path) -> None:
    path = write_ground_truth(tmp_path / "gt.npz", dataset, REFS, progress=False)
    kept = read_ground_truth(path, REFS)
    require_current(path, KittiRaw(tmp_path / "nowhere", ".jpg"), REFS, kept)
    assert len(kept) == len(REFS)
