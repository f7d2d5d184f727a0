"""The table of frames names every file once, and its rows are the files that a dataset names for each line."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataload.config import DataConfig
from dataload.datasets.base import Dataset
from dataload.datasets.frame_table import FrameTable, wanted_frames
from dataload.datasets.kitti import KittiRaw
from dataload.datasets.kitti_odom import KittiOdom
from dataload.frames.frame_ref import FrameRef
from splits.errors import InputError

KITTI, ODOM = KittiRaw(Path("data"), ".jpg"), KittiOdom(Path("data"), ".png")
FOLDERS = {KITTI: ["2011_09_26/a_sync", "2011_09_26/b_sync", "2011_09_28/a_sync", "x-1/a", "x"], ODOM: ["0", "7", "10"]}
FRAME_IDS = st.lists(st.integers(-3, 3).filter(bool), max_size=4, unique=True).map(lambda ids: (0, *ids))


def lines_of(dataset: Dataset) -> st.SearchStrategy[list[FrameRef]]:
    ref = st.builds(FrameRef, st.sampled_from(FOLDERS[dataset]), st.integers(3, 40) | st.sampled_from([99, 10**7]), st.sampled_from("lr"))
    return st.lists(ref, max_size=30)


def files_of(dataset: Dataset, ref: FrameRef, frame_ids: tuple[int, ...], use_stereo: bool) -> list[Path]:
    """The target, the temporal sources, the other camera: the order of ``Batch.sources``."""
    temporal = [dataset.image_path(ref, frame_id) for frame_id in frame_ids]
    return temporal + ([dataset.image_path(ref, stereo=True)] if use_stereo else [])


@settings(max_examples=150, deadline=None)
@given(data=st.data(), dataset=st.sampled_from([KITTI, ODOM]), frame_ids=FRAME_IDS, use_stereo=st.booleans())
def test_rows_are_the_files_that_the_dataset_names(data, dataset, frame_ids, use_stereo) -> None:
    refs = data.draw(lines_of(dataset))
    table = FrameTable(dataset, refs, frame_ids=frame_ids, use_stereo=use_stereo)
    rows = table.rows(refs)
    assert rows.dtype == np.int32
    assert rows.shape == (len(refs), len(frame_ids) + use_stereo)
    expected = [files_of(dataset, ref, frame_ids, use_stereo) for ref in refs]
    assert [[table.path(row) for row in line] for line in rows] == expected
    assert {table.path(row) for row in range(len(table))} == {path for paths in expected for path in paths}
    assert len(table) == len(table.names) == len(set(table.names))
    assert not len(rows) or 0 <= rows.min() <= rows.max() < len(table)
    # Any part of the lines, in any order: the lists of one run share a table.
    order = data.draw(st.lists(st.sampled_from(range(len(refs))), max_size=10)) if refs else []
    assert np.array_equal(table.rows([refs[i] for i in order]), rows[np.array(order, int)])


@settings(max_examples=50, deadline=None)
@given(data=st.data(), frame_ids=FRAME_IDS, use_stereo=st.booleans())
def test_the_names_depend_on_the_frames_alone(data, frame_ids, use_stereo) -> None:
    # Another order of names is another store.
    refs = data.draw(lines_of(KITTI))
    table = FrameTable(KITTI, refs, frame_ids=frame_ids, use_stereo=use_stereo)
    other = data.draw(st.permutations(refs + refs[:3]))
    assert FrameTable(KITTI, other, frame_ids=frame_ids, use_stereo=use_stereo).names == table.names


def test_the_names_are_in_order_of_folder_and_frame() -> None:
    refs = [FrameRef("d/b_sync", 10, "r"), FrameRef("d/a_sync", 9, "l"), FrameRef("d/b_sync", 2, "l")]
    table = FrameTable(KITTI, refs, frame_ids=(0, 1), use_stereo=False)
    assert table.names == sorted(table.names)
    places = [("a_sync/image_02", 9), ("a_sync/image_02", 10), ("b_sync/image_02", 2), ("b_sync/image_02", 3)]
    places += [("b_sync/image_03", 10), ("b_sync/image_03", 11)]
    assert table.names == [f"d/{folder}/data/{number:010d}.jpg" for folder, number in places]
    assert table.rows(refs).tolist() == [[4, 5], [0, 1], [2, 3]]
    assert table.path(4) == Path("data/d/b_sync/image_03/data/0000000010.jpg")


def test_two_spellings_of_a_folder_are_one() -> None:
    refs = [FrameRef("9", 1, "l"), FrameRef("09", 1, "l")]
    table = FrameTable(ODOM, refs, frame_ids=(0,), use_stereo=False)
    assert table.rows(refs).tolist() == [[0], [0]]


def test_frames_in_common_are_named_once() -> None:
    refs = [FrameRef("a", number, "l") for number in range(1, 11)]
    table = FrameTable(KITTI, refs, frame_ids=(0, -1, 1), use_stereo=False)
    assert len(table) == 12
    assert np.array_equal(table.rows(refs), np.arange(1, 11)[:, None] + [0, -1, 1])
    config = DataConfig(data_path=Path("data"), frame_ids=(0, -1, 1))
    assert FrameTable.of(config, KITTI, refs).names == table.names


def test_lines_of_another_list_are_seen() -> None:
    table = FrameTable(KITTI, [FrameRef("a", 3, "l"), FrameRef("a", 5, "l")], frame_ids=(0,), use_stereo=False)
    for other in (FrameRef("a", 4, "l"), FrameRef("a", 3, "r"), FrameRef("b", 3, "l"), FrameRef("a", 6, "l")):
        with pytest.raises((AssertionError, KeyError, IndexError)):
            table.rows([other])


def test_a_line_without_a_camera_is_refused() -> None:
    with pytest.raises(InputError, match="names no camera"):
        FrameTable(KITTI, [FrameRef("a", 3, None)], frame_ids=(0,), use_stereo=False)


def test_wanted_frames_are_numbers_and_names_by_folder() -> None:
    left, right = (partial(KITTI.image_folder, side=side) for side in "lr")
    refs = [FrameRef("a", 3, "l"), FrameRef("a", 4, "l"), FrameRef("b", 1, "r")]

    def named(*numbers: int) -> dict[int, str]:
        return {number: f"{number:010d}.jpg" for number in numbers}

    assert wanted_frames(KITTI, refs, frame_ids=(0, 1), use_stereo=False) == {left("a"): named(3, 4, 5), right("b"): named(1, 2)}
    found = wanted_frames(KITTI, refs, frame_ids=(0,), use_stereo=True)
    assert found == {left("a"): named(3, 4), right("a"): named(3, 4), right("b"): named(1), left("b"): named(1)}
