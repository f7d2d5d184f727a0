"""DepthSession: what it predicts of each kind of file, which provider it takes, and what it refuses."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import SIZE_PX, facts, images_of, result_of, save_onnx
from PIL import Image

from export import AssumedFacts, DepthModel
from export.runtime import onnx_file
from export.session import KEPT_SHAPES, MAX_BATCH, DepthSession
from splits.errors import InputError


@pytest.mark.parametrize(
    ("output", "factor", "inv_depth", "depth"),
    [
        ("inv_depth", None, lambda raw: raw, lambda raw: 1 / raw),
        ("inv_depth", 5.4, lambda raw: raw, lambda raw: 5.4 / raw),
        ("disp", 5.4, lambda raw: 0.02 + 1.98 * raw, lambda raw: 5.4 / (0.02 + 1.98 * raw)),
        ("depth", None, lambda raw: 1 / raw, lambda raw: raw),
        ("depth_m", 5.4, lambda raw: 5.4 / raw, lambda raw: raw),
    ],
)
def test_every_output_becomes_inverse_depth_and_depth(tmp_path: Path, output, factor, inv_depth, depth) -> None:
    known = facts(output=output, metric_factor=factor, min_depth=0.5, max_depth=50.0, training="stereo" if factor else "mono")
    session = DepthSession(save_onnx(tmp_path / "a.onnx", known), "cpu")
    assert (session.facts, session.size_px, session.provider) == (known, SIZE_PX, "cpu")
    images = images_of(2)
    for found, expected in ((session.inv_depth(images), inv_depth), (session.predict(images), depth)):
        assert (found.shape, found.dtype) == ((2, *SIZE_PX), np.float32)
        np.testing.assert_allclose(found, expected(result_of(images)), rtol=1e-5)


def test_a_depth_of_zero_is_infinitely_near_without_a_warning(tmp_path: Path) -> None:
    model = onnx.load(save_onnx(tmp_path / "a.onnx", facts(output="depth")))
    (offset,) = (tensor for tensor in model.graph.initializer if tensor.name == "offset")
    offset.CopyFrom(numpy_helper.from_array(np.float32(0), "offset"))
    onnx.save_model(model, tmp_path / "a.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isinf(DepthSession(tmp_path / "a.onnx", "cpu").inv_depth(np.zeros((1, *SIZE_PX, 3), np.uint8))).all()


def test_results_are_not_overwritten_by_the_next_run(tmp_path: Path) -> None:
    session = DepthSession(save_onnx(tmp_path / "a.onnx", facts()), "cpu")
    first = session.inv_depth(images_of(1))
    kept = first.copy()
    session.warm_up()
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("count", [0, 1, 4, 5])
def test_a_fixed_batch_is_split_and_filled(tmp_path: Path, count: int) -> None:
    session = DepthSession(save_onnx(tmp_path / "a.onnx", facts(), batch=4), "cpu")
    images = images_of(count)
    found = session.inv_depth(images)
    assert found.shape == (count, *SIZE_PX)
    np.testing.assert_allclose(found, result_of(images), rtol=1e-5)


def test_an_open_batch_is_run_in_parts(tmp_path: Path) -> None:
    session = DepthSession(save_onnx(tmp_path / "a.onnx", facts()), "cpu")
    images = images_of(2 * MAX_BATCH + 3)
    np.testing.assert_allclose(session.inv_depth(images), result_of(images), rtol=1e-5)


def test_preprocessing_takes_any_size_and_dynamic_sizes_multiples_of_32(tmp_path: Path) -> None:
    known = facts(preprocessing=True)
    whole = DepthSession(save_onnx(tmp_path / "a.onnx", known, size_px=("h", "w"), batch=1, takes_bytes=True), "cpu")
    images = images_of(2, (2 * SIZE_PX[0], 2 * SIZE_PX[1]))
    assert whole.predict(images).shape == (2, *SIZE_PX)
    even = np.full((2, 75, 99, 3), 51, np.uint8)
    np.testing.assert_allclose(whole.inv_depth(even), 0.3, rtol=1e-5)
    dynamic = DepthSession(save_onnx(tmp_path / "b.onnx", facts(dynamic_size=True), size_px=("h", "w")), "cpu")
    # More shapes than buffers are kept of, and each of them again.
    for side in [*range(32, 32 * (KEPT_SHAPES + 3), 32)] * 2:
        images = images_of(1, (32, side))
        np.testing.assert_allclose(dynamic.inv_depth(images), result_of(images), rtol=1e-5)
    np.testing.assert_array_equal(dynamic.inv_depth(images_of(1, (33, 64))), dynamic.inv_depth(resized(images_of(1, (33, 64)))))


def resized(images: np.ndarray) -> np.ndarray:
    """As md-predict resizes them."""
    return np.stack([np.asarray(Image.fromarray(image).resize(SIZE_PX[::-1], Image.Resampling.LANCZOS)) for image in images])


@pytest.mark.parametrize("size_px", [(480, 640), (64, 32), (17, 1)])
@pytest.mark.parametrize("batch", ["batch", 2])
def test_camera_frames_of_another_size_are_resized_as_md_predict_does(tmp_path: Path, size_px: tuple[int, int], batch: int | str) -> None:
    session = DepthSession(save_onnx(tmp_path / "a.onnx", facts(metric_factor=5.4, training="stereo"), batch=batch), "cpu")
    frames = images_of(3, size_px)
    # A frame of a wider picture, whose rows do not lie one after the other.
    for given in (frames, np.concatenate([frames, frames], axis=2)[:, :, : size_px[1]]):
        np.testing.assert_array_equal(session.inv_depth(given), session.inv_depth(resized(frames)))
        np.testing.assert_array_equal(session.predict(given), session.predict(resized(frames)))
    model = DepthModel.load(tmp_path / "a.onnx", provider="cpu")
    for depth, found in zip(model.predict(frames), session.inv_depth(frames), strict=True):
        np.testing.assert_array_equal(depth.inv_depth, found)


def test_frames_of_the_networks_size_are_not_copied(tmp_path: Path) -> None:
    for name, known, size_px in [
        ("a", facts(), SIZE_PX), ("b", facts(dynamic_size=True), (64, 96)), ("c", facts(preprocessing=True), (75, 99)),
    ]:  # fmt: skip
        shape = SIZE_PX if name == "a" else ("h", "w")
        session = DepthSession(save_onnx(tmp_path / f"{name}.onnx", known, size_px=shape, takes_bytes=name == "c"), "cpu")
        frames = images_of(2, size_px)
        assert session._fitted(frames) is frames


def test_images_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    session = DepthSession(save_onnx(tmp_path / "a.onnx", facts()), "cpu")
    with pytest.raises(InputError, match=r"images are \(1, 0, 64, 3\) and hold no pixel; give uint8"):
        session.predict(images_of(1, (0, 64)))
    with pytest.raises(InputError, match=r"images are float32 \(1, 32, 64, 3\); give uint8 \(B,H,W,3\), RGB"):
        session.predict(images_of(1).astype(np.float32))
    with pytest.raises(InputError, match=r"images are of type list; give an array, uint8 \(B,H,W,3\), RGB"):
        session.predict(list(images_of(1)))
    with pytest.raises(InputError, match=r"images are uint8 \(32, 64, 3\); give"):
        session.predict(images_of(1)[0])


def test_a_graph_that_belies_its_facts_is_named(tmp_path: Path) -> None:
    session = DepthSession(str(save_onnx(tmp_path / "a.onnx", facts(height_px=64))), "cpu")
    with pytest.raises(InputError, match=r"a.onnx failed on cpu with images \(1, 64, 64, 3\) \(.*\); try another provider"):
        session.predict(images_of(1, (64, 64)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a.onnx is empty \(0 bytes\); copy or export it again"),
        (b"plain text, no protobuf", r"a.onnx is damaged or no ONNX file \(Protobuf parsing failed\); copy or export it again"),
        ("cut", r"a.onnx is damaged or no ONNX file \(Protobuf parsing failed\)"),
        ("opset", r"a.onnx is of a version of ONNX that onnxruntime .* does not know \(Opset 99\); pip install -U onnxruntime, or export"),
        ("folder", r"a.onnx is a folder; give the ONNX file in it"),
        ("none", r"a.onnx does not exist; name an ONNX file"),
        ("pose", r"a.onnx is a pose network; give the depth network that was exported beside it"),
        ("newer", r"a.onnx was exported by another version"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, content: bytes | str, message: str) -> None:
    path = tmp_path / "a.onnx"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "folder":
        path.mkdir()
    elif content != "none":
        known = facts(kind="pose") if content == "pose" else facts()
        whole = save_onnx(path, known, opset=99 if content == "opset" else 18).read_bytes()
        if content == "cut":
            path.write_bytes(whole[: len(whole) // 2])
        elif content == "newer":
            path.write_bytes(whole.replace(b"md_engine.format\x12\x011", b"md_engine.format\x12\x017"))
    with pytest.raises(InputError, match=message):
        DepthSession(path)


def test_a_foreign_file_asks_for_what_is_missing_and_no_more(tmp_path: Path) -> None:
    fixed = save_onnx(tmp_path / "fixed.onnx", None)
    asked = r"was not written by md-export, so it does not record what it predicts; add --onnx_output disp\|inv_depth\|depth \(disp is a "
    for path, assumed, message in [
        (fixed, None, asked + r"sigmoid's, and needs --min_depth and --max_depth\)$"),
        (fixed, AssumedFacts(output="disp"), "add --min_depth, --max_depth$"),
        (fixed, AssumedFacts(output="disp", max_depth=100), "add --min_depth$"),
        (
            fixed,
            AssumedFacts(output="depth", size_px=(64, 64)),
            r"takes images of 32x64 \(height x width\) alone; leave out --height and --width",
        ),
        (
            save_onnx(tmp_path / "open.onnx", None, size_px=("h", "w")),
            AssumedFacts(output="depth"),
            "add --height and --width of its training",
        ),
        (
            save_onnx(tmp_path / "ours.onnx", facts()),
            AssumedFacts(output="disp", size_px=SIZE_PX),
            "leave out --onnx_output --height --width",
        ),
    ]:
        with pytest.raises(InputError, match=message):
            DepthSession(path, "cpu", assumed)


@pytest.mark.parametrize(("takes_bytes", "size_px"), [(False, SIZE_PX), (True, SIZE_PX), (False, ("h", "w")), (True, (32, "w"))])
def test_a_foreign_file_is_fed_by_its_inputs_type_and_shape(tmp_path: Path, takes_bytes: bool, size_px) -> None:
    path = save_onnx(tmp_path / "a.onnx", None, takes_bytes=takes_bytes, size_px=size_px, more_outputs=0 if takes_bytes else 2)
    session = DepthSession(
        path, "cpu", AssumedFacts(output="disp", min_depth=0.5, max_depth=50, size_px=None if size_px == SIZE_PX else SIZE_PX)
    )
    images = images_of(3)
    np.testing.assert_allclose(session.inv_depth(images), 0.02 + 1.98 * result_of(images), rtol=1e-5)
    np.testing.assert_allclose(session.predict(images), 1 / (0.02 + 1.98 * result_of(images)), rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"output": "metres"}, "onnx_output=metres is unknown; choose from disp, inv_depth, depth"),
        ({"output": "depth", "min_depth": 1.0}, "--onnx_output depth has no range; leave out --min_depth"),
        ({"output": "disp", "min_depth": 0.0, "max_depth": 1.0}, "min_depth=0.0 must be above 0"),
        ({"output": "disp", "min_depth": 9.0, "max_depth": 1.0}, "min_depth=9 must be below max_depth=1"),
        ({"output": "depth", "size_px": (0, 32)}, "height=0 must be above 0"),
    ],
)
def test_assumptions_that_make_no_sense(given, message: str) -> None:
    with pytest.raises(InputError, match=message):
        AssumedFacts(**given)


@pytest.mark.parametrize(
    ("channels", "kind", "message"),
    [
        (4, TensorProto.FLOAT, r"takes image tensor\(float\) \[1, 4, 8, 8\]; a depth network takes one image, float"),
        (3, TensorProto.UINT8, r"gives result tensor\(uint8\) \[1, 3, 8, 8\]; a depth network gives one float map"),
    ],
)
def test_a_graph_that_is_no_depth_network(tmp_path: Path, channels: int, kind: int, message: str) -> None:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, channels, 8, 8])
    result = helper.make_tensor_value_info("result", kind, [1, channels, 8, 8])
    graph = helper.make_graph([helper.make_node("Cast", ["image"], ["result"], to=kind)], "cast", [image], [result])
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(tmp_path / "a.onnx"))
    with pytest.raises(InputError, match=message):
        DepthSession(tmp_path / "a.onnx")


def test_a_device_without_room_for_the_images_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = DepthSession(save_onnx(tmp_path / "a.onnx", facts()), "cpu")

    def full(*arguments: object) -> None:
        raise RuntimeError("Failed to allocate memory for requested buffer of size 9")

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", full)
    with pytest.raises(InputError, match=r"a.onnx needs more memory than the 1.25 GiB .* set MD_MAX_MODEL_BYTES to more"):
        session.predict(images_of(1))


def test_an_operator_that_this_onnxruntime_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(path: Path) -> None:
        lack = "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for Max(13) node with name 'max'"
        raise NotImplementedError(lack)

    monkeypatch.setattr(onnx_file, "cpu_session", lacking)
    asked = r"a.onnx has an operator that onnxruntime .* lacks \(Could not find an implementation for Max\(13\) .*\); pip install -U"
    with pytest.raises(InputError, match=asked):
        DepthSession(save_onnx(tmp_path / "a.onnx", facts()))


def test_without_onnxruntime_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_onnx(tmp_path / "a.onnx", facts())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"ONNX files need onnxruntime \(.*\): pip install onnxruntime, or onnxruntime-gpu for an NVIDIA"):
        DepthSession(path)


def test_predicting_imports_neither_torch_nor_onnx(tmp_path: Path) -> None:
    path = save_onnx(tmp_path / "a.onnx", facts())
    program = (
        "import sys, numpy as np; from pathlib import Path; from export.session import DepthSession\n"
        f"print(DepthSession(Path({str(path)!r})).predict(np.zeros((1, 32, 64, 3), np.uint8)).shape)\n"
        "print(sorted({'torch', 'onnx', 'matplotlib', 'tqdm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("(1, 32, 64)\n[]\n", "")
