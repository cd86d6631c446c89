from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from crossfake.cli import main
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources.base import SOURCES
from crossfake.datasets.toyfaces import toyface


def _data(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, ["data", *map(str, words)])
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    out = tmp_path / "faces"
    code, text, _ = _data(
        "prepare", "toyfaces", "--limit", 30, "--size", 16, "--crop", "none", "--workers", 1, "--out", out
    )
    assert code == 0 and "30  images in" in text
    return out


def test_prepare_verify_and_inspect(faces: Path) -> None:
    code, text, _ = _data("verify", faces)
    assert code == 0 and "every shard and row is as it was written" in text
    code, text, _ = _data("inspect", faces)
    assert code == 0 and "30 images, 16×16, codec raw" in text and "groups: 30" in text
    counts = [line.split() for line in text.splitlines() if line.startswith("toyfaces")]
    splits = ShardSet(faces).columns["split"].tolist()
    assert [(line[3], int(line[4])) for line in counts] == [(s, splits.count(s)) for s in sorted(set(splits))]
    with Image.open(faces / "sheet-toyfaces.png") as sheet:
        assert sheet.size == (6 * 18 + 2, 5 * 18 + 2)


def test_verify_ends_with_one_when_something_is_wrong(faces: Path) -> None:
    raw = bytearray((faces / "00000.h5").read_bytes())
    raw[raw.index(ShardSet(faces).read(7).tobytes()) + 5] ^= 1
    (faces / "00000.h5").write_bytes(raw)
    code, text, _ = _data("verify", faces)
    assert code == 1 and f"{faces / '00000.h5'}: row 7 is damaged" in text.splitlines()


def test_pictures_of_any_size_fit_on_a_sheet(tmp_path: Path) -> None:
    for number in range(3):
        Image.fromarray(toyface(number, 40 + number)).save(tmp_path / f"{number}.png")
    out = tmp_path / "out"
    code, _, _ = _data(
        "prepare", tmp_path, "--out", out, "--codec", "original", "--crop", "none", "--workers", 1
    )
    assert code == 0
    code, text, _ = _data("inspect", out, "--out", tmp_path / "sheets")
    assert code == 0 and "any size" in text and len(list((tmp_path / "sheets").glob("sheet-*.png"))) == 1


def test_a_data_set_is_inspected_without_being_prepared(tmp_path: Path) -> None:
    code, text, _ = _data("fixture", "hardfakevsrealfaces", "--out", tmp_path / "set")
    assert code == 0 and str(tmp_path / "set") in text
    (tmp_path / "set" / "real" / "real_0.jpg").write_bytes(b"no picture")
    code, text, _ = _data("inspect", tmp_path / "set", "--out", tmp_path / "sheets")
    assert code == 0 and "8 files, read as hardfakevsrealfaces" in text
    lines = [line.split() for line in text.splitlines() if line.startswith("hardfake")]
    assert [line[2:] for line in lines] == [["real", "-", "4"], ["fake", "-", "4"]]
    assert (tmp_path / "sheets" / "sheet-hardfakevsrealfaces.png").exists()


def test_sources_are_listed() -> None:
    code, text, _ = _data("sources")
    assert code == 0 and "made from openforensics" in text and len(text.splitlines()) == len(SOURCES.names())


@pytest.mark.parametrize(
    "words",
    [
        ("verify", "nowhere"),
        ("inspect", "nowhere"),
        ("fixture", "nothing", "--out", "x"),
        ("fixture", "toyfaces", "--out", "x"),
        ("split", "nowhere"),
        ("audit", "--real", "nowhere", "--fake", "nowhere"),
        ("launder", "--real", "nowhere", "--fake", "nowhere", "--crop", "none", "--out", "x"),
        ("prepare", ".", "--out", "x", "--max-yaw", "0"),
        ("prepare", "nowhere", "--out", "x"),
        ("prepare", "toyfaces", "--crop", "none", "--out", "x"),
        ("prepare", ".", "--out", "x", "--crop", "none"),
        ("prepare", ".", "--out", "x", "--face-model", "none.onnx"),
        ("prepare", ".", "--out", "x", "--split", "1/1"),
    ],
)
def test_a_users_error_is_one_line(words: tuple[str, ...]) -> None:
    code, text, errors = _data(*words)
    assert code == 2 and text == ""
    assert errors.count("\n") == 1 and errors.startswith("error: ")


def test_drawn_faces_are_inspected_though_they_never_end(tmp_path: Path) -> None:
    from crossfake.datasets.inspect import inspect

    text = inspect("toyfaces", tmp_path)
    assert "draws any number, here 64" in text and (tmp_path / "sheet-toyfaces.png").exists()


def test_sheets_do_not_lie_among_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    from crossfake.datasets.inspect import inspect

    pictures, elsewhere = tmp_path / "pictures", tmp_path / "elsewhere"
    pictures.mkdir()
    elsewhere.mkdir()
    Image.fromarray(toyface(1, 24)).save(pictures / "a.png")
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    monkeypatch.chdir(pictures)
    assert str(elsewhere) in inspect(".") and [p.name for p in pictures.iterdir()] == ["a.png"]
