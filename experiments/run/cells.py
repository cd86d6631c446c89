"""One cell of an experiment: a detector trained once, and its scores on every test picture.

A cell's folder is named by the hash of all that its training depends on, and each score file by the hash of its
test, so what is there need not be done again: after a kill, in a larger experiment, or in another one that shares the
folder. Everything that a cell needs is in its :class:`CellSpec`, which can be sent to another process or machine.
"""

from __future__ import annotations

import csv
import fcntl
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfake import __version__
from crossfake.datasets.shards import ShardSet
from crossfake.detect.training.settings import TrainSettings
from crossfake.energy import Meter
from crossfake.errors import UserError
from crossfake.experiments.design import perturbations
from crossfake.files import replacing, write_json
from crossfake.runs import Run
from crossfake.stopping import StoppedByUser

PGD = "pgd"  # the one perturbation that asks the detector itself
_AT_A_TIME = 256  # pictures in memory


@dataclass(frozen=True)
class TestRows:
    """Pictures of one test: rows of shard folders, reals first.

    Attributes:
        name: in this experiment.
        hash: of pixels, rows and perturbation.
        parts: shard folder, its hash, and rows int64 ``[N]``.
        perturbation: name and strength, or None.
        reencode: how everything is coded alike at last: a perturbation's name and quality, or None.
        edited: whether reals are retouched first.
        groups: of every picture, where they are not those of the shards' column.
    """

    name: str
    hash: str
    parts: tuple[tuple[Path, str, npt.NDArray[np.int64]], ...]
    perturbation: tuple[str, float] | None = None
    reencode: tuple[str, float] | None = None
    edited: bool = False
    groups: tuple[str, ...] = ()
    __test__ = False  # pytest takes classes of such a name for tests

    @property
    def file(self) -> str:
        """Of the scores, in the folder ``scores`` of a cell."""
        return f"{self.hash[:16]}.csv"


@dataclass(frozen=True)
class CellSpec:
    """What is trained, and what it is tested on.

    Attributes:
        key: hash of all that the training depends on; the folder's name.
        detector: name in this experiment.
        condition: name in this experiment.
        settings: of the training; ``out`` is set when it is run.
        train_hash: of the training data.
        inputs: hash of every shard folder, by its path.
        processes: that train it together.
        memory: GiB that each of them may take.
        bundle: a detector that is there already and is not trained; None for one that is.
        members: cells whose detectors judge together here; nothing else is trained.
    """

    key: str
    detector: str
    condition: str
    settings: TrainSettings
    train_hash: str
    tests: tuple[TestRows, ...]
    inputs: dict[Path, str]
    processes: int = 1
    memory: float = 2.0
    bundle: Path | None = None
    members: tuple[CellSpec, ...] = ()

    @property
    def label(self) -> str:
        """What messages call it: ``cnn, with, seed 0``."""
        return f"{self.detector}, {self.condition}, seed {self.settings.seed}"

    def about(self) -> dict[str, Any]:
        """Its entry in ``experiment.json``."""
        names = {"detector": self.detector, "condition": self.condition}
        return {"key": self.key, **names, "seed": self.settings.seed}

    def missing(self, folder: Path) -> list[TestRows]:
        """Tests without scores in the cell's folder: all where the card is missing."""
        if not (folder / "cell.json").is_file():
            return list(self.tests)
        return [test for test in self.tests if not (folder / "scores" / test.file).is_file()]


def run_cell(spec: CellSpec, folder: Path) -> None:
    """Train the detector unless it is trained, score what has no scores yet, and write ``cell.json`` last.

    Another experiment that shares the folder waits meanwhile, and then finds the work done.

    Raises:
        UserError: the training was stopped, or cannot be done.
    """
    with _alone(folder):
        if spec.missing(folder):
            _work(spec, folder)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The lock ends with its process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _work(spec: CellSpec, folder: Path) -> None:
    run = Run(folder / "run")
    card = read_card(folder)
    if card is None or not run.finished:
        for member in spec.members:
            run_cell(member, folder.parent / member.key)
        with _counted(folder / "spent.json") as count:
            if spec.members:
                _join(spec, folder.parent, run)
            elif spec.bundle is not None:
                _adopt(spec.bundle, run)
            else:
                _train(spec, run, count)
        card = json.loads((folder / "spent.json").read_text())
    from crossfake.detect.bundle.bundle import load

    detector = load(run.path, device=spec.settings.device)
    (folder / "scores").mkdir(parents=True, exist_ok=True)
    _score(spec.missing(folder), detector, folder / "scores")
    model = spec.settings.model if spec.bundle is None else str(detector.card["model"])
    facts = json.loads((run.path / "environment.json").read_text())  # of the training, not of later scoring
    card |= {
        "key": spec.key,
        "detector": spec.detector,
        "model": model,
        "condition": spec.condition,
        "seed": spec.settings.seed,
        "threshold": detector.threshold,
        "audit": detector.card["audit"],
        "train_hash": spec.train_hash,
        "model_hash": detector.hash,
        "settings": asdict(spec.settings),
        "commit": facts["git_commit"],
        "version": __version__,
        "hardware": facts["hardware"],
        "packages": facts["packages"],
        "tests": {
            test.name: {"hash": test.hash, "n": sum(len(rows) for *_, rows in test.parts)}
            for test in spec.tests
        },
    }
    if spec.bundle is not None:
        card |= {"given": True, "learned_from": detector.card.get("sources") or []}
    write_json(folder / "cell.json", card, default=str)


@contextmanager
def _counted(ledger: Path) -> Iterator[Callable[..., None]]:
    """Add up the wall time and joules of all attempts at a training.

    What is given counts up to the moment when it is called; a killed attempt is counted until then.
    """
    before = {"seconds": 0.0, "energy": 0.0}
    with suppress(OSError, ValueError):
        before = json.loads(ledger.read_text())

    with Meter() as meter:

        def count(*_: Any) -> None:
            joules, earlier = meter.joules, before["energy"]
            energy = None if joules is None or earlier is None else earlier + joules
            seconds = round(before["seconds"] + meter.seconds, 2)
            write_json(ledger, {"seconds": seconds, "energy": energy})

        try:
            yield count
        finally:
            count()


def read_card(folder: Path) -> dict[str, Any] | None:
    """A cell's card; None where there is none, or a damaged one."""
    try:
        card: dict[str, Any] = json.loads((folder / "cell.json").read_text())
        return card
    except (OSError, ValueError):
        return None


def _train(spec: CellSpec, run: Run, count: Callable[..., None]) -> None:
    from crossfake.detect.training.train import train

    resume = any((run.path / "checkpoints").glob("*.pt"))
    if not resume:
        shutil.rmtree(run.path, ignore_errors=True)  # what a failed or killed attempt left
    settings = replace(spec.settings, out=run.path, resume=resume)
    if spec.processes == 1:
        train(settings, on_validation=count)
    else:
        from crossfake.experiments.run.torchrun import train_together

        train_together(settings, spec.processes)
    if not run.finished:
        raise StoppedByUser("the experiment")


def _adopt(bundle: Path, run: Run) -> None:
    """A copy of a detector that is there already, as if it had been trained here."""
    shutil.rmtree(run.path, ignore_errors=True)
    made = Run.create(run.path, {"bundle": str(bundle)}, kind="detect")
    inner = bundle / "model"
    shutil.copytree(inner if inner.is_dir() else bundle, made.model, dirs_exist_ok=True)
    made.finish()


def _join(spec: CellSpec, cells: Path, run: Run) -> None:
    """The mean of the members' calibrated logits; nothing but temperature and threshold is fitted on fakes."""
    from crossfake.detect.ensemble import make_ensemble
    from crossfake.detect.settings import EnsembleSettings

    shutil.rmtree(run.path, ignore_errors=True)
    settings = spec.settings
    make_ensemble(
        EnsembleSettings(
            bundles=tuple(cells / member.key / "run" for member in spec.members),
            real=settings.real,
            fake=(*settings.fake, *settings.synthetic),
            out=run.path,
            method="mean",
            device=settings.device,
            force=settings.force,
        )
    )


def _score(tests: list[TestRows], detector: Any, folder: Path) -> None:
    """One file per test; several tests share their reals, which are scored once."""
    scored: dict[tuple[Any, ...], npt.NDArray[np.float64]] = {}
    for test in tests:
        lines: list[tuple[Any, ...]] = []
        for path, _, rows in test.parts:
            shards = ShardSet(path)
            labels = shards.columns["label"][rows]
            retouched = (perturbations.BENIGN, 1.0) if test.edited and not labels.any() else None
            changes = tuple(c for c in (retouched, test.perturbation, test.reencode) if c)
            key = (path, rows.tobytes(), changes)
            if key not in scored:
                scored[key] = score_rows(detector, shards, rows, *changes)
            groups = test.groups[len(lines) :][: len(rows)] or shards.columns["group"][rows].tolist()
            lines += list(zip(labels.tolist(), groups, scored[key].tolist(), strict=True))
        with (
            replacing(folder / test.file, shared=True) as temporary,
            open(temporary, "w", newline="", errors="surrogateescape") as file,
        ):
            table = csv.writer(file)
            table.writerow(["row", "label", "group", "score"])
            for row, (label, group, score) in enumerate(lines):
                table.writerow([row, label, group or f"row {row}", repr(score)])


def score_rows(
    detector: Any, shards: ShardSet, rows: npt.NDArray[np.int64], *changes: tuple[str, float]
) -> npt.NDArray[np.float64]:
    """The detector's scores of rows, ``[N]``, after changes by name and strength, one after another.

    A few hundred pictures are in memory at a time.
    """
    parts = [detector.score(images) for images in _pictures(detector, shards, rows, changes)]
    return np.concatenate(parts).astype(np.float64)


def _pictures(
    detector: Any, shards: ShardSet, rows: npt.NDArray[np.int64], changes: Sequence[tuple[str, float]]
) -> Iterator[Any]:
    """uint8 ``[N, S, S, 3]``, or lists of native ones ``[H, W, 3]``."""
    for first in range(0, len(rows), _AT_A_TIME):
        part = rows[first : first + _AT_A_TIME]
        images: Any = shards.read_each(part) if shards.native else shards.read_many(part)
        for name, strength in changes:
            if name == PGD:
                from crossfake.experiments.run.adversarial import pgd

                if shards.native or detector.view.whole:
                    raise UserError("pgd attacks aligned images", hint="leave pgd out, or use another data:")
                images = pgd(detector, images, shards.columns["label"][part], eps=strength / 255)
            else:
                images = perturbations.perturb(images, name, strength, seed=first)
        yield detector.view.turned(images, shards)
