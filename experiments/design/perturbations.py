"""What may happen to test pictures, along one axis of strength each: the curves of the robustness protocol.

Training draws such changes at random (:mod:`crossfake.detect.training.recipes`); here the strength is given, and the
rest is drawn per picture, without an eye on labels. The draws of a picture are the same at every strength, so that
a curve shows the strength and not luck.

Example:
    >>> images = np.zeros((2, 16, 16, 3), np.uint8)
    >>> perturb(images, "jpeg", 50).shape, grid("jpeg")[0], describe("jpeg")
    ((2, 16, 16, 3), 95.0, 'JPEG quality')
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np

from crossfake.datasets.types import Pixels
from crossfake.detect.training.augmentation import blurred, coded, noised, resampled, shared
from crossfake.detect.training.benign import edited
from crossfake.errors import UserError
from crossfake.registry import Registry

Pictures = TypeVar("Pictures", Pixels, list[Pixels])
Change = Callable[[Pixels, float, np.random.Generator], Pixels]

_CUBIC = 0.2  # of the ways of `resampled`: averages going down, cubic going up
# sRGB's primaries seen through Display P3's (both D65; SMPTE EG 432-1), for linear light
P3 = np.array(
    [[0.822462, 0.177538, 0.0], [0.033194, 0.966806, 0.0], [0.017083, 0.072397, 0.910520]], np.float32
)


@dataclass(frozen=True)
class Perturbation:
    """One way to change pictures.

    Attributes:
        change: what is done to one picture uint8 ``[side, side, 3]``, with a strength and the picture's own chance.
        axis: what the strength is, in words.
        strengths: the usual ones, mildest first.
        low, high: the strengths that there are.
        whole: only whole numbers are strengths.
    """

    change: Change
    axis: str
    strengths: tuple[float, ...]
    low: float
    high: float
    whole: bool = False


BENIGN = "benign"  # what people do to their own photos
CODECS = ("jpeg", "webp")

PERTURBATIONS: Registry[Perturbation] = Registry("perturbation")


def perturb(images: Pictures, name: str, strength: float | None, seed: int = 0) -> Pictures:
    """Change pictures.

    Args:
        images: uint8 ``[N, side, side, 3]``, or a list of native ones ``[H, W, 3]``.
        name: of :data:`PERTURBATIONS`.
        strength: along :func:`describe`'s axis; None changes nothing.
        seed: picture *i* draws from ``seed + i``: rows from *a* on with ``seed + a`` come out as they do among all.

    Returns:
        New ones of the same shapes. A picture's result depends on nothing but its pixels, name, strength and
        ``seed + i``.

    Raises:
        UserError: an unknown name, a strength that there is not, or pictures of another kind.
    """
    if isinstance(images, list):
        return _each(images, name, strength, seed)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (images.shape[1],) * 2 + (3,):
        raise UserError(
            f"{name} takes square uint8 pictures, not {images.dtype} {images.shape[1:]}",
            hint="crop them first",
        )
    return np.stack(_each(list(images), name, strength, seed)) if len(images) else images.copy()


def _each(images: list[Pixels], name: str, strength: float | None, seed: int) -> list[Pixels]:
    change, key = PERTURBATIONS.get(name).change, zlib.crc32(name.encode())
    if strength is None:
        return [image.copy() for image in images]
    check(name, strength)
    return [
        change(image, strength, np.random.default_rng([seed + number, key]))
        for number, image in enumerate(images)
    ]


def check(name: str, strength: float) -> None:
    """Raise ``UserError`` unless there is a perturbation of that name and strength."""
    found = PERTURBATIONS.get(name)
    if not found.low <= strength <= found.high or (found.whole and strength != int(strength)):
        number = "whole number" if found.whole else "number"
        raise UserError(
            f"{name} cannot have the strength {strength:g}",
            hint=f"give a {number} from {found.low:g} to {found.high:g}: {found.axis}",
        )


def given(coding: dict[str, float]) -> tuple[str, float] | None:
    """One codec with its quality, as ``reencode`` has it; None of nothing.

    Raises:
        UserError: several, another one than :data:`CODECS`, or a quality that there is not.
    """
    if not coding:
        return None
    if len(coding) != 1 or not set(coding) <= set(CODECS):
        raise UserError(f"reencode is {coding}", hint="give one of {jpeg: 85} and {webp: 85}")
    ((name, quality),) = coding.items()
    check(name, quality)
    return name, float(quality)


def grid(name: str) -> tuple[float, ...]:
    """The usual strengths of a perturbation, mildest first."""
    return PERTURBATIONS.get(name).strengths


def describe(name: str) -> str:
    """What a perturbation's strength is, for the axis of a figure."""
    return PERTURBATIONS.get(name).axis


def _register(
    name: str, axis: str, strengths: tuple[float, ...], low: float, high: float, whole: bool = False
) -> Callable[[Change], Change]:
    def add(change: Change) -> Change:
        PERTURBATIONS.register(name)(Perturbation(change, axis, strengths, low, high, whole))
        return change

    return add


@_register("jpeg", "JPEG quality", (95.0, 85.0, 70.0, 50.0, 30.0), 30, 100, whole=True)
def _jpeg(image: Pixels, quality: float, _: np.random.Generator) -> Pixels:
    return coded(image, "JPEG", int(quality))


@_register("webp", "WebP quality", (95.0, 85.0, 70.0, 50.0, 30.0), 30, 100, whole=True)
def _webp(image: Pixels, quality: float, _: np.random.Generator) -> Pixels:
    return coded(image, "WEBP", int(quality))


@_register("resize", "share of the size, down and up again", (0.9, 0.75, 0.5, 0.35, 0.25), 0.05, 1)
def _resize(image: Pixels, share: float, _: np.random.Generator) -> Pixels:
    return resampled(image, share, _CUBIC)


@_register("blur", "blur, sigma in pixels", (0.5, 1.0, 1.5, 2.0, 3.0), 0, 5)
def _blur(image: Pixels, sigma: float, _: np.random.Generator) -> Pixels:
    return blurred(image, sigma, sigma)


@_register("noise", "noise, standard deviation in grey levels", (2.0, 5.0, 10.0, 15.0, 25.0), 0, 100)
def _noise(image: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    return noised(image, sigma, int(rng.integers(2**32)))


@_register("crop", "share of the side that is kept", (0.95, 0.9, 0.8, 0.65, 0.5), 0.1, 1)
def _crop(image: Pixels, share: float, rng: np.random.Generator) -> Pixels:
    shape = np.array(image.shape[:2])
    height, width = kept = np.maximum(4, np.round(shape * share).astype(int))
    top, left = (rng.random(2) * (shape - kept + 1)).astype(int)
    part = image[top : top + height, left : left + width]
    return np.asarray(cv2.resize(part, shape[::-1].tolist(), interpolation=cv2.INTER_CUBIC), np.uint8)


@_register("colour", "change of colours, 0 to 1", (0.1, 0.25, 0.5, 0.75, 1.0), 0, 1)
def _colour(image: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Brightness, contrast and saturation by up to half either way, hue by up to a tenth of a turn."""
    brightness, contrast, saturation, hue = strength * rng.uniform(-1, 1, 4).astype(np.float32)
    whole = image.astype(np.float32) / 255 * (1 + brightness / 2)
    mean = cv2.cvtColor(whole, cv2.COLOR_RGB2GRAY).mean()
    whole = np.clip(mean + (whole - mean) * (1 + contrast / 2), 0, 1)
    hsv = cv2.cvtColor(whole, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + 36 * hue) % 360
    hsv[..., 1] = np.clip(hsv[..., 1] * (1 + saturation / 2), 0, 1)
    return _bytes(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


@_register("social", "times shared over a social network", (1.0, 2.0, 3.0, 5.0), 0, 20, whole=True)
def _social(image: Pixels, times: float, rng: np.random.Generator) -> Pixels:
    for _ in range(int(times)):
        image = shared(image, rng.random(5))
    return image


@_register("screenshot", "strength of a screenshot, 0 to 1", (0.25, 0.5, 0.75, 1.0), 0, 1)
def _screenshot(image: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Shown smaller (averaged, so without moiré), with another gamma and in the colours of a wide-gamut screen whose
    profile got lost, then saved as JPEG, at worst with quality 70; nothing of it at strength 0."""
    if not strength:
        return image
    scale, gamma, gamut = strength * rng.uniform((0, -1, 0), 1)
    image = resampled(image, 1 - scale / 2, _CUBIC)
    table = np.linspace(0, 1, 256, dtype=np.float32) ** np.float32(2.2 * (1 + gamma / 4))
    colours = np.eye(3, dtype=np.float32) + np.float32(gamut) * (P3 - np.eye(3, dtype=np.float32))
    light = np.clip(cv2.transform(table[image], colours), 0, 1)
    return coded(_bytes(cv2.pow(light, 1 / 2.2)), "JPEG", 95 - round(25 * strength))


@_register(BENIGN, "retouched or not", (1.0,), 0, 1, whole=True)
def _benign(image: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    return edited(image, rng) if strength else image


@_register("pgd", "adversarial change, largest difference in grey levels", (1.0, 2.0, 4.0, 8.0), 1, 255)
def _pgd(image: Pixels, eps: float, _: np.random.Generator) -> Pixels:
    raise UserError("pgd asks the detector", hint="call crossfake.experiments.run.adversarial.pgd with one")


def _bytes(pixels: np.ndarray) -> Pixels:
    """Float ``[H, W, 3]`` in [0, 1] to uint8."""
    return np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8)
