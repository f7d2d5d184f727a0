"""Commands on poorer machines: no home folder, no user, no terminal, another encoding, an older processor, packages missing."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx_models import facts, save_onnx
from places import PROJECT
from predicting import save_image
from training_runs import STEREO, options

from dataload.commands.command import Command

COMMANDS = {
    "md-train": "engine.commands.md_train",
    "md-eval": "engine.commands.md_eval",
    "md-export": "export.commands.md_export",
    "md-predict": "export.commands.md_predict",
    "md-data": "dataload.commands.md_data",
}
# A user whom the system's list does not have, with the rights of this one.
STRANGER = ["unshare", "--user", "--map-user=12345"]
# What older processors have, as torch, oneDNN, MKL and numpy are told; "default" is what any x86-64 has.
NEWEST_OF_NUMPY = "X86_V4 AVX512_ICL AVX512_SPR" if np.lib.NumpyVersion(np.__version__) >= "2.4.0" else "AVX512F AVX512CD AVX512_SKX"
PROCESSORS = {
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "DEFAULT": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
}
# Runs as any other process, but for the packages that it does not find.
HIDING = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def other(cls, name, path=None, target=None):
    return None if name in {hidden} else find(name, path, target)
PathFinder.find_spec = classmethod(other)
"""


def can_be_a_stranger() -> bool:
    if shutil.which(STRANGER[0]) is None:
        return False
    asks = "import os, pwd\ntry: pwd.getpwuid(os.getuid())\nexcept KeyError: print('unknown')"
    return subprocess.run([*STRANGER, sys.executable, "-c", asks], capture_output=True, text=True, check=False).stdout == "unknown\n"


def call(name: str, *args: object, cwd: Path | str, prefix: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    """A command as a process without a terminal and without standard input; an empty variable is taken away."""
    module = COMMANDS[name]
    function = module.rpartition(".")[2]
    program = f"import os, sys; os.close(0); sys.argv[0] = {name!r}; from {module} import {function}; {function}()"
    given = {**os.environ, "PYTHONPATH": str(PROJECT), "TQDM_DISABLE": "1", **environment}
    command = [*prefix, sys.executable, "-c", program, *map(str, args)]
    return subprocess.run(
        command,
        cwd=cwd,
        env={key: value for key, value in given.items() if value},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


@pytest.fixture
def nowhere(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command where there is no home, no user, no cache, no room for words, no UTF-8, and a working folder that nobody can write."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    prefix = tuple(STRANGER) if can_be_a_stranger() else ()
    surroundings = {"HOME": "", "XDG_CACHE_HOME": "/proc/none", "TMPDIR": str(temporary), "COLUMNS": "20"}
    surroundings |= {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    def run(name: str, *args: object, **more: str) -> subprocess.CompletedProcess[str]:
        return call(name, *args, cwd="/proc", prefix=prefix, **(surroundings | more))

    return run


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_answers_without_home_user_terminal_and_encoding(
    name: str, nowhere: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = nowhere(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage:")
    wrong = nowhere(name, "--no_such_option")
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr


def test_a_model_predicts_without_home_user_terminal_and_encoding(
    nowhere: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    image, model = save_image(tmp_path / "fö.jpg"), save_onnx(tmp_path / "mödel.onnx", facts())
    done = nowhere("md-predict", "--image", image, "--model", model, "--out", tmp_path / "öut")
    assert (done.returncode, done.stderr) == (0, "Predicting\n"), done.stderr
    assert (tmp_path / "öut" / "fö_disp.npy").is_file()
    refused = nowhere("md-predict", "--image", image, "--model", model, "--out", "here")
    assert refused.returncode == 1
    assert re.fullmatch(r"Error: cannot write into here \(.+\); choose another folder with --out\n", refused.stderr), refused.stderr


def test_a_model_whose_name_is_no_text_is_refused_in_one_line(tmp_path: Path) -> None:
    model = save_onnx(tmp_path / "m.onnx", facts())
    strange = tmp_path / os.fsdecode(b"m\xff.onnx")
    model.rename(strange)
    done = call("md-predict", "--image", save_image(tmp_path / "a.jpg"), "--model", strange, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "m\\udcff.onnx: onnxruntime opens no file whose path is not UTF-8 text; rename it" in done.stderr


def test_running_a_model_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    # Where onnxruntime reports what it runs, it keeps a number of the machine there.
    home = tmp_path / "home"
    home.mkdir()
    surroundings = {"HOME": str(home), "XDG_CACHE_HOME": "", "ORT_DISABLE_TELEMETRY": ""}
    image, model = save_image(tmp_path / "a.jpg"), save_onnx(tmp_path / "m.onnx", facts())
    done = call("md-predict", "--image", image, "--model", model, cwd=tmp_path, **surroundings)
    assert done.returncode == 0, done.stderr
    assert list(home.rglob("*")) == []


def test_a_package_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def needs_more() -> None:
        import package_that_nobody_has  # noqa: F401

    with pytest.raises(SystemExit) as ended:
        Command("any", callback=needs_more)([])
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "Error: package_that_nobody_has is not installed; install monodepth-engine with its requirements (pip install . in its folder)\n"
    )

    def has_a_bug() -> None:
        import dataload.no_such_part  # noqa: F401

    with pytest.raises(ModuleNotFoundError):
        Command("any", callback=has_a_bug)([])


def a_round(tree: Path, out: Path, cwd: Path | str, prefix: tuple[str, ...] = (), **environment: str) -> tuple[np.ndarray, str]:
    """Train, evaluate, export, predict: the inverse depth of an image by the exported file, and all that was said."""
    said = ""

    def run(name: str, *args: object) -> None:
        nonlocal said
        done = call(name, *args, cwd=cwd, prefix=prefix, **environment)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        said += done.stdout + done.stderr

    run("md-train", *options(tree, out / "runs", "a", *STEREO, "--max_steps", "2", "--amp", "off"))
    weights = out / "runs" / "a" / "models" / "weights_0"
    run(
        "md-eval", "--load_weights_folder", weights, "--dataset", "kitti", "--data_path", tree, "--eval_split", tree / "split",
        "--eval_stereo", "--no_cuda",
    )  # fmt: skip
    run("md-export", "--load_weights_folder", weights, "--out", out / "m.onnx")
    image = save_image(out / "a.jpg")
    run("md-predict", "--image", image, "--model", out / "m.onnx", "--no_cuda")
    run("md-predict", "--image", image, "--model", weights, "--out", out / "torch", "--no_cuda")
    predicted = np.load(out / "a_disp.npy")
    np.testing.assert_allclose(np.load(out / "torch" / "a_disp.npy"), predicted, rtol=0.05)
    return predicted, said


@pytest.fixture(scope="module")
def tree(kitti_tree: Callable[..., Path]) -> Path:
    return kitti_tree()


@pytest.fixture(scope="module")
def usual(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """What a round gives on this machine as it is."""
    out = tmp_path_factory.mktemp("usual")
    return a_round(tree, out, out)[0]


@pytest.mark.slow
@pytest.mark.parametrize("capability", PROCESSORS)
def test_a_round_without_newer_instructions_comes_close(capability: str, tree: Path, usual: np.ndarray, tmp_path: Path) -> None:
    import torch

    variables = PROCESSORS[capability] | {"NPY_DISABLE_CPU_FEATURES": NEWEST_OF_NUMPY}
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("not a processor that has more than it is told to use")
    asks = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    told = subprocess.run([sys.executable, "-c", asks], env=os.environ | variables, capture_output=True, text=True, check=True).stdout
    assert told == f"{capability}\n" or (capability, told) == ("DEFAULT", "NO AVX\n")
    np.testing.assert_allclose(a_round(tree, tmp_path, tmp_path, **variables)[0], usual, rtol=0.02)
    refused = call("md-train", *options(tree, tmp_path / "runs", "b", *STEREO, "--amp", "bf16"), cwd=tmp_path, **variables)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1] == "Error: amp=bf16 needs a processor with AVX-512, or a GPU; use --amp auto or off"


@pytest.mark.slow
def test_a_round_without_home_user_terminal_and_cache_is_the_usual_one(tree: Path, usual: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    surroundings = {"HOME": "", "XDG_CACHE_HOME": "/proc/none", "TMPDIR": str(tmp_path / "tmp"), "COLUMNS": "20", "LC_ALL": "C"}
    prefix = tuple(STRANGER) if can_be_a_stranger() else ()
    predicted, said = a_round(tree, tmp_path, "/proc", prefix, **surroundings)
    np.testing.assert_allclose(predicted, usual, rtol=1e-3)
    assert said.count("/proc/none/md-engine cannot be made: the cache is kept in") <= 5, "once per command"


@pytest.mark.slow
def test_a_round_without_dali_and_what_else_a_machine_may_lack_is_the_usual_one(tree: Path, usual: np.ndarray, tmp_path: Path) -> None:
    hidden = ["nvidia.dali", "simplejpeg", "pooch", "platformdirs", "beartype"]
    (tmp_path / "sitecustomize.py").write_text(HIDING.format(hidden=hidden))
    surroundings = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{PROJECT}"}
    predicted, said = a_round(tree, tmp_path, tmp_path, **surroundings)
    np.testing.assert_allclose(predicted, usual, rtol=1e-3)
    assert not re.search(r"No module named|not installed", said)
    lacking = call(
        "md-eval", "--load_weights_folder", "mono_640x192", "--dataset", "kitti", "--data_path", tree, "--eval_split", tree / "split",
        "--eval_mono", "--no_cuda", cwd=tmp_path, **surroundings, XDG_CACHE_HOME=str(tmp_path / "cache"),
    )  # fmt: skip
    assert lacking.returncode == 1
    assert lacking.stderr.splitlines()[-1].startswith("Error: pooch is not installed; install monodepth-engine with its requirements")
