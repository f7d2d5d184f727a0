"""``--target onnx``: the ONNX file alone, with the pose network's and checksums beside it."""

from __future__ import annotations

from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING

from dataload.system.files import require_writable_file, whole_files
from engine.sums import digest_of_file, own_sums, sums_text
from export.choices import is_onnx
from splits.errors import InputError

if TYPE_CHECKING:
    from export.config import ExportConfig
    from export.targets.exported import Export

IS_FOLDER = False


def require(config: ExportConfig) -> None:
    """Raise InputError where ``config.out`` is no name of an ONNX file, or cannot be written."""
    out = config.out
    if out.is_dir() or not is_onnx(out):
        example = out / "model.onnx" if out.is_dir() else out.with_suffix(".onnx")
        raise InputError(f"--out {out} must be a file that ends in .onnx, for example {example}")
    for path in outputs(config):
        require_writable_file(path, "--out")
        if path.is_dir():
            raise InputError(f"--out: {path} would be written, and is a folder; remove it, or name another file")


def pack(exported: Export, out: Path) -> None:
    """Copy the file to ``out``, and the pose network's to ``<out>_pose.onnx``, with the checksum of each beside it.

    None of them is ever there beside one of an earlier export.
    """
    sources = [exported.model] if exported.pose is None else [exported.model, exported.pose]
    paths = _files(out, with_pose=exported.pose is not None)
    with whole_files(paths) as temporaries:
        models, lists = temporaries[: len(sources)], temporaries[len(sources) :]
        for path, source, model, own in zip(paths, sources, models, lists, strict=False):
            copyfile(source, model)
            own.write_text(sums_text({path.name: digest_of_file(source)}), encoding="utf-8")


def outputs(config: ExportConfig) -> list[Path]:
    """The files that ``pack`` writes."""
    return _files(config.out, with_pose=config.with_pose)


def _files(out: Path, *, with_pose: bool) -> list[Path]:
    models = [out, _pose_path(out)] if with_pose else [out]
    return [*models, *map(own_sums, models)]


def _pose_path(out: Path) -> Path:
    return out.parent / f"{out.stem}_pose.onnx"
