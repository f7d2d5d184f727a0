"""``--target web``: a static page that shows depth in the browser, with the model and onnxruntime-web beside it."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataload.system.console import console
from dataload.system.files import cache_folder, whole_file
from dataload.system.json_text import json_text
from dataload.system.locks import hold
from engine.choices import COLORMAPS
from splits.errors import InputError
from splits.faults import parsing
from splits.reading import open_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from export.config import ExportConfig
    from export.targets.exported import Export

IS_FOLDER = True
VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web@{VERSION}"
# What the page loads from the package's ``dist``: for each backend a module, and the program that it would look for beside itself.
BACKENDS = {
    "wasm": ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": ("ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
}
NEEDED = tuple(name for files in BACKENDS.values() for name in files)
# The package has 150 MB.
MOST_BYTES = 2**30
# The npm package holds no licence; these lie in onnxruntime's Python package, which is made of the same sources.
LICENCES = ("LICENSE", "ThirdPartyNotices.txt")
PAGE_FOLDER = Path(__file__).with_name("page")
BY_HAND = f"fetch it elsewhere (npm pack {PACKAGE}) and give the file: --onnxruntime_web onnxruntime-web-{VERSION}.tgz"
# The frame on which a graphics processor has to compute what onnxruntime does here, over the network's size, and at how many pixels.
CHECK_SCALE, CHECK_POINTS = 1.5, 64


def require(config: ExportConfig) -> None:
    """Find onnxruntime-web, or let npm fetch it into the cache.

    Raises:
        InputError: no npm, no connection, what ``config.onnxruntime_web`` names is not that package, or a batch of several images.
    """
    if config.batch_size not in (None, 1):
        raise InputError(f"--batch_size {config.batch_size}: the page shows one image at a time; leave it out for --target web")
    _dist(config)


def outputs(config: ExportConfig) -> list[Path]:
    """The folder that ``pack`` fills."""
    return [config.out]


def pack(exported: Export, folder: Path) -> None:
    """Fill ``folder`` with the page and all that it needs; any web server serves it, from any path.

    Beside the page's own files stand ``model.onnx``, its facts in ``model.json``, ``page.json`` (colours, check values, the hashes of large
    files) and ``ort/`` with what is needed of onnxruntime-web.
    """
    import onnxruntime

    assert exported.facts.preprocessing, "the page gives the graph the image's own pixels"
    shutil.copytree(PAGE_FOLDER, folder, dirs_exist_ok=True)
    shutil.copyfile(exported.model, folder / "model.onnx")
    (folder / "model.json").write_text(json_text(asdict(exported.facts), 1), encoding="utf-8")
    (folder / "ort").mkdir()
    for name, content in _dist(exported.config).items():
        (folder / "ort" / name).write_bytes(content)
    for name in LICENCES:
        shutil.copyfile(Path(onnxruntime.__file__).with_name(name), folder / "ort" / name)
    (folder / "page.json").write_text(json_text(_page(exported, folder), 1), encoding="utf-8")


def _page(exported: Export, folder: Path) -> dict[str, Any]:
    """What the page has to know besides the model's facts. ``shell``: its small files, which are kept for use without a network."""
    from engine.pictures import BRIGHT_PERCENTILE, colour_table

    large = ["model.onnx", *(f"ort/{program}" for _, program in BACKENDS.values())]
    kept = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in LICENCES]
    return {
        "backends": {name: {"module": f"ort/{module}", "program": f"ort/{program}"} for name, (module, program) in BACKENDS.items()},
        "files": {name: _identity(folder / name) for name in large},
        "shell": ["./", "page.json", *(name for name in kept if name not in (*large, "sw.js"))],
        "colormaps": {name: base64.b64encode(colour_table(name).tobytes()).decode() for name in COLORMAPS},
        "bright_percentile": BRIGHT_PERCENTILE,
        "on_processor": _nodes_of_size_alone(exported.model),
        "check": _check(exported),
    }


def _identity(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"bytes": len(content), "hash": hashlib.sha256(content).hexdigest()[:16]}


def _nodes_of_size_alone(model: Path) -> list[str]:
    """The nodes that read only the image's size: they make the weights of its resizing.

    A graphics processor's sine may be off by 5e-4, and such weights move the resized image by whole levels.
    """
    import onnx

    graph = onnx.load(str(model), load_external_data=False).graph
    of_pixels, others = {value.name for value in graph.input}, []
    for node in graph.node:
        if node.op_type != "Shape" and of_pixels.intersection(node.input):
            of_pixels.update(node.output)
        else:
            others.append(node.name)
    return others


def _check(exported: Export) -> dict[str, Any]:
    """The model's output for ``check_frame`` at some pixels, as onnxruntime computes it here."""
    import numpy as np
    import onnxruntime

    size_px = tuple(round(CHECK_SCALE * size) for size in exported.facts.size_px)
    session = onnxruntime.InferenceSession(str(exported.model), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"image": check_frame(size_px[0], size_px[1])[None]})
    places = np.linspace(0, output.size - 1, CHECK_POINTS).astype(int)
    return {"height_px": size_px[0], "width_px": size_px[1], "places": places.tolist(), "values": output.ravel()[places].tolist()}


def check_frame(height_px: int, width_px: int) -> NDArray[np.uint8]:
    """Slanting stripes (H,W,3), another slant in each channel; ``worker.js`` makes the same."""
    import numpy as np

    y, x, c = np.indices((height_px, width_px, 3))
    return np.abs(255 - (x * (c + 1) + y * (3 - c)) % 510).astype(np.uint8)


def _dist(config: ExportConfig) -> dict[str, bytes]:
    """The ``NEEDED`` files of onnxruntime-web by name."""
    given = config.onnxruntime_web
    if given is None:
        return _from_archive(_cached_archive())
    if given.is_dir():
        return _from_folder(given)
    if given.is_file():
        return _from_archive(given)
    raise InputError(f"--onnxruntime_web: no folder or archive {given}; make it with: npm pack {PACKAGE}")


def _from_folder(given: Path) -> dict[str, bytes]:
    folder = given / "dist" if (given / "dist").is_dir() else given
    return _complete({name: (folder / name).read_bytes() for name in NEEDED if (folder / name).is_file()}, given)


def _from_archive(archive: Path) -> dict[str, bytes]:
    found, left = {}, MOST_BYTES
    what, remedy = f"the archive of {PACKAGE}", f"remove it and make it again with: npm pack {PACKAGE}"
    with open_file(archive, what, remedy) as file, parsing(archive, what, remedy), tarfile.open(fileobj=file, mode="r:gz") as opened:
        for entry in opened:
            left -= entry.size
            if left < 0:
                raise ValueError(f"it unpacks to more than {MOST_BYTES:,} bytes")
            place, _, name = entry.name.rpartition("/")
            content = opened.extractfile(entry) if place == "package/dist" and name in NEEDED else None
            if content is not None:
                found[name] = content.read()
    return _complete(found, archive)


def _complete(found: Mapping[str, bytes], source: Path) -> dict[str, bytes]:
    lacking = [name for name in NEEDED if not found.get(name)]
    if lacking:
        raise InputError(f"{source} is not onnxruntime-web {VERSION}: no {lacking[0]} in its dist; make it with: npm pack {PACKAGE}")
    return dict(found)


def _cached_archive() -> Path:
    """The package in the user's cache folder, fetched by npm where it is not there yet; by one process at a time."""
    archive = cache_folder() / f"onnxruntime-web-{VERSION}.tgz"
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        with hold(archive, "", waiting=lambda: console.info("onnxruntime-web  another process is fetching it; waiting")):
            if not archive.is_file():
                with tempfile.TemporaryDirectory(prefix="md-npm-") as folder, whole_file(archive) as temporary:
                    shutil.copyfile(_npm_pack(Path(folder)), temporary)
    except OSError as error:
        raise InputError(f"{PACKAGE} cannot be kept in {archive.parent} ({error.strerror}); make it writable, or {BY_HAND}") from error
    return archive


def _npm_pack(folder: Path) -> Path:
    """Let npm fetch the package, whose integrity it checks, into the empty ``folder``."""
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(f"--target web needs {PACKAGE}, and there is no npm to fetch it; install Node.js, or {BY_HAND}")
    done = subprocess.run([npm, "pack", "--loglevel=error", PACKAGE], cwd=folder, capture_output=True, text=True, check=False)
    made = list(folder.glob("*.tgz"))
    if done.returncode or not made:
        said = next((line for line in done.stderr.splitlines() if "error" in line.lower()), f"exit code {done.returncode}")
        raise InputError(f"npm could not fetch {PACKAGE} ({said.strip()}); try again online, or {BY_HAND}")
    return made[0]
