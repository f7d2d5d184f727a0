"""What each table of README.md and docs/*.md shows of ``benchmarks/results/*.json``; ``benchmarks.table`` writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Column(NamedTuple):
    """A heading, the key of its value in a result's row, and the value's format."""

    heading: str
    key: str
    form: str


FLOOR = Column("share of the best possible speed", "floor_share", "{:.0%}")
STEP_COLUMNS = [
    Column("samples/s", "samples_per_s", "{:.2f}"),
    Column("times as fast", "times_plain", "{:.2f}"),
    Column("ms", "ms", "{:.2f}"),
    FLOOR,
    Column("peak memory, GiB", "peak_gib", "{:.2f}"),
]
TRAFFIC_COLUMNS = [
    Column(f"{way}: {heading}", f"{key}_{unit}", form)
    for way, key in (("plain, fp32", "plain"), ("ours, losses by PyTorch", "torch"), ("ours, fused losses", "fused"))
    for heading, unit, form in (("operators", "operators", "{:.0f}"), ("GB", "gb", "{:.2f}"))
]
LOADER_COLUMNS = [
    Column("samples/s", "samples_per_s", "{:.1f}"),
    Column("frames/s", "frames_per_s", "{:.0f}"),
    Column("times as fast", "times_plain", "{:.1f}"),
    Column("peak memory, MiB", "peak_mib", "{:.0f}"),
]
TRAIN_COLUMNS = [Column("samples/s", "samples_per_s", "{:.1f}"), Column("waiting for data", "wait_share", "{:.1%}"), FLOOR]
MS_COLUMNS = [Column(heading, key, "{:.2f}") for heading, key in (("ms", "ms"), ("fastest ms", "fastest_ms"), ("slowest ms", "slowest_ms"))]
SCALING_COLUMNS = [
    Column("samples/s", "samples_per_s", "{:.2f}"),
    Column("slowest", "slowest_samples_per_s", "{:.2f}"),
    Column("fastest", "fastest_samples_per_s", "{:.2f}"),
    Column("times one process", "times_one", "{:.2f}"),
    Column("ms per step", "ms", "{:.1f}"),
    Column("waiting for data", "wait_share", "{:.1%}"),
    Column("computed / measured", "over_measured", "{:.2f}"),
]
PART_COLUMNS = [
    *MS_COLUMNS,
    Column("MB", "mb", "{:.2f}"),
    Column("GB/s", "gb_per_s", "{:.2f}"),
    Column("of the exchange hidden", "hidden_share", "{:.0%}"),
    Column("least", "least_hidden_share", "{:.0%}"),
    Column("most", "most_hidden_share", "{:.0%}"),
]
INFERENCE_COLUMNS = [
    *MS_COLUMNS,
    Column("images/s", "samples_per_s", "{:.1f}"),
    Column("times as fast", "times_plain", "{:.2f}"),
    FLOOR,
]
SEEDS_COLUMNS = [
    Column(name + what, name + key, "{:.4f}") for name in ("abs_rel", "rmse", "a1") for what, key in (("", ""), (", ±", "_deviation"))
]
MODEL_COLUMNS = [
    Column("encoder", "encoder", "{}"),
    Column("input", "input", "{}"),
    Column("parameters, millions", "parameters_m", "{:.1f}"),
    Column("GFLOPs", "gflops", "{:.1f}"),
    Column("ms, checkpoint", "torch_ms", "{:.0f}"),
    Column("ms, ONNX file", "onnx_ms", "{:.0f}"),
    Column("published abs_rel", "abs_rel", "{:.3f}"),
]
# What a row has no value for.
NONE = "–"
TABLES: dict[str, tuple[str, Sequence[Column]]] = {
    "demo": (
        "on the demo's test streets, median scaled",
        [Column(name, name, "{:.3f}") for name in ("abs_rel", "sq_rel", "rmse", "rmse_log", "a1", "a2", "a3")],
    ),
    "demo_seeds": ("training on the demo, mean over seeds", SEEDS_COLUMNS),
    "demo_bags": ("training on left frames, mean over seeds", SEEDS_COLUMNS),
    "bench_loader": ("loader", LOADER_COLUMNS),
    "bench_loader_gpu": ("loader", LOADER_COLUMNS),
    "bench_startup": (
        "stage of a start",
        [
            Column("ms", "ms", "{:.0f}"),
            Column("memory, MiB", "mib", "{:.1f}"),
            Column("memory with a tenth of the lines, MiB", "tenth_mib", "{:.1f}"),
        ],
    ),
    "fuzz": (
        "parser",
        [
            Column("inputs", "inputs", "{:,.0f}"),
            Column("read", "read", "{:,.0f}"),
            Column("refused in one line", "refused", "{:,.0f}"),
            Column("damage that is counted", "damage", "{:,.0f}"),
            Column("contract broken", "broken", "{:,.0f}"),
            Column("slowest, s", "slowest_s", "{:.2f}"),
        ],
    ),
    "bench_eval": ("stage", [Column("images/s", "samples_per_s", "{:.1f}"), Column("times as fast", "times_plain", "{:.1f}")]),
    "bench_traffic": ("part of a step", TRAFFIC_COLUMNS),
    "bench_models": ("model", MODEL_COLUMNS),
    "main_models": ("model", MODEL_COLUMNS[1:]),  # of one encoder
    "bench_memory": (
        "training, GiB at the peak of a step",
        [
            Column(heading, f"{kind}_gib", "{:.2f}")
            for heading, kind in (
                ("parameters", "parameters"),
                ("Adam", "adam"),
                ("gradients", "gradients"),
                ("batch", "batch"),
                ("activations and the like", "activations"),
                ("peak", "peak"),
            )
        ],
    ),
    "bench_step": ("training step", STEP_COLUMNS),
    "bench_step_gpu": ("training step", STEP_COLUMNS),
    "bench_train": ("md-train", TRAIN_COLUMNS),
    "bench_train_gpu": ("md-train", TRAIN_COLUMNS),
    "bench_scaling": ("md-train", SCALING_COLUMNS),
    "bench_scaling_gpu": ("md-train", SCALING_COLUMNS),
    "scaling_parts": ("part", PART_COLUMNS),
    "scaling_parts_gpu": ("part", PART_COLUMNS),
    "scaling_model": (
        "training",
        [
            Column("samples/s", "samples_per_s", "{:,.0f}"),
            Column("efficiency", "efficiency", "{:.0%}"),
            Column("ms per step", "ms", "{:.1f}"),
            Column("gradients, MB", "mb", "{:.0f}"),
            Column("exchange, ms", "exchange_ms", "{:.2f}"),
            Column("not hidden, ms", "exposed_ms", "{:.2f}"),
            Column("frames read per machine, GB/s", "store_gb_per_s", "{:.1f}"),
            Column("bottleneck", "bottleneck", "{}"),
        ],
    ),
    "bench_busy": (
        "training step",
        [
            Column(f"{what}, {load}", f"{key}_{number}", form)
            for number, load in enumerate(("nothing else runs", "a busy program per core", "two per core"))
            for what, key, form in (("samples/s", "samples_per_s", "{:.1f}"), ("ms of cores per sample", "core_ms", "{:.0f}"))
        ],
    ),
    "soak": (
        "of the process",
        [Column(heading, key, "{:.1f}") for heading, key in (("first half", "first"), ("second half", "second"), ("most", "most"))],
    ),
    "bench_inference": ("prediction", INFERENCE_COLUMNS),
    "bench_inference_gpu": ("prediction", INFERENCE_COLUMNS),
    "gpu_proof": (
        "measurement",
        [Column("goal on an H200", "goal", "{}"), Column("measured", "measured", "{}"), Column("met", "met", "{}")],
    ),
}

# Tables that show some rows of a result only: its name, and the pattern of the rows' names.
EXCERPTS = {
    "bench_scaling": ("bench_scaling", r"md-train.*"),
    "bench_scaling_gpu": ("bench_scaling_gpu", r"md-train.*"),
    "scaling_parts": ("bench_scaling", r"(?!md-train).*"),
    "scaling_parts_gpu": ("bench_scaling_gpu", r"(?!md-train).*"),
    "main_models": ("bench_models", r"(mono|stereo|mono\+stereo)_\d+x\d+"),
    "bench_memory": ("bench_memory", r"[MS], .*|MS, ResNet-\d+"),  # the options save in MS what they save in M
}

# Where it is not make bench.
COMMANDS = {
    "demo": "make demo",
    "demo_seeds": "python -m benchmarks.demo_seeds --save",
    "demo_bags": "python -m benchmarks.demo_bags --save",
    "bench_busy": "python -m benchmarks.bench_busy --save",
    "fuzz": "make fuzz INPUTS=100000 SEED=0 SAVE=1",
    "soak": "make soak SAVE=1",
    "bench_loader_gpu": "make gpu-proof",
    "bench_step_gpu": "make gpu-proof",
    "bench_train_gpu": "make gpu-proof",
    "bench_inference_gpu": "make gpu-proof",
    "gpu_proof": "make gpu-proof",
    "bench_scaling_gpu": "python -m benchmarks.bench_scaling --save",
    "scaling_parts_gpu": "python -m benchmarks.bench_scaling --save",
}


# What stands above a table and is shown with it, the heading of tables that not everyone measures included.
CAPTIONS = {
    "bench_models": (
        "One image on the processor named below, in fp32. Encoder and input size alone decide the time, so it was measured with random\n"
        "weights. GFLOPs are billions of multiplications and additions per image. abs_rel, the mean relative error on KITTI's Eigen\n"
        "split, is published by Monodepth2's authors; a dash means that they publish none."
    ),
    "main_models": (
        "Models with stereo in their name give metres. Times are of one image, on the processor named below. abs_rel, the mean relative\n"
        "error of depth on KITTI's Eigen split (0.1 is 10 %), is published by Monodepth2's authors; for mono models each image was\n"
        "scaled by its median first."
    ),
    "bench_step_gpu": (
        "### Training step on a GPU\n\n"
        "The rows are those of the CPU's table above, and compiled plain ones. The line below the table names what fp32 rows\n"
        "compute convolutions in. The best possible speed is computed: on an H200 a step of 12 samples of 640x192 takes at least 3.5 ms\n"
        "(3,429 samples/s), by its bytes and its FLOPs, if everything elementwise is fused."
    ),
    "bench_train_gpu": "### Whole training on a GPU\n\nThe best possible speed is that of the training step.",
    "bench_loader_gpu": (
        '### Loading for a GPU\n\nThe batches are delivered on the GPU. "In hardware" is the share of frames that its JPEG decoder takes.'
    ),
    "bench_inference_gpu": (
        "### Prediction on a GPU\n\n"
        "Images and answers stay on the GPU, except in the row with camera frames. The best possible speed is computed for a bf16 pass\n"
        "on an H200. A dash means that this provider is not installed."
    ),
    "gpu_proof": "### The goals\n\nA dash means that it was not measured, or on another GPU than the goals are for.",
    "scaling_model": (
        "Computed, not measured; the line below the table names what is assumed. A bucket of gradients is exchanged as soon as all of\n"
        "them are there, as counted in an uncompiled bf16 step. Steps of other trainings than the first, and the backward pass within a\n"
        "step, take time in proportion to the bytes that they move. Efficiency is the speed over that of GPUs that wait for nothing.\n"
        "A machine has one network port, but for rows with a port per GPU; frames are read from memory, but for rows with NVMe."
    ),
    "bench_scaling_gpu": "### Several GPUs of one machine",
    "scaling_parts_gpu": "### What a step of several GPUs consists of",
    "demo_seeds": (
        "### Does speed cost accuracy?\n\n"
        "The demo is trained as `md-train` runs it on a GPU, and again in fp32, uncompiled, with losses by PyTorch. ± is the standard\n"
        "deviation over seeds."
    ),
}
# How settings are called in the line below a table, where it is not by their key.
SETTINGS = {
    "size_px": "height x width",
    "batch_size": "batch size",
    "abs_rel": "abs_rel from",
    "num_layers": "ResNet layers",
    "training_s": "seconds of training",
    "lines": "lines of the split",
    "steps": "steps counted",
    "fp32_convolutions": "fp32 convolutions in",
    "budget_s": "seconds at most",
    "step_ms": "ms per step of M, ResNet-18, 12 samples of 640x192",
}
