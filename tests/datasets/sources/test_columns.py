"""Tables as they are published: whatever their columns are called, and whatever is wrong with them."""

import json
from pathlib import Path

import pytest

from crossfake.datasets.prepare import Prepared, prepare
from crossfake.datasets.settings import PrepareSettings
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources.base import SOURCES, Record, SourceSpec, open_source
from crossfake.datasets.sources.fixtures import face_video, write_face, write_json
from crossfake.errors import UserError


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(8):
        write_face(tmp_path / "set" / f"{number}.png", number, 32)
    return tmp_path / "set"


def _table(folder: Path, head: str, values: list[object], name: str = "list.csv", by: str = ",") -> Path:
    lines = [head, *(f"{number}.png{by}{value}" for number, value in enumerate(values))]
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


def _prepared(source: Path, out: Path, **options: object) -> Prepared:
    settings: dict[str, object] = {"size": 16, "crop": "none", "workers": 1, "frames": 2} | options
    return prepare(PrepareSettings(str(source), out, **settings))  # type: ignore[arg-type]


def _records(source: Path, **labels: int) -> list[Record]:
    return list(open_source(SourceSpec(str(source), labels=labels)))


@pytest.mark.parametrize(
    ("head", "values"),
    [
        ("file,label", ["real", "fake"]),
        ("file, label", [" real", " fake "]),
        ("\ufefffile ,Label", ["0", "1"]),
        ("file,target", [0, 1]),
        ("filename,class", ["REAL", "FAKE"]),
        ("file_name,label_str", ["Real", "Deepfake"]),
        ("image_path,is_fake", ["False", "true"]),
        ("path,is_real", [1, 0]),
    ],
)
def test_columns_by_other_names(head: str, values: list[object], pictures: Path, tmp_path: Path) -> None:
    for name, by in (("list.csv", ","), ("semicolons.csv", ";"), ("tabs.tsv", "\t")):
        table = _table(pictures, head.replace(",", by), values * 4, name, by)
        assert [record.label for record in _records(table)] == [0, 1] * 4, name
    done = _prepared(table, tmp_path / "out")
    assert (done.real, done.fake, done.notes) == (4, 4, ())


def test_artifacts_target_and_category(pictures: Path, tmp_path: Path) -> None:
    kinds = ["ffhq", "ddpm", "glide", "sd", "lama", "mat", "pg"]
    rows = [
        f"deep/{n}.png,{n % 7},{kinds[n % 7]}" for n in range(8)
    ]  # the file name is there, the path is not
    table = _table(pictures, "filename,image_path,target,category", rows)
    facts = [(record.label, record.generator if record.label else "") for record in _records(table)]
    assert facts == [(int(n % 7 > 0), kinds[n % 7] if n % 7 else "") for n in range(8)]
    _prepared(table, tmp_path / "out")
    columns = ShardSet(tmp_path / "out").columns
    assert columns["generator"].tolist() == ["", *kinds[1:], ""]
    with pytest.raises(
        UserError, match="'4' says neither real nor fake"
    ):  # ten classes of a table of somebody's own
        _records(_table(pictures, "file,target", [0, 1, 4]))


def test_artifacts_folders_have_a_table_each(tmp_path: Path) -> None:
    root = tmp_path / "ArtiFact"
    for kind, target in (("ffhq", 0), ("ddpm", 4), ("glide", 6)):
        lines = ["filename,image_path,target,category"]
        for number in range(2):
            write_face(root / kind / "images" / f"{number}.png", 10 * target + number, 32)
            lines.append(f"{number}.png,images/{number}.png,{target},{kind}")
        (root / kind / "metadata.csv").write_text("\n".join(lines) + "\n")
    done = _prepared(root, tmp_path / "out")
    assert (done.real, done.fake) == (2, 4) and not done.missing.counts
    assert set(ShardSet(tmp_path / "out").columns["generator"]) == {"", "ddpm", "glide"}


def test_folders_beside_a_table_of_captions_may_be_named(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b", "masks")):
        write_face(tmp_path / "set" / name / "0.png", number, 32)
    (tmp_path / "set" / "metadata.csv").write_text("file_name,text\na/0.png,a cat\n")
    with pytest.raises(UserError, match="only file_name, text"):
        _prepared(tmp_path / "set", tmp_path / "out")
    done = _prepared(tmp_path / "set", tmp_path / "out", labels=["real=a fake=b skip=masks"])
    assert (done.real, done.fake, done.skipped) == (1, 1, {"left out": 1})


@pytest.mark.parametrize("name", ["list.csv", "metadata.csv"])
def test_a_table_without_a_label_names_its_columns(name: str, pictures: Path, tmp_path: Path) -> None:
    table = _table(pictures, "file_name,caption", ["a cat"] * 8, name)
    for source in (table, pictures) if name == "metadata.csv" else (table,):
        with pytest.raises(UserError, match="no column known to be the label, only file_name, caption"):
            _prepared(source, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        assert _prepared(source, tmp_path / f"said {source.name}", label="fake").fake == 8


def test_a_label_that_is_missing_or_in_other_words(pictures: Path, tmp_path: Path) -> None:
    table = _table(pictures, "file,label", ["real", "", "fake", ""] * 2)
    with pytest.raises(UserError, match="gives 4 of 8 files no label"):
        _prepared(table, tmp_path / "out")
    assert _prepared(table, tmp_path / "said", label="fake").fake == 6
    table = _table(pictures, "file,label", ["live", "spoof", "mask", "live"] * 2)
    with pytest.raises(UserError, match="line 2: 'live' says neither real nor fake.*--labels real="):
        _prepared(table, tmp_path / "out")
    done = _prepared(table, tmp_path / "out", labels=["real=live fake=spoof skip=mask"])
    assert (done.real, done.fake, done.skipped) == (4, 2, {"left out": 2})
    flipped = _table(pictures, "file,label", [1, 0] * 4)
    assert [record.label for record in _records(flipped, **{"1": 0, "0": 1})] == [0, 1] * 4


def test_words_in_labels_that_no_row_has(pictures: Path, tmp_path: Path) -> None:
    for name in ("list.csv", "metadata.csv"):
        table = _table(pictures, "file,label", ["True", "False"] * 4, name)
        with pytest.raises(UserError, match="has no label '0': name the words"):
            _prepared(table if name == "list.csv" else pictures, tmp_path / "out", labels=["real=1 fake=0"])
        assert not (tmp_path / "out").exists()
    assert _prepared(pictures, tmp_path / "out", labels=["real=True fake=False"]).real == 4


@pytest.mark.parametrize(
    ("head", "cells"),
    [
        ("file,label,label_str", ["1,real", "0,fake"]),  # a much used set, where 1 is real
        ("file,label,is_fake", ["person,0", "person,1"]),
        ("file,class,Is Real", ["1,1", "1,0"]),
        ("file,label,target", ["NaN,0", "null,1.0"]),
    ],
)
def test_words_count_more_than_numbers(head: str, cells: list[object], pictures: Path) -> None:
    assert [record.label for record in _records(_table(pictures, head, cells))] == [0, 1]


def test_columns_and_folders_that_contradict_each_other(pictures: Path) -> None:
    both = _table(pictures, "file,label,is_fake", ["real,1", "fake,0"])
    with pytest.raises(UserError, match="line 2: label says 'real' but is_fake says '1'.*--labels"):
        _records(both)
    assert [record.label for record in _records(both, real=0, fake=1)] == [0, 1]
    write_face(pictures / "real" / "0.png", 0)
    turned = pictures / "turned.csv"
    turned.write_text("file,label\nreal/0.png,1\n")
    with pytest.raises(UserError, match="line 2: label says 1, its folder real.*--labels"):
        _records(turned)
    assert [record.label for record in _records(turned, **{"1": 0, "0": 1})] == [0]


def test_a_spreadsheets_own_encoding(pictures: Path) -> None:
    table = pictures / "list.txt.tsv"
    table.write_text("file\tlabel\n0.png\treal\n1.png\tfake\n", encoding="utf-16")
    assert [record.label for record in _records(table)] == [0, 1]


def test_files_as_windows_writes_them(tmp_path: Path) -> None:
    write_face(tmp_path / "train" / "real" / "1.png", 1)
    (tmp_path / "list.csv").write_text("file, label\ntrain\\real\\1.png, real\n")
    assert [(r.origin, r.label) for r in _records(tmp_path / "list.csv")] == [("train/real/1.png", 0)]


def test_a_row_without_a_file_names_the_columns(pictures: Path) -> None:
    with pytest.raises(UserError, match=r"names no file \(its columns: id, label\)"):
        _records(_table(pictures, "id,label", ["real"]))


def test_originals_are_the_group(pictures: Path) -> None:
    table = _table(pictures, "file,label,original", ["real,", "fake,0.png", "fake,5.png"])
    assert [record.group for record in _records(table)] == ["set:0.png", "set:0.png", "set:5.png"]


def test_parquet_is_asked_about_by_its_columns_alone(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    from crossfake.datasets.sources.fixtures import face_bytes

    images = [{"bytes": face_bytes(number, "PNG"), "path": ""} for number in range(4)]
    (tmp_path / "set").mkdir()
    file = tmp_path / "set" / "train-00000-of-00001.parquet"
    parquet.write_table(pyarrow.table({"image": images, "text": ["a cat"] * 4}), file)
    with pytest.raises(UserError, match="no column known to be the label, only image, text"):
        _prepared(tmp_path / "set", tmp_path / "out")
    assert _prepared(tmp_path / "set", tmp_path / "said", label="fake").fake == 4
    parquet.write_table(pyarrow.table({"image": images, "Target": [0, 1, 0, 1]}), file)
    assert _prepared(tmp_path / "set", tmp_path / "out").fake == 2
    classes = SOURCES.get("huggingface")().classes(SourceSpec(str(tmp_path / "set")))
    assert classes is not None and (classes.total, classes.count(0), classes.count(1)) == (4, 2, 2)


def test_dfdc_groups_by_the_original(tmp_path: Path) -> None:
    pytest.importorskip("av")
    part = tmp_path / "dfdc_train_part_00"
    rows: dict[str, dict[str, str]] = {"a.mp4": {"label": "REAL", "split": "train"}}
    for name, original in (("b", "a"), ("c", "a"), ("d", "elsewhere")):
        rows[f"{name}.mp4"] = {"label": "FAKE", "split": "train", "original": f"{original}.mp4"}
    for number, name in enumerate(rows):
        face_video(part / name, number)
    face_video(part / "stranger.mp4", 9)
    write_json(part / "metadata.json", rows | {"gone.mp4": {"label": "REAL"}})
    done = _prepared(part, tmp_path / "out")
    assert (done.real, done.fake, done.skipped) == (2, 6, {"not labelled": 1})
    assert done.missing.counts == {"video named by metadata.json": 1}
    columns = ShardSet(tmp_path / "out").columns
    groups = {o.split("#")[0]: g for o, g in zip(columns["origin"], columns["group"], strict=True)}
    assert groups == {
        "a.mp4": "dfdc:a.mp4",
        "b.mp4": "dfdc:a.mp4",
        "c.mp4": "dfdc:a.mp4",
        "d.mp4": "dfdc:elsewhere.mp4",
    }
    assert not columns["own_split"].any()  # all say train: that is no split
    for bad in ('{"a.mp4": {"label": "FAKE"', '{"a.mp4": 3, "label": 1}'):
        (part / "metadata.json").write_text(bad)
        with pytest.raises(UserError, match="cannot be read"):
            _records(part)
    (part / "metadata.json").write_text(json.dumps({"about": "my holiday"}))
    assert SourceSpec(str(part)).layout == "folder"
    with pytest.raises(UserError, match=r"metadata\.json lies beside the pictures"):
        _prepared(part, tmp_path / "three")
