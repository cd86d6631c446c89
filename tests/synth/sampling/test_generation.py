import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

import crossfake.synth.sampling.generation as generation
from crossfake.datasets.firewall import FILE, Seen, count_overlap, seen_by_makers
from crossfake.datasets.locking import leave_folder, lock_folder
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.datasets.toyfaces import toyface
from crossfake.errors import UserError
from crossfake.synth.families.base import FAMILIES
from crossfake.synth.sampling.generation import Generation, generate
from crossfake.synth.sampling.models import Model, load_model, random_vectors, seen_by
from crossfake.synth.sampling.photos import Photos
from crossfake.synth.settings import GenerateSettings
from crossfake.synth.training.runs import resumed
from crossfake.synth.training.settings import TrainSettings
from crossfake.synth.training.train import train


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "SHARD_ROWS", 100)


def _pixels(folder: Path) -> np.ndarray:
    shards = ShardSet(folder)
    order = np.argsort(shards.columns["origin"].astype(int))
    return shards.read_many(order)


@pytest.fixture
def model(trained: Callable[..., Path]) -> Path:
    return trained("stylegan2", noise=True)


def test_random_vectors_depend_on_seed_and_number_only() -> None:
    many = random_vectors(6, seed=5, first=10, length=7)
    assert np.array_equal(many[2:4], random_vectors(2, seed=5, first=12, length=7))
    assert not np.array_equal(many[0], many[1])
    assert not np.array_equal(many, random_vectors(6, seed=6, first=10, length=7))
    sample = random_vectors(200, 0, 0, 100).numpy()
    assert abs(sample.mean()) < 0.02 and abs(sample.std() - 1) < 0.02


@pytest.mark.parametrize("family", [name for name in FAMILIES.names() if FAMILIES.get(name).learner])
def test_any_count_gives_the_same_images(family: str, trained: Callable[[str], Path], tmp_path: Path) -> None:
    run = trained(family)
    many = _pixels(generate(GenerateSettings(130, run, tmp_path / "many", trunc=0.7)))
    few = _pixels(generate(GenerateSettings(70, run, tmp_path / "few", trunc=0.7)))
    assert many.shape == (130, 16, 16, 3)  # two shards
    assert np.array_equal(many[:70], few)
    alone = load_model(run).images(first=123, count=2, psi=0.7)
    assert np.array_equal(alone, many[123:125])
    assert len(np.unique(many.reshape(130, -1), axis=0)) == 130
    assert not np.array_equal(
        few, _pixels(generate(GenerateSettings(70, run, tmp_path / "other", trunc=0.7, seed=1)))
    )


def test_rows_say_where_they_come_from(model: Path, tmp_path: Path) -> None:
    out = generate(GenerateSettings(5, model, tmp_path / "out", seed=3, split="test"))
    shards, loaded = ShardSet(out), load_model(model)
    assert set(shards.columns["generator"]) == {f"stylegan2:{loaded.hash[:8]}"}
    assert (shards.columns["label"] == 1).all() and (shards.columns["seed"] == 3).all()
    assert set(shards.columns["split"]) == {"test"} and len(set(shards.columns["group"])) == 5
    assert shards.attributes["generator_hash"] == loaded.hash
    assert json.loads((out / "generated.json").read_text())["n"] == 5


def test_ranks_make_the_folder_that_one_process_makes(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = generate(GenerateSettings(250, model, tmp_path / "whole"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        generate(GenerateSettings(250, model, tmp_path / "split"))
    assert ShardSet(tmp_path / "split").names == ShardSet(whole).names
    assert np.array_equal(_pixels(tmp_path / "split"), _pixels(whole))
    assert (tmp_path / "split" / "generated.json").exists()


def test_two_calls_do_not_take_each_others_shards(model: Path, tmp_path: Path) -> None:
    lock = lock_folder(tmp_path)
    with pytest.raises(UserError, match="another process writes to .*: wait for it, or name another --out"):
        generate(GenerateSettings(5, model, tmp_path))
    leave_folder(tmp_path, lock)
    assert len(ShardSet(generate(GenerateSettings(5, model, tmp_path)))) == 5
    assert {path.name for path in tmp_path.iterdir()} == {
        "00000.h5",
        "manifest.jsonl",
        "generated.json",
        FILE,
    }


def test_the_process_that_ends_last_says_so(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in (1, 0, 1, 0):  # the second time all is there
        monkeypatch.setenv("RANK", str(rank))
        generate(GenerateSettings(250, model, tmp_path))
        if (tmp_path / "generated.json").exists():
            assert json.loads((tmp_path / "generated.json").read_text())["rank"] == 0


def test_a_class_that_there_is_not_is_one_line(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no class 99: .* has none: leave --label out"):
        generate(GenerateSettings(5, model, tmp_path, label=99))


def test_a_killed_call_goes_on_where_it_stopped(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _pixels(generate(GenerateSettings(250, model, tmp_path / "whole")))
    write, calls = generation._write, []

    def dies(*args: object) -> None:
        calls.append(args)
        if len(calls) == 4:
            raise MemoryError("killed")
        write(*args)

    monkeypatch.setattr(generation, "_write", dies)
    with pytest.raises(MemoryError):
        generate(GenerateSettings(250, model, tmp_path / "part"))
    assert not (tmp_path / "part" / "generated.json").exists()
    monkeypatch.setattr(generation, "_write", write)
    out = generate(GenerateSettings(250, model, tmp_path / "part"))
    assert np.array_equal(_pixels(out), whole)
    assert json.loads((out / "generated.json").read_text())["made"] < 250
    assert generate(GenerateSettings(250, model, tmp_path / "part")) == out  # complete: nothing to do


def test_a_folder_of_other_images_is_refused(model: Path, tmp_path: Path) -> None:
    generate(GenerateSettings(5, model, tmp_path / "out"))
    with pytest.raises(UserError, match="another model or of other settings"):
        generate(GenerateSettings(5, model, tmp_path / "out", seed=1))
    with pytest.raises(UserError, match="another --n"):
        generate(GenerateSettings(6, model, tmp_path / "out"))


def test_without_a_model_the_newest_run_is_taken(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="crossfake demo"):
        generate(GenerateSettings(5))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(model)
    monkeypatch.setattr(generation, "newest_run", lambda kind: tmp_path / "runs" / "mine")
    out = generate(GenerateSettings(5, seed=9))
    assert "taking the newest finished run" in capsys.readouterr().out
    assert out.name == "generated-n5-psi1-seed9" and len(ShardSet(out)) == 5


@pytest.mark.parametrize("bad", [{"n": 0}, {"n": 1, "trunc": -1.0}, {"n": 1, "seed": -1}])
def test_bad_settings_are_one_line(bad: dict[str, float]) -> None:
    with pytest.raises(UserError):
        GenerateSettings(**bad)


def _photos(folder: Path, groups: str, numbers: list[int]) -> Path:
    """Reals of these groups, one letter each, drawn from these numbers: equal ones are equal to the pixel."""
    with ShardWriter(folder, 16) as writer:
        for group, number in zip(groups, numbers, strict=True):
            writer.append(toyface(number, 16), Row(0, "x", split="train", group=group))
    return folder


def test_no_photo_is_its_own_partner(tmp_path: Path) -> None:
    several = Photos(_photos(tmp_path / "a", "aabbc", [0, 1, 2, 3, 4]), "train", 16, partnered=True)
    for number in range(10):
        assert len({"aabbc"[several.row(number)], "aabbc"[several.partner(number, number)]}) == 2
    one = Photos(
        _photos(tmp_path / "b", "aaaa", [0, 1, 2, 3]), "train", 16, partnered=True
    )  # one person, several photos
    assert all(one.partner(number, seed) != one.row(number) for number in range(4) for seed in range(20))
    copies = Photos(
        _photos(tmp_path / "c", "abac", [0, 0, 0, 1]), "train", 16, partnered=True
    )  # a copy is the photo itself
    assert {copies.partner(number, seed) for number in range(3) for seed in range(20)} == {3}
    with pytest.raises(UserError, match="fewer than two different reals of split train: name another"):
        Photos(_photos(tmp_path / "d", "abc", [7, 7, 7]), "train", 16, partnered=True)


def test_damaged_models_are_refused(model: Path, tmp_path: Path) -> None:
    import shutil

    with pytest.raises(UserError, match="holds no generator"):
        load_model(tmp_path)
    broken = shutil.copytree(model / "model", tmp_path / "m")
    (broken / "generator.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(UserError, match="does not hold a stylegan2"):
        load_model(broken)
    (broken / "model.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        load_model(broken)


@pytest.mark.slow
def test_a_compiled_network_makes_the_same_images_but_for_rounding(model: Path, tmp_path: Path) -> None:
    plain = generate(GenerateSettings(20, model, tmp_path / "plain", device="cpu", precision="fp32"))
    quick = generate(
        GenerateSettings(20, model, tmp_path / "quick", compile=True, device="cpu", precision="fp32")
    )
    assert np.abs(_pixels(plain).astype(int) - _pixels(quick)).max() <= 1
    assert ShardSet(quick).attributes["compiled"] is True and "compiled" not in ShardSet(plain).attributes
    with pytest.raises(UserError, match="another model"):
        generate(GenerateSettings(20, model, quick, device="cpu", precision="fp32"))


def test_what_hinders_compiling_is_said_in_one_line(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler\nwith a long trace")

    monkeypatch.setattr(Model, "images", fails)
    with pytest.raises(UserError, match=r"cannot be compiled here \(no compiler\): install a C\+\+ compiler"):
        generate(GenerateSettings(20, model, tmp_path / "out", compile=True, device="cpu"))
    assert not (tmp_path / "out").exists()


def test_fakes_carry_what_their_generator_learned_from(model: Path, reals: Path, tmp_path: Path) -> None:
    shards = ShardSet(reals)
    out = generate(GenerateSettings(5, model, tmp_path / "out", split="test"))
    seen = seen_by_makers(ShardSet(out))
    card = json.loads((model / "model/model.json").read_text())
    assert ShardSet(out).attributes["seen"] == seen.digest == card["seen"]
    assert count_overlap(seen, shards, np.arange(40)) == (32, 0)  # its train rows
    assert {block.by for block in seen.blocks} == {ShardSet(out).columns["generator"][0]}
    swaps = GenerateSettings(out=tmp_path / "swaps", family="swap", photos=reals, split="test")
    made_of = Generation(swaps).seen  # its family has nothing to learn
    assert count_overlap(made_of, shards, np.arange(40)) == (8, 0)


def test_a_model_of_before_is_looked_up_in_its_run(model: Path, reals: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(model, tmp_path / "run"))
    (run / "model" / FILE).unlink()
    assert seen_by(run).digest == seen_by(model).digest == seen_by(run / "model").digest
    out = generate(GenerateSettings(5, run, tmp_path / "out"))
    (out / FILE).unlink()
    generate(
        GenerateSettings(5, run, tmp_path / "out")
    )  # repeated on a finished set, it writes what is missing
    assert seen_by_makers(ShardSet(out)).digest == seen_by(model).digest
    config = yaml.safe_load((run / "config.yaml").read_text())
    for changed, reason in (
        ({"data_hashes": {"x": "y"}}, "which is not there as it was"),
        ({"data": str(tmp_path / "gone")}, "which is not there as it was"),
        ({"init": str(tmp_path / "gone")}, "gone is not there any more"),
    ):
        (run / "config.yaml").write_text(yaml.safe_dump({**config, **changed}))
        assert reason in seen_by(run).unknown[0]
    (run / "config.yaml").unlink()
    assert "does not say what it learned from" in seen_by(run).unknown[0]
    card = json.loads((run / "model/model.json").read_text())
    del card["data"]
    (run / "model/model.json").write_text(json.dumps({**card, "name": "ffhq"}))
    assert seen_by(run) == Seen(by_name=("ffhq",))


def test_a_run_goes_on_with_the_images_it_began_with(reals: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(reals, tmp_path / "data"))
    run = train(
        TrainSettings(data, tmp_path / "run", "dcgan", kimg=0.008, batch=8, channels=64, device="cpu")
    )
    lines = ["origin,group,split", *(f",{n},{'test' if n < 8 else 'train'}" for n in range(40))]
    (data / "splits.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match="data holds other images or splits than .*run began with"):
        train(resumed(run, kimg=0.016))


def test_what_a_run_started_from_counts(reals: Path, model: Path, tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "more", 16, attributes={}) as writer:
        for number in range(8):
            image = np.full((16, 16, 3), number, np.uint8)
            writer.append(image, Row(0, "more", split="train", group=f"more-{number}"))
    family = json.loads((model / "model/model.json").read_text())["family"]
    settings = TrainSettings(
        tmp_path / "more",
        tmp_path / "run",
        family,
        kimg=0.008,
        batch=8,
        channels=64,
        device="cpu",
        init=model,
    )
    seen = seen_by(train(settings))
    assert len(seen.blocks) == 2 and count_overlap(seen, ShardSet(reals), np.arange(40)) == (32, 0)
