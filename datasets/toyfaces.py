"""Faces drawn with numpy: coloured, shaded and varied enough that a GAN has something to learn.

Not photos and not meant to pass for them: they let the whole toolkit run where no data can be fetched.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from crossfake.datasets.types import Pixels

Field = npt.NDArray[np.float32]

_SKIN = np.array(
    [[255, 224, 200], [241, 194, 160], [224, 172, 125], [198, 134, 84], [141, 85, 50], [92, 58, 40]]
)
_HAIR = np.array([[28, 22, 20], [70, 45, 30], [120, 80, 45], [190, 150, 90], [150, 60, 35], [150, 148, 150]])
_IRIS = np.array([[70, 45, 25], [60, 90, 60], [70, 110, 150], [110, 85, 40]])


class _Canvas:
    """A picture with x to the right and y down, both -1 to 1, and soft-edged shapes to lay over it."""

    def __init__(self, size: int, background: Field) -> None:
        axis = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
        self.x, self.y = axis[None, :], axis[:, None]
        self.edge = 2 / size  # shapes fade over a pixel
        self.rgb = background

    def tilt(self, angle: float, cx: float, cy: float) -> None:
        """Turn all that is laid from now on by ``angle`` radians about a point."""
        x, y = self.x - cx, self.y - cy
        sin, cos = np.float32(np.sin(angle)), np.float32(np.cos(angle))
        self.x, self.y = cx + cos * x + sin * y, cy - sin * x + cos * y

    def lay(self, color: npt.ArrayLike, mask: Field) -> None:
        self.rgb += mask[:, :, None] * (np.asarray(color, np.float32) - self.rgb)

    def ellipse(self, cx: float, cy: float, rx: float, ry: float) -> Field:
        """1 inside, 0 outside, about one pixel of transition."""
        radius = np.sqrt(((self.x - cx) / rx) ** 2 + ((self.y - cy) / ry) ** 2)
        return np.clip((1 - radius) * min(rx, ry) / self.edge + 0.5, 0, 1).astype(np.float32)

    def above(self, height: Field | float) -> Field:
        """1 where y is smaller than ``height``."""
        return np.clip((height - self.y) / self.edge + 0.5, 0, 1).astype(np.float32) + 0 * self.x


def toyface(seed: int | Sequence[int], size: int = 64) -> Pixels:
    """Draw one face: uint8 ``[size, size, 3]``, the same for the same seed.

    Skin, hair, eyes, gaze, mouth, glasses, beard, head pose and tilt, light and background all vary.

    Example:
        >>> toyface(0, 32).shape
        (32, 32, 3)
    """
    rng = np.random.default_rng(seed)
    tone = rng.uniform(0, len(_SKIN) - 1)
    skin = _between(_SKIN, tone) * rng.uniform(0.92, 1.05)
    hair = (
        _between(_HAIR, rng.uniform(0, 2)) if tone > 3 else _HAIR[rng.integers(len(_HAIR))].astype(np.float32)
    )
    yaw, pitch = rng.normal(0, 0.10), rng.normal(0, 0.04)
    light = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.9, -0.1), 0.8])
    light /= np.linalg.norm(light)
    cx, cy = rng.normal(0, 0.04), 0.06 + rng.normal(0, 0.03)
    width, height = rng.uniform(0.42, 0.52), rng.uniform(0.56, 0.68)

    canvas = _Canvas(size, _background(rng, size))
    long_hair, bald = rng.random() < 0.45, rng.random() < 0.06
    canvas.tilt(rng.normal(0, 0.08), cx, cy + height)
    if not bald:
        grown = rng.uniform(1.10, 1.28)
        back = canvas.ellipse(cx, cy - 0.10, width * grown, height * rng.uniform(1.06, 1.16))
        if long_hair:
            falls = canvas.ellipse(cx, cy + 0.35, width * grown, height * rng.uniform(1.0, 1.3))
            back = np.maximum(back, falls)
        canvas.lay(hair * 0.75, back)
    clothes = rng.uniform(20, 235, 3)
    canvas.lay(skin * 0.72, canvas.ellipse(cx, cy + height, width * 0.55, 0.42))
    canvas.lay(clothes, canvas.ellipse(cx, 1.32, rng.uniform(0.75, 1.0), rng.uniform(0.46, 0.58)))
    for side in (-1, 1):
        canvas.lay(skin * 0.80, canvas.ellipse(cx + side * width - yaw * 0.4, cy + 0.04, 0.08, 0.13))

    head = canvas.ellipse(cx, cy, width, height)
    canvas.lay(skin, head)
    _shade(canvas, head, (cx, cy, width, height), light)
    fx, fy = cx + yaw, cy + pitch  # the face's features move with the head's turn
    _features(canvas, rng, skin, hair, (fx, fy, width, height), yaw, pitch)
    if not bald:
        line = fy - height * rng.uniform(0.42, 0.62)
        slant, bow = rng.normal(0, 0.25), rng.uniform(-0.9, 0.6)
        fringe = canvas.above(line + slant * (canvas.x - fx) - bow * (canvas.x - fx) ** 2)
        top = canvas.ellipse(cx, cy - 0.05, width * 1.08, height * 1.08)
        canvas.lay(hair * rng.uniform(0.95, 1.15), top * fringe)
        shine = canvas.ellipse(cx + light[0] * 0.25, cy - height * 0.82, width * 0.5, 0.10)
        canvas.lay(np.minimum(hair * 1.6 + 20, 255), top * fringe * shine * 0.5)
    canvas.rgb += rng.normal(0, 2.0, (size, size, 1))
    return np.clip(np.rint(canvas.rgb), 0, 255).astype(np.uint8)


def _between(palette: npt.NDArray[np.int64], position: float) -> Field:
    low = min(int(position), len(palette) - 2)
    mixed: Field = (palette[low] + (position - low) * (palette[low + 1] - palette[low])).astype(np.float32)
    return mixed


def _background(rng: np.random.Generator, size: int) -> Field:
    """A gradient between two colours in a random direction."""
    start, end = rng.uniform(30, 240, (2, 3))
    end = start + (end - start) * 0.6
    axis = np.linspace(-1, 1, size)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = 0.5 + 0.35 * (np.cos(angle) * axis[None, :] + np.sin(angle) * axis[:, None])
    blended: Field = (start + ramp[:, :, None] * (end - start)).astype(np.float32)
    return blended


def _shade(
    canvas: _Canvas, head: Field, shape: tuple[float, float, float, float], light: npt.NDArray[np.float64]
) -> None:
    """Lambert shading of the head as half an ellipsoid."""
    cx, cy, width, height = shape
    nx, ny = (canvas.x - cx) / width, (canvas.y - cy) / height
    nz = np.sqrt(np.clip(1 - nx**2 - ny**2, 0, 1))
    brightness = 0.55 + 0.52 * np.clip(nx * light[0] + ny * light[1] + nz * light[2], 0, 1)
    canvas.rgb *= 1 + head[:, :, None] * (brightness[:, :, None].astype(np.float32) - 1)


def _features(
    canvas: _Canvas,
    rng: np.random.Generator,
    skin: Field,
    hair: Field,
    shape: tuple[float, float, float, float],
    yaw: float,
    pitch: float,
) -> None:
    fx, fy, width, height = shape
    spread, eye_y = width * rng.uniform(0.42, 0.50), fy - height * 0.06
    eye_w, eye_h = rng.uniform(0.095, 0.125), rng.uniform(0.04, 0.07)
    iris, gaze = _IRIS[rng.integers(len(_IRIS))], rng.normal(0, 0.02, 2)
    brow_lift, brow_tilt, brow_h = rng.uniform(0.11, 0.16), rng.normal(0, 0.15), rng.uniform(0.018, 0.035)
    for side in (-1, 1):
        ex = fx + side * spread * (1 - side * yaw * 0.6)
        canvas.lay(skin * 0.78, 0.6 * canvas.ellipse(ex, eye_y - 0.01, eye_w * 1.35, eye_h * 1.9))
        white = canvas.ellipse(ex, eye_y, eye_w, eye_h)
        canvas.lay((245, 243, 240), white)
        px, py = ex + gaze[0] + yaw * 0.15, eye_y + gaze[1] * 0.4
        canvas.lay(iris, white * canvas.ellipse(px, py, eye_h * 1.05, eye_h * 1.05))
        canvas.lay((15, 12, 12), white * canvas.ellipse(px, py, eye_h * 0.5, eye_h * 0.5))
        canvas.lay(
            (255, 255, 255), canvas.ellipse(px + eye_h * 0.3, py - eye_h * 0.4, eye_h * 0.25, eye_h * 0.25)
        )
        brow = canvas.above(eye_y - brow_lift + brow_h + side * brow_tilt * (canvas.x - ex))
        brow *= 1 - canvas.above(eye_y - brow_lift - brow_h + side * brow_tilt * (canvas.x - ex))
        canvas.lay(hair * 0.8, 0.9 * brow * canvas.ellipse(ex, eye_y - brow_lift, eye_w * 1.3, 0.12))

    nose_y, nose_w = fy + height * 0.20, rng.uniform(0.06, 0.10)
    canvas.lay(skin * 0.76, 0.75 * canvas.ellipse(fx + yaw * 0.5, nose_y + 0.02, nose_w, 0.045))
    canvas.lay(
        np.minimum(skin * 1.10, 255),
        0.6 * canvas.ellipse(fx + yaw * 0.7, fy + height * 0.08, nose_w * 0.4, 0.13),
    )
    blush = rng.uniform(0, 0.35)
    for side in (-1, 1):
        cheek = canvas.ellipse(fx + side * width * 0.55, nose_y, 0.13, 0.09)
        canvas.lay(skin * (1.02, 0.78, 0.76), blush * cheek)

    if rng.random() < 0.22:  # beard
        jaw = canvas.ellipse(fx - yaw, fy - pitch + height * 0.08, width * 0.98, height * 0.93)
        below = 1 - canvas.above(fy + height * 0.33 + 0.3 * (canvas.x - fx) ** 2)
        canvas.lay(hair * 0.9, rng.uniform(0.5, 0.95) * jaw * below)
    mouth_y, mouth_w = fy + height * rng.uniform(0.48, 0.54), rng.uniform(0.13, 0.21)
    smile, lips = rng.uniform(-0.5, 2.2), skin * (0.86, 0.55, 0.55)
    thick = rng.uniform(0.03, 0.05)
    curve = mouth_y + 0.02 - smile * (canvas.x - fx) ** 2
    inside = canvas.ellipse(fx, mouth_y, mouth_w, 0.16)
    band = canvas.above(curve + thick) * (1 - canvas.above(curve - thick)) * inside
    canvas.lay(lips, band)
    open_by = max(0.0, rng.normal(0.0, 0.03))
    if smile > 0.8 and open_by > 0.005:
        teeth = canvas.above(curve + open_by * 0.5) * (1 - canvas.above(curve - open_by * 0.5)) * inside
        canvas.lay((240, 235, 228), teeth)
    else:
        canvas.lay(lips * 0.6, 0.8 * canvas.above(curve + 0.008) * (1 - canvas.above(curve - 0.008)) * inside)
    if rng.random() < 0.2:  # glasses
        frame, r = rng.uniform(10, 90, 3), rng.uniform(0.14, 0.17)
        for side in (-1, 1):
            ex = fx + side * spread
            canvas.lay(
                frame,
                canvas.ellipse(ex, eye_y, r, r * 0.85)
                - canvas.ellipse(ex, eye_y, r - 0.035, r * 0.85 - 0.035),
            )
        bridge = canvas.above(eye_y + 0.02) * (1 - canvas.above(eye_y - 0.02))
        canvas.lay(frame, bridge * canvas.ellipse(fx, eye_y, max(spread - r, 0.02), 0.05))
