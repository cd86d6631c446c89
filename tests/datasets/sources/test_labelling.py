"""Nothing that nothing labels is ever real in silence."""

import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from crossfake.datasets.audit.audit import (
    audit,
)
from crossfake.datasets.audit.settings import AuditSettings
from crossfake.datasets.cli import data
from crossfake.datasets.launder import launder
from crossfake.datasets.prepare import Prepared, prepare
from crossfake.datasets.settings import LaunderSettings, PrepareSettings
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources.fixtures import face_bytes, write_face
from crossfake.errors import UserError

PAIRS = [
    ("Real", "Midjourney"),
    ("ffhq", "stylegan2"),
    ("realimgs", "fakeimgs"),
    ("live", "spoof"),
    ("Au", "Tp"),
    ("original", "tampered"),
    ("youtube", "faceswap"),
    ("REAL_IMG", "FORGERY"),
    ("0", "1"),
]


def _files(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        write_face(root / name, number, 32)
    return root


def _zipped(folder: Path) -> Path:
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, path.relative_to(folder))
    return folder.with_suffix(".zip")


def _prepared(source: Path, out: Path, **options: object) -> Prepared:
    settings: dict[str, object] = {"size": 16, "crop": "none", "workers": 1} | options
    return prepare(PrepareSettings(str(source), out, **settings))  # type: ignore[arg-type]


def _rows(out: Path) -> dict[str, tuple[int, str]]:
    columns = ShardSet(out).columns
    rows = zip(*(columns[name].tolist() for name in ("origin", "label", "generator")), strict=True)
    return {origin: (label, generator) for origin, label, generator in rows}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("real", "fake"), PAIRS)
def test_a_pair_of_folders_stops_before_anything_is_written(
    real: str, fake: str, packed: bool, tmp_path: Path
) -> None:
    pair = _files(tmp_path / "pair", *(f"{name}/{n}.png" for name in (real, fake) for n in range(2)))
    source = _zipped(pair) if packed else pair
    with pytest.raises(UserError, match="does not say what all of its files are") as caught:
        _prepared(source, tmp_path / "out")
    text = str(caught.value)
    assert f"{real} (2 " in text and f"{fake} (2 ?)" in text and "--label " in text and "--labels " in text
    assert "\n" not in text and not (tmp_path / "out").exists()
    done = _prepared(source, tmp_path / "out", labels=[f"real={real} fake={fake}"])
    assert (done.real, done.fake, done.notes) == (2, 2, ())
    assert {origin.split("/")[0]: label for origin, (label, _) in _rows(tmp_path / "out").items()} == {
        real: 0,
        fake: 1,
    }
    assert _prepared(source, tmp_path / "all", label="fake").fake >= 2


@pytest.mark.parametrize("nested", ["set/{}/a.png", "train/{}/a.png", "{}/00001/a.png", "x/train/{}/y/a.png"])
def test_folders_above_and_below_do_not_hide_a_pair(nested: str, tmp_path: Path) -> None:
    source = _files(tmp_path / "pair", nested.format("ffhq"), nested.format("stylegan2"))
    with pytest.raises(UserError, match=r"ffhq \(1 \?\), stylegan2 \(1 \?\)"):
        _prepared(source, tmp_path / "out")
    _prepared(source, tmp_path / "out", labels=["real=ffhq", "fake=stylegan2"])
    assert sorted(_rows(tmp_path / "out").values()) == [(0, ""), (1, "stylegan2")]


def test_a_third_folder_beside_real_and_fake_is_asked_about(tmp_path: Path) -> None:
    source = _files(tmp_path / "set", "real/a.png", "fake/sd/b.png", "Midjourney/c.png", "preview.png")
    with pytest.raises(UserError, match=r"Midjourney \(1 \?\), fake \(1 fake\), real \(1 real\)"):
        _prepared(source, tmp_path / "out")
    done = _prepared(source, tmp_path / "out", labels=["fake=Midjourney"])
    assert done.skipped == {"not labelled": 1}  # what lies loose beside both classes
    assert _rows(tmp_path / "out") == {
        "real/a.png": (0, ""),
        "fake/sd/b.png": (1, "sd"),
        "Midjourney/c.png": (1, "Midjourney"),
    }
    done = _prepared(source, tmp_path / "two", labels=["skip=Midjourney"])
    assert (done.images, done.skipped) == (2, {"not labelled": 1, "left out": 1})


def test_a_folder_that_is_named_counts_more_than_its_words(tmp_path: Path) -> None:
    source = _files(tmp_path / "set", "a/real/1.png", "a/b/2.png", "c/b/3.png", "4.png")
    _prepared(source, tmp_path / "out", labels=["real=c/b,.", "fake=a"], generator="mygan")
    assert _rows(tmp_path / "out") == {
        "4.png": (0, ""),
        "a/b/2.png": (1, "mygan"),
        "a/real/1.png": (1, "mygan"),
        "c/b/3.png": (0, ""),
    }


@pytest.mark.parametrize("order", [["fake=sd", "real=b/sd"], ["real=b/sd", "fake=sd"]])
def test_of_several_names_the_longest_path_counts(order: list[str], tmp_path: Path) -> None:
    source = _files(tmp_path / "set", "a/sd/1.png", "b/sd/2.png")
    _prepared(source, tmp_path / "out", labels=order)
    assert _rows(tmp_path / "out") == {"a/sd/1.png": (1, "sd"), "b/sd/2.png": (0, "")}


def test_fakes_named_by_a_path_name_their_generator(tmp_path: Path) -> None:
    source = _files(tmp_path / "set", "x/ffhq/1.png", "x/sd/2.png", "x/gan/a/3.png")
    _prepared(source, tmp_path / "out", labels=["real=x/ffhq", "fake=./x/sd,x/gan"])
    assert sorted(_rows(tmp_path / "out").values()) == [(0, ""), (1, "gan"), (1, "sd")]


def test_folders_in_question_are_shown_by_their_path_where_a_name_has_both_classes(tmp_path: Path) -> None:
    source = _files(tmp_path / "set", "p1/real/1.png", "p1/other/2.png", "p2/real/3.png", "p2/fake/4.png")
    with pytest.raises(UserError, match=r"p1/other \(1 \?\), p1/real \(1 real\)"):
        _prepared(source, tmp_path / "out")
    source = _files(tmp_path / "blind", "train/REAL/1.png", "train/DeepFakes/2.png", "test/3.png")
    with pytest.raises(UserError, match=r"test \(1 \?\), DeepFakes \(1 fake\), REAL \(1 real\)"):
        _prepared(source, tmp_path / "out")
    assert _prepared(source, tmp_path / "out", labels=["skip=test"]).images == 2


def test_what_is_left_out_on_request_is_no_loss(tmp_path: Path) -> None:
    source = _files(tmp_path / "set", "real/1.png", "masks/2.png", "masks/3.png")
    done = _prepared(source, tmp_path / "out", labels=["skip=masks"])
    assert done.skipped == {"left out": 2} and "warning" not in done.table()


def test_splits_however_deep(tmp_path: Path) -> None:
    source = _files(tmp_path / "set", *(f"a/b/c/d/e/{part}/real/1.png" for part in ("train", "test")))
    (source / "a" / "circle").symlink_to(source)
    _prepared(source, tmp_path / "out")
    columns = ShardSet(tmp_path / "out").columns
    assert columns["split"].tolist() == ["test", "train"] and columns["label"].tolist() == [0, 0]


def test_names_that_are_no_folders_and_texts_that_are_no_labels(tmp_path: Path) -> None:
    source = _files(tmp_path / "set", "a/1.png", "b/2.png")
    with pytest.raises(UserError, match="no folder 'c': name a, b in --labels"):
        _prepared(source, tmp_path / "out", labels=["real=a,c", "fake=b"])
    with pytest.raises(UserError, match=r"b \(1 \?\), a \(1 real\)"):
        _prepared(source, tmp_path / "out", labels=["real=a"])
    for labels in (["a"], ["reel=a"], ["real="], [""]):
        with pytest.raises(UserError, match="names no class and its folders"):
            PrepareSettings("x", tmp_path, labels=labels)
    with pytest.raises(UserError, match="'a' into two classes"):
        PrepareSettings("x", tmp_path, labels="real=a fake=b,a")


def test_one_folder_is_real_and_says_so(tmp_path: Path) -> None:
    said = "nothing named a class: all 2 are taken as real; --label fake otherwise"
    for number, names in enumerate(
        (("a.png", "b.png"), ("in/a.png", "in/b.png"), ("train/a.png", "test/b.png"))
    ):
        source = _files(tmp_path / str(number), *names)
        assert _prepared(source, tmp_path / f"out{number}").table().endswith(said)
        assert _prepared(_zipped(source), tmp_path / f"zip{number}").table().endswith(said)
        assert not _prepared(source, tmp_path / f"said{number}", label="real").notes
    assert not _prepared(_files(tmp_path / "reals", "a.png"), tmp_path / "named").notes
    drawn = PrepareSettings("toyfaces", tmp_path / "drawn", 16, "none", limit=2, workers=1)
    assert not prepare(drawn).notes  # whoever asks for drawn faces knows that they are


def test_a_lone_folder_with_a_word_for_a_class_is_of_that_class(tmp_path: Path) -> None:
    for word, label in (("real", 0), ("generated", 1)):
        done = _prepared(_files(tmp_path / word[0], f"{word}/a.png"), tmp_path / f"out {word}")
        assert (done.real, done.fake, done.notes) == (1 - label, label, ())


@pytest.mark.parametrize("name", ["stylegan2-faces", "swapped", "my deepfakes", "Midjourney v6", "FAKEIMGS"])
def test_one_folder_that_hints_at_fakes_is_asked_about(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"a.png of {name} would be called real"):
        _prepared(_files(tmp_path / name, "a.png"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_that_are_called_fake_are_asked_about(tmp_path: Path) -> None:
    source = _files(tmp_path / "set", "real_1.png", "fake_1.png", "._real_1.png")
    with pytest.raises(UserError, match="fake_1.png of set would be called real, its name"):
        _prepared(source, tmp_path / "out")
    assert (
        _prepared(source, tmp_path / "out", label="fake").skipped == {}
    )  # nor is what Apple keeps beside a file


def test_one_class_of_a_set_keeps_nothing_in_doubt(tmp_path: Path) -> None:
    source = _files(tmp_path / "set", "Real/a.png", "Midjourney/b.png")
    with pytest.raises(UserError, match="Midjourney"):
        _prepared(source, tmp_path / "out", only="real")
    assert _prepared(source, tmp_path / "out", only="fake", label="fake").images == 1


@pytest.mark.parametrize("table", ["labels.csv", "labels.txt", "metadata.json"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_table_beside_the_pictures_is_asked_about(packed: bool, table: str, tmp_path: Path) -> None:
    source = _files(tmp_path / "set", "a.png")
    (source / "notes.txt").write_text("no table")
    (source / table).write_text("id,is_fake\na,1\n")
    if packed:
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            for path in source.iterdir():
                archive.write(path, path.name)
    with pytest.raises(UserError, match=f"{table} lies beside the pictures"):
        _prepared(tmp_path / "set.zip" if packed else source, tmp_path / "out")


def test_a_published_set_knows_its_own_labels(tmp_path: Path) -> None:
    from crossfake.datasets.sources.base import SOURCES

    made = SOURCES.get("ffhq")().fixture(tmp_path / "ffhq")
    with pytest.raises(UserError, match="ffhq knows its own labels"):
        _prepared(made, tmp_path / "out", labels=["fake=images1024x1024"])


def test_neither_audit_nor_launder_puts_one_file_on_both_sides(tmp_path: Path) -> None:
    mixed = str(_files(tmp_path / "set", "Real/a.png", "Midjourney/b.png"))
    with pytest.raises(UserError, match="labels some of its files only"):
        audit(AuditSettings((mixed,), (mixed,), workers=1))
    with pytest.raises(UserError, match="labels some of its files only"):
        launder(LaunderSettings((mixed,), (mixed,), tmp_path / "out", crop="none", workers=1))
    both = str(_files(tmp_path / "both", "0.png", "Real/a.png", "Fake/b.png"))  # a loose file stands first
    done = launder(
        LaunderSettings((both,), (both,), tmp_path / "out", crop="none", size=16, quality=80, workers=1)
    )
    assert [(each.real, each.fake) for each in done.sources.values()] == [(1, 0), (0, 1)]


@pytest.mark.parametrize(
    "words",
    [
        ["SOURCE", "--labels", "real=a", "fake=b,c"],
        ["SOURCE", "--labels", "real=a fake=b,c"],
        ["SOURCE", "--labels", "real=a", "--labels", "fake=b", "--labels", "fake=c"],
        ["--labels", "real=a", "fake=b,c", "SOURCE"],
    ],
)
def test_the_option_in_all_its_forms(words: list[str], tmp_path: Path) -> None:
    source = _files(tmp_path / "set", "a/1.png", "b/2.png", "c/3.png")
    line = [str(source) if word == "SOURCE" else word for word in words]
    rest = ["--out", str(tmp_path / "out"), "--crop", "none", "--size", "16", "--workers", "1"]
    done = CliRunner().invoke(data, ["prepare", *line, *rest])
    assert done.exit_code == 0 and "3  images in" in done.output and "1 real, 2 fake" in done.output


def test_archives_that_windows_packed(tmp_path: Path) -> None:
    """Names with a backslash, in the archive and as Python unpacks them: into one folder."""
    path = tmp_path / "kaggle.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, (split, kind) in enumerate((s, k) for s in ("train", "test") for k in ("real", "fake")):
            for copy in range(3):
                info = zipfile.ZipInfo("x")
                info.filename = f"{split}\\{kind}\\{copy}.png"
                archive.writestr(info, face_bytes(10 * number + copy, "PNG"))
        info = zipfile.ZipInfo("x")
        info.filename = "train\\"
        archive.writestr(info, b"")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert (tmp_path / "unpacked" / "train\\real\\0.png").is_file()
    for number, source in enumerate((path, tmp_path / "unpacked")):
        done = _prepared(source, tmp_path / f"out{number}")
        assert (done.real, done.fake, done.notes, dict(done.left_out.counts)) == (6, 6, (), {})
        columns = ShardSet(tmp_path / f"out{number}").columns
        assert set(columns["origin"]) >= {"train/real/0.png", "test/fake/2.png"}
        assert [o.split("/")[0] for o in columns["origin"]] == columns["split"].tolist()


def test_what_is_no_picture_is_counted_in_one_line_and_listed(tmp_path: Path) -> None:
    source = _files(tmp_path / "set", "in/a.png", "in/b.png", "in/c.png")
    (source / "in/a.png").rename(source / "in/no ending")
    (source / "in/b.png").rename(source / "in/b.jpg?w=300")
    for name in ("in/readme.txt", "in/code.ts", "in/.DS_Store", "in/Thumbs.db"):
        (source / name).write_text("let x: number = 1")
    with zipfile.ZipFile(source / "in/more.zip", "w") as archive:
        archive.writestr("d.png", face_bytes(9, "PNG"))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in (source / "in").iterdir():
            archive.write(path, path.relative_to(source))
    for number, where in enumerate((source, tmp_path / "all.zip")):
        out = tmp_path / f"out{number}"
        for _ in range(2):  # again: they are not listed twice
            done = _prepared(where, out, label="real")
            assert done.images == 3 and not done.skipped
            assert "1  left out: an archive inside: unpack it (in/more.zip)" in done.table()
            assert "2  left out: not a picture or video (in/code.ts, in/readme.txt)" in done.table()
            assert (out / "skipped.csv").read_text().splitlines()[1:] == [
                "in/code.ts,not a picture or video,not opened,,",
                "in/more.zip,an archive inside: unpack it,not opened,,",
                "in/readme.txt,not a picture or video,not opened,,",
            ]
    (tmp_path / "only").mkdir()
    (source / "in/more.zip").rename(tmp_path / "only/more.zip")
    with pytest.raises(UserError, match="holds no images .*an archive inside: unpack it"):
        _prepared(tmp_path / "only", tmp_path / "none")


def test_parts_of_an_archive_and_other_archives_say_what_to_do(tmp_path: Path) -> None:
    content = bytearray(_zipped(_files(tmp_path / "set", "a.png")).read_bytes())
    content[content.rindex(b"PK\5\6") + 4] = (
        7  # the number of this part, as in the last of .z01, .z02, …, .zip
    )
    (tmp_path / "last.zip").write_bytes(content)
    (tmp_path / "last.z01").write_bytes(b"PK\7\x08" + bytes(content))
    for name in ("last.zip", "last.z01"):
        with pytest.raises(
            UserError, match="one part of an archive in several: join them: zip -s 0 last.zip"
        ):
            _prepared(tmp_path / name, tmp_path / "out")
    (tmp_path / "a.7z").write_bytes(b"7z\xbc\xaf'\x1c" + bytes(100))
    with pytest.raises(UserError, match="an archive that is not read here"):
        _prepared(tmp_path / "a.7z", tmp_path / "out")
    assert not (tmp_path / "out").exists()
