"""The parsers of recordings and videos: containers, their descriptions, messages, what an interrupted conversion left."""

import json
import tarfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import bags
import numpy as np
from parser_entry import Parser
from tiny_files import made_by

from dataload.bags.convert import convert
from dataload.bags.formats.container import CDR, ROS1, Damage, Topic
from dataload.bags.formats.reading import Bag, parse
from dataload.bags.listing import describe
from dataload.bags.messages import camera_info, depth, images, points, transforms
from dataload.bags.messages.images import BadFrame
from dataload.bags.options import ConvertOptions
from dataload.footage.video_frames import FrameOptions, extract
from dataload.footage.video_reader import Damage as VideoDamage
from dataload.footage.video_reader import decode_frames, open_video

SIZE_PX = (16, 24)
LEFT, RIGHT = "/left/image_rect_color", "/right/image_rect_color"
K = np.array([[20.0, 0, 12], [0, 20, 8], [0, 0, 1]])
POINTS = np.array([(0.3 * n - 1, 0.1 * n, 4 + n) for n in range(8)], np.float64)
LEVELS = (np.indices(SIZE_PX).sum(0) * 90 + 500).astype(np.uint16)


def _messages() -> list[bags.Msg]:
    made = [
        bags.camera_info("/left/camera_info", K, SIZE_PX),
        bags.camera_info("/right/camera_info", K, SIZE_PX, baseline_m=0.5, frame_id="right_optical"),
        bags.static_transform("left_optical", "lidar", (0, 0, 0, 1), (0, 0, 0)),
    ]
    for number in range(2):
        stamp = bags.START_NS + number * bags.PERIOD_NS
        picture = bags.picture(SIZE_PX, number)
        made.append(bags.compressed(f"{LEFT}/compressed", bags.jpeg(picture), stamp))
        made.append(bags.image(RIGHT, picture, "rgb8", stamp, frame_id="right_optical"))
        made.append(bags.image("/depth/depth_registered", LEVELS, "16UC1", stamp))
        made.append(bags.cloud("/points", POINTS, stamp))
    return made


@cache
def _written(form: str) -> Sequence[tuple[str, bytes]]:
    """The files of a recording, by their names below its folder."""
    with TemporaryDirectory() as folder:
        path = bags.write_bag(Path(folder), "drive", form, _messages())
        files = [path] if path.is_file() else sorted(path.iterdir())
        return [(file.name, file.read_bytes()) for file in files]


def _seeds(form: str, ending: str) -> Callable[[], list[bytes]]:
    return lambda: [data for name, data in _written(form) if name.endswith(ending)]


def _lay(form: str, folder: Path) -> None:
    """A recording of several files, of which one is read in other forms."""
    (folder / "drive").mkdir(exist_ok=True)
    for name, data in _written(form):
        (folder / "drive" / name).write_bytes(data)


def _scan(path: Path) -> object:
    """Every message of a recording, as it is listed and converted; what cannot be read is counted."""
    with Bag(path) as bag:
        contents = bag.scan()
        for track in contents.tracks.values():
            for number in range(min(len(track.places), 20)):
                with suppress(Damage):
                    bag.message(track, number)
    return contents.damage, describe(path, ConvertOptions())


def _scan_folder(path: Path) -> object:
    return _scan(path.parent)


def _convert(path: Path) -> object:
    return convert(path, path.parent / "out" / "drive", ConvertOptions(), progress=False)


def _convert_after(path: Path) -> object:
    """Where an interrupted conversion left its marker."""
    return convert(path.parents[2] / "drive.bag", path.parent, ConvertOptions(), progress=False)


def _lay_bag(folder: Path) -> None:
    (folder / "drive.bag").write_bytes(_written("bag")[0][1])


def _marker() -> list[bytes]:
    from dataload.footage.identity import identify

    with TemporaryDirectory() as folder:
        _lay_bag(Path(folder))
        bag = Path(folder) / "drive.bag"
        return [json.dumps({"options": ConvertOptions().settings(), "recording": identify(bag, [bag])}).encode()]


# --- messages


def _raw(message: bags.Msg, *, ros1: bool) -> bytes:
    store = bags._store(ros1)
    made = bags._make(store, message.msgtype, message.fields, ros1)
    return bytes((store.serialize_ros1 if ros1 else store.serialize_cdr)(made, message.msgtype))


STAMP = bags.START_NS


def _message(name: str, make: Callable[[], Sequence[bags.Msg]], use: Callable[[Any], object]) -> list[Parser]:
    """The same messages in both serialisations, each through what the converter does with it."""
    found = []
    for ros1 in (False, True):

        def read(path: Path, ros1: bool = ros1) -> object:
            first = make()[0]
            return use(parse(Topic("/topic", first.msgtype, ROS1 if ros1 else CDR), path.read_bytes()))

        found.append(
            Parser(
                name=f"message_{name}_{'ros1' if ros1 else 'cdr'}",
                modules=[f"dataload.bags.messages.{MODULE_OF[name]}"],
                place="message",
                read=read,
                seeds=partial(lambda ros1: [_raw(message, ros1=ros1) for message in make()], ros1),
                declared=(Damage, BadFrame),
                named=("/topic",),
                is_file=False,
            )
        )
    return found


MODULE_OF = {
    "image": "images",
    "compressed": "images",
    "depth": "depth",
    "compressed_depth": "depth",
    "camera_info": "camera_info",
    "points": "points",
    "transforms": "transforms",
}


def _use_image(message: Any) -> object:
    images.require_pictures(message, "/topic")
    return images.size_of(message), images.as_jpeg(message), images.largest_value(message, "/topic"), images.decode(message, "/topic", 12)


def _use_depth(message: Any) -> object:
    return depth.size_of(message, "/topic"), depth.levels(depth.decode(message, "/topic"))


def _use_camera(message: Any) -> object:
    return camera_info.from_message(message, topic="/topic", image_topic="/image", size_px=SIZE_PX, frame_id="").intrinsics


def _use_points(message: Any) -> object:
    camera = camera_info.from_numbers((20.0, 20.0, 12.0, 8.0), size_px=SIZE_PX, frame_id="")
    return points.project(points.xyz_of(message, "/topic"), np.eye(4), camera)


def _use_transforms(message: Any) -> object:
    tree = transforms.tree_of([message])
    return [transforms.between(tree, a, b) for a, b in tree]


def _images() -> list[bags.Msg]:
    picture = bags.picture(SIZE_PX)
    grey = picture[..., 0]
    kinds = [
        (picture, "rgb8"),
        (grey, "mono8"),
        (LEVELS, "mono16"),
        (grey, "bayer_rggb8"),
        (picture[..., :2], "yuv422"),
        (LEVELS, "bayer_grbg12"),
    ]
    return [bags.image("/topic", pixels, encoding, STAMP) for pixels, encoding in kinds]


def _compressed() -> list[bags.Msg]:
    picture = bags.picture(SIZE_PX)
    wide = np.repeat(LEVELS[..., None], 3, 2)
    import cv2

    coloured = cv2.imencode(".png", wide)[1].tobytes()
    kinds = [
        (bags.jpeg(picture), "jpeg"),
        (bags.png(picture), "rgb8; png compressed bgr8"),
        (bags.png(LEVELS), "mono16; png compressed "),
        (coloured, "rgb16; png compressed rgb16"),
        (bags.jpeg(picture[..., 0]), "bayer_rggb8; jpeg compressed bayer_rggb8"),
    ]
    return [bags.compressed("/topic", data, STAMP, form=form) for data, form in kinds]


def _depths() -> list[bags.Msg]:
    return [bags.image("/topic", LEVELS, "16UC1", STAMP), bags.image("/topic", LEVELS.astype(np.float32), "32FC1", STAMP, padding=3)]


def _compressed_depths() -> list[bags.Msg]:
    import struct

    return [
        bags.compressed("/topic", struct.pack("<iff", 0, 100.0, 1.0) + bags.png(LEVELS), STAMP, form=form)
        for form in ("16UC1; compressedDepth png", "32FC1; compressedDepth png")
    ]


def _cameras() -> list[bags.Msg]:
    return [
        bags.camera_info("/topic", K, SIZE_PX, D=(0.1, 0.01, 0, 0, 0)),
        bags.camera_info("/topic", K, SIZE_PX, roi=(0, 0, 16, 24)),
        bags.camera_info("/topic", K, SIZE_PX, model="equidistant", D=(0.1, 0, 0, 0)),
    ]


# --- videos


def _video(ending: str, codec: str, pix_fmt: str) -> list[bytes]:
    def write(path: Path) -> None:
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=10)
            stream.width, stream.height, stream.pix_fmt = 32, 16, pix_fmt
            for number in range(6):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((16, 32, 3), 40 * number, np.uint8), format="rgb24")))
            container.mux(stream.encode(None))

    return made_by(write, f"video.{ending}")


def _read_video(path: Path) -> object:
    damage, count = VideoDamage(), 0
    with open_video(str(path), str(path)) as container:
        for frame in decode_frames(container, damage, from_s=0.2):
            frame.upright_pixels()
            count += 1
            if count == 20:
                break
    return count, str(damage)


def _extract(path: Path) -> object:
    return extract("video", path, path.parent / "out", FrameOptions())


def _extract_again(path: Path) -> object:
    """Where an earlier conversion left its marker."""
    return extract(path.parent.name, path.parents[2] / "video.avi", path.parents[1], FrameOptions())


def _lay_video(folder: Path) -> None:
    (folder / "video.avi").write_bytes(_video("avi", "mjpeg", "yuvj420p")[0])


def _video_marker() -> list[bytes]:
    with TemporaryDirectory() as folder:
        _lay_video(Path(folder))
        extract("s", Path(folder) / "video.avi", Path(folder) / "out", FrameOptions())
        return [(Path(folder) / "out" / "s" / "video.json").read_bytes()]


def _npm_archive() -> list[bytes]:
    from export.targets.web import NEEDED

    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name in NEEDED:
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = 8
            archive.addfile(entry, BytesIO(b"content\n"))
    return [out.getvalue()]


CHUNKED, READING = "dataload.bags.formats.chunked_file", "dataload.bags.formats.reading"
PARSERS = (
    *(
        Parser(
            name=name,
            modules=[CHUNKED, READING, *more],
            place=f"drive{ending}",
            seeds=_seeds(name, ending),
            read=_scan,
            declared=(Damage,),
            cheap=False,
        )
        for name, ending, *more in (
            ("bag", ".bag", "dataload.bags.formats.ros1_file"),
            ("bag_lz4", ".bag", "dataload.bags.formats.container"),
            ("bag_bz2", ".bag"),
            ("mcap", ".mcap", "dataload.bags.formats.mcap_file"),
            ("mcap_zstd", ".mcap"),
            ("db3", ".db3", "dataload.bags.formats.sqlite_file"),
        )
    ),
    *(
        Parser(
            name=f"folder_{name}",
            modules=[READING, "dataload.bags.formats.container"],
            place=f"drive/{file}",
            seeds=_seeds(name, ending),
            form=form,
            read=_scan_folder,
            around=partial(_lay, name),
            declared=(Damage,),
            cheap=False,
            named=("drive",),
        )
        for name, file, ending, form in (
            ("db3_message", "drive.db3", ".db3", "bytes"),
            ("db3_file", "drive.db3.zstd", ".zstd", "bytes"),
            ("mcap_message", "drive.mcap", ".mcap", "bytes"),
            ("db3", "metadata.yaml", ".yaml", "yaml"),
        )
    ),
    *(
        Parser(
            name=f"convert_{name}",
            modules=["dataload.bags.convert"],
            place=f"drive.{name}",
            seeds=_seeds(name, f".{name}"),
            read=_convert,
            clears=["out"],
            cheap=False,
            named=("",),
        )
        for name in ("bag", "mcap", "db3")
    ),
    Parser(
        name="bag_marker",
        modules=["dataload.bags.convert"],
        place="out/drive/.converting.json",
        form="json",
        seeds=_marker,
        read=_convert_after,
        around=_lay_bag,
        clears=["out"],
        cheap=False,
        named=("/out/",),
    ),
    *_message("image", _images, _use_image),
    *_message("compressed", _compressed, _use_image),
    *_message("depth", _depths, _use_depth),
    *_message("compressed_depth", _compressed_depths, _use_depth),
    *_message("camera_info", _cameras, _use_camera),
    *_message(
        "points",
        lambda: [bags.cloud("/topic", POINTS, STAMP), bags.cloud("/topic", POINTS, STAMP, big_endian=True, row_padding=5)],
        _use_points,
    ),
    *_message("transforms", lambda: [bags.static_transform("a", "b", (0, 0, 0.6, 0.8), (1, 2, 3))], _use_transforms),
    *(
        Parser(
            name=f"video_{ending}",
            modules=["dataload.footage.video_reader"],
            place=f"video.{ending}",
            form="mp4" if ending == "mp4" else "bytes",
            seeds=partial(_video, ending, codec, pix_fmt),
            read=_read_video,
            cheap=False,
        )
        for ending, codec, pix_fmt in (("mp4", "libx264", "yuv420p"), ("avi", "mjpeg", "yuvj420p"), ("mkv", "mpeg4", "yuv420p"))
    ),
    Parser(
        name="extract_mp4",
        modules=["dataload.footage.video_frames"],
        place="video.mp4",
        form="mp4",
        seeds=partial(_video, "mp4", "libx264", "yuv420p"),
        read=_extract,
        clears=["out"],
        cheap=False,
    ),
    Parser(
        name="video_marker",
        modules=["dataload.footage.video_frames"],
        place="out/s/video.json",
        form="json",
        seeds=_video_marker,
        read=_extract_again,
        around=_lay_video,
        named=("/out/",),
        cheap=False,
    ),
    Parser(
        name="npm_archive", modules=["export.targets.web"], place="onnxruntime-web.tgz", seeds=_npm_archive, read=lambda path: _dist(path)
    ),
)


def _dist(path: Path) -> object:
    from export.targets.web import _from_archive

    return _from_archive(path)
