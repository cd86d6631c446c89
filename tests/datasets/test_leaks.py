import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from crossfake.datasets.cli import data
from crossfake.datasets.embeddings import similar_pairs
from crossfake.datasets.leaks import ASIDE, check, split
from crossfake.datasets.settings import SplitSettings
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
    assert check(settings).offences == [] and "near-duplicates joined 30" in report.text()


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
    assert check(SplitSettings((a, b), workers=1)).offences == []
    hashes = ShardSet(a).hash
    split(SplitSettings((b, a), workers=1))  # nothing new: nothing changes, in whatever order
    assert ShardSet(a).hash == hashes


def test_rows_linked_across_old_splits_are_set_aside_not_moved(tmp_path: Path) -> None:
    a = _shards(tmp_path / "a", list(range(10)), own="train")
    b = _shards(tmp_path / "b", list(range(5, 15)), own="test", jpeg=True)
    offences = check(SplitSettings((a, b), workers=1)).offences
    assert len(offences) == 5 and "in train and test" in str(offences[0]) and "a:5.png" in str(offences[0])
    report = split(SplitSettings((a, b), workers=1))
    assert len(report.aside) == 5 and "set aside" in report.text()
    assert _sides(a) == {f"{k}.png": ASIDE if k >= 5 else "train" for k in range(10)}
    assert set(_sides(b).values()) == {"test"} and check(SplitSettings((a, b), workers=1)).offences == []
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
    (offence,) = check(SplitSettings((a, b), workers=1)).offences
    assert "group 'same person' is in test and train" in str(offence)


def test_folders_without_splits_are_sides_themselves(tmp_path: Path) -> None:
    a, b = _shards(tmp_path / "a", [1, 2]), _shards(tmp_path / "b", [2, 3], jpeg=True)
    (offence,) = check(SplitSettings((a, b), workers=1)).offences
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
    assert len(sides) == 1 and check(settings).offences == []
    assert check(SplitSettings((later, two), workers=1)).offences == []


def test_a_folder_named_twice_counts_once(tmp_path: Path) -> None:
    a = _shards(tmp_path / "a", [1, 2])
    (tmp_path / "x").mkdir()
    report = split(SplitSettings((a, tmp_path / "x" / ".." / "a"), workers=1))
    assert sum(report.table.values()) == len(ShardSet(a))
    with pytest.raises(UserError, match="--seed -1 is out of range"):
        SplitSettings((a,), seed=-1)


def test_shards_of_others_without_a_column_of_own_splits_are_read(tmp_path: Path) -> None:
    import h5py

    a = _shards(tmp_path / "a", [1, 2], split="train", group="")
    with h5py.File(a / "00000.h5", "a") as file:
        del file["own_split"]
    split(SplitSettings((a,), workers=1))
    assert (ShardSet(a).columns["group"] != "").all()


def _prepared(folder: Path, faces: list[int], sides: list[str], **row: object) -> Path:
    """As 'data prepare' writes them: every row has a split that was dealt, and no splits.csv lies there."""
    with ShardWriter(folder, 48, attributes={"split": row.pop("share", "0.8/0.1/0.1")}) as writer:
        for number, (face, side) in enumerate(zip(faces, sides, strict=True)):
            facts = {"label": 0, "source": folder.name, "group": f"{folder.name}:{number}"} | row
            writer.append(toyface(face, 48), Row(**facts, split=side, origin=f"{number}.png"))  # type: ignore[arg-type]
    return folder


def test_what_prepare_dealt_never_moves(tmp_path: Path) -> None:
    dealt = ["train"] * 12 + ["test"] * 14 + ["val"] * 4  # as no dealer would deal it
    a = _prepared(tmp_path / "a", list(range(30)), dealt)
    b = _prepared(tmp_path / "b", list(range(50, 90)), ["test"] * 40, label=1, generator="g")
    hashes = ShardSet(a).hash, ShardSet(b).hash
    report = split(SplitSettings((a, b), split="0.5/0.25/0.25", seed=3, workers=1))
    assert list(_sides(a).values()) == dealt and set(_sides(b).values()) == {"test"}
    assert report.moved == 0 and not report.aside and not report.invalid
    # nothing to decide: what was trained on these folders still knows them
    assert (ShardSet(a).hash, ShardSet(b).hash) == hashes and not (a / SPLITS).exists()


def test_leaks_of_what_prepare_dealt_are_set_aside_and_counted(tmp_path: Path) -> None:
    a = _prepared(tmp_path / "a", [1, 2, 3, 4], ["train", "train", "val", "test"])
    b = _prepared(tmp_path / "b", [1, 2, 3, 9], ["test", "val", "train", "train"])
    report = split(SplitSettings((a, b), workers=1))
    assert list(_sides(a).values()) == [ASIDE, ASIDE, "val", "test"]
    assert list(_sides(b).values()) == ["test", "val", ASIDE, "train"]
    assert len(report.aside) == 3 and "3 rows" in report.text() and "--redeal deals all anew" in report.text()
    again = split(SplitSettings((a, b), workers=1))
    assert not again.aside and "aside" in again.text()  # still counted in the table


def test_what_belongs_to_a_row_that_was_set_aside_is_set_aside(tmp_path: Path) -> None:
    a = _prepared(tmp_path / "a", [1, 2, 3], ["train", "train", "train"])
    b = _prepared(tmp_path / "b", [1], ["test"])
    split(SplitSettings((a, b), workers=1))
    c = _prepared(tmp_path / "c", [1, 30], ["", ""])  # b, with the row on test, is not named any more
    report = split(SplitSettings((a, c), workers=1))
    assert _sides(c)["0.png"] == ASIDE and _sides(c)["1.png"] in ("train", "val", "test")
    assert report.aside == [f"{c}:0.png"]
    assert check(SplitSettings((a, b, c), workers=1)).offences == []


def test_redeal_deals_anew_and_names_what_that_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from crossfake.files import write_json
    from crossfake.runs import Run

    a = _prepared(tmp_path / "a", [*range(40), *range(20)], ["train"] * 40 + ["test"] * 20)
    own = _shards(tmp_path / "own", list(range(100, 110)), own="test")
    known = {str(a): ShardSet(a).hash}
    monkeypatch.chdir(tmp_path)
    Run.create("runs/gan", {"data_hashes": {"a": "of another time"}}, kind="synth")
    Run.create("runs/moved", {"data_hashes": {"/elsewhere/faces": known[str(a)]}}, kind="detect")
    Run.create("runs/other", {"data_hashes": {"own": ShardSet(own).hash}}, kind="detect")
    (tmp_path / "models" / "bundle").mkdir(parents=True)
    write_json(tmp_path / "models" / "bundle" / "bundle.json", {"data_hashes": known})
    write_json(tmp_path / "runs" / "gan" / "model.json", {"data_hashes": known})
    report = split(SplitSettings((a, own), redeal=True, workers=1))
    assert report.invalid == ["models/bundle", "runs/gan (synth)", "runs/moved (detect)"]
    assert "no longer valid" in report.text() and "runs/gan (synth), runs/moved (detect)" in report.text()
    sides = list(_sides(a).values())
    assert set(_sides(own).values()) == {"test"}  # a data set's own splits stay
    assert sides[:20] == sides[40:] and ASIDE not in sides and report.moved > 0  # copies together, none lost
    assert 24 <= sides[:40].count("train") <= 38
    monkeypatch.chdir(tmp_path / "models" / "bundle" / "..")
    (tmp_path / "models" / "bundle" / "bundle.json").unlink()
    text = split(SplitSettings((a, own), redeal=True, seed=7, workers=1)).text()
    assert "any other that did is no longer valid" in text


def test_redeal_forgets_what_was_joined_and_set_aside(tmp_path: Path) -> None:
    a = _prepared(tmp_path / "a", list(range(10)), ["train"] * 10)
    b = _prepared(tmp_path / "b", [0, *range(20, 29)], ["test"] * 10)
    split(SplitSettings((a, b), workers=1))
    assert _sides(a)["0.png"] == ASIDE
    split(SplitSettings((a,), redeal=True, workers=1))
    assert ASIDE not in _sides(a).values() and ShardSet(a).columns["group"][0] == "a:0"


def test_a_set_for_testing_only_is_not_redealt_by_mistake(tmp_path: Path) -> None:
    a = _prepared(tmp_path / "a", [1, 2], ["train", "val"])
    held = _prepared(tmp_path / "new", [3, 4], ["test", "test"], share="0/0/1")
    with pytest.raises(UserError, match="new was prepared with --split 0/0/1"):
        split(SplitSettings((a, held), redeal=True, workers=1))
    assert set(_sides(held).values()) == {"test"}
    split(SplitSettings((held,), split="1/0/0", redeal=True, workers=1))  # said outright
    assert set(_sides(held).values()) == {"train"}


def test_launder_and_prepare_deal_a_photo_to_one_side(tmp_path: Path) -> None:
    from crossfake.datasets.launder import launder
    from crossfake.datasets.prepare import prepare
    from crossfake.datasets.settings import LaunderSettings, PrepareSettings

    for kind, first in (("real", 0), ("fake", 100)):
        (tmp_path / kind).mkdir()
        for number in range(40):
            Image.fromarray(toyface(first + number, 100)).save(tmp_path / kind / f"{number:02d}.png")
    prepare(PrepareSettings(str(tmp_path / "real"), tmp_path / "faces", crop="none", label="real", workers=1))
    words = (str(tmp_path / "real"),), (str(tmp_path / "fake"),)
    launder(LaunderSettings(*words, tmp_path / "clean", crop="none", size=64, workers=1))
    before, after = _sides(tmp_path / "faces"), _sides(tmp_path / "clean" / "real")
    assert before == after and set(before.values()) == {"train", "val", "test"}


def test_what_check_says(tmp_path: Path) -> None:
    unsplit = _prepared(tmp_path / "unsplit", [1, 2], ["", ""])
    with pytest.raises(UserError, match="no row of .*unsplit has a split"):
        check(SplitSettings((unsplit,), workers=1))
    a = _prepared(tmp_path / "a", [10, 11, 12, 13], ["train", "val", "test", ASIDE])
    report = check(SplitSettings((a, unsplit), workers=1))
    assert report.offences == [] and report.sides == {"train": 3, "val": 1, "test": 1, ASIDE: 1}
    last = report.text().splitlines()[-1]
    assert last.startswith(
        "disjoint: 3 train, 1 val, 1 test, 1 aside (2 rows without a split count as train)"
    )
    assert "persons were not compared" in last
    b = _prepared(tmp_path / "b", [10, *range(20, 45)], ["test", *["train"] * 25])
    c = _prepared(tmp_path / "c", list(range(20, 45)), ["val"] * 25)
    report = check(SplitSettings((a, b, c), workers=1))
    lines = report.text().splitlines()
    assert len(report.offences) == 26 and lines[-2] == "(6 more)" and len(lines) == 22
    assert lines[-1].startswith("26 leaks (copy 26) between ") and lines[0].startswith("pictures of one ")


def test_the_exit_codes_of_check(tmp_path: Path) -> None:
    a = _prepared(tmp_path / "a", [1, 2], ["train", "test"])
    b = _prepared(tmp_path / "b", [1], ["test"])
    unsplit = _prepared(tmp_path / "c", [5], [""])

    def call(*words: object) -> tuple[int, str, str]:
        done = CliRunner().invoke(data, ["split", "--check", *map(str, words)])
        return done.exit_code, done.stdout, done.stderr

    code, text, _ = call(a)
    assert code == 0 and text.startswith("disjoint: 1 train, 1 test:")
    code, text, _ = call(a, b)
    assert code == 1 and text.splitlines()[-1].startswith("1 leak (copy 1) between 1 train, 2 test:")
    for words in ((unsplit,), (a, "--redeal"), (a, "--identity-threshold", "0.5"), ("nowhere",)):
        code, text, errors = call(*words)
        assert code == 2 and text == "" and errors.splitlines()[-1].startswith("error: "), words


def test_faces_join_rows_of_several_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from crossfake.datasets import leaks
    from crossfake.datasets.identities import Recogniser

    dlib = Recogniser("dlib", (), Path(), 0.6, fixed=True)
    monkeypatch.setattr(leaks.Recogniser, "find", lambda *_: dlib)
    # one number for each face: rows of one number are one person
    people = {"a": [1.0, 2.0, 3.0, 4.0], "b": [1.1, 12.0, 2.9, np.nan]}

    def recognise(shards: ShardSet, *_: object) -> np.ndarray:
        return np.array(people[shards.path.name], np.float32)[:, None] * np.ones(3, np.float32)

    monkeypatch.setattr(leaks, "recognise", recognise)
    a = _prepared(tmp_path / "a", [1, 2, 3, 4], ["train", "train", "val", "test"])
    b = _prepared(tmp_path / "b", [5, 6, 7, 8], ["test", "train", "val", "train"])
    plain, faces = SplitSettings((a, b), workers=1), SplitSettings((a, b), identities=True, workers=1)
    assert check(plain).offences == []
    report = check(faces)
    (offence,) = report.offences
    assert offence.kind == "person" and "distance 0.17" in str(offence) and (a / "identities.png").exists()
    assert "7 of 8 pictures" in report.text() and report.text().splitlines()[-1].startswith(
        "1 leak (person 1)"
    )
    assert not (a / SPLITS).exists()
    done = split(faces)
    assert done.aside == [f"{a}:0.png"] and done.persons and len(done.persons.pairs) == 2
    assert "the least certain joins" in done.text() and done.sheet == a / "identities.png"
    groups = [ShardSet(folder).columns["group"] for folder in (a, b)]
    assert groups[0][0] == groups[1][0] and groups[0][2] == groups[1][2]
    assert check(faces).offences == [] and "and no person that dlib recognises is" in check(faces).text()
    split(SplitSettings((a, b), redeal=True, identities=True, workers=1))
    assert ASIDE not in {*_sides(a).values(), *_sides(b).values()}
    assert _sides(a)["0.png"] == _sides(b)["0.png"] and _sides(a)["2.png"] == _sides(b)["2.png"]
    monkeypatch.setattr(leaks, "recognise", lambda shards, *_: np.full((len(shards), 3), np.nan))
    with pytest.raises(UserError, match="no face was found in any picture"):
        check(faces)


def test_native_rows_are_split_with_their_small_copies(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "native") as writer:
        for number in range(30):
            large = np.asarray(Image.fromarray(toyface(number, 48)).resize((160, 150 + number)))
            writer.append(large, Row(0, "native", group=f"n{number}", origin=f"{number}"))
    aligned = _shards(tmp_path / "aligned", list(range(20, 50)))
    report = split(SplitSettings((tmp_path / "native", aligned), workers=1))
    assert report.linked == 10 and not report.aside
    one, other = _sides(tmp_path / "native"), _sides(aligned)
    assert all(one[f"{20 + k}"] == other[f"{k}.png"] for k in range(10))
