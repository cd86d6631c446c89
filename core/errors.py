"""The errors that a user can cause. Anything else that is raised is a bug in crossfake."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from importlib.metadata import distributions
from typing import Any


class UserError(Exception):
    """Something the user can put right: printed as one line, exit code 2, without a traceback.

    Args:
        message: what is wrong, naming the file or the value.
        hint: what to do about it, as an imperative ("give --size a power of two").

    Example:
        >>> str(UserError("runs/x holds no model", hint="train one with 'synth train'"))
        "runs/x holds no model: train one with 'synth train'"
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.message, self.hint = message, hint
        super().__init__(f"{message}: {hint}" if hint else message)

    def __reduce__(self) -> tuple[Any, ...]:
        """Between processes, whatever a subclass is made of."""
        return _again, (type(self), self.message, self.hint)


def _again(kind: type[UserError], message: str, hint: str | None) -> UserError:
    error = kind.__new__(kind)
    UserError.__init__(error, message, hint)
    return error


class MissingDependency(UserError):
    """An optional package is not installed; what installs it depends on how crossfake came here.

    Example:
        >>> MissingDependency("av", extra="video").message
        'this needs the package av'
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs the package {package}", hint=how_to_install(extra))


def how_to_install(extra: str) -> str:
    """The command that brings an extra's packages to this installation.

    The name crossfake is never given to an index: it is not published there, and could be anybody's.
    """
    # a checkout's folder holds an egg-info beside what the environment knows of the installation
    found = list(distributions(name="crossfake"))
    origin: dict[str, Any] = {}
    for each in found:
        with suppress(ValueError):  # damaged: as if it said nothing
            origin = origin or json.loads(each.read_text("direct_url.json") or "{}")
    requires = next((each.requires for each in found if each.requires), [])
    if "dir_info" in origin:  # installed from a folder that holds setup.cfg and constraints.txt
        editable = "-e " if origin["dir_info"].get("editable") else ""
        return f"pip install -c constraints.txt {editable}'.[{extra}]' in the folder of crossfake's source"
    wanted = re.compile(rf"""extra *== *["']{re.escape(extra)}["']""")
    packages = [line.partition(";")[0].strip() for line in requires if wanted.search(line)]
    return f"pip install {' '.join(packages)}" if packages else f"install what brings {extra}"
