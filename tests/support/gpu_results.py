"""Results of benchmarks on a GPU, as they are kept."""

# Where they were measured.
WHERE = {
    "cpu": "c",
    "gpu": "NVIDIA H200",
    "cores": 16,
    "python": "3",
    "versions": {"torch": "2", "triton": "1"},
    "commit": "abc",
    "command": "python -m x",
}
