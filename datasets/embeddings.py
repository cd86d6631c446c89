"""Near-duplicates that a perceptual hash misses: close in the features of a pretrained network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfake.datasets.fingerprints import BITS, Pairs, near_pairs
from crossfake.datasets.shards import ShardSet
from crossfake.errors import UserError
from crossfake.progress import tqdm

_BATCH = 64

Features = npt.NDArray[np.float32]


def embed(shards: ShardSet, name: str, weights: Path | None = None) -> Features:
    """Features of all rows: float32 ``[N, D]``.

    Args:
        shards: the folder.
        name: timm model.
        weights: file with its parameters; None lets timm fetch its own.

    Raises:
        UserError: there is no such model, or its weights are not to be had or of another model.
    """
    import torch
    from timm.data.config import resolve_model_data_config

    from crossfake.device import autocast, pick_device

    model = _model(name, weights)
    device = pick_device("auto")
    model = model.to(device, memory_format=torch.channels_last)
    data: dict[str, Any] = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    mean, std = (torch.tensor(data[key], device=device).view(1, 3, 1, 1) * 255 for key in ("mean", "std"))
    extent = data["input_size"][1:]
    features = []
    with (
        torch.inference_mode(),
        autocast(device, "auto"),
        tqdm(total=len(shards), unit="img", desc=f"{name} {shards.path.name}", leave=False) as bar,
    ):
        for start in range(0, len(shards), _BATCH):
            rows = range(start, min(start + _BATCH, len(shards)))
            pictures = [
                torch.from_numpy(shards.read(row)).to(device).permute(2, 0, 1)[None].float() for row in rows
            ]
            batch = torch.cat([_resized(picture, extent) for picture in pictures])
            batch = ((batch - mean) / std).contiguous(memory_format=torch.channels_last)
            features.append(model(batch).float().cpu().numpy())
            bar.update(len(rows))
    return np.concatenate(features)


def similar_pairs(features: Features, cosine: float) -> Pairs:
    """Pairs of rows whose cosine, after their mean is taken off, is at least that: int64 ``[P, 2]``, sorted.

    Features of like pictures share a direction that says nothing about either: the mean. Signs of random projections
    are a code whose bits differ in proportion to the angle (Charikar 2002), so the index of fingerprints finds the
    candidates; their cosines decide. Of pairs just at 0.95 about one in twenty is missed, of closer ones fewer.
    """
    rng = np.random.default_rng(0)
    planes = rng.standard_normal((features.shape[1], BITS)).astype(np.float32)
    centred = features - features.mean(axis=0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    codes = np.packbits(centred @ planes > 0, axis=1).view(np.uint64)
    expected = BITS * np.arccos(cosine) / np.pi
    pairs = near_pairs(codes, int(expected + 3 * np.sqrt(max(expected, 1.0))))
    close = np.einsum("ij,ij->i", centred[pairs[:, 0]], centred[pairs[:, 1]]) >= cosine
    kept: Pairs = pairs[close]
    return kept


def _resized(picture: Any, extent: tuple[int, int]) -> Any:
    import torch

    if tuple(picture.shape[2:]) == tuple(extent):
        return picture
    return torch.nn.functional.interpolate(picture, extent, mode="bilinear", antialias=True)


def _model(name: str, weights: Path | None) -> Any:
    import timm
    from safetensors.torch import load_file

    if not timm.is_model(name):
        raise UserError(f"timm has no model {name!r}", hint="see timm.list_models()")
    if weights is not None and not weights.is_file():
        raise UserError(f"the weights {weights} are not there", hint="check the path")
    try:
        model = timm.create_model(name, pretrained=weights is None, num_classes=0)
        if weights is not None:
            import torch

            state = (
                load_file(weights)
                if weights.suffix == ".safetensors"
                else torch.load(weights, weights_only=True)
            )
            result = model.load_state_dict(state, strict=False)
            if result.missing_keys:
                raise UserError(
                    f"{weights} is not of {name}: {result.missing_keys[0]} is missing",
                    hint="name another --embedding",
                )
    except UserError:
        raise
    except (
        Exception
    ) as error:  # hubs, files and pickles fail in many ways; all mean that there are no weights
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"the weights of {name} could not be had ({reason})",
            hint="fetch them and name them with --weights",
        ) from error
    return model.eval()
