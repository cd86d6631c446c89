"""Tasks on a Ray cluster. Ray is imported by whoever asks for it, and by nobody else.

Sums of floating-point numbers depend on how many threads share them: a task takes ``OMP_NUM_THREADS`` of them, or one
where that is not set, so results are those of local work with as many.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import shutil
import socket
import sys
import tarfile
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from crossfake import __version__
from crossfake.errors import MissingDependency, UserError
from crossfake.executor import Demand

T = TypeVar("T")
R = TypeVar("R")
RETRIES = 3  # of a task whose worker or machine dies
_AHEAD = 4  # tasks for each that can run at once
_LOOK = 2.0  # seconds after which the cluster may have grown


def import_ray() -> Any:
    """Ray.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingDependency("ray", extra="ray") from error
    return ray


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """The module ``ray``, connected; one that is connected already stays so.

    Args:
        address: of the cluster's head; None starts a cluster on this machine, and stops it afterwards.

    Raises:
        UserError: no cluster answers.
    """
    ray = import_ray()
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, address)
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    os.environ.setdefault("RAY_worker_niceness", "0")  # workers of this machine are this command's own
    host, _, port = (address or "").rpartition("://")[2].rpartition(":")
    try:
        if port.isdigit():  # Ray itself waits for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        # what workers print would tear the one progress display
        ray.init(
            address=address or "local", include_dashboard=False, log_to_driver=False, logging_level="ERROR"
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"no Ray cluster answers at {address or 'this machine'} ({first_line(error)})",
            hint="start one with 'ray start --head', and name the address that it prints",
        ) from error


def threads() -> int:
    """Cores that a task computes with: ``OMP_NUM_THREADS``, else one."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return max(1, int(first)) if first.isdigit() else 1


def computing(device: str = "auto") -> Demand:
    """What a task of a network asks for: its threads, and a GPU unless the device is the CPU."""
    return Demand(threads(), 0 if device == "cpu" else 1)


class Tasks:
    """Sends one function's tasks to the cluster that is connected.

    Args:
        work: what is called with each task: a function at the top of a module, or a partial of one.
        demand: of a task. GPUs are asked for where the cluster has any, unless ``insists``.
        what: name of the work in messages and in Ray's own displays.
        parts: whether ``work`` returns a pair whose second half stays in the cluster.
        insists: the GPUs are needed.

    Raises:
        UserError: no machine of the cluster has as much.
    """

    def __init__(
        self,
        work: Callable[[Any], Any],
        demand: Demand,
        what: str = "",
        parts: bool = False,
        insists: bool = False,
    ) -> None:
        self.ray = import_ray()
        self.what = what or getattr(
            work, "__name__", getattr(getattr(work, "func", None), "__name__", "task")
        )
        alive = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        gpus = demand.gpus if insists or any(node.get("GPU") for node in alive) else 0
        self.asked = {"CPU": demand.cpus, "GPU": gpus, "memory": int(demand.memory * 2**30)}
        if not any(all(node.get(name, 0) >= n for name, n in self.asked.items()) for node in alive):
            raise UserError(
                f"no machine of the Ray cluster can hold {self.what}: {demand.cpus} cores, {gpus:g} GPUs "
                f"and {demand.memory:.0f} GiB of memory",
                hint="add one, or ask for less (OMP_NUM_THREADS, processes, device)",
            )
        self._parts = parts
        self._work = self.ray.put(work)
        self._task = self.ray.remote(_called).options(
            name=self.what,
            num_cpus=demand.cpus,
            num_gpus=gpus,
            memory=self.asked["memory"] or None,
            num_returns=2 if parts else 1,
            max_retries=RETRIES,
            scheduling_strategy="DEFAULT" if demand.cpus else "SPREAD",
        )
        self._slots, self._looked = 1, 0.0

    def submit(self, task: Any) -> Any:
        """Ray's reference to a result, or the pair of them."""
        return self._task.remote(self._work, task, self._parts, threads(), __version__)

    @property
    def slots(self) -> int:
        """How many run at once on the cluster as it is now."""
        if time.monotonic() - self._looked > _LOOK:
            there = self.ray.cluster_resources()
            fits = [there.get(name, 0) / amount for name, amount in self.asked.items() if amount]
            self._slots = max(1, int(min(fits, default=there.get("CPU", 1))))
            self._looked = time.monotonic()
        return self._slots

    def result(self, sent: Any) -> Any:
        """What the task returned; of a pair, its first half and the reference to the second.

        Raises:
            UserError: the one that the work raised, or its worker died again and again.
        """
        small, *large = sent if self._parts else (sent,)
        try:
            found = self.ray.get(small)
        except self.ray.exceptions.RayTaskError:
            raise  # a fault of the program, with the worker's traceback
        except self.ray.exceptions.RayError as error:
            raise UserError(
                f"the worker of {self.what} died {RETRIES + 1} times ({first_line(error)})",
                hint="perhaps memory is short there",
            ) from error
        if isinstance(found, _Failed):
            raise found.error
        return (found, large[0]) if self._parts else found

    def is_ready(self, sent: Any, timeout: float = 0) -> bool:
        """Whether the task ends within so many seconds."""
        return bool(self.ray.wait([sent[0] if self._parts else sent], timeout=timeout)[0])

    def cancel(self, sent: Any) -> None:
        """Give up a task that takes long. Ray 2.60 ends this process where one that is cancelled ends by itself."""
        if self.is_ready(sent):
            return
        with suppress(self.ray.exceptions.RayError, ValueError):
            self.ray.cancel(sent[0] if self._parts else sent, force=True)


def map_in_order(
    work: Callable[[T], R], tasks: Iterable[T], demand: Demand, parts: bool = False, ahead: int = _AHEAD
) -> Iterator[tuple[T, R]]:
    """As :func:`crossfake.executor.map_in_order`, on the cluster that is connected.

    Args:
        work: called with each task.
        tasks: read only a little ahead.
        demand: of each.
        parts: ``work`` returns a pair; of its second half a reference is given back.
        ahead: tasks that are sent for each that can run at once.
    """
    sender = Tasks(work, demand, parts=parts)
    waiting: deque[tuple[T, Any]] = deque()

    def first() -> tuple[T, R]:
        task, sent = waiting.popleft()
        return task, sender.result(sent)

    # what is left of them when the caller stops is short, and ends with this process at the latest
    for task in tasks:
        waiting.append((task, sender.submit(task)))
        if len(waiting) > ahead * sender.slots:
            yield first()
    while waiting:
        yield first()


def map_as_done(
    work: Callable[[T], R],
    tasks: Iterable[T],
    demand: Demand,
    most: int = 0,
    asked: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[T, R | UserError]]:
    """Each task with its result as soon as there is one; a task is read when it can run, so it may depend on those.

    Args:
        work, tasks, demand: as of :func:`map_in_order`. A user's error of a task, or the death of its worker again and
            again, is its result.
        most: tasks at once; 0 is as many as the cluster holds, when machines come and go, too.
        asked: whether to end here: what runs is given up.
    """
    sender, coming = Tasks(work, demand), iter(tasks)
    waiting: dict[Any, T] = {}
    try:
        while not asked():
            while len(waiting) < (min(most, sender.slots) if most else sender.slots):
                task = next(coming, None)
                if task is None:
                    break
                waiting[sender.submit(task)] = task
            if not waiting:
                return
            for sent in sender.ray.wait(list(waiting), timeout=_LOOK)[0]:
                task = waiting.pop(sent)
                try:
                    yield task, sender.result(sent)
                except UserError as error:
                    yield task, error
    finally:
        for sent in waiting:
            sender.cancel(sent)


class _Failed:
    """A user's error on its way from a worker: Ray would wrap it."""

    def __init__(self, error: UserError) -> None:
        self.error = error


def _called(work: Callable[[Any], Any], task: Any, parts: bool, count: int, version: str) -> Any:
    """On a worker."""
    import cv2

    cv2.setNumThreads(1)  # there is a task per core already
    os.environ["OMP_NUM_THREADS"] = str(count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
    try:
        if version != __version__:
            raise UserError(
                f"{platform.node()} has crossfake {__version__}, not {version}",
                hint="install the same everywhere",
            )
        return work(task)
    except UserError as error:
        return (_Failed(error), None) if parts else _Failed(error)


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the name of its class where it has none."""
    return (str(error) or type(error).__name__).strip().partition("\n")[0]


def packed(folder: Path, without: str = "") -> bytes:
    """A folder, or one file, as an archive; of a run without the folder ``without``."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:

        def wanted(item: tarfile.TarInfo) -> tarfile.TarInfo | None:
            return None if without and f"/{without}" in f"/{item.name}" else item

        tar.add(folder, folder.name if folder.is_file() else ".", filter=wanted)
    return archive.getvalue()


def unpacked(archive: bytes, folder: Path) -> None:
    """Unpack a tar archive into a folder; names that lead out of it are refused (``tarfile``'s filter ``data``)."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")


class Sent:
    """A folder or a file, such as a model's, that travels to whoever works with it.

    Args:
        path: of this machine, which is connected to the cluster. Checkpoints stay behind.
    """

    def __init__(self, path: Path) -> None:
        content = packed(path, "checkpoints")
        self._file = path.name if path.is_file() else ""
        self.name = hashlib.sha256(content).hexdigest()
        self._content = import_ray().put(content)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sent) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def there(self) -> Path:
        """Where it is on the machine of this process: unpacked once, as a whole or not at all."""
        place = Path(tempfile.gettempdir()) / f"crossfake-{os.getuid()}" / self.name
        if not place.is_dir():
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(dir=place.parent))
            unpacked(import_ray().get(self._content), temporary)
            try:
                temporary.rename(place)
            except OSError:  # another process was faster
                shutil.rmtree(temporary)
        return place / self._file
