"""What the audit is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from crossfake.bounds import Bounds, Count, Seed, Workers, check_bounds
from crossfake.errors import UserError
from crossfake.options import Folder, There

SPLITS = ("train", "val", "test")
CLASSES = ("real", "fake")


@dataclass(frozen=True)
class AuditSettings:
    """Settings of :func:`~crossfake.datasets.audit.audit.audit`.

    Attributes:
        real: sources of real pictures; several may follow. Each is a folder, a zip archive, ``NAME:PATH`` or a shard
            folder. A source that knows labels gives only its reals here, so one that has both classes may be named on
            both sides.
        fake: sources of fakes; several may follow.
        out: folder for audit.json and audit.html [default: print only].
        limit: pictures of each class that are looked at. They are spread evenly over its sources.
        warn: AUC above which a probe warns. Its interval has to lie above.
        fail: AUC above which a probe fails. Its interval has to lie above.
        split: only rows of this split; may be given several times. An empty name stands for rows that are in none.
        workers: processes; 0 is one per core.
        face_model: YuNet's ONNX file.
        seed: for folds, models and the bootstrap.

    Raises:
        UserError: a value makes no sense.

    Example:
        >>> AuditSettings(real=("photos",), fake=("fakes",)).limit
        1000
    """

    real: tuple[str, ...]
    fake: tuple[str, ...]
    out: Folder | None = None
    limit: Count = 1000
    warn: Annotated[float, Bounds(0.5, 1)] = 0.6
    fail: Annotated[float, Bounds(0.5, 1)] = 0.75
    seed: Seed = 0
    workers: Workers = 0
    face_model: There | None = None
    split: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_bounds(self)
        for name in CLASSES:
            if not self.words(name):
                raise UserError(f"there is no source of {name}s", hint=f"give --{name}")
            if not all(self.words(name)):
                raise UserError(f"a source of {name}s has no name", hint=f"give --{name} a folder")
        if self.warn > self.fail:
            raise UserError(
                f"thresholds {self.warn:g} and {self.fail:g} are out of order",
                hint="choose 0.5 <= --warn <= --fail <= 1",
            )
        for split in self.split:
            if split not in (*SPLITS, ""):  # "" has rows that no split claims, such as one's own fakes
                raise UserError(f"there is no split {split!r}", hint=f"choose of {', '.join(SPLITS)}")

    def words(self, name: str) -> tuple[str, ...]:
        """The sources of one class, ``real`` or ``fake``, each once."""
        return tuple(dict.fromkeys(self.real if name == "real" else self.fake))
