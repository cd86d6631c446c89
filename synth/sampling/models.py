"""Trained generators on disk and in use: safetensors beside a JSON card, and images by number."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from crossfake import __version__
from crossfake.datasets.firewall import Seen
from crossfake.datasets.shards import MANIFEST, ShardSet
from crossfake.datasets.types import Pixels
from crossfake.device import compute_dtype, pick_device
from crossfake.errors import UserError
from crossfake.files import write_json
from crossfake.images import Images, to_uint8
from crossfake.options import Precision
from crossfake.provenance import hash_file
from crossfake.registry import unregistered
from crossfake.runs import Run, save_weights
from crossfake.synth.families.base import FAMILIES

_IMPORTED = ("external", "pipeline")
WEIGHTS, CARD = "generator.safetensors", "model.json"
DISCRIMINATOR = "discriminator.safetensors"  # beside imported models: to start a training from


def random_vectors(count: int, seed: int, first: int, length: int) -> Tensor:
    """Gaussian vectors of images ``first`` to ``first + count - 1``: each depends on (seed, its number) only.

    Philox (Salmon et al. 2011) is a counter-based generator: the image's number is the counter, so any image
    can be had without those before it. Returns float32 ``[count, length]``.
    """
    rows = np.empty((count, length), np.float32)
    for row in range(count):
        stream = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, first + row]))
        stream.standard_normal(out=rows[row], dtype=np.float32)
    return torch.from_numpy(rows)


@dataclass(frozen=True)
class Model:
    """A trained generator, ready to sample.

    Example:
        >>> model = load_model("runs/x")  # doctest: +SKIP
        >>> model.images(first=0, count=4, seed=0, psi=0.7).shape  # doctest: +SKIP
        (4, 64, 64, 3)
    """

    path: Path
    family: str
    network: nn.Module
    card: dict[str, Any]
    hash: str
    device: torch.device
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Height and width of its images."""
        return int(self.card["size"])

    @property
    def name(self) -> str:
        """How rows of its images name it: as its card says, else family and the start of the weights' hash."""
        return str(self.card.get("name") or f"{self.family}:{self.hash[:8]}")

    @property
    def tile(self) -> int:
        """Images computed together. It is fixed, because a convolution library may add in another order, and so
        round differently, for another batch size."""
        return min(64, max(4, 2**18 // (self.size or 128) ** 2))

    def draw(self, tile: int, seed: int) -> Tensor:
        """The Gaussian vectors of tile number ``tile``."""
        return random_vectors(self.tile, seed, tile * self.tile, int(self.network.latent_dim))  # type: ignore[arg-type]

    def labels(self, tile: int, chosen: int | None = None) -> Tensor | None:
        """Classes of a tile's images, one-hot: the one chosen, else all in turn by the image's number."""
        classes = len(self.card.get("classes", ()))
        if not classes:
            return None
        numbers = torch.arange(tile * self.tile, (tile + 1) * self.tile) % classes
        return F.one_hot(torch.full_like(numbers, chosen) if chosen is not None else numbers, classes).float()

    @torch.inference_mode()
    def render(self, vectors: Tensor, psi: float = 1.0, labels: Tensor | None = None) -> Images:
        """Images of Gaussian vectors ``[B, latent_dim]`` and one-hot labels: uint8 ``[B, size, size, 3]``."""
        labels = None if labels is None else labels.to(self.device)
        return to_uint8(self.network(vectors.to(self.device), psi=psi, dtype=self.dtype, labels=labels))

    def images(
        self, first: int, count: int, seed: int = 0, psi: float = 1.0, label: int | None = None
    ) -> Images:
        """Images number ``first`` to ``first + count - 1`` of ``seed``: uint8 ``[count, size, size, 3]``."""
        if self.takes:
            return self.take(first, count)
        tiles = range(first // self.tile, -(-(first + count) // self.tile))
        images = np.concatenate(
            [self.render(self.draw(tile, seed), psi, self.labels(tile, label)) for tile in tiles]
        )
        offset = first - tiles.start * self.tile
        return images[offset : offset + count]

    @property
    def takes(self) -> bool:
        """Whether its images were made elsewhere."""
        return hasattr(self.network, "take")

    def take(self, first: int, count: int, split: str = "") -> Images:
        """Images number ``first`` to ``first + count - 1`` of those made elsewhere, of that split if they have any."""
        taken: Images = self.network.take(first, count, split)  # type: ignore[operator]
        return taken

    @property
    def edits(self) -> bool:
        """Whether it can work on photos."""
        return hasattr(self.network, "edit")

    @property
    def needs_photos(self) -> bool:
        """Whether it can do nothing without."""
        return bool(getattr(self.network, "needs_photos", False))

    @property
    def any_size(self) -> bool:
        """Whether photos may have any shape, each its own."""
        return bool(getattr(self.network, "any_size", False))

    @property
    def partnered(self) -> bool:
        """Whether a fake takes a second photo."""
        return bool(getattr(self.network, "partnered", False))

    @torch.inference_mode()
    def edit(self, photos: Sequence[Pixels], partners: Sequence[Pixels], vectors: Tensor) -> list[Pixels]:
        """Fakes made of photos and partners, uint8 ``[H, W, 3]`` each, of the photos' shapes."""
        network: Any = self.network
        edited: list[Pixels] = network.edit(photos, partners, vectors.to(self.device), self.dtype)
        return edited


def save_model(
    folder: Path, family: str, network: nn.Module, card: dict[str, Any], seen: Seen | None = None
) -> None:
    """Write ``generator.safetensors``, ``model.json`` and, where given, the rows that it learned from.

    A crash leaves the old model or the new one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / WEIGHTS, network)
    if seen is not None:
        card = {**card, "seen": seen.save(folder)}
    write_json(folder / CARD, {"family": family, **card})


def untrained_model(
    family: str, size: int, source: str = "", device: str = "auto", precision: Precision = "auto"
) -> Model:
    """A generator of a family that has nothing to learn here.

    Args:
        family: its name.
        size: of the photos; 0 where each has its own.
        source: of ``reconstruct`` the autoencoder: a folder, or a name on the hub.
        device: of that.
        precision: of that.

    Raises:
        UserError: the family has to be trained, or imported; or the autoencoder is not there.
    """
    kind = FAMILIES.get(family)
    if kind.learner or family in _IMPORTED:
        raise UserError(f"{family} has to be trained or imported first", hint="name its run with --model")
    card = {"family": family, "size": size, "network": {"size": size}, "classes": []}
    if family != "reconstruct":
        digest = hashlib.sha256(f"{family} {size} {__version__}".encode()).hexdigest()
        network = kind.generator(size=size)
        return Model(
            Path(),
            family,
            network.eval(),
            card | {"name": family},
            digest,
            torch.device("cpu"),
            torch.float32,
        )
    if not source:
        raise UserError(
            f"{family} needs an autoencoder",
            hint="name one with --model: a folder with TAESD's encoder.safetensors and decoder.safetensors, "
            "a folder of diffusers, or a name on the hub",
        )
    network = kind.generator(name=source, size=size).eval().requires_grad_(False)
    digest = hash_weights(network)
    target = pick_device(device)
    named = source if "/" in source and not Path(source).exists() else Path(source).resolve().name
    card |= {
        "network": {"name": named, "size": size},
        "learned_elsewhere": (f"{family}:{digest[:8]} ({named})",),
    }
    return Model(Path(), family, network.to(target), card, digest, target, compute_dtype(target, precision))


def hash_weights(network: nn.Module) -> str:
    """SHA-256 of all weights, by name, in float32."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_model(path: str | Path, device: str = "auto", precision: Precision = "auto") -> Model:
    """A generator from a model folder, or from the ``model`` folder of a run.

    Raises:
        UserError: there is no model, its card is damaged, or its weights do not fit the family.
    """
    folder = Path(path) / "model" if (Path(path) / "model").is_dir() else Path(path)
    if not (folder / CARD).is_file() or not (folder / WEIGHTS).is_file():
        raise UserError(f"{path} holds no generator", hint="name a run of 'synth train' or a model folder")
    try:
        card = json.loads((folder / CARD).read_text())
        family, arguments = card["family"], dict(card["network"])
        if family not in FAMILIES:
            raise unregistered(f"the generator in {folder}", "family", family)
        network = FAMILIES.get(family).generator(**arguments)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / CARD} is damaged ({error})", hint="copy the model folder again"
        ) from error
    try:
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, RuntimeError) as error:
        raise UserError(
            f"{folder / WEIGHTS} does not hold a {family} of {card['size']} pixels", hint="copy it again"
        ) from error
    target = pick_device(device)
    network = network.eval().requires_grad_(False).to(target)
    digest = card.get("hash") or hash_file(folder / WEIGHTS)
    return Model(folder, family, network, card, digest, target, compute_dtype(target, precision))


def seen_by(path: str | Path) -> Seen:
    """The rows that a generator learned from.

    Of one trained before there was a record, they are looked up in its run's data, where that is still what it was. Of
    an imported one only the name is known.

    Args:
        path: a run or model folder.

    Raises:
        UserError: the record, or the card, is damaged.
    """
    folder = Path(path) / "model" if (Path(path) / "model").is_dir() else Path(path)
    found = Seen.load(folder)
    if found is not None:
        return found
    run = Run(Path(path)) if Run(Path(path)).config_file.exists() else Run(folder.parent)
    try:
        if not run.config_file.exists():
            card = json.loads((folder / CARD).read_text())
            if "data" not in card:  # trained elsewhere
                return Seen(by_name=(str(card.get("name") or card["family"]),))
            return Seen(unknown=(f"{path} does not say what it learned from",))
        config = run.config
        data, split, init = Path(config["data"]), config["split"], config.get("init")
        known = set(config["data_hashes"].values())
    except FileNotFoundError:
        return Seen(unknown=(f"{path} is not there any more to say what it learned from",))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / CARD} is damaged ({error})", hint="copy it again") from error
    if not (data / MANIFEST).is_file() or (shards := ShardSet(data)).hash not in known:
        return Seen(unknown=(f"{path} learned from {data}, which is not there as it was",))
    learned = Seen.of(shards, shards.select(split=split, label=0))
    return learned | seen_by(init) if init else learned
