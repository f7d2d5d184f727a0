"""The tree of frames of a recording (``/tf_static``), as far as it is static."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splits.errors import InputError

# Robots have some dozens of frames.
MOST_TRANSFORMS = 10_000
Tree = Mapping[tuple[str, str], NDArray[np.float64]]  # (parent, child) to T_parent_child


def tree_of(messages: Iterable[Any]) -> Tree:
    """The transforms of some TFMessages, (4, 4) each; of one that is given twice, the last. Those that are no finite numbers are left out.

    ``InputError`` where there are more than a robot has.
    """
    tree: dict[tuple[str, str], NDArray[np.float64]] = {}
    for message in messages:
        for stamped in message.transforms:
            T = np.eye(4)
            rotation, translation = stamped.transform.rotation, stamped.transform.translation
            T[:3, :3] = _rotation(rotation.x, rotation.y, rotation.z, rotation.w)
            T[:3, 3] = translation.x, translation.y, translation.z
            if np.isfinite(T).all():
                tree[_without_slash(stamped.header.frame_id), _without_slash(stamped.child_frame_id)] = T
            if len(tree) > MOST_TRANSFORMS:
                raise InputError(
                    f"/tf_static holds more than {MOST_TRANSFORMS:,} transforms; give --depth_extrinsics or --points_extrinsics"
                )
    return tree


def between(tree: Tree, a: str, b: str) -> NDArray[np.float64] | None:
    """T_a_b (4, 4), through whatever frames lie between; None where the two are not connected."""
    a, b = _without_slash(a), _without_slash(b)
    steps: dict[str, list[tuple[str, NDArray[Any]]]] = {}
    for (parent, child), T in tree.items():
        steps.setdefault(parent, []).append((child, T))
        steps.setdefault(child, []).append((parent, np.linalg.inv(T)))
    reached, waiting = {a: np.eye(4)}, deque([a])
    while waiting:
        frame = waiting.popleft()
        for other, T in steps.get(frame, []):
            if other not in reached:
                with np.errstate(all="ignore"):
                    reached[other] = reached[frame] @ T
                waiting.append(other)
    found = reached.get(b)
    return found if found is not None and np.isfinite(found).all() else None


def _without_slash(frame_id: str) -> str:
    return frame_id.lstrip("/")


def _rotation(x: float, y: float, z: float, w: float) -> NDArray[np.float64]:
    """(3, 3) of a quaternion, which need not be quite of unit length."""
    norm = x * x + y * y + z * z + w * w
    s = 2 / norm if norm else 0.0
    return np.array(
        [
            [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
            [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
            [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
        ]
    )
