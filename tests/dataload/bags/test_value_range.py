"""16-bit images of cameras of fewer bits, cameras that only P describes, and streams of video: what is written, or what is said."""

import struct
import zlib
from pathlib import Path

import bags
import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image

from dataload.bags.messages.camera_info import Camera, from_message
from dataload.bags.messages.images import PNG_START, BadFrame, decode, is_16_bit, require_pictures, said_bits, size_of
from dataload.commands.from_bag import from_bag
from splits.errors import InputError

SIZE = (32, 48)
K = np.array([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]])
P = np.column_stack([K, np.zeros(3)])
NONE = np.zeros((3, 3))
LEFT, RIGHT = "/cam/left/image_rect", "/cam/right/image_rect"
GREY = bags.picture(SIZE)[..., 0].astype(np.uint16)


def convert(tmp_path: Path, messages: list[bags.Msg], *options: str) -> Result:
    path = bags.write_bag(tmp_path, "drive", "bag", messages)
    return CliRunner().invoke(from_bag, [str(path), "--out", str(tmp_path / "out"), "--no_split", "--png", *options])


def stamp(number: int) -> int:
    return bags.START_NS + number * bags.PERIOD_NS


def stream(topic: str, frames: list[NDArray[np.uint16]], encoding: str = "mono16", *, frame_id: str = "left_optical") -> list[bags.Msg]:
    baseline = 0.0 if topic == LEFT else 0.2
    info = bags.camera_info(topic.replace("image_rect", "camera_info"), K, SIZE, baseline_m=baseline, frame_id=frame_id)
    return [info, *(bags.image(topic, frame, encoding, stamp(i), frame_id=frame_id) for i, frame in enumerate(frames))]


def written(tmp_path: Path, side: str = "left") -> list[NDArray[np.uint8]]:
    return [np.asarray(Image.open(path)) for path in sorted((tmp_path / "out" / "drive" / f"front_rgb_{side}").iterdir())]


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_the_bits_in_use_are_found_in_the_data_once_for_all_frames(bits: int, tmp_path: Path) -> None:
    # The first frames are dark: a range of each frame's own would brighten them.
    levels = [GREY // 4, GREY // 4, GREY + 28]
    result = convert(tmp_path, stream(LEFT, [frame << (bits - 8) for frame in levels]))
    assert result.exit_code == 0, result.output
    for frame, expected in zip(written(tmp_path), levels, strict=True):
        assert (frame == expected).all()
    known = f"{bits} of 16 bits are in use (the largest value of 3 frames is"
    assert (known if bits < 16 else "16 bits are cut down to 8 (divided by 256)") in result.output


def test_both_cameras_of_a_pair_have_one_range(tmp_path: Path) -> None:
    dark, bright = [GREY << 2] * 3, [GREY << 4] * 3
    result = convert(tmp_path, [*stream(LEFT, dark), *stream(RIGHT, bright, frame_id="right_optical")])
    assert result.exit_code == 0, result.output
    assert (written(tmp_path)[0] == GREY >> 2).all()
    assert (written(tmp_path, "right")[0] == GREY).all()


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_bits_that_an_encoding_names_are_taken_from_it(bits: int) -> None:
    message = bags.parsed(bags.image(LEFT, GREY << (bits - 8), f"mono{bits}", 1, padding=2))
    assert said_bits(message) == bits
    assert (decode(message, LEFT) == GREY).all()


@pytest.mark.parametrize("bits", [12, 16])
def test_a_mosaic_of_fewer_bits_gives_its_colours(bits: int) -> None:
    pytest.importorskip("cv2")
    mosaic = np.tile(np.array([[200, 120], [120, 40]], np.uint16), (4, 5)) << 4
    pixels = decode(bags.parsed(bags.image("/image", mosaic, f"bayer_rggb{bits}", 1)), "/image", 12)
    assert (pixels[2:-2, 2:-2] == [200, 120, 40]).all()


def test_a_png_of_16_bits_and_three_colours_keeps_its_range() -> None:
    cv2 = pytest.importorskip("cv2")
    rgb = bags.picture(SIZE).astype(np.uint16)
    data = cv2.imencode(".png", rgb[..., ::-1] << 4)[1].tobytes()
    message = bags.parsed(bags.compressed("/image/compressed", data, 1, form="rgb16; png compressed"))
    assert is_16_bit(message)
    assert (decode(message, "/image/compressed", 12) == rgb).all()


def camera(topic: str = "/cam/image_raw", **info: object) -> Camera:
    message = bags.parsed(bags.camera_info("/cam/camera_info", **{"K": K, "size_px": SIZE, **info}))
    return from_message(message, topic="/cam/camera_info", image_topic=topic, size_px=SIZE, frame_id="")


def test_a_good_p_stands_for_a_k_that_is_zero_and_the_other_way_round() -> None:
    for found in (camera(K=NONE, P=P), camera(K=NONE, P=P, topic="/cam/image_rect", D=(0.1, 0, 0, 0, 0)), camera(P=np.zeros((3, 4)))):
        assert not found.rectifies
        assert np.allclose(found.P, P)
        assert np.allclose(found.K, K)


def test_what_neither_describes_is_refused_for_its_reason() -> None:
    with pytest.raises(
        InputError, match=r"^/cam/camera_info says that its camera is not calibrated \(K is zero, and so is P\); .*--intrinsi"
    ):
        camera(K=NONE, P=np.zeros((3, 4)))
    with pytest.raises(InputError, match=r"has lens distortion but no camera matrix \(K is zero\), so its images cannot be rectified"):
        camera(K=NONE, P=P, D=(0.1, 0, 0, 0, 0))
    with pytest.raises(InputError, match="not calibrated"):
        camera(K=np.full((3, 3), np.nan), P=np.zeros((3, 4)))


@pytest.mark.parametrize(
    ("form", "data"), [("h264", b"\x00\x00\x00\x01\x67"), ("hevc", b"\x01\x02\x03\x04"), ("", b"\x00\x00\x01\x67\x42")]
)
def test_pieces_of_a_video_are_named_as_such(form: str, data: bytes, tmp_path: Path) -> None:
    topic = "/cam/image/compressed"
    pieces = [bags.compressed(topic, data * 20, stamp(i), form=form) for i in range(3)]
    with pytest.raises(InputError, match=f"^{topic} is a video stream .*md-data from-video"):
        require_pictures(bags.parsed(pieces[0]), topic)
    result = convert(tmp_path, [bags.camera_info("/cam/camera_info", K, SIZE), *pieces])
    assert result.exit_code == 1
    assert f"{topic} is a video stream" in result.output.splitlines()[-1]


@pytest.mark.parametrize("colour_type", [0, 2])
def test_a_picture_of_a_size_that_no_camera_has_is_damage(colour_type: int) -> None:
    head = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 16, colour_type, 0, 0, 0)
    data = PNG_START + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    message = bags.parsed(bags.compressed("/image/compressed", data + b"\x00\x00\x00\x00IDAT", 1, form="png"))
    with pytest.raises(BadFrame, match=r"of more than [\d,]+ pixels, .*MD_MAX_IMAGE_PIXELS"):
        size_of(message)
    with pytest.raises(BadFrame, match=r"of more than [\d,]+ pixels, .*MD_MAX_IMAGE_PIXELS"):
        decode(message, "/image/compressed")
