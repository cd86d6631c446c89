"""The command line: ``crossfake``, and ``synth`` and ``detect`` as commands of their own.

Sub-commands are imported when they are called, so ``--help`` answers without loading torch.
"""

from __future__ import annotations

import errno
import importlib
import itertools
import os
import sys
import tempfile
from typing import Any, ClassVar

import click

from crossfake import __version__, stopping
from crossfake.errors import UserError
from crossfake.memory import keep_freed_memory

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
NEWEST = "newest"  # what an option without a value stands for
_PARTS = {
    "synth": ("crossfake.synth.cli", "synth", "Train generators, make fakes in bulk, measure them."),
    "detect": ("crossfake.detect.cli", "detect", "Train detectors, evaluate them, judge pictures."),
    "data": ("crossfake.datasets.cli", "data", "Prepare, split, audit, verify and look at image sets."),
    "experiment": ("crossfake.experiments.cli", "experiment", "Run protocols and write their reports."),
    "demo": ("crossfake.experiments.cli", "demo", "The whole loop on drawn faces, in minutes."),
    "doctor": ("crossfake.doctor", "doctor", "What is installed, which weights are present, which device."),
}


class _Group(click.Group):
    """A group whose user errors end in one line and exit code 2; ``--debug`` shows the traceback.

    What was stopped with Ctrl-C ends with exit code 130, whether it stopped at once or in good order.
    """

    def main(self, *args: Any, **kwargs: Any) -> Any:
        debug = "--debug" in sys.argv
        keep_freed_memory()
        try:
            return super().main(*args, **kwargs)
        except (UserError, OSError, RuntimeError) as error:
            told = error if isinstance(error, UserError) else _of_full_disk(error)
            if debug or told is None:
                raise
            stopped = isinstance(told, stopping.Stopped)
            click.echo(
                str(told) if stopped else f"{click.style('error:', fg='red', bold=True)} {told}", err=True
            )
            sys.exit(_INTERRUPTED if stopped else stopping.exit_code() or 2)

    def invoke(self, ctx: click.Context) -> Any:
        if ctx.parent is None:
            stopping.forget()
        try:
            result = super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            click.echo(": ".join(filter(None, ["\nstopped", str(interrupt)])), err=True)
            ctx.exit(_INTERRUPTED)
        if code := stopping.exit_code():
            ctx.exit(code)
        return result


def _of_full_disk(error: OSError | RuntimeError) -> UserError | None:
    """What is not a fault of the program, whoever reports it: HDF5 has no error number, only the system's words."""
    full = (errno.ENOSPC, errno.EDQUOT)
    if getattr(error, "errno", None) not in full and not any(os.strerror(n) in str(error) for n in full):
        return None
    where = getattr(error, "filename", None) or f"{tempfile.gettempdir()} or the folder written to"
    return UserError(
        f"the disk is full ({where})",
        mend="free some space, or name another folder; TMPDIR is for temporary files",
    )


class _LazyGroup(_Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_PARTS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _PARTS:
            return None
        module, attribute, _ = _PARTS[name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _PARTS.items()])


def command_group(name: str, help: str, cls: type[click.Group] = _Group) -> click.Group:
    """A click group with ``--version`` and ``--debug`` whose user errors end in one line."""

    @click.group(
        name,
        help=help,
        cls=cls,
        context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    )
    @click.version_option(__version__, prog_name=f"crossfake {name}".removesuffix(" crossfake"))
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    def group(debug: bool) -> None:
        pass

    return group


class ManyValues(click.Command):
    """Lets ``--real A B`` stand for ``--real A --real B``; an option of :attr:`alone` may have no value at all."""

    many: ClassVar[tuple[str, ...]] = ("--real", "--fake", "--with-synthetic", "--data")
    alone: ClassVar[dict[str, str]] = {"--with-synthetic": NEWEST}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread: list[str] = []
        for option, group in itertools.groupby(self._owned(args), key=lambda pair: pair[0]):
            values = [value for _, value in group]
            if option in self.many:
                named = values[1:] or ([self.alone[option]] if option in self.alone else [])
                spread += [part for value in named for part in (str(option), value)] if named else values
            else:
                spread += values
        return super().parse_args(ctx, spread)

    @staticmethod
    def _owned(args: list[str]) -> list[tuple[str | None, str]]:
        """Each word with the ``--option`` it follows; words before any option belong to None."""
        owned, option = [], None
        for arg in args:
            option = arg if arg.startswith("-") else option
            owned.append((option, arg))
        return owned


def typed() -> set[str]:
    """Names of the options that were typed to the running command, as opposed to those left at their default."""
    context = click.get_current_context()
    source = click.core.ParameterSource.COMMANDLINE
    return {name for name in context.params if context.get_parameter_source(name) is source}


main = command_group(
    "crossfake", "Deepfake detection measured on generators never seen in training.", cls=_LazyGroup
)


def synth() -> None:
    """Entry point of the console script ``synth``."""
    importlib.import_module("crossfake.synth.cli").synth()


def detect() -> None:
    """Entry point of the console script ``detect``."""
    importlib.import_module("crossfake.detect.cli").detect()
