"""Which frames are taken and what is paired, by stamps alone."""

from pathlib import Path

import bags
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dataload.bags.batch import convert_all, sequences_of
from dataload.bags.options import ConvertOptions
from dataload.bags.timeline import pair, sort_stamps, subsample, tolerance_ns

MS = 1_000_000
stamps = st.lists(st.integers(0, 3000), min_size=1, max_size=60).map(lambda values: np.unique(np.array(values, np.int64) * MS))


def test_of_thirty_hertz_every_third_is_taken() -> None:
    times = np.arange(88, dtype=np.int64) * 100 * MS // 3
    assert (subsample(times, 10) == np.arange(0, 88, 3)).all()


def test_a_camera_of_just_this_rate_loses_no_frame_though_its_stamps_tremble() -> None:
    rng = np.random.default_rng(0)
    times = np.arange(200, dtype=np.int64) * 100 * MS + rng.integers(-40 * MS, 40 * MS, 200)
    times[0] = 0
    assert len(subsample(times, 10)) == 200


def test_zero_takes_all() -> None:
    assert (subsample(np.array([1, 2, 3], np.int64), 0) == [0, 1, 2]).all()


@given(stamps)
def test_there_is_one_frame_a_grid_point_and_it_is_the_nearest(times: np.ndarray) -> None:
    kept = subsample(times, 10)
    point = np.rint((times - times[0]) / (100 * MS))
    assert kept[0] == 0
    assert len(set(point[kept])) == len(kept) == len(set(point))
    for i in kept:
        off = np.abs(times - times[0] - point[i] * 100 * MS)
        assert off[i] == off[point == point[i]].min()


@given(stamps, stamps)
def test_pairs_are_the_nearest_within_the_tolerance(left: np.ndarray, right: np.ndarray) -> None:
    found = pair(left, right, 20 * MS)
    for i, stamp in enumerate(left):
        off = np.abs(right - stamp)
        assert (found[i] == -1) == (off.min() > 20 * MS)
        if found[i] >= 0:
            assert off[found[i]] == off.min()


def test_the_tolerance_is_20_ms_or_half_a_period() -> None:
    times = np.arange(5, dtype=np.int64) * 10 * MS
    assert tolerance_ns(times, 10) == 20 * MS
    assert tolerance_ns(times, 50) == 10 * MS
    assert tolerance_ns(times, 0) == 5 * MS


def test_stamps_are_sorted_and_the_first_of_equal_ones_counts() -> None:
    line = sort_stamps([30, 10, 20, 10, 20])
    assert line.stamps_ns.tolist() == [10, 20, 30]
    assert line.numbers.tolist() == [1, 2, 0]
    assert (line.repeated, line.backwards) == (2, 2)


def test_a_recording_with_bad_stamps_is_set_right_and_says_so(tmp_path: Path) -> None:
    size, K = (32, 48), np.array([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]])
    messages = [bags.camera_info("/left/camera_info", K, size)]
    # Recorded in this order; stamped backwards once, twice the same, once not at all.
    offsets = [0, 200, 100, 300, 300, None, 500]
    for i, offset in enumerate(offsets):
        log = bags.START_NS + i * bags.PERIOD_NS
        stamp = 0 if offset is None else bags.START_NS + offset * MS
        messages.append(bags.compressed("/left/image_rect_color/compressed", bags.jpeg(bags.picture(size, i)), stamp, log_ns=log))
    path = bags.write_bag(tmp_path, "drive", "mcap", messages)
    (report,) = convert_all(sequences_of([path]), tmp_path / "out", ConvertOptions(), progress=False).reports
    # The one without a stamp was recorded at 500 ms, and comes before the one stamped so.
    assert report.stamps_ns == [bags.START_NS + offset * MS for offset in (0, 100, 200, 300, 500)]
    assert report.dropped == {"repeated stamps": 2}
    assert any("1 headers without a stamp" in note for note in report.notes)
    assert any("1 stamps run backwards; frames are sorted by stamp" in note for note in report.notes)
    written = tmp_path / "out" / "drive" / "front_rgb_left"
    assert (written / f"drive_{bags.START_NS + 100 * MS}.jpg").read_bytes() == bags.jpeg(bags.picture(size, 2))
    assert (written / f"drive_{bags.START_NS + 300 * MS}.jpg").read_bytes() == bags.jpeg(bags.picture(size, 3))


def test_right_frames_are_paired_within_20_ms_and_thinned_with_the_left(tmp_path: Path) -> None:
    size, K = (32, 48), np.array([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]])
    messages = [bags.camera_info("/left/camera_info", K, size), bags.camera_info("/right/camera_info", K, size, baseline_m=0.3)]
    for i in range(28):
        stamp = bags.START_NS + i * 33_333_333
        late = 19 if i < 15 else 21
        messages.append(bags.compressed("/left/image_rect/compressed", bags.jpeg(bags.picture(size, i)), stamp))
        if i % 3 == 0:
            messages.append(bags.compressed("/right/image_rect/compressed", bags.jpeg(bags.picture(size, i + 100)), stamp + late * MS))
    path = bags.write_bag(tmp_path, "drive", "db3", messages)
    (report,) = convert_all(sequences_of([path]), tmp_path / "out", ConvertOptions(), progress=False).reports
    assert (len(report.stamps_ns), report.right) == (10, 5)
    assert report.dropped == {"above 10 Hz": 18}
    third = tmp_path / "out" / "drive" / "front_rgb_right" / f"drive_{report.stamps_ns[3]}.jpg"
    assert third.read_bytes() == bags.jpeg(bags.picture(size, 109))
