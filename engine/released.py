"""The thirteen models that Monodepth2's authors released, with what they publish of each."""

from __future__ import annotations

from typing import NamedTuple

# Each lies there as <name>.zip.
BASE_URL = "https://storage.googleapis.com/niantic-lon-static/research/monodepth2/"
LICENCE = "Monodepth2's released weights: non-commercial use only"
# Where the facts of the table come from, the scores among them.
SOURCE = "https://github.com/nianticlabs/monodepth2#readme"


class ReleasedModel(NamedTuple):
    """What is published of a released model; all scores are of the Eigen split's 697 images, cropped as Garg et al., up to 80 m.

    Attributes:
        md5: of the zip; None where it is not published, so that a download cannot be checked.
        num_layers: of the ResNet encoder.
        size_px: (height, width) of its input.
        training: what its loss compared: mono, stereo or mono+stereo.
        pretrained: the encoder started from ImageNet's weights.
        data: what it was trained on: kitti, the raw drives of the Eigen split, or odometry, KITTI's odometry sequences.
        abs_rel: mean of |depth - truth| / truth; None where its authors publish none.
        a1: share of pixels within a factor of 1.25 of the truth; None likewise.
    """

    name: str
    md5: str | None
    num_layers: int
    size_px: tuple[int, int]
    training: str
    pretrained: bool
    data: str
    abs_rel: float | None
    a1: float | None


LOW, HIGH = (192, 640), (320, 1024)
_MODELS = (
    ReleasedModel("mono_640x192", "a964b8356e08a02d009609d9e3928f7c", 18, LOW, "mono", True, "kitti", 0.115, 0.877),
    ReleasedModel("stereo_640x192", "3dfb76bcff0786e4ec07ac00f658dd07", 18, LOW, "stereo", True, "kitti", 0.109, 0.864),
    ReleasedModel("mono+stereo_640x192", "c024d69012485ed05d7eaa9617a96b81", 18, LOW, "mono+stereo", True, "kitti", 0.106, 0.874),
    ReleasedModel("mono_1024x320", "0ab0766efdfeea89a0d9ea8ba90e1e63", 18, HIGH, "mono", True, "kitti", 0.115, 0.879),
    ReleasedModel("stereo_1024x320", "afc2f2126d70cf3fdf26b550898b501a", 18, HIGH, "stereo", True, "kitti", 0.107, 0.874),
    ReleasedModel("mono+stereo_1024x320", "cdc5fc9b23513c07d5b19235d9ef08f7", 18, HIGH, "mono+stereo", True, "kitti", 0.106, 0.876),
    ReleasedModel("mono_no_pt_640x192", "9c2f071e35027c895a4728358ffc913a", 18, LOW, "mono", False, "kitti", 0.132, 0.845),
    ReleasedModel("stereo_no_pt_640x192", "41ec2de112905f85541ac33a854742d1", 18, LOW, "stereo", False, "kitti", 0.130, 0.831),
    ReleasedModel("mono+stereo_no_pt_640x192", "46c3b824f541d143a45c37df65fbab0a", 18, LOW, "mono+stereo", False, "kitti", 0.127, 0.836),
    ReleasedModel("mono_odom_640x192", None, 18, LOW, "mono", True, "odometry", None, None),
    ReleasedModel("mono+stereo_odom_640x192", None, 18, LOW, "mono+stereo", True, "odometry", None, None),
    ReleasedModel("mono_resnet50_640x192", None, 50, LOW, "mono", True, "kitti", None, None),
    ReleasedModel("mono_resnet50_no_pt_640x192", None, 50, LOW, "mono", False, "kitti", None, None),
)
RELEASED: dict[str, ReleasedModel] = {model.name: model for model in _MODELS}
# All names, as short as a line of help needs them.
RELEASED_NAMES = (
    "{mono,stereo,mono+stereo}_{640x192,1024x320}, {mono,stereo,mono+stereo}_no_pt_640x192 (no ImageNet weights), "
    "{mono,mono+stereo}_odom_640x192, mono_resnet50_640x192, mono_resnet50_no_pt_640x192"
)
