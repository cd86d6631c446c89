"""Who writes into a shard folder: one process, or the processes of one team, kept apart by the folder's lock."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from crossfake.errors import UserError
from crossfake.files import write_text

_TEAM = ".writers"  # whose processes write together, while they do
_ATTEMPTS = 30  # tenths of a second


def lock_folder(folder: Path, team: str = "") -> int:
    """A file descriptor that keeps other writers out for as long as it is open.

    Args:
        folder: of shards.
        team: name of the processes that write into it together, each shards of its own; one process alone when empty.

    Raises:
        UserError: another process, or another team, writes there.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not team:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif not _joined(descriptor, folder / _TEAM, team):
            raise BlockingIOError
    except BlockingIOError as error:
        os.close(descriptor)
        raise UserError(
            f"another process writes to {folder}", hint="wait for it, or name another --out"
        ) from error
    except OSError:
        pass  # a file system without locks
    return descriptor


def _joined(descriptor: int, file: Path, team: str) -> bool:
    """Whether a folder's lock is shared with the team now. Who comes first takes it alone to write down the name."""
    for attempt in range(_ATTEMPTS):  # a member of the team may be writing it
        if attempt:
            time.sleep(0.1)
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            write_text(file, team)
        with suppress(BlockingIOError, FileNotFoundError):  # the last of another team is leaving
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return file.read_text() == team
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def leave_folder(folder: Path, descriptor: int) -> None:
    """Give up what :func:`lock_folder` gave; the last of a team takes its name away."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (folder / _TEAM).unlink()
    os.close(descriptor)


def being_written(folder: Path) -> bool:
    """Whether a process holds what :func:`lock_folder` gives."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if not (folder / _TEAM).exists():
                return False
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False  # the name of a team that was killed
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)
