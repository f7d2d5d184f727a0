"""The parsers of datasets: splits, cameras, depth, pictures, poses, ground truth, predictions, stores, markers."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from kitti_tree import write_calibration as write_kitti_calibration
from parser_entry import Parser
from picture_kinds import GREY_16, RGB, exif, png, save
from PIL import Image
from tiny_files import made_by, saved_npy, saved_npz

from dataload.datasets.evo import Evo
from dataload.datasets.folder import Folder
from dataload.datasets.kitti import KittiRaw
from dataload.datasets.kitti_depth import read_depth_png
from dataload.datasets.kitti_test import KittiTest
from dataload.demo import world
from dataload.footage.motion import thumbnail
from dataload.frames import calibration
from dataload.frames.calibration import Calibration, Intrinsics, read_calibration
from dataload.frames.depth_file import read_depth_values
from dataload.frames.frame_ref import FrameRef
from dataload.frames.picture import is_plain, picture_size_px, pixels_of, read_picture
from dataload.frames.sparse_depth import PackedDepths, SparseDepth
from dataload.ground_truth import ARRAYS, read_ground_truth
from dataload.kitti import velodyne
from dataload.kitti.archives import Archive, is_complete, write_marker
from dataload.kitti.jpeg import convert
from dataload.kitti.unpack import unpack
from dataload.pipeline.decode import load_frame
from dataload.store.file import StoreFault, StoreFile, StoreKey
from dataload.store.listing import stores, verify
from engine.evaluation.disp_files import open_inv_depths, read_blocks
from engine.odometry.run import read_gt_poses
from engine.odometry.trajectory import read_motions, timestamps_s
from export.prediction.inputs import read_image

SMALL = Image.fromarray(RGB[:24, :32])
DEPTH_M = np.where(np.indices((6, 8)).sum(0) % 3, 5.5, 0).astype(np.float32)
CAMERA = Intrinsics(fx_px=50, fy_px=52.5, cx_px=31.5, cy_px=15.5, width_px=64, height_px=32)


# --- splits


def _split(lines: str) -> Callable[[], list[bytes]]:
    return lambda: [lines.encode(), ("\ufeff" + lines.replace("\n", "\r\n")).encode()]


def _read_split(dataset: Callable[[Path], Any], path: Path) -> object:
    made = dataset(path.parent.parent / "data")
    return made.read(str(path.parent), "train")


KITTI_LINES = "2011_09_26/2011_09_26_drive_0001_sync 5 l\n\n2011_09_26/2011_09_26_drive_0001_sync 0000000006 r\n2011_09_26\\x 7 2\n"


def _sequences(folder: Path) -> None:
    for side, names in {"image_left": ("a", "s"), "image_right": ("s",)}.items():
        for name in names:
            place = folder / "data" / name / side
            place.mkdir(parents=True, exist_ok=True)
            for number in range(3):
                SMALL.save(place / f"{name}_{1000 + number:019d}.jpg")
    (folder / "data" / "f").mkdir(parents=True, exist_ok=True)
    for number in range(3):
        SMALL.save(folder / "data" / "f" / f"{number:03d}.jpg")


# --- cameras


def _calibrations() -> list[bytes]:
    whole = Calibration(
        cameras={"front_left": CAMERA, "front_right": CAMERA}, baseline_m=0.5, depth_scale=256.0, depth_kind="dense", source={"bag": "b"}
    )
    return made_by(lambda path: calibration.write_calibration(path, whole), "calibration.yaml")


K, P = [50.0, 0, 31.5, 0, 52.5, 15.5, 0, 0, 1], [50.0, 0, 31.5, 0, 0, 52.5, 15.5, 0, 0, 0, 1, 0]


def _ros() -> list[bytes]:
    matrices = {
        "camera_matrix": {"rows": 3, "cols": 3, "data": K},
        "distortion_model": "plumb_bob",
        "distortion_coefficients": {"rows": 1, "cols": 5, "data": [0.0] * 5},
        "rectification_matrix": {"rows": 3, "cols": 3, "data": [1.0, 0, 0, 0, 1, 0, 0, 0, 1]},
        "projection_matrix": {"rows": 3, "cols": 4, "data": P},
    }
    return [yaml.safe_dump({"image_width": 64, "image_height": 32, "camera_name": "left", **matrices}).encode()]


def _opencv() -> list[bytes]:
    matrix = "!!opencv-matrix\n   rows: {}\n   cols: {}\n   dt: d\n   data: {}\n"
    text = "%YAML:1.0\n---\nimage_width: 64\nimage_height: 32\ncamera_matrix: " + matrix.format(3, 3, K)
    return [(text + "distortion_coefficients: " + matrix.format(1, 5, [0.0] * 5)).encode()]


def _orb_slam() -> list[bytes]:
    old = {
        "Camera.fx": 50.0,
        "Camera.fy": 52.5,
        "Camera.cx": 31.5,
        "Camera.cy": 15.5,
        "Camera.width": 64,
        "Camera.height": 32,
        "Camera.bf": 25.0,
    }
    new = {
        "Camera.type": "PinHole",
        **{f"Camera1.{key}": value for key, value in zip(("fx", "fy", "cx", "cy"), (50.0, 52.5, 31.5, 15.5), strict=True)},
    }
    return [b"%YAML:1.0\n---\n" + yaml.safe_dump(each).encode() for each in (old, new | {"Camera.width": 64, "Camera.height": 32})]


class _WithoutAliases(yaml.SafeDumper):
    def ignore_aliases(self, _: object) -> bool:
        return True


def _kalibr() -> list[bytes]:
    camera = {
        "camera_model": "pinhole",
        "intrinsics": [50.0, 52.5, 31.5, 15.5],
        "distortion_model": "radtan",
        "distortion_coeffs": [0.0, 0, 0, 0],
        "resolution": [64, 32],
        "rostopic": "/left/image_rect",
    }
    T = [[1.0, 0, 0, -0.5], [0.0, 1, 0, 0], [0.0, 0, 1, 0], [0.0, 0, 0, 1]]
    chain = {"cam0": camera, "cam1": camera | {"T_cn_cnm1": T}}
    sensor = {
        "sensor_type": "camera",
        "camera_model": "pinhole",
        "intrinsics": [50.0, 52.5, 31.5, 15.5],
        "resolution": [64, 32],
        "distortion_model": "radial-tangential",
        "distortion_coefficients": [0.0, 0, 0, 0],
    }
    return [yaml.dump(each, Dumper=_WithoutAliases, default_flow_style=None).encode() for each in (chain, sensor)]


def _vins() -> list[bytes]:
    content = {
        "model_type": "PINHOLE",
        "camera_name": "camera",
        "image_width": 64,
        "image_height": 32,
        "distortion_parameters": {"k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0},
        "projection_parameters": {"fx": 50.0, "fy": 52.5, "cx": 31.5, "cy": 15.5},
    }
    return [b"%YAML:1.0\n---\n" + yaml.safe_dump(content).encode()]


def _read_camera(path: Path) -> object:
    found = read_calibration(path, lambda: (32, 64))
    return [camera.K(32, 64) for camera in found.cameras.values()]


def _sequence_with_camera(path: Path) -> object:
    """As training reads it: the camera, the baseline, the scale of depth."""
    dataset = Folder(path.parent.parent)
    ref = FrameRef(path.parent.name, 0, None, "000")
    return dataset.K(ref, 32, 64), dataset.metric_factor, dataset.assumes_depth_scale(ref)


# --- KITTI


def _kitti_date(folder: Path) -> None:
    write_kitti_calibration(folder, (32, 64))


def _kitti_text(name: str) -> Callable[[], list[bytes]]:
    def seeds() -> list[bytes]:
        with TemporaryDirectory() as folder:
            _kitti_date(Path(folder))
            return [(Path(folder) / name).read_bytes()]

    return seeds


def _read_kitti_calibration(path: Path) -> object:
    velodyne.read_calibration.cache_clear()
    return velodyne.read_calibration(path.parent, 2)


def _scan() -> list[bytes]:
    points = np.array([(5 + 0.3 * n, 0.1 * n - 1, 0.05 * n - 0.4, 0.5) for n in range(40)], "<f4")
    return [points.tobytes(), points[:1].tobytes()]


def _read_scan(path: Path) -> object:
    made = velodyne.read_calibration(path.parent, 2)
    return [velodyne.sparse_depth(velodyne.read_scan(path), made, vel_depth=vel_depth) for vel_depth in (True, False)]


DRIVE = Archive("https://example.invalid/2011_09_26_drive_0001_sync.zip", "2011_09_26", "2011_09_26/0001")


def _kitti_zip() -> list[bytes]:
    import zipfile

    found = []
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", kind) as archive:
            for name in ("image_02/data/0000000000.png", "velodyne_points/data/0000000000.bin", "oxts/dataformat.txt"):
                archive.writestr(f"2011_09_26/2011_09_26_drive_0001_sync/{name}", b"content " * 4)
        found.append(out.getvalue())
    return found


def _marker() -> list[bytes]:
    names = [f"{part}/{n}.x" for part in ("image_02/data", "image_03/data", "velodyne_points/data") for n in range(3)]
    return made_by(lambda path: write_marker(path.parent, names), ".md_download.json")


def _convert_png(path: Path) -> object:
    path.with_suffix(".jpg").unlink(missing_ok=True)
    return convert(path, quality=92, delete=False)


# --- depth, pictures


def _depth_pngs() -> list[bytes]:
    levels = (DEPTH_M * 256).astype(np.uint16)
    return [save(Image.fromarray(levels), "PNG"), png(levels, 0, 16), png(levels, 0, 16, interlaced=True)]


def _depth_tiffs() -> list[bytes]:
    levels = (DEPTH_M * 256).astype(np.uint16)
    return [save(Image.fromarray(each), "TIFF", **how) for each in (DEPTH_M, levels) for how in ({}, {"compression": "tiff_adobe_deflate"})]


def _depth_arrays() -> list[bytes]:
    return [saved_npy(DEPTH_M), saved_npy(DEPTH_M[None].astype(np.float64)), saved_npy((DEPTH_M * 256).astype(np.uint16))]


def _read_depth(path: Path) -> object:
    return read_depth_values(path)


def _folder_with_depth(path: Path) -> object:
    """As training reads it."""
    return Folder(path.parents[1], depth_scale=256.0).depth_m(FrameRef("depth", 0, None, path.stem))


def _look_at_picture(path: Path) -> object:
    """In all the ways in which commands look at one; each must refuse what the first refuses, and nothing else."""
    return is_plain(path), picture_size_px(path), read_picture(path), load_frame(path, (32, 32)), thumbnail(path), read_image(path)


def _pillow_image(path: Path) -> object:
    """An image that a program has opened itself and gives to ``DepthModel``."""
    try:
        image = Image.open(path)
    except Exception:  # not ours
        return None
    with image:
        return pixels_of(image, path.name)


def _picture(form: str, *more: bytes, **options: Any) -> Callable[[], list[bytes]]:
    return lambda: [save(SMALL, form, **options), save(SMALL.convert("L"), form), *more]


def _pngs() -> list[bytes]:
    return [
        save(SMALL, "PNG"),
        save(SMALL.convert("P"), "PNG"),
        save(SMALL.convert("LA"), "PNG"),
        png(GREY_16[:8, :8], 0, 16),
        save(SMALL, "PNG", exif=exif(6)),
        png(RGB[:8, :8], 2, interlaced=True),
    ]


def _jpegs() -> list[bytes]:
    return [
        save(SMALL, "JPEG"),
        save(SMALL, "JPEG", exif=exif(6)),
        save(SMALL.convert("CMYK"), "JPEG"),
        save(SMALL, "JPEG", progressive=True),
        save(SMALL.convert("L"), "JPEG", restart_marker_blocks=1),
    ]


def _tiffs() -> list[bytes]:
    return [
        save(SMALL, "TIFF", **how)
        for how in ({}, {"compression": "tiff_lzw"}, {"compression": "packbits"}, {"compression": "tiff_adobe_deflate"})
    ]


# --- poses, arrays


def _rows(count: int, numbers: Callable[[int], Sequence[float]]) -> bytes:
    return "".join(" ".join(f"{value:.6e}" for value in numbers(n)) + "\n" for n in range(count)).encode()


def _poses() -> list[bytes]:
    return [_rows(6, lambda n: (1, 0, 0, 0.1 * n, 0, 1, 0, 0, 0, 0, 1, n))]


MOTIONS = np.tile(np.eye(4), (5, 1, 1))


def _kept() -> dict[str, np.ndarray]:
    packed = PackedDepths.pack([SparseDepth.of(DEPTH_M), SparseDepth.of(DEPTH_M[:4])])
    return dict(zip(ARRAYS, (packed.values_m, packed.columns, packed.row_counts, packed.shapes, np.array(["a 0 l", "a 1 l"])), strict=True))


def _ground_truth() -> list[bytes]:
    return [saved_npz(**_kept()), saved_npz(compressed=True, **_kept()), saved_npz(DEPTH_M, DEPTH_M)]


def _read_ground_truth(path: Path) -> object:
    depths = read_ground_truth(path, (FrameRef("a", 0, "l"), FrameRef("a", 1, "l")))
    return [depth.dense() for depth in depths]


def _read_disps(path: Path) -> object:
    return list(read_blocks(open_inv_depths(path, 2), [0, 1]))


# --- stores, markers


def _store() -> list[bytes]:
    key = StoreKey("folder", "/data", (4, 6), "torch", ["a.jpg", "b.jpg"])

    def make(path: Path) -> None:
        file = StoreFile.create(path, key)
        for row in range(2):
            file.write(row, np.full((4, 6, 3), 40 * row, np.uint8), (10, 20))
        file.close()

    return made_by(make, "x.frames")


def _read_store(path: Path) -> object:
    found = stores(path.parent)
    file = StoreFile(path)
    try:
        frame = np.empty((*file.key.size_px, 3), np.uint8)
        rows = [file.read(row, frame) for row in range(min(len(file.key.names), 3))]
    finally:
        file.close()
    return rows, [verify(store) for store in found if store.key is not None]


def _world_marker() -> list[bytes]:
    return [json.dumps({"version": world.VERSION, "config": asdict(world.WorldConfig())}).encode()]


PARSERS = (
    Parser(
        name="split_lines",
        modules=["splits", "dataload.frames.frame_ref"],
        place="split/train_files.txt",
        form="text",
        seeds=_split(KITTI_LINES),
        read=partial(_read_split, KittiRaw),
    ),
    Parser(
        name="split_lines_benchmark",
        modules=["splits"],
        place="split/train_files.txt",
        form="text",
        seeds=_split("image 5\nimage 6\n"),
        read=partial(_read_split, KittiTest),
    ),
    Parser(
        name="split_lines_folder",
        modules=["splits", "dataload.datasets.sequences"],
        place="split/train_files.txt",
        form="text",
        seeds=_split("f 001\nf 002\n"),
        read=partial(_read_split, Folder),
        around=_sequences,
        named=("train_files.txt", "/data/"),
    ),
    Parser(
        name="split_lines_evo",
        modules=["splits", "dataload.datasets.evo"],
        place="split/train_files.txt",
        form="text",
        seeds=_split(f"a {1001:019d}\ns {1002:019d} 1 50 52.5 31.5 15.5\n"),
        read=partial(_read_split, Evo),
        around=_sequences,
        named=("train_files.txt", "/data/"),
    ),
    Parser(
        name="calibration_yaml",
        modules=["dataload.frames.calibration", "dataload.frames.yaml_file"],
        place="data/f/calibration.yaml",
        form="yaml",
        seeds=_calibrations,
        read=_sequence_with_camera,
        around=_sequences,
    ),
    *(
        Parser(
            name=f"camera_{name}",
            modules=["dataload.frames.calibration", "dataload.frames.yaml_file", "dataload.frames.camera_formats"],
            place="calibration.yaml",
            form="yaml",
            seeds=seeds,
            read=_read_camera,
        )
        for name, seeds in {"ros": _ros, "opencv": _opencv, "orb_slam": _orb_slam, "kalibr": _kalibr, "vins": _vins}.items()
    ),
    *(
        Parser(
            name=f"kitti_{name}",
            modules=["dataload.kitti.velodyne"],
            place=f"{name}.txt",
            form="text",
            seeds=_kitti_text(f"{name}.txt"),
            read=_read_kitti_calibration,
            around=_kitti_date,
        )
        for name in ("calib_cam_to_cam", "calib_velo_to_cam")
    ),
    Parser(
        name="velodyne_scan", modules=["dataload.kitti.velodyne"], place="0000000000.bin", seeds=_scan, read=_read_scan, around=_kitti_date
    ),
    Parser(
        name="kitti_zip",
        modules=["dataload.kitti.unpack", "dataload.system.zips"],
        place="drive.zip",
        form="zip",
        seeds=_kitti_zip,
        clears=["out"],
        read=lambda path: unpack(DRIVE, path, path.parent / "out", lambda: None),
        cheap=False,
        named=("",),
    ),
    Parser(
        name="kitti_marker",
        modules=["dataload.kitti.archives"],
        place=f"2011_09_26/{DRIVE.stem}/.md_download.json",
        form="json",
        seeds=_marker,
        read=lambda path: is_complete(path.parents[2], DRIVE),
    ),
    Parser(
        name="kitti_png", modules=["dataload.kitti.jpeg"], place="0000000000.png", form="png", seeds=_pngs, read=_convert_png, cheap=False
    ),
    Parser(
        name="demo_marker",
        modules=["dataload.demo.world"],
        place=world.MARKER,
        form="json",
        seeds=_world_marker,
        read=lambda path: world.ensure(path.parent),
        around=lambda folder: (folder / "drives").write_text(""),
        named=(world.MARKER, "demo world"),
    ),
    Parser(name="depth_png", modules=["dataload.frames.depth_file"], place="depth.png", form="png", seeds=_depth_pngs, read=_read_depth),
    Parser(
        name="depth_png_kitti",
        modules=["dataload.datasets.kitti_depth"],
        place="depth.png",
        form="png",
        seeds=_depth_pngs,
        read=read_depth_png,
    ),
    Parser(name="depth_tiff", modules=["dataload.frames.depth_file"], place="depth.tif", seeds=_depth_tiffs, read=_read_depth),
    Parser(
        name="depth_npy",
        modules=["dataload.frames.depth_file", "dataload.system.arrays"],
        place="depth.npy",
        form="npy",
        seeds=_depth_arrays,
        read=_read_depth,
    ),
    *(
        Parser(
            name=f"picture_{name}",
            modules=[
                "dataload.frames.picture",
                *(f"dataload.frames.{name}" for name in ("picture_header", "picture_bounds", "tiff_directory")),
            ],
            place=f"image.{name}",
            form=form,
            seeds=seeds,
            read=_look_at_picture,
            cheap=False,
        )
        for name, form, seeds in (
            ("png", "png", _pngs),
            ("jpg", "bytes", _jpegs),
            ("tif", "bytes", _tiffs),
            ("bmp", "bytes", _picture("BMP")),
            ("webp", "bytes", _picture("WEBP", save(SMALL, "WEBP", lossless=True), save(SMALL, "WEBP", exif=exif(6)))),
            ("ppm", "bytes", _picture("PPM", b"P3 2 1 255\n1 2 3\n4 5 6\n")),
            ("gif", "bytes", _picture("GIF")),
        )
    ),
    Parser(
        name="opened_image",
        modules=["export.prediction.given"],
        place="image.png",
        form="png",
        seeds=lambda: [*_pngs(), *_jpegs(), *_tiffs()],
        read=_pillow_image,
        cheap=False,
        is_file=False,
    ),
    Parser(
        name="poses_kitti",
        modules=["engine.odometry.trajectory"],
        place="poses/01.txt",
        form="text",
        seeds=_poses,
        read=lambda path: read_gt_poses(path.parents[1], 1),
    ),
    Parser(
        name="poses_predicted",
        modules=["engine.odometry.trajectory"],
        place="poses.txt",
        form="text",
        seeds=_poses,
        read=lambda path: read_motions(path, 6),
    ),
    Parser(
        name="poses_npy",
        modules=["engine.odometry.trajectory"],
        place="poses.npy",
        form="npy",
        seeds=lambda: [saved_npy(MOTIONS), saved_npy(MOTIONS.astype(np.float32))],
        read=lambda path: read_motions(path, 6),
    ),
    Parser(
        name="times",
        modules=["engine.odometry.trajectory"],
        place="sequences/01/times.txt",
        form="text",
        seeds=lambda: [_rows(6, lambda n: (0.1 * n,))],
        read=lambda path: timestamps_s(path.parents[2], 1, 6),
    ),
    Parser(
        name="ground_truth",
        modules=["dataload.ground_truth"],
        place="gt_depths.npz",
        form="zip",
        seeds=_ground_truth,
        read=_read_ground_truth,
    ),
    Parser(
        name="disps_npy",
        modules=["engine.evaluation.disp_files"],
        place="disps.npy",
        form="npy",
        seeds=lambda: [saved_npy(np.stack([DEPTH_M, DEPTH_M])), saved_npy(np.stack([DEPTH_M, DEPTH_M])[:, None].astype(np.float16))],
        read=_read_disps,
    ),
    Parser(
        name="disps_npz",
        modules=["engine.evaluation.disp_files"],
        place="disps.npz",
        form="zip",
        seeds=lambda: [saved_npz(DEPTH_M, DEPTH_M), saved_npz(DEPTH_M, DEPTH_M[:3], compressed=True)],
        read=_read_disps,
    ),
    Parser(
        name="frame_store",
        modules=["dataload.store.file"],
        place="folder-6x4-0123456789ab.frames",
        form="store",
        seeds=_store,
        read=_read_store,
        declared=(StoreFault,),
        named=("",),
    ),
)
