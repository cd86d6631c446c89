"""Device, number format and process rank: asked once, in one place, by training and inference alike."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from crossfake.convolutions import QuickConvolutions
from crossfake.errors import UserError
from crossfake.options import Precision


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` is this process's GPU if there is one, else the CPU; ``cuda`` is its GPU, ``cuda:N`` that very one.

    Under torchrun process n of a machine has GPU n.

    Raises:
        UserError: there is no such device, or several processes would share one GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type != "cuda":
            torch.zeros(1, device=device).tolist()  # is it here, and does it compute?
    except Exception as error:  # each kind of device has errors of its own
        raise UserError(f"there is no device {name!r} here", hint="use auto, cpu, cuda or cuda:0") from error
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        raise UserError("no CUDA device is available here", hint="use --device cpu or auto")
    own, here = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if device.index is not None and here > 1:
        raise UserError(
            f"{here} processes cannot share {device}", hint="use --device auto: each takes its own"
        )
    device = torch.device("cuda", own if device.index is None else device.index)
    if device.index >= (count := torch.cuda.device_count()):
        raise UserError(
            f"there is no {device}: this machine has {count} GPU{'s' if count > 1 else ''}",
            hint="start fewer processes" if here > 1 else "use --device auto",
        )
    return device


def stored_device(name: str) -> str:
    """What ``--device`` says when a run goes on that kept this name.

    The number of a GPU was that of one process: where several share the run, each takes its own.
    """
    several = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) > 1
    return "auto" if several and name.startswith("cuda:") else name


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 convolutions are quicker than float32 ones: AVX512-BF16 or AMX, or a GPU since Ampere."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def compute_dtype(device: torch.device, precision: Precision) -> torch.dtype:
    """The dtype that convolutions run in: bfloat16 where it is quick, unless ``precision`` says otherwise."""
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(device) else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


@contextmanager
def autocast(device: torch.device, precision: Precision) -> Iterator[None]:
    """Autocast to :func:`compute_dtype`; does nothing when that is float32."""
    if compute_dtype(device, precision) is torch.float32:
        yield
        return
    with torch.autocast(device.type, dtype=torch.bfloat16):
        if device.type != "cpu":
            yield
            return
        with QuickConvolutions():
            yield


def rank_world() -> tuple[int, int]:
    """This process's rank and the number of processes, as torchrun sets them; ``(0, 1)`` without it."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def team_name() -> str:
    """Name of the processes that torchrun started together, the same in all of them; empty without it."""
    names = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
    return " ".join(os.environ.get(name, "") for name in names) if rank_world()[1] > 1 else ""
