"""Recordings of every format give the same folders; what is cut off or damaged gives what can be read."""

import os
from collections.abc import Callable
from pathlib import Path

import bags
import numpy as np
import pytest
import yaml
from PIL import Image

from dataload.bags.batch import Outcome, convert_all, sequences_of
from dataload.bags.options import ConvertOptions
from dataload.frames.calibration import read_calibration

SIZE = (48, 80)
K = np.array([[70.0, 0, 41], [0, 72, 23], [0, 0, 1]])
LEFT, RIGHT = "/front/left/image_rect_color", "/front/right/image_rect_color/compressed"


def drive(frames: int = 12) -> list[bags.Msg]:
    """A stereo drive with depth: left raw with padded rows, right JPEG, depth in metres."""
    messages = []
    for i in range(frames):
        stamp = bags.START_NS + i * bags.PERIOD_NS
        messages += [
            bags.image(LEFT, bags.picture(SIZE, i), "rgb8", stamp, padding=5),
            bags.compressed(RIGHT, bags.jpeg(bags.picture(SIZE, i + 0.5)), stamp + 2_000_000, frame_id="right_optical"),
            bags.camera_info("/front/left/camera_info", K, SIZE, stamp),
            bags.camera_info("/front/right/camera_info", K, SIZE, stamp, baseline_m=0.12, frame_id="right_optical"),
            bags.image("/front/depth/depth_registered", np.full(SIZE, 3.5 + i, np.float32), "32FC1", stamp, big_endian=i % 2 == 0),
        ]
    return messages


def convert(path: Path, out: Path, **options: object) -> Outcome:
    return convert_all(sequences_of([path]), out, ConvertOptions(**options), progress=False)  # type: ignore[arg-type]


def files(folder: Path) -> dict[str, bytes]:
    """What a conversion has written, but for which recording it was."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    for name in [name for name in found if name.endswith("calibration.yaml")]:
        content = yaml.safe_load(found[name])
        del content["source"]["recording"]
        found[name] = yaml.safe_dump(content).encode()
    return found


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("reference")
    outcome = convert(bags.write_bag(folder, "drive", "bag", drive()), folder / "out")
    assert outcome.is_whole
    return files(folder / "out")


@pytest.mark.parametrize("fmt", ["db3", "mcap", *bags.PACKED])
def test_every_format_gives_the_same_bytes(fmt: str, tmp_path: Path, reference: dict[str, bytes]) -> None:
    outcome = convert(bags.write_bag(tmp_path, "drive", fmt, drive()), tmp_path / "out")
    assert outcome.is_whole
    assert files(tmp_path / "out") == reference


def test_a_stereo_drive_becomes_the_layout(reference: dict[str, bytes], tmp_path: Path) -> None:
    stamps = [bags.START_NS + i * bags.PERIOD_NS for i in range(12)]
    names = {f"drive/front_rgb_{side}/drive_{stamp:019d}.jpg" for side in ("left", "right") for stamp in stamps}
    names |= {f"drive/front_depth_left/drive_{stamp:019d}.png" for stamp in stamps}
    assert set(reference) == names | {"drive/calibration.yaml"}
    # JPEG bytes as they were, under the left stamp.
    assert reference[f"drive/front_rgb_right/drive_{stamps[3]}.jpg"] == bags.jpeg(bags.picture(SIZE, 3.5))
    (tmp_path / "left.jpg").write_bytes(reference[f"drive/front_rgb_left/drive_{stamps[3]}.jpg"])
    (tmp_path / "depth.png").write_bytes(reference[f"drive/front_depth_left/drive_{stamps[3]}.png"])
    (tmp_path / "calibration.yaml").write_bytes(reference["drive/calibration.yaml"])
    assert np.abs(np.asarray(Image.open(tmp_path / "left.jpg")).astype(int) - bags.picture(SIZE, 3)).mean() < 2
    assert (np.asarray(Image.open(tmp_path / "depth.png")) == round(6.5 * 256)).all()
    calibration = read_calibration(tmp_path / "calibration.yaml")
    left = calibration.cameras["front_left"]
    assert (left.fx_px, left.fy_px, left.cx_px, left.cy_px, left.width_px, left.height_px) == (70, 72, 41, 23, 80, 48)
    assert calibration.baseline_m == pytest.approx(0.12)
    assert (calibration.depth_scale, calibration.depth_kind, calibration.depth_topic) == (256, "dense", "/front/depth/depth_registered")
    assert calibration.frame_ids["front_right"] == "right_optical"


@pytest.mark.parametrize("fmt", ["db3", "mcap"])
def test_bare_files_are_read_as_their_folders_are(fmt: str, tmp_path: Path, reference: dict[str, bytes]) -> None:
    bags.write_bag(tmp_path, "drive", fmt, drive())
    assert convert(tmp_path / "drive" / f"drive.{fmt}", tmp_path / "out").is_whole
    assert files(tmp_path / "out") == reference


@pytest.mark.parametrize("fmt", ["db3", "mcap", "bag"])
def test_a_recording_lies_in_a_folder_of_any_name(fmt: str, tmp_path: Path) -> None:
    path = bags.write_bag(tmp_path / "plain", "a", fmt, drive(3))
    folder = (tmp_path / "plain").rename(tmp_path / os.fsdecode(b"caf\xe9 %41?#"))
    outcome = convert(folder / path.relative_to(tmp_path / "plain"), tmp_path / "out")
    assert [len(report.stamps_ns) for report in outcome.reports] == [3]


def test_a_folder_of_recordings_becomes_one_sequence_each(tmp_path: Path) -> None:
    for name, fmt in (("a_0", "bag"), ("a_1", "mcap_zstd"), ("b", "db3")):
        bags.write_bag(tmp_path / "in", name, fmt, drive(3))
    outcome = convert(tmp_path / "in", tmp_path / "out")
    assert [report.folder.name for report in outcome.reports] == ["a_0", "a_1", "b"]


CUTS = ["bag", "bag_lz4", "mcap", "mcap_zstd", "db3"]


def chunky(fmt: str, folder: Path, frames: int = 40) -> Path:
    """A recording of left images and camera_info, in chunks of some frames where the format has any; the file itself."""
    messages = [message for message in drive(frames) if "/left/" in message.topic]
    path = bags.write_bag(folder, "drive", fmt, messages, chunk_bytes=60_000)
    return path / "drive.db3" if path.is_dir() else path


@pytest.mark.parametrize("fmt", CUTS)
@pytest.mark.parametrize("share", [0.9999, 0.9, 0.55, 0.3])
def test_a_recording_that_is_cut_off_gives_what_lies_before_the_cut(
    fmt: str, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fmt == "mcap_zstd":
        monkeypatch.setattr("rosbags.rosbag2.storage_mcap.McapWriter.write", small_chunks())
    path = chunky(fmt, tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    outcome = convert(path, tmp_path / "out")
    assert not outcome.failures
    assert not outcome.is_whole
    (report,) = outcome.reports
    assert report.damage
    count = len(report.stamps_ns)
    assert report.stamps_ns == [bags.START_NS + i * bags.PERIOD_NS for i in range(count)]
    # Packed, the chunk that is cut is lost whole; of the rest, what lies in the last hundredth may be the index.
    assert 40 * share - (8 if "_" in fmt else 2) <= count <= 40 * share + 2
    calibration = read_calibration(report.folder / "calibration.yaml")
    assert calibration.source["damage"] == report.damage
    for image in (report.folder / "front_rgb_left").iterdir():
        Image.open(image).load()


def small_chunks() -> Callable[..., None]:
    """rosbags' MCAP writer with chunks of 60 kB rather than 1 MB."""
    from rosbags.rosbag2.storage_mcap import McapWriter

    plain = McapWriter.write

    def write(self: McapWriter, *args: object) -> None:
        plain(self, *args)  # type: ignore[arg-type]
        if self.chunk.bio.tell() > 60_000:
            self.close_chunk()

    return write


@pytest.mark.parametrize("fmt", CUTS)
def test_a_recording_cut_before_its_first_message_is_an_error_not_a_crash(fmt: str, tmp_path: Path) -> None:
    path = chunky(fmt, tmp_path, frames=3)
    data = path.read_bytes()
    for size in (0, 5, 20, 200, 5000):
        path.write_bytes(data[:size])
        outcome = convert(path, tmp_path / "out")
        assert not outcome.reports
        assert str(path) in outcome.failures[0]


@pytest.mark.parametrize("fmt", ["bag_lz4", "bag_bz2"])
def test_a_garbled_chunk_costs_its_own_frames_alone(fmt: str, tmp_path: Path) -> None:
    path = chunky(fmt, tmp_path)
    data = bytearray(path.read_bytes())
    middle = data.index(b"compression=" + fmt[-3:].encode(), len(data) // 2) + 200
    data[middle : middle + 200] = bytes(200)
    path.write_bytes(data)
    (report,) = convert(path, tmp_path / "out").reports
    assert "does not unpack" in report.damage
    assert 28 <= len(report.stamps_ns) < 40
    assert report.stamps_ns[-1] == bags.START_NS + 39 * bags.PERIOD_NS


def test_a_garbled_first_chunk_which_names_the_topics_does_not_cost_the_others(tmp_path: Path) -> None:
    path = chunky("bag_lz4", tmp_path)
    data = bytearray(path.read_bytes())
    first = data.index(b"compression=lz4") + 40
    data[first : first + 200] = bytes(200)
    path.write_bytes(data)
    (report,) = convert(path, tmp_path / "out").reports
    assert 28 <= len(report.stamps_ns) < 40


def test_a_recording_that_was_never_closed_is_read(tmp_path: Path) -> None:
    path = chunky("bag", tmp_path)
    data = bytearray(path.read_bytes())
    at = data.index(b"index_pos=") + len(b"index_pos=")
    data[at : at + 8] = bytes(8)
    path.write_bytes(data)
    (report,) = convert(path, tmp_path / "out").reports
    assert len(report.stamps_ns) == 40
    assert report.damage == "it has no index: the recording was not closed properly"


def test_mcap_messages_in_the_open_are_read_as_those_in_chunks(tmp_path: Path, reference: dict[str, bytes]) -> None:
    path = bags.write_bag(tmp_path, "drive", "mcap", drive())
    data, at, plain = path.read_bytes(), 8, b""
    while data[at] != 15:  # the end of the data
        size = int.from_bytes(data[at + 1 : at + 9], "little")
        record = data[at : at + 9 + size]
        # Of a chunk: times, size and checksum, an empty name of the compression, the size again, then its records.
        plain += record[9 + 40 :] if record[0] == 6 else record if record[0] in (1, 15) else b""
        at += 9 + size
    path.write_bytes(data[:8] + plain + data[at : at + 13] + data[-37:])
    assert convert(path, tmp_path / "out").is_whole
    assert files(tmp_path / "out") == reference


def test_of_a_folder_without_metadata_each_file_is_a_recording(tmp_path: Path) -> None:
    bags.write_bag(tmp_path, "drive", "db3", drive(3))
    (tmp_path / "drive" / "metadata.yaml").unlink()
    assert list(sequences_of([tmp_path / "drive"])) == ["drive"]
    assert convert(tmp_path / "drive", tmp_path / "out").is_whole


def test_a_folder_that_lacks_a_file_gives_the_others_and_says_so(tmp_path: Path) -> None:
    bags.write_bag(tmp_path, "drive", "db3", drive(3))
    metadata = tmp_path / "drive" / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("- drive.db3", "- drive.db3\n  - drive_1.db3"))
    (report,) = convert(tmp_path / "drive", tmp_path / "out").reports
    assert report.damage == "drive_1.db3 is missing"
    assert len(report.stamps_ns) == 3
