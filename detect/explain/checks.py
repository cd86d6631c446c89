"""The tests of :mod:`crossfake.detect.explain.faithfulness` on shards: one method, one detector, one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfake.datasets.blending import RANDOMS, faces_of, self_blended, swapped
from crossfake.datasets.geometry import Skip
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.types import Pixels
from crossfake.detect.explain import faithfulness
from crossfake.detect.explain.methods import attribute, pick
from crossfake.detect.explain.references import Rows, images_of, seen_of, validation_rows
from crossfake.detect.explain.windows import maps_of
from crossfake.detect.tables import aligned
from crossfake.detect.view import View, Windows
from crossfake.detect.whole import Whole
from crossfake.detect.whole import middle as cropped
from crossfake.errors import UserError
from crossfake.progress import tqdm

_SIDE = 224  # pixels of what is checked, of networks that see pictures of any size
_WHOLE = 0.99  # of the eighth random number of a blend: the copy covers the face wholly, so its mask is one


@dataclass(frozen=True)
class CheckedPictures:
    """Images and what belongs together among them.

    Attributes:
        images: uint8 ``[N, S, S, 3]``; of a native view their middle windows, and for pointing a list of ``[H, W, 3]``;
            of a published detector what its network sees, and where that may have any size, the middle of it.
        groups: ``[N]``.
        masks: ``[N, S, S]`` or a list of ``[H, W]``, above 0.5 where manipulated, None where that is not known.
        before: the same pictures before they were manipulated.
    """

    images: Any
    groups: npt.NDArray[Any]
    masks: Any = None
    before: Any = None


def check(
    detector: Any, sets: Sequence[ShardSet], method: str = "auto", images: int = 64, seed: int = 0
) -> dict[str, Any]:
    """Test a method's maps on validation images; test images stay closed.

    Deletion and insertion use fakes that the detector calls fake. Weights are randomised for a quarter of the images.
    Pointing uses fakes whose masks are known: self-blended and swapped ones made of the reals, and stored masks.

    Args:
        detector: a :class:`crossfake.detect.bundle.bundle.Detector`.
        sets: shards of the detector's size.
        images: at most so many for each figure.

    Returns:
        ``method``, ``deletion``, ``insertion`` (each with ``map``, ``random``, ``gain``, and mean curves),
        ``randomisation`` (a list from the head to the image) and ``pointing`` (one entry per kind of mask). Every
        figure is what :func:`~crossfake.detect.explain.faithfulness.estimate` returns. A part without images is None.

    Raises:
        UserError: the method makes no maps, does not work for the model, or there are no validation images.
    """
    network, rng = detector.network, np.random.default_rng(seed)
    method = pick(network, detector.size, method)
    fakes, reals = (_read(validation_rows(sets, images, label), detector.view) for label in (1, 0))
    if fakes is None and reals is None:
        raise UserError("there are no validation images to check on", hint="name shards with --data DIR")
    pointed = {}
    if reals is not None:
        whole = reals
        if detector.view.native and not detector.view.whole:
            rows = validation_rows(sets, images, 0)
            whole = CheckedPictures(
                [each for shards, some in rows for each in shards.read_each(some)], reals.groups
            )
        pointed = blended(whole, detector, rng)
    if (stored := _masked(sets, images, detector.view)) is not None:
        pointed["stored masks"] = stored
    result: dict[str, Any] = {"method": method, "images": images, "seed": seed}
    with tqdm(total=2 + len(pointed), unit="test", desc=f"check {method}") as bar:
        called = None if fakes is None else _called_fake(fakes, detector)
        result |= _curves(network, called, method, rng)
        bar.update()
        some = fakes if fakes is not None else reals
        assert some is not None
        result["randomisation"] = _randomisation(network, some, method, max(4, images // 4), rng)
        bar.update()
        result["pointing"] = {}
        for name, sample in pointed.items():
            result["pointing"][name] = _pointing(detector, sample, method)
            bar.update()
    return result


def blended(reals: CheckedPictures, detector: Any, rng: np.random.Generator) -> dict[str, CheckedPictures]:
    """Fakes with known masks, made of reals: each blended with a changed copy of itself, and with another's face.

    The landmarks are those of an aligned crop where the detector judges such, else they are looked for.

    Raises:
        UserError: they must be looked for, and YuNet is not there.
    """
    faces = faces_of(reals.images, detector.card.get("crop"), detector.face_model)
    made: dict[str, list[tuple[Pixels, Any]]] = {"self-blended": [], "swapped": []}
    for number, (image, face) in enumerate(zip(reals.images, faces, strict=True)):
        u = rng.random(RANDOMS)
        u[19] = _WHOLE
        made["self-blended"].append(self_blended(image, face, u))
        others = np.flatnonzero(reals.groups != reals.groups[number])
        if len(others):
            other = int(rng.choice(others))
            made["swapped"].append(swapped(image, reals.images[other], face, faces[other], u))
    found = {}
    for name, pairs in made.items():
        if len(pairs) == len(reals.images):
            found[name] = CheckedPictures(
                [p for p, _ in pairs], reals.groups, [m for _, m in pairs], reals.images
            )
    return found


def _read(parts: Rows, view: View) -> CheckedPictures | None:
    if not parts:
        return None
    if view.whole:
        seen = list(seen_of(view, parts))
        groups = [_groups(shards)[row] for shards, row, _ in seen]
        return (
            CheckedPictures(np.stack(alike([image for *_, image in seen])), np.array(groups))
            if seen
            else None
        )
    return CheckedPictures(
        np.stack(list(images_of(view, parts))),
        np.concatenate([_groups(shards)[rows] for shards, rows in parts]),
    )


def _groups(shards: ShardSet) -> npt.NDArray[Any]:
    group, origin = shards.columns["group"], shards.columns["origin"]
    return np.where(group == "", origin, group)


def alike(images: Sequence[Pixels]) -> list[Pixels]:
    """Images of one size as they are; of several the middle square of each that fits into all, at most 224 pixels."""
    if len({image.shape[:2] for image in images}) < 2:
        return list(images)
    side = min(_SIDE, *(min(image.shape[:2]) for image in images))
    return [cropped(image, side) for image in images]


def _masked(sets: Sequence[ShardSet], most: int, view: View) -> CheckedPictures | None:
    """Validation fakes whose source marks a part of them."""
    images, masks, groups = [], [], []
    for shards, rows in validation_rows([shards for shards in sets if shards.has_masks], most, 1):
        for row in rows:
            image, mask = shards.read(int(row)), shards.mask(int(row)) > 127
            if isinstance(view, Whole):
                try:
                    image, mask = view.with_mask(image, mask)
                except Skip:  # no face is found again
                    continue
            if mask.any():
                images.append(image)
                masks.append(mask)
                groups.append(_groups(shards)[row])
    return CheckedPictures(images, np.array(groups), masks) if images else None


def _called_fake(sample: CheckedPictures, detector: Any) -> CheckedPictures | None:
    called = _scores(detector, sample.images) >= detector.threshold
    return CheckedPictures(sample.images[called], sample.groups[called]) if called.any() else None


def _scores(detector: Any, images: Any) -> npt.NDArray[np.float64]:
    """Of images as a sample has them: those of a published detector were resized already."""
    if detector.view.whole:
        held = np.empty(len(images), object)
        for place, image in enumerate(images):
            held[place] = image
        images = Windows(held, np.ones(len(images), np.int64))
    scores: npt.NDArray[np.float64] = detector.score(images)
    return scores


def _curves(
    network: Any, sample: CheckedPictures | None, method: str, rng: np.random.Generator
) -> dict[str, Any]:
    if sample is None:
        return {"deletion": None, "insertion": None}
    maps = attribute(network, sample.images, method)
    ours = faithfulness.deletion_insertion(network, sample.images, maps, rng)
    control = faithfulness.deletion_insertion(
        network, sample.images, faithfulness.random_maps(maps, rng), rng
    )
    result = {}
    for name, own, random, sign in zip(("deletion", "insertion"), ours, control, (-1, 1), strict=True):
        areas = faithfulness.area(own), faithfulness.area(random)
        result[name] = {
            "map": faithfulness.estimate(areas[0], sample.groups),
            "random": faithfulness.estimate(areas[1], sample.groups),
            "gain": faithfulness.estimate(sign * (areas[0] - areas[1]), sample.groups),
            "curve": own.mean(0).tolist(),
            "random_curve": random.mean(0).tolist(),
        }
    return result


def _randomisation(
    network: Any, sample: CheckedPictures, method: str, most: int, rng: np.random.Generator
) -> list[dict[str, Any]]:
    groups = sample.groups[:most]
    return [
        {
            "share": share,
            "rank_correlation": faithfulness.estimate(correlation, groups),
            "ssim": faithfulness.estimate(ssim, groups),
        }
        for share, correlation, ssim in faithfulness.sanity(network, sample.images[:most], method, rng)
    ]


def _pointing(detector: Any, sample: CheckedPictures, method: str) -> dict[str, Any]:
    hits, share, area = _pointed(detector, sample.images, sample.masks, method)
    called = _scores(detector, sample.images) >= detector.threshold
    result = {
        "hit": faithfulness.estimate(hits, sample.groups),
        "inside": faithfulness.estimate(share, sample.groups),
        "chance": faithfulness.estimate(area, sample.groups),
        "called_fake": faithfulness.estimate(called.astype(float), sample.groups),
        "hit_called_fake": faithfulness.estimate(hits[called], sample.groups[called]),
    }
    if sample.before is not None:
        original = _pointed(detector, sample.before, sample.masks, method)[0]
        result["hit_before"] = faithfulness.estimate(original, sample.groups)
        result["hit_gain"] = faithfulness.estimate(hits - original, sample.groups)
    return result


def _pointed(detector: Any, images: Sequence[Pixels], masks: Sequence[Any], method: str) -> list[Any]:
    """:func:`faithfulness.pointing` of the maps over whole images, which may have a size each."""
    maps = maps_of(detector.network, detector.view, images, method)
    found = [faithfulness.pointing(chart[None], mask[None]) for chart, mask in zip(maps, masks, strict=True)]
    return [np.concatenate(each) for each in zip(*found, strict=True)]


def format_table(result: dict[str, Any]) -> str:
    """The result as a terminal table: each figure with its interval and n. Intervals of the rest are in the JSON."""
    lines = [("test of " + result["method"], "figure", "control", "gain", "n")]
    for name, better in (("deletion", "lower is better"), ("insertion", "higher is better")):
        if part := result[name]:
            gain = _signed(part["gain"])
            lines.append(
                (
                    f"{name} AUC, {better}",
                    _cell(part["map"]),
                    f"random map {part['random']['mean']:.3f}",
                    gain,
                    str(part["map"]["n"]),
                )
            )
        else:
            lines.append((f"{name} AUC", "-", "no fake is called fake", "", "0"))
    for stage in result["randomisation"]:
        cell = _cell(stage["rank_correlation"])
        title = f"ranks, {shown_share(stage['share'])} of weights shuffled"
        control = "-" if stage["ssim"]["mean"] is None else f"SSIM {stage['ssim']['mean']:.3f}"
        lines.append((title, cell, control, "", str(stage["rank_correlation"]["n"])))
    for name, part in result["pointing"].items():
        control = f"mask area {part['chance']['mean']:.3f}"
        lines.append((f"maximum in the mask, {name}", _cell(part["hit"]), control, "", str(part["hit"]["n"])))
        if part["hit_called_fake"]["n"]:
            n = str(part["hit_called_fake"]["n"])
            lines.append(("  of those called fake", _cell(part["hit_called_fake"]), "", "", n))
        if "hit_before" in part:
            before, gain = _cell(part["hit_before"]), _signed(part["hit_gain"])
            lines.append(("  the same photos before", before, "", gain, str(part["hit_before"]["n"])))
        lines.append(
            ("  positive share inside", _cell(part["inside"]), control, "", str(part["inside"]["n"]))
        )
    rows = aligned(lines)
    return "\n".join([*rows, "95% intervals by bootstrap over groups; validation images only"])


def shown_share(value: float) -> str:
    """A share of the weights in words: 100% is all of them."""
    return "100%" if value == 1 else "<0.1%" if value < 0.001 else f"{100 * min(value, 0.999):.1f}%"


def _signed(part: dict[str, Any]) -> str:
    return "-" if part["mean"] is None else f"{part['mean']:+.3f}"


def _cell(part: dict[str, Any]) -> str:
    if part["mean"] is None:
        return "-"
    return f"{part['mean']:.3f} [{part['low']:.3f}, {part['high']:.3f}]"
