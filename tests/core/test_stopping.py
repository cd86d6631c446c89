"""Ctrl-C: the command ends in good order, and the shell is told."""

import os
import signal

import pytest
from click.testing import CliRunner

from crossfake.cli import command_group
from crossfake.errors import UserError
from crossfake.stopping import StoppedByUser, Stopper

group = command_group("thing", "A thing.")


@group.command()
def in_order() -> None:
    with Stopper() as stopper:
        os.kill(os.getpid(), signal.SIGINT)
        assert stopper.asked


@group.command()
def at_once() -> None:
    raise KeyboardInterrupt("run it again")


@group.command()
def told() -> None:
    raise StoppedByUser("the work")


@group.command()
def with_reason() -> None:
    with Stopper():
        os.kill(os.getpid(), signal.SIGINT)
        raise UserError("stopped after 3 photos", hint="repeat the command")


@group.command()
def terminated() -> None:
    with Stopper():
        os.kill(os.getpid(), signal.SIGTERM)


@group.command()
def fine() -> None:
    with Stopper():
        pass


@pytest.mark.parametrize(
    ("command", "code", "line"),
    [
        ("in-order", 130, ""),
        ("at-once", 130, "stopped: run it again"),
        ("told", 130, "the work was stopped: run the same command again"),
        ("with-reason", 130, "stopped after 3 photos: repeat the command"),
        ("terminated", 143, ""),
        ("fine", 0, ""),
    ],
)
def test_exit_codes(command: str, code: int, line: str) -> None:
    result = CliRunner().invoke(group, [command])
    assert result.exit_code == code and line in result.output and "Traceback" not in result.output


def test_a_stop_belongs_to_its_command() -> None:
    assert CliRunner().invoke(group, ["in-order"]).exit_code == 130
    assert CliRunner().invoke(group, ["fine"]).exit_code == 0


def test_the_second_one_interrupts() -> None:
    with pytest.raises(KeyboardInterrupt), Stopper():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
