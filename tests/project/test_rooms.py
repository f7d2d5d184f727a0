"""What each room offers: light to import, the same names for Python, type checkers and documentation, and typed."""

import ast
import importlib
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from places import PROJECT, ROOMS

from splits.deprecation import warn_deprecated
from splits.version import DISTRIBUTION


def source(room: str) -> ast.Module:
    return ast.parse((PROJECT / room / "__init__.py").read_text())


def checked_names(room: str) -> dict[str, str]:
    """The names that a room imports for type checkers, with their modules."""
    found = {}
    for node in source(room).body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for line in node.body:
                if isinstance(line, ast.ImportFrom):
                    found |= {alias.asname or alias.name: str(line.module) for alias in line.names}
    return found


def test_importing_every_room_imports_neither_torch_nor_numpy() -> None:
    program = f"import sys, {', '.join(ROOMS)}; print(sorted({{'torch', 'numpy', 'PIL', 'click', 'onnxruntime'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_there_and_known_to_type_checkers(room: str) -> None:
    module = importlib.import_module(room)
    for name in module.__all__:
        found = getattr(module, name)
        assert name in dir(module)
        if name not in ("__version__", "NAMES"):
            assert found.__doc__, f"{room}.{name} says nothing of itself"
            assert found.__module__ == checked_names(room).get(name, found.__module__)
    if room != "splits":  # its own file holds what it offers
        assert sorted([*checked_names(room), "__version__"]) == sorted(module.__all__)
    with pytest.raises(AttributeError, match=rf"^module '{room}' has no attribute 'banana'$"):
        _ = module.banana
    with pytest.raises(ImportError, match="cannot import name 'banana'"):
        exec(f"from {room} import banana")


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_tells_the_installed_version(room: str) -> None:
    assert importlib.import_module(room).__version__ == version(DISTRIBUTION)


@pytest.mark.parametrize("room", ROOMS)
def test_the_wheel_says_that_it_is_typed(room: str, installed: Path) -> None:
    assert (installed / room / "py.typed").is_file()


def test_public_methods_and_properties_say_what_they_are() -> None:
    silent = []
    for room in ROOMS:
        module = importlib.import_module(room)
        for name in module.__all__:
            found = getattr(module, name)
            if isinstance(found, type) and found.__module__.split(".")[0] in ROOMS:
                members = {key: member for key, member in vars(found).items() if not key.startswith("_")}
                for key, member in members.items():
                    described = getattr(member, "__doc__", None) or getattr(getattr(member, "__func__", None), "__doc__", None)
                    if (callable(member) or isinstance(member, (property, classmethod, staticmethod))) and not described:
                        silent.append(f"{room}.{name}.{key}")
    assert silent == []


def test_a_type_checker_sees_the_types(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(
        "from dataload import Batch, data_config, open_loader\n"
        "from engine import EvalConfig, TrainConfig, evaluate, train\n"
        "from export import DepthModel, __version__\n"
        "reveal_type(DepthModel.load('a').predict('b.jpg').depth_m)\n"
        "reveal_type(DepthModel.load('a').predict(['b.jpg'])[0].colorize())\n"
        "reveal_type(DepthModel.load('a').predict(name for name in ['b.jpg'])[0].inv_depth)\n"
        "reveal_type(train(TrainConfig.from_options()).run_folder)\n"
        "reveal_type(evaluate(EvalConfig.from_options())[0].abs_rel)\n"
        "with open_loader(data_config()) as loader:\n"
        "    for batch in loader:\n"
        "        reveal_type(batch)\n"
        "reveal_type(__version__)\n"
        "from engine import trian\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports", "--follow-imports=silent", "user.py"]
    environment = {"MYPYPATH": str(PROJECT), "PATH": "", "MYPY_CACHE_DIR": str(PROJECT / ".mypy_cache")}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    revealed = [line.split("Revealed type is ")[1].strip('"') for line in done.stdout.splitlines() if "Revealed type" in line]
    for found, expected in zip(revealed, ["ndarray", "Image", "ndarray", "Path", "float", "Batch", "str"], strict=True):
        assert expected in found, done.stdout
    assert 'Module "engine" has no attribute "trian"; maybe "train"?' in done.stdout
    assert done.stdout.count(" error: ") == 1, done.stdout


def test_what_goes_says_what_to_use_and_until_when() -> None:
    def old_name() -> None:
        warn_deprecated("old_name", "new_name", removed_in="9.0")

    with pytest.warns(DeprecationWarning, match=r"^old_name is deprecated and will be gone in version 9\.0; use new_name$") as warned:
        old_name()
    assert warned[0].filename == __file__, "the line of who uses it is shown"
