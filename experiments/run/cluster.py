"""Cells on a Ray cluster, for ``--executor ray``.

Every cell is one task. It finds its shards on the machine where it runs, or fetches them from a store, works in a
folder of its own, and comes back as an archive without checkpoints, which the driver unpacks. So machines need
nothing in common but the same crossfake.

Numbers are those of the local executor with as many threads per cell (:mod:`crossfake.cluster`), on machines of the
same kind: a cell's randomness comes from its seed alone.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crossfake.cluster import Tasks, connected, first_line, packed, threads, unpacked
from crossfake.datasets import remote
from crossfake.errors import UserError
from crossfake.executor import Demand
from crossfake.experiments.run.cells import (
    CellSpec,
    run_cell,
)
from crossfake.experiments.run.executors import Outcome
from crossfake.progress import tqdm
from crossfake.runs import Run
from crossfake.stopping import StoppedByUser


@dataclass(frozen=True)
class Ray:
    """A Ray cluster.

    A cell asks for its threads' cores, for a GPU where the cluster has any and the device is not the CPU, and for
    memory. It is run again elsewhere when its worker or machine dies, but not when it fails by itself.

    Attributes:
        address: of its head, for example ``10.0.0.1:6379``; without it a cluster is started on this machine.
        store: URL that shards are put to, and fetched from by machines that lack them; without it every machine has
            to find them under the paths of this one.
    """

    address: str | None = None
    store: str | None = None

    def run(self, specs: Sequence[CellSpec], cells: Path) -> Iterator[Outcome]:
        """Each cell's folder is moved to ``cells / key`` as a whole; what was not finished at Ctrl-C is dropped.

        Raises:
            UserError: no cluster answers or it cannot hold a cell, the store does not work, or the user stopped it.
        """
        if not specs:
            return
        waiting: dict[Any, tuple[CellSpec, Tasks]] = {}
        unsent = {spec.key: spec for spec in specs}
        with connected(self.address) as ray:
            try:
                senders = {spec.key: _tasks(spec) for spec in specs}
                self._share(specs)
                while unsent or waiting:
                    going = {*unsent, *(spec.key for spec, _ in waiting.values())}
                    for spec in [s for s in unsent.values() if not going & {m.key for m in s.members}]:
                        del unsent[spec.key]
                        there = {s.key: _trained(cells / s.key) for s in (spec, *spec.members)}
                        sent = senders[spec.key].submit((_absolute(spec), self.store, there))
                        waiting[sent] = spec, senders[spec.key]
                    done = ray.wait(list(waiting))[0][0]
                    spec, tasks = waiting.pop(done)
                    yield spec, _received(tasks, done, cells / spec.key)
            except KeyboardInterrupt as error:
                raise StoppedByUser("the experiment") from error
            finally:
                for sent, (_, tasks) in waiting.items():
                    tasks.cancel(sent)

    def _share(self, specs: Sequence[CellSpec]) -> None:
        if self.store is None:
            return
        folders = {hash: folder for spec in specs for folder, hash in _shards(spec).items()}
        tqdm.write(f"\nupload {len(folders)} shard folders to {self.store}, those that are there left out")
        for folder in folders.values():
            remote.push(folder, self.store)


def _tasks(spec: CellSpec) -> Tasks:
    """What sends a cell, and what Ray keeps free for it.

    Raises:
        UserError: no machine of the cluster has as much.
    """
    device = spec.settings.device
    gpus = 0 if device == "cpu" else spec.processes
    demand = Demand(max(threads(), spec.processes), gpus, spec.memory * spec.processes)
    return Tasks(_cell, demand, spec.label, insists=device != "auto")


def _shards(spec: CellSpec) -> dict[Path, str]:
    """Every shard folder that a cell reads, and its hash."""
    return {**spec.inputs, **{folder: hash for test in spec.tests for folder, hash, _ in test.parts}}


def _moved(spec: CellSpec, places: dict[Path, Path]) -> CellSpec:
    """The cell with its shard folders elsewhere."""
    kinds = ("real", "fake", "synthetic")
    folders: dict[str, Any] = {k: tuple(places[path] for path in getattr(spec.settings, k)) for k in kinds}
    tests = (
        replace(test, parts=tuple((places[path], hash, rows) for path, hash, rows in test.parts))
        for test in spec.tests
    )
    inputs = {places[path]: hash for path, hash in spec.inputs.items()}
    return replace(
        spec,
        settings=replace(spec.settings, **folders),
        tests=tuple(tests),
        inputs=inputs,
        members=tuple(_moved(member, places) for member in spec.members),
    )


def _absolute(spec: CellSpec) -> CellSpec:
    """A worker's current directory is another one."""
    moved = _moved(spec, {folder: folder.absolute() for folder in _shards(spec)})
    moved = replace(moved, members=tuple(map(_absolute, moved.members)))
    names = ("weights", "match_steps")
    files: dict[str, Any] = {k: path.absolute() for k in names if (path := getattr(moved.settings, k))}
    return replace(moved, settings=replace(moved.settings, **files))


def _trained(folder: Path) -> bytes | None:
    """A cell that only lacks scores travels to where they are made."""
    return packed(folder, "checkpoints") if _is_trained(folder) else None


def _is_trained(folder: Path) -> bool:
    return (folder / "cell.json").is_file() and Run(folder / "run").finished


def _cell(job: tuple[CellSpec, str | None, dict[str, bytes | None]]) -> tuple[bytes | None, str]:
    """On a worker: the cell's folder as an archive, and what went wrong in words: errors need not survive pickling.

    Args:
        job: the cell, the store, and the archives of what is trained of it and its members, by key.
    """
    import torch

    spec, store, trained = job
    torch.set_num_threads(threads())
    try:
        places = {folder: remote.find(folder, hash, store) for folder, hash in _shards(spec).items()}
        with tempfile.TemporaryDirectory(prefix="crossfake-") as temporary:
            folder = Path(temporary) / spec.key
            for key, archive in trained.items():
                if archive:
                    unpacked(archive, folder.parent / key)
            run_cell(_moved(spec, places), folder)
            # without the state that an unfinished training goes on from
            return packed(folder, "checkpoints"), ""
    except UserError as error:
        return None, str(error)
    except Exception as error:  # as on this machine, a cell that fails ends no other
        return None, f"{type(error).__name__}: {first_line(error)}"


def _received(tasks: Tasks, done: Any, folder: Path) -> Exception | None:
    """Put the cell's folder in place, or say why there is none."""
    try:
        archive, reason = tasks.result(done)
    except UserError as error:
        return error
    except tasks.ray.exceptions.RayTaskError as error:
        return UserError(f"it could not be run on its machine ({str(error).strip().splitlines()[-1]})")
    if archive is None:
        return UserError(reason)
    _arrive(archive, folder)
    return None


def _arrive(archive: bytes, folder: Path) -> None:
    """Nobody ever sees a part of the cell, whenever this process is killed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".arriving-") as temporary:
        arrived = Path(temporary) / folder.name
        unpacked(archive, arrived)
        if _is_trained(folder):  # only scores were missing; the card goes last
            (folder / "scores").mkdir(exist_ok=True)
            for file in [*(arrived / "scores").iterdir(), arrived / "cell.json"]:
                file.replace(folder / file.relative_to(arrived))
        else:
            shutil.rmtree(folder, ignore_errors=True)  # a part, left by a killed run on this machine
            try:
                arrived.rename(folder)
            except OSError:  # another experiment that shares the cells was faster
                if not _is_trained(folder):
                    raise
