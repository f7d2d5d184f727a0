"""What DALI's pipelines cost and outlive: how often one is built, runs that are left early, batches that are kept, damage in between."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import HAS_DALI, count_builds
from PIL import Image

from dataload.config import DataConfig
from dataload.pipeline.dali_pipeline import BATCHES_AHEAD, DaliPipeline
from dataload.pipeline.decoders import DaliDecoder, FileBatch
from splits.errors import InputError

pytestmark = pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")
CPU = torch.device("cpu")
CONFIG = DataConfig(data_path=Path("unused"), height_px=64, width_px=96)


@pytest.fixture
def decoder() -> DaliDecoder:
    return DaliDecoder(CONFIG, CPU)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    return count_builds(monkeypatch)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.jpg" for number in range(12)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (80, 120, 3), dtype=np.uint8)).save(path)
    return paths


def cut(path: Path) -> None:
    """Damages a file in a way that its header does not show."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def batches(paths: list[Path], size: int = 2) -> Iterator[FileBatch]:
    return (FileBatch(paths[start : start + size]).read() for start in range(0, len(paths), size))


def pipeline_of(decoder: DaliDecoder) -> DaliPipeline:
    return decoder.pipeline(batch_size=2, num_threads=1)


def test_single_frames_from_any_thread_share_one_pipeline(decoder: DaliDecoder, paths: list[Path], builds: list[int]) -> None:
    with ThreadPoolExecutor(4) as pool:
        frames = list(pool.map(decoder.frame, paths))
    assert len(builds) == 1
    (expected,) = decoder.decode(decoder.pipeline(batch_size=len(paths), num_threads=1), batches(paths, len(paths)))
    assert np.array_equal(frames, expected)


def test_naming_a_file_that_dali_alone_refuses_builds_one_pipeline(
    decoder: DaliDecoder, paths: list[Path], builds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(paths[-1])
    monkeypatch.setattr("dataload.pipeline.decoders.read_picture", lambda path: None)
    with pytest.raises(InputError, match=r"11\.jpg is a damaged image \(DALI's decoder refuses it"):
        decoder.name_the_damaged(paths)
    assert len(builds) == 1


def test_a_damaged_file_costs_the_pipeline_and_no_other(decoder: DaliDecoder, paths: list[Path], builds: list[int]) -> None:
    pipeline, sound = pipeline_of(decoder), paths[5].read_bytes()
    cut(paths[5])
    for fault in range(1, 4):
        with pytest.raises(InputError, match=r"5\.jpg is a damaged image"):
            list(decoder.decode(pipeline, batches(paths)))
        assert len(builds) == fault
    paths[5].write_bytes(sound)
    assert len(list(decoder.decode(pipeline, batches(paths)))) == 6
    assert len(list(decoder.decode(pipeline, batches(paths)))) == 6
    assert len(builds) == 4


def test_a_missing_file_costs_none(decoder: DaliDecoder, paths: list[Path], builds: list[int]) -> None:
    pipeline, sound = pipeline_of(decoder), paths[7].read_bytes()
    paths[7].unlink()
    for _ in range(3):
        with pytest.raises(InputError, match=r"cannot read .*7\.jpg"):
            list(decoder.decode(pipeline, batches(paths)))
    paths[7].write_bytes(sound)
    assert len(list(decoder.decode(pipeline, batches(paths)))) == 6
    assert len(builds) == 1


def test_what_a_run_left_early_has_begun_is_nobodys_fault(decoder: DaliDecoder, paths: list[Path]) -> None:
    pipeline = pipeline_of(decoder)
    expected = torch.cat(list(decoder.decode(pipeline, batches(paths[4:]))))
    cut(paths[2])
    first = decoder.decode(pipeline, batches(paths))
    next(first)
    assert torch.equal(torch.cat(list(decoder.decode(pipeline, batches(paths[4:])))), expected)
    with pytest.raises(AssertionError, match="another run has been begun"):
        next(first)


def test_kept_frames_stay_as_they_are_while_others_are_made(decoder: DaliDecoder, paths: list[Path]) -> None:
    pipeline = pipeline_of(decoder)
    kept = []
    for _ in range(3):
        kept += [(frames, frames.clone()) for frames in decoder.decode(pipeline, batches(paths * (1 + BATCHES_AHEAD)))]
    assert all(torch.equal(frames, copy) for frames, copy in kept)


def test_the_last_batch_may_be_smaller(decoder: DaliDecoder, paths: list[Path]) -> None:
    found = list(decoder.decode(pipeline_of(decoder), batches(paths[:5])))
    assert [len(frames) for frames in found] == [2, 2, 1]
    assert np.array_equal(torch.cat(found), [decoder.frame(path) for path in paths[:5]])
