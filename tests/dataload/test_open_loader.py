"""open_loader and data_config: a list in five lines for a training loop of one's own."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from batches import same

from dataload import Batch, DataConfig, Loader, data_config, open_dataset, open_loader, read_list
from splits import InputError

SMALL = {"height": 64, "width": 96, "batch_size": 3, "num_workers": 1}


@pytest.fixture(scope="module")
def tree(kitti_tree: Callable[..., Path]) -> Path:
    return kitti_tree(drives=("0001", "0002"), frames=6)


def config_of(tree: Path, **options: object) -> DataConfig:
    return data_config(data_path=str(tree), split=tree / "split", **{**SMALL, **options})


def test_each_iteration_is_the_next_epoch(tree: Path) -> None:
    with open_loader(config_of(tree)) as loader:
        assert isinstance(loader, Loader)
        assert len(loader) == loader.steps_per_epoch == 5
        for epoch in range(3):
            batches = list(loader)
            assert len(batches) == len(loader)
            assert isinstance(batches[0], Batch)
            assert all(same(a, b) for a, b in zip(batches, loader.epoch(epoch), strict=True))
        first = next(iter(loader))
        assert same(first, next(loader.epoch(3))), "an epoch left early counts"
        assert same(next(iter(loader)), next(loader.epoch(4)))


def test_lists_other_than_train_are_in_their_order_unless_said_otherwise(tree: Path) -> None:
    config = config_of(tree, batch_size=5)
    with open_loader(config, "val") as loader:
        assert torch.cat([batch.indices for batch in loader]).tolist() == list(range(16))
        assert [len(batch.indices) for batch in loader] == [5, 5, 5, 1]
    with open_loader(config, "val", training=True) as loader:
        shuffled = torch.cat([batch.indices for batch in loader]).tolist()
        assert len(shuffled) == 15
        assert shuffled != sorted(shuffled)
    with open_loader(config, "train", training=False) as loader:
        assert len(loader) == 4


def test_ranks_share_the_epoch(tree: Path) -> None:
    seen = []
    for rank in range(2):
        with open_loader(config_of(tree), rank=rank, world=2) as loader:
            seen += torch.cat([batch.indices for batch in loader]).tolist()
    assert len(set(seen)) == len(seen) == 12


def test_what_cannot_be_trained_on_is_left_out_and_missing_files_are_found_first(tree: Path, kitti_tree: Callable[..., Path]) -> None:
    config = config_of(tree, frame_ids=(0, -3))
    refs = read_list(config, open_dataset(config), "train")
    with open_loader(config) as loader:
        assert loader.refs == refs
        assert 0 < len(refs) < 16
    other = kitti_tree(frames=6)
    next(other.rglob("image_02/data/0000000003.jpg")).unlink()
    with pytest.raises(InputError, match=r"0000000003\.jpg"), open_loader(config_of(other)):
        pass
    with (
        pytest.raises(InputError, match="the training list has 16 samples, fewer than one batch of 20"),
        open_loader(config_of(tree, batch_size=20)),
    ):
        pass
    with pytest.raises(InputError, match=r"tset_files\.txt is missing"), open_loader(config_of(tree), "tset"):
        pass


def test_many_epochs_may_keep_their_frames_decoded(tree: Path, tmp_path: Path) -> None:
    kept = config_of(tree, frame_store="disk", frame_store_dir=str(tmp_path))
    with open_loader(kept, num_epochs=5) as stored, open_loader(config_of(tree, frame_store="none")) as cold:
        assert all(same(a, b) for a, b in zip(stored, cold, strict=True))
    assert len(list(tmp_path.iterdir())) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hieght": 192}, "there is no option hieght; did you mean height? choose from data_path, dataset, split, "),
        ({"banana": 192}, "there is no option banana; choose from"),
        ({"dataset": "kiti"}, "dataset 'kiti' is unknown; did you mean 'kitti'?"),
        ({"dataset": "evo"}, "--data_path is missing: the folder that holds the sequences of dataset evo"),
        ({"height": "192"}, "height='192' must be a whole number"),
        ({"height": 192.5}, "height=192.5 must be a whole number"),
        ({"use_stereo": 1}, "use_stereo=1 must be True or False"),
        ({"png": "yes"}, "png='yes' must be True or False"),
        ({"depth_scale": "x"}, "depth_scale='x' must be a number"),
        ({"frame_ids": (0, "s")}, "frame_ids='s' must be a whole number"),
        ({"loader": "fast"}, "loader=fast is unknown; choose from auto, dali, torch"),
        ({"data_path": 3}, "data_path=3 must be a path"),
        ({"data_path": ""}, "data_path='' is an empty path"),
        ({"split": "eigen_zho"}, "did you mean 'eigen_zhou'"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"batch_size": None}, "batch_size=None must be a whole number"),
        ({"height": 190}, "height_px=190 must be a multiple of 32"),
    ],
)
def test_wrong_options_are_named_with_the_remedy(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        data_config(**options)
    assert message in str(caught.value)


def test_options_take_the_types_that_python_has_for_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = data_config(data_path="~/kitti", frame_ids=[0, -1], png=True, frame_store_dir="stores", depth_scale=256)
    assert (config.data_path, config.frame_ids, config.image_ext) == (tmp_path / "kitti", (0, -1), ".png")
    assert (config.frame_store_dir, config.split, config.depth_scale) == (Path.cwd() / "stores", "eigen_zhou", 256.0)
    assert data_config() == DataConfig(data_path=Path("kitti_data"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda:99"}, r"^device=cuda:99: torch finds .*; give another device, or 'cpu'$"),
        ({"device": "gpu"}, r"^device='gpu' is no device of torch; give 'cpu', 'cuda', or 'cuda:1' for the second GPU$"),
        ({"device": None}, "^device=None is no device of torch"),
        ({"num_epochs": 0}, "^num_epochs=0 must be at least 1$"),
        ({"num_epochs": "3"}, "^num_epochs='3' must be a whole number$"),
        ({"world": 0}, "^world=0 must be at least 1$"),
        ({"rank": 1}, "^rank=1 must be below world=1: the first process is rank 0$"),
        ({"rank": -1}, "^rank=-1 must be 0 or more$"),
    ],
)
def test_what_no_loader_can_be_opened_with_is_refused(tree: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message), open_loader(config_of(tree), **options):
        pass


def test_after_its_block_a_loader_begins_no_epoch(tree: Path) -> None:
    with open_loader(config_of(tree)) as loader:
        pass
    with pytest.raises(InputError, match="this loader is closed, as it is after its with block"):
        next(iter(loader))
