"""``detect import``: a published checkpoint as a bundle that everything else takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from crossfake.datasets.firewall import Seen
from crossfake.detect.bundle import bundle
from crossfake.detect.importing import names
from crossfake.detect.importing.files import read_tensors
from crossfake.detect.importing.table import PublishedEntry, find, load_table
from crossfake.detect.models import DetectorNetwork, create_model
from crossfake.errors import UserError
from crossfake.provenance import hash_file

_TOWER = 100  # tensors that a tower has at least


def import_detector(
    source: Path, name: str, out: Path, table: Path | None = None, backbone: Path | None = None
) -> Path:
    """Write a bundle for a published detector; nothing that the file brings along is run.

    The bundle says fake from a probability of 0.5 on, as its authors do, and is not calibrated. What it was trained on
    is known by name only.

    Args:
        source: the authors' file.
        name: of the detector in the table.
        out: the bundle folder to write.
        table: a YAML file with entries of one's own.
        backbone: the weights of the tower, of a detector whose file holds its last layer only.

    Raises:
        UserError: no such entry, or the file is damaged, hostile, or of another detector.

    Example:
        >>> import_detector(Path("Meso4_DF.h5"), "mesonet", Path("models/meso4"))  # doctest: +SKIP
        PosixPath('models/meso4')
    """
    if (out / bundle.CARD).exists():
        raise UserError(f"{out} holds a detector already", hint="name another --out")
    entry = find(name, load_table(table))
    state = read_tensors(source)
    if entry.backbone and len(state) < _TOWER and backbone is None:
        raise UserError(
            f"{source} holds the last layers only, and {name} needs its tower",
            hint=f"fetch {entry.backbone} and name it with --backbone",
        )
    if backbone is not None:
        if not entry.backbone:
            raise UserError(f"a file of {name} holds all of it", hint="leave --backbone out")
        state = {**read_tensors(backbone), **state}
    model = build(entry, state, source)
    digest = hash_file(source)
    bundle.save(
        out, model, card_of(entry, model, source.name, digest), Seen(by_name=(f"{name} (published)",))
    )
    return out


def build(entry: PublishedEntry, state: names.State, source: Path) -> DetectorNetwork:
    """The model with the file's weights; where it fits none of the entry's, the error is the first's."""
    wrong: UserError | None = None
    for kind in entry.model:
        try:
            with torch.device("meta"):  # nothing is allocated before everything fits
                shapes = create_model(kind, options=entry.options)
            fitting = translated(entry, state, shapes)
        except UserError as error:
            wrong = wrong or error
            continue
        model = create_model(kind, options=entry.options)
        names.fill(model, fitting)
        return model.eval()
    assert wrong is not None
    raise UserError(f"{source} is no {entry.name} ({wrong.message})", hint=wrong.hint) from wrong


def translated(entry: PublishedEntry, state: names.State, model: DetectorNetwork) -> names.State:
    """The file's tensors as the model names them.

    Raises:
        UserError: they do not fit.
    """
    found = names.renamed(state, entry.names, entry.unused)
    try:
        for step in entry.reads:
            found = names.READS[step](found, model)
    except (KeyError, RuntimeError, ValueError, IndexError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"its layers are of another kind: {reason}", hint="name another --as") from error
    return names.check(names.one_logit(found, model, entry.classes, entry.positive), model)


def card_of(entry: PublishedEntry, model: DetectorNetwork, file: str, digest: str) -> dict[str, Any]:
    """What the bundle says of itself."""
    return {
        "model": model.name,
        "options": model.options,
        "size": entry.sees.size,
        "crop": entry.sees.crop_policy(),
        "view": entry.sees.view().describe(),
        "temperature": 1.0,
        "threshold": 0.5,
        "threshold_rule": bundle.AUTHORS,
        "sources": list(entry.trained_on),
        "audit": {
            "verdict": "unknown",
            "summary": f"not audited: {entry.name} was trained elsewhere, on {', '.join(entry.trained_on)}",
        },
        "published": {**entry.facts(), "file": file, "sha256": digest},
    }
