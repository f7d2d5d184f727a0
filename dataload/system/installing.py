"""How to install optional packages."""

from __future__ import annotations

import shlex

from splits.version import DISTRIBUTION

# For an installation without its requirements, as after pip install --no-deps.
WITH_REQUIREMENTS = f"install {DISTRIBUTION} with its requirements (pip install . in its folder)"
# The packages of setup.py's extras, with a bound where a later version would not do; a test compares the two.
EXTRA_PACKAGES = {
    "video": ("av",),
    "bags": ("rosbags<0.12", "apsw", "lz4"),
    "opencv": ("opencv-python-headless",),
    "hub": ("huggingface_hub",),
}


def pip_install(extra: str) -> str:
    """The command that installs an extra's packages by their own names: it works wherever the engine itself came from."""
    return shlex.join(("pip", "install", *EXTRA_PACKAGES[extra]))
