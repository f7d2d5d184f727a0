"""``md-data check``: its verdict, exit status and files; wrong usage; an answer at once to --help."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from inspected_trees import folder_tree, write_lists

from dataload.check import inspection
from dataload.commands.check import check


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return folder_tree(tmp_path / "data", {"a": 5, "b": 4})


def run(*args: object) -> Result:
    return CliRunner().invoke(check, [str(arg) for arg in args], prog_name="md-data check")


def checked(tree: Path, *args: object) -> Result:
    return run("--dataset", "folder", "--data_path", tree, "--height", 96, "--width", 320, *args)


def test_a_sound_dataset_is_ready_and_its_sheet_lies_where_no_frames_are(tree: Path) -> None:
    for _ in range(2):  # the sheet of the first is no frame of the second
        result = checked(tree)
        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines()[-1] == "ready"
        assert f"frames in {tree / 'splits' / 'contact_sheet.jpg'}: look at them" in result.output
        assert "9 targets of 2 sequences" in result.output
    assert (tree / "splits" / "contact_sheet.jpg").is_file()


def test_problems_are_named_and_end_with_their_number(tree: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        (tree / "a" / f"000{number}.jpg").write_bytes(b"\xff\xd8 nothing")
    (tree / "calibration.yaml").unlink()
    result = checked(tree, "--json", tmp_path / "report.json", "--sheet", tmp_path / "sheet.png")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "2 problems"
    assert "- problem: 2 images damaged: a/0001.jpg, a/0002.jpg;" in result.output
    saved = json.loads((tmp_path / "report.json").read_text())
    assert saved["verdict"] == "2 problems"
    assert saved["frames"]["damaged"] == ["a/0001.jpg", "a/0002.jpg"]
    assert saved["sheet"] == str(tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").is_file()


def test_values_in_a_row_are_taken_as_md_train_takes_them(tree: Path) -> None:
    (tree / "calibration.yaml").unlink()
    result = checked(tree, "--frame_ids", "0", "-1", "1", "-2", "--intrinsics", "190", "190", "160", "48")
    assert result.exit_code == 0, result.output
    assert "frames 0 -1 1 -2" in result.output


def test_the_datasets_own_split_is_found_once_it_is_there(tree: Path) -> None:
    write_lists(tree / "splits" / "folder", train=["a 0001", "a 0002"], val=["b 0001"])
    result = checked(tree)
    assert f"split {tree / 'splits' / 'folder'}" in result.output
    assert "2 targets of 1 sequence" in result.output
    assert f"{tree / 'splits' / 'contact_sheet_folder.jpg'}" in result.output


def test_a_class_of_ones_own_is_held_to_the_contract(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_drives.py").write_text(
        "from dataload.datasets.folder import Folder\n\n\n"
        "class Mine(Folder):\n"
        "    def K(self, ref, height_px, width_px):\n"
        "        return super().K(ref, 96, 320)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    result = run("--dataset", "my_drives:Mine", "--data_path", tree, "--height", 96, "--width", 320)
    assert result.exit_code == 1
    assert "- problem: dataset my_drives:Mine: K() does not scale with width_px" in result.output
    assert result.stdout.splitlines()[-1] == "2 problems"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--data_pth", "x"], "no such option --data_pth; did you mean --data_path?"),
        (["--dataset", "foldr"], "dataset 'foldr' is unknown; did you mean 'folder'?"),
        (["--dataset", "evo"], "--data_path is missing"),
        (["--split", "eigen_zuh"], "did you mean 'eigen_zhou'?"),
        (["--height", "100"], "height_px=100 must be a multiple of 32"),
        (["--frame_ids", "1", "2"], "must start with 0, the target"),
        (["--json", "no/such/place.json"], "--json: no folder no/such"),
        (["--sheet", "sheet.txt"], "--sheet: sheet.txt is no picture's name"),
    ],
)
def test_wrong_usage_is_told_with_the_remedy(args: list[str], told: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert told in result.output


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    result = run("--dataset", "folder", "--data_path", tmp_path / "nowhere")
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: data_path {tmp_path / 'nowhere'} does not exist or is no folder;")
    assert len(result.output.splitlines()) == 1


def test_interrupting_ends_with_status_130(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(inspection, "inspect_frames", interrupted)
    assert checked(tree).exit_code == 130


def test_help_needs_neither_torch_nor_numpy() -> None:
    program = (
        "import sys; from dataload.commands.check import check\n"
        "assert not {'torch', 'numpy', 'PIL'} & set(sys.modules), 'imported'\n"
        "check(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--use_stereo" in done.stdout
