"""The tensors of a published file, of whatever kind, as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from crossfake.errors import UserError
from crossfake.inert.hdf5 import SIGNATURE, read_hdf5
from crossfake.inert.torch_files import is_torch_file, read_torch_file
from crossfake.inert.values import floats, shown

_MOST_BYTES = 16_000_000_000
_WRAPPINGS = ("state_dict", "model", "model_state_dict", "net", "params")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint in float32, by name; nothing in it is run.

    Args:
        path: what ``torch.save`` wrote, new or old, safetensors, or Keras's HDF5.

    Raises:
        UserError: it is none of them, damaged, asks for more than data, or has numbers that are not finite.
    """
    if not path.is_file():
        raise UserError(f"{path} is not there", hint="check the path")
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise UserError(f"{path} is larger than any detector", hint="name another file")
    try:
        return floats(_tensors(path), size)
    except UserError as error:
        raise UserError(f"{path}: {error.message}", hint=error.hint) from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error})", hint="check the file"
        ) from error


def _tensors(path: Path) -> dict[str, Tensor]:
    with open(path, "rb") as file:
        head = file.read(16)
    if head[:8] == SIGNATURE:
        return read_hdf5(path)
    if is_torch_file(head):
        return _unwrapped(read_torch_file(path))
    if head[8:9] == b"{":
        try:
            return load(path.read_bytes())
        except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise UserError(f"the file is damaged ({shown(error)})", hint="download it again") from error
    raise UserError(
        "it is no file of torch.save, safetensors or Keras's HDF5",
        hint="name a .pth, .safetensors or .h5 file",
    )


def _unwrapped(held: Any) -> dict[str, Tensor]:
    """A checkpoint often holds the weights beside a training's state; ``module.`` is left of training in parallel."""
    for _ in range(2):
        for key in _WRAPPINGS:
            if isinstance(held, dict) and isinstance(held.get(key), dict):
                held = held[key]
                break
    found = held if isinstance(held, dict) else {}
    tensors = {
        name.removeprefix("module."): value
        for name, value in found.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not tensors:
        raise UserError("it holds no weights", hint="name the authors' checkpoint")
    return tensors
