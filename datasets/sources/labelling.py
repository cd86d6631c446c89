"""What becomes of files that nothing labels: never real in silence."""

from __future__ import annotations

from crossfake.datasets.sources.base import (
    SOURCES,
    SourceSpec,
)
from crossfake.datasets.sources.naming import LOOSE, differing
from crossfake.datasets.sources.tallies import Classes
from crossfake.errors import UserError

_SHOWN = 8  # folders that one line has room for
_KINDS = {0: "real", 1: "fake", None: "?"}


def label_of_rest(spec: SourceSpec, classes: Classes | None, label: str | None) -> int | None:
    """The label of the files to which their source gives none; None where there are no such files.

    What the user says counts. Without a word, one folder that nothing names a class is real: that is for the caller to
    say aloud. Where folders differ, or a table is there, somebody knows more than that, and is asked.

    Args:
        classes: of the source, by :meth:`~crossfake.datasets.sources.base.Source.classes`.
        label: ``real``, ``fake``, or None where the user says nothing.

    Raises:
        UserError: nothing says what some files are, and they are not simply one folder.
    """
    if classes is None and not SOURCES.get(spec.layout).endless:
        return int(label == "fake") if label else None
    if classes is not None:
        _check_names(spec, classes)
    if classes is not None and not classes.count(None):
        return None
    if label:
        return int(label == "fake")
    if classes is None:
        return 0
    if classes.columns:
        raise UserError(
            f"{spec.path} has no column known to be the label, only {', '.join(classes.columns)}",
            hint="rename the column that says it to label, or give --label real or fake for all",
        )
    if SOURCES.get(spec.layout).is_table:
        raise UserError(
            f"{spec.path} gives {classes.count(None):,} of {classes.total:,} files no label",
            hint="fill in the column, or give --label real or fake for those without",
        )
    names = differing(folder for folder, _ in classes.folders)
    if len(set(names.values())) > 1 or spec.labels or classes.count(0) or classes.count(1):
        raise UserError(
            f"{spec.word} does not say what all of its files are: {_shown(classes, names)}", hint=_HINT
        )
    if classes.hint:
        raise UserError(
            f"{classes.hint} would be called real, its name or folder hints at a fake",
            hint="give --label real or fake, or sort the files into folders called real and fake",
        )
    if classes.tables:
        table = spec.path / classes.tables[0]
        raise UserError(
            f"nothing names {spec.word} real or fake, and {classes.tables[0]} lies beside the pictures",
            hint=f"name that table if it says so ({table}), or give --label real or fake",
        )
    return 0


_HINT = (
    "give --label real or fake for those with '?', or name their folders: --labels real=FOLDER,… fake=FOLDER,… "
    "(skip=FOLDER leaves one out)"
)


def _check_names(spec: SourceSpec, classes: Classes) -> None:
    if SOURCES.get(spec.layout).is_table:
        if unknown := sorted(set(spec.labels) - classes.matched):
            raise UserError(
                f"{spec.path} has no label {unknown[0]!r}",
                hint="name the words in its column for the label as they stand there",
            )
        return
    for name in spec.labels:
        if name != LOOSE and not any(f"/{name}/" in f"/{path}/" for path in classes.paths):
            found = sorted(set(differing(classes.paths).values()))
            more = f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
            raise UserError(
                f"{spec.word} has no folder {name!r}",
                hint=f"name {', '.join(found[:_SHOWN])}{more} in --labels",
            )


def check_one_side(spec: SourceSpec) -> bool:
    """Whether a source that the user names on one side, as real or as fake, labels its files itself.

    Raises:
        UserError: it labels some of them only: the others would count on whichever side it is named.
    """
    classes = SOURCES.get(spec.layout)().classes(spec)
    if classes is None:
        return False
    labelled = classes.count(0) + classes.count(1)
    if labelled and classes.count(None):
        names = differing(folder for folder, _ in classes.folders)
        raise UserError(
            f"{spec.word} labels some of its files only: {_shown(classes, names)}",
            hint="prepare it with 'crossfake data prepare --labels', and name the shards",
        )
    return labelled > 0


def _shown(classes: Classes, names: dict[str, str]) -> str:
    """``ffhq (4 real), Midjourney (4 ?)``; a whole path where there is no name or it has several classes."""
    labels: dict[str, set[int | None]] = {}
    for folder, label in classes.folders:
        labels.setdefault(names[folder], set()).add(label)
    counts: dict[tuple[str, int | None], int] = {}
    for (folder, label), count in classes.folders.items():
        plain = names[folder] != LOOSE and len(labels[names[folder]]) == 1
        key = names[folder] if plain else folder or LOOSE, label
        counts[key] = counts.get(key, 0) + count
    order = sorted(counts, key=lambda key: (key[1] is not None, key[0]))  # those in question first
    shown = [
        f"{name}{' itself' if name == LOOSE else ''} ({counts[name, label]:,} {_KINDS[label]})"
        for name, label in order[:_SHOWN]
    ]
    return ", ".join(shown) + (f", {len(order) - _SHOWN:,} more" if len(order) > _SHOWN else "")
