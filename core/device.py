"""Device, number format and process rank: asked once, in one place, by training and inference alike."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Literal

import torch

from crossfake.errors import UserError

Precision = Literal["auto", "bf16", "fp32"]


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` is the GPU of this rank if there is one, else the CPU; anything else is taken at its word."""
    if name == "auto":
        return (
            torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
            if torch.cuda.is_available()
            else torch.device("cpu")
        )
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"there is no device {name!r}", mend="use auto, cpu, cuda or cuda:0") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("no CUDA device is available here", mend="use --device cpu or auto")
    return device


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


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Autocast to :func:`compute_dtype`; does nothing when that is float32."""
    dtype = compute_dtype(device, precision)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16)


def rank_world() -> tuple[int, int]:
    """This process's rank and the number of processes, as torchrun sets them; ``(0, 1)`` without it."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
