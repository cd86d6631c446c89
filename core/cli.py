"""The command line: ``crossfake``, and ``synth`` and ``detect`` as commands of their own.

Sub-commands are imported when they are called, so ``--help`` answers without loading torch.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import tempfile
from pathlib import Path
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


def error_line(text: str) -> str:
    """How an error that a user caused is shown."""
    return f"{click.style('error:', fg='red', bold=True)} {text}"


class Command(click.Command):
    """Refuses a second path for an option that takes one: click would forget the first without a word."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does it.

        Raises:
            UserError: a path is given twice.
        """
        *_, order = self.make_parser(ctx).parse_args([*args])
        for param in order:
            if isinstance(param.type, click.Path) and not param.multiple and order.count(param) > 1:
                raise UserError(f"{param.opts[0]} is given twice, and takes one path", hint="give it once")
        return super().parse_args(ctx, args)


class _Group(click.Group):
    """A group whose user errors end in one line and exit code 2; ``--debug`` shows the traceback.

    What was stopped with Ctrl-C ends with exit code 130, whether it stopped at once or in good order.
    """

    command_class = Command

    def main(self, *args: Any, **kwargs: Any) -> Any:
        debug = "--debug" in sys.argv
        stopping.forget()
        keep_freed_memory()
        try:
            return super().main(*args, **kwargs)
        except (UserError, OSError, RuntimeError) as error:
            shown = error if isinstance(error, UserError) else _of_full_disk(error)
            if debug or shown is None:
                raise
            stopped = isinstance(shown, stopping.StoppedByUser)
            click.echo(str(shown) if stopped else error_line(str(shown)), err=True)
            sys.exit(_INTERRUPTED if stopped else stopping.exit_code() or 2)

    def invoke(self, ctx: click.Context) -> Any:
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
        hint="free some space, or name another folder; TMPDIR is for temporary files",
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


class ManyValues(Command):
    """Lets ``--real A B`` stand for ``--real A --real B``, for every option that may be repeated.

    One of :attr:`alone` may have no value at all.
    """

    alone: ClassVar[dict[str, str]] = {"--with-synthetic": NEWEST}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As :class:`Command` does it, once each value has its option before it."""
        many = {name for option in self.params if getattr(option, "multiple", False) for name in option.opts}
        spread: list[str] = []
        for first, *rest in self._owned(args):
            option, equals, value = first.partition("=")
            if option not in many:
                spread += [first, *rest]
                continue
            values = ([value] if equals else []) + rest
            named = values or ([self.alone[option]] if option in self.alone else [])
            spread += [part for each in named for part in (option, each)] or [first]
        return super().parse_args(ctx, spread)

    @staticmethod
    def _owned(args: list[str]) -> list[list[str]]:
        """Each ``--option`` with the words that follow it; words before any option stand alone."""
        owned: list[list[str]] = []
        for number, arg in enumerate(args):
            if arg == "--":
                return [*owned, args[number:]]
            if arg.startswith("-") or not owned or not owned[-1][0].startswith("-"):
                owned.append([arg])
            else:
                owned[-1].append(arg)
        return owned


class Existing(click.Path):
    """A path that has to be there. It is looked for while the command line is read, before torch is imported.

    Args:
        holds: one of these files has to be in it; of an empty tuple the path itself counts.
        wrong: what is said of a path that is not so.
        hint: what to do then.
    """

    def __init__(self, *holds: str, wrong: str = "is not there", hint: str = "check the path") -> None:
        super().__init__(path_type=Path)
        self.holds, self.wrong, self.hint = holds, wrong, hint

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        self.check(path)
        return path

    def check(self, path: Path) -> None:
        """Raise ``UserError`` when it is not there, or is not what it should be."""
        if str(path) == NEWEST:
            return
        wanted = [path / name for name in self.holds] or [path]
        if not any(map(os.path.lexists, wanted)):
            raise UserError(f"{path} {self.wrong}", hint=self.hint)


THERE = Existing()
SHARDS = Existing(
    "manifest.jsonl", wrong="is not a shard folder", hint="make one with 'crossfake data prepare'"
)
RUN = Existing("config.yaml", wrong="holds no run to resume", hint="start it without --resume")


def typed() -> set[str]:
    """Names of the options that were typed to the running command, as opposed to those left at their default."""
    context = click.get_current_context()
    source = click.core.ParameterSource.COMMANDLINE
    return {name for name in context.params if context.get_parameter_source(name) is source}


def report_of(run: Path) -> Path:
    """Write the page of a training run; returns it. It is of the part above all others, so it is found as they are."""
    page: Path = importlib.import_module("crossfake.experiments.report.run_reporting").run_report(run)
    return page


main = command_group(
    "crossfake", "Deepfake detection measured on generators never seen in training.", cls=_LazyGroup
)


def synth() -> None:
    """Entry point of the console script ``synth``."""
    importlib.import_module("crossfake.synth.cli").synth()


def detect() -> None:
    """Entry point of the console script ``detect``."""
    importlib.import_module("crossfake.detect.cli").detect()
