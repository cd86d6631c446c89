import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import crossfake.synth.sampling.generation as generation
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.datasets.toyfaces import toyface
from crossfake.errors import UserError
from crossfake.executor import ExecutorSettings
from crossfake.synth.sampling.discriminators import load_discriminator
from crossfake.synth.sampling.generation import Generation, generate
from crossfake.synth.sampling.models import load_model
from crossfake.synth.settings import GenerateSettings


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "SHARD_ROWS", 100)


@pytest.fixture
def model(trained: Callable[[str], Path]) -> Path:
    return trained("stylegan2")


def _rows(folder: Path) -> dict[int, tuple[float, bytes]]:
    """Of every latent's number the score and the pixels."""
    shards = ShardSet(folder)
    images = shards.read_many(range(len(shards)))
    names = shards.columns["origin"].astype(int).tolist()
    scores = shards.columns["score"].tolist()
    return {name: (score, image.tobytes()) for name, score, image in zip(names, scores, images, strict=True)}


@pytest.mark.parametrize("family", ["stylegan2", "r3gan", "dcgan"])
def test_the_lowest_of_every_block_are_dropped(
    family: str, trained: Callable[[str], Path], tmp_path: Path
) -> None:
    run = trained(family)
    out = generate(GenerateSettings(205, run, tmp_path / "out", reject=0.2))  # 102 of 128
    facts = ShardSet(out).attributes["reject"]
    assert facts == {
        "by": "discriminator",
        "dropped": 26,
        "of": 128,
        "discriminator": facts["discriminator"],
    }
    whole = load_model(run).images(0, 384)
    loaded = load_model(run)
    judge = load_discriminator(loaded)
    assert judge is not None
    pixels = torch.from_numpy(whole).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        logits = torch.cat([judge(tile, loaded.dtype) for tile in pixels.split(64)]).numpy()
    left = [
        block * 128 + k
        for block in range(3)
        for k in np.sort(np.argsort(logits[block * 128 :][:128], kind="stable")[26:])
    ]
    found = _rows(out)
    assert list(found) == left[:205]
    for number, (score, image) in found.items():
        assert score == logits[number] and image == whole[number].tobytes()


def test_a_row_names_seed_and_latent(model: Path, tmp_path: Path) -> None:
    out = generate(GenerateSettings(5, model, tmp_path / "out", seed=3, reject=0.5))
    shards, digest = ShardSet(out), load_model(model).hash[:8]
    origins = shards.columns["origin"].tolist()
    assert shards.columns["group"].tolist() == [f"{digest}:3:{origin}" for origin in origins]
    assert load_model(model).images(int(origins[4]), 1, seed=3)[0].tobytes() == shards.read(4).tobytes()
    assert json.loads((out / "generated.json").read_text())["reject"]["dropped"] == 64


def test_a_killed_call_goes_on_with_the_same_rows(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _rows(generate(GenerateSettings(250, model, tmp_path / "whole", reject=0.1)))
    write, calls = generation._write, []

    def dies(*args: object) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise MemoryError("killed")
        write(*args)

    settings = GenerateSettings(250, model, tmp_path / "part", reject=0.1)
    monkeypatch.setattr(generation, "_write", dies)
    with pytest.raises(MemoryError):
        generate(settings)
    monkeypatch.setattr(generation, "_write", write)
    assert _rows(generate(settings)) == whole
    for ranks in ((1, 2), (0, 2)):
        generate(GenerateSettings(250, model, tmp_path / "ranks", reject=0.1), ranks)
    assert _rows(tmp_path / "ranks") == whole
    for other in ({"reject": 0.2}, {}):
        with pytest.raises(UserError, match="another model or of other settings"):
            generate(GenerateSettings(250, model, tmp_path / "part", **other))


def test_without_rejection_nothing_is_judged(model: Path, tmp_path: Path) -> None:
    shards = ShardSet(generate(GenerateSettings(5, model, tmp_path / "out")))
    assert not shards.columns["score"].any() and "reject" not in shards.attributes
    named = Generation(GenerateSettings(5, model, reject=0.1))
    assert named.out.name == "generated-n5-psi1-seed0-reject0.1"


def test_density_keeps_what_is_near_to_reals(
    model: Path, reals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random_inception: Path
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "pt_inception-2015-12-05-6726825d.pth").symlink_to(random_inception)
    monkeypatch.setenv("CROSSFAKE_WEIGHTS", str(folder))
    settings = GenerateSettings(5, model, tmp_path / "out", reject=0.5, like=reals)
    out = generate(settings)
    facts, found = ShardSet(out).attributes["reject"], _rows(out)
    assert (facts["by"], facts["rows"], facts["reals"]) == ("density", 32, ShardSet(reals).hash)
    assert all(0 < score < np.inf for score, _ in found.values())
    assert len(Generation(settings).seen.blocks) == 1  # those that the model learned from


def test_reals_that_had_a_part_in_the_choice_were_seen(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random_inception: Path
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "pt_inception-2015-12-05-6726825d.pth").symlink_to(random_inception)
    monkeypatch.setenv("CROSSFAKE_WEIGHTS", str(folder))
    for size, split, count in ((16, "train", 12), (16, "test", 12), (32, "train", 12)):
        with ShardWriter(tmp_path / f"{split}{size}", size) as writer:
            for number in range(count):
                writer.append(toyface(number, size), Row(0, "toy", split=split, group=str(number)))
    seen = Generation(GenerateSettings(5, model, reject=0.5, like=tmp_path / "train16")).seen
    assert [len(block.rows) for block in seen.blocks] == [32, 12]
    with pytest.raises(UserError, match="test16 has 0 reals of split train: name the reals that"):
        Generation(GenerateSettings(5, model, reject=0.5, like=tmp_path / "test16"))
    with pytest.raises(UserError, match="holds images of 32 pixels, the model makes 16: bring them"):
        Generation(GenerateSettings(5, model, reject=0.5, like=tmp_path / "train32"))


def test_what_cannot_be_judged_is_one_line(
    model: Path, trained: Callable[[str], Path], reals: Path, tmp_path: Path
) -> None:
    alone = shutil.copytree(model / "model", tmp_path / "alone")
    with pytest.raises(
        UserError, match="no discriminator of stylegan2:.* was kept.*: name reals with --like"
    ):
        generate(GenerateSettings(5, alone, tmp_path / "out", reject=0.1))
    with pytest.raises(UserError, match="no discriminator of autoencoder"):
        generate(GenerateSettings(5, trained("autoencoder"), tmp_path / "out", reject=0.1))
    with pytest.raises(UserError, match="not drawn from latents.*: leave --reject out"):
        generate(GenerateSettings(out=tmp_path / "out", family="blend", photos=reals, reject=0.1))
    with pytest.raises(UserError, match="--like judges what --reject drops: give --reject"):
        GenerateSettings(5, model, like=reals)
    with pytest.raises(UserError, match="--reject 1.0 is out of range"):
        GenerateSettings(5, model, reject=1.0)
    with pytest.raises(UserError, match="judged on one machine only: leave --reject or Ray out"):
        generate(GenerateSettings(5, model, tmp_path / "out", reject=0.1), where=ExecutorSettings("ray"))
    assert not (tmp_path / "out").exists()
