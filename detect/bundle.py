"""A trained detector on disk and in use: weights, and everything needed to score an image as in training."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from crossfake import __version__
from crossfake.datasets.codecs import Pixels
from crossfake.datasets.crops import Cropper
from crossfake.datasets.decode import decode_image
from crossfake.detect.models import create_model
from crossfake.device import Precision, autocast, pick_device
from crossfake.errors import UserError
from crossfake.provenance import hash_file
from crossfake.runs import write_text

WEIGHTS, CARD = "model.safetensors", "bundle.json"
LABELS = ("real", "fake")
_BATCH = 128


@dataclass(frozen=True)
class Detector:
    """A detector ready to judge.

    Attributes:
        card: model name, size, crop policy, temperature, threshold, hashes of the data it comes from.
        hash: SHA-256 of the weights.

    Example:
        >>> detector = load("runs/d")  # doctest: +SKIP
        >>> detector("photo.jpg")  # doctest: +SKIP
        0.93
    """

    path: Path
    card: dict[str, Any]
    network: nn.Module
    hash: str
    device: torch.device
    precision: Precision
    face_model: Path | None = None

    @property
    def threshold(self) -> float:
        """Probability from which on an image is called fake; chosen on the validation set."""
        return float(self.card["threshold"])

    @property
    def size(self) -> int:
        return int(self.card["size"])

    @cached_property
    def crop(self) -> Cropper:
        """What turns a photo into what the network was trained on."""
        return Cropper.from_description(self.size, self.card["crop"] or {}, self.face_model)

    def score(self, images: Pixels) -> npt.NDArray[np.float64]:
        """Calibrated probability of being fake, ``[N]``, of cropped images uint8 ``[N, size, size, 3]``.

        The network always runs on full batches, padded at the end, so a score does not depend on how many images
        come with it.
        """
        if images.shape[1:] != (self.size, self.size, 3) or images.dtype != np.uint8:
            raise UserError(
                f"the detector takes uint8 images of {self.size}×{self.size}, not {images.dtype} {images.shape[1:]}",
                mend="prepare them with the --size and --crop that it was trained with",
            )
        logits = [self._logits(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)]
        scaled = np.concatenate([np.empty(0), *logits]) / float(self.card["temperature"])
        return np.asarray(1 / (1 + np.exp(-scaled)))

    @torch.inference_mode()
    def _logits(self, images: Pixels) -> npt.NDArray[np.float64]:
        padded = np.zeros((_BATCH, *images.shape[1:]), np.uint8)
        padded[: len(images)] = images
        batch = torch.from_numpy(padded).to(self.device).permute(0, 3, 1, 2).float().div_(255)
        with autocast(self.device, self.precision):
            logits = self.network(batch)
        return logits[: len(images)].double().cpu().numpy()

    def __call__(self, image: str | Path | Pixels) -> float:
        """Score of one photo, cropped as the training images were.

        Raises:
            UserError: it cannot be read.
            crossfake.datasets.geometry.Skip: the crop policy finds no face in it.
        """
        pixels = decode_image(image) if isinstance(image, str | Path) else image
        return float(self.score(self.crop(pixels)[None])[0])


def save(folder: Path, network: nn.Module, card: dict[str, Any]) -> None:
    """Write ``model.safetensors`` and ``bundle.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / (WEIGHTS + ".tmp")
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, temporary)
    temporary.replace(folder / WEIGHTS)
    facts = {"crossfake": __version__, "labels": LABELS, **card}
    write_text(folder / CARD, json.dumps(facts, indent=2, default=str) + "\n")


def load(
    path: str | Path, device: str = "auto", precision: Precision = "auto", face_model: Path | None = None
) -> Detector:
    """A detector from a bundle folder, or from the ``model`` folder of a run.

    Raises:
        UserError: there is none, its card is damaged, or its weights do not fit.
    """
    folder = Path(path) / "model" if (Path(path) / "model").is_dir() else Path(path)
    if not (folder / CARD).is_file() or not (folder / WEIGHTS).is_file():
        raise UserError(f"{path} holds no detector", mend="name a run of 'detect train' or a bundle folder")
    try:
        card = json.loads((folder / CARD).read_text())
        network = create_model(card["model"])
        network.load_state_dict(load_file(folder / WEIGHTS))
        float(card["threshold"]), float(card["temperature"]), int(card["size"]), card["crop"]
    except (ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"the detector in {folder} is damaged ({reason})", mend="copy or train it again"
        ) from error
    target = pick_device(device)
    network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last).to(target)
    return Detector(folder, card, network, hash_file(folder / WEIGHTS), target, precision, face_model)
