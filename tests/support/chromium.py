"""A headless Chromium, driven as a user would: its DevTools protocol over two pipes, so that no further package is needed."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# The browser reads commands from descriptor 3 and writes to 4.
PIPES = "import os, sys; r, w = map(int, sys.argv[1:3]); os.dup2(r, 3); os.dup2(w, 4); os.execv(sys.argv[3], sys.argv[3:])"
OPTIONS = (
    "--headless=new --no-sandbox --disable-background-networking --disable-component-update --no-first-run --disable-dev-shm-usage "
    "--hide-scrollbars --remote-debugging-pipe --disable-renderer-backgrounding --disable-backgrounding-occluded-windows"
)
# No answer takes as long, on however busy a machine.
ANSWER_S = 300


def executable() -> str:
    """The browser of this machine; skips where there is none."""
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "google-chrome-stable"))), None)
    if found is None:
        pytest.skip("no chromium or google-chrome on PATH to open the page in")
    return found


class CommandError(AssertionError):
    """The browser refused a command."""


class Tab:
    """One page of the browser.

    ``messages`` holds what the page wrote to its console, and its uncaught errors.
    """

    def __init__(self, commands: int, events: int) -> None:
        self._commands, self._events = os.fdopen(commands, "wb", 0), os.fdopen(events, "rb", 0)
        self._buffer, self._number, self._session = b"", 0, ""
        self.messages: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to a command."""
        self._number += 1
        asked = {"id": self._number, "method": method, "params": parameters} | ({"sessionId": self._session} if self._session else {})
        self._commands.write(json.dumps(asked).encode() + b"\0")
        while True:
            said = self._next()
            if said.get("id") == self._number:
                if "error" in said:
                    raise CommandError(f"{method}: {said['error']}")
                return said["result"]
            if said.get("method") == "Runtime.consoleAPICalled":
                self.messages.append(" ".join(str(part.get("value", part.get("description"))) for part in said["params"]["args"]))
            elif said.get("method") == "Runtime.exceptionThrown":
                self.messages.append(str(said["params"]["exceptionDetails"].get("exception", {}).get("description")))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._events], [], [], ANSWER_S)[0], f"the browser has said nothing for {ANSWER_S} s"
            part = self._events.read(2**16)
            assert part, "the browser has ended"
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page; promises are awaited."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, script: str, timeout_s: float = 60) -> None:
        """Return when the expression is true; while a page is being loaded it may be in error."""
        end = time.monotonic() + timeout_s
        while not self._holds(script):
            if time.monotonic() > end:
                state = self.evaluate("document.body.dataset.state + ': ' + document.body.innerText")
                raise AssertionError(f"not within {timeout_s} s: {script}; the page is {state}, and said {self.messages}")
            time.sleep(0.02)

    def _holds(self, script: str) -> bool:
        try:
            return bool(self.evaluate(f"(() => {{ try {{ return {script}; }} catch {{ return false; }} }})()"))
        except CommandError:  # the page went while it was asked, for the next one
            return False

    def text(self, selector: str) -> str:
        """What an element says, as it is shown; empty where it is hidden."""
        return self.evaluate(f"(e => e.checkVisibility() ? e.innerText : '')(document.querySelector({json.dumps(selector)}))").strip()

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Left, top, width and height of an element in the window, which is scrolled to it."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{element}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        # Two frames later it is scrolled and the page was told. A window that is not drawn for a while, as has happened, gives no frames.
        frames = "requestAnimationFrame(() => requestAnimationFrame(() => done()))"
        self.evaluate(f"new Promise((done) => {{ {frames}; setTimeout(done, 2000); }})")
        return tuple(self.evaluate(f"(r => [r.x, r.y, r.width, r.height])({element}.getBoundingClientRect())"))

    def drop(self, file: Path, selector: str = "main") -> None:
        """Drag a file from the desktop onto an element."""
        left, top, width, height = self.box(selector)
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=left + width / 2, y=top + height / 2, data=data)

    def move(self, x: float, y: float) -> None:
        """Move the mouse."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, selector: str) -> None:
        """Press and release the mouse on an element's middle."""
        left, top, width, height = self.box(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=left + width / 2, y=top + height / 2, button="left", clickCount=1)


@contextmanager
def browser(profile: Path, options: Sequence[str] = ()) -> Iterator[Tab]:
    """A browser that knows no host but this machine's."""
    commands_out, commands_in = os.pipe()
    events_out, events_in = os.pipe()
    command = [executable(), *OPTIONS.split(), f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost"]
    starter = [sys.executable, "-c", PIPES, str(commands_out), str(events_in), *command, *options, "about:blank"]
    with (profile.with_suffix(".log")).open("wb") as log:
        process = subprocess.Popen(starter, pass_fds=(commands_out, events_in), stdout=log, stderr=log, start_new_session=True)
        os.close(commands_out)
        os.close(events_in)
        try:
            yield Tab(commands_in, events_out)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
