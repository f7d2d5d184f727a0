"""SIGTERM and SIGHUP end what runs as Ctrl-C does, once, and only where nobody else has a say."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from dataload.system.interrupts import ENDING, Terminated, ending_raises, exit_status, signal_of, without_interrupts


def test_exit_statuses_are_those_of_shells() -> None:
    assert [exit_status(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == [130, 143, 129]
    assert signal_of(KeyboardInterrupt()) == signal.SIGINT


@pytest.mark.parametrize("number", ENDING)
def test_the_first_one_raises_and_what_tidies_up_is_left_alone(number: int) -> None:
    tidied = []
    with ending_raises():
        try:
            signal.raise_signal(number)
        except Terminated as ended:
            for again in ENDING:
                signal.raise_signal(again)
            tidied.append(ended.number)
    assert tidied == [number]
    assert [signal.getsignal(each) for each in ENDING] == [signal.SIG_DFL] * len(ENDING)


def test_a_program_that_handles_or_ignores_them_keeps_its_way() -> None:
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number)), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending_raises():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGHUP, before[1])
    assert heard == [signal.SIGTERM]


def test_in_another_thread_nothing_changes() -> None:
    seen = []

    def inside() -> None:
        with ending_raises():
            seen.append([signal.getsignal(number) for number in ENDING])

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [[signal.SIG_DFL] * len(ENDING)]


WAITING = """
import click, time
from dataload.commands.command import Command
from dataload.system.files import whole_file
from pathlib import Path

def body():
    with whole_file(Path("out")) as temporary:
        temporary.write_text("half")
        click.echo("begun")
        time.sleep(60)

Command("probe", callback=body)()
"""


@pytest.mark.parametrize("number", ENDING)
def test_a_command_that_is_ended_removes_what_it_was_writing_and_says_one_word(tmp_path, number) -> None:
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (128 + number, "Terminated\n")
    assert not list(tmp_path.iterdir())


def test_a_command_whose_reader_is_gone_too_still_ends_with_the_signals_status(tmp_path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.stdout.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    assert not list(tmp_path.iterdir())


def test_ctrl_c_while_processes_start_is_theirs_not_and_waits_for_the_parent() -> None:
    reached = []
    program = "import signal; signal.raise_signal(signal.SIGINT); print('alive')"

    def start() -> None:
        with without_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
            reached.append(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)

    with pytest.raises(KeyboardInterrupt):
        start()
    assert reached == ["alive\n"]
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
