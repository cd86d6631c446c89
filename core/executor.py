"""Where long work runs: processes of this machine, or tasks of a Ray cluster. Either way gives the same results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from crossfake.bounds import Bounds, check_bounds
from crossfake.errors import UserError
from crossfake.workers import map_in_order as map_here

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class ExecutorSettings:
    """Where the work is done.

    Attributes:
        executor: where the work runs: on this machine, or on a Ray cluster.
        address: of the Ray cluster's head, such as 10.0.0.1:6379 [default: Ray on this machine].
        store: URL (s3://, gs://, file://) through which shards reach Ray's machines and come back [default: a file
            system that all of them share].
    """

    executor: Literal["local", "ray"] = "local"
    address: str | None = None
    store: str | None = None

    def __post_init__(self) -> None:
        if self.executor == "local" and (self.address or self.store):
            raise UserError("--address and --store are for Ray", hint="add --executor ray")

    @property
    def is_ray(self) -> bool:
        """Whether tasks go to a Ray cluster."""
        return self.executor == "ray"

    def connected(self) -> AbstractContextManager[object]:
        """Ray for as long as it lasts; nothing on this machine.

        Raises:
            UserError: no cluster answers, or Ray is not installed.
        """
        if not self.is_ray:
            return nullcontext()
        from crossfake.cluster import connected

        return connected(self.address)


LOCAL = ExecutorSettings()


@dataclass(frozen=True)
class Demand:
    """What Ray keeps free for a task. On this machine ``--workers`` says how many run at once.

    Attributes:
        cpus: cores; 0 where it mostly waits: such tasks are spread over the machines.
        gpus: GPUs, where the cluster has any; a share of one is allowed.
        memory: GiB; 0 asks for none.
    """

    cpus: Annotated[int, Bounds(0, 4096)] = 1
    gpus: Annotated[float, Bounds(0, 1024)] = 0
    memory: Annotated[float, Bounds(0, 10**6)] = 0

    def __post_init__(self) -> None:
        check_bounds(self)


def map_in_order(
    work: Callable[[T], R],
    tasks: Iterable[T],
    workers: int = 0,
    where: ExecutorSettings = LOCAL,
    demand: Demand | None = None,
) -> Iterator[tuple[T, R]]:
    """Each task with its result, in the order of the tasks; no more than a few are read ahead, so memory is flat.

    A Ray worker that dies is replaced, and its task done again.

    Args:
        work: a function at the top of a module, or a ``functools.partial`` of one: it is sent to other processes.
        tasks: what it is called with, one at a time.
        workers: processes of this machine; 0 is one per core, and 1 works here.
        where: local, or Ray.
        demand: of one task of Ray.

    Raises:
        UserError: what the work raised, or its worker died again and again.
    """
    if not where.is_ray:
        yield from map_here(work, tasks, workers)
        return
    from crossfake import cluster

    with where.connected():
        yield from cluster.map_in_order(work, tasks, demand or Demand())
