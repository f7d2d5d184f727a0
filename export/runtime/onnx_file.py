"""An ONNX file as onnxruntime sees it: the facts in it or, where md-export did not write it, those that the user gives."""

from __future__ import annotations

import math
import mmap
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.sums import require_undamaged
from export.choices import ASSUMED_OUTPUTS, AssumedFacts
from export.runtime.model_facts import MAX_SIDE_PX, ModelFacts
from export.runtime.providers import cpu_session, faults, import_onnxruntime, reason
from splits.errors import InputError
from splits.faults import parsing

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

LFS_START = b"version https://git-lfs.github.com/spec/"
AGAIN = "copy or export it again"
# Of all images of a run together, and of their maps: what is beside the graph's own memory then stays below half a GiB.
MAX_RUN_PIXELS = 2**24
# In ONNX's protobuf, the entry of a tensor that says in which file its values lie; the length of the file's name follows.
WEIGHTS_ELSEWHERE = re.compile(rb"\x0a\x08location\x12([\x00-\x7f])", re.DOTALL)


class Form(NamedTuple):
    """The inputs and outputs of the graph.

    Attributes:
        input, output: their names. takes_bytes: uint8 (B,H,W,3), else float (B,3,H,W) in 0..1.
        batch: images per run, None where that is open. output_shape: of the graph; open axes are names or None.
    """

    input: str
    output: str
    takes_bytes: bool
    batch: int | None
    output_shape: tuple[int | str | None, ...]


def open_model(path: Path, assumed: AssumedFacts | None = None) -> tuple[InferenceSession, ModelFacts, Form]:
    """The depth network in ``path`` on the CPU, its facts, and its inputs and outputs.

    Raises:
        InputError: no onnxruntime, no such file, no ONNX file, one that this onnxruntime cannot run, no depth network, or facts that are
            missing.
    """
    import_onnxruntime()
    with parsing(path, "an ONNX file that can be read", AGAIN):
        try:
            return _describe(_load(path), path, assumed or AssumedFacts())
        except UnicodeDecodeError as error:  # onnxruntime hands names on as it finds them
            raise InputError(f"{path} is damaged: a name in it is no UTF-8 text ({error.reason}); {AGAIN}") from error


def _describe(session: InferenceSession, path: Path, assumed: AssumedFacts) -> tuple[InferenceSession, ModelFacts, Form]:
    """As ``open_model``."""
    facts = ModelFacts.from_metadata(session.get_modelmeta().custom_metadata_map, path)
    if facts is not None and facts.kind != "depth":
        raise InputError(f"{path} is a {facts.kind} network; give the depth network that was exported beside it")
    if facts is not None and math.prod(facts.size_px) > MAX_RUN_PIXELS:
        raise InputError(f"{path} records an input of {facts.width_px} x {facts.height_px} pixels, which no network takes; {AGAIN}")
    given = assumed.options()
    if facts is not None and given:
        raise InputError(f"{path} was written by md-export and records all of that itself; leave out {' '.join(given)}")
    form, size_px = _form(session, path)
    return session, facts or _assumed_facts(path, size_px, assumed), form


def _load(path: Path) -> InferenceSession:
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the ONNX file in it")
    if not path.is_file():
        raise InputError(f"{path} does not exist; name an ONNX file")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); {AGAIN}")
    require_undamaged(path, among_others=True)
    names = _weights_elsewhere(path)
    for name in names:
        if not (path.parent / name).resolve().is_relative_to(path.parent.resolve()):
            raise InputError(
                f"{path} says that its weights are in {name}, which is not beside it, and so is not opened; export it as one file"
            )
    try:
        return cpu_session(path)
    except faults() as error:
        why, version = reason(error), import_onnxruntime().__version__
        _require_whole(path, names, why)
        if newer := re.search(r"Opset \d+|IR version: \d+", why):
            raise InputError(
                f"{path} is of a version of ONNX that onnxruntime {version} does not know ({newer[0]}); pip install -U onnxruntime, or "
                "export it again with a lower opset"
            ) from error
        if "implementation for" in why:
            raise InputError(
                f"{path} has an operator that onnxruntime {version} lacks ({why}); pip install -U onnxruntime (int8 needs 1.24 or "
                "later), or export it in fp32"
            ) from error
        if "rotobuf" in why:
            raise InputError(f"{path} is damaged or no ONNX file ({why}); {AGAIN}") from error
        raise InputError(f"{path} cannot be run by onnxruntime {version} ({why}); export it again") from error


def _weights_elsewhere(path: Path) -> list[str]:
    """The files that hold the weights of a model which does not hold them itself."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = {content[match.end() : match.end() + match[1][0]] for match in WEIGHTS_ELSEWHERE.finditer(content)}
    return sorted(name.decode(errors="replace").replace("\0", "") for name in found)


def _require_whole(path: Path, names: list[str], why: str) -> None:
    """``InputError`` where the file is a pointer of Git LFS, or its weights are in another file that is not there or cut off."""
    with path.open("rb") as file:
        if file.read(len(LFS_START)) == LFS_START:
            raise InputError(f"{path} is a pointer of Git LFS, not the model itself; fetch it with git lfs pull")
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        raise InputError(
            f"{path} keeps its weights in {missing[0]}, a file that is not beside it; copy that one into {path.parent} too, under that "
            "name, or export the model again as one file"
        )
    if names and "out of bounds" in why:
        raise InputError(
            f"{path} keeps its weights in {names[0]}, which is shorter than recorded; copy that file again, both are from one export"
        )


def _form(session: InferenceSession, path: Path) -> tuple[Form, tuple[Any, Any]]:
    """Its inputs and outputs, and (height, width) of its input as the graph gives them: numbers, or anything else where they are open."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shown = ", ".join(f"{node.name} {node.type} {node.shape}" for node in inputs)
    image, shape = inputs[0], inputs[0].shape
    takes_bytes = image.type == "tensor(uint8)" and len(shape) == 4 and shape[3] == 3
    if len(inputs) != 1 or not (takes_bytes or (image.type == "tensor(float)" and len(shape) == 4 and shape[1] == 3)):
        raise InputError(
            f"{path} takes {shown}; a depth network takes one image, float (B,3,H,W) in 0..1 or uint8 (B,H,W,3): export it like that"
        )
    size_px = (shape[1], shape[2]) if takes_bytes else (shape[2], shape[3])
    # Of the scales that Monodepth2's decoder gives, the finest.
    fitting = outputs if len(outputs) == 1 else [node for node in outputs if tuple(node.shape[-2:]) == size_px]
    lengths = [length for shape_of in (size_px, *(node.shape[-2:] for node in fitting)) for length in shape_of if isinstance(length, int)]
    if not all(0 < length <= MAX_SIDE_PX for length in lengths):
        raise InputError(f"{path} has sides of {', '.join(map(str, lengths))} pixels, which no image has; {AGAIN}")
    if len(fitting) != 1 or fitting[0].type != "tensor(float)" or len(fitting[0].shape) not in (3, 4):
        shown = ", ".join(f"{node.name} {node.type} {node.shape}" for node in outputs)
        raise InputError(f"{path} gives {shown}; a depth network gives one float map (B,1,H,W) of its input's size: export it like that")
    batch = shape[0] if isinstance(shape[0], int) else None
    for sides in (size_px, fitting[0].shape[-2:]):
        pixels = math.prod(length for length in (shape[0], *sides) if isinstance(length, int))
        if not 0 < pixels <= MAX_RUN_PIXELS:
            raise InputError(
                f"{path} takes or gives {pixels:,} pixels in a run, and at most {MAX_RUN_PIXELS:,} are computed; export it smaller"
            )
    return Form(image.name, fitting[0].name, takes_bytes, batch, tuple(fitting[0].shape)), size_px


def _assumed_facts(path: Path, size_px: tuple[Any, Any], assumed: AssumedFacts) -> ModelFacts:
    """The facts of a foreign file; ``InputError`` asks for those that are not given."""
    missing = []
    if assumed.output is None:
        missing.append(f"--onnx_output {'|'.join(ASSUMED_OUTPUTS)} (disp is a sigmoid's, and needs --min_depth and --max_depth)")
    elif assumed.output == "disp":
        missing += [f"--{name}" for name in ("min_depth", "max_depth") if getattr(assumed, name) is None]
    fixed = all(isinstance(length, int) for length in size_px)
    if not fixed and assumed.size_px is None:
        missing.append("--height and --width of its training images")
    if missing:
        raise InputError(f"{path} was not written by md-export, so it does not record what it predicts; add {', '.join(missing)}")
    taken = size_px if fixed else assumed.size_px
    if assumed.size_px is not None and any(isinstance(a, int) and a != b for a, b in zip(size_px, assumed.size_px, strict=True)):
        raise InputError(f"{path} takes images of {size_px[0]}x{size_px[1]} (height x width) alone; leave out --height and --width")
    assert assumed.output is not None
    assert taken is not None
    facts = ModelFacts(output=assumed.output, height_px=taken[0], width_px=taken[1])
    if assumed.min_depth is None or assumed.max_depth is None:
        return facts
    return replace(facts, min_depth=assumed.min_depth, max_depth=assumed.max_depth)
