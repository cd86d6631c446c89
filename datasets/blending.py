"""Fakes without a network: a photo blended with a changed copy of itself, or with another person's face.

What both leave is a blending boundary and two histories in one picture, as face swaps of all kinds do. Generators of
:mod:`crossfake.synth` and detectors that make their fakes while they learn share these functions.

Example:
    >>> photo, u = np.full((64, 64, 3), 128, np.uint8), np.random.default_rng(0).random(32)
    >>> fake, mask = self_blended(photo, aligned_face(64), u)
    >>> fake.shape, mask.shape
    ((64, 64, 3), (64, 64))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import Delaunay

from crossfake.datasets.faces import find_faces
from crossfake.datasets.geometry import FFHQ_MARGIN
from crossfake.datasets.types import Pixels
from crossfake.weights import find_weights

Points = npt.NDArray[np.float32]  # [N, 2], (x, y) in pixels
Plane = npt.NDArray[np.float32]  # [H, W]
Uniform = npt.NDArray[np.float64]  # numbers from 0 to 1: all that is random about a fake

RANDOMS = 32  # how many of them a fake takes
_LOOK = 256  # pixels: small crops are enlarged to this before a face is looked for
# The face's outline from the brows to the chin, in units of the eyes' distance and of that from eyes to mouth
_OUTLINE = (
    (-0.85, -0.30), (-0.45, -0.55), (0.0, -0.62), (0.45, -0.55), (0.85, -0.30), (0.95, 0.30),
    (0.80, 0.95), (0.45, 1.45), (0.0, 1.62), (-0.45, 1.45), (-0.80, 0.95), (-0.95, 0.30),
)  # a table  # fmt: skip
_ALIGNED = (
    (0.39, 0.44),
    (0.61, 0.44),
    (0.50, 0.55),
    (0.42, 0.66),
    (0.58, 0.66),
)  # in a crop aligned as FFHQ's
_ALIGNED_EXTENT = 0.49  # of such a crop: how high the outline of its face is


def self_blended(photo: Pixels, face: Points, u: Uniform) -> tuple[Pixels, Plane]:
    """A self-blended image (Shiohara & Yamasaki 2022): the face of a changed copy, slightly moved, over the photo.

    Args:
        photo: uint8 ``[H, W, 3]``.
        face: its five landmarks, ``[5, 2]``.
        u: ``[32]`` numbers from 0 to 1.

    Returns:
        The fake, and the share of every pixel that the copy has, float32 ``[H, W]``; never 0 everywhere.
    """
    height, width = photo.shape[:2]
    around = outline(face)
    extent = _extent(around, max(height, width))
    changed = change(photo, u[:9])
    source, target = (changed, photo) if u[9] < 0.5 else (photo, changed)  # sec. 3.2.1
    shift = (u[10:12] - 0.5) * 0.06 * extent
    scale = 0.95 + 0.10 * u[12]
    center = face.mean(axis=0)
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    matrix[:, 2] += center - scale * center
    moved: Any = cv2.warpAffine(source, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
    whole = face_mask(around, height, width)
    mask = softened(deformed(whole, u[13:17], extent), u[17], u[18], extent)
    if mask.max() < 0.5:  # a face of a few pixels has no inner part
        mask = whole
    mask *= (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)[min(int(u[19] * 6), 5)]  # sec. 3.2.2
    return mixed(moved, target, mask), mask


def swapped(photo: Pixels, partner: Pixels, face: Points, other: Points, u: Uniform) -> tuple[Pixels, Plane]:
    """A face swap: another person's face, bent to the photo's landmarks, in its colours, without a seam.

    Piecewise affine between the landmarks' triangles, colour transfer in Lab (Reinhard et al. 2001), and the Poisson
    equation (Pérez et al. 2003); where that has no solution, a soft edge.

    Args:
        photo: uint8 ``[H, W, 3]``.
        partner: another person, of any height and width.
        face: the photo's five landmarks, ``[5, 2]``.
        other: the partner's.
        u: ``[32]`` numbers from 0 to 1.

    Returns:
        The fake, and where the partner's face is, float32 ``[H, W]``.
    """
    mask = face_mask(outline(face), *photo.shape[:2])
    bent = bend(partner, np.vstack([other, outline(other)]), np.vstack([face, outline(face)]), mask.shape)
    bent = recoloured(bent, photo, mask)
    return seamless(bent, photo, mask, softness=0.02 + 0.04 * float(u[0])), mask


def aligned_face(size: int) -> Points:
    """Landmarks of a face in a crop that is aligned as FFHQ's, float32 ``[5, 2]``."""
    return np.array(_ALIGNED, np.float32) * size


def faces_of(
    images: Iterable[Pixels], crop: Mapping[str, Any] | None, face_model: str | Path | None = None
) -> list[Points]:
    """The five landmarks of each image: where aligned crops have them by their making, elsewhere looked for.

    Args:
        images: uint8 ``[H, W, 3]`` each, squares where they are aligned.
        crop: how they were cut out of photos, as shards and bundles describe it.
        face_model: YuNet's ONNX file; found by :func:`crossfake.weights.find_weights` when None.

    Raises:
        UserError: faces must be looked for, and YuNet is not there.
    """
    crop = crop or {}
    if crop.get("policy") != "face" or crop.get("pixels") == "native":
        model = find_weights("yunet", face_model)
        return [landmarks(image, model) for image in images]
    scale, found = FFHQ_MARGIN / float(crop.get("margin", FFHQ_MARGIN)), []
    for image in images:
        size = image.shape[0]
        center = np.float32((size - 1) / 2)
        face = (aligned_face(size) - center) * np.float32(scale) + center
        found.append(face.astype(np.float32))
    return found


def landmarks(image: Pixels, model: Any) -> Points:
    """Eyes, nose and corners of the mouth, float32 ``[5, 2]``; where no face is found, an aligned crop's.

    Args:
        image: uint8 ``[H, W, 3]``; an aligned crop would be its central square.
        model: YuNet's ONNX file.
    """
    height, width = image.shape[:2]
    scale = max(1.0, _LOOK / max(height, width))
    large: Any = (
        cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) if scale > 1 else image
    )
    faces = find_faces(large, model)
    if not faces:
        side = min(height, width)
        return aligned_face(side) + np.array([(width - side) / 2, (height - side) / 2], np.float32)
    points: Points = ((faces[0].points + 0.5) / scale - 0.5).astype(np.float32)
    return points


def outline(face: Points) -> Points:
    """Twelve points around the face, from its five: float32 ``[12, 2]``."""
    eyes, mouth = (face[0] + face[1]) / 2, (face[3] + face[4]) / 2
    across, down = face[1] - face[0], mouth - eyes
    return np.array([eyes + a * across + b * down for a, b in _OUTLINE], np.float32)


def face_mask(points: Points, height: int, width: int) -> Plane:
    """1 within the convex hull of the points, 0 outside, float32 ``[height, width]``."""
    mask = np.zeros((height, width), np.float32)
    cv2.fillConvexPoly(mask, np.rint(cv2.convexHull(points)).astype(np.int32), 1.0, lineType=cv2.LINE_AA)
    return mask


def change(image: Pixels, u: npt.NDArray[np.float64]) -> Pixels:
    """Other colours, brightness and contrast, and sharpened or made coarser: nine numbers from 0 to 1 say how."""
    shifted = image.astype(np.float32) + (u[:3] - 0.5) * 24
    hsv = cv2.cvtColor(np.clip(shifted, 0, 255).astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + (u[3] - 0.5) * 20) % 360
    hsv[..., 1:] = np.clip(hsv[..., 1:] * (1 + (u[4:6] - 0.5) * 0.4), 0, 1)
    rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    rgb = (rgb - 0.5) * (1 + (u[6] - 0.5) * 0.3) + 0.5
    if u[7] < 0.5:
        rgb += (0.2 + 0.8 * u[8]) * (rgb - cv2.GaussianBlur(rgb, (0, 0), 1.0))
    else:
        height, width = image.shape[:2]
        fewer, narrower = (max(8, round(side * (0.35 + 0.4 * u[8]))) for side in (height, width))
        coarse = cv2.resize(rgb, (narrower, fewer), interpolation=cv2.INTER_AREA)
        rgb = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    pixels: Pixels = np.clip(np.rint(rgb * 255), 0, 255).astype(np.uint8)
    return pixels


def deformed(mask: Plane, u: npt.NDArray[np.float64], extent: float | None = None) -> Plane:
    """An elastic deformation whose waves four numbers give (Shiohara & Yamasaki 2022, sec. 3.2.2).

    Their reach is a share of ``extent``: the size of a picture that the face would fill as an aligned crop's does;
    the mask's longer side when None.
    """
    size = max(mask.shape)
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]].astype(np.float32)
    phase, reach = 2 * np.pi * u[:2], 0.04 * (extent or size)
    x2 = x + reach * np.sin(2 * np.pi * y / size * (1 + 2 * u[2]) + phase[0])
    y2 = y + reach * np.sin(2 * np.pi * x / size * (1 + 2 * u[3]) + phase[1])
    return np.asarray(cv2.remap(mask, x2.astype(np.float32), y2.astype(np.float32), cv2.INTER_LINEAR))


def softened(mask: Plane, first: float, second: float, extent: float | None = None) -> Plane:
    """Blurred, shrunk to what is still whole, and blurred again, so that the edge lies within the face.

    Sigma is a share of ``extent``, as the reach in :func:`deformed`.
    """
    unit = extent or max(mask.shape)
    once = cv2.GaussianBlur(mask, (0, 0), unit * (0.01 + 0.04 * first))
    whole = (once > 0.9).astype(np.float32)
    return np.clip(cv2.GaussianBlur(whole, (0, 0), unit * (0.01 + 0.04 * second)), 0, 1)


def _extent(around: Points, size: int) -> float:
    """Width of the picture that a face of this outline would fill as an aligned crop's does; at most ``size``."""
    return max(1.0, min(float(size), float(np.ptp(around, axis=0).max()) / _ALIGNED_EXTENT))


def mixed(source: Pixels, target: Pixels, mask: Plane) -> Pixels:
    """source · mask + target · (1 - mask)."""
    weight = mask[..., None]
    blend = source.astype(np.float32) * weight + target.astype(np.float32) * (1 - weight)
    pixels: Pixels = np.clip(np.rint(blend), 0, 255).astype(np.uint8)
    return pixels


def bend(image: Pixels, points: Points, onto: Points, shape: tuple[int, ...] | None = None) -> Pixels:
    """The image moved so that ``points`` come to lie on ``onto``: affine within each triangle, corners stay corners.

    Args:
        image: uint8 ``[H, W, 3]``.
        points: in it, ``[N, 2]``.
        onto: in the result, ``[N, 2]``.
        shape: height and width of the result; the image's own when None.
    """
    height, width = shape or image.shape[:2]
    here = np.vstack([points, _corners(*image.shape[:2])])
    there = np.vstack([np.clip(onto, 0, (width - 1, height - 1)), _corners(height, width)])
    triangles = Delaunay(there)
    grid = (
        np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2).astype(np.float64)
    )
    which = triangles.find_simplex(grid)
    affine = triangles.transform[which]
    two = np.einsum("nij,nj->ni", affine[:, :2], grid - affine[:, 2])
    weights = np.nan_to_num(np.hstack([two, 1 - two.sum(axis=1, keepdims=True)]))
    found = np.einsum("ni,nij->nj", weights, here[triangles.simplices[which]])
    mapped = found.reshape(height, width, 2).astype(np.float32)
    bent: Any = cv2.remap(
        image, mapped[..., 0], mapped[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    moved: Pixels = bent
    return moved


def _corners(height: int, width: int) -> Points:
    return np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]], np.float32)


def recoloured(image: Pixels, like: Pixels, mask: Plane) -> Pixels:
    """Mean and deviation of each channel of Lab within the mask become those of another picture."""
    inside = mask > 0.5
    if inside.sum() < 2:
        return image
    ours, theirs = (cv2.cvtColor(x.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for x in (image, like))
    for channel in range(3):
        a, b = ours[..., channel][inside], theirs[..., channel][inside]
        gain = min(b.std() / max(float(a.std()), 1e-3), 3.0)  # a flat face has nothing to stretch
        ours[..., channel] = (ours[..., channel] - a.mean()) * gain + b.mean()
    pixels: Pixels = np.clip(np.rint(cv2.cvtColor(ours, cv2.COLOR_LAB2RGB) * 255), 0, 255).astype(np.uint8)
    return pixels


def seamless(source: Pixels, target: Pixels, mask: Plane, softness: float) -> Pixels:
    """Poisson blending inside the mask; a soft edge where the mask is too small or at the picture's border."""
    size = max(target.shape[:2])
    inner = (mask > 0.5).astype(np.uint8)
    inner[[0, 1, -2, -1]] = 0
    inner[:, [0, 1, -2, -1]] = 0
    rows, columns = np.nonzero(inner)
    if len(rows) >= 16 and np.ptp(rows) > 2 and np.ptp(columns) > 2:
        left, top, width, height = cv2.boundingRect(inner)
        center = (left + width // 2, top + height // 2)
        try:
            cloned = cv2.seamlessClone(source, target, inner * 255, center, cv2.NORMAL_CLONE)
            return np.asarray(cloned, np.uint8)
        except cv2.error:
            pass
    return mixed(source, target, np.clip(cv2.GaussianBlur(mask, (0, 0), max(0.5, size * softness)), 0, 1))
