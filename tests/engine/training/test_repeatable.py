"""The same seed and threads give the same bits, whatever loads, logs or interrupts; on a GPU --deterministic leaves no other operator."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from fake_cuda import fake_cuda, move_to_gpu, on_gpu
from torch.utils._python_dispatch import TorchDispatchMode
from training_runs import STEREO, assert_same_weights, options, weights

from benchmarks.step_inputs import default_config, random_batch
from dataload.system import machine
from dataload.system.launch import VARIABLES
from engine.commands.md_train import md_train
from engine.loss.objective import Objective
from engine.networks import border
from engine.training import repeatable as module
from engine.training.build import build_engine, make_networks, make_step
from engine.training.config import TrainConfig
from engine.training.repeatable import CUBLAS_VARIABLE, computing_threads, repeatable
from engine.training.step import TrainStep
from engine.training.update import seed_step
from splits.errors import InputError

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
RUN = {"dataset": "demo", "use_stereo": True, "model_name": "run"}
# What torch.use_deterministic_algorithms is documented to refuse on a GPU, as far as it concerns tensors of images.
REFUSED = {
    *(f"aten.reflection_pad{dims}d_backward.default" for dims in (1, 2, 3)),
    *(f"aten.upsample_{mode}_backward.default" for mode in ("linear1d", "bilinear2d", "bicubic2d", "trilinear3d")),
    *(f"aten._adaptive_avg_pool{dims}d_backward.default" for dims in (2, 3)),
    *(f"aten.adaptive_max_pool{dims}d_backward.default" for dims in (2, 3)),
    *(
        f"aten.{name}.default"
        for name in ("avg_pool3d_backward", "max_unpool2d", "nll_loss_forward", "put_", "histc", "bincount", "median")
    ),
}
SAMPLED = "aten.grid_sampler_2d_backward.default"


@pytest.fixture(scope="module")
def tree(kitti_tree: Callable[..., Path]) -> Path:
    return kitti_tree(frames=12)  # 20 training samples, 5 steps per epoch


def train(*arguments: str) -> str:
    result = CliRunner().invoke(md_train, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("--num_workers 0 --frame_store none --log_frequency 1", ""),
        ("--num_workers 3 --frame_store disk --log_frequency 100", ""),
        ("--num_workers 2 --frame_store none --max_steps 3", "--num_workers 0 --frame_store disk --log_frequency 1"),
        ("--num_workers 0 --frame_store disk --max_steps 6 --save_every_steps 1", "--num_workers 3 --frame_store none"),
        ("--deterministic --save_minutes 0", ""),
    ],
)
def test_the_bits_depend_on_nothing_but_seed_and_threads(tree: Path, tmp_path: Path, first: str, then: str) -> None:
    same = [*STEREO, "--loader", "torch", "--frame_store_dir", str(tmp_path / "stores"), "--max_steps", "8"]
    train(*options(tree, tmp_path, "plain", *same, "--num_workers", "1", "--frame_store", "none"))
    train(*options(tree, tmp_path, "other", *same, *first.split()))
    if then:
        train("--log_dir", str(tmp_path), "--model_name", "other", "--resume", "--max_steps", "8", *then.split())
    assert_same_weights(tmp_path / "plain" / "models" / "weights_1", tmp_path / "other" / "models" / "weights_1")


@pytest.mark.slow
@pytest.mark.skipif(machine.usable_cores() < 2, reason="needs two cores: a run is not given back more threads than there are")
def test_a_resumed_run_computes_with_the_threads_that_it_began_with(tree: Path, tmp_path: Path) -> None:
    assert torch.get_num_threads() == 1
    two = [*STEREO, "--threads", "2"]
    train(*options(tree, tmp_path, "whole", *two, "--max_steps", "4"))
    train(*options(tree, tmp_path, "parted", *two, "--max_steps", "2"))
    resumed = train("--log_dir", str(tmp_path), "--model_name", "parted", "--resume", "--max_steps", "4")
    assert "Threads     2, as this run began (else 1); --threads takes another number" in resumed
    assert torch.get_num_threads() == 1
    whole = tmp_path / "whole" / "models" / "weights_0"
    assert_same_weights(whole, tmp_path / "parted" / "models" / "weights_0")
    train(*options(tree, tmp_path, "one", *STEREO, "--max_steps", "4"))
    one = weights(tmp_path / "one" / "models" / "weights_0")
    assert any(not torch.equal(value, one[key]) for key, value in weights(whole).items()), "one thread and two must differ here"


@pytest.fixture
def resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """Threads within a resumed run whose opt.json recorded ``begun``, and what was said; ``cores`` and ``processes`` of the machine."""

    def resume(begun: Any, *, cores: int = 2, processes: int = 1, device: torch.device = CPU, **given: Any) -> tuple[int, str]:
        config = TrainConfig.from_options(**RUN, log_dir=tmp_path)
        models = config.run_folder / "models"
        models.mkdir(parents=True)
        recorded = {} if begun is None else {"threads": begun}
        (models / "opt.json").write_text(json.dumps({"dataset": "demo", "frame_ids": [0, "s"], "use_stereo": True} | recorded))
        monkeypatch.setattr(machine, "_cores", lambda: set(range(cores)))
        for name, value in zip(VARIABLES, (0, processes, 0, processes), strict=True):
            monkeypatch.setenv(name, str(value))
        caplog.set_level("INFO", "md")
        again = TrainConfig.from_options(log_dir=tmp_path, model_name="run", resume=True, **given)
        with repeatable(again, device):
            threads = torch.get_num_threads()
        assert torch.get_num_threads() == 1
        return threads, caplog.text

    return resume


@pytest.mark.parametrize(
    ("begun", "how", "threads", "said"),
    [
        (2, {}, 2, "Threads     2, as this run began (else 1); --threads takes another number"),
        (1, {}, 1, ""),
        (None, {}, 1, ""),  # of a version before
        (4, {}, 1, "this run began with 4, now 1: last bits of its numbers differ; --threads 4 keeps them, slower"),
        (4, {"cores": 4}, 4, "Threads     4, as this run began"),
        (4, {"cores": 4, "processes": 2}, 1, "this run began with 4, now 1: last bits of its numbers differ; --threads 4 keeps them"),
        (4, {"threads": 4}, 4, ""),
        (2, {"threads": 3}, 3, "this run began with 2, now 3: last bits of its numbers differ\n"),
        (2, {"device": CUDA}, 1, ""),
    ],
)
def test_threads_of_a_resumed_run(resumed, begun: Any, how: dict[str, Any], threads: int, said: str) -> None:
    found, text = resumed(begun, **how)
    assert found == threads
    assert said in text
    assert bool(said) == ("hreads" in text)


@pytest.mark.parametrize("begun", ["many", [2, 3], -1, {}])
def test_a_record_that_is_no_number_is_named(resumed, begun: Any) -> None:
    with pytest.raises(InputError, match=r"opt\.json"):
        resumed(begun)


def test_threads_are_recorded_where_bits_depend_on_them(tree: Path, tmp_path: Path) -> None:
    assert (computing_threads(CPU), computing_threads(CUDA)) == (1, None)
    train(*options(tree, tmp_path, "run", *STEREO, "--max_steps", "1"))
    assert json.loads((tmp_path / "run" / "models" / "opt.json").read_text())["threads"] == 1


def test_threads_out_of_range_are_refused() -> None:
    for threads in ("0", "1025"):
        result = CliRunner().invoke(md_train, ["--dataset", "demo", "--threads", threads, "--dry_run"])
        assert result.exit_code == 2
        assert f"threads={threads}" in result.output.replace("\n", " ") or f"{threads} is not in the range" in result.output


def test_a_gpu_is_kept_to_deterministic_algorithms_and_a_cpu_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CUBLAS_VARIABLE, raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    config = default_config(deterministic=True)
    with repeatable(config, CPU):
        assert not torch.are_deterministic_algorithms_enabled()
    with repeatable(config, CUDA):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert not module.SETTINGS.fill_uninitialized_memory
        assert os.environ[CUBLAS_VARIABLE] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled()
    assert module.SETTINGS.fill_uninitialized_memory
    with repeatable(default_config(), CUDA):
        assert not torch.are_deterministic_algorithms_enabled()
    build_engine(default_config(height_px=64, width_px=96, deterministic=True), CPU, metric_factor=1.0)
    assert not torch.backends.cudnn.benchmark
    build_engine(default_config(height_px=64, width_px=96), CPU, metric_factor=1.0)
    assert torch.backends.cudnn.benchmark


class Operators(TorchDispatchMode):
    """The names of the operators that run within the block, and which gradients of a sampled image are taken."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.sampled: list[list[bool]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        self.names.add(str(func))
        if str(func) == SAMPLED:
            self.sampled.append(list(args[6]))
        return func(*args, **(kwargs or {}))


def operators_of(step: TrainStep, config: TrainConfig, *, deterministic: bool) -> Operators:
    """What a step and its gradients run on a GPU."""
    real = random_batch(config.data.batch_size, config.data.size_px, stereo=config.data.use_stereo)
    with repeatable(config, CUDA), fake_cuda(), Operators() as operators:
        assert torch.are_deterministic_algorithms_enabled() == deterministic
        move_to_gpu(step)
        seed_step(step, 0, 1)
        step(real.with_tensors([on_gpu(tensor) for tensor in real.tensors()])).loss.backward()
    return operators


@pytest.mark.parametrize("plain", [False, True], ids=["eager", "as it is compiled"])
@pytest.mark.parametrize("fused", [True, False], ids=["kernels", "torch"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"use_stereo": True, "pose_model_type": "posecnn"}, {"predictive_mask": True, "automask": False}],
    ids=str,
)
def test_no_operator_of_a_deterministic_step_adds_up_in_any_order(
    changes: dict[str, Any], fused: bool, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Objective, "fuses", lambda self, *_: fused and not self.switches.predictive_mask)
    used = {}
    for deterministic in (False, True):
        config = default_config(height_px=64, width_px=96, batch_size=2, deterministic=deterministic, **changes)
        with torch.device("meta"):
            step = make_step(config, make_networks(config).to(memory_format=torch.channels_last), torch.bfloat16)
        with monkeypatch.context() as patch:
            # A compiler is given plain operators in place of functions by hand.
            patch.setattr(torch.compiler, "is_compiling", lambda: plain)
            used[deterministic] = operators_of(step, config, deterministic=deterministic)
    assert used[False].names & REFUSED, "without the option some must be there, or this test shows nothing"
    assert not used[True].names & REFUSED
    # Refused as a whole, but only the gradient with respect to the image is added up in any order, and an image has none.
    assert not any(of_image for of_image, _ in used[True].sampled)


def test_rows_and_columns_that_are_joined_are_the_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(border, "_joins", lambda _: True)
    x = torch.rand(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    upstream = torch.rand(2, 3, 7, 9, dtype=torch.float64)
    ours, padded = border.plain_border(x), F.pad(x, (1, 1, 1, 1), mode="reflect")
    assert torch.equal(ours, padded)
    (of_ours,), (of_padded,) = (torch.autograd.grad(made, x, upstream) for made in (ours, padded))
    assert torch.allclose(of_ours, of_padded, rtol=1e-12)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_two_deterministic_runs_have_the_same_bits(tree: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        arguments = [each for each in options(tree, tmp_path, name, *STEREO, "--max_steps", "8", "--deterministic") if each != "--no_cuda"]
        train(*arguments)
    assert_same_weights(tmp_path / "one" / "models" / "weights_1", tmp_path / "two" / "models" / "weights_1")
