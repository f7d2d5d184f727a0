"""Split lists of one's own sequences: apart by sequence, or in time; repeatable, near their shares, without standing frames."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import evo_tree
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from dataload.datasets.evo import Evo
from dataload.datasets.folder import Folder
from dataload.footage.split_lists import SUBSETS, SplitLists, check_shares, make_split, split_from
from dataload.frames.frame_ref import FrameRef
from splits.errors import InputError

SHARES = {"val_share": 0.1, "test_share": 0.1}
GUARD = 4  # places between targets of two lists of one sequence: neither's images, neighbours included, are or follow the other's


def empty_frames(folder: Path, numbers: range | list[int]) -> None:
    """Files without content: a split that looks for no standing frames reads none."""
    folder.mkdir(parents=True)
    for number in numbers:
        (folder / f"{number:06d}.jpg").touch()


def panned(folder: Path, places: list[int]) -> None:
    """Frames of one picture, each from that column on."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 60, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((480, 96), Image.Resampling.BICUBIC))
    folder.mkdir(parents=True)
    for number, place in enumerate(places):
        Image.fromarray(pixels[:, place : place + 320]).save(folder / f"{number:06d}.jpg", quality=92)


def split_of(root: Path, **options: object) -> SplitLists:
    return make_split(Folder(root), **{"progress": False, "keep_static": True, **SHARES, **options})  # type: ignore[arg-type]


def refs_of(root: Path, made: SplitLists) -> dict[str, tuple[FrameRef, ...]]:
    """The frames of each list, by a dataset that has read nothing yet."""
    dataset = Folder(root)
    return {subset: dataset.refs(made.lines[subset], source=subset) for subset in SUBSETS}


@st.composite
def trees(draw: st.DrawFn) -> list[tuple[int, bool, int | None]]:
    """How many frames each sequence has, whether of two cameras, and after which frame is a gap."""
    sequence = st.tuples(st.integers(3, 60), st.booleans(), st.one_of(st.none(), st.integers(1, 50)))
    return draw(st.lists(sequence, min_size=1, max_size=9))


def make_tree(root: Path, tree: list[tuple[int, bool, int | None]]) -> None:
    for number, (count, stereo, gap) in enumerate(tree):
        names = [frame + (1000 if gap is not None and frame > gap else 0) for frame in range(count)]
        for camera in ("left", "right") if stereo else ("",):
            empty_frames(root / f"drive {number}" / camera, names)


shares = st.floats(0.05, 0.35)


@settings(deadline=None, max_examples=60)
@given(trees(), shares, shares, st.integers(0, 5))
def test_lists_share_no_image_and_none_that_follows_one(
    tree: list[tuple[int, bool, int | None]], val: float, test: float, seed: int
) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        make_tree(root, tree)
        try:
            made = split_of(root, val_share=val, test_share=test, seed=seed)
        except InputError as error:
            assume("too few" not in str(error) and "none of" not in str(error))
            raise
        lists = refs_of(root, made)
        assert made == split_of(root, val_share=val, test_share=test, seed=seed)
        assert all(lists.values())
        assert all(len(set(made.lines[subset])) == len(made.lines[subset]) for subset in SUBSETS)
        assert all(ref.side == "l" for subset in ("val", "test") for ref in lists[subset])
        places = {subset: [(ref.folder, ref.frame_index) for ref in refs] for subset, refs in lists.items()}
        assert min(place for refs in places.values() for _, place in refs) > 0  # all are on disk, with a frame before
        for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
            for sequence, place in set(places[other]):
                beside = {(sequence, place + k) for k in range(1 - GUARD, GUARD)}
                assert not beside & set(places[one]), (one, other, sequence, place)
        if not made.notes:
            apart = [{sequence for sequence, _ in places[subset]} for subset in SUBSETS]
            assert sum(map(len, apart)) == len(set.union(*apart))
        total = sum(map(len, lists.values())) + sum(made.left_out.values())
        assert total == sum(count * (1 + stereo) for count, stereo, _ in tree)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(3, 50), min_size=8, max_size=20), shares, shares, st.integers(0, 99))
def test_shares_are_met_within_half_a_sequence(counts: list[int], val: float, test: float, seed: int) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        make_tree(root, [(count, False, None) for count in counts])
        made = split_of(root, val_share=val, test_share=test, seed=seed)
        assume(not made.notes)
        total = sum(count - 2 for count in counts)
        for subset, share in (("val", val), ("test", test)):
            alone = len(made.sequences[subset]) == 1  # the smallest that is free, where none comes near
            assert alone or abs(len(made.lines[subset]) - share * total) <= max(counts) / 2, subset


def test_the_seed_draws_the_sequences(tmp_path: Path) -> None:
    make_tree(tmp_path, [(12, False, None)] * 10)
    drawn = [split_of(tmp_path, seed=seed) for seed in range(8)]
    assert len({tuple(made.sequences["test"]) for made in drawn}) > 3
    assert all(len(made.sequences["test"]) == len(made.sequences["val"]) == 1 for made in drawn)
    assert drawn[0] == split_of(tmp_path)


def test_three_sequences_of_which_two_are_short_stay_whole(tmp_path: Path) -> None:
    make_tree(tmp_path, [(102, False, None), (12, False, None), (13, False, None)])
    made = split_of(tmp_path)
    assert not made.notes
    assert [len(made.sequences[subset]) for subset in SUBSETS] == [1, 1, 1]
    assert len(made.lines["train"]) == 100


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_sequences_are_cut_in_time_and_that_is_said(count: int, tmp_path: Path) -> None:
    make_tree(tmp_path, [(102, True, None)] * count)
    made = split_of(tmp_path)
    what = "the only sequence is" if count == 1 else f"the {count} sequences are too few to stay whole, and are"
    assert made.notes == [
        f"{what} cut in time: validation and test show the same places as training, later; add sequences for an independent test"
    ]
    assert made.notes[0] in made.describe()
    lists = refs_of(tmp_path, made)
    assert [len(refs) for refs in lists.values()] == [2 * 74 * count, 10 * count, 10 * count]
    first = {subset: [ref.frame_index for ref in refs if ref.folder == "drive%200"] for subset, refs in lists.items()}
    assert (max(first["train"]), first["val"][0], first["val"][-1], first["test"][0]) == (74, 78, 87, 91)
    assert made.left_out["between the parts of a sequence"] == 2 * 6 * count
    assert made.left_out["of the right camera, which is for training"] == 20 * count


def test_a_sequence_too_short_to_be_cut_is_refused_with_a_remedy(tmp_path: Path) -> None:
    make_tree(tmp_path, [(8, False, None)])
    with pytest.raises(InputError, match="6 targets are too few for three lists; add frames, or give --val 0 --test 0"):
        split_of(tmp_path)
    made = split_of(tmp_path, val_share=0, test_share=0)
    assert [len(made.lines[subset]) for subset in SUBSETS] == [6, 0, 0]
    assert made.describe()[1] == "val         0: not written"
    assert [path.name for path in made.write(tmp_path / "split")] == ["train_files.txt"]


@pytest.mark.parametrize(("val", "test"), [(0.5, 0.5), (0.9, 0.2), (-0.1, 0.1), (1.0, 0.0)])
def test_shares_that_leave_nothing_are_refused(val: float, test: float, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave nothing for training; together they must be below 1"):
        check_shares(val, test)
    with pytest.raises(InputError, match="leave nothing for training"):
        split_of(tmp_path, val_share=val, test_share=test)


def test_frames_without_neighbours_are_left_out_and_counted(tmp_path: Path) -> None:
    empty_frames(tmp_path / "a", [*range(20), *range(100, 120)])
    made = split_of(tmp_path, val_share=0, test_share=0)
    assert made.left_out == {"at an end of their sequence": 2, "beside a gap of over 2.5 times the usual interval": 2}
    assert not {"a 000000 l", "a 000019 l", "a 000100 l", "a 000119 l"} & set(made.lines["train"])
    assert len(made.lines["train"]) == 36
    wide = split_of(tmp_path, val_share=0, test_share=0, frame_ids=(0, -2, 2))
    assert len(wide.lines["train"]) == 32


def test_standing_frames_are_left_out_of_the_lists_and_stay_on_disk(tmp_path: Path) -> None:
    panned(tmp_path / "stops", [0, 6, 12, 18, 24, 30, 30, 30, 30, 36, 42, 48])
    for number in range(3):
        panned(tmp_path / f"drives {number}", list(range(0, 72, 6)))
    (tmp_path / "drives 2" / "000004.jpg").write_bytes(b"no image")
    made = split_of(tmp_path, keep_static=False)
    assert made.left_out == {
        "at an end of their sequence": 8,
        "where the camera stands still": 4,
        "with a damaged image among their frames": 3,
    }
    listed = {line for lines in made.lines.values() for line in lines}
    assert not {f"stops {number:06d} l" for number in range(5, 9)} & listed
    assert {f"stops {number:06d} l" for number in (4, 9)} <= listed
    assert "drives%200 000001 l" in listed
    assert sum(made.left_out.values()) + len(listed) == len(list(tmp_path.glob("*/*.jpg"))) == 48
    kept = split_of(tmp_path, keep_static=True)
    assert sum(map(len, kept.lines.values())) == 40


def test_a_camera_that_never_moves_is_refused_with_a_remedy(tmp_path: Path) -> None:
    panned(tmp_path / "a", [0] * 6)
    with pytest.raises(InputError, match="all 4 targets lie where the camera stands still; --keep_static takes them nevertheless"):
        split_of(tmp_path, keep_static=False)


def test_the_frames_of_a_car_that_waits_are_found_in_a_real_drive(shared: Path, tmp_path: Path) -> None:
    drives = {"jam": "2011_09_26_drive_0052_sync", "town": "2011_09_26_drive_9002_sync"}
    for name, drive in drives.items():
        shutil.copytree(shared / "kitti" / "raw_jpg" / "2011_09_26" / drive / "image_02" / "data", tmp_path / name)
    made = split_of(tmp_path, keep_static=False, val_share=0, test_share=0)
    jam = sorted(int(line.split()[1]) for line in made.lines["train"] if line.startswith("jam "))
    assert jam[:49] == list(range(1, 50))
    assert max(jam) < 63
    assert sum(line.startswith("town ") for line in made.lines["train"]) == 89


def test_nothing_to_list_says_why(tmp_path: Path) -> None:
    empty_frames(tmp_path / "a", range(2))
    with pytest.raises(InputError, match="none of 2 frames can be trained on: 2 at an end of their sequence; add longer sequences"):
        split_of(tmp_path)


@pytest.fixture
def made(tmp_path: Path) -> SplitLists:
    make_tree(tmp_path / "data", [(12, False, None)] * 10)
    return split_of(tmp_path / "data")


def test_lists_say_what_they_hold(made: SplitLists) -> None:
    said = made.describe()
    assert said[0].startswith("train      80 of 8 sequences: drive%20")
    assert said[0].endswith(" and 5 more")
    assert said[1] == f"val        10 of 1 sequence: {made.sequences['val'][0]}"
    assert said[3:] == ["20 frames are in no list: 20 at an end of their sequence"]


def test_lists_are_written_and_read_again_and_others_are_kept(made: SplitLists, tmp_path: Path) -> None:
    folder = tmp_path / "splits" / "own"
    paths = made.write(folder)
    assert [path.name for path in paths] == ["train_files.txt", "val_files.txt", "test_files.txt"]
    assert paths[0].read_bytes() == "".join(f"{line}\n" for line in made.lines["train"]).encode()
    assert made.write(folder) == paths  # the same
    other = split_of(tmp_path / "data", seed=1)
    paths[1].write_text("drive%200 000001 l\n")
    before = [path.read_bytes() for path in paths]
    with pytest.raises(InputError, match=r"holds other lists already \(train_files\.txt, val_files\.txt, .*--replace_split replaces them"):
        other.write(folder)
    assert [path.read_bytes() for path in paths] == before
    other.write(folder, force=True)
    assert paths[1].read_text().splitlines() == other.lines["val"]
    assert sorted(path.name for path in folder.iterdir()) == ["test_files.txt", "train_files.txt", "val_files.txt"]


def test_of_lists_that_cannot_be_written_none_appears(made: SplitLists, tmp_path: Path) -> None:
    folder = tmp_path / "split"
    (folder / "test_files.txt").mkdir(parents=True)
    with pytest.raises(OSError, match="test_files"):
        made.write(folder)
    assert [path.name for path in folder.iterdir()] == ["test_files.txt"]


def test_lines_of_evo_hold_their_intrinsics(tmp_path: Path) -> None:
    for number in range(5):
        evo_tree.write_sequence(tmp_path, evo_tree.FULL._replace(name=f"drive.{number}_x", frames=5), calibrated=True)
    made = make_split(Evo(tmp_path), progress=False, **SHARES)
    line = made.lines["train"][0].split()
    assert len(line) == 7
    assert [float(number) for number in line[3:]] == [139, 141, 104, 50]
    assert not made.notes
    assert sum(map(len, made.lines.values())) == 15
    evo_tree.write_sequence(tmp_path, evo_tree.FULL._replace(name="unknown", frames=5), calibrated=False)
    with pytest.raises(InputError, match="the intrinsics of sequence unknown are not known"):
        make_split(Evo(tmp_path), progress=False, **SHARES)


def test_a_folder_is_split_into_the_usual_place(made: SplitLists, tmp_path: Path) -> None:
    data = tmp_path / "data"
    folder = data / "splits" / "folder"
    assert split_from(data, "folder", None, keep_static=True, **SHARES) == [
        *(str(folder / f"{subset}_files.txt") for subset in SUBSETS),
        *made.describe(),
    ]
    split_from(data, "folder", tmp_path / "elsewhere", keep_static=True, seed=3, **SHARES)
    assert (tmp_path / "elsewhere" / "val_files.txt").is_file()
    with pytest.raises(InputError, match="--replace_split"):
        split_from(data, "folder", None, keep_static=True, seed=3, **SHARES)
    split_from(data, "folder", None, keep_static=True, seed=3, **SHARES, replace_split=True)


def test_what_cannot_be_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="dataset kitti has published splits; use evo or folder for your own sequences"):
        split_from(tmp_path, "kitti", None, **SHARES)
    with pytest.raises(InputError, match="nowhere is no folder; name the one that holds the sequences of dataset folder"):
        split_from(tmp_path / "nowhere", "folder", None, **SHARES)
    with pytest.raises(InputError, match="holds no sequence of dataset"):
        split_from(tmp_path, "folder", None, **SHARES)
