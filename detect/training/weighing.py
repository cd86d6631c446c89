"""How much each validation image counts: in the proportions that training batches have.

Without that the validation set's own proportions would choose: of 530 fakes 460 one's own, say, and then checkpoint,
threshold and calibration are those that suit one's own fakes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfake.detect.evaluation import metrics
from crossfake.detect.tables import aligned
from crossfake.detect.training.data import Kind, KindName
from crossfake.detect.training.sampling import Sampler
from crossfake.stats import ranking

Array = npt.NDArray[np.float64]
_CALLED: dict[KindName, str] = {
    "real": "reals",
    "fake": "given fakes",
    "synthetic": "own fakes",
    "made": "fakes made of reals",
}


@dataclass(frozen=True)
class Weighed:
    """Validation images and what they weigh.

    Attributes:
        kinds: of each image.
        shares: the part that each kind, source and generator has in every figure; they sum to 1.
        weights: ``[N]``, of mean 1.
    """

    kinds: Sequence[Kind]
    shares: Mapping[Kind, float]
    weights: Array

    @classmethod
    def of(cls, kinds: Sequence[Kind], shares: Mapping[Kind, float]) -> Weighed:
        """Images of these kinds that count by these shares."""
        counts = Counter(kinds)
        return cls(kinds, shares, np.array([len(kinds) * shares[kind] / counts[kind] for kind in kinds]))

    @classmethod
    def alike(cls, kinds: Sequence[Kind]) -> Weighed:
        """Every image counts the same."""
        shares = {kind: count / len(kinds) for kind, count in Counter(kinds).items()}
        return cls(kinds, shares, np.ones(len(kinds)))

    @classmethod
    def recorded(cls, kinds: Sequence[Kind], parts: Sequence[Mapping[str, Any]]) -> Weighed | None:
        """As :meth:`describe` says of them; None where it says it of others."""
        shares = {Kind(part["kind"], part["source"], part["generator"]): part["share"] for part in parts}
        return cls.of(kinds, shares) if set(shares) == set(kinds) else None

    @classmethod
    def as_batches(cls, kinds: Sequence[Kind], sampler: Sampler) -> Weighed:
        """Every kind, source and generator counts as much as in the sampler's batches, at the end of a warm-up.

        What nothing is held out of leaves its part to the others of its kind, and a kind to the other kind of fakes.
        A source or generator that only validates counts as one of its kind that trains.
        """
        counts, batch = Counter(kinds), sampler.batch
        fakes = sampler.fakes / batch
        shares: dict[KindName, float] = {
            "real": 1 - fakes,
            "fake": fakes * (1 - sampler.ratio),
            "synthetic": fakes * sampler.ratio,
            "made": fakes,
        }
        held = {kind.kind for kind in counts}
        drawn = sum(shares[name] for name in held - {"real"})
        trained = sampler.amounts()
        parts: dict[Kind, float] = {}
        for name in held:
            of_kind = [kind for kind in counts if kind.kind == name]
            alone = counts if not sampler.apart.get(name, True) else dict.fromkeys(counts, 1)
            amounts = {kind: trained[kind] or alone[kind] for kind in of_kind}
            share = shares[name]
            # fakes of which none would be drawn must count for something if they are all there is
            if name != "real":
                share = fakes * (share / drawn if drawn else 1 / len(held - {"real"}))
            parts |= {kind: share * amount / sum(amounts.values()) for kind, amount in amounts.items()}
        return cls.of(kinds, {kind: parts[kind] for kind in counts})

    def figures(self, labels: npt.NDArray[np.int64], logits: npt.ArrayLike) -> dict[str, float]:
        """``val_ap`` and ``val_auc``, and the AP of each generator's fakes as ``val_ap/NAME``."""
        found = metrics.summary(labels, logits, sample_weight=self.weights)
        each = {
            f"val_ap/{name}": self._ap(kind, labels, np.asarray(logits))
            for kind, name in _names(self.kinds).items()
        }
        return {"val_ap": found["ap"], "val_auc": found["auc"], **each}

    def _ap(self, kind: Kind, labels: npt.NDArray[np.int64], logits: Array) -> float:
        """AP of the fakes of one generator among the reals, with as many fakes as a batch has: chance is the same for
        every generator."""
        reals, fakes = labels == 0, np.array([one == kind for one in self.kinds])
        rest = self.weights[~reals].sum() / fakes.sum()
        weights = np.where(reals, self.weights, np.where(fakes, rest, 0.0))
        return ranking.average_precision(labels, logits, sample_weight=weights)

    def describe(
        self, labels: npt.NDArray[np.int64] | None = None, logits: npt.ArrayLike | None = None
    ) -> list[dict[str, Any]]:
        """What a card says of the validation images: ``kind``, ``source``, ``generator``, number of ``images``,
        ``share`` of every figure, and, with labels and logits, ``ap`` of each generator's fakes."""
        counts, names = Counter(self.kinds), _names(self.kinds)
        figures = {} if labels is None or logits is None else self.figures(labels, logits)
        kinds = []
        for kind, share in self.shares.items():
            kinds.append({**kind._asdict(), "images": counts[kind], "share": share})
            if f"val_ap/{names.get(kind)}" in figures:
                kinds[-1]["ap"] = figures[f"val_ap/{names[kind]}"]
        return kinds


def _names(kinds: Sequence[Kind]) -> dict[Kind, str]:
    """What the fakes of each generator are called: by the generator, and by as much more as tells them apart."""
    fakes = [kind for kind in dict.fromkeys(kinds) if kind.kind != "real"]
    namings = [
        [kind.generator or kind.source or kind.kind for kind in fakes],
        [f"{kind.source} {kind.generator}".strip() for kind in fakes],
        [f"{_CALLED[kind.kind]} {kind.source} {kind.generator}" for kind in fakes],
    ]
    return {
        kind: next(
            (names[number] for names in namings if names.count(names[number]) == 1), namings[-1][number]
        )
        for number, kind in enumerate(fakes)
    }


def shares_in_words(shares: Sequence[Mapping[str, Any]]) -> str:
    """In a line: what part of every figure the kinds have, of a card's ``validation_shares``."""
    sums: Counter[str] = Counter()
    for part in shares:
        sums[_CALLED[part["kind"]]] += part["share"]
    return ", ".join(f"{name} {share:.0%}" for name, share in sums.items())


def format_shares(shares: Sequence[Mapping[str, Any]]) -> str:
    """A card's ``validation_shares`` as a terminal table."""
    lines = [["validation", "source", "generator", "images", "share", "AP"]]
    for part in shares:
        ap = f"{part['ap']:.4f}" if "ap" in part else ""
        lines.append(
            [
                _CALLED[part["kind"]],
                part["source"],
                part["generator"],
                f"{part['images']:,}",
                f"{part['share']:.1%}",
                ap,
            ]
        )
    return "\n".join(aligned(lines))
