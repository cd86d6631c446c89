"""What can be set about the commands of ``experiment``; what an experiment is, its YAML says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from crossfake.bounds import Bounds, Resamples, check_bounds
from crossfake.options import Folder, There


@dataclass(frozen=True)
class RunSettings:
    """Which experiment to run, and how much of it.

    Attributes:
        config: a YAML file, or the name of one that comes with crossfake.
        out: folder of the experiment [default: runs/CONFIG, with --quick runs/CONFIG-quick].
        quick: the short version that the configuration has under 'quick'.
        workers: cells at a time on this machine.
    """

    config: str
    out: Folder | None = None
    quick: bool = False
    workers: Annotated[int, Bounds(1, 1024)] = 1

    def __post_init__(self) -> None:
        check_bounds(self)

    def folder(self, file: Path) -> Path:
        """Where it is run, of the configuration's file."""
        return self.out or Path("runs") / f"{file.stem}{'-quick' if self.quick else ''}"


@dataclass(frozen=True)
class ReportSettings:
    """Which report to write.

    Attributes:
        folder: an experiment, or a training run.
        resamples: of each test set, for the intervals [default: the configuration's].
        scores: folder for a small table of all scores, and the results that follow from it.
    """

    folder: There
    resamples: Resamples | None = None
    scores: Folder | None = None

    def __post_init__(self) -> None:
        check_bounds(self)
