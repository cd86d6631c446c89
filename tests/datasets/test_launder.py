from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from crossfake.cli import main
from crossfake.datasets.decode import decode_image
from crossfake.datasets.faces import Face
from crossfake.datasets.inspect import inspect
from crossfake.datasets.launder import launder
from crossfake.datasets.leaks import check
from crossfake.datasets.outcomes import with_history
from crossfake.datasets.prepare import prepare
from crossfake.datasets.settings import LaunderSettings, PrepareSettings, SplitSettings
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.toyfaces import toyface
from crossfake.errors import UserError


def _pictures(folder: Path, first: int, kind: str, side: int, **options: object) -> str:
    folder.mkdir(parents=True)
    for number in range(first, first + 12):
        Image.fromarray(toyface(number, side)).save(folder / f"{number}.{kind}", **options)
    return str(folder)


def test_both_classes_get_one_history(tmp_path: Path) -> None:
    real = _pictures(tmp_path / "r", 0, "jpg", 300, quality=92)
    fake = _pictures(tmp_path / "f", 50, "png", 180)
    done = launder(LaunderSettings((real,), (fake,), tmp_path / "out", crop="center", workers=1))
    assert (
        done.size == 112 and done.quality == 90
    )  # 180 / 1.5 is 120; the lowest tenth of 92 and 100, at most 90
    sets = [ShardSet(tmp_path / "out" / label) for label in ("real", "fake")]
    for name in ("crop", "history", "filters"):
        assert sets[0].attributes[name] == sets[1].attributes[name]
    assert sets[0].attributes["history"] == ["jpeg 90 4:2:0"] and {s.size for s in sets} == {112}
    assert [set(s.columns["label"]) for s in sets] == [{0}, {1}]
    assert check(SplitSettings((tmp_path / "out/real", tmp_path / "out/fake"), workers=1)).offences == []
    assert "dealt anew" not in done.table()
    swapped = launder(LaunderSettings((fake,), (real,), tmp_path / "swapped", crop="center", workers=1))
    assert (swapped.size, swapped.quality) == (done.size, done.quality)  # the label has no say
    assert "112×112, then JPEG of quality 90" in done.table()


def test_near_duplicates_are_dealt_together_not_set_aside(tmp_path: Path) -> None:
    real = _pictures(tmp_path / "r", 0, "jpg", 300, quality=92)
    fake = _pictures(tmp_path / "f", 50, "png", 300)
    for number in range(12):  # a copy is another group until fingerprints are compared
        Image.open(f"{real}/{number}.jpg").save(f"{real}/copy-{number}.jpg", quality=70)
    done = launder(
        LaunderSettings((real,), (fake,), tmp_path / "out", crop="center", split="0.5/0.25/0.25", workers=1)
    )
    assert done.splits.linked == 12 and sum(done.splits.table.values()) == 36
    assert "aside" not in done.table() and "dealt anew" not in done.table()


def test_a_set_with_both_classes_and_several_sources(tmp_path: Path) -> None:
    both = tmp_path / "set"
    _pictures(both / "real", 0, "jpg", 100)
    _pictures(both / "fake", 50, "jpg", 100)
    more = _pictures(tmp_path / "more", 90, "png", 400)
    done = launder(
        LaunderSettings((str(both), more), (str(both),), tmp_path / "out", crop="none", quality=70, workers=1)
    )
    assert done.size == 64 and done.quality == 70 and len(done.sources) == 3
    same = _pictures(tmp_path / "elsewhere" / "more", 120, "png", 100)
    again = launder(LaunderSettings((more, same), (str(both),), tmp_path / "two", crop="none", workers=1))
    assert len(again.sources) == 3 and len(ShardSet(tmp_path / "two/real/more-2")) == 12
    assert len(ShardSet(tmp_path / "out/real/set")) == len(ShardSet(tmp_path / "out/fake")) == 12


def test_pictures_that_would_not_shrink_are_left_out(tmp_path: Path) -> None:
    real = _pictures(tmp_path / "r", 0, "png", 90)
    fake = _pictures(tmp_path / "f", 50, "png", 90)
    Image.fromarray(toyface(1, 40)).save(tmp_path / "f" / "small.png")
    done = launder(LaunderSettings((real,), (fake,), tmp_path / "out", size=64, crop="center", workers=1))
    assert done.sources[f"fake: {fake}"].skipped == {"picture too small": 1}
    assert np.array_equal(ShardSet(tmp_path / "out/fake").read(0).shape, (64, 64, 3))
    assert done.table().startswith("all pictures: margin 1, 64×64")


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="both classes"):
        LaunderSettings((), ("x",), tmp_path)
    with pytest.raises(UserError, match="quality"):
        LaunderSettings(("x",), ("y",), tmp_path, quality=200)
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match="no picture of .* could be cropped"):
        launder(LaunderSettings((str(tmp_path / "r"),), (str(tmp_path / "r"),), tmp_path / "o", crop="none"))


def test_the_margin_leaves_room_in_every_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faces that fill one source's pictures set the margin for both."""
    model = tmp_path / "model.onnx"
    model.write_bytes(b"")
    points = np.array(
        [[-20, -11], [20, -11], [0, 14], [-15, 34], [15, 34]], np.float64
    )  # FFHQ's crop is 162 wide

    def found(image: np.ndarray, model: Path, **_: object) -> list[Face]:
        middle = np.array([image.shape[1] / 2, image.shape[0] / 2])
        return [Face(points + middle, (middle[0] - 30, middle[1] - 30, 60, 60))]

    monkeypatch.setattr("crossfake.datasets.crops.find_faces", found)
    wide = _pictures(tmp_path / "wide", 0, "png", 300)
    tight = _pictures(tmp_path / "tight", 50, "png", 100)
    for real, fake in ((wide, tight), (tight, wide)):
        out = tmp_path / f"out {Path(real).name}"
        done = launder(LaunderSettings((real,), (fake,), out, face_model=model, workers=1))
        # at margin m the side is 162 m / 1.3, and at most a quarter of its square may lie outside 100 pixels
        assert done.margin == 0.9 and all(not each.skipped for each in done.sources.values())


def test_new_data_is_treated_as_an_earlier_laundering_was(tmp_path: Path) -> None:
    real = _pictures(tmp_path / "r", 0, "jpg", 300, quality=92)
    fake = _pictures(tmp_path / "f", 50, "png", 180)
    launder(LaunderSettings((real,), (fake,), tmp_path / "clean", crop="center", margin=0.8, workers=1))
    new = _pictures(tmp_path / "new", 100, "png", 400)  # alone it would be made larger, and compressed less
    Image.fromarray(toyface(3, 300)).save(tmp_path / "new" / "copy.png")  # of a real of before
    settings = LaunderSettings(
        (), (new,), tmp_path / "later", like=tmp_path / "clean", generator="new", split="0/0/1", workers=1
    )
    done = launder(settings)
    before, after = ShardSet(tmp_path / "clean" / "fake"), ShardSet(tmp_path / "later" / "fake")
    for name in ("crop", "history", "filters"):
        assert after.attributes[name] == before.attributes[name]
    assert after.size == before.size == done.size and set(after.columns["generator"]) == {"new"}
    assert "margin 0.8" in done.table() and not (tmp_path / "later" / "real").exists()
    folders = (tmp_path / "clean/real", tmp_path / "clean/fake", tmp_path / "later/fake")
    assert check(SplitSettings(folders, workers=1)).offences == []
    sides = dict(zip(after.columns["origin"].tolist(), after.columns["split"].tolist(), strict=True))
    old = ShardSet(tmp_path / "clean" / "real")
    kept = dict(zip(old.columns["origin"].tolist(), old.columns["split"].tolist(), strict=True))
    assert sides.pop("copy.png") == kept["3.jpg"] and set(sides.values()) == {"test"}


def test_what_was_not_laundered_is_no_example(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    real, new = (_pictures(tmp_path / name, 0, "png", 200) for name in ("r", "n"))
    prepare(PrepareSettings(real, tmp_path / "plain", size=64, crop="center", label="real", workers=1))
    for like, expected in (
        ("empty", "holds no shards"),
        ("plain", r"was not laundered \(no common compression\)"),
    ):
        with pytest.raises(UserError, match=expected):
            launder(LaunderSettings((), (new,), tmp_path / "o", like=tmp_path / like, workers=1))
    launder(LaunderSettings((real,), (new,), tmp_path / "a", size=64, crop="none", workers=1))
    launder(LaunderSettings((real,), (new,), tmp_path / "a" / "b", size=32, crop="none", workers=1))
    with pytest.raises(UserError, match="were treated in different ways"):
        launder(LaunderSettings((), (new,), tmp_path / "o", like=tmp_path / "a", workers=1))
    with pytest.raises(UserError, match="nothing new"):
        LaunderSettings((), (), tmp_path, like=tmp_path / "a")
    with pytest.raises(UserError, match="are those of"):
        LaunderSettings((), (new,), tmp_path, like=tmp_path / "a", size=64)


def test_the_command_takes_nothing_that_follows_from_like(tmp_path: Path) -> None:
    words = ["data", "launder", "--like", str(tmp_path), "--fake", "x", "--out", "y"]
    result = CliRunner().invoke(main, [*words, "--crop", "none"])
    assert result.exit_code == 2 and f"--crop follows from {tmp_path}" in result.output
    result = CliRunner().invoke(main, ["data", "launder", "--fake", "x", "--out", "y"])
    assert result.exit_code == 2 and "give --real and --fake, or --like" in result.output


def test_native_pixels_share_the_compression_alone(tmp_path: Path) -> None:
    real = _pictures(tmp_path / "r", 0, "jpg", 150, quality=80)
    fake = _pictures(tmp_path / "f", 50, "png", 130)
    options = {"crop": "none", "pixels": "native", "workers": 1}
    done = launder(LaunderSettings((real,), (fake,), tmp_path / "out", **options))  # type: ignore[arg-type]
    assert (done.size, done.quality) == (0, 80) and "native pixels, then JPEG of quality 80" in done.table()
    sets = [ShardSet(tmp_path / "out" / label) for label in ("real", "fake")]
    for each, side, files in zip(sets, (150, 130), (real, fake), strict=True):
        assert each.native and each.shapes.tolist() == [[side, side]] * 12
        assert each.attributes["history"] == ["jpeg 80 4:2:0"]
        file = Path(files) / str(each.columns["origin"][0])
        assert np.array_equal(each.read(0), with_history(decode_image(file), 80))
    assert sets[0].attributes["crop"] == sets[1].attributes["crop"]
    new = _pictures(tmp_path / "n", 80, "png", 140)
    like = launder(LaunderSettings((), (new,), tmp_path / "new", like=tmp_path / "out", workers=1))
    after = ShardSet(tmp_path / "new" / "fake")
    assert like.quality == 80 and after.native and after.attributes["crop"] == sets[0].attributes["crop"]
    with pytest.raises(UserError, match="keep their own size: leave --size out"):
        LaunderSettings((real,), (fake,), tmp_path, size=64, pixels="native")
    assert "native pixels, shorter side 150 to 150 (median 150)" in inspect(
        str(tmp_path / "out" / "real"), tmp_path
    )
