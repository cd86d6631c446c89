import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from crossfake.datasets.shards import SPLITS, ShardSet
from crossfake.detect.bundle import bundle
from crossfake.detect.training.reopening import changed, recalled, reopen, reopen_shared
from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.training.train import train
from crossfake.errors import UserError
from crossfake.runs import Run

from ..conftest import make_shards


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with own fakes, and its data beside it."""
    root = tmp_path_factory.mktemp("home")
    real, fake = (make_shards(root / name, label) for label, name in enumerate(("real", "fake")))
    own = make_shards(root / "own", 1, count=200, seed=5, split="train")
    settings = TrainSettings(
        (real,),
        root / "run",
        (fake,),
        (own,),
        steps=4,
        batch=8,
        eval_every=4,
        synthetic_ratio=0.25,
        device="cpu",
    )
    train(settings)
    return root


@pytest.fixture
def moved(home: Path, tmp_path: Path) -> Path:
    """The whole of it elsewhere; where it was there is nothing."""
    there = shutil.copytree(home, tmp_path / "there")
    for name in ("run/model/bundle.json", "run/config.yaml"):
        text = (there / name).read_text().replace(str(home), str(tmp_path / "gone"))
        (there / name).write_text(text)
    return there


def _forget(run: Path) -> None:
    """A run as it was written before cards knew the data."""
    file = run / "model" / "bundle.json"
    card = json.loads(file.read_text())
    file.write_text(
        json.dumps({k: v for k, v in card.items() if k not in ("trained_with", "validation_shares")})
    )
    config = {k: v for k, v in Run(run).config.items() if k not in ("kind", "validation_shares")}
    Run.create(run, config, kind="detect", resume=True)


def _load(path: Path) -> bundle.Detector:
    return bundle.load(path, "cpu")


def _paths(found: Any) -> list[list[str]]:
    return [[pool.shards.path.name for pool in pools] for pools in found.data.pools().values()]


@pytest.mark.parametrize("old", [False, True])
def test_the_own_data_is_found_and_validates_as_in_training(home: Path, tmp_path: Path, old: bool) -> None:
    run = home / "run"
    if old:
        run = shutil.copytree(run, tmp_path / "run")
        _forget(run)
    found = reopen(_load(run))
    assert _paths(found) == [["real"], ["fake"], ["own"]] and found.notes == [] and found.recipe is None
    held = found.data.validation()
    assert held.digest == Run(run).config["validation_hash"] == found.facts["validation_hash"]
    shares = found.weigh(held.kinds).shares
    assert {kind.kind: share for kind, share in shares.items()} == pytest.approx(
        {"real": 0.5, "fake": 0.375, "synthetic": 0.125}
    )
    recorded = json.loads((home / "run" / "model" / "bundle.json").read_text())["validation_shares"]
    assert [part["share"] for part in recorded] == pytest.approx(list(shares.values()))


def test_a_copied_bundle_knows_too(home: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(home / "run" / "model", tmp_path / "copy")
    assert _paths(reopen(_load(copy))) == [["real"], ["fake"], ["own"]]


def test_named_folders_say_where_the_data_lies_now(moved: Path, home: Path) -> None:
    detector = _load(moved / "run")
    with pytest.raises(
        UserError, match=r"gone/real \(not there any more\), .*gone/fake \(not there.*"
    ) as error:
        reopen(detector)
    assert (
        error.value.hint == "name where they lie as they were with --real DIR and --fake DIR, or train anew"
    )
    found = reopen(detector, [moved / "real"], [moved / "own", moved / "fake"])  # in any order
    assert _paths(found) == [["real"], ["fake"], ["own"]] and found.notes == []
    assert found.data.validation().digest == found.facts["validation_hash"]
    with pytest.raises(
        UserError, match=r"was trained with .*gone/own \(not there any more\): name where it lies"
    ):
        reopen(detector, [moved / "real"], [moved / "fake"])


def test_what_is_not_named_is_taken_as_well_and_told(home: Path) -> None:
    found = reopen(_load(home / "run"), [home / "real"], [home / "fake"])
    assert _paths(found) == [["real"], ["fake"], ["own"]]
    assert found.notes == [f"{home / 'own'} was trained with, too, and is taken as well"]


def test_force_and_strangers_take_what_is_named(home: Path, tmp_path: Path) -> None:
    detector = _load(home / "run")
    assert _paths(reopen(detector, [home / "real"], [home / "own"], force=True)) == [["real"], [], ["own"]]
    other = make_shards(tmp_path / "other", 1, seed=7)
    found = reopen(detector, [home / "real"], [other, home / "own"])
    assert _paths(found) == [["real"], ["other"], ["own"]]
    with pytest.raises(UserError, match="name both, --real DIR and --fake DIR, or neither"):
        reopen(detector, [], [other])


def test_changed_and_newly_split_folders_are_named(moved: Path, tmp_path: Path) -> None:
    for name in ("real", "own"):
        shutil.copytree(moved / name, tmp_path / "gone" / name)
    make_shards(tmp_path / "gone" / "fake", 1, seed=9)
    with pytest.raises(
        UserError, match=r"was trained with .*gone/fake \(changed since\): name where it lies"
    ):
        reopen(_load(moved / "run"))
    before = ShardSet(moved / "own").hash
    (moved / "own" / SPLITS).write_bytes(b"as 'crossfake data split' leaves it")
    assert changed(moved / "own", before) == "split anew since"
    assert changed(moved / "real", ShardSet(moved / "real").hash) == ""


def test_an_old_bundle_away_from_its_run_says_what_to_name(home: Path, tmp_path: Path) -> None:
    run = shutil.copytree(home / "run", tmp_path / "run")
    _forget(run)
    detector = _load((run / "model").rename(tmp_path / "alone"))
    assert recalled(detector) is None
    with pytest.raises(
        UserError, match="which of its data are reals and which fakes.*--fake DIR: .*real, .*fake"
    ):
        reopen(detector)
    found = reopen(detector, [home / "real"], [home / "own", home / "fake"])
    assert found.data.validation().digest == detector.card["validation_hash"]
    assert "how its training drew its batches is not recorded" in found.notes[0]


def test_several_detectors_share_what_they_were_trained_with(
    home: Path, trained: Path, tmp_path: Path
) -> None:
    first = _load(home / "run")
    copy = shutil.copytree(home / "run" / "model", tmp_path / "copy")
    card = json.loads((copy / "bundle.json").read_text())
    card["trained_with"]["synthetic_ratio"] = 0.75
    (copy / "bundle.json").write_text(json.dumps(card))
    found = reopen_shared([first, _load(copy)], [], [])
    assert _paths(found) == [["real"], ["fake"], ["own"]]
    assert "copy was trained on batches of other proportions" in found.notes[0]
    with pytest.raises(UserError, match="was trained with other folders than"):
        reopen_shared([first, _load(trained)], [], [])
    found = reopen_shared([_load(trained), first], [home / "real"], [home / "own"])
    assert _paths(found) == [["real"], [], ["own"]]  # a member knows that they are its own
