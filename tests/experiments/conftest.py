"""A finished experiment's folder with scores whose truth is known, so that reports can be tested in seconds."""

import csv
import json

import numpy as np
import pytest

from crossfake.images import contact_sheet, save_png

TESTS = [("web faces", "unseen", 120, 150), ("dcgan", "unseen", 120, 130), ("splice", "seen", 120, 90)]
STRENGTH = {
    ("cnn", "without"): 0.4,
    ("cnn", "with"): 2.0,
    ("resnet_18", "without"): 0.9,
    ("resnet_18", "with"): 1.0,
}


def write_experiment(folder, seeds=(0, 1, 2), strength=STRENGTH, swapped=False, failures=()):
    """``strength`` is by how many standard deviations fakes score above reals, per detector and arm."""
    if swapped:
        strength = {
            (detector, {"with": "without", "without": "with"}[arm]): s
            for (detector, arm), s in strength.items()
        }
    rng = np.random.default_rng(0)
    keys = []
    for detector, arm in strength:
        for seed in seeds:
            key = f"{detector}-{arm}-{seed}"
            keys.append(key)
            cell = folder / "cells" / key
            cell.mkdir(parents=True)
            with open(cell / "scores.csv", "w", newline="") as file:
                table = csv.writer(file)
                table.writerow(["test", "row", "label", "group", "score"])
                for name, kind, n_real, n_fake in TESTS:
                    noise = np.random.default_rng(len(name)).normal(
                        0, 0.8, n_real + n_fake
                    )  # hard pictures are hard for all
                    level = 3.0 if kind == "seen" else strength[detector, arm] + rng.normal(0, 0.05)
                    for row in range(n_real + n_fake):
                        fake = row >= n_real
                        logit = noise[row] + rng.normal(0, 0.6) + (level if fake else 0) - 0.7
                        group = f"person{row // 2}" if not fake else f"fake{row}"
                        table.writerow([name, row, int(fake), group, 1 / (1 + np.exp(-logit))])
            card = {
                "key": key, "detector": detector, "model": detector, "arm": arm, "seed": seed, "threshold": 0.5,
                "seconds": 8.25, "tests": {name: a + b for name, _, a, b in TESTS}, "model_hash": "ab" * 32,
                "train_hash": "cd" * 32, "settings": {},
            }  # fmt: skip
            (cell / "cell.json").write_text(json.dumps(card))
    faces = rng.integers(0, 255, (24, 32, 32, 3), dtype=np.uint8)
    save_png(contact_sheet(faces, columns=6), folder / "pictures" / "faces.png")
    roles = [
        ("real faces", "real"),
        ("splice", "seen"),
        ("stylegan2", "synthetic"),
        ("dcgan", "unseen"),
        ("web faces", "unseen"),
    ]
    quality = {
        "swd": 12.345, "spectrum": 0.087, "n_real": 400, "n_fake": 500,
        "details": {"swd": {"value": 12.345, "baseline": {"value": 1.5}},
                    "spectrum": {"value": 0.087, "standard_error": 0.01, "baseline": {"value": 0.02}}},
    }  # fmt: skip
    pools = [
        {"name": name, "role": role, "caption": "5,000 pictures of something, made in 2 min 03 s.", "note": "",
         "picture": "pictures/faces.png", "grid": "pictures/faces.png" if name == "stylegan2" else None,
         "hash": "ef" * 32, "quality": quality if role in ("synthetic", "unseen") else None}
        for name, role in roles
    ]  # fmt: skip
    experiment = {
        "name": "trial", "date": "1 January 2030", "note": "These are simulated <scores>, no faces.",
        "config": {"name": "trial", "resamples": 200, "detectors": ["cnn"]}, "pools": pools,
        "cells": [*keys, *failures],
        "tests": [{"name": n, "kind": k, "n_real": a, "n_fake": b, "hash": "12" * 32} for n, k, a, b in TESTS],
        "failures": [{"key": key, "detector": "cnn", "arm": "with", "seed": 9, "error": "boom"} for key in failures],
        "seconds": {"prepare": 12.0, "train stylegan2": 95.0, "generate stylegan2": 4.4, "train dcgan": 30.0},
    }  # fmt: skip
    (folder / "experiment.json").write_text(json.dumps(experiment))
    return folder


@pytest.fixture(scope="session")
def make_experiment():
    """:func:`write_experiment`, for tests: a conftest cannot be imported."""
    return write_experiment
