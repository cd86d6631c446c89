"""The checks: what is counted rather than learned. Damage, balance, copies, leaks between splits, memorisation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from crossfake.datasets.audit.features import Facts
from crossfake.datasets.audit.near import families, nearest
from crossfake.datasets.audit.results import CANNOT_TELL, FAIL, NOTE, PASS, WARN, Check, Pair
from crossfake.datasets.audit.sample import Survey
from crossfake.datasets.audit.settings import CLASSES
from crossfake.datasets.fingerprints import near_pairs
from crossfake.datasets.losses import MANY, Loss, differ, way_out
from crossfake.datasets.settings import RADIUS
from crossfake.pages import plural

_MANY_CORRUPT = 0.1
_MANY_COPIES = 0.01
_BOTH = 0.01  # of the smaller class: more pictures than this that are real and fake fail
_FEW = 50  # pictures of a class: fewer leave wide intervals
_UNBALANCED = 3.0
_USUAL = 0.01  # of reals are as near to another real as the flagged fakes are
_MEMORISED = 0.05  # of the fakes: more than this is more than chance
_SHOWN = 8

Ints = npt.NDArray[np.int64]


def run_checks(facts: Sequence[Facts], corrupt: Sequence[Facts], found: Survey) -> list[Check]:
    """Every check.

    Args:
        facts: of the pictures that could be read; both classes have at least one.
        corrupt: the others.
        found: counts of everything in the sources, looked at or not.
    """
    labels = np.array([fact.label for fact in facts], np.int64)
    codes = np.stack([fact.code for fact in facts])
    pairs = near_pairs(codes)
    near = families(pairs, len(facts))
    exact = np.unique([fact.pixels for fact in facts], return_inverse=True)[1]
    checks = [
        check_files(facts, corrupt),
        check_numbers(found),
        *check_losses(found),
        check_copies(facts, labels, exact, near),
        check_across_classes(facts, labels, exact, near),
    ]
    if len({fact.split for fact in facts if fact.split}) > 1:
        checks.append(check_across_splits(facts, near))
    if len(found.splits) > 1:
        checks.append(check_groups(found))
    if found.in_both_classes():
        both = plural(found.in_both_classes(), "group")
        meaning = (
            f"{both} in both classes, as for a video and its face swap; a split must keep each on one side"
        )
        checks.append(Check("shared groups", "groups in both classes", NOTE, meaning))
    checks.append(check_memory(facts, labels, codes))
    return checks


def check_files(facts: Sequence[Facts], corrupt: Sequence[Facts]) -> Check:
    """How many files could not be read, and of which class; the first 50 by name."""
    share = len(corrupt) / (len(facts) + len(corrupt))
    listed = [
        {"file": fact.name, "class": CLASSES[fact.label], "reason": fact.problem} for fact in corrupt[:50]
    ]
    if not corrupt:
        return Check(
            "corrupt", "corrupt files", PASS, "every file could be read", figures={"count": 0, "first": []}
        )
    of_class = Counter(fact.label for fact in corrupt)
    first = ", ".join(fact.name for fact in corrupt[:3]) + (", …" if len(corrupt) > 3 else "")
    return Check(
        "corrupt",
        "corrupt files",
        FAIL if share > _MANY_CORRUPT else WARN,
        f"{plural(of_class[0], 'real')} and {plural(of_class[1], 'fake')} cannot be read: {first}",
        "replace or remove these files; 'crossfake data prepare' skips them",
        {"count": len(corrupt), "real": of_class[0], "fake": of_class[1], "first": listed},
    )


def check_numbers(found: Survey) -> Check:
    """Balance of the classes, and whether there is enough to say anything."""
    reals, fakes = found.total(0), found.total(1)
    figures = {"real": reals, "fake": fakes}
    said = f"{plural(reals, 'real')}, {plural(fakes, 'fake')}"
    if min(reals, fakes) < _FEW:
        few = f"{said}: fewer than {_FEW} of a class leave most questions open"
        return Check("numbers", "numbers", WARN, few, "add pictures of that class", figures)
    if max(reals, fakes) > _UNBALANCED * min(reals, fakes):
        uneven = f"{said}: accuracy is misleading where one class is more than three times the other"
        hint = "take as many of each with --limit, or judge by AUC and balanced accuracy"
        return Check("numbers", "numbers", WARN, uneven, hint, figures)
    return Check("numbers", "numbers", PASS, said, figures=figures)


def check_losses(found: Survey) -> list[Check]:
    """Whether one class lost more pictures than the other when its shards were prepared; none for other sources."""
    name = "left out by prepare"
    if not any(loss.records for loss in found.losses.values()):
        return []
    known = {label: found.losses[label] for label in CLASSES if label in found.losses}
    figures = {
        label: {"of": round(loss.records), "lost": round(loss.lost, 1)} for label, loss in known.items()
    }
    both = sum(known.values(), Loss())
    said = " and ".join(f"{loss.share:.0%} of the {label}s" for label, loss in known.items()) + both.why()
    uneven = len(known) == 2 and differ(*known.values())
    if not uneven and all(loss.share <= MANY for loss in known.values()):
        return [Check("losses", name, PASS, said, figures=figures)]
    apart = abs(known["real"].share - known["fake"].share) if uneven else 0.0
    hint = way_out(both.margins) or "look at skipped.csv, and choose what is prepared alike for both classes"
    verdict = FAIL if apart > MANY else WARN
    return [Check("losses", name, verdict, f"{said}: what is left is a selection", hint, figures)]


def check_copies(facts: Sequence[Facts], labels: Ints, exact: Ints, near: Ints) -> Check:
    """Pictures that are there more than once in one class."""
    figures: dict[str, int] = {}
    shares, said = [], []
    for label, name in enumerate(CLASSES):
        of_class = labels == label
        count = int(of_class.sum())
        same = count - len(np.unique(exact[of_class]))
        alike = count - len(np.unique(near[of_class]))
        figures |= {f"{name} exact": same, f"{name} near": max(alike, same)}
        shares.append(max(alike, same) / count)
        said.append(f"{max(alike, same):,} of {count:,} {name}s ({same:,} to the pixel)")
    pairs = _linked(facts, [labels.tolist(), near.tolist()])
    if not any(shares):
        return Check(
            "copies", "copies within a class", PASS, "no copies among the pictures looked at", "", figures
        )
    return Check(
        "copies",
        "copies within a class",
        WARN if max(shares) > _MANY_COPIES else PASS,
        f"copies of another picture of the class: {', '.join(said)}",
        "'crossfake data split' leaves copies on one side only" if max(shares) > _MANY_COPIES else "",
        figures,
        pairs,
    )


def check_across_classes(facts: Sequence[Facts], labels: Ints, exact: Ints, near: Ints) -> Check:
    """Pictures that are both real and fake."""
    name = "copies across classes"
    equal = np.intersect1d(exact[labels == 0], exact[labels == 1])
    alike = np.intersect1d(near[labels == 0], near[labels == 1])
    apart = [  # a face swap and what it was made from are alike, and rightly share a group
        family
        for family in alike.tolist()
        if len({facts[row].group for row in np.flatnonzero(near == family).tolist()}) > 1
    ]
    figures = {"exact": len(equal), "near": len(alike), "near in different groups": len(apart)}
    pairs = _across(facts, near, labels, alike)
    if len(equal):
        meaning = f"{plural(len(equal), 'picture is', 'pictures are')} real and fake, the same to the pixel"
        hint = "remove them from one class: one of their labels is wrong"
        smaller = min(np.bincount(labels))
        verdict = FAIL if len(equal) > _BOTH * smaller else WARN
        pairs = (_across(facts, exact, labels, equal) + pairs)[:_SHOWN]
        return Check("both classes", name, verdict, meaning, hint, figures, pairs)
    if apart:
        meaning = (
            f"{plural(len(apart), 'fake has', 'fakes have')} a near copy among the reals, in another group"
        )
        hint = "give a face swap and its original the same group; remove pictures with the wrong label"
        return Check("both classes", name, WARN, meaning, hint, figures, pairs)
    if len(alike):
        meaning = (
            f"{plural(len(alike), 'near copy', 'near copies')} across the classes, each within one group"
        )
        return Check("both classes", name, NOTE, meaning, figures=figures, pairs=pairs)
    return Check("both classes", name, PASS, "no picture looked at is in both classes", figures=figures)


def check_across_splits(facts: Sequence[Facts], near: Ints) -> Check:
    """Copies of one picture in two splits."""
    name = "copies across splits"
    splits: dict[int, set[str]] = {}
    for fact, family in zip(facts, near.tolist(), strict=True):
        if fact.split:
            splits.setdefault(family, set()).add(fact.split)
    leaking = [family for family, of in splits.items() if len(of) > 1]
    if not leaking:
        return Check(
            "leaks", name, PASS, "no picture looked at has a copy in another split", figures={"count": 0}
        )
    named = np.unique([fact.split for fact in facts], return_inverse=True)[1]
    return Check(
        "leaks",
        name,
        FAIL,
        f"{plural(len(leaking), 'picture has', 'pictures have')} copies in more than one split",
        "'crossfake data split' sets one side's copies aside; --redeal, before training, keeps them together",
        {"count": len(leaking)},
        _across(facts, near, named, leaking),
    )


def check_groups(found: Survey) -> Check:
    """Identities, videos or source photos on both sides of a split; counted over all rows, not a sample."""
    count, names = found.straddling()
    figures = {"count": count, "first": names}
    if not count:
        return Check("groups", "groups across splits", PASS, "every group is in one split", figures=figures)
    meaning = f"{plural(count, 'group is', 'groups are')} in more than one split: {', '.join(names)}"
    hint = (
        "'crossfake data split' sets one side's rows aside; --redeal, before training, keeps groups together"
    )
    return Check("groups", "groups across splits", FAIL, meaning, hint, figures)


def check_memory(facts: Sequence[Facts], labels: Ints, codes: npt.NDArray[np.uint64]) -> Check:
    """The nearest real of every fake, against how near reals are to each other."""
    name = "fakes near to a real"
    reals, fakes = np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)
    distance, where = nearest(codes[fakes], codes[reals])
    closest = np.argsort(distance, kind="stable")[:_SHOWN]
    pairs = tuple(
        Pair(int(fakes[k]), int(reals[where[k]]), f"{distance[k]} of 256 bits apart")
        for k in closest.tolist()
    )
    if len(reals) < _FEW:
        meaning = f"too few reals to know how near they are to each other ({len(reals)})"
        return Check("memory", name, CANNOT_TELL, meaning, pairs=pairs)
    among = nearest(codes[reals], codes[reals], same=True)[0]
    among = (
        among[among > RADIUS] if (among > RADIUS).any() else among
    )  # copies say nothing about other pictures
    usual = float(np.quantile(among, _USUAL))
    flagged = int((distance < usual).sum())
    share = flagged / len(fakes)
    figures = {
        "flagged": flagged,
        "fakes": len(fakes),
        "usual distance": usual,
        "median distance fake to real": float(np.median(distance)),
        "median distance real to real": float(np.median(among)),
        "closest": [
            {"fake": facts[pair.one].name, "real": facts[pair.other].name, "apart": pair.caption}
            for pair in pairs
        ],
    }
    said = f"{flagged:,} of {len(fakes):,} fakes are nearer to a real than 99% of reals are to each other"
    if share <= _MEMORISED:
        return Check("memory", name, PASS, said, figures=figures, pairs=pairs)
    meaning = f"{said}: expected of face swaps, of a generator a sign of memorised pictures"
    hint = "look at the pairs on the page; keep the generator's training photos out of the test reals"
    return Check("memory", name, WARN, meaning, hint, figures, pairs)


def _linked(facts: Sequence[Facts], keys: list[list[int]]) -> tuple[Pair, ...]:
    """Two pictures each of the first few families with more than one member."""
    first: dict[tuple[int, ...], int] = {}
    pairs: list[Pair] = []
    for row, key in enumerate(zip(*keys, strict=True)):
        if key not in first:
            first[key] = row
        elif first[key] >= 0 and len(pairs) < _SHOWN:
            pairs.append(_pair(facts, first[key], row))
            first[key] = -1
    return tuple(pairs)


def _across(
    facts: Sequence[Facts], family: Ints, side: Ints, wanted: Sequence[int] | Ints
) -> tuple[Pair, ...]:
    """Of the first few families wanted, two members on different sides."""
    pairs = []
    for one in list(wanted)[:_SHOWN]:
        rows = np.flatnonzero(family == one)
        sides, first = np.unique(side[rows], return_index=True)
        if len(sides) > 1:
            pairs.append(_pair(facts, int(rows[first[-1]]), int(rows[first[0]])))
    return tuple(pairs)


def _pair(facts: Sequence[Facts], one: int, other: int) -> Pair:
    if facts[one].pixels == facts[other].pixels:
        return Pair(one, other, "equal to the pixel")
    apart = int(np.bitwise_count(facts[one].code ^ facts[other].code).sum())
    return Pair(one, other, f"{apart} of 256 bits apart")
