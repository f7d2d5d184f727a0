"""What the tests of KITTI's layout share: its folders' names, and calibration files."""

from pathlib import Path

DATE = "2011_09_26"


def drive_folder(drive: str) -> str:
    """The folder field of a split line of this drive."""
    return f"{DATE}/{DATE}_drive_{drive}_sync"


def write_calibration(folder: Path, size_px: tuple[int, int]) -> None:
    """KITTI calibration files of a 90-degree-free, rectified pair with focal length 0.58 W and baseline 0.54 m."""
    height, width = size_px
    f, cx, cy = 0.58 * width, 0.5 * width, 0.5 * height
    p = {side: f"{f} 0 {cx} {-f * x} 0 {f} {cy} 0 0 0 1 0" for side, x in (("02", 0.0), ("03", 0.54))}
    lines = [f"S_rect_{c}: {width} {height}" for c in ("02", "03")]
    lines += ["R_rect_00: 1 0 0 0 1 0 0 0 1"] + [f"P_rect_{c}: {p[c]}" for c in ("02", "03")]
    (folder / "calib_cam_to_cam.txt").write_text("calib_time: 09-Jan-2012 13:57:47\n" + "\n".join(lines) + "\n")
    (folder / "calib_velo_to_cam.txt").write_text("calib_time: 15-Mar-2012 11:37:16\nR: 0 -1 0 0 0 -1 1 0 0\nT: 0 -0.08 -0.27\n")
