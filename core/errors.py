"""The errors that a user can cause. Anything else that is raised is a bug in crossfake."""

from __future__ import annotations

from typing import Any


class UserError(Exception):
    """Something the user can mend: printed as one line, exit code 2, without a traceback.

    Args:
        message: what is wrong, naming the file or the value.
        mend: what to do about it, as an imperative ("give --size a power of two").

    Example:
        >>> str(UserError("runs/x holds no model", mend="train one with 'synth train'"))
        "runs/x holds no model: train one with 'synth train'"
    """

    def __init__(self, message: str, mend: str | None = None) -> None:
        self.message, self.mend = message, mend
        super().__init__(f"{message}: {mend}" if mend else message)

    def __reduce__(self) -> tuple[Any, ...]:
        """Between processes, whatever a subclass is made of."""
        return _again, (type(self), self.message, self.mend)


def _again(kind: type[UserError], message: str, mend: str | None) -> UserError:
    error = kind.__new__(kind)
    UserError.__init__(error, message, mend)
    return error


class MissingDependency(UserError):
    """An optional package is not installed.

    Example:
        >>> str(MissingDependency("av", extra="video"))
        "this needs the package av: pip install 'crossfake[video]'"
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs the package {package}", mend=f"pip install 'crossfake[{extra}]'")
