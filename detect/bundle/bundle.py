"""A trained detector on disk and in use: weights, and everything needed to score an image as in training."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from scipy.special import expit
from torch import nn

from crossfake import __version__
from crossfake.datasets.crops import Cropper, crop_words
from crossfake.datasets.firewall import Seen
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.types import Pixels
from crossfake.detect.bundle import calibration, conformal, fitness, novelty
from crossfake.detect.bundle.portable import INT8, ONNX, OnnxNetwork, open_onnx
from crossfake.detect.models import DetectorNetwork, create_model
from crossfake.detect.verdict import LABELS, UNCERTAIN, Verdict
from crossfake.detect.view import Images, View, Windows
from crossfake.detect.whole import Whole, check_faces
from crossfake.device import autocast, pick_device
from crossfake.errors import MissingDependency, UserError
from crossfake.files import write_json
from crossfake.options import Precision
from crossfake.provenance import hash_file
from crossfake.registry import Unknown, unregistered
from crossfake.runs import save_weights
from crossfake.stats.intervals import Z

WEIGHTS, CARD = "model.safetensors", "bundle.json"
AUTHORS = "the authors' own"  # the rule of a threshold that was published
_FILES = {"onnx": ONNX, "onnx-int8": INT8}
BACKENDS = ("torch", *_FILES)
_PIXELS = 128 * 64 * 64  # of a batch on the CPU: larger ones are no quicker, and a single photo pays for all
_LARGEST_SIDE = 4096

Outputs = tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Detector:
    """A detector ready to judge.

    Attributes:
        card: model name, size, crop policy, calibration, threshold, hashes of the data it comes from.
        network: the model; with ONNX Runtime as the back end, the session.
        hash: SHA-256 of the weights.
        reference: what usual images look like, if the bundle knows.
        windows: of each native image, in place of the card's number.

    Example:
        >>> detector = load("runs/d")  # doctest: +SKIP
        >>> detector("photo.jpg")  # doctest: +SKIP
        0.93
    """

    path: Path
    card: dict[str, Any]
    network: DetectorNetwork
    hash: str
    device: torch.device
    precision: Precision
    face_model: Path | None = None
    reference: novelty.Novelty | None = None
    windows: int | None = None

    def __post_init__(self) -> None:
        if self.windows is not None and (self.view.whole or not self.view.native):
            raise UserError(
                f"the detector in {self.path} sees whole images, not windows", hint="leave --windows out"
            )

    @property
    def threshold(self) -> float:
        """Probability from which on an image is called fake; chosen on the validation set."""
        return float(self.card["threshold"])

    @property
    def threshold_from(self) -> str:
        """Who chose the threshold, for people."""
        return "the authors' own" if self.card.get("threshold_rule") == AUTHORS else "from validation"

    @property
    def published(self) -> list[dict[str, Any]]:
        """What is known of it, or of members of an ensemble, where others trained and published them."""
        parts = [self.card, *(self.card.get("members") or ())]
        return [part["published"] for part in parts if part.get("published")]

    @property
    def prior(self) -> float:
        """Share of fakes at which its probabilities hold: that of the images it was calibrated on, as they count."""
        shares = self.card.get("validation_shares")
        fakes = sum(each["share"] for each in shares if each["kind"] != "real") if shares else 0.5
        return float(self.calibration.get("prior") or fakes or 0.5)

    @cached_property
    def fitness(self) -> fitness.Fitness:
        """What it was made of and tested on, and so what may be said in its name."""
        return fitness.of_card(self.card, self.hash)

    @property
    def size(self) -> int:
        """Side of what the network takes: of an image, or of a native view's window."""
        return int(self.card["size"])

    @cached_property
    def view(self) -> View:
        """What the network sees of an image."""
        view = View.of_card(self.card)
        if isinstance(view, Whole) and self.crop.template:
            return replace(view, upright=self.crop)
        return view if self.windows is None else replace(view, windows=self.windows)

    @property
    def batch(self) -> int:
        """Images that the network always sees at once; a power of two."""
        if isinstance(self.view, Whole) and not self.view.fixed:
            return 1
        if self.device.type != "cpu":
            return 128
        # of native windows each photo brings several, and a quarter is as quick
        pixels = _PIXELS // 4 if self.view.native and not self.view.whole else _PIXELS
        return 1 << max(3, min(7, (pixels // self.size**2).bit_length() - 1))

    @property
    def calibration(self) -> dict[str, Any]:
        """The map from logits to probabilities; bundles made before there were several have a temperature."""
        return calibration_of(self.card)

    @cached_property
    def crop(self) -> Cropper:
        """What turns a photo into what the network was trained on; of a native view no smaller than a window."""
        crop, view = self.card["crop"] or {}, View.of_card(self.card)
        if view.native:
            crop = {**crop, "pixels": "native", "min_size": 1 if view.whole else self.size}
        return Cropper.from_description(self.size, crop, self.face_model)

    def check_data(self, shards: ShardSet, *, force: bool | None = None) -> None:
        """Whether a set's images are cut as those that the detector was trained on.

        Args:
            shards: the set; of one that does not say how it was cropped only the size counts.
            force: take another crop; None where the user has no such choice.

        Raises:
            UserError: they have another size or crop, or pixels of another kind.
        """
        self.view.check(shards)
        if self.view.whole:
            check_faces(self.card["crop"] or {}, shards, force)
            return
        if not self.view.native and shards.size != self.size:
            held = f"images of {shards.size}×{shards.size}" if shards.size else "whole files"
            raise UserError(
                f"{shards.path} holds {held}, the detector takes {self.size}×{self.size}",
                hint=f"prepare it with --size {self.size}",
            )
        crop, own = shards.attributes.get("crop"), self.card["crop"]
        if crop and own and crop != own and not force:
            raise UserError(
                f"{shards.path} was cropped as {crop_words(crop)}, the detector was trained on {crop_words(own)}",
                hint="prepare it the same way" + (", or --force" if force is not None else ""),
            )

    def outputs(self, images: Images) -> Outputs:
        """Logits float64 ``[N]`` and features float32 ``[N, F]`` of cropped images.

        The network always runs on full batches, padded at the end, so a score does not depend on how many images
        come with it.

        Args:
            images: uint8 ``[N, size, size, 3]``; of a native view a list of ``[H, W, 3]``, or their windows, over
                which logits and features are averaged.

        Raises:
            UserError: images of another size or type, or an output that is not a number.
        """
        return self.outputs_and_error(images)[:2]

    def outputs_and_error(
        self, images: Images
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32], npt.NDArray[np.float64]]:
        """:meth:`outputs`, and the standard error of each logit by the windows that it is the mean of, ``[N]``."""
        if self.view.native and not isinstance(images, Windows):
            images = self.view.cut(list(images))
        if isinstance(images, Windows):
            logits, features = self._outputs(images.images)
            return images.mean(logits), images.mean(features), images.error(logits)
        logits, features = self._outputs(np.asarray(images))
        return logits, features, np.zeros(len(logits))

    def _outputs(self, images: Pixels) -> Outputs:
        if images.dtype == object:  # each of its own size
            batches = [image[None] for image in images] or [np.zeros((0, self.size, self.size, 3), np.uint8)]
        elif images.shape[1:] != (self.size, self.size, 3) or images.dtype != np.uint8:
            raise UserError(
                f"the detector takes uint8 images of {self.size}×{self.size}, not {images.dtype} {images.shape[1:]}",
                hint="prepare them with the --size and --crop that it was trained with",
            )
        else:  # one empty batch says how many features there are
            starts = range(0, max(1, len(images)), self.batch)
            batches = [images[start : start + self.batch] for start in starts]
        parts = [self._run(batch) for batch in batches]
        logits = np.concatenate([part[0] for part in parts])
        if not np.isfinite(logits).all():
            raise UserError(
                f"the detector in {self.path} gives {logits[~np.isfinite(logits)][0]} for an image",
                hint="its weights are damaged: copy or train it again",
            )
        return logits, np.concatenate([part[1] for part in parts])

    @torch.inference_mode()
    def _run(self, images: Pixels) -> Outputs:
        padded = np.zeros((self.batch, *images.shape[1:]), np.uint8)
        padded[: len(images)] = images
        if isinstance(self.network, OnnxNetwork):
            logits, features, _ = self.network.run(padded)
        else:
            batch = torch.from_numpy(padded).to(self.device).permute(0, 3, 1, 2).float().div_(255)
            with autocast(self.device, self.precision):
                z, f = logits_and_features(self.network, batch)
            logits, features = z.double().cpu().numpy(), f.float().cpu().numpy()
        return logits[: len(images)].astype(np.float64), features[: len(images)]

    def probability(self, logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Calibrated probability of being fake, ``[N]``, of logits ``[N]``."""
        return calibration.probability(self.calibration, logits)

    def score(self, images: Images) -> npt.NDArray[np.float64]:
        """Calibrated probability of being fake, ``[N]``, of cropped images as :meth:`outputs` takes them."""
        return self.probability(self.outputs(images)[0])

    def judge(self, images: Images) -> list[Verdict]:
        """Score, interval, novelty and verdict of cropped images as :meth:`outputs` takes them.

        This is what the network says by itself; :meth:`say` is what may be said of it.
        """
        return self.judge_outputs(*self.outputs_and_error(images))

    def judge_outputs(
        self,
        logits: npt.NDArray[np.float64],
        features: npt.NDArray[np.float32],
        error: npt.NDArray[np.float64] | None = None,
    ) -> list[Verdict]:
        """:meth:`judge` for what :meth:`outputs`, or :meth:`outputs_and_error`, returned.

        Fake only above one half and above the threshold, real only below both: where these disagree it abstains.
        The interval is that of the calibration, widened by 1.96 standard errors of the windows' mean on either side.
        """
        scores = self.probability(logits)
        wide = np.zeros(len(logits)) if error is None else Z * error
        below, above = (calibration.interval(self.calibration, logits + side * wide) for side in (-1, 1))
        ends = (below[0], above[1]) if below and above else None
        unusual = self.reference.share(logits, features) if self.reference else None
        abstention = self.card.get("abstention")
        sets = conformal.allowed(abstention, logits) if abstention else None
        verdicts = []
        for i, (own, score) in enumerate(zip(expit(logits).tolist(), scores.tolist(), strict=True)):
            low, high = (float(ends[0][i]), float(ends[1][i])) if ends else (None, None)
            share = None if unusual is None else float(unusual[i])
            label = int(score >= 0.5)
            # An image whose only plausible label is on the other side is not called either
            near = bool(sets and not (sets[label][i] and not sets[1 - label][i]))
            near = near or label != int(score >= self.threshold)
            far = bool(self.reference and share is not None and share > self.reference.quantile)
            straddles = low is not None and high is not None and low < self.threshold <= high
            reasons = ("out-of-distribution",) * far + ("near-threshold",) * (near or straddles)
            verdict = UNCERTAIN if near or far else LABELS[label]
            verdicts.append(Verdict(own, score, low, high, verdict, share, reasons))
        return verdicts

    def say(self, found: Iterable[Verdict], prior: float | None = None) -> list[Verdict]:
        """What may be said, of what :meth:`judge` found.

        Args:
            found: its verdicts.
            prior: share of fakes among the pictures at hand; :attr:`prior` when None.
        """
        return [self.fitness.say(each, self.prior, prior) for each in found]

    def __call__(self, image: str | Path | Pixels) -> float:
        """Score of one photo, cropped as the training images were.

        Raises:
            UserError: it cannot be read.
            crossfake.datasets.geometry.Skip: the crop policy finds no face in it.
        """
        crop = self.crop(image) if isinstance(image, np.ndarray) else self.crop.open(Path(image))
        return float(self.score([crop])[0])


def calibration_of(card: dict[str, Any]) -> dict[str, Any]:
    """The calibration map that a card stands for."""
    found: dict[str, Any] | None = card.get("calibration")
    return found or {"method": "temperature", "temperature": float(card["temperature"])}


def logits_and_features(network: DetectorNetwork, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One pass over float ``[B, 3, H, W]`` in [0, 1]: logits ``[B]`` and features ``[B, F]``."""
    features = network.features(batch)
    return network.logits(features), features


def save(folder: Path, network: nn.Module, card: dict[str, Any], seen: Seen | None = None) -> None:
    """Write ``model.safetensors``, ``bundle.json`` and, where given, the rows that were seen."""
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / WEIGHTS, network)
    if seen is not None:
        card = {**card, "seen": seen.save(folder)}
    write_card(folder, {"crossfake": __version__, "labels": LABELS, **card})


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Replace ``bundle.json``; a crash leaves the old one."""
    write_json(folder / CARD, card, default=str)


def load(
    path: str | Path,
    device: str = "auto",
    precision: Precision = "fp32",
    face_model: Path | None = None,
    backend: str = "torch",
    windows: int | None = None,
) -> Detector:
    """A detector from a bundle folder, or from the ``model`` folder of a run.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: of the network; fp32, so that a score and its threshold are alike on every machine and back end.
            ONNX Runtime always computes in the precision that was exported.
        face_model: YuNet's ONNX file.
        backend: ``torch``; ``onnx`` runs ``model.onnx``, which ``detect export`` leaves in the bundle, ``onnx-int8``
            the ``model-int8.onnx`` of ``detect export --int8``.
        windows: of each native image that is judged; the card's number when None.

    Raises:
        UserError: there is none, its card is damaged or names a model that is not registered here, its weights do not
            fit, or the ONNX file is of other weights.
    """
    if backend not in BACKENDS:
        raise UserError(f"there is no back end {backend!r}", hint=f"use {' or '.join(BACKENDS)}")
    folder = Path(path) / "model" if (Path(path) / "model").is_dir() else Path(path)
    if not (folder / CARD).is_file() or not (folder / WEIGHTS).is_file():
        raise UserError(f"{path} holds no detector", hint="name a run of 'detect train' or a bundle folder")
    target = pick_device(device)
    try:
        card = json.loads((folder / CARD).read_text())
        _check_card(card)
        reference = novelty.load(folder, card["novelty"]) if card.get("novelty") else None
        weights = hash_file(folder / WEIGHTS)
        fitness.of_card(card, weights)
        if backend == "torch":
            network = create_model(card["model"], options=card.get("options") or {})
            network.load_state_dict(_renamed(load_file(folder / WEIGHTS), network))
            network.eval().requires_grad_(False).to(memory_format=torch.channels_last).to(target)
    except MissingDependency:
        raise
    except Exception as error:  # a card may name any model with any options, and each fails in its own way
        if isinstance(error, Unknown) and f"model {card['model']!r}" in error.message:
            raise unregistered(f"the detector in {folder}", "model", card["model"]) from error
        reason = (str(error) or type(error).__name__).partition("\n")[0]
        raise UserError(
            f"the detector in {folder} is damaged ({reason})", hint="copy or train it again"
        ) from error
    if backend in _FILES:
        network = open_onnx(folder / _FILES[backend], weights, int(card["size"]))
        target = torch.device("cpu")
    return Detector(folder, card, network, weights, target, precision, face_model, reference, windows)


def _renamed(state: dict[str, torch.Tensor], network: DetectorNetwork) -> dict[str, torch.Tensor]:
    """Bundles made before models had a ``head`` hold its tensors under the classifier's name."""
    own = network.state_dict()
    heads = {name.rpartition(".")[2]: name for name in own if name not in state and name.startswith("head.")}
    return {name if name in own else heads.get(name.rpartition(".")[2], name): t for name, t in state.items()}


def _check_card(card: Any) -> None:
    """Raise ``ValueError``, ``KeyError`` or ``TypeError`` unless the card has what judging needs."""
    if not isinstance(card, dict) or not isinstance(card["crop"], dict | None):
        raise ValueError("its card is no table of facts")
    if not isinstance(card["model"], str) or not isinstance(card.get("options") or {}, dict):
        raise ValueError("its card names no model")
    if not 1 <= int(card["size"]) <= _LARGEST_SIDE:
        raise ValueError(f"size {card['size']}")
    if View.of_card(card).native and View.of_card(card).window != int(card["size"]):
        raise ValueError(f"windows of {card['view']['window']} for a network of {card['size']}")
    if not np.isfinite(float(card["threshold"])):
        raise ValueError(f"threshold {card['threshold']}")
    audit, hashes = card.get("audit", {"summary": ""}), card.get("data_hashes") or {}
    if not isinstance(audit, dict) or not isinstance(audit["summary"], str):
        raise ValueError("its audit is no audit")
    if not isinstance(hashes, dict) or not isinstance(card.get("sources", []), list):
        raise ValueError("its card does not say what it was trained on")
    calibration.check(calibration_of(card))
    if card.get("abstention"):
        conformal.check(card["abstention"])
