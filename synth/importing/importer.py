"""Published generators, and images made elsewhere, as model folders. Nothing that a file brings along is run.

What can be read: pickles of the official StyleGAN2-ADA and StyleGAN3 repositories, rosinality's ``.pt`` files, and
shards of images whose generator is not at hand.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources.base import is_shards
from crossfake.errors import UserError
from crossfake.files import write_json
from crossfake.inert.pickles import read_pickle
from crossfake.inert.torch_files import is_torch_file, read_torch_file
from crossfake.inert.values import Module, UnsafeFile, floats, number, shown
from crossfake.progress import tqdm
from crossfake.provenance import hash_file
from crossfake.synth.families.base import FAMILIES
from crossfake.synth.families.stylegan2 import Discriminator, widths_in
from crossfake.synth.importing import official, rosinality, stylegan3
from crossfake.synth.sampling.models import CARD, DISCRIMINATOR, WEIGHTS, save_model
from crossfake.synth.settings import ImportSettings

Network = TypeVar("Network", bound=nn.Module)
_LINEAR = ("affine", "embed", "out", "skip")  # layers that have no activation
_MAX_BYTES = 4_000_000_000  # the largest published file has 400 MB


def import_model(settings: ImportSettings) -> Path:
    """Write a model folder for a published file or pipeline, or for shards of images made elsewhere; returns it.

    Raises:
        UserError: it is none of them, holds another kind of network, or asks to run code.
    """
    source, out = settings.source, settings.out
    if (out / CARD).exists():
        raise UserError(f"{out} holds a model already", hint="name another --out")
    facts = {name: said for name in ("name", "license", "url", "prompt") if (said := getattr(settings, name))}
    on_hub = not source.exists() and len(source.parts) == 2 and source.suffix not in (".pkl", ".pt")
    if on_hub or (source / "model_index.json").is_file():
        _import_pipeline(source, out, facts, settings.size)
        return out
    if source.is_dir():
        _import_shards(source, out, facts)
        return out
    if not source.is_file():
        raise UserError(f"{source} is not there", hint="check the path")
    if source.stat().st_size > _MAX_BYTES:
        raise UserError(f"{source} is larger than any generator", hint="name another file")
    try:
        found = _read(source)
        network: Any = _built(FAMILIES.get(found["family"]).generator, found["arguments"], found["generator"])
    except UserError as error:
        raise UserError(f"{source}: {error.message}", hint=error.hint) from error
    except (RuntimeError, IndexError) as error:
        raise UserError(
            f"{source} is no StyleGAN of colour images ({shown(str(error).splitlines()[-1].strip())})",
            hint="import another file",
        ) from error
    classes = [str(k) for k in range(found["arguments"].get("classes", 0))]
    card = {
        "size": network.size,
        "channels": 0,
        "kimg": None,
        "network": found["arguments"],
        "classes": classes,
        "crop": None,
        "source": {"file": source.name, "sha256": hash_file(source), "format": found["format"]},
        **facts,
    }
    save_model(out, found["family"], network, card)
    if "discriminator" in found:
        weights = {name: tensor.contiguous() for name, tensor in found["discriminator"].items()}
        save_file(weights, out / DISCRIMINATOR)
    return out


def _read(source: Path) -> dict[str, Any]:
    """``format``, ``family``, ``arguments``, ``generator`` and, if it is there, ``discriminator``."""
    with open(source, "rb") as file:
        head = file.read(16)
    if is_torch_file(head):
        return _rosinality(source)
    if head[:1] != b"\x80":
        raise UserError("it is neither a pickle nor a file of torch.save", hint="name a .pkl or .pt file")
    return _official(source.read_bytes())


def _built(kind: Callable[..., Network], arguments: dict[str, Any], state: dict[str, Tensor]) -> Network:
    """A network of these weights; ``RuntimeError`` when they do not fit. Nothing is allocated before they do: arrays of
    a few numbers may imply layers of any width."""
    with torch.device("meta"):
        network = kind(**arguments)
    network.load_state_dict(state, assign=True)
    return network


def _discriminator(
    arguments: dict[str, Any], clamp: float | None, weights: dict[str, Tensor]
) -> dict[str, Any]:
    """The discriminator's weights as ``{"discriminator": …}``, or nothing where training could not start from them."""
    same = {"size": arguments["size"], "classes": arguments.get("classes", 0)}
    try:
        same["widths"] = arguments.get("widths") or widths_in(weights)
        if clamp != arguments.get("clamp"):
            raise RuntimeError("its activations are limited in another way")
        _built(Discriminator, {**same, "clamp": clamp}, weights)
    except (RuntimeError, KeyError):
        tqdm.write("the discriminator is built in another way than the generator: it is left out")
        return {}
    return {"discriminator": weights}


def _official(content: bytes) -> dict[str, Any]:
    try:
        held = read_pickle(content)
    except UnsafeFile as error:
        if "tflib" in error.message:
            raise UserError(
                "it is of the TensorFlow version", hint="convert it with legacy.py of stylegan2-ada-pytorch"
            ) from error
        raise
    network = held.get("G_ema") if isinstance(held, dict) else None
    if not isinstance(network, Module):
        raise UserError(
            "it holds no G_ema", hint="import a network-snapshot file of StyleGAN2-ADA or StyleGAN3"
        )
    clamp, limit = _checked(network, "skip"), len(content)
    arrays = floats(network.tensors(), limit)
    if stylegan3.is_stylegan3(arrays):
        family, arguments, generator = stylegan3.generator_state(arrays)
    else:
        family, (arguments, generator) = "stylegan2", official.generator_state(arrays)
    arguments["clamp"] = clamp
    found: dict[str, Any] = {
        "format": "stylegan2-ada-pytorch" if family == "stylegan2" else "stylegan3",
        "family": family,
        "arguments": arguments,
        "generator": generator,
    }
    theirs = held.get("D")
    if isinstance(theirs, Module):
        weights = official.discriminator_state(floats(theirs.tensors(), limit))
        found |= _discriminator(arguments, _checked(theirs, "resnet"), weights)
    return found


def _checked(network: Module, architecture: str) -> float | None:
    """Refuse what would be computed in another way here; returns the limit of the activations."""
    limits: set[float | None] = set()
    for name, part in network.modules().items():
        place = name.rpartition(".")[2]
        _same(name, part, "architecture", (architecture,))
        if number(part.state.get("output_scale", 0.25)) != 0.25:
            raise UserError("its images are scaled in another way", hint="only the published scale is known")
        _same(name, part, "activation", ("lrelu", "linear") if place in _LINEAR else ("lrelu",))
        if re.fullmatch(r"mapping\.fc\d+", name):
            rate = number(part.state.get("bias_gain", 0.01))
            if rate is None or abs(rate - 0.01) > 1e-6:
                raise UserError(f"{name} learnt at another rate", hint="only StyleGAN2 is known")
        weights = {**part.held("_parameters"), **part.held("_buffers")}
        # the layer that skips never has a limit
        if "conv_clamp" in part.state and "weight" in weights and place != "skip":
            limit = number(part.state["conv_clamp"])
            if part.state["conv_clamp"] is not None and not (limit and 0 < limit < math.inf):
                raise UserError(f"{name} has an odd limit", hint="only StyleGAN2 is known")
            limits.add(limit)
        taps = weights.get("resample_filter")
        row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        if isinstance(taps, Tensor) and not (
            taps.shape == (4, 4) and torch.allclose(taps.float(), torch.outer(row, row), atol=1e-4)
        ):
            raise UserError(f"{name} resamples in another way", hint="only StyleGAN2 is known")
    if len(limits) > 1:
        raise UserError("its layers have different limits", hint="only one for all is known")
    return next(iter(limits), None)


def _same(name: str, part: Module, what: str, known: tuple[str, ...]) -> None:
    there = part.state.get(what, known[0])
    if there not in known:
        about = repr(shown(there)) if isinstance(there, str) else f"of kind {type(there).__name__}"
        raise UserError(f"{name or 'the network'} has the {what} {about}", hint="only StyleGAN2 is known")


def _rosinality(source: Path) -> dict[str, Any]:
    held, limit = read_torch_file(source), source.stat().st_size
    weights = held.get("g_ema") if isinstance(held, dict) else None
    if not isinstance(weights, dict):
        raise UserError("it holds no g_ema", hint="import a file of rosinality's StyleGAN2")
    mean = held.get("latent_avg")
    means = {} if mean is None else floats({"latent_avg": mean}, limit)
    arguments, generator = rosinality.generator_state(floats(weights, limit), means.get("latent_avg"))
    found: dict[str, Any] = {
        "format": "rosinality",
        "family": "stylegan2",
        "arguments": arguments,
        "generator": generator,
    }
    if isinstance(held.get("d"), dict):
        found |= _discriminator(arguments, None, rosinality.discriminator_state(floats(held["d"], limit)))
    return found


def _import_pipeline(source: Path, out: Path, facts: dict[str, str], size: int) -> None:
    name = str(source.resolve()) if source.exists() else source.as_posix()
    arguments: dict[str, Any] = {"name": name, "size": size, "prompt": facts.pop("prompt", "")}
    FAMILIES.get("pipeline").generator(**arguments)  # says now what it would say later
    files = sorted(source.rglob("*.safetensors")) if source.exists() else []
    digest = hashlib.sha256("".join([json.dumps(arguments), *map(hash_file, files)]).encode()).hexdigest()
    card: dict[str, Any] = {
        "family": "pipeline",
        "name": facts.pop("name", "") or source.name,
        "size": size,
        "kimg": None,
        "classes": [],
        "network": arguments,
        "crop": None,
        "hash": digest,
        **facts,
    }
    _write_card(out, card)


def _write_card(out: Path, card: dict[str, Any]) -> None:
    """A model without weights of its own."""
    out.mkdir(parents=True, exist_ok=True)
    save_file({}, out / WEIGHTS)
    write_json(out / CARD, card)


def _import_shards(source: Path, out: Path, facts: dict[str, str]) -> None:
    """A card that stands for images made elsewhere; they stay where they are."""
    if not is_shards(source):
        raise UserError(
            f"{source} holds no shards",
            hint=f"make some with 'crossfake data prepare {source} --label fake --out SHARDS' and import these",
        )
    shards = ShardSet(source)
    count = len(shards.select(label=1))
    if not count or not shards.size:
        raise UserError(
            f"{source} holds no fakes of one size", hint="prepare them with --label fake --size 64"
        )
    name = facts.pop("name", "") or str(shards.columns["generator"][shards.select(label=1)[0]])
    card: dict[str, Any] = {
        "family": "external",
        "name": name,
        "size": shards.size,
        "kimg": None,
        "classes": [],
        "network": {"shards": str(source.resolve()), "size": shards.size, "content": shards.content_hash},
        "crop": shards.attributes.get("crop"),
        "images": count,
        "hash": shards.hash,
        **facts,
    }
    _write_card(out, card)
