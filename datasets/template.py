"""Faces turned upright by five landmarks: a template says where in a frame these are to lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import pdist

from crossfake.bounds import Bounds, check_bounds
from crossfake.datasets.faces import Points
from crossfake.datasets.types import Pixels
from crossfake.errors import UserError

LANDMARKS = 5
_LARGEST = 4096


@dataclass(frozen=True)
class Template:
    """What faces are turned and scaled onto.

    Attributes:
        points: right eye, left eye, nose, right and left mouth corner (x, y), as shares of a frame of margin 1.
        side: of the frame in pixels; 0 takes as many as the face has in its picture.

    Example:
        >>> points = ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.3, 0.8), (0.7, 0.8))
        >>> face = 100 * np.array(points) + 20
        >>> Template(points, side=50).place(face, margin=1)[0].round(3).tolist()
        [[0.5, 0.0, -10.0], [0.0, 0.5, -10.0]]
    """

    points: tuple[tuple[float, float], ...]
    side: Annotated[int, Bounds(16, _LARGEST, zero=True)] = 256

    def __post_init__(self) -> None:
        check_bounds(self, prefix="")
        try:
            points = tuple((float(x), float(y)) for x, y in self.points)
        except (TypeError, ValueError) as error:
            raise UserError("a template is no list of points", hint="give [x, y] for each") from error
        if len(points) != LANDMARKS or not np.isfinite(points).all() or pdist(points).min() <= 0:
            raise UserError(
                "a template has five points: right eye, left eye, nose, right and left mouth corner",
                hint="give their places as shares of the frame",
            )
        object.__setattr__(self, "points", points)

    @classmethod
    def of_description(cls, found: Any) -> Template | None:
        """What :meth:`description` stored; None of None.

        Raises:
            UserError: it is no template.
        """
        if found is None:
            return None
        if not isinstance(found, dict) or set(found) != {"points", "side"} or type(found["side"]) is not int:
            raise UserError("a card's template is damaged", hint="copy the bundle again")
        return cls(found["points"], found["side"])

    def description(self) -> dict[str, Any]:
        """As a bundle's card has it."""
        return {"points": [list(point) for point in self.points], "side": self.side}

    def place(self, face: Points, margin: float) -> tuple[npt.NDArray[np.float64], int]:
        """The similarity ``[2, 3]`` from a picture's pixels to the frame's, and the frame's side.

        Args:
            face: the landmarks ``[5, 2]`` in the picture.
            margin: side of the frame by that of the template's.
        """
        points = np.array(self.points)
        larger = float(
            (pdist(face) / pdist(points)).mean()
        )  # the face, by the template in a frame of one pixel
        side = self.side or int(np.clip(round(larger * margin), 1, _LARGEST))
        return similarity(face, ((points - 0.5) / margin + 0.5) * side), side

    def cut(self, image: Pixels, face: Points, margin: float) -> tuple[Pixels, float]:
        """The frame uint8 ``[side, side, 3]`` out of ``[H, W, 3]``, bilinear and black beyond the picture, and how many
        times it is enlarged."""
        matrix, side = self.place(face, margin)
        turned = cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR)
        return np.asarray(turned, np.uint8), float(np.hypot(*matrix[0, :2])) if self.side else 1.0


def similarity(source: Points, target: Points) -> npt.NDArray[np.float64]:
    """Turn, scale and shift that bring points ``[N, 2]`` nearest to others in least squares, ``[2, 3]``.

    Umeyama 1991, "Least-squares estimation of transformation parameters between two point patterns". In the plane it
    is the division of complex numbers, and mirrors nothing.
    """
    middle, other = source.mean(axis=0), target.mean(axis=0)
    z, w = ((points - at) @ np.array([1, 1j]) for points, at in ((source, middle), (target, other)))
    factor = np.vdot(z, w) / max(float(np.vdot(z, z).real), 1e-12)
    turn = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return np.concatenate([turn, (other - turn @ middle)[:, None]], axis=1)
