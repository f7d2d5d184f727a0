"""A model hub on this machine, with the routes that huggingface_hub asks, and the refusals that hubs give."""

import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/(?P<what>revision|tree)/(?P<revision>[^/?]+)")
FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")


class HubServer(ThreadingHTTPServer):
    """Repositories by name, each with its commits: revision (branch, tag or hash) to commit, commit to files."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.revisions: dict[str, dict[str, str]] = {}
        self.commits: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.status: int | None = None
        self.sent: list[str] = []  # the files whose content went out

    def handle_error(self, *_args: object) -> None:
        """Clients that hang up are part of these tests."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, repo: str, folder: Path, *revisions: str) -> str:
        """Commit the files of a folder, as branches or tags ``revisions``; returns the commit."""
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        commit = hashlib.sha1(repo.encode() + b"".join(files.values())).hexdigest()
        self.commits[commit] = files
        self.revisions.setdefault(repo, {}).update(dict.fromkeys((*revisions, commit), commit))
        return commit


class Handler(BaseHTTPRequestHandler):
    server: HubServer

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        asked = API.fullmatch(path) or FILE.fullmatch(path)
        if self.server.status is not None or asked is None:
            self.refuse(self.server.status or 404, "")
        elif asked["repo"] not in self.server.revisions:
            self.refuse(401, "RepoNotFound")  # as a hub answers strangers: it may be private
        elif asked["revision"] not in self.server.revisions[asked["repo"]]:
            self.refuse(404, "RevisionNotFound")
        else:
            commit = self.server.revisions[asked["repo"]][asked["revision"]]
            self.serve(asked, commit, self.server.commits[commit])

    def serve(self, asked: re.Match[str], commit: str, files: dict[str, bytes]) -> None:
        if "what" in asked.groupdict():
            tree = [{"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()} for n, c in files.items()]
            info = {"id": asked["repo"], "sha": commit, "siblings": [{"rfilename": name} for name in files]}
            self.send(json.dumps(info if asked["what"] == "revision" else tree).encode(), {"Content-Type": "application/json"})
        elif asked["repo"] in self.server.gated:
            self.refuse(403, "GatedRepo")
        elif asked["name"] not in files:
            self.refuse(404, "EntryNotFound")
        else:
            content = files[asked["name"]]
            if self.command == "GET":
                self.server.sent.append(asked["name"])
            self.send(content, {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'})

    def send(self, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass
