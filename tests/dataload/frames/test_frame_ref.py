"""Split lines to frame references; malformed ones are named with file, line number and remedy."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import splits
from dataload.frames.frame_ref import FrameRef, parse_split
from splits.errors import InputError


def test_forms_of_a_line() -> None:
    lines = ["2011_09_26/drive 0000000046 l", "  9 123   r ", "", "9 7 2", "9 7 3", "image 5"]
    assert parse_split(lines, source="list") == (
        FrameRef("2011_09_26/drive", 46, "l"),
        FrameRef("9", 123, "r"),
        FrameRef("9", 7, "l"),
        FrameRef("9", 7, "r"),
        FrameRef("image", 5, None),
    )


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("drive", "1 field where 3 are expected"),
        ("drive 1 l extra", "4 fields where 3 are expected"),
        ("drive x1 l", "frame number 'x1' is not a whole number"),
        ("drive -1 l", "frame number '-1' is not a whole number"),
        ("drive 1.5 l", "frame number '1.5' is not a whole number"),
        ("drive 1 left", "side 'left' is none of l, r, 2, 3"),
    ],
)
def test_malformed_line(line: str, fault: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_split(["drive 0 l", "", line], source="my/train_files.txt")
    assert str(caught.value) == f"my/train_files.txt, line 3: {line!r}: {fault}; a line reads '<folder> <frame number> <side l or r>'"


@settings(max_examples=25, deadline=None)
@given(folder=st.text("abc_/019", min_size=1), frame=st.integers(0, 10**10), side=st.sampled_from(["l", "r"]), width=st.integers(1, 10))
def test_written_reference_reads_back(folder: str, frame: int, side: str, width: int) -> None:
    assert parse_split([f"{folder} {frame:0{width}d} {side}"], source="list") == (FrameRef(folder, frame, side),)


@pytest.mark.parametrize(("split", "subset"), [(name, subset) for name in splits.NAMES for subset in splits.subsets(name)])
def test_published_lists_parse(split: str, subset: str) -> None:
    lines = splits.read_lines(split, subset)
    refs = parse_split(lines, source=split)
    assert len(refs) == len(lines)
    assert all(ref.side is None for ref in refs) == ((split, subset) == ("benchmark", "test"))
