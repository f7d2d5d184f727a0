"""Depth in all its forms to 16-bit PNG: units, compression, registration, points."""

import struct
from io import BytesIO
from pathlib import Path

import bags
import numpy as np
import pytest
from PIL import Image

from dataload.bags.batch import Outcome, convert_all, sequences_of
from dataload.bags.messages import depth, points
from dataload.bags.messages.camera_info import from_numbers
from dataload.bags.messages.images import BadFrame
from dataload.bags.messages.transforms import between, tree_of
from dataload.bags.options import ConvertOptions
from splits.errors import InputError

SIZE = (48, 80)
K = np.array([[70.0, 0, 41], [0, 72, 23], [0, 0, 1]])


def measured(seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Depths in metres from 0.5 to 80, float64."""
    return np.random.default_rng(seed).uniform(0.5, 80, size)


@pytest.mark.parametrize("big_endian", [False, True])
def test_metres_and_millimetres_give_levels_of_a_256th(big_endian: bool) -> None:
    metres = measured().astype(np.float32)
    message = bags.parsed(bags.image("/depth", metres, "32FC1", 1, padding=12, big_endian=big_endian))
    assert (depth.levels(depth.decode(message, "/depth")) == np.rint(metres.astype(np.float64) * 256)).all()
    millimetres = np.rint(np.minimum(metres, 65) * 1000).astype(np.uint16)
    message = bags.parsed(bags.image("/depth", millimetres, "16UC1", 1, padding=2, big_endian=big_endian))
    assert (depth.levels(depth.decode(message, "/depth")) == np.rint(millimetres / 1000 * 256)).all()


@pytest.mark.parametrize("share", [0.0, 0.02, 0.6, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (48, 81)])
def test_the_png_written_is_read_by_others_as_it_was(share: float, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(4)
    values = np.where(rng.random(size) < share, rng.integers(1, 2**16, size), 0).astype(np.uint16)
    image = Image.open(BytesIO(depth.encode(values)))
    assert (image.format, image.size) == ("PNG", (size[1], size[0]))
    assert (np.asarray(image) == values).all()
    cv2 = pytest.importorskip("cv2")
    assert (cv2.imdecode(np.frombuffer(depth.encode(values), np.uint8), cv2.IMREAD_UNCHANGED) == values).all()


def test_what_is_no_depth_becomes_0() -> None:
    values = np.array([[np.nan, np.inf, -np.inf, -1, 0, 256, 1e9, 255.99, 1, 0.001]], np.float32)
    assert depth.levels(values).tolist() == [[0, 0, 0, 0, 0, 0, 0, 65533, 256, 0]]


def test_compressed_millimetres_keep_their_16_bits() -> None:
    values = np.random.default_rng(1).integers(0, 2**16, SIZE).astype(np.uint16)
    data = struct.pack("<iff", 0, 0, 0) + bags.png(values)
    for form in ("16UC1; compressedDepth", "16UC1; compressedDepth png"):
        assert (depth.decode(bags.parsed(bags.compressed("/depth/compressedDepth", data, 1, form=form)), "/depth") == values).all()


def test_compressed_metres_are_quantised_inverse_depth() -> None:
    metres, a, b = measured(), 1000.0, -3.5
    quantised = np.rint(a / metres + b).astype(np.uint16)
    quantised[0, :5] = 0
    data = struct.pack("<iff", 1, a, b) + bags.png(quantised)
    found = depth.decode(bags.parsed(bags.compressed("/depth/compressedDepth", data, 1, form="32FC1; compressedDepth png")), "/depth")
    assert (found[0, :5] == 0).all()
    assert np.abs(a / found[1:] - a / metres[1:]).max() < 0.51


def test_rvl_is_refused_and_other_damage_named() -> None:
    data = struct.pack("<iff", 0, 0, 0)
    with pytest.raises(InputError, match="/depth: depth compressed by rvl cannot be read"):
        depth.decode(bags.parsed(bags.compressed("/depth", data + bytes(100), 1, form="16UC1; compressedDepth rvl")), "/depth")
    cut_off = data + bags.png(np.ones(SIZE, np.uint16))[:60]
    with pytest.raises(BadFrame):
        depth.decode(bags.parsed(bags.compressed("/depth", cut_off, 1, form="16UC1; compressedDepth")), "/depth")
    with pytest.raises(InputError, match="a PNG of 8 bits is no depth"):
        depth.decode(bags.parsed(bags.compressed("/depth", bags.png(np.ones(SIZE, np.uint8)), 1, form="png")), "/depth")


def convert(folder: Path, messages: list[bags.Msg], **options: object) -> Outcome:
    """The messages, with a left image and its camera_info, as a sequence ``drive``."""
    left = [bags.camera_info("/left/camera_info", K, SIZE), bags.image("/left/image_rect", bags.picture(SIZE), "rgb8", bags.START_NS)]
    path = bags.write_bag(folder, "drive", "mcap", [*left, *messages])
    return convert_all(sequences_of([path]), folder / "out", ConvertOptions(**options), progress=False)  # type: ignore[arg-type]


def written(folder: Path) -> np.ndarray:
    (path,) = (folder / "out" / "drive" / "front_depth_left").iterdir()
    return np.asarray(Image.open(path))


def test_registered_depth_of_another_size_and_k_takes_the_nearest_pixel(tmp_path: Path) -> None:
    size, K_depth = (60, 60), np.array([[50.0, 0, 27], [0, 45, 33], [0, 0, 1]])
    values = np.random.default_rng(2).integers(500, 20000, size).astype(np.uint16)
    messages = [bags.camera_info("/depth/camera_info", K_depth, size), bags.image("/depth/image_rect", values, "16UC1", bags.START_NS)]
    (report,) = convert(tmp_path, messages).reports
    expected = np.zeros(SIZE, np.uint16)
    for v in range(SIZE[0]):
        for u in range(SIZE[1]):
            x, y = round((u - 41) / 70 * 50 + 27), round((v - 23) / 72 * 45 + 33)
            if 0 <= x < size[1] and 0 <= y < size[0]:
                expected[v, u] = round(int(values[y, x]) * 0.256)
    assert (written(tmp_path) == expected).all()
    assert any("60x60, brought to the image's pixels" in note for note in report.notes)


def test_depth_of_half_the_size_without_camera_info_covers_the_image(tmp_path: Path) -> None:
    values = np.arange(24 * 40).reshape(24, 40).astype(np.float32) / 10 + 1
    convert(tmp_path, [bags.image("/depth/image", values, "32FC1", bags.START_NS)])
    # Borders on borders: each pixel is two by two of the image's.
    assert (written(tmp_path) == np.rint(np.repeat(np.repeat(values, 2, 0), 2, 1) * 256)).all()


def test_depth_from_elsewhere_is_left_out_or_an_error_where_it_was_asked_for(tmp_path: Path) -> None:
    message = bags.image("/depth/image", measured().astype(np.float32), "32FC1", bags.START_NS, frame_id="tof")
    info = bags.camera_info("/depth/camera_info", K, SIZE, frame_id="tof")
    (report,) = convert(tmp_path / "found", [message, info]).reports
    assert report.depth == 0
    assert any("depth is left out: /depth/image is in frame 'tof', the image in 'left_optical'" in note for note in report.notes)
    (failure,) = convert(tmp_path / "named", [message, info], depth_topic="/depth/image").failures
    assert "/tf_static does not connect them; give --depth_extrinsics" in failure


@pytest.mark.parametrize("how", ["tf_static", "option"])
def test_depth_from_elsewhere_is_projected_where_the_transform_is_known(how: str, tmp_path: Path) -> None:
    values = np.zeros(SIZE, np.float32)
    values[20, 30], values[20, 31] = 7.0, 14.0
    messages = [
        bags.image("/depth/image", values, "32FC1", bags.START_NS, frame_id="tof"),
        bags.camera_info("/depth/camera_info", K, SIZE, frame_id="tof"),
    ]
    # The depth camera stands 1 m to the right of the image's and 2 m before it.
    if how == "tf_static":
        messages.append(bags.static_transform("left_optical", "tof", (0, 0, 0, 1), (1, 0, 2)))
    options = {"depth_extrinsics": (1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1, 2)} if how == "option" else {}
    convert(tmp_path, messages, **options)
    expected = np.zeros(SIZE, np.uint16)
    for u, z in ((30, 7.0), (31, 14.0)):
        x, y = (u - 41) / 70 * z + 1, (20 - 23) / 72 * z
        expected[round(72 * y / (z + 2) + 23), round(70 * x / (z + 2) + 41)] = round((z + 2) * 256)
    assert (written(tmp_path) == expected).all()


def scan(count: int = 3000) -> np.ndarray:
    """Points around a scanner that looks along x, some of no value."""
    xyz = np.random.default_rng(3).uniform([-5, -20, -4], [60, 20, 4], (count, 3)).astype(np.float32).astype(np.float64)
    xyz[5] = np.nan
    xyz[6, 2] = np.inf
    return xyz


T_CAMERA_LIDAR = np.array([[0, -1, 0, 0.1], [0, 0, -1, -0.2], [1, 0, 0, -0.3], [0, 0, 0, 1.0]])


def by_loop(xyz: np.ndarray) -> np.ndarray:
    """Depth of the left image, point by point."""
    out = np.zeros(SIZE)
    for point in xyz:
        if not np.isfinite(point).all():
            continue
        x, y, z = T_CAMERA_LIDAR[:3, :3] @ point + T_CAMERA_LIDAR[:3, 3]
        if z <= 0.1:
            continue
        u, v = round(70 * x / z + 41), round(72 * y / z + 23)
        if 0 <= u < SIZE[1] and 0 <= v < SIZE[0] and (out[v, u] == 0 or z < out[v, u]):
            out[v, u] = z
    return out


@pytest.mark.parametrize("big_endian", [False, True])
def test_a_cloud_is_projected_as_by_a_plain_loop(big_endian: bool) -> None:
    message = bags.parsed(bags.cloud("/lidar", scan(), 1, big_endian=big_endian, row_padding=11))
    camera = from_numbers((70, 72, 41, 23), size_px=SIZE, frame_id="left_optical")
    found = points.project(points.xyz_of(message, "/lidar"), T_CAMERA_LIDAR, camera)
    assert np.allclose(found, by_loop(scan()), rtol=1e-6)
    assert 300 < (found > 0).sum() < 3000


@pytest.mark.parametrize("how", ["tf_static", "option"])
def test_a_cloud_becomes_sparse_depth_through_the_tree_or_the_option(how: str, tmp_path: Path) -> None:
    messages = [bags.cloud("/lidar/points", scan(), bags.START_NS + 15_000_000)]
    if how == "tf_static":
        # base -> lidar, base -> camera mount -> optical frame; the lidar's axes are the base's.
        messages += [
            bags.static_transform("base", "lidar", (0, 0, 0, 1), (1.3, 0.1, 1.8)),
            bags.static_transform("base", "mount", (0, 0, 0, 1), (1.6, 0.2, 1.6)),
            bags.static_transform("mount", "left_optical", (-0.5, 0.5, -0.5, 0.5), (0, 0, 0)),
        ]
    options = {"points_extrinsics": tuple(T_CAMERA_LIDAR.ravel().tolist())} if how == "option" else {}
    (report,) = convert(tmp_path, messages, **options).reports
    assert (report.depth, report.calibration.depth_kind, report.calibration.depth_topic) == (1, "sparse", "/lidar/points")
    expected = np.rint(by_loop(scan()) * 256)
    # Quaternions leave rounding errors: a point in some hundreds may fall into the next pixel.
    assert (written(tmp_path) == expected).mean() > 0.995


def test_a_cloud_of_unknown_place_is_left_out(tmp_path: Path) -> None:
    (report,) = convert(tmp_path, [bags.cloud("/lidar/points", scan(), bags.START_NS)]).reports
    assert report.depth == 0
    assert any("give --points_extrinsics" in note for note in report.notes)


def test_transforms_chain_both_ways() -> None:
    messages = [
        bags.parsed(bags.static_transform("base", "a", (0, 0, np.sqrt(0.5), np.sqrt(0.5)), (1, 2, 3))),
        bags.parsed(bags.static_transform("/base", "/b", (0.1, 0.2, 0.3, 0.9), (4, 5, 6))),
    ]
    tree = tree_of(messages)
    T_a_b, T_b_a = between(tree, "a", "b"), between(tree, "/b", "a")
    assert T_a_b is not None
    assert T_b_a is not None
    assert np.allclose(T_a_b @ T_b_a, np.eye(4))
    # A quarter turn about z: the base's x is minus a's y.
    T_a_base = between(tree, "a", "base")
    assert T_a_base is not None
    assert np.allclose(T_a_base @ [2, 2, 3, 1], [0, -1, 0, 1])
    assert between(tree, "a", "nowhere") is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points_extrinsics": (1.0,) * 7}, "points_extrinsics has 7 numbers, not the 12 or 16"),
        ({"depth_extrinsics": (2.0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)}, "no rotation"),
        ({"depth_topic": "/a", "points_topic": "/b"}, "name one"),
        ({"hz": -1.0}, "hz=-1 must be from 0"),
        ({"intrinsics": (0.0, 1, 1, 1)}, "the focal lengths FX and FY above 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ConvertOptions(**options)
