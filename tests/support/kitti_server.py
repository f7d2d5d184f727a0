"""A server of archives on this machine, which misbehaves where it is told to."""

import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Serves archives with ranges, and misbehaves by address where it is told to."""

    daemon_threads = True
    request_queue_size = 32

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.cut: dict[str, int] = {}  # bytes after which an answer ends, whatever it announced
        self.status: dict[str, int] = {}
        self.ranges = self.heads = self.sizes = True
        self.hold: threading.Event | None = None  # what each answer waits for when half of it is sent
        self.hold_only = ""  # the end of the address that is held; all
        self.active = 0
        self.lock = threading.Lock()

    def handle_error(self, *_args: object) -> None:
        """Clients that hang up are part of these tests."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/raw"

    def asked_for(self, name: str) -> list[str | None]:
        """The ranges with which a file was asked for."""
        return [span for path, span in self.asked if path.endswith(name)]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        if self.server.heads:
            self.answer(body=False)
        else:
            self.send_error(405)

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            server.asked.append((self.path, self.headers.get("Range")))
            server.active += 1
        try:
            self.answer(body=True)
        finally:
            with server.lock:
                server.active -= 1

    def answer(self, *, body: bool) -> None:
        server, name, span = self.server, self.path.rpartition("/")[2], self.headers.get("Range")
        content = server.files.get(name)
        if name in server.status or content is None:
            self.send_error(server.status.get(name, 404))
            return
        start = int(span.removeprefix("bytes=").removesuffix("-")) if span and server.ranges else 0
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if server.sizes:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if body:
            sent = content[start:][: server.cut.get(name)]
            half = len(sent) // 2
            self.wfile.write(sent[:half])
            if server.hold is not None and name.endswith(server.hold_only):
                server.hold.wait(30)
            self.wfile.write(sent[half:])

    def log_message(self, *_args: object) -> None:
        pass


def zip_of(files: dict[str, bytes], mode: int = 0o100644) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            opened.writestr(info, content)
    return buffer.getvalue()
