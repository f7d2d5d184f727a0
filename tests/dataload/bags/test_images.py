"""Every encoding of an image to its pixels, whatever its padding and order of bytes."""

import builtins
from pathlib import Path
from typing import Any

import bags
import numpy as np
import pytest
from picture_kinds import READ

from dataload.bags.messages import images
from dataload.bags.messages.images import BadFrame, decode
from splits.errors import InputError

SIZE = (6, 10)
RGB = bags.picture(SIZE, 1.0)
GREY = RGB[..., 0]


def alpha(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 9, np.uint8)], -1)


@pytest.mark.parametrize("ros1", [False, True])
@pytest.mark.parametrize("padding", [0, 1, 7])
@pytest.mark.parametrize(
    ("encoding", "pixels", "expected"),
    [
        ("rgb8", RGB, RGB),
        ("bgr8", RGB[..., ::-1], RGB),
        ("8UC3", RGB[..., ::-1], RGB),
        ("rgba8", alpha(RGB), RGB),
        ("bgra8", alpha(RGB[..., ::-1]), RGB),
        ("mono8", GREY, GREY),
        ("8UC1", GREY, GREY),
    ],
)
def test_bytes_become_their_pixels(encoding: str, pixels: np.ndarray, expected: np.ndarray, padding: int, ros1: bool) -> None:
    message = bags.parsed(bags.image("/image", pixels, encoding, 1, padding=padding), ros1=ros1)
    assert images.size_of(message) == SIZE
    assert (decode(message, "/image") == expected).all()


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize(("encoding", "channels"), [("mono16", ()), ("rgb16", (3,)), ("bgr16", (3,))])
def test_of_16_bits_the_upper_8_stay(encoding: str, channels: tuple[int, ...], big_endian: bool) -> None:
    wide = np.random.default_rng(0).integers(0, 2**16, (*SIZE, *channels)).astype(np.uint16)
    message = bags.parsed(bags.image("/image", wide, encoding, 1, padding=6, big_endian=big_endian))
    expected = (wide // 256).astype(np.uint8)
    assert (decode(message, "/image") == (expected[..., ::-1] if encoding == "bgr16" else expected)).all()
    assert images.is_16_bit(message)


def test_the_padding_of_the_last_row_may_be_missing() -> None:
    message = bags.parsed(bags.image("/image", RGB, "rgb8", 1, padding=4))
    message.data = message.data[:-4]
    assert (decode(message, "/image") == RGB).all()
    message.data = message.data[:-1]
    with pytest.raises(BadFrame, match="damaged"):
        decode(message, "/image")


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("bits", [8, 16])
def test_bayer_patterns_give_their_colours(pattern: str, bits: int) -> None:
    pytest.importorskip("cv2")
    colour = {"r": 200, "g": 120, "b": 40}
    tile = np.array([[colour[pattern[0]], colour[pattern[1]]], [colour[pattern[2]], colour[pattern[3]]]])
    mosaic = np.tile(tile, (4, 5)).astype(np.uint8)
    values = mosaic.astype(np.uint16) * 256 if bits == 16 else mosaic
    pixels = decode(bags.parsed(bags.image("/image", values, f"bayer_{pattern}{bits}", 1, padding=2)), "/image")
    assert (pixels[2:-2, 2:-2] == [200, 120, 40]).all()


@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuyv", "yuv422_yuy2", "nv12", "nv21"])
def test_yuv_gives_its_colours(encoding: str) -> None:
    pytest.importorskip("cv2")
    y, u, v = 145, 54, 34  # pure green of BT.601
    if encoding.startswith("nv"):
        values = np.full((9, 10), y, np.uint8)
        values[6:, 0::2], values[6:, 1::2] = (u, v) if encoding == "nv12" else (v, u)
        message = bags.image("/image", values, encoding, 1, padding=6)
        message.fields["height"] = 6
    else:
        pair = [u, y, v, y] if encoding in ("yuv422", "uyvy") else [y, u, y, v]
        message = bags.image("/image", np.tile(pair, (6, 5)).astype(np.uint8).reshape(6, 10, 2), encoding, 1, padding=6)
    pixels = decode(bags.parsed(message), "/image")
    assert pixels.shape == (6, 10, 3)
    assert np.abs(pixels.astype(int) - [0, 255, 0]).max() <= 3


def test_without_opencv_bayer_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "cv2":
            raise ImportError("No module named 'cv2'")
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"/image: bayer_rggb8 needs OpenCV .*pip install opencv-python-headless"):
        decode(bags.parsed(bags.image("/image", GREY, "bayer_rggb8", 1)), "/image")


def test_an_unknown_encoding_is_named_with_its_topic() -> None:
    with pytest.raises(InputError, match="/image: encoding 'xyz9' is not known"):
        decode(bags.parsed(bags.image("/image", GREY, "xyz9", 1)), "/image")


def test_compressed_images_are_decoded_whatever_their_format_says() -> None:
    assert (decode(bags.parsed(bags.compressed("/image", bags.png(RGB), 1, form="jpeg")), "/image") == RGB).all()
    assert (decode(bags.parsed(bags.compressed("/image", bags.png(alpha(RGB)), 1, form="png")), "/image") == RGB).all()
    wide = np.random.default_rng(0).integers(0, 2**16, SIZE).astype(np.uint16)
    assert (decode(bags.parsed(bags.compressed("/image", bags.png(wide), 1, form="mono16; png compressed")), "/image") == wide >> 8).all()


def test_a_jpeg_is_passed_on_as_it_is_and_one_cut_off_is_not() -> None:
    data = bags.jpeg(RGB)
    assert images.as_jpeg(bags.parsed(bags.compressed("/image", data + bytes(40), 1))) == data + bytes(40)
    assert images.as_jpeg(bags.parsed(bags.compressed("/image", bags.png(RGB), 1))) is None
    with pytest.raises(BadFrame, match="damaged"):
        images.as_jpeg(bags.parsed(bags.compressed("/image", data[:-20], 1)))
    with pytest.raises(BadFrame, match="damaged"):
        decode(bags.parsed(bags.compressed("/image", data[: len(data) // 2], 1)), "/image")
    with pytest.raises(BadFrame, match="damaged"):
        images.size_of(bags.parsed(bags.compressed("/image", b"nonsense", 1)))


def test_png_keeps_every_level(tmp_path: Path) -> None:
    data, ending = images.encode(RGB, png=True)
    assert ending == ".png"
    assert (decode(bags.parsed(bags.compressed("/image", data, 1)), "/image") == RGB).all()


@pytest.mark.parametrize("name", ["jpeg", "jpeg grey", "jpeg orientation 6", "jpeg cmyk", "png 16 bits rgb", "png orientation 6", "webp"])
def test_a_compressed_image_shows_what_the_same_file_shows(name: str) -> None:
    data, expected = READ[name]
    message = bags.parsed(bags.compressed("/image", data, 1))
    pixels = decode(message, "/image")
    assert images.size_of(message) == pixels.shape[:2] == expected.shape[:2]
    assert (pixels == (expected[..., 0] if pixels.ndim == 2 else expected)).all()
    assert (images.as_jpeg(message) == data) == (name in ("jpeg", "jpeg grey"))
