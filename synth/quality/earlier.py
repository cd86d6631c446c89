"""Figures of an earlier evaluation in the same file: kept where they are of the same images, set aside where not."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from crossfake.errors import UserError
from crossfake.synth.quality.table import ORDER
from crossfake.synth.settings import EvaluateSettings

SWEEP = "sweep"  # the curve over truncations is kept as a figure is


def result_file(settings: EvaluateSettings) -> Path:
    """Where the result of an evaluation goes."""
    out = settings.out or settings.fake
    return out / "quality.json" if out.is_dir() else out


def add_earlier(file: Path, result: dict[str, Any]) -> dict[str, Any]:
    """The result with those figures of ``file`` that it has not measured itself.

    Only figures of the same reals, and of the same fakes or model, are added; under ``kept`` stands which they are,
    and when and how they were measured. A file about anything else is renamed, with its page, and a warning says so.

    Raises:
        UserError: the file cannot be renamed.
    """
    if not file.exists():
        return result
    try:
        old = json.loads(file.read_text())
        runs = [*old.get("kept", ()), _run(old, old.get("date") or _changed(file))]
        same = _alike(old, result)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        runs, same = [], False  # not what this program writes
    if not same:
        return _set_aside(file, result, [name for run in runs for name in run["figures"]])
    details = result["details"]
    new = {*details, *([SWEEP] if SWEEP in result else [])}
    kept = []
    for run in runs:
        figures = [name for name in run["figures"] if name not in new]
        if figures:
            said = [text for text in run["warnings"] if text not in result["warnings"]]
            kept.append({**run, "figures": figures, "warnings": said})
    names = [name for run in kept for name in run["figures"]]
    details = {**details, **{name: old["details"][name] for name in names if name != SWEEP}}
    details = {name: details[name] for name in sorted(details, key=_place)}
    extra = {SWEEP: old[SWEEP]} if SWEEP in names else {}
    if old["fake"]["hash"] == result["fake"]["hash"] and "nearest" in old:
        extra["nearest"] = old["nearest"]
    return {
        **{name: each["value"] for name, each in details.items()},
        **extra,
        **result,
        "details": details,
        "kept": kept,
    }


def _run(old: dict[str, Any], date: str) -> dict[str, Any]:
    """What that evaluation itself measured."""
    before = {name for run in old.get("kept", ()) for name in run["figures"]}
    figures = [name for name in (*old["details"], *([SWEEP] if SWEEP in old else [])) if name not in before]
    facts = {key: old[key] for key in ("n_real", "n_fake", "settings", "warnings")}
    return {"date": date, "figures": figures, **facts}


def _alike(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether both compare the same reals with the same fakes, or with images of the same model."""
    if any(old["real"][key] != new["real"][key] for key in ("hash", "split", "size")):
        return False
    if old["fake"]["hash"] == new["fake"]["hash"]:
        return True
    models = [
        (each["fake"]["generators"], each["settings"]["trunc"]) if each["fake"].get("model") else None
        for each in (old, new)
    ]
    return None not in models and models[0] == models[1]


def _set_aside(file: Path, result: dict[str, Any], figures: list[str]) -> dict[str, Any]:
    name = f"{file.stem}-{_changed(file)[:19].replace(':', '')}"
    try:
        for each in (file, file.with_suffix(".html")):
            if each.exists():
                each.replace(each.with_stem(name))
    except OSError as error:
        raise UserError(
            f"{file} is of other images, and cannot be renamed ({error.strerror})",
            hint="name another file with --out",
        ) from error
    said = f" ({', '.join(figures)})" if figures else ""
    text = (
        f"what was in {file.name}{said} is of other images or another split: it is in {name}{file.suffix} now"
    )
    return {**result, "warnings": [*result["warnings"], text]}


def _changed(file: Path) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(file.stat().st_mtime))


def _place(name: str) -> int:
    return ORDER.index(name) if name in ORDER else len(ORDER)
