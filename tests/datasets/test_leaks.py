import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from crossfake.datasets.cli import data
from crossfake.datasets.embeddings import similar_pairs
from crossfake.datasets.leaks import ASIDE, SplitSettings, check, split
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import SPLITS, Row, ShardSet
from crossfake.datasets.toyfaces import toyface
from crossfake.errors import UserError


def _shards(
    folder: Path, faces: list[int], *, first: int = 0, jpeg: bool = False, own: str = "", **row: object
) -> Path:
    """Drawn faces, one group each; ``first`` numbers the groups from there."""
    with ShardWriter(folder, 48) as writer:
        for number, face in list(enumerate(faces))[writer.rows_done :]:
            image = toyface(face, 48)
            if jpeg:
                buffer = io.BytesIO()
                Image.fromarray(image).save(buffer, "JPEG", quality=70)
                image = np.asarray(Image.open(buffer))
            facts = {
                "label": 0,
                "source": folder.name,
                "group": f"{folder.name}:{number}",
                "split": own,
                "own_split": bool(own),
            }
            writer.append(image, Row(**(facts | row), origin=f"{number}.png"))  # type: ignore[arg-type]
    return folder


def _sides(folder: Path) -> dict[str, str]:
    shards = ShardSet(folder)
    return dict(zip(shards.columns["origin"].tolist(), shards.columns["split"].tolist(), strict=True))


def test_near_duplicates_in_two_data_sets_go_to_one_side(tmp_path: Path) -> None:
    a = _shards(tmp_path / "a", list(range(60)))
    b = _shards(tmp_path / "b", list(range(30, 90)), jpeg=True, label=1, generator="g")
    settings = SplitSettings((a, b), workers=1)
    report = split(settings)
    assert report.groups == 120 and report.linked == 30 and not report.aside
    one, other = _sides(a), _sides(b)
    assert all(one[f"{30 + k}.png"] == other[f"{k}.png"] for k in range(30))
    assert ShardSet(a).columns["group"][30] == ShardSet(b).columns["group"][0]
    for sides in (
        one,
        other,
    ):  # stratified: both labels have the shares asked for, give or take the linked ones
        counts = Counter(sides.values())
        assert 42 <= counts["train"] <= 54 and counts["val"] >= 2 and counts["test"] >= 2
    assert check(settings) == [] and "near-duplicates joined 30" in report.text()


def test_adding_files_never_moves_an_old_one(tmp_path: Path) -> None:
    a = _shards(tmp_path / "a", list(range(40)))
    split(SplitSettings((a,), workers=1))
    before = _sides(a)
    _shards(a, list(range(70)))  # thirty more in the same folder
    b = _shards(tmp_path / "b", list(range(20, 120)), jpeg=True)
    split(SplitSettings((a, b), seed=5, split="0.6/0.2/0.2", workers=1))
    assert {name: side for name, side in _sides(a).items() if name in before} == before
    both = _sides(a), _sides(b)
    assert all(both[0][f"{20 + k}.png"] == both[1][f"{k}.png"] for k in range(50))
    assert check(SplitSettings((a, b), workers=1)) == []
    hashes = ShardSet(a).hash
    split(SplitSettings((b, a), workers=1))  # nothing new: nothing changes, in whatever order
    assert ShardSet(a).hash == hashes


def test_rows_linked_across_old_splits_are_set_aside_not_moved(tmp_path: Path) -> None:
    a = _shards(tmp_path / "a", list(range(10)), own="train")
    b = _shards(tmp_path / "b", list(range(5, 15)), own="test", jpeg=True)
    offences = check(SplitSettings((a, b), workers=1))
    assert len(offences) == 5 and "in train and test" in str(offences[0]) and "a:5.png" in str(offences[0])
    report = split(SplitSettings((a, b), workers=1))
    assert len(report.aside) == 5 and "set aside" in report.text()
    assert _sides(a) == {f"{k}.png": ASIDE if k >= 5 else "train" for k in range(10)}
    assert set(_sides(b).values()) == {"test"} and check(SplitSettings((a, b), workers=1)) == []
    assert len(ShardSet(a).select(split=["train", ""])) == 5
    report = split(SplitSettings((a, b), workers=1))
    assert not report.aside and Counter(_sides(a).values()) == {"train": 5, ASIDE: 5}


def test_people_and_videos_stay_together(tmp_path: Path) -> None:
    folder = tmp_path / "people"
    with ShardWriter(folder, 32) as writer:
        for number in range(300):
            writer.append(
                toyface(number, 32), Row(number % 2, "p", group=f"person {number // 3}", origin=f"{number}")
            )
    split(SplitSettings((folder,), workers=1))
    sides = ShardSet(folder).columns["split"].reshape(100, 3)
    assert (sides == sides[:, :1]).all()
    assert Counter(sides[:, 0].tolist()) == pytest.approx({"train": 80, "val": 10, "test": 10}, abs=3)


def test_a_group_in_two_splits_is_found(tmp_path: Path) -> None:
    a = _shards(tmp_path / "a", [1, 2], split="train", group="same person")
    b = _shards(tmp_path / "b", [3], split="test", group="same person")
    (offence,) = check(SplitSettings((a, b), workers=1))
    assert "group 'same person' is in test and train" in str(offence)


def test_folders_without_splits_are_sides_themselves(tmp_path: Path) -> None:
    a, b = _shards(tmp_path / "a", [1, 2]), _shards(tmp_path / "b", [2, 3], jpeg=True)
    (offence,) = check(SplitSettings((a, b), workers=1))
    assert str(a) in str(offence) and "near-duplicates" in str(offence)


def test_splits_of_other_shards_are_refused(tmp_path: Path) -> None:
    a = _shards(tmp_path / "a", list(range(5)))
    split(SplitSettings((a,), workers=1))
    text = (a / SPLITS).read_text()
    (a / SPLITS).write_text(text.replace("3.png", "elsewhere.png"))
    with pytest.raises(UserError, match="belongs to other shards"):
        ShardSet(a).columns["split"]
    (a / SPLITS).write_text("nonsense\n1\n")
    with pytest.raises(UserError, match="belongs to other shards"):
        ShardSet(a).columns["group"]


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    for options in ({"folders": ()}, {"radius": 200}, {"cosine": 0.1}, {"split": "1"}):
        with pytest.raises(UserError):
            SplitSettings(**({"folders": (tmp_path,)} | options))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="not a shard folder"):
        split(SplitSettings((tmp_path,)))
    a = _shards(tmp_path / "a", [1])
    with pytest.raises(UserError, match="timm has no model"):
        split(SplitSettings((a,), embedding="resnet1", workers=1))
    with pytest.raises(UserError, match="not there"):
        split(SplitSettings((a,), embedding="resnet18", weights=tmp_path / "no", workers=1))


def test_similar_features_are_found_by_the_index() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((2000, 64)).astype(np.float32) + 3  # with a direction that all share
    features[1000:1500] = features[:500] + rng.standard_normal((500, 64)) * 0.2  # cosine about 0.98
    pairs = similar_pairs(features, 0.95)
    found = {tuple(pair) for pair in pairs.tolist()}
    wanted = {(k, 1000 + k) for k in range(500)}
    assert found <= wanted and len(found) >= 475


def test_embeddings_of_a_local_file(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    from crossfake.datasets.embeddings import embed

    model = timm.create_model("test_resnet.r160_in1k", pretrained=False, num_classes=0)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    a = _shards(tmp_path / "a", [1, 2, 1])
    features = embed(ShardSet(a), "test_resnet.r160_in1k", tmp_path / "w.safetensors")
    assert features.shape[0] == 3 and np.allclose(features[0], features[2], atol=1e-3)
    assert not np.allclose(features[0], features[1], atol=1e-3)
    save_file({"x": model.state_dict()["conv1.0.weight"]}, tmp_path / "bad.safetensors")
    with pytest.raises(UserError, match="is missing"):
        embed(ShardSet(a), "test_resnet.r160_in1k", tmp_path / "bad.safetensors")


def test_the_command(tmp_path: Path) -> None:
    a = str(_shards(tmp_path / "a", list(range(10)), split="train"))
    b = str(_shards(tmp_path / "b", list(range(5, 15)), split="test", jpeg=True))
    result = CliRunner().invoke(data, ["split", "--check", a, b])
    assert result.exit_code == 1 and "5 leaks" in result.output and "near-duplicates" in result.output
    result = CliRunner().invoke(data, ["split", a, b])
    assert result.exit_code == 0 and "near-duplicates joined 5" in result.output
    result = CliRunner().invoke(data, ["split", "--check", a, b])
    assert result.exit_code == 0 and "disjoint" in result.output


def test_who_belongs_together_is_remembered_by_the_data_sets_own_groups(tmp_path: Path) -> None:
    one = _shards(tmp_path / "one", [1], group="anna")
    two = _shards(tmp_path / "two", [1], jpeg=True, group="ben")
    split(SplitSettings((one, two), workers=1))  # the pictures join anna and ben under one name
    later = _shards(tmp_path / "later", list(range(10, 40)), group="ben")
    settings = SplitSettings((later, one, two), workers=1)
    split(settings)
    sides = {side for folder in (one, two, later) for side in _sides(folder).values()}
    assert len(sides) == 1 and check(settings) == []
    assert check(SplitSettings((later, two), workers=1)) == []


def test_a_folder_named_twice_counts_once(tmp_path: Path) -> None:
    a = _shards(tmp_path / "a", [1, 2])
    assert SplitSettings((a, tmp_path / "x" / ".." / "a")).folders == (tmp_path / "x" / ".." / "a",)
    with pytest.raises(UserError, match="--seed -1 is out of range"):
        SplitSettings((a,), seed=-1)


def test_shards_of_others_without_a_column_of_own_splits_are_read(tmp_path: Path) -> None:
    import h5py

    a = _shards(tmp_path / "a", [1, 2], split="train", group="")
    with h5py.File(a / "00000.h5", "a") as file:
        del file["own_split"]
    split(SplitSettings((a,), workers=1))
    assert (ShardSet(a).columns["group"] != "").all()
