"""Evo as it lies in the wild: its line forms, neighbours from the disk, every sequence's own camera, depth that may be missing."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from evo_tree import DEPTH_SCALE, FULL, INTERVAL_NS, SMALL, Sequence, save, write_evo_tree, write_lists, write_sequence

from dataload.datasets.evo import Evo
from dataload.datasets.presence import require_files
from dataload.frames.calibration import LEFT, Calibration, Intrinsics, write_calibration
from dataload.frames.frame_ref import NOT_ON_DISK, FrameRef
from splits.errors import InputError

CAMERA = Intrinsics(fx_px=50, fy_px=40, cx_px=31, cy_px=20, width_px=60, height_px=40)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_evo_tree(tmp_path_factory.mktemp("evo"))


def refs_of(dataset: Evo, *lines: str) -> tuple[FrameRef, ...]:
    return dataset.refs(lines, source="train_files.txt")


def trainable(dataset: Evo, refs: tuple[FrameRef, ...], *, frame_ids=(0, -1, 1), use_stereo: bool = False) -> list[int]:
    kept = dataset.with_sources(refs, source="train", frame_ids=frame_ids, use_stereo=use_stereo)
    return [ref.frame_index for ref in kept]


@pytest.mark.parametrize("fields", [2, 3, 7])
def test_every_line_form_means_the_same_frame(tree: Path, fields: int) -> None:
    (ref,) = refs_of(Evo(tree), FULL._replace(fields=fields).line(4))
    assert (ref.folder, ref.name, ref.frame_index, ref.side) == (FULL.name, str(FULL.stamp(4)), 4, None)
    assert ref.intrinsics == ((139, 141, 104, 50) if fields == 7 else None)
    assert ref.line == f"{FULL.name} {FULL.stamp(4)}"
    assert Evo(tree).image_path(ref) == FULL.file(tree, "front_rgb_left", 4)
    assert Evo(tree).image_path(ref, -1) == FULL.file(tree, "front_rgb_left", 3)
    assert Evo(tree).depth_source(ref) == FULL.file(tree, "front_depth_left", 4, ".png")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("seq", "1 field where 2, 3 or 7 are expected"),
        ("seq 1 0 1 2 3", "6 fields where 2, 3 or 7 are expected"),
        ("seq 12ab", "stamp '12ab' is no time in nanoseconds of at most 19 digits"),
        ("seq 12345678901234567890", "is no time in nanoseconds"),
        ("seq 1 first", "index 'first' is no number"),
        ("seq 1 0 500 500 wide 100", "cx 'wide' is no number"),
        ("seq 1 0 0 500 300 100", "focal lengths 0 and 500 must be above 0 pixels"),
        ("seq 1 0 500 500 nan 100", "intrinsics 500 500 nan 100 are not all finite"),
        ("seq 1 0 nan 500 300 100", "focal lengths nan and 500 must be above 0 pixels"),
    ],
)
def test_a_malformed_line_is_named(tree: Path, line: str, fault: str) -> None:
    with pytest.raises(InputError) as caught:
        refs_of(Evo(tree), "", line)
    message = str(caught.value)
    assert message.startswith(f"train_files.txt, line 2: {line!r}: ")
    assert fault in message
    assert message.endswith("; a line reads '<seq> <stamp> [<index> [<fx> <fy> <cx> <cy>]]'")


def test_neighbours_are_those_on_disk_whatever_the_split_lists(tree: Path) -> None:
    dataset = Evo(tree)
    refs = refs_of(dataset, FULL.line(2))
    assert trainable(dataset, refs) == [2]
    paths = [dataset.image_path(refs[0], k) for k in (0, -1, 1)]
    assert paths == [FULL.file(tree, "front_rgb_left", frame) for frame in (2, 1, 3)]
    require_files(dataset, refs, frame_ids=(0, -1, 1), use_stereo=False)


def test_targets_at_the_ends_of_their_sequence_are_left_out_and_counted(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = Evo(tree)
    refs = refs_of(dataset, *(FULL.line(frame) for frame in range(FULL.frames)))
    with caplog.at_level(logging.INFO, "md"):
        assert trainable(dataset, refs) == [1, 2, 3, 4]
        assert trainable(dataset, refs, frame_ids=(0, -2, 1)) == [2, 3, 4]
    assert caplog.messages[0] == "Split       train: 2 of 6 targets left out: 2 at an end of their sequence"
    with pytest.raises(
        InputError, match=r"^train: none of 2 targets can be trained on: 2 at an end of their sequence; use fewer frame_ids"
    ):
        trainable(dataset, (refs[0], refs[5]))


def test_targets_beside_a_gap_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sequence = FULL._replace(frames=10)
    write_sequence(tmp_path, sequence)
    for frame in (4, 5):  # now 3 and 6 are three intervals apart
        sequence.file(tmp_path, "front_rgb_left", frame).unlink()
    dataset = Evo(tmp_path)
    refs = refs_of(dataset, *(sequence.line(frame) for frame in (1, 2, 3, 6, 7, 8)))
    with caplog.at_level(logging.INFO, "md"):
        kept = dataset.with_sources(refs, source="train", frame_ids=(0, -1, 1), use_stereo=False)
    assert [ref.name for ref in kept] == [str(sequence.stamp(frame)) for frame in (1, 2, 7, 8)]
    assert "2 beside a gap of over 2.5 times the usual interval" in caplog.text
    sequence.file(tmp_path, "front_rgb_left", 4).write_bytes(sequence.file(tmp_path, "front_rgb_left", 3).read_bytes())
    refs = refs_of(Evo(tmp_path), sequence.line(3))
    assert trainable(Evo(tmp_path), refs) == [3]  # two intervals are none


def test_a_frame_that_is_not_there_is_counted_and_named(tree: Path) -> None:
    dataset = Evo(tree)
    refs = refs_of(dataset, FULL.line(1), FULL._replace(name="gone").line(1), FULL.line(77))
    assert [ref.frame_index for ref in refs] == [1, NOT_ON_DISK, NOT_ON_DISK]
    kept = dataset.with_sources(refs, source="train", frame_ids=(0, -1, 1), use_stereo=False)
    with pytest.raises(InputError, match=rf"^2 images of the split missing from .*: gone/front_rgb_left/gone_{FULL.stamp(1)}\.jpg, "):
        require_files(dataset, kept, frame_ids=(0, -1, 1), use_stereo=False)


def test_intrinsics_come_from_the_line_else_the_sequence_else_the_dataset(tmp_path: Path) -> None:
    write_sequence(tmp_path, FULL, calibrated=False)
    seven, three = (refs_of(Evo(tmp_path), FULL._replace(fields=fields).line(1))[0] for fields in (7, 3))
    with pytest.raises(InputError, match=r"^the intrinsics of sequence ckad.* are not known: neither .*give --intrinsics FX FY CX CY"):
        Evo(tmp_path).K(three, 64, 96)
    write_calibration(tmp_path / "calibration.yaml", Calibration(cameras={LEFT: CAMERA}))
    assert Evo(tmp_path).intrinsics(three) == CAMERA
    own = Intrinsics(fx_px=51, fy_px=41, cx_px=31, cy_px=20, width_px=60, height_px=40)
    write_calibration(tmp_path / FULL.name / "calibration.yaml", Calibration(cameras={LEFT: own}))
    assert Evo(tmp_path).intrinsics(three) == own
    assert Evo(tmp_path).intrinsics(seven) == FULL.camera
    given = Evo(tmp_path, intrinsics=(60.0, 61.0, 30.0, 20.0))
    assert given.intrinsics(seven) == Intrinsics(fx_px=60, fy_px=61, cx_px=30, cy_px=20, width_px=192, height_px=108)
    given = Evo(tmp_path, intrinsics=(60.0, 61.0, 30.0, 20.0, 80.0, 50.0))
    assert given.intrinsics(seven) == Intrinsics(fx_px=60, fy_px=61, cx_px=30, cy_px=20, width_px=80, height_px=50)
    with pytest.raises(InputError, match="intrinsics: give FX FY CX CY"):
        Evo(tmp_path, intrinsics=(1.0, 2.0, 3.0))


def test_K_keeps_pixel_centres_at_whole_numbers_when_images_are_resized() -> None:
    # The middle of an image is (W - 1) / 2 at every size, and its border pixels' outer edges stay its border.
    middle = Intrinsics(fx_px=50, fy_px=40, cx_px=(60 - 1) / 2, cy_px=(40 - 1) / 2, width_px=60, height_px=40)
    np.testing.assert_allclose(middle.K(64, 96), [[80, 0, (96 - 1) / 2], [0, 64, (64 - 1) / 2], [0, 0, 1]])
    np.testing.assert_allclose(CAMERA.K(40, 60), [[50, 0, 31], [0, 40, 20], [0, 0, 1]])
    np.testing.assert_allclose(CAMERA.K(20, 30), [[25, 0, 15.25], [0, 20, 9.75], [0, 0, 1]])


def test_each_sequence_has_its_own_camera(tree: Path) -> None:
    dataset = Evo(tree)
    full, small = (dataset.K(refs_of(dataset, sequence.line(1))[0], 64, 96) for sequence in (FULL, SMALL))
    np.testing.assert_allclose(full, FULL.camera.K(64, 96))
    np.testing.assert_allclose(small, SMALL.camera.K(64, 96))
    assert abs(full - small).max() > 0.5


def test_missing_depth_means_no_ground_truth(tree: Path) -> None:
    dataset = Evo(tree)
    there, gone = (refs_of(dataset, SMALL.line(frame))[0] for frame in (1, 2))
    depth_m = dataset.depth_m(there)
    assert depth_m is not None
    assert depth_m.shape == (72, 128)  # native
    assert 5 < np.median(depth_m) < 15
    assert dataset.depth_m(gone) is None
    with pytest.raises(InputError, match=r"front_depth_left/hospital_2_\d{19}\.png is missing: .*16-bit PNG files of metres times 256"):
        dataset.eval_sparse_depth(gone)


@pytest.mark.parametrize("most", [117, 255])
def test_whole_metres_read_as_parts_of_256_are_refused(tmp_path: Path, most: int) -> None:
    write_sequence(tmp_path, SMALL)
    save(SMALL.file(tmp_path, "front_depth_left", 1, ".png"), np.linspace(0, most, 72 * 128).reshape(72, 128).astype(np.uint16))
    (ref,) = refs_of(Evo(tmp_path), SMALL.line(1))
    for dataset in (Evo(tmp_path), Evo(tmp_path, depth_scale=256.0)):
        with pytest.raises(InputError, match=r"\.png: read as 1/256 m, no depth is above .* give --depth_scale 1 "):
            dataset.depth_m(ref)
    metres = Evo(tmp_path, depth_scale=1.0).depth_m(ref)
    assert metres is not None
    assert metres.max() == most
    # Where whoever wrote the files says so, they may well be near.
    write_calibration(tmp_path / SMALL.name / "calibration.yaml", Calibration(cameras={LEFT: SMALL.camera}, depth_scale=DEPTH_SCALE))
    near = Evo(tmp_path).depth_m(ref)
    assert near is not None
    assert near.max() == pytest.approx(most / 256)


def test_depth_of_another_scale_is_read_as_calibrated_or_given(tmp_path: Path) -> None:
    write_sequence(tmp_path, SMALL)
    (ref,) = refs_of(Evo(tmp_path), SMALL.line(1))
    plain = Evo(tmp_path).depth_m(ref)
    write_calibration(tmp_path / "calibration.yaml", Calibration(cameras={LEFT: CAMERA}, depth_scale=512))
    (tmp_path / SMALL.name / "calibration.yaml").unlink()
    np.testing.assert_allclose(Evo(tmp_path).depth_m(ref), plain / 2)
    np.testing.assert_allclose(Evo(tmp_path, depth_scale=1000.0).depth_m(ref), plain * 0.256, rtol=1e-6)


def test_stereo_needs_a_baseline_and_both_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair = SMALL._replace(baseline_m=0.36, name="pair")
    write_sequence(tmp_path, pair)
    pair.file(tmp_path, "front_rgb_right", 3).unlink()
    dataset = Evo(tmp_path)
    assert dataset.metric_factor == pytest.approx(3.6)
    refs = refs_of(dataset, *(pair.line(frame) for frame in range(1, 5)))
    assert dataset.image_path(refs[0], stereo=True) == pair.file(tmp_path, "front_rgb_right", 1)
    assert dataset.T_stereo(refs[0])[0, 3] == pytest.approx(-0.1)
    with caplog.at_level(logging.INFO, "md"):
        assert trainable(dataset, refs, frame_ids=(0,), use_stereo=True) == [1, 2, 4]
    assert "1 without the other camera's image" in caplog.text
    (tmp_path / "pair" / "calibration.yaml").unlink()
    alone = Evo(tmp_path)
    assert alone.metric_factor == 1
    with pytest.raises(
        InputError, match=r"use_stereo: the distance of the cameras is not known; write 'stereo: {baseline_m: METRES}' into"
    ):
        require_files(alone, refs, frame_ids=(0,), use_stereo=True)


def test_sequences_of_other_baselines_share_one_unit(tmp_path: Path) -> None:
    for name, baseline_m in (("a", 0.3), ("b", 0.45)):
        write_sequence(tmp_path, SMALL._replace(name=name, baseline_m=baseline_m))
    dataset = Evo(tmp_path)
    shifts = [dataset.T_stereo(refs_of(dataset, SMALL._replace(name=name).line(1))[0])[0, 3] for name in "ab"]
    assert [shift * dataset.metric_factor for shift in shifts] == pytest.approx([-0.3, -0.45])


def test_png_images_are_found_without_being_told(tmp_path: Path) -> None:
    write_sequence(tmp_path, FULL, ext=".png")
    (ref,) = refs_of(Evo(tmp_path), FULL.line(1))
    assert Evo(tmp_path).image_path(ref).suffix == ".png"


def test_all_frames_give_lines_that_need_nothing_else(tmp_path: Path) -> None:
    for sequence in (FULL, SMALL):
        write_sequence(tmp_path, sequence, calibrated=True)
    dataset = Evo(tmp_path)
    assert dataset.sequences() == [FULL.name, SMALL.name]
    refs = dataset.all_refs()
    assert len(refs) == FULL.frames + SMALL.frames
    lines = [dataset.split_line(ref) for ref in refs]
    assert all(len(line.split()) == 7 for line in lines)
    again = dataset.refs(lines, source="own")
    assert [ref[:4] for ref in again] == [ref[:4] for ref in refs]
    assert all(ref.intrinsics is not None for ref in again)
    assert [dataset.intrinsics(ref) for ref in again] == [dataset.intrinsics(ref) for ref in refs]
    # A calibration for images of twice the size means the same line.
    double = FULL.camera.at_size(2 * FULL.camera.height_px, 2 * FULL.camera.width_px)
    write_calibration(tmp_path / FULL.name / "calibration.yaml", Calibration(cameras={LEFT: double}))
    assert Evo(tmp_path).split_line(refs[0]) == lines[0]


def test_a_folder_without_sequences_says_where_images_are_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no sequence of dataset Evo: images are looked for in SEQUENCE/front_rgb_left"):
        Evo(tmp_path).sequences()


def test_lists_may_name_frames_whose_images_are_elsewhere(tmp_path: Path) -> None:
    """As for scoring predictions made elsewhere: ground truth needs no image."""
    write_sequence(tmp_path, FULL)
    for frame in range(FULL.frames):
        os.remove(FULL.file(tmp_path, "front_rgb_left", frame))
    (ref,) = refs_of(Evo(tmp_path), FULL.line(2))
    assert Evo(tmp_path).depth_m(ref) is not None
    assert Evo(tmp_path).image_path(ref) == FULL.file(tmp_path, "front_rgb_left", 2)


def test_stamps_of_fewer_digits_are_those_of_files_padded_with_zeros(tmp_path: Path) -> None:
    early = Sequence("early", CAMERA)
    for frame in range(3):
        save(tmp_path / "early" / "front_rgb_left" / f"early_{(frame + 1) * INTERVAL_NS:019d}.jpg", np.zeros((40, 60, 3), np.uint8))
    write_lists(tmp_path / "split", [f"early {2 * INTERVAL_NS} 1"])
    (ref,) = refs_of(Evo(tmp_path), f"{early.name} {2 * INTERVAL_NS} 1")
    assert ref.frame_index == 1
