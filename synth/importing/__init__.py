"""Published generators, and images made elsewhere, as model folders. Nothing that a file brings along is run.

What can be read: pickles of the official StyleGAN2-ADA and StyleGAN3 repositories (StyleGAN2's networks), rosinality's
``.pt`` files, and shards of images whose generator is not at hand.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources import is_shards
from crossfake.errors import UserError
from crossfake.provenance import hash_file
from crossfake.runs import write_text
from crossfake.synth.families import FAMILIES
from crossfake.synth.families.stylegan2 import Discriminator, Generator
from crossfake.synth.importing import official, rosinality
from crossfake.synth.importing.pickles import Module, Refused, number, read_pickle
from crossfake.synth.models import CARD, DISCRIMINATOR, WEIGHTS, save_model

_MAX_BYTES = 4_000_000_000  # the largest published file has 400 MB


def import_model(source: Path, out: Path, facts: dict[str, str] | None = None, size: int = 64) -> Path:
    """Write a model folder for a published file or pipeline, or for shards of images made elsewhere.

    Args:
        source: a ``.pkl`` or ``.pt`` file, a diffusers pipeline (a folder, or a name on the hub), or a shard folder.
        out: the model folder to write.
        facts: what else the card should say: ``name``, ``license``, ``url``; and of a pipeline its ``prompt``.
        size: of a pipeline's images.

    Raises:
        UserError: it is none of them, holds another kind of network, or asks to run code.
    """
    if (out / CARD).exists():
        raise UserError(f"{out} holds a model already", mend="name another --out")
    facts = {key: value for key, value in (facts or {}).items() if value}
    on_hub = not source.exists() and len(source.parts) == 2 and source.suffix not in (".pkl", ".pt")
    if on_hub or (source / "model_index.json").is_file():
        _import_pipeline(source, out, facts, size)
        return out
    if source.is_dir():
        _import_shards(source, out, facts)
        return out
    if not source.is_file():
        raise UserError(f"{source} is not there", mend="check the path")
    if source.stat().st_size > _MAX_BYTES:
        raise UserError(f"{source} is larger than any generator", mend="name another file")
    try:
        found = _read(source)
        network = Generator(**found["arguments"])
        network.load_state_dict(found["generator"])
    except UserError as error:
        raise UserError(f"{source}: {error.message}", mend=error.mend) from error
    except RuntimeError as error:
        raise UserError(
            f"{source} is no StyleGAN2 of colour images ({str(error).splitlines()[-1].strip()})",
            mend="import another file",
        ) from error
    classes = [str(k) for k in range(found["arguments"].get("classes", 0))]
    card = {
        "size": network.size, "channels": 0, "kimg": None, "network": found["arguments"], "classes": classes,
        "crop": None, "source": {"file": source.name, "sha256": hash_file(source), "format": found["format"]}, **facts,
    }  # fmt: skip
    save_model(out, "stylegan2", network, card)
    if "discriminator" in found:
        weights = {name: tensor.contiguous() for name, tensor in found["discriminator"].items()}
        save_file(weights, out / DISCRIMINATOR)
    return out


def _read(source: Path) -> dict[str, Any]:
    """``format``, ``arguments``, ``generator`` and, if it is there, ``discriminator``."""
    with open(source, "rb") as file:
        head = file.read(16)
    if head[:4] == b"PK\x03\x04" or head[2:13] == b"\x8a\nl\xfc\x9cF\xf9 j\xa8P":  # torch.save's, new and old
        return _rosinality(source)
    if head[:1] != b"\x80":
        raise UserError("it is neither a pickle nor a file of torch.save", mend="name a .pkl or .pt file")
    return _official(source.read_bytes())


def _official(content: bytes) -> dict[str, Any]:
    try:
        held = read_pickle(content)
    except Refused as error:
        if "tflib" in error.message:
            raise UserError(
                "it is of the TensorFlow version", mend="convert it with legacy.py of stylegan2-ada-pytorch"
            ) from error
        raise
    network = held.get("G_ema") if isinstance(held, dict) else None
    if not isinstance(network, Module):
        raise UserError("it holds no G_ema", mend="import a network-snapshot file of StyleGAN2-ADA")
    clamp = _checked(network, {"architecture": "skip", "activation": "lrelu"})
    arguments, generator = official.generator_state(_floats(network.tensors()))
    found: dict[str, Any] = {"format": "stylegan2-ada-pytorch", "arguments": {**arguments, "clamp": clamp}}
    found["generator"] = generator
    other = held.get("D")
    if isinstance(other, Module):
        _checked(other, {"architecture": "resnet", "activation": "lrelu"})
        weights = official.discriminator_state(_floats(other.tensors()))
        judge = Discriminator(
            arguments["size"], classes=arguments["classes"], widths=arguments["widths"], clamp=clamp
        )
        if {name: value.shape for name, value in weights.items()} == {
            name: value.shape for name, value in judge.state_dict().items()
        }:
            found["discriminator"] = weights
    return found


def _checked(network: Module, wanted: dict[str, str]) -> float | None:
    """Refuse what would be computed in another way here; returns the limit of the activations."""
    clamps: set[float | None] = set()
    for name, part in network.modules().items():
        for what, value in wanted.items():
            there = part.state.get(what, value)
            if there not in (value, "linear"):
                raise UserError(
                    f"{name or 'the network'} has the {what} {there!r}", mend="only StyleGAN2 is known"
                )
        if "conv_clamp" in part.state and "weight" in (
            part.state.get("_parameters") or part.state["_buffers"]
        ):
            clamps.add(number(part.state["conv_clamp"]))
        taps = (part.state.get("_buffers") or {}).get("resample_filter")
        row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        if isinstance(taps, Tensor) and not (
            taps.shape == (4, 4) and torch.allclose(taps.float(), torch.outer(row, row), atol=1e-4)
        ):
            raise UserError(f"{name} resamples in another way", mend="only StyleGAN2 is known")
    if network.class_name == "Generator" and len(clamps - {None}) > 1:
        raise UserError("its layers have different limits", mend="only one for all is known")
    return next(iter(clamps - {None}), None)


def _rosinality(source: Path) -> dict[str, Any]:
    # torch's restricted unpickler; a trained file also holds the command line, a plain bag of values
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            held = torch.load(source, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, OSError) as error:
        raise UserError(
            f"it cannot be read without running it ({str(error).splitlines()[0][:200]})",
            mend="import a published file",
        ) from error
    weights = held.get("g_ema") if isinstance(held, dict) else None
    if not isinstance(weights, dict):
        raise UserError("it holds no g_ema", mend="import a file of rosinality's StyleGAN2")
    mean = held.get("latent_avg")
    arguments, generator = rosinality.generator_state(_floats(weights), mean)
    found: dict[str, Any] = {"format": "rosinality", "arguments": arguments, "generator": generator}
    if isinstance(held.get("d"), dict):
        found["discriminator"] = rosinality.discriminator_state(_floats(held["d"]))
    return found


def _floats(weights: dict[Any, Any]) -> dict[str, Tensor]:
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UserError(f"{str(name)[:100]} is no array", mend="import a published file")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise Refused(f"{name} with more numbers than are there")
    return {name: value.float() for name, value in weights.items()}


def _import_pipeline(source: Path, out: Path, facts: dict[str, str], size: int) -> None:
    name = str(source.resolve()) if source.exists() else source.as_posix()
    arguments: dict[str, Any] = {"name": name, "size": size, "prompt": facts.pop("prompt", "")}
    FAMILIES.get("pipeline").generator(**arguments)  # says now what it would say later
    files = sorted(source.rglob("*.safetensors")) if source.exists() else []
    digest = hashlib.sha256("".join([json.dumps(arguments), *map(hash_file, files)]).encode()).hexdigest()
    card: dict[str, Any] = {
        "family": "pipeline", "name": facts.pop("name", "") or source.name, "size": size, "kimg": None, "classes": [],
        "network": arguments, "crop": None, "hash": digest, **facts,
    }  # fmt: skip
    _write_card(out, card)


def _write_card(out: Path, card: dict[str, Any]) -> None:
    """A model without weights of its own."""
    out.mkdir(parents=True, exist_ok=True)
    save_file({}, out / WEIGHTS)
    write_text(out / CARD, json.dumps(card, indent=2) + "\n")


def _import_shards(source: Path, out: Path, facts: dict[str, str]) -> None:
    """A card that stands for images made elsewhere; they stay where they are."""
    if not is_shards(source):
        raise UserError(
            f"{source} holds no shards",
            mend=f"make some with 'crossfake data prepare {source} --label fake --out SHARDS' and import these",
        )
    shards = ShardSet(source)
    count = len(shards.select(label=1))
    if not count or not shards.size:
        raise UserError(
            f"{source} holds no fakes of one size", mend="prepare them with --label fake --size 64"
        )
    name = facts.pop("name", "") or str(shards.columns["generator"][shards.select(label=1)[0]])
    card: dict[str, Any] = {
        "family": "external", "name": name, "size": shards.size, "kimg": None, "classes": [],
        "network": {"shards": str(source.resolve()), "size": shards.size},
        "crop": shards.attributes.get("crop"), "images": count, "hash": shards.hash, **facts,
    }  # fmt: skip
    _write_card(out, card)
