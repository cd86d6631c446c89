"""Cells on a Ray cluster, for ``--executor ray``.

Every cell is one task. It finds its shards on the machine where it runs, or fetches them from a store, works in a
folder of its own, and comes back as an archive without checkpoints, which the driver unpacks. So machines need
nothing in common but the same crossfake.

Numbers are those of the local executor with as many threads per cell, on machines of the same kind: a cell's
randomness comes from its seed alone, and sums of floating-point numbers depend on how many threads share them.
``OMP_NUM_THREADS`` sets that for both; where it is not set a cell takes one thread here.
"""

from __future__ import annotations

import io
import os
import platform
import shutil
import socket
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crossfake import __version__
from crossfake.datasets import remote
from crossfake.errors import MissingDependency, UserError
from crossfake.experiments.run.cells import (
    CellSpec,
    run_cell,
)
from crossfake.experiments.run.executors import Outcome
from crossfake.progress import tqdm
from crossfake.runs import Run
from crossfake.stopping import StoppedByUser

_RETRIES = 3  # of a cell whose worker or machine dies


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
        ray = _ray()
        ours = not ray.is_initialized()
        waiting: dict[Any, CellSpec] = {}
        try:
            if ours:
                self._connect(ray)
            demands = {spec.key: _demands(ray, spec) for spec in specs}
            self._share(specs)
            task = ray.remote(_cell)
            for spec in specs:
                asked = task.options(name=spec.label, max_retries=_RETRIES, **demands[spec.key])
                sent = asked.remote(
                    _absolute(spec), self.store, _threads(), _trained(cells / spec.key), __version__
                )
                waiting[sent] = spec
            while waiting:
                done = ray.wait(list(waiting))[0][0]
                spec = waiting.pop(done)
                yield spec, _received(ray, done, cells / spec.key)
        except KeyboardInterrupt as error:
            raise StoppedByUser("the experiment") from error
        finally:
            for sent in waiting:
                ray.cancel(sent, force=True)
            if ours:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        host, _, port = (self.address or "").rpartition("://")[2].rpartition(":")
        try:
            if port.isdigit():  # Ray itself waits for minutes
                socket.create_connection((host, int(port)), timeout=10).close()
            # what workers print would tear the one progress display
            ray.init(
                address=self.address or "local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"no Ray cluster answers at {self.address or 'this machine'} ({_line(error)})",
                hint="start one with 'ray start --head', and name the address that it prints",
            ) from error

    def _share(self, specs: Sequence[CellSpec]) -> None:
        if self.store is None:
            return
        folders = {hash: folder for spec in specs for folder, hash in _shards(spec).items()}
        tqdm.write(f"\nupload {len(folders)} shard folders to {self.store}, those that are there left out")
        for folder in folders.values():
            remote.push(folder, self.store)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingDependency("ray", extra="ray") from error
    return ray


def _threads() -> int:
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return max(1, int(first)) if first.isdigit() else 1


def _demands(ray: Any, spec: CellSpec) -> dict[str, Any]:
    """What Ray keeps free for a cell.

    Raises:
        UserError: no machine of the cluster has as much.
    """
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    device = spec.settings.device
    graphics = device != "cpu" and (device != "auto" or any(node.get("GPU") for node in alive))
    asked = {
        "CPU": max(_threads(), spec.processes),
        "GPU": spec.processes if graphics else 0,
        "memory": int(spec.memory * spec.processes * 2**30),
    }
    if not any(all(node.get(name, 0) >= amount for name, amount in asked.items()) for node in alive):
        raise UserError(
            f"no machine of the Ray cluster can hold {spec.label}: {asked['CPU']} cores, {asked['GPU']} GPUs "
            f"and {asked['memory'] / 2**30:.0f} GiB of memory",
            hint="add one, or ask for less (OMP_NUM_THREADS, processes, device)",
        )
    return {"num_cpus": asked["CPU"], "num_gpus": asked["GPU"], "memory": asked["memory"]}


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
    return replace(spec, settings=replace(spec.settings, **folders), tests=tuple(tests), inputs=inputs)


def _absolute(spec: CellSpec) -> CellSpec:
    """A worker's current directory is another one."""
    moved = _moved(spec, {folder: folder.absolute() for folder in _shards(spec)})
    names = ("weights", "match_steps")
    files: dict[str, Any] = {k: path.absolute() for k in names if (path := getattr(moved.settings, k))}
    return replace(moved, settings=replace(moved.settings, **files))


def _trained(folder: Path) -> bytes | None:
    """A cell that only lacks scores travels to where they are made."""
    return _packed(folder) if _is_trained(folder) else None


def _is_trained(folder: Path) -> bool:
    return (folder / "cell.json").is_file() and Run(folder / "run").finished


def _cell(
    spec: CellSpec, store: str | None, threads: int, trained: bytes | None, version: str
) -> tuple[bytes | None, str]:
    """On a worker: the cell's folder as an archive, and what went wrong in words: errors need not survive pickling."""
    import torch

    torch.set_num_threads(threads)
    try:
        if version != __version__:
            raise UserError(
                f"{platform.node()} has crossfake {__version__}, not {version}",
                hint="install the same everywhere",
            )
        places = {folder: remote.find(folder, hash, store) for folder, hash in _shards(spec).items()}
        with tempfile.TemporaryDirectory(prefix="crossfake-") as temporary:
            folder = Path(temporary) / spec.key
            if trained:
                _unpacked(trained, folder)
            run_cell(_moved(spec, places), folder)
            return _packed(folder), ""
    except UserError as error:
        return None, str(error)
    except Exception as error:
        return None, f"{type(error).__name__}: {_line(error)}"


def _received(ray: Any, done: Any, folder: Path) -> Exception | None:
    """Put the cell's folder in place, or say why there is none."""
    try:
        archive, reason = ray.get(done)
    except ray.exceptions.RayTaskError as error:
        return UserError(f"it could not be run on its machine ({str(error).strip().splitlines()[-1]})")
    except ray.exceptions.RayError as error:
        return UserError(
            f"its worker died {_RETRIES + 1} times ({_line(error)})", hint="perhaps memory is short there"
        )
    if archive is None:
        return UserError(reason)
    _arrive(archive, folder)
    return None


def _arrive(archive: bytes, folder: Path) -> None:
    """Nobody ever sees a part of the cell, whenever this process is killed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".arriving-") as temporary:
        arrived = Path(temporary) / folder.name
        _unpacked(archive, arrived)
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


def _packed(folder: Path) -> bytes:
    """A cell's folder without the state that an unfinished training goes on from."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(folder, ".", filter=lambda item: None if "/checkpoints" in f"/{item.name}" else item)
    return archive.getvalue()


def _unpacked(archive: bytes, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")


def _line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().partition("\n")[0]
