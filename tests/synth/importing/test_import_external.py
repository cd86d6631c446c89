from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.errors import UserError
from crossfake.synth.cli import synth
from crossfake.synth.importing.importer import import_model
from crossfake.synth.sampling.generation import generate
from crossfake.synth.sampling.models import load_model
from crossfake.synth.settings import GenerateSettings, ImportSettings


def _fakes(folder: Path, label: int = 1) -> Path:
    rng = np.random.default_rng(0)
    with ShardWriter(folder, 16, attributes={"crop": {"policy": "center"}}) as writer:
        for number in range(20):
            image = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            writer.append(image, Row(label, "web", generator="mj" if label else "", origin=f"{number}.png"))
    return folder


def test_images_made_elsewhere_are_a_generator_like_any_other(tmp_path: Path) -> None:
    shards = ShardSet(_fakes(tmp_path / "fakes"))
    facts = {"name": "midjourney-v6", "license": "CC0"}
    model = load_model(import_model(ImportSettings(tmp_path / "fakes", tmp_path / "model", **facts)))
    assert model.name == "midjourney-v6" and model.card["license"] == "CC0" and "url" not in model.card
    assert np.array_equal(model.images(3, 4), shards.read_many(range(3, 7)))
    made = ShardSet(generate(GenerateSettings(12, tmp_path / "model", tmp_path / "out")))
    assert set(made.columns["generator"]) == {"midjourney-v6"} and made.attributes["crop"] == {
        "policy": "center"
    }
    assert np.array_equal(made.read_many(range(12)), shards.read_many(range(12)))
    with pytest.raises(UserError, match="20 fakes only"):
        generate(GenerateSettings(21, tmp_path / "model", tmp_path / "more"))


def test_what_is_no_set_of_fakes_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(UserError, match="crossfake data prepare .*plain --label fake"):
        import_model(ImportSettings(tmp_path / "plain", tmp_path / "m"))
    with pytest.raises(UserError, match="holds no fakes"):
        import_model(ImportSettings(_fakes(tmp_path / "reals", label=0), tmp_path / "m"))
    import_model(ImportSettings(_fakes(tmp_path / "gone"), tmp_path / "m"))
    (tmp_path / "gone").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="not a shard folder"):
        load_model(tmp_path / "m")


def test_copies_stay_on_the_side_and_in_the_group_of_their_pool(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "fakes", 16) as writer:
        for number in range(20):
            row = Row(
                1, "web", "mj", "test" if number % 2 else "train", f"video {number // 4}", origin=str(number)
            )
            writer.append(np.full((16, 16, 3), number, np.uint8), row)
    import_model(ImportSettings(tmp_path / "fakes", tmp_path / "model", name="mj"))
    sides = {
        split: ShardSet(generate(GenerateSettings(10, tmp_path / "model", tmp_path / split, split=split)))
        for split in ("train", "test")
    }
    assert sides["test"].read_many(range(10))[:, 0, 0, 0].tolist() == list(range(1, 20, 2))
    assert sides["train"].columns["group"].tolist() == [f"video {k // 2}" for k in range(10)]
    with pytest.raises(UserError, match="10 fakes only, of split test"):
        generate(GenerateSettings(11, tmp_path / "model", tmp_path / "more", split="test"))
    assert not (tmp_path / "more").exists()  # said before anything is written


def test_other_shards_than_those_imported_are_refused(tmp_path: Path) -> None:
    import_model(ImportSettings(_fakes(tmp_path / "fakes"), tmp_path / "model"))
    with ShardWriter(tmp_path / "fakes", 16, attributes={"crop": {"policy": "center"}}) as writer:
        writer.append(np.zeros((16, 16, 3), np.uint8), Row(1, "web", "mj", origin="one more"))
    with pytest.raises(UserError, match="other images than when it was imported"):
        load_model(tmp_path / "model")


def test_a_pool_of_another_split_says_which(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "fakes", 16) as writer:
        for number in range(4):
            writer.append(
                np.full((16, 16, 3), number, np.uint8), Row(1, "web", "mj", "test", origin=str(number))
            )
    result = CliRunner().invoke(synth, ["import", str(tmp_path / "fakes"), "--out", str(tmp_path / "m")])
    assert (
        result.exit_code == 0
        and f"synth generate --n 4 --model {tmp_path / 'm'} --split test" in result.output
    )
    with pytest.raises(
        UserError, match="no fakes of split train, only of test: take those with --split test"
    ):
        generate(GenerateSettings(4, tmp_path / "m", tmp_path / "out"))
    assert len(ShardSet(generate(GenerateSettings(4, tmp_path / "m", tmp_path / "out", split="test")))) == 4


def test_a_family_that_is_not_registered_here_is_named(tmp_path: Path) -> None:
    import_model(ImportSettings(_fakes(tmp_path / "fakes"), tmp_path / "m"))
    card = tmp_path / "m" / "model.json"
    card.write_text(card.read_text().replace('"external"', '"eigenfaces"'))
    with pytest.raises(
        UserError, match="is of the family 'eigenfaces', which is not known here: start the file"
    ):
        load_model(tmp_path / "m")
