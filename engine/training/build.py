"""From a config to the parts of a run: networks with their first weights, the step, the optimizer, the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn.parallel import DistributedDataParallel

from dataload.system.console import console
from dataload.system.files import whole_file
from dataload.system.json_text import json_text
from engine.checkpoints import resumable_folders
from engine.loss.launching import runs_triton
from engine.networks import Networks, build_networks
from engine.networks.depth_decoder import set_initial_disp
from engine.networks.norm import synchronise_norms
from engine.networks.pretrained import load_imagenet
from engine.networks.recompute import recompute_activations
from engine.parallel.exchange import Exchange
from engine.precision import autocast_dtype, grad_scaler
from engine.run_options import OPTIONS_FILE
from engine.training import checkpoint
from engine.training.compiling import has_compiler
from engine.training.config import THREADS, WORLD_SIZE, TrainConfig, saved_options
from engine.training.optim import build_optimizer
from engine.training.step import TrainStep
from engine.weights import load_weights, weights_folder
from splits.errors import InputError


class Engine(NamedTuple):
    """What an update needs.

    Attributes:
        step: from a batch to its losses.
        parallel: the same, with gradients that are averaged over all processes; None where there is one alone.
    """

    networks: Networks
    step: TrainStep
    optimizer: torch.optim.Adam
    scaler: torch.amp.GradScaler
    device: torch.device
    autocast: torch.dtype | None
    parallel: DistributedDataParallel | None = None


def build_engine(config: TrainConfig, device: torch.device, *, metric_factor: float, exchange: Exchange | None = None) -> Engine:
    """Networks on the device (channels_last), the step (compiled where asked), Adam and its scaler; seeded by ``config.data.seed``.

    All processes of ``exchange`` build theirs together, and have the weights of rank 0 afterwards.
    """
    torch.manual_seed(config.data.seed)
    # Batches of training have one shape: cuDNN searches each convolution's fastest algorithm once, in the first steps. No effect on a CPU.
    # Which one that is may differ between runs, and with it the last bits.
    torch.backends.cudnn.benchmark = not config.deterministic
    begins = not config.resume and (exchange is None or exchange.ranks.is_first)
    networks = initial_networks(config, metric_factor=metric_factor) if begins else make_networks(config)
    networks.to(device).to(memory_format=torch.channels_last)
    if config.checkpoint_activations:
        recompute_activations(networks)
    group = None if exchange is None else exchange.group
    if config.sync_bn and group is not None:
        synchronise_norms(networks, group)
    dtype = autocast_dtype(config.amp, device)
    step = make_step(config, networks, dtype).to(device)
    # On a CPU the compiler needs minutes and gains little; there it runs only when asked for. For a GPU it makes kernels of Triton, whose
    # losses an uncompiled step would need too: both are known to work before the step is built on them.
    compiles = device.type == "cuda" if config.compile is None else config.compile
    if runs_triton(device) and compiles and has_compiler(device):
        # For several processes torch cuts the graph up, to exchange gradients of a part meanwhile; one that recomputes it cannot cut.
        torch._dynamo.config.optimize_ddp = not config.checkpoint_activations
        step.compile(fullgraph=True)
    optimizer = build_optimizer(networks, config.learning_rate)
    if config.load_weights_folder is not None and not config.resume:
        _fill_moments(optimizer, weights_folder(config.load_weights_folder))
    parallel = None
    if exchange is not None and group is not None:
        step.cast_where_used()
        parallel = exchange.parallel(step, accumulates=config.grad_accumulation > 1)
    return Engine(networks, step, optimizer, grad_scaler(dtype, device), device, dtype, parallel)


def _fill_moments(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    try:
        checkpoint.load_optimizer(optimizer, folder)
        console.info("Adam's state: taken from %s", folder / checkpoint.ADAM_FILE)
    except InputError as error:
        console.info("Adam's state: fresh (%s)", error)


def initial_networks(config: TrainConfig, *, metric_factor: float = 1.0) -> Networks:
    """The networks that a run of the config starts from, in fp32 on the CPU; random weights are drawn by torch's generator.

    Encoders have ImageNet's weights (downloaded once) unless ``weights_init="scratch"``; what ``load_weights_folder`` holds goes first.

    Args:
        metric_factor: metres in the networks' unit, by which ``initial_depth_m`` is divided: the dataset's ``metric_factor``.

    Raises:
        InputError: weights that cannot be found, downloaded or fitted, or an initial depth out of the networks' range.
    """
    networks = make_networks(config)
    _fill_weights(config, networks, metric_factor=metric_factor)
    return networks


def make_networks(config: TrainConfig) -> Networks:
    """The untrained networks of a config, in fp32 on the CPU."""
    data, model = config.data, config.model
    return build_networks(
        num_layers=model.num_layers,
        scales=model.scales,
        frame_ids=data.frame_ids,
        use_stereo=data.use_stereo,
        pose_model_type=model.pose_model_type,
        pose_model_input=model.pose_model_input,
        predictive_mask=config.loss.predictive_mask,
    )


def make_step(config: TrainConfig, networks: Networks, autocast_dtype: torch.dtype | None = None) -> TrainStep:
    """From a batch to its losses, by these networks and the loss of the config: ``make_step(config, networks)(batch).loss.backward()``.

    Args:
        networks: of the same config; they may be on a device.
        autocast_dtype: what they compute in, ``torch.bfloat16`` or ``torch.float16`` (which needs a gradient scaler); None is fp32. The
            loss is computed in fp32 whatever it is.
    """
    data = config.data
    return TrainStep(
        networks,
        frame_ids=data.frame_ids,
        use_stereo=data.use_stereo,
        model=config.model,
        loss=config.loss,
        autocast_dtype=autocast_dtype,
    )


def _fill_weights(config: TrainConfig, networks: Networks, *, metric_factor: float) -> None:
    model = config.model
    names = {name for name, _ in networks.named_children()}
    loading = set(config.models_to_load) if config.load_weights_folder is not None else set()
    if model.weights_init == "pretrained" and {"encoder", "pose_encoder"} & (names - loading):
        load_imagenet(networks, model.num_layers)
    if config.load_weights_folder is not None:
        folder = weights_folder(config.load_weights_folder)
        loaded = load_weights(networks, folder, config.models_to_load)
        console.info("Loaded %s from %s", ", ".join(loaded), folder)
    if model.initial_depth_m is not None:
        depth = model.initial_depth_m / metric_factor
        if not model.min_depth < depth < model.max_depth:
            low, high = model.min_depth * metric_factor, model.max_depth * metric_factor
            raise InputError(f"initial_depth={model.initial_depth_m} m must lie between {low:g} and {high:g} m, the networks' range")
        disp = (1 / depth - 1 / model.max_depth) / (1 / model.min_depth - 1 / model.max_depth)
        set_initial_disp(networks.depth, disp)


def find_run_folder(config: TrainConfig) -> Path:
    """The folder ``<run folder>/models``, which a resumed run has and a new one may have, empty of weights.

    Raises:
        InputError: a new run would overwrite the weights of an earlier one, or there is nothing to resume.
    """
    models = config.run_folder / "models"
    if config.resume:
        if not models.is_dir():
            raise InputError(f"nothing to resume: no run folder {config.run_folder}; check --log_dir and --model_name")
        return models
    held = sorted(f.name for f in models.iterdir() if f.is_dir() and not f.name.startswith(".")) if models.is_dir() else []
    if held:
        resumes = "add --resume to continue it, or choose another --model_name"
        remedy = resumes if resumable_folders(models) else "choose another --model_name"
        raise InputError(
            f"run folder {config.run_folder} already holds weights ({', '.join(held[:4])}{', ...' if len(held) > 4 else ''}); {remedy}"
        )
    return models


def write_options(config: TrainConfig, models: Path, *, metric_factor: float, world: int, threads: int | None) -> None:
    """Make the models folder of a new run and keep its options there, as ``opt.json``.

    Args:
        metric_factor: metres in the unit of a stereo model.
        world: how many processes train.
        threads: how many threads compute, where the run's bits depend on it.
    """
    models.mkdir(parents=True, exist_ok=True)
    options = saved_options(config) | ({"metric_factor": metric_factor} if config.data.use_stereo else {})
    options |= {WORLD_SIZE: world} if world > 1 else {}
    options |= {} if threads is None else {THREADS: threads}
    with whole_file(models / OPTIONS_FILE) as temporary:
        temporary.write_text(json_text(options, 2) + "\n", encoding="utf-8")
