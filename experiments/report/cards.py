"""Cards that travel with the results: one per detector and condition for people, and one of the data for machines.

A model card follows the sections of Mitchell et al. 2019, "Model cards for model reporting". The data card is Croissant
1.0 (JSON-LD, https://mlcommons.org/croissant/1.0) with the properties of its responsible-AI vocabulary.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from crossfake.experiments.report.comparing import Finding
from crossfake.experiments.report.results import FIGURES, NOT_KNOWN, Cell, Results
from crossfake.files import write_text
from crossfake.pages import HALF_INTERVAL, duration, signed
from crossfake.provenance import hash_file
from crossfake.stats.intervals import Estimate

_INTENDED = """\
A second opinion on whether a picture of a face was made or altered by a machine, for people who weigh other evidence
too; and research on how detectors carry over to generators that they were not trained on. It is not meant to decide
anything about a person by itself."""
_LIMITS = """\
- The figures hold for the pictures named above. Other generators, cameras, crops and compressions can be much harder.
- A threshold chosen on validation pictures gives other rates of false alarms where the pictures differ.
- Rates were not measured by age, sex or skin colour unless a test above says so."""


def write_cards(results: Results, found: Sequence[Finding]) -> None:
    """Write ``cards/<detector>-<condition>.md`` and ``croissant.json`` beside ``results.csv``, which must be there."""
    folder = results.folder / "cards"
    shutil.rmtree(folder, ignore_errors=True)  # of conditions that are no more
    folder.mkdir()
    for name, text in model_cards(results, found).items():
        write_text(folder / name, text)
    write_text(results.folder / "croissant.json", data_card_text(results))


def model_cards(results: Results, found: Sequence[Finding]) -> dict[str, str]:
    """Name and content of every card in ``cards/``."""
    return {
        card_name(detector, condition): model_card(results, found, detector, condition)
        for detector in results.detectors
        for condition in results.conditions
        if results.cells_of(detector, condition)
    }


def data_card_text(results: Results) -> str:
    """Content of ``croissant.json``."""
    return json.dumps(data_card(results), indent=2) + "\n"


def card_name(detector: str, condition: str) -> str:
    """File name of a model card.

    Example:
        >>> card_name("resnet_18", "all but dcgan")
        'resnet_18-all-but-dcgan.md'
    """
    return re.sub(r"[^\w.+]+", "-", f"{detector}-{condition}").strip("-") + ".md"


def model_card(results: Results, found: Sequence[Finding], detector: str, condition: str) -> str:
    """Markdown: what it is, what it is for, what it was trained on, how well it does, and where it fails."""
    cells, about = results.cells_of(detector, condition), results.conditions[condition]
    experiment = results.experiment
    card = cells[0].card
    pools = {pool["name"]: pool for pool in experiment["pools"]}
    elsewhere = detector in results.given
    new = "On the tests" if elsewhere else "On generators not trained on"
    lines = [
        f"# {detector}, trained {'elsewhere' if elsewhere else 'on ' + about['about']}",
        "",
        f"A detector of generated and altered faces: model `{card['model']}`, condition “{condition}” of the "
        f"experiment “{experiment['name']}” ({experiment['date']}), {len(cells)} seed{'s' if len(cells) > 1 else ''}.",
        "",
        "## Intended use",
        "",
        _INTENDED,
        "",
        "## Training data",
        "",
        *(_learned_from(card) if elsewhere else _trained_on(about, pools)),
        "",
        f"Audit of the training data (what else than forgery tells the classes apart): {card['audit']['summary']}",
        "",
        f"## {new}",
        "",
        *_figures(results, detector, condition, results.unseen(condition)),
    ]
    if seen := results.seen(condition):
        lines += ["", "## On held-out pictures of generators trained on", ""]
        lines += _figures(results, detector, condition, seen)
    if changed := _perturbed(results, detector, condition):
        lines += [
            "",
            f"## On perturbed pictures{'' if elsewhere else ' of generators not trained on'}",
            "",
            *changed,
        ]
    if compared := [
        a for a in found if condition in (a.a, a.b) and any(d.detector == detector for d in a.by_detector)
    ]:
        lines += ["", "## Against other training data", ""]
        for answer in compared:
            each = next(d for d in answer.by_detector if d.detector == detector)
            e = each.estimate
            lines.append(
                f"- {answer.name}: {each.verdict}, AUC {signed(e.mean)} (95% interval {signed(e.low)} to "
                f"{signed(e.high)}, Holm-adjusted p {each.adjusted:.3g}; {each.n[0]:,} reals, {each.n[1]:,} fakes)"
                + (f", {answer.qualified}" if answer.qualified else "")
            )
    lines += ["", "## Limits", "", _LIMITS, "", "## Cells", "", *_cells(cells)]
    return "\n".join(lines) + "\n"


def _trained_on(about: dict[str, Any], pools: dict[str, dict[str, Any]]) -> list[str]:
    names = [name for name in ("real", *about["fakes"], *about["synthetic"]) if name in pools]
    rows = [
        (
            n,
            "own fakes" if n in about["synthetic"] else "reals" if n == "real" else "fakes",
            f"`{pools[n]['hash'][:16]}`",
        )
        for n in names
    ]
    return _table(("Pictures", "Use", "SHA-256"), rows)


def _learned_from(card: dict[str, Any]) -> list[str]:
    names = card.get("learned_from") or ()
    return [f"Trained elsewhere{', on ' + ', '.join(names) if names else ''}: {NOT_KNOWN}."]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    escaped = [[text.replace("|", r"\|") for text in row] for row in (head, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in escaped]
    return [lines[0], "|" + "---|" * len(head), *lines[1:]]


def _figures(results: Results, detector: str, condition: str, tests: Sequence[str]) -> list[str]:
    if not tests:
        return ["Not tested."]
    rows = [
        (
            name,
            *(_shown(results.value(detector, condition, name, key)) for key in FIGURES),
            f"{results.tests[name]['n_real']:,} / {results.tests[name]['n_fake']:,}",
            " / ".join(f"{results.by_chance(name, key):.3f}" for key in FIGURES),
        )
        for name in tests
    ]
    if len(tests) > 1:
        rows.append(
            ("mean", *(_shown(results.mean(detector, condition, tests, key)) for key in FIGURES), "", "")
        )
    titles = [
        f"{figure.title}{'' if figure.higher_is_better else ' (lower is better)'}"
        for figure in FIGURES.values()
    ]
    note = (
        f"Mean over seeds; {HALF_INTERVAL}. Accuracy is at the threshold chosen on validation pictures. Chance: what "
        f"knowing nothing gives for {' / '.join(figure.title for figure in FIGURES.values())}."
    )
    return [*_table(("Test", *titles, "reals / fakes", "chance"), rows), "", note]


def _shown(found: Estimate | None) -> str:
    return f"{found.mean:.3f} ± {found.half_width:.3f}" if found else "–"


def _perturbed(results: Results, detector: str, condition: str) -> list[str]:
    steps: dict[tuple[str, float], list[str]] = {}
    for name, test in results.tests.items():
        if test["perturbation"] and not results.is_seen(condition, name):
            key = (test["perturbation"]["name"], float(test["perturbation"]["strength"]))
            steps.setdefault(key, []).append(name)
    rows = [
        (f"{kind} {strength:g}", _shown(results.mean(detector, condition, names)))
        for (kind, strength), names in steps.items()
    ]
    return _table(("Perturbation", "Mean AUC"), rows) if rows else []


def _cells(cells: Sequence[Cell]) -> list[str]:
    rows = []
    for cell in cells:
        hashes = [f"`{cell.card[name][:12]}`" for name in ("model_hash", "train_hash")]
        commit, version = (str(cell.card.get(name) or "–") for name in ("commit", "version"))
        rows.append(
            (
                f"`{cell.key}`",
                str(cell.seed),
                f"{cell.threshold:.4f}",
                *hashes,
                commit[:12],
                version,
                duration(cell.card["seconds"]),
            )
        )
    head = ("Cell", "Seed", "Threshold", "Model", "Training data", "Commit", "crossfake", "Time")
    settings = json.dumps(cells[0].card["settings"], indent=2, default=str)
    return [*_table(head, rows), "", "Settings of the first:", "", "```json", settings, "```"]


def data_card(results: Results) -> dict[str, Any]:
    """Croissant 1.0: the tables as files with hashes and typed columns, and the pictures and tests as records."""
    experiment = results.experiment
    pools = [
        {
            "name": p["name"],
            "role": p["role"] or "fakes",
            "family": p.get("family") or "",
            "year": p.get("year") or 0,
            "description": f"{p['caption']} {p['note']}".strip(),
            "sha256": p["hash"],
        }
        for p in experiment["pools"]
    ]
    tests = [
        {
            "name": name,
            "fakes": t["fake"],
            "reals": t["real"],
            "n_real": t["n_real"],
            "n_fake": t["n_fake"],
            "perturbation": t["perturbation"]["name"] if t["perturbation"] else "",
            "strength": float(t["perturbation"]["strength"]) if t["perturbation"] else 0.0,
            "sha256": t["hash"],
        }
        for name, t in results.tests.items()
    ]
    audits = [f"{name}: {audit['summary']}" for name, audit in experiment.get("audits", {}).items()]
    files = {
        "results.csv": "One line per trained detector and test: figures, counts, and the hashes they come from.",
        "contrasts.csv": "One line per comparison: paired difference, 95% interval, p, and p after Holm's correction.",
    }
    card = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": re.sub(r"[^\w-]+", "-", experiment["name"]),
        "description": f"Detectors of generated faces, trained and tested by the protocol {experiment['protocol']}: "
        f"what the pictures were, and every score's figures. {experiment['note']}".strip(),
        "version": _version(results),
        "rai:dataCollection": "Photographs and generated pictures of faces, cropped and stored alike whatever their "
        "label; see the records 'pools'.",
        "rai:dataUseCases": "Comparing detectors across generators. The tests are not to be trained on.",
        "rai:dataLimitations": "Figures hold for these pictures and seeds only.",
        "rai:dataBiases": audits or ["No audit was run."],
        "rai:personalSensitiveInformation": "Pictures may show real people's faces; they are named by hash here, not "
        "contained.",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": name,
                "name": name,
                "description": text,
                "contentUrl": name,
                "encodingFormat": "text/csv",
                "sha256": hash_file(results.folder / name),
            }
            for name, text in files.items()
        ],
        "recordSet": [
            *(_columns(results, name) for name in files),
            _records("pools", "Sets of pictures.", pools),
            _records("tests", "Fakes of one generator against reals.", tests),
        ],
    }
    with suppress(ValueError):
        card["datePublished"] = f"{datetime.strptime(experiment['date'], '%d %B %Y'):%Y-%m-%d}"
    return card


def _version(results: Results) -> str:
    """Of the data: of crossfake where cells agree on it."""
    found = {str(cell.card.get("version") or "0.0.0") for cell in results.cells}
    number = re.match(r"\d+(\.\d+){0,2}", min(found))
    parts = number[0].split(".") if number else []
    return ".".join([*parts, "0", "0", "0"][:3])


def _columns(results: Results, name: str) -> dict[str, Any]:
    """A CSV file's columns; their types are read off the first line."""
    with open(results.folder / name, newline="") as file:
        reader = csv.reader(file)
        head = next(reader)
        first = next(reader, [""] * len(head))
    stem = name.removesuffix(".csv")
    return {
        "@type": "cr:RecordSet",
        "@id": stem,
        "name": stem,
        "description": f"The lines of {name}.",
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{stem}/{column}",
                "name": column,
                "dataType": "sc:Float" if _is_number(column, value) else "sc:Text",
                "source": {"fileObject": {"@id": name}, "extract": {"column": column}},
            }
            for column, value in zip(head, first, strict=True)
        ],
    }


def _is_number(column: str, value: str) -> bool:
    if column.endswith(("hash", "sha256")) or column in ("key", "version", "commit", "strength"):
        return False
    with suppress(ValueError):
        float(value)
        return True
    return False


def _records(name: str, text: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    kinds = {str: "sc:Text", int: "sc:Integer", float: "sc:Float"}
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": text,
        "field": [
            {"@type": "cr:Field", "@id": f"{name}/{key}", "name": key, "dataType": kinds[type(value)]}
            for key, value in rows[0].items()
        ],
        "data": [{f"{name}/{key}": value for key, value in row.items()} for row in rows],
    }


# The context that the specification of Croissant 1.0 asks for (its appendix 1): readers compare it.
_TERMS = (
    "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty", "fileSet", "format", "includes",
    "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex", "repeated",
    "replace", "samplingRate", "separator", "source", "subField", "transform", "citeAs",
)  # a table  # fmt: skip
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    **{term: f"cr:{term}" for term in _TERMS},
    "data": {"@id": "cr:data", "@type": "@json"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
}
