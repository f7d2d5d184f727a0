"""The table of parsers is whole: every module that opens or decodes content has its parser there, or a reason why it has none."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from parsers import PARSERS
from places import PROJECT, ROOMS

# Calls that read content: functions by their dotted name, methods by their last part.
FUNCTIONS = {
    "open",
    "io.open",
    "os.open",
    "os.pread",
    "os.preadv",
    "os.read",
    "mmap.mmap",
    "np.load",
    "np.fromfile",
    "np.frombuffer",
    "np.memmap",
    "np.genfromtxt",
    "np.loadtxt",
    "json.loads",
    "json.load",
    "yaml.load",
    "yaml.safe_load",
    "Image.open",
    "torch.load",
    "torch.frombuffer",
    "pickle.loads",
    "pickle.load",
    "pickle.Unpickler",
    "zipfile.ZipFile",
    "ZipFile",
    "tarfile.open",
    "gzip.open",
    "onnx.load",
    "av.open",
    "apsw.Connection",
    "sqlite3.connect",
    "struct.unpack",
    "struct.unpack_from",
    "struct.iter_unpack",
    "zlib.decompress",
    "zlib.decompressobj",
    "bz2.decompress",
    "lz4.frame.decompress",
    "cv2.imread",
    "cv2.imdecode",
    "safe_open",
    "ET.parse",
    "tomllib.load",
    "csv.reader",
    "simplejpeg.decode_jpeg",
}
METHODS = {
    "read_text",
    "read_bytes",
    "unpack_from",
    "iter_unpack",
    "unpack",
    "InferenceSession",
    "ZstdDecompressor",
    "decompressobj",
    "deserialize_cdr",
    "deserialize_ros1",
}
# What modules of our own read for others: whoever calls these reads content, too.
OURS = {"read_bytes", "read_text", "reading.read_lines", "read_json", "open_file", "read_array", "read_yaml"}

# Modules that read, and whose reading no parser of the table stands for.
EXCEPTIONS = {
    "splits.reading": "its callers are in the table",
    "splits.rules": "the package's own facts",
    "dataload.commands.command": "the null device",
    "dataload.doctor.driver": "the kernel's own file",
    "dataload.doctor.probes": "what our own process prints, and a model made there",
    "dataload.footage.identity": "bytes are hashed, whatever they are",
    "dataload.footage.split_lists": "bytes are compared, whatever they are",
    "dataload.pipeline.dali_pipeline": "bytes that picture has looked at",
    "dataload.system.download": "written, or continued",
    "dataload.system.files": "a folder, to be flushed",
    "dataload.system.machine": "the kernel's own files",
    "engine.evaluation.report": "the package's own page",
    "engine.loss.launching": "Triton's cache, which runs what it holds",
    "engine.parallel.beats": "what processes of one training tell each other",
    "engine.parallel.meeting": "what processes of one training tell each other",
    "engine.parallel.ranks": "what processes of one training tell each other",
    "engine.parallel.sameness": "the options of this process",
    "engine.pictures": "the package's own colours",
    "engine.training.bad_frames": "lines of the run's own, which nothing is asked of",
    "export.conversion.parity": "the file that was just exported",
    "export.conversion.quantize": "the file that was just exported",
    "export.runtime.providers": "files that onnx_file has opened; the kernel's own",
    "export.runtime.tensorrt_libraries": "an installed library",
    "export.targets.hub": "the package's own card",
}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of a call's function; only the last parts where it begins with another expression."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}".lstrip(".")
    return node.id if isinstance(node, ast.Name) else ""


def reads(path: Path) -> Iterator[str]:
    """The calls of a module that read content. Files that are opened to be written are none."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        last = name.rpartition(".")[2] or getattr(node.func, "attr", "")
        if last == "open" and any(is_for_writing(argument) for argument in [*node.args, *(keyword.value for keyword in node.keywords)]):
            continue
        is_method = isinstance(node.func, ast.Attribute)
        if name in FUNCTIONS or (is_method and (last in METHODS or last == "open")) or OURS & {name, last}:
            yield f"{name or last} in line {node.lineno}"


def is_for_writing(argument: ast.expr) -> bool:
    if dotted(argument) == "os.O_WRONLY":
        return True
    return (
        isinstance(argument, ast.Constant) and isinstance(argument.value, str) and argument.value[:1] in "wxa" and len(argument.value) < 4
    )


@cache
def readers() -> dict[str, list[str]]:
    """Every module of the rooms that reads, with the calls."""
    found = {module_of(path): list(reads(path)) for room in ROOMS for path in sorted((PROJECT / room).rglob("*.py"))}
    return {module: calls for module, calls in found.items() if calls}


COVERED = {module for parser in PARSERS.values() for module in parser.modules}


@pytest.mark.parametrize("module", readers())
def test_a_module_that_reads_has_its_parser(module: str) -> None:
    calls = readers()[module]
    assert module in COVERED or module in EXCEPTIONS, f"{module} reads ({', '.join(calls)}): give it a parser in tests/support/parsers*.py"


def test_what_the_table_names_is_there() -> None:
    there = {module_of(path) for room in ROOMS for path in (PROJECT / room).rglob("*.py")}
    assert there >= COVERED
    assert there >= set(EXCEPTIONS)


def test_exceptions_are_needed() -> None:
    """One that has a parser by now, or reads no longer, is taken out."""
    assert set(EXCEPTIONS) <= set(readers()) - COVERED


def test_reading_is_seen(tmp_path: Path) -> None:
    """The scan finds what it is for."""
    path = tmp_path / "module.py"
    for line in (
        "open(x)",
        "p.open('rb')",
        "p.read_text()",
        "np.load(p)",
        "json.loads(t)",
        "Image.open(p)",
        "torch.load(p)",
        "S.unpack(b)",
        "a().read_bytes()",
    ):
        path.write_text(f"def f():\n    return {line}\n")
        assert list(reads(path)), line
    for line in ("open(x, 'w')", "p.open('wb')", "os.open(p, os.O_WRONLY)", "json.dumps(t)", "p.write_text('open(x)')"):
        path.write_text(f"def f():\n    return {line}\n")
        assert not list(reads(path)), line
