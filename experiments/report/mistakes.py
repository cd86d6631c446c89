"""The pictures that detectors are most surely wrong about, read from the shards where those are still there."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from crossfake.datasets.shards import ShardSet
from crossfake.errors import UserError
from crossfake.experiments.report.results import Cell, Results
from crossfake.images import Images, thumbnail
from crossfake.pages import data_uri

SHOWN = 12  # of each kind
_SIDE = 96  # pixels


@dataclass(frozen=True)
class Mistake:
    """``image`` is a data URI; ``pool`` and ``row`` (of ``test``) say which; ``margin`` is by how much the mean score
    lies on the wrong side of the threshold."""

    image: str
    pool: str
    test: str
    row: int
    margin: float


@dataclass(frozen=True)
class WorstMistakes:
    """The worst of one detector: reals called fake, and fakes called real."""

    detector: str
    condition: str
    alarms: tuple[Mistake, ...]
    misses: tuple[Mistake, ...]


def sheets(results: Results) -> list[WorstMistakes]:
    """Per detector and condition (all conditions together where there are more than two), on unseen generators.

    Raises:
        UserError: the shards are not there any more, or no longer what they were.
    """
    found = []
    for detector in results.detectors:
        names = results.conditions_of(detector)
        for part in [[name] for name in names] if len(names) < 3 else [names]:
            cells = [cell for name in part for cell in results.cells_of(detector, name)]
            if cells:
                title = part[0] if len(part) == 1 else "all conditions"
                found.append(
                    WorstMistakes(detector, title, *(_worst(results, cells, label) for label in (0, 1)))
                )
    return [sheet for sheet in found if sheet.alarms or sheet.misses]


def _worst(results: Results, cells: list[Cell], label: int) -> tuple[Mistake, ...]:
    """Furthest on the wrong side first, by the margin averaged over seeds and conditions; a picture occurs once."""
    wrong: dict[tuple[str, int], tuple[float, str, int]] = {}
    for test in results.asked:
        able = [cell for cell in cells if not results.is_seen(cell.condition, test)]
        if not able:
            continue
        margin = np.mean([cell.scores[test] - cell.threshold for cell in able], axis=0)
        margin = margin if label == 0 else -margin
        inside = np.flatnonzero(results.truths[test].labels == label)
        for row in inside[np.argsort(-margin[inside], kind="stable")][:SHOWN].tolist():
            if margin[row] > 0:
                pool = results.tests[test]["real" if label == 0 else "fake"]
                wrong.setdefault((pool, row), (float(margin[row]), test, row))
    worst = sorted(((*about, pool) for (pool, _), about in wrong.items()), reverse=True)[:SHOWN]
    return tuple(
        Mistake(_uri(_read(results, test, row)), pool, test, row, margin) for margin, test, row, pool in worst
    )


def _read(results: Results, test: str, row: int) -> Images:
    """The picture of a row of a test, uint8 ``[H, W, 3]``."""
    truth, at = results.truths[test], row
    for path, rows in results.tests[test].get("parts") or ():
        if at < len(rows):
            shards, index = ShardSet(path), rows[at]
            about = (
                int(shards.columns["label"][index]),
                str(shards.columns["group"][index]) or truth.groups[row],
            )
            if about != (truth.labels[row], truth.groups[row]):
                break
            return shards.read(index)
        at -= len(rows)
    raise UserError(f"the pictures of {test} are not where they were", hint="put the shards back")


def _uri(image: Images) -> str:
    small = thumbnail(image, _SIDE) if image.shape[:2] != (_SIDE, _SIDE) else image
    _, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    return data_uri(data.tobytes(), "jpeg")
