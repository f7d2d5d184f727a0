"""DepthModel: the numbers of md-predict to the bit, whatever form an image is given in, and what it refuses."""

import shutil
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from onnx_models import facts, save_onnx
from PIL import Image
from predicting import ORIGINAL_PX, SIZE_PX, names, run, save_image, save_model

from export import Depth, DepthModel
from export.commands.md_export import md_export
from splits import InputError

INTRINSICS = (100.0, 110.0, 60.0, 30.0)
K = np.array([[100, 0, 60], [0, 110, 30], [0, 0, 1]])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model in each of the forms that a model is kept in."""
    folder = tmp_path_factory.mktemp("models")
    run_folder = save_model(folder / "run", use_stereo=True)
    arguments = ["--load_weights_folder", str(run_folder), "--out", str(folder / "exported.onnx")]
    exported = CliRunner().invoke(md_export, arguments)
    assert exported.exit_code == 0, exported.output
    # As Monodepth2's: a folder of the zip's name with the weights in it.
    with zipfile.ZipFile(folder / "mine_96x64.zip", "w") as archive:
        for path in sorted((run_folder / "models" / "weights_0").iterdir()):
            archive.write(path, f"mine_96x64/{path.name}")
    return {
        "run": run_folder,
        "weights": run_folder / "models" / "weights_0",
        "file": run_folder / "models" / "weights_0" / "encoder.pth",
        "onnx": folder / "exported.onnx",
        "zip": folder / "mine_96x64.zip",
    }


@pytest.fixture(scope="module")
def model(models: dict[str, Path]) -> DepthModel:
    return DepthModel.load(models["run"], no_cuda=True)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eleven images, more than one batch, the last of another size."""
    folder = tmp_path_factory.mktemp("photos")
    found = [save_image(folder / f"{number:02d}.{'jpg' if number % 2 else 'png'}", number) for number in range(11)]
    Image.open(found[-1]).resize((50, 40)).save(found[-1])
    return found


def read_ply(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points and colours of a file of md-predict."""
    body = path.read_bytes().split(b"end_header\n", 1)[1]
    rows = np.frombuffer(body, [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    return rows["xyz"], rows["rgb"]


@pytest.mark.parametrize("form", ["run", "weights", "file", "onnx", "zip"])
def test_its_results_are_the_files_of_md_predict_to_the_bit(models: dict[str, Path], photos: list[Path], tmp_path: Path, form: str) -> None:
    shared = ("--image", photos[0].parent, "--model", models[form])
    formats = ("--format", "npy", "png16", "png", "ply", "--intrinsics", *INTRINSICS, "--colormap", "turbo")
    for arguments in ((*formats, "--out", tmp_path), ("--format", "npy", "--pred_metric_depth", "--out", tmp_path)):
        assert run(*shared, *arguments).exit_code == 0
    model = DepthModel.load(models[form], no_cuda=True)
    assert (model.size_px, model.unit_m) == (SIZE_PX, 5.4)
    depths = model.predict(photos)
    assert [depth.source for depth in depths] == photos
    for path, depth in zip(photos, depths, strict=True):
        stem = tmp_path / path.stem
        assert (depth.inv_depth.shape, depth.inv_depth.dtype, depth.depth.dtype, depth.depth_m.dtype) == (SIZE_PX, *3 * (np.float32,))
        np.testing.assert_array_equal(depth.inv_depth, np.load(f"{stem}_disp.npy")[0, 0])
        np.testing.assert_array_equal(depth.depth_m, np.load(f"{stem}_depth.npy")[0, 0])
        np.testing.assert_array_equal(depth.depth, 1 / np.load(f"{stem}_disp.npy")[0, 0])
        np.testing.assert_array_equal(np.asarray(depth.colorize("turbo")), np.asarray(Image.open(f"{stem}_disp.png")))
        np.testing.assert_array_equal(np.rint(depth.full_size_depth * 256), np.asarray(Image.open(f"{stem}_depth.png")))
        points, colours = read_ply(Path(f"{stem}.ply"))
        for camera in (INTRINSICS, list(INTRINSICS), K, K.tolist(), torch.tensor(K), torch.tensor(K.astype(float), requires_grad=True)):
            cloud = depth.point_cloud(camera)
            assert (cloud.points.dtype, cloud.in_metres) == (np.float32, True)
            np.testing.assert_array_equal(cloud.points, points)
            np.testing.assert_array_equal(cloud.colours, colours)


def test_every_form_of_an_image_is_the_same_image(model: DepthModel, photos: list[Path]) -> None:
    expected = model.predict(photos[0])
    assert isinstance(expected, Depth)
    pixels = np.asarray(Image.open(photos[0]))
    chw = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    forms = [str(photos[0]), Image.open(photos[0]), pixels, pixels[:, ::-1].copy()[:, ::-1], chw, chw / 255, (chw / 255).half()]
    for form in [*forms, (chw / 255).double().requires_grad_()]:
        depth = model.predict(form)
        np.testing.assert_array_equal(depth.inv_depth, expected.inv_depth)
        np.testing.assert_array_equal(depth.image, pixels)
        assert (depth.size_px, depth.unit_m) == (ORIGINAL_PX, 5.4)
        assert depth.colorize().size == ORIGINAL_PX[::-1]
    for forms in (pixels[None], chw[None], [pixels], (pixels,), iter([pixels])):
        (depth,) = model.predict(forms)
        np.testing.assert_array_equal(depth.inv_depth, expected.inv_depth)


def test_what_a_generator_yields_is_predicted_as_it_was_then(model: DepthModel, photos: list[Path]) -> None:
    """One buffer that is filled again and again, as a camera's; pictures that are closed at the next turn."""
    expected = model.predict(photos[:4])
    buffer = np.empty((*ORIGINAL_PX, 3), np.uint8)
    channels_first = torch.from_numpy(buffer).permute(2, 0, 1)

    def refilled(form: object) -> Iterator[object]:
        for path in photos[:4]:
            buffer[:] = np.asarray(Image.open(path))
            yield form

    def closed() -> Iterator[Image.Image]:
        for path in photos[:4]:
            with Image.open(path) as image:
                yield image

    for given in (refilled(buffer), refilled(channels_first), closed()):
        for depth, path, other in zip(model.predict(given), photos, expected, strict=False):
            np.testing.assert_array_equal(depth.inv_depth, other.inv_depth)
            np.testing.assert_array_equal(depth.image, np.asarray(Image.open(path)))


def test_one_picture_given_many_times_is_read_once_at_a_time(model: DepthModel, tmp_path: Path) -> None:
    """A file that Pillow has opened, not yet read, is read by whoever needs it first."""
    Image.open(save_image(tmp_path / "a.png")).resize((2000, 1500)).save(tmp_path / "a.jpg")
    pixels = np.asarray(Image.open(tmp_path / "a.jpg"))
    for _ in range(3):
        for depth in model.predict([Image.open(tmp_path / "a.jpg")] * 8):
            np.testing.assert_array_equal(depth.image, pixels)


def test_arrays_of_paths_and_of_images_of_several_sizes_are_lists(model: DepthModel, photos: list[Path]) -> None:
    expected = model.predict(photos[:2])
    sizes = np.empty(2, object)
    sizes[:] = [np.asarray(Image.open(photos[0])), Image.open(photos[1])]
    for given in (np.array([str(photos[0]), str(photos[1])]), np.array(photos[:2], object), sizes):
        for depth, other in zip(model.predict(given), expected, strict=True):
            np.testing.assert_array_equal(depth.inv_depth, other.inv_depth)


def test_a_list_may_hold_all_forms_and_sizes(model: DepthModel, photos: list[Path]) -> None:
    pictures = [np.asarray(Image.open(path)) for path in photos]
    batch = np.stack(pictures[2:4])
    mixed = [str(photos[0]), torch.from_numpy(pictures[1].copy()).permute(2, 0, 1), batch, Image.open(photos[4]), pictures[10]]
    depths = model.predict(mixed, batch_size=1)
    expected = [model.predict(pictures[number]) for number in (0, 1, 2, 3, 4, 10)]
    for depth, other in zip(depths, expected, strict=True):
        np.testing.assert_array_equal(depth.inv_depth, other.inv_depth)
        np.testing.assert_array_equal(depth.image, other.image)


def test_the_batch_size_changes_no_more_than_rounding(model: DepthModel, photos: list[Path]) -> None:
    alone, together = model.predict(photos, batch_size=1), model.predict(photos, batch_size=100)
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_allclose(a.inv_depth, b.inv_depth, rtol=1e-5)


def test_a_picture_is_upright_as_its_exif_says(model: DepthModel, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    Image.open(save_image(tmp_path / "a.png")).save(path, exif=exif, quality=95)
    depth, opened = model.predict([path, Image.open(path)])
    assert depth.size_px == opened.size_px == ORIGINAL_PX[::-1]
    np.testing.assert_array_equal(depth.inv_depth, opened.inv_depth)
    np.testing.assert_array_equal(depth.image, opened.image)


def test_a_mono_model_knows_no_metres(tmp_path: Path) -> None:
    model = DepthModel.load(save_onnx(tmp_path / "mono.onnx", facts()))
    assert (model.unit_m, repr(model)) == (None, "DepthModel(64x32, unknown unit)")
    depth = model.predict(save_image(tmp_path / "a.jpg"))
    with pytest.raises(InputError, match=r"^depth_m needs a model that knows metres: .* or depth, which is in the network's own unit$"):
        _ = depth.depth_m
    assert not depth.point_cloud(INTRINSICS).in_metres
    np.testing.assert_array_equal(depth.depth, 1 / depth.inv_depth)


def test_an_onnx_file_of_others_is_told_what_it_gives(tmp_path: Path) -> None:
    image = save_image(tmp_path / "a.jpg")
    path = save_onnx(tmp_path / "foreign.onnx", None, size_px=("h", "w"))
    model = DepthModel.load(path, onnx_output="disp", min_depth=0.5, max_depth=50, height=32, width=64)
    told = ("--onnx_output", "disp", "--min_depth", 0.5, "--max_depth", 50, "--height", 32, "--width", 64)
    assert run("--image", image, "--model", path, *told).exit_code == 0
    np.testing.assert_array_equal(model.predict(image).inv_depth, np.load(tmp_path / "a_disp.npy")[0, 0])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "images is empty; give one image or more"),
        (np.zeros((0, 8, 8, 3), np.uint8), "images is empty; give one image or more"),
        (7, "images is of type int; give a path, a PIL image, a uint8 array (H, W, 3), a torch tensor"),
        ([None], "images[0] is of type NoneType; give a path"),
        (np.zeros((8, 8, 3), np.float32), "images is an array float32 (8, 8, 3); give uint8 levels, 0 to 255 (of floats in 0..1:"),
        (np.zeros((8, 8, 4), np.uint8), "images is an array uint8 (8, 8, 4); give (H, W, 3), RGB"),
        (np.zeros((3, 8, 8), np.uint8), "images is an array uint8 (3, 8, 8); give (H, W, 3), RGB; transpose(1, 2, 0) turns it so"),
        (np.zeros((8, 8), np.uint8), "images is an array uint8 (8, 8); give (H, W, 3), RGB"),
        (np.zeros((0, 8, 3), np.uint8), "images is an array uint8 (0, 8, 3); give (H, W, 3), RGB"),
        (torch.zeros(8, 8, 3), "images is a tensor float32 (8, 8, 3); give (3, H, W), RGB; permute(2, 0, 1) turns it so"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "images is a tensor int64 (3, 8, 8); give uint8 levels, 0 to 255, or floats in 0..1"),
        ([torch.full((3, 8, 8), -0.5)], "images[0] is a tensor float32 (3, 8, 8) with values from -0.5 to -0.5; floats must be in 0..1"),
        (
            torch.full((1, 3, 8, 8), torch.nan),
            "images[0] is a tensor float32 (3, 8, 8) with values from nan to nan; floats must be in 0..1",
        ),
        (torch.full((3, 8, 8), 255.0), "with values from 255 to 255; floats must be in 0..1: undo what normalised them"),
        (Image.new("F", (8, 8)), "images cannot be read as an image: floating-point values have no fixed white"),
        (Image.new("RGB", (0, 8)), "images cannot be read as an image: it is 0 x 8 pixels; leave it out"),
        ({"a": "a.jpg"}, "images is of type dict; give a path"),
        (b"a.jpg", "images is of type bytes; give a path"),
        (BytesIO(b"a"), "images is of type BytesIO; give a path"),
        (str(Path(__file__).parent), "export is a folder; give its files, for example sorted(Path("),
        ("a\0.jpg", "a\\x00.jpg is not an image (embedded null byte)"),
        ("nowhere/a.jpg", r"cannot read nowhere/a.jpg (No such file or directory)"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_image_is_refused_with_the_remedy(model: DepthModel, images: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        model.predict(images)
    assert message in str(caught.value)


def test_a_picture_that_was_closed_unread_is_refused(model: DepthModel, photos: list[Path]) -> None:
    with Image.open(photos[0]) as image:
        pass
    with pytest.raises(InputError, match=r"^images was closed before it was read; give it within its with block, or give its path$"):
        model.predict(image)


@pytest.mark.parametrize(
    ("camera", "message"),
    [
        ((1, 1, 0), "K has the shape (3,); give (fx, fy, cx, cy) or a matrix (3, 3)"),
        (np.eye(4), "K has the shape (4, 4); give"),
        ((0, 1, 0, 0), "K 0 1 0 0: all must be finite, and the focal lengths FX and FY above 0 pixels"),
        ((1, 1, np.nan, 0), "K 1 1 nan 0: all must be finite"),
        ([[1, 0.5, 0], [0, 1, 0], [0, 0, 1]], "K must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]"),
        (np.diag([1, 1, 2]), "K must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]"),
        ("abcd", "K holds something else than numbers"),
    ],
)
def test_what_is_no_camera_is_refused(model: DepthModel, photos: list[Path], camera: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        model.predict(photos[0]).point_cloud(camera)
    assert message in str(caught.value)


def test_a_file_that_changed_since_is_no_source_of_colours(model: DepthModel, tmp_path: Path) -> None:
    depth = model.predict(save_image(tmp_path / "a.png"))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a.png has another size than when it was predicted; predict it again"):
        depth.point_cloud(INTRINSICS)
    with pytest.raises(InputError, match="colormap=jet is unknown; choose from magma, inferno"):
        depth.colorize("jet")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"amp": "fp64"}, "amp=fp64 is unknown; choose from auto, off, bf16, fp16"),
        ({"provider": "cpu"}, "--provider is for ONNX files"),
        ({"provider": "gpu"}, "provider=gpu is unknown; choose from auto, cpu, cuda, tensorrt"),
        ({"height": 64}, "--height and --width go together"),
        ({"height": 64, "width": 100}, "width=100 must be a multiple of 32"),
        ({"height": 64, "width": 128}, "was trained at 96x64, as it records"),
    ],
)
def test_options_that_do_not_fit_are_refused(models: dict[str, Path], options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DepthModel.load(models["run"], **options)


def test_a_model_that_is_not_there_and_a_batch_size_of_none(model: DepthModel, photos: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nor a released model of that name; did you mean mono_640x192\?"):
        DepthModel.load("mono_640x19")
    with pytest.raises(InputError, match=r"^model a{300} cannot be opened: a{300}.*: File name too long; no disk takes such a name"):
        DepthModel.load("a" * 300)
    with pytest.raises(InputError, match=r"^model=None must be a name or a path$"):
        DepthModel.load(None)
    with pytest.raises(InputError, match="batch_size=0 must be at least 1"):
        model.predict(photos, batch_size=0)
    for size in (2.5, "8", None, True):
        with pytest.raises(InputError, match=f"^batch_size={size!r} must be a whole number$"):
            model.predict(photos, batch_size=size)
    assert len(model.predict(photos[:2], batch_size=np.int64(1))) == 2
    shutil.copy(photos[0], tmp_path / "photo.png")
    assert names(tmp_path) == ["photo.png"], "predicting writes nothing"
