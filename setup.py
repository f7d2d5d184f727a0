"""Packaging of monodepth-engine: four rooms (packages), five commands, extras for what not everyone needs."""

from pathlib import Path

from setuptools import find_packages, setup

REQUIRES = [
    "torch>=2.11",
    "torchvision>=0.26",
    "numpy>=1.26",
    "pillow>=10.1",
    "simplejpeg>=1.7.1",
    "click>=8.1",
    "jaxtyping>=0.2.36",
    "tqdm>=4.66",
    "tensorboard>=2.16.2",
    "matplotlib>=3.8",
    "jinja2>=3.1",
    "pooch>=1.8",
    "platformdirs>=4",
    "filelock>=3.30",
    "xxhash>=3.4.1",
    "pyyaml>=6",
    "psutil>=5.9",
    "onnx>=1.17",
    "onnxscript>=0.6",
    "safetensors>=0.4",
    # On a CPU it does what onnxruntime does; where it has no wheels, the plain package is used.
    "onnxruntime-gpu>=1.20; sys_platform == 'linux'",
    "onnxruntime>=1.20; sys_platform != 'linux'",
]
# DALI has no wheels outside Linux; there the loader makes the same batches with torch.
DALI = "nvidia-dali-cuda130>=2.2; sys_platform == 'linux'"

# Recordings' formats, compression and databases.
BAGS = ["rosbags>=0.11.7,<0.12", "apsw>=3.46", "lz4>=4"]
VIDEO = ["av>=17"]
OPENCV = ["opencv-python-headless>=4.9.0.80"]
HUB = ["huggingface_hub>=1"]
# The site of the documentation, and what executes the notebook in examples/.
DOCS = ["mkdocs>=1.6", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.26"]
EXAMPLES = ["nbclient>=0.10", "nbformat>=5.10", "ipykernel>=6.29"]

EXTRAS = {
    "test": [
        "pytest>=8",
        "pytest-xdist>=3.6.1",
        "hypothesis>=6.100",
        "beartype>=0.19",
        "ruff>=0.8",
        "mypy>=1.13",
        "import-linter>=2.6",
        "build>=1.2.1",
        "setuptools>=68",
        *VIDEO,
        *BAGS,
        *OPENCV,
        *HUB,
        *DOCS,
        *EXAMPLES,
    ],
    # What the plain implementations in the benchmarks need.
    "bench": OPENCV,
    "video": VIDEO,
    "bags": BAGS,
    "opencv": OPENCV,
    # Models by hf:USER/REPO.
    "hub": HUB,
    "docs": DOCS,
    "examples": EXAMPLES,
    "simd": ["pillow-simd"],
    # For drivers older than CUDA 13. The requirements bring DALI for CUDA 13 too, so docs/troubleshooting.md installs the package itself.
    "cuda12": ["nvidia-dali-cuda120>=1.50"],
}

setup(
    name="monodepth-engine",
    version="0.2.0",
    description="Self-supervised monocular depth: DALI loading, compiled AMP training, evaluation, prediction",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    keywords=["monocular depth", "self-supervised", "Monodepth2", "KITTI", "visual odometry", "ONNX", "DALI", "PyTorch"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
    python_requires=">=3.10",
    package_dir={"": "."},
    packages=find_packages(include=["splits*", "dataload*", "engine*", "export*"]),
    package_data={
        "splits": ["py.typed", "*.json", "*.md"],
        "dataload": ["py.typed"],
        "engine": ["py.typed", "*.png"],
        "export": ["py.typed"],
        "engine.evaluation": ["*.j2"],
        "export.targets": ["*.j2", "page/*"],
    },
    install_requires=[*REQUIRES, DALI],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            "md-train = engine.commands.md_train:md_train",
            "md-eval = engine.commands.md_eval:md_eval",
            "md-export = export.commands.md_export:md_export",
            "md-predict = export.commands.md_predict:md_predict",
            "md-data = dataload.commands.md_data:md_data",
        ]
    },
)
