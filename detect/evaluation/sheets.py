"""Contact sheets of a detector's judgements: its most confident mistakes, and a random handful."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfake.datasets.types import Pixels
from crossfake.images import contact_sheet, thumbnail

Read = Callable[[int], Pixels]  # position among the scores to its picture, uint8 [H, W, 3]

_SIDE, _LINE, _COLUMNS = 128, 15, 8  # pixels of a picture and of a line of text; pictures in a row
_REAL, _FAKE, _INK, _SOFT = (0, 114, 178), (213, 94, 0), (30, 32, 36), (215, 212, 205)
_WHITE, _WHITE_RGB = 255, (255, 255, 255)


@dataclass(frozen=True)
class Judged:
    """What a sheet shows of all images.

    Attributes:
        labels: ``[N]``, 0 real and 1 fake.
        scores: ``[N]``, probability of fake.
        names: ``[N]``, the source, or the generator of a fake.
        threshold: fake is what scores at least this.
        read: opens the picture of a position in 0 … N-1.
    """

    labels: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    names: npt.NDArray[np.str_]
    threshold: float
    read: Read

    def mistakes(self, label: int) -> npt.NDArray[np.int64]:
        """Images of a label that are called the other, the most confident first."""
        wrong = np.flatnonzero((self.labels == label) & ((self.scores >= self.threshold) != label))
        return wrong[np.argsort(self.scores[wrong] * (1 if label else -1), kind="stable")]


def mistakes_sheet(judged: Judged, most: int = 16) -> Pixels | None:
    """False alarms and misses, the most confident first, ``most`` of each, with score and source below.

    Returns:
        uint8 ``[H, W, 3]``, or None when there is no mistake.
    """
    parts = []
    for label, title in ((0, "False alarms: reals called fake"), (1, "Misses: fakes called real")):
        wrong = judged.mistakes(label)
        if len(wrong):
            shown = wrong[:most]
            of = int((judged.labels == label).sum())
            kind = "fakes" if label else "reals"
            heading = (
                f"{title}, {len(wrong):,} of {of:,} {kind} ({len(wrong) / of:.1%}); the {len(shown)} surest"
            )
            parts.append((heading, shown))
    return _sheet(judged, parts) if parts else None


def predictions_sheet(judged: Judged, most: int = 32, seed: int = 0) -> Pixels:
    """Images drawn at random, half of each class as far as there are any: picture, score, truth and verdict."""
    rng = np.random.default_rng(seed)
    parts = []
    for label, title in ((0, "Reals"), (1, "Fakes")):
        rows = np.flatnonzero(judged.labels == label)
        if len(rows):
            shown = rng.permutation(rows)[: most // 2]
            right = int(((judged.scores[shown] >= judged.threshold) == label).sum())
            heading = f"{title} drawn at random: {right} of {len(shown)} called right, the others framed"
            parts.append((heading, shown))
    return _sheet(judged, parts, frame=True)


def _sheet(judged: Judged, parts: Sequence[tuple[str, npt.NDArray[np.int64]]], frame: bool = False) -> Pixels:
    """Rows of cells under a heading each, all of one width."""
    from PIL import Image, ImageDraw

    columns = min(_COLUMNS, max(4, *(len(rows) for _, rows in parts)))
    stacked = []
    for heading, rows in parts:
        cells = np.stack([_cell(judged, int(row), frame) for row in rows])
        blank = np.full((-len(rows) % columns, *cells.shape[1:]), _WHITE, np.uint8)
        body = contact_sheet(np.concatenate([cells, blank]), columns, pad=4)
        line = Image.new("RGB", (body.shape[1], _LINE + 10), "white")
        ImageDraw.Draw(line).text((6, 6), heading, fill=_INK, font=_font(13))
        stacked += [np.asarray(line), body]
    return np.concatenate(stacked)


def _cell(judged: Judged, row: int, frame: bool) -> Pixels:
    """A picture, its score as a bar with a tick at the threshold, and two lines of text; a mistake may have a frame."""
    from PIL import Image, ImageDraw

    score, label = float(judged.scores[row]), int(judged.labels[row])
    cell = Image.new("RGB", (_SIDE, _SIDE + 8 + 2 * _LINE), "white")
    cell.paste(Image.fromarray(thumbnail(judged.read(row), _SIDE)))
    draw = ImageDraw.Draw(cell)
    called = int(score >= judged.threshold)
    color = _FAKE if called else _REAL
    draw.rectangle((0, _SIDE + 2, _SIDE - 1, _SIDE + 6), fill=_SOFT)
    draw.rectangle((0, _SIDE + 2, round(score * (_SIDE - 1)), _SIDE + 6), fill=color)
    tick = round(min(max(judged.threshold, 0), 1) * (_SIDE - 1))
    draw.line((tick, _SIDE + 1, tick, _SIDE + 7), fill=_INK)
    if frame and called != label:
        draw.rectangle((0, 0, _SIDE - 1, _SIDE - 1), outline=_WHITE_RGB, width=5)
        draw.rectangle((0, 0, _SIDE - 1, _SIDE - 1), outline=_INK, width=3)
    font = _font(11)
    draw.text((1, _SIDE + 8), f"{score:.3f}  called {('real', 'fake')[called]}", fill=_INK, font=font)
    text = f"is {('real', 'fake')[label]}:  {judged.names[row]}"
    while draw.textlength(text, font=font) > _SIDE and len(text) > 1:
        text = text[:-2] + "…"
    draw.text((1, _SIDE + 8 + _LINE), text, fill=_INK, font=font)
    return np.asarray(cell)


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
