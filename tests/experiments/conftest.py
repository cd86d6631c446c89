"""A finished experiment's folder with scores whose truth is known, so that reports can be tested in seconds."""

import csv
import json
import zlib

import numpy as np
import pytest

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row
from crossfake.images import contact_sheet, save_png
from crossfake.provenance import hash_json

N_REAL = 120
N_FAKE = {"web faces": 150, "dcgan": 130}  # of others 90
SEEN = 3.0  # standard deviations that fakes score above reals where the detector trained on their generator
STRENGTH = {
    ("cnn", "without"): 0.4,
    ("cnn", "with"): 2.0,
    ("resnet_18", "without"): 0.9,
    ("resnet_18", "with"): 1.0,
}
GENERATORS = ("dcgan", "stylegan2", "stylegan3", "diffusion", "vqgan")
PERTURBED = {"jpeg": (90, 60, 30), "blur": (1, 2)}


def ablation():
    """Two conditions, two unseen generators, two seen ones as a check."""
    return {
        "protocol": "synthetic-ablation",
        "roles": {"splice": "seen", "stylegan2": "synthetic", "dcgan": "unseen", "web faces": "unseen"},
        "conditions": [("without", ["splice"], [], None), ("with", ["splice"], ["stylegan2"], None)],
        "contrasts": [("with minus without", "without", "with", ["dcgan", "web faces"])],
        "strength": STRENGTH,
    }


def robustness():
    """The ablation with perturbed pictures of generators known to all or to none; the last strength leaves nothing."""
    return ablation() | {"perturbations": PERTURBED}


def matrix():
    """Trained on each of five, tested on all: near relatives (the StyleGANs) help each other."""
    kin = {("stylegan2", "stylegan3"), ("stylegan3", "stylegan2")}
    strength = {
        ("cnn", a, b): SEEN if a == b else 2.0 if (a, b) in kin else 0.6
        for a in GENERATORS
        for b in GENERATORS
    }
    return {
        "protocol": "cross-generator",
        "roles": dict.fromkeys(GENERATORS, ""),
        "conditions": [(name, [name], [], None) for name in GENERATORS],
        "contrasts": [],
        "strength": strength,
    }


def leave_one_out():
    """Seen fakes always; of the others all but one, which is the test."""
    others = GENERATORS[:3]
    conditions = [("without", ["splice"], [], None)]
    conditions += [(f"all but {left}", ["splice"], [o for o in others if o != left], None) for left in others]
    strength = {("cnn", "without"): 0.5} | {("cnn", f"all but {left}"): 1.3 for left in others}
    return {
        "protocol": "leave-one-out",
        "roles": {"splice": "seen", **dict.fromkeys(others, "synthetic")},
        "conditions": conditions,
        "contrasts": [
            (f"all but {left} minus without", "without", f"all but {left}", [left]) for left in others
        ],
        "strength": strength,
    }


def dose_response():
    """More helps, with less and less gain."""
    doses = {0: 0.3, 1000: 0.9, 5000: 1.4, 20000: 1.6}
    conditions = [(f"{n:,}", ["splice"], ["stylegan2"] if n else [], float(n)) for n in doses]
    return {
        "protocol": "dose-response",
        "roles": {"splice": "seen", "stylegan2": "synthetic", "dcgan": "unseen", "web faces": "unseen"},
        "conditions": conditions,
        "contrasts": [(f"{n:,} minus 0", "0", f"{n:,}", ["dcgan", "web faces"]) for n in doses if n],
        "strength": {("cnn", f"{n:,}"): d for n, d in doses.items()},
        "axis": {"name": "synthetic fakes", "unit": "images"},
    }


DESIGNS = {
    "ablation": ablation,
    "robustness": robustness,
    "matrix": matrix,
    "leave-one-out": leave_one_out,
    "dose-response": dose_response,
}


def write_experiment(
    folder,
    design="ablation",
    seeds=(0, 1, 2),
    strength=None,
    swapped=False,
    failures=(),
    shards=False,
    resamples=100,
    quality=None,
):
    """An experiment of :data:`DESIGNS`, finished, in a new folder; returns it.

    Scores of fakes lie ``strength`` standard deviations above those of reals, so the true AUC is Φ(strength/√2); keys
    are (detector, condition) for what is unseen, or (detector, condition, test).

    Args:
        swapped: the two conditions of an ablation have each other's scores.
        failures: keys of cells that failed.
        shards: write the pictures that the tests are made of, so that mistakes can be shown.
        quality: name of a pool -> kimg of its generator, and detectability of its fakes.
    """
    made = DESIGNS[design]()
    strength = dict(strength or made["strength"])
    if swapped:
        other = {"with": "without", "without": "with"}
        strength = {(detector, other[condition]): s for (detector, condition), s in strength.items()}
    tests = _tests(made)
    if shards:
        for test in tests:
            test["parts"] = None if test["perturbation"] else _write_shards(folder / "shards", test)
    seen = [
        [c, t["name"]] for c, fakes, own, _ in made["conditions"] for t in tests if t["fake"] in fakes + own
    ]
    detectors = list(dict.fromkeys(key[0] for key in strength))
    entries = []
    for seed in seeds:
        for detector in detectors:
            for condition, *_ in made["conditions"]:
                about = {"detector": detector, "condition": condition, "seed": seed}
                entries.append({"key": hash_json(about)[:16], **about})
                levels = {
                    test["name"]: SEEN
                    if [condition, test["name"]] in seen
                    else strength.get(
                        (detector, condition, test["base"]), strength.get((detector, condition))
                    )
                    for test in tests
                }
                _write_cell(folder / "cells" / entries[-1]["key"], entries[-1], tests, levels)
    broken = [
        {"key": k, "detector": "cnn", "condition": made["conditions"][-1][0], "seed": 9} for k in failures
    ]
    facts = {
        "name": "trial",
        "protocol": made["protocol"],
        "date": "1 January 2030",
        "note": "These are simulated <scores>, no faces.",
        "config": {
            "name": "trial",
            "protocol": made["protocol"],
            "resamples": resamples,
            "cache": None,
            "detectors": detectors,
            "seeds": list(seeds),
        },
        "pools": _pools(folder, made["roles"], quality or {}),
        "conditions": [
            {
                "name": name,
                "about": f"fakes of {' and '.join(fakes + own)}",
                "fakes": fakes,
                "synthetic": own,
                "n_synthetic": None,
                "x": x,
                "quality": {},
            }
            for name, fakes, own, x in made["conditions"]
        ],
        "axis": made.get("axis"),
        "tests": tests,
        "seen": seen,
        "contrasts": [
            dict(zip(("name", "a", "b", "tests"), each, strict=True)) for each in made["contrasts"]
        ],
        "published": [
            {
                "method": "CNNDetection",
                "test": "dcgan",
                "figure": "ap",
                "value": 0.912,
                "source": "Wang et al. 2020, table 2",
            }
        ],
        "audits": {name: _audit(0.5 + 0.1 * k) for k, (name, *_) in enumerate(made["conditions"][:3])},
        "notes": ["A sentence about the data."],
        "cells": [*entries, *broken],
        "failures": [{**each, "error": "boom"} for each in broken],
        "seconds": {"prepare": 12.0, "train stylegan2": 95.0, "generate stylegan2": 4.4, "train dcgan": 30.0},
    }
    (folder / "experiment.json").write_text(json.dumps(facts))
    (folder / "config.yaml").write_text("kind: experiment\nname: trial\n")
    (folder / "environment.json").write_text(json.dumps({"crossfake": "1.0", "git_commit": "0123abc"}))
    return folder


def _rng(*names):
    return np.random.default_rng(zlib.crc32(repr(names).encode()))


def _tests(made):
    tests = []
    for name in made["roles"]:
        real = "web faces" if name == "web faces" else "real"  # one set of fakes brings reals of its own
        tests.append(_test(name, name, real, None))
    for base in [test for test in tests if made["roles"][test["name"]] in ("seen", "unseen")]:
        for kind, strengths in made.get("perturbations", {}).items():
            for s in strengths:
                changed = {"name": kind, "strength": float(s)}
                tests.append(_test(f"{base['name']}, {kind} {s}", base["fake"], base["real"], changed))
    return tests


def _test(name, fake, real, perturbation):
    return {
        "name": name,
        "fake": fake,
        "real": real,
        "perturbation": perturbation,
        "base": fake,
        "hash": hash_json(["test", name]),
        "n_real": N_REAL,
        "n_fake": N_FAKE.get(fake, 90),
        "parts": None,
    }


def _write_cell(folder, about, tests, levels):
    (folder / "scores").mkdir(parents=True)
    for test in tests:
        n, changed = test["n_real"], test["perturbation"]
        steps = PERTURBED[changed["name"]] if changed else ()
        left = 1 - (steps.index(changed["strength"]) + 1) / len(steps) if changed else 1.0
        parts = []
        for label, pool in ((0, test["real"]), (1, test["fake"])):
            count = test["n_fake"] if label else n
            hard = _rng(pool, label).normal(
                0, 0.8, count
            )  # pictures that are hard are hard for all detectors
            own = _rng(about["key"], pool, label).normal(0, 0.6, count)
            luck = _rng(about["key"]).normal(0, 0.05)
            parts.append(hard + own + label * left * (levels[test["name"]] + luck) - 0.7)
        scores = 1 / (1 + np.exp(-np.concatenate(parts)))
        with open(folder / "scores" / f"{test['hash'][:16]}.csv", "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["row", "label", "group", "score"])
            for row, score in enumerate(scores.tolist()):
                fake = row >= n
                group = _group(test["fake"], 1, row - n) if fake else _group(test["real"], 0, row)
                table.writerow([row, int(fake), group, repr(score)])
    card = {
        **about,
        "model": about["detector"],
        "threshold": 0.5,
        "seconds": 8.25,
        "energy": 120.0,
        "audit": _audit(0.6),
        "model_hash": hash_json(about),
        "train_hash": hash_json(about["condition"]),
        "settings": {"steps": 100, "batch": 32},
        "commit": "0123abc",
        "version": "1.0",
        "tests": {
            test["name"]: {"hash": test["hash"], "n": test["n_real"] + test["n_fake"]} for test in tests
        },
    }
    (folder / "cell.json").write_text(json.dumps(card))


def _group(pool, label, k):
    """Two pictures of every person; every fake stands alone."""
    return f"{pool} fake {k}" if label else f"{pool} person {k // 2}"


def _audit(auc):
    verdict = "pass" if auc < 0.6 else "warn"
    probe = {"auc": auc, "low": auc - 0.04, "high": auc + 0.04, "verdict": verdict}
    return {
        "verdict": verdict,
        "summary": f"audit: {verdict}",
        "probes": {"colour": probe, "spectrum": probe},
    }


def _pools(folder, roles, known):
    faces = np.random.default_rng(0).integers(0, 255, (24, 32, 32, 3), dtype=np.uint8)
    save_png(contact_sheet(faces, columns=6), folder / "pictures" / "faces.png")
    quality = {
        "swd": 12.345,
        "spectrum": 0.087,
        "n_real": 400,
        "n_fake": 500,
        "details": {
            "swd": {"value": 12.345, "baseline": {"value": 1.5}},
            "spectrum": {"value": 0.087, "standard_error": 0.01, "baseline": {"value": 0.02}},
        },
    }
    pools = [
        {
            "name": name,
            "role": role,
            "family": "" if name == "real" else name,
            "year": None,
            "caption": "5,000 pictures of something, made in 2 min 03 s.",
            "note": "",
            "picture": "pictures/faces.png",
            "grid": "pictures/faces.png" if name == "stylegan2" else None,
            "hash": hash_json(["pool", name]),
            "quality": quality if role in ("synthetic", "unseen") else None,
        }
        for name, role in {"real": "real", **roles}.items()
    ]
    for pool in pools:
        if pool["name"] in known:
            pool["kimg"], told = known[pool["name"]]
            details = {
                **quality["details"],
                "detectability": {"value": told, "interval": [told - 0.02, told]},
            }
            pool["quality"] = {**quality, "detectability": told, "details": details}
    return pools


def _write_shards(folder, test):
    """Pictures whose red is the label and whose green is the row within the test."""
    parts = []
    for label, pool, count in ((0, test["real"], test["n_real"]), (1, test["fake"], test["n_fake"])):
        path = folder / f"{pool}-{label}"
        if not path.exists():
            with ShardWriter(path, 16) as writer:
                for k in range(count):
                    image = np.zeros((16, 16, 3), np.uint8)
                    image[..., 0], image[..., 1] = 255 * label, k
                    writer.append(image, Row(label=label, source=pool, group=_group(pool, label, k)))
        parts.append([str(path), list(range(count))])
    return parts


@pytest.fixture(scope="session", name="write_experiment")
def _write_experiment():
    """:func:`write_experiment`, for tests that do not import it."""
    return write_experiment


@pytest.fixture(scope="session")
def reported(tmp_path_factory):
    """An ablation with a failed cell, pictures, and everything that a report writes. Not to be changed."""
    from crossfake.experiments.report.reporting import report

    folder = write_experiment(tmp_path_factory.mktemp("reported"), failures=("broken",), shards=True)
    report(folder)
    return folder
