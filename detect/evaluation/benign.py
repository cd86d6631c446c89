"""How often reals are called fake once somebody has retouched them or sent them on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from crossfake.datasets.shards import ShardSet
from crossfake.datasets.types import Pixels
from crossfake.detect.bundle.bundle import Detector
from crossfake.detect.tables import aligned
from crossfake.detect.training.benign import KINDS, RANDOMS, Kind, edit
from crossfake.errors import UserError
from crossfake.pages import plural
from crossfake.progress import tqdm
from crossfake.stats.intervals import share_interval

if TYPE_CHECKING:
    from crossfake.detect.evaluation.evaluate import Scored

UNTOUCHED, ALL = "untouched", "all edits"
_MOST = 500  # reals: their rate is known within two points where it is 5%
_BATCH = 32

Numbers = npt.NDArray[np.int64]


def false_alarms(
    detector: Detector, sets: list[ShardSet], scored: Scored, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Reals called fake at the detector's threshold, as they are and after each kind of edit.

    Args:
        detector: the judge.
        sets: what was scored.
        scored: of these sets; of more than 500 reals, 500 are drawn.
        seed: of that draw, and of the strength of each edit.

    Returns:
        Of ``untouched``, each of :data:`crossfake.detect.training.benign.KINDS` and ``all edits``: ``n`` pictures,
        ``n_groups``, ``false_alarms``, ``rate`` and ``interval`` (:func:`~crossfake.stats.intervals.share_interval`).

    Raises:
        UserError: there are no reals.
    """
    reals, rng = np.flatnonzero(scored.labels == 0), np.random.default_rng(seed)
    if not len(reals):
        raise UserError("there are no reals to edit", hint="name some with --data DIR, or leave --benign out")
    chosen = np.sort(rng.permutation(reals)[:_MOST])
    draws = rng.random((len(chosen), len(KINDS), RANDOMS))
    alarms = np.zeros((1 + len(KINDS), len(chosen)), np.int64)
    alarms[0] = scored.scores[chosen] >= detector.threshold
    with tqdm(total=len(chosen), unit="img", desc="benign edits") as bar:
        for start in range(0, len(chosen), _BATCH):
            part = slice(start, start + _BATCH)
            places = list(zip(scored.folder[chosen[part]], scored.row[chosen[part]], strict=True))
            images = [sets[folder].read(int(row)) for folder, row in places]
            native = [sets[folder].native for folder, _ in places]
            for number, kind in enumerate(KINDS):
                made = [
                    _edited(image, kind, u, whole, detector.size)
                    for image, u, whole in zip(images, draws[part, number], native, strict=True)
                ]
                seen = [
                    detector.view.turned([image], sets[folder])[0]
                    for image, (folder, _) in zip(made, places, strict=True)
                ]
                alarms[1 + number, part] = detector.score(seen) >= detector.threshold
            bar.update(len(places))
    groups = scored.groups()[chosen]
    found = {name: _share(row, groups) for name, row in zip((UNTOUCHED, *KINDS), alarms, strict=True)}
    return {**found, ALL: _share(alarms[1:].ravel(), np.tile(groups, len(KINDS)))}


def format_benign(alarms: dict[str, dict[str, Any]]) -> str:
    """A table for the terminal: what was done to reals, how many are called fake."""
    lines = [["reals", "n", "called fake", "share"]]
    for name, part in alarms.items():
        low, high = part["interval"]
        share = f"{part['rate']:.3f} [{low:.3f}, {high:.3f}]"
        lines.append([name, f"{part['n']:,}", f"{part['false_alarms']:,}", share])
    untouched = alarms[UNTOUCHED]
    of = f"{plural(untouched['n'], 'real')} of {plural(untouched['n_groups'], 'group')}"
    return "\n".join(["", *aligned(lines), f"benign edits of {of}, at the detector's threshold"])


def _edited(image: Pixels, kind: Kind, u: npt.NDArray[np.float64], whole: bool, smallest: int) -> Pixels:
    out = edit(image, kind, u, whole=whole)
    # what a messenger shrinks below the network's window is compressed only
    return edit(image, kind, u) if min(out.shape[:2]) < smallest else out


def _share(alarms: Numbers, groups: Numbers) -> dict[str, Any]:
    return {
        "n": len(alarms),
        "n_groups": len(np.unique(groups)),
        "false_alarms": int(alarms.sum()),
        "rate": float(alarms.mean()),
        "interval": list(share_interval(alarms, groups)),
    }
