"""--model by name against a real server on this machine: downloaded, continued, checked, unpacked safely; files and zips by hand."""

import hashlib
import io
import itertools
import re
import traceback
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hostile_files import zip_of_entries
from predicting import names, run, save_image, save_model
from published import networks_of
from serving import serving

from dataload.system import download as resuming
from engine.commands.md_eval import md_eval
from engine.fetching import models
from engine.fetching.download import download
from engine.fetching.models import released_model, unpack
from engine.inference.depth_network import load_depth_network
from engine.released import BASE_URL, RELEASED, RELEASED_NAMES
from engine.weights import InputSize, save_weights, weights_folder
from export.commands.md_export import md_export
from export.prediction.models import find_model
from splits.errors import InputError

NAME = "mono+stereo_640x192"


class Server(ThreadingHTTPServer):
    """Serves one file with ranges; ``cut`` ends an answer early, ``ranges`` keeps what was asked for."""

    content = b""
    cut: int | None = None
    ignore_range = False
    status: int | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str | None]] = []

    def handle_error(self, *_args: object) -> None:
        """Clients that hang up are part of these tests."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append((self.path, wanted))
        if server.status is not None:
            self.send_error(server.status)
            return
        start, size = 0, len(server.content)
        if wanted and not server.ignore_range:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= size:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{size}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        else:
            self.send_response(200)
        body = server.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if server.cut is None else body[: server.cut])

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A zip like the released ones: the weight files of a small untrained network."""
    weights = save_model(tmp_path_factory.mktemp("model"), use_stereo=True) / "models" / "weights_0"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for path in weights.iterdir():
            opened.write(path, path.name)
    return buffer.getvalue()


@pytest.fixture
def server(archive: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    server.content = archive
    monkeypatch.setattr(models, "BASE_URL", server.url)
    monkeypatch.setitem(RELEASED, NAME, RELEASED[NAME]._replace(md5=hashlib.md5(archive).hexdigest()))
    with serving(server):
        yield server


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "cache" / "md-engine" / "models"


def test_the_thirteen_models_are_those_published() -> None:
    assert len(RELEASED) == 13
    hashes = [model.md5 for model in RELEASED.values() if model.md5 is not None]
    assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in hashes)
    assert len(set(hashes)) == 9
    assert BASE_URL == "https://storage.googleapis.com/niantic-lon-static/research/monodepth2/"
    for name, model in RELEASED.items():  # a name says what its model is
        training, *more, size = name.split("_")
        assert (model.name, model.training) == (name, training)
        assert size == f"{model.size_px[1]}x{model.size_px[0]}"
        assert (model.num_layers == 50) == ("resnet50" in more)
        assert model.pretrained == ("no" not in more)
        assert (model.data == "odometry") == ("odom" in more)
        assert (model.abs_rel is None) == (model.a1 is None) == (model.md5 is None)


def test_the_names_in_short_are_all_of_them() -> None:
    short = re.sub(r" \(.*?\)", "", RELEASED_NAMES)
    spelled: list[str] = []
    for part in re.split(r", (?![^{]*})", short):
        pieces = [piece.strip("{}").split(",") for piece in re.findall(r"{.*?}|[^{}]+", part)]
        spelled += ["".join(each) for each in itertools.product(*pieces)]
    assert sorted(spelled) == sorted(RELEASED)


def test_a_name_is_downloaded_once(server: Server, cache: Path, tmp_path: Path) -> None:
    image = save_image(tmp_path / "a.jpg")
    first = run("--image_path", image, "--model_name", NAME)
    assert first.exit_code == 0, first.output
    assert server.asked == [("/mono%2Bstereo_640x192.zip", None)]
    assert f"{NAME}.zip: 100%" in first.output
    assert "for non-commercial use" in first.output
    assert names(cache) == [NAME]
    assert {"encoder.pth", "depth.pth"} <= set(names(cache / NAME))
    assert (tmp_path / "a_disp.npy").is_file()
    again = run("--image_path", image, "--model_name", NAME)
    assert again.exit_code == 0, again.output
    assert "Downloading" not in again.output
    assert len(server.asked) == 1


def test_a_download_that_broke_off_is_continued(server: Server, cache: Path, tmp_path: Path) -> None:
    half = len(server.content) // 2
    server.cut = half
    image = save_image(tmp_path / "a.jpg")
    first = run("--image", image, "--model", NAME)
    assert first.exit_code == 1
    line = first.output.splitlines()[-1]
    assert line.startswith(f"Error: {NAME}: the download ended early after {half / 1e6:.1f} MB; repeat the command to resume, or fetch")
    assert names(cache) == [f"{NAME}.zip.part"]
    kept = (cache / f"{NAME}.zip.part").stat().st_size
    assert half - resuming.CHUNK_BYTES < kept <= half
    server.cut = None
    second = run("--image", image, "--model", NAME)
    assert second.exit_code == 0, second.output
    assert [wanted for _, wanted in server.asked] == [None, f"bytes={kept}-"]
    assert names(cache) == [NAME]


def test_a_server_that_cannot_continue_starts_anew(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / f"{NAME}.zip.part").write_bytes(server.content[:1000])
    server.ignore_range = True
    assert find_model(Path(NAME)) == cache / NAME
    assert [wanted for _, wanted in server.asked] == ["bytes=1000-"]


def test_a_part_that_is_complete_or_too_long(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    part = cache / f"{NAME}.zip.part"
    part.write_bytes(server.content)
    assert download(server.url + "x.zip", cache / f"{NAME}.zip", RELEASED[NAME].md5).read_bytes() == server.content
    assert [wanted for _, wanted in server.asked] == [f"bytes={len(server.content)}-"]
    (cache / f"{NAME}.zip").unlink()
    part.write_bytes(server.content + b"more")
    assert find_model(Path(NAME)) == cache / NAME
    assert [wanted for _, wanted in server.asked[1:]] == [f"bytes={len(server.content) + 4}-", None]


def test_a_file_of_another_hash_is_removed(server: Server, cache: Path, tmp_path: Path) -> None:
    server.content = server.content[:-100] + bytes(100)
    result = run("--image", save_image(tmp_path / "a.jpg"), "--model", NAME)
    assert result.exit_code == 1
    line = result.output.splitlines()[-1]
    assert line.startswith(
        f"Error: {NAME}: what was downloaded is damaged (its md5 is wrong) and removed; try again, or fetch {server.url}"
    )
    assert names(cache) == []


def test_ctrl_c_keeps_what_is_there(server: Server, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "CHUNK_BYTES", 1000)
    sizes: list[int] = []

    def update(_bar: object, size: int) -> None:
        sizes.append(size)
        if len(sizes) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("tqdm.tqdm.update", update)
    result = run("--image", save_image(tmp_path / "a.jpg"), "--model", NAME)
    assert result.exit_code == 130, result.output
    assert names(cache) == [f"{NAME}.zip.part"]
    assert (cache / f"{NAME}.zip.part").read_bytes() == server.content[:3000]


def test_offline_says_how_to_do_it_by_hand(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = Server()
    closed.server_close()
    monkeypatch.setattr(models, "BASE_URL", closed.url)
    result = run("--image", save_image(tmp_path / "a.jpg"), "--model", "mono_640x192")
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == (
        f"Error: mono_640x192 cannot be downloaded: no connection to 127.0.0.1:{closed.server_port}; try again online, or fetch "
        f"{closed.url}mono_640x192.zip (md5 a964b8356e08a02d009609d9e3928f7c) by hand and give its path, "
        "mono_640x192.zip, instead of the name"
    )
    with pytest.raises(InputError) as raised:
        released_model("mono_640x192")
    assert "".join(traceback.format_exception(raised.value)).count("Traceback") == 1


def test_a_resnet_50_whose_hash_nobody_publishes(server: Server, cache: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    networks = networks_of(frame_ids=(0,), use_stereo=True, num_layers=50)
    save_weights(tmp_path / "resnet", networks, InputSize(64, 96, False))
    server.content = zip_of(tmp_path / "r.zip", *((p.name, 0o100644, p.read_bytes()) for p in (tmp_path / "resnet").iterdir())).read_bytes()
    name = "mono_resnet50_640x192"
    first = run("--image", save_image(tmp_path / "a.jpg"), "--model", name)
    assert first.exit_code == 0, first.output
    assert first.output.count(f"{name}.zip could not be checked: its authors publish no hash of it") == 1
    assert (tmp_path / "a_disp.npy").is_file()
    assert load_depth_network(Path(name)).num_layers == 50
    again = run("--image", tmp_path / "a.jpg", "--model", name)
    assert again.exit_code == 0, again.output
    assert "could not be checked" not in again.output
    assert [path for path, _ in server.asked] == [f"/{name}.zip"]


def test_what_is_no_zip_is_not_kept_where_no_hash_tells(server: Server, cache: Path, archive: bytes) -> None:
    server.content = b"<html>Please log in to this network</html>"
    with pytest.raises(
        InputError, match=r"mono_odom_640x192: what was downloaded is no zip, and removed; try again, or fetch http\S+ by hand"
    ):
        released_model("mono_odom_640x192")
    assert names(cache) == []
    server.content = archive
    assert released_model("mono_odom_640x192") == cache / "mono_odom_640x192"


def test_every_command_takes_a_name(server: Server, cache: Path, tmp_path: Path) -> None:
    assert weights_folder(Path(NAME)) == cache / NAME  # what evaluation and training start from
    missing = tmp_path / "none"
    evaluated = CliRunner().invoke(md_eval, ["--load_weights_folder", NAME, "--eval_mono", "--data_path", str(missing)])
    assert evaluated.exit_code == 1
    assert f"{missing} does not exist" in evaluated.output  # the data: the weights were found
    exported = CliRunner().invoke(md_export, ["--load_weights_folder", NAME, "--out", "model.onnx"])
    assert exported.exit_code == 0, exported.output
    mistyped = CliRunner().invoke(md_eval, ["--load_weights_folder", "mono_640x129", "--eval_mono"])
    assert "nor a released model of that name; did you mean mono_640x192?" in mistyped.output
    assert len(server.asked) == 1


def test_a_server_that_refuses(server: Server, tmp_path: Path) -> None:
    server.status = 403
    result = run("--image", save_image(tmp_path / "a.jpg"), "--model", NAME)
    assert result.exit_code == 1
    assert f"{NAME} cannot be downloaded: the server says 403 Forbidden; try again later, or fetch" in result.output


def test_a_zip_fetched_by_hand(server: Server, archive: bytes, cache: Path, tmp_path: Path) -> None:
    by_hand = tmp_path / f"{NAME}.zip"
    by_hand.write_bytes(archive)
    result = run("--image", save_image(tmp_path / "a.jpg"), "--model", by_hand)
    assert result.exit_code == 0, result.output
    assert (names(cache), server.asked) == ([NAME], [])
    own = tmp_path / "own.zip"
    with zipfile.ZipFile(own, "w") as opened:  # as people zip: with the folder
        for path in (cache / NAME).iterdir():
            opened.write(path, f"my model/{path.name}")
    assert find_model(own).name == "my model"
    by_hand.write_bytes(archive[:-1])
    with pytest.raises(InputError, match=rf"is not {re.escape(NAME)} as published \(md5 .*; download it again, or rename it"):
        find_model(by_hand)
    own.write_bytes(b"no zip")
    with pytest.raises(InputError, match=r"own.zip cannot be unpacked \(File is not a zip file\); download it again"):
        find_model(own)
    assert all(not name.startswith(".") for name in names(cache))


def test_a_zip_damaged_inside(tmp_path: Path) -> None:
    damaged = tmp_path / "a.zip"
    with zipfile.ZipFile(damaged, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("encoder.pth", bytes(range(256)) * 40)
        start = opened.getinfo("encoder.pth").header_offset + 30 + len("encoder.pth")
    content = bytearray(damaged.read_bytes())
    content[start] = 0xFF  # no kind of block that deflate has
    damaged.write_bytes(content)
    with pytest.raises(InputError, match=r"a.zip cannot be unpacked \(Error -3 while decompressing data: .*\); download it again"):
        unpack(damaged, tmp_path / "out")
    content[-6:-2] = (2**31).to_bytes(4, "little")  # where its table of contents would begin
    damaged.write_bytes(content)
    with pytest.raises(InputError, match=r"a.zip cannot be unpacked"):
        unpack(damaged, tmp_path / "out")


def test_a_cache_that_cannot_be_written(server: Server, archive: bytes, cache: Path, tmp_path: Path) -> None:
    cache.parent.parent.write_text("a file where the cache folder would be")
    (tmp_path / "own.zip").write_bytes(archive)
    by_name = run("--image", save_image(tmp_path / "a.jpg"), "--model", NAME)
    assert by_name.exit_code == 1
    assert f"Error: {NAME} cannot be kept in {cache} (Not a directory); make it writable, or fetch {server.url}" in by_name.output
    by_path = run("--image", tmp_path / "a.jpg", "--model", tmp_path / "own.zip")
    assert by_path.exit_code == 1
    assert by_path.output == (
        f"Error: {tmp_path / 'own.zip'} cannot be unpacked into {cache} (Not a directory); "
        "unpack it by hand and give the folder with encoder.pth instead\n"
    )


def zip_of(path: Path, *entries: tuple[str, int, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as opened:
        for name, mode, content in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            opened.writestr(info, content)
    return path


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("../evil", 0o100644), ("a/../../evil", 0o100644), ("/evil", 0o100644), ("..\\evil", 0o100644), ("C:\\evil", 0o100644),
        ("C:evil", 0o100644), ("\\\\host\\evil", 0o100644), ("link", 0o120777), ("pipe", 0o010644),
    ],
)  # fmt: skip
def test_no_entry_leaves_the_folder(tmp_path: Path, name: str, mode: int) -> None:
    archive = zip_of(tmp_path / "a.zip", ("encoder.pth", 0o100644, b"1"), (name, mode, b"/etc/passwd"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"a.zip is not unpacked: its entry .* would lie outside the folder or is no plain file"):
        unpack(archive, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_zip_too_large_or_without_a_model_leaves_nothing(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zip_of(tmp_path / "a.zip", ("readme", 0o100644, bytes(100)))
    with pytest.raises(InputError, match=r"holds 0 files encoder.pth instead of one"):
        find_model(archive)
    assert not names(cache)
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("encoder.pth", bytes(2**24))
    with pytest.raises(InputError, match=r"bytes would become 16,777,216, as no model's do"):
        find_model(bomb)
    many = tmp_path / "many.zip"
    with zipfile.ZipFile(many, "w") as opened:
        for number in range(10_001):
            opened.writestr(f"{number}.txt", b"")
    with pytest.raises(InputError, match=r"it has 10,001 entries, a model has ten"):
        find_model(many)
    many.write_bytes(zip_of_entries(400_000))
    with pytest.raises(InputError, match=r"many.zip .*it has 400,000 entries"):
        find_model(many)
    assert not names(cache)
    monkeypatch.setenv("MD_MAX_UNPACKED_BYTES", "99")
    with pytest.raises(InputError, match=r"an archive's content of .* bytes is not read, at most 99 are"):
        unpack(archive, tmp_path / "out")


def test_files_of_a_weights_folder(archive: bytes, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    (tmp_path / "w.zip").write_bytes(archive)
    unpack(tmp_path / "w.zip", weights)
    for name in ("encoder.pth", "depth.pth"):
        assert weights_folder(weights / name) == weights
    result = run("--image", save_image(tmp_path / "a.jpg"), "--model", weights / "depth.pth")
    assert result.exit_code == 0, result.output
    with pytest.raises(
        InputError, match=r"w.txt is no model; the files that can be given are encoder.pth, depth.pth and model.safetensors"
    ):
        weights_folder((tmp_path / "w.zip").rename(tmp_path / "w.txt"))


def test_mistyped_models(tmp_path: Path) -> None:
    Path("my_model").mkdir()
    Path("street.onnx").touch()
    cases = [
        ("mono_640x129", "nor a released model of that name; did you mean mono_640x192?\n"),
        ("xyz", "nor a released model of that name; the released ones are {mono,stereo,mono+stereo}_{640x192,1024x320}, "),
        ("my_modle", "model my_modle does not exist; did you mean my_model?"),
        ("streat.onnx", "model streat.onnx does not exist; did you mean street.onnx?"),
        ("zzzzz.ONNX", "model zzzzz.ONNX does not exist; name a run folder, a weights folder, an ONNX file, or a released model"),
        ("street", "model street does not exist; did you mean street.onnx?"),
        (str(tmp_path / "her"), f"does not exist; did you mean {tmp_path / 'here'}?"),
        (str(tmp_path / "no" / "x"), "does not exist; name a run folder, a weights folder, a released model, or hf:USER/REPO"),
    ]
    for model, message in cases:
        result = run("--image", save_image(tmp_path / "a.jpg"), "--model", model)
        assert result.exit_code == 1
        assert message in result.output, result.output
