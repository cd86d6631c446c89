"""Processes that train together, as torchrun starts them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

from crossfake.device import rank_world
from crossfake.errors import MissingDependency, UserError

T = TypeVar("T", bound=Tensor | list[Any])
_PATIENCE = timedelta(hours=12)


class Ranks:
    """This process among those that torchrun started; alone without it.

    Gradients are averaged here, after the backward passes, rather than by DistributedDataParallel, which knows nothing
    of second derivatives nor of layers that are frozen for a while.

    Args:
        device: of the tensors.
        batch: images per step, over all processes.
        together: how many images of a batch have to be in one process.

    Raises:
        UserError: the batch cannot be shared evenly.
    """

    def __init__(self, device: torch.device, batch: int, together: int = 1) -> None:
        self.rank, self.world = rank_world()
        self._accelerator: Any = None
        if self.world == 1:
            return
        if batch % (self.world * together):
            raise UserError(
                f"a batch of {batch} cannot be shared by {self.world} processes",
                hint=f"give --batch a multiple of {self.world * together}",
            )
        try:
            from accelerate import Accelerator, InitProcessGroupKwargs  # type: ignore[import-untyped]
        except ImportError as error:
            raise MissingDependency("accelerate", extra="distributed") from error
        # the others wait while one measures quality; a process that died ends all of them through torchrun
        patience = InitProcessGroupKwargs(timeout=_PATIENCE)
        self._accelerator = Accelerator(cpu=device.type == "cpu", kwargs_handlers=[patience])

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and talks."""
        return self.rank == 0

    def share(self, batch: T) -> T:
        """This process's part of what stands for the whole batch: every world-size-th of it.

        So the first half of a part is from the first half of the batch, and a group of images that a discriminator
        compares, which are a quarter of the batch apart, is in one part as a whole.
        """
        part: Any = batch[self.rank :: self.world]
        return part  # type: ignore[no-any-return]

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over the processes, taken in float32."""
        if self.world == 1:
            return
        tensors = list(tensors)
        if not tensors:
            return
        flat = torch.cat([tensor.detach().float().flatten() for tensor in tensors])
        means = self._accelerator.reduce(flat, "mean").split([tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.detach().copy_(mean.reshape(tensor.shape))

    def agreed(self, wish: bool) -> bool:
        """Whether any process wishes it: all have to stop in the same step."""
        if self.world == 1:
            return wish
        vote = torch.tensor([float(wish)], device=self._accelerator.device)
        self.average([vote])
        return bool(vote > 0)

    def gathered(self, part: Tensor) -> Tensor:
        """The whole ``[N]`` of which every process has what :meth:`share` gave it, float32."""
        if self.world == 1:
            return part
        count = torch.tensor([len(part)], device=part.device)
        whole = torch.zeros(
            int(self._accelerator.reduce(count, "sum")), dtype=torch.float32, device=part.device
        )
        whole[self.rank :: self.world] = part.float()
        gathered: Tensor = self._accelerator.reduce(whole, "sum")
        return gathered
