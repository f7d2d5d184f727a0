"""Two machines in one: two network namespaces joined by a cable, each with its own torchrun; without the rights, both on the loopback.

``python tests/support/two_machines.py OUT TREE`` trains on both, kills the second machine's torchrun with its worker (-9) in the middle,
brings it back, and ends with the status of the first.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
from torchrun import MD_TRAIN, Launched, free_port, options, started, torchrun_command

STEPS = 12
PORT = 29541
# Else a torchrun that comes back waits for an address that the others have said to nobody since (torch 2.14's RendezvousStoreInfo).
NEW_STORE_PER_START = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


@contextmanager
def machines() -> Iterator[tuple[str, list[list[str]]]]:
    """The address of the first machine, and what a command begins with to run on each of the two."""
    names = [f"md{os.getpid()}{letter}" for letter in "ab"]
    with ExitStack() as stack:
        for name in names:
            if _ip("netns", "add", name) != 0:
                yield "127.0.0.1", [[], []]
                return
            stack.callback(_ip, "netns", "del", name)
        made = [_ip("link", "add", "name", names[0], "type", "veth", "peer", "name", names[1])]
        stack.callback(_ip, "link", "del", names[0])
        for number, name in enumerate(names, 1):
            inside = ["-n", name]
            made.append(_ip("link", "set", name, "netns", name))
            made.append(_ip(*inside, "addr", "add", f"10.77.0.{number}/24", "dev", name))
            made += [_ip(*inside, "link", "set", link, "up") for link in (name, "lo")]
        if any(made):
            yield "127.0.0.1", [[], []]
        else:
            yield "10.77.0.1", [["ip", "netns", "exec", name, "env", f"GLOO_SOCKET_IFNAME={name}"] for name in names]


def _ip(*arguments: str) -> int:
    with suppress(FileNotFoundError):
        return subprocess.run(["ip", *arguments], capture_output=True, check=False).returncode
    return 127


def kill(agent: Launched) -> None:
    """A machine is gone: its torchrun and its worker at once."""
    for process in agent.tree():
        with suppress(psutil.NoSuchProcess):
            process.kill()
    agent.process.wait()


def train(out: Path, tree: Path) -> tuple[int, str]:
    """A run on two machines, one of which is lost and comes back: the first's exit status, what both have printed."""
    arguments = options(tree, out, "run", "--max_steps", str(STEPS), "--timeout_minutes", "0.2")
    with machines() as (address, prefixes):
        port = free_port() if address == "127.0.0.1" else PORT
        # Who calls whom by which name is said, as both have the same host name here.
        launches = [
            ["--nnodes", "2", "--rdzv_backend", "c10d", "--rdzv_endpoint", f"{address}:{port}", "--rdzv_id", "two", "--max_restarts", "3",
             "--rdzv_conf", f"is_host={int(number == 1)}", "--local_addr", address if address == "127.0.0.1" else f"10.77.0.{number}"]
            for number in (1, 2)
        ]  # fmt: skip

        def agent(number: int) -> Sequence[str]:
            return [*prefixes[number], *torchrun_command(1, MD_TRAIN, *arguments, options=launches[number])]

        with started(agent(0), NEW_STORE_PER_START) as first:
            with started(agent(1), NEW_STORE_PER_START) as second:
                first.wait_for(lambda: list((out / "run" / "models").glob("step_[3-9]")))
                kill(second)
            time.sleep(1)
            with started(agent(1), NEW_STORE_PER_START) as back:
                status = first.ended()
                return status, f"{first.output}\n{back.output}"


if __name__ == "__main__":
    found, printed = train(*map(Path, sys.argv[1:]))
    print(printed)
    sys.exit(found)
