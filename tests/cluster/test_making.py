"""Shards that a Ray cluster prepares and makes are those that are made here."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

import crossfake.datasets.prepare as preparing
import crossfake.synth.sampling.generation as generation
from crossfake.datasets.prepare import prepare
from crossfake.datasets.sources.fixtures import write_face
from crossfake.errors import UserError
from crossfake.executor import ExecutorSettings
from crossfake.synth.families.reconstruct import Taesd
from crossfake.synth.sampling.generation import generate
from crossfake.synth.settings import GenerateSettings

from .conftest import same, settings


@pytest.mark.usefixtures("small_shards")
def test_prepared_through_a_store_the_shards_are_the_same(stored: ExecutorSettings, tmp_path: Path) -> None:
    prepare(settings(tmp_path / "here", workers=1))
    done = prepare(settings(tmp_path / "ray"), stored)
    assert done.images == 70 and same(tmp_path / "here", tmp_path / "ray")
    import s3fs

    assert not s3fs.S3FileSystem().find("faces/shards/parts"), "nothing is left in the store"


@pytest.mark.usefixtures("small_shards")
def test_photos_skipped_and_stopped_and_gone_on_with(
    ray: ExecutorSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(60):
        write_face(Path("photos") / f"{number:02d}.png", number)
        if number % 7 == 3:
            (tmp_path / "photos" / f"{number:02d}.png").write_bytes(b"no picture")
    asked = partial(settings, source="photos", limit=None, label="real")
    prepare(asked(out=tmp_path / "here", workers=1))

    rows = iter(range(40))
    row_of = preparing._row

    def stopped(*facts: Any) -> Any:
        if next(rows, None) is None:
            raise KeyboardInterrupt
        return row_of(*facts)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(preparing, "_row", stopped)
        prepare(asked(out=tmp_path / "ray"), ray)
    left = {file.name for file in (tmp_path / "ray").iterdir()}
    assert left <= {"00000.h5", "manifest.jsonl", "skipped.csv"}, "whole shards, or none"
    prepare(asked(out=tmp_path / "ray"), ray)
    assert same(tmp_path / "here", tmp_path / "ray")
    assert (tmp_path / "here" / "skipped.csv").read_text() == (tmp_path / "ray" / "skipped.csv").read_text()


@pytest.mark.usefixtures("small_shards")
def test_fakes_are_the_same_and_a_stopped_call_goes_on(
    model: Path, stored: ExecutorSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = generate(GenerateSettings(120, model, tmp_path / "here", trunc=0.7))
    asked = GenerateSettings(120, model, tmp_path / "ray", trunc=0.7)
    bar = iter(range(2))

    def stopped(*_: Any) -> None:
        if next(bar, None) is None:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(generation.tqdm, "update", stopped)
        generate(asked, where=stored)
    assert not (tmp_path / "ray" / "generated.json").exists()
    generate(asked, where=stored)
    assert same(here, tmp_path / "ray")
    facts = [json.loads((out / "generated.json").read_text()) for out in (here, tmp_path / "ray")]
    assert facts[0]["n"] == facts[1]["n"] == 120 and facts[1]["made"] <= 120


@pytest.mark.usefixtures("small_shards")
def test_photos_are_reconstructed_from_a_store(stored: ExecutorSettings, tmp_path: Path) -> None:
    network = Taesd(4, pool=False)
    (tmp_path / "taesd").mkdir()
    for part in ("encoder", "decoder"):
        save_file(getattr(network, part).state_dict(), tmp_path / "taesd" / f"{part}.safetensors")
    prepare(settings(tmp_path / "photos", size=32, limit=40, workers=1))
    asked = partial(
        GenerateSettings,
        0,
        tmp_path / "taesd",
        family="reconstruct",
        photos=tmp_path / "photos",
        split="train",
    )
    here = generate(asked(out=tmp_path / "here"))
    assert same(here, generate(asked(out=tmp_path / "ray"), where=stored))


def test_torchrun_and_ray_are_too_much(ray: ExecutorSettings, model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="start it without torchrun"):
        generate(GenerateSettings(1, model, tmp_path / "x"), (0, 2), ray)
