import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from crossfake.cli import main
from crossfake.datasets.audit.pixels import blockiness
from crossfake.datasets.decode import decode_image
from crossfake.datasets.faces import Face
from crossfake.datasets.outcomes import with_history
from crossfake.datasets.prepare import prepare
from crossfake.datasets.settings import PrepareSettings
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.datasets.sources.base import SOURCES
from crossfake.datasets.toyfaces import toyface
from crossfake.datasets.verify import verify
from crossfake.errors import UserError
from crossfake.images import save_png

COLUMNS = ("crc32", "label", "source", "generator", "split", "group", "seed", "origin")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """150 pictures in folders and formats of all sorts, two files that are no pictures among them."""
    folder = tmp_path / "photos"
    for number in range(150):
        path = folder / f"{number % 3}" / f"{number:03d}{('.png', '.jpg', '.bmp', '.webp')[number % 4]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(toyface(number, 24)).resize((30, 24 + number % 9)).save(path)
    (folder / "1" / "050 broken.jpg").write_bytes((folder / "0" / "009.jpg").read_bytes()[:200])
    (folder / "2" / "text.png").write_text("no picture")
    return folder


def _settings(photos: Path, out: Path, **more: object) -> PrepareSettings:
    options: dict[str, object] = {"size": 16, "crop": "center", "workers": 1, "label": "real"} | more
    return PrepareSettings(str(photos), out, **options)  # type: ignore[arg-type]


def _content(folder: Path) -> dict[str, object]:
    shards = ShardSet(folder)
    content: dict[str, object] = {name: shards.columns[name].tolist() for name in COLUMNS}
    return content | {"skipped": (folder / "skipped.csv").read_text(), "attributes": shards.attributes}


def test_rows_know_where_they_come_from(photos: Path, tmp_path: Path) -> None:
    done = prepare(_settings(photos, tmp_path / "out"))
    assert (done.images, done.skipped) == (150, {"unreadable": 2})
    shards = ShardSet(tmp_path / "out")
    assert len(shards) == 150 and verify(tmp_path / "out") == []
    origins = shards.columns["origin"].tolist()
    assert origins == sorted(origins) and origins[0] == "0/000.png"
    assert set(shards.columns["source"]) == {"photos"} and set(shards.columns["label"]) == {0}
    assert set(shards.columns["split"]) == {"train", "val", "test"} and set(shards.columns["generator"]) == {
        ""
    }
    assert shards.attributes["crop"] == {"policy": "center"} and shards.attributes["source"] == "photos"
    with open(tmp_path / "out" / "skipped.csv", newline="") as file:
        skipped = list(csv.DictReader(file))
    assert [line["file"] for line in skipped] == ["1/050 broken.jpg", "2/text.png"]
    assert {line["reason"] for line in skipped} == {"unreadable"}
    assert "runcated" in skipped[0]["detail"] and skipped[1]["detail"] == "no known image format"
    assert "2  skipped: unreadable" in done.table()


def test_any_number_of_workers_gives_the_same(photos: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        prepare(_settings(photos, tmp_path / str(workers), workers=workers))
    assert _content(tmp_path / "1") == _content(tmp_path / "2")


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_and_started_again_gives_the_same(workers: int, photos: Path, tmp_path: Path) -> None:
    prepare(_settings(photos, tmp_path / "whole"))
    code = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from crossfake.datasets.prepare import *\n"
        "append = ShardWriter.append\n"
        "def killing(self, image, row, mask=None):\n"
        "    append(self, image, row, mask)\n"
        "    if row.origin.startswith('2/') and self._current.rows >= 120: os.kill(os.getpid(), signal.SIGKILL)\n"
        "ShardWriter.append = killing\n"
        "if __name__ == '__main__':\n"
        f"    prepare(PrepareSettings({str(photos)!r}, Path('out'), 16, 'center', label='real', workers={workers}))\n"
    )
    (tmp_path / "killed.py").write_text(code)
    # The pipe is closed when the workers have ended too: none outlives its parent.
    killed = subprocess.run([sys.executable, "killed.py"], cwd=tmp_path, stderr=subprocess.PIPE, timeout=60)
    assert killed.returncode == -9
    assert (tmp_path / "out" / "00000.h5.tmp").exists()
    done = prepare(_settings(photos, tmp_path / "out", workers=workers))
    assert (done.images, done.skipped) == (150, {"unreadable": 2})
    assert _content(tmp_path / "out") == _content(tmp_path / "whole")
    assert prepare(_settings(photos, tmp_path / "out")).images == 150  # and once more changes nothing
    assert _content(tmp_path / "out") == _content(tmp_path / "whole")


def test_ctrl_c_ends_the_workers_quietly_and_can_be_resumed(photos: Path, tmp_path: Path) -> None:
    options = "--limit 100000 --crop none --size 16 --workers 2 --out o"
    code = (
        "from crossfake.datasets.cli import data\n"
        f"if __name__ == '__main__': data('prepare toyfaces {options}'.split())\n"
    )
    (tmp_path / "interrupted.py").write_text(code)
    process = subprocess.Popen(
        [sys.executable, "interrupted.py"], cwd=tmp_path, stderr=subprocess.PIPE, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("o/*.tmp")) or list(tmp_path.glob("o/*.tmp"))[0].stat().st_size < 100_000:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and b"Traceback" not in errors and b"stopped: run the same" in errors
    with ShardWriter(tmp_path / "o", 16, attributes=_attributes(tmp_path / "o")) as writer:
        assert writer.rows_done >= 64


def _attributes(folder: Path) -> dict[str, object]:
    import json

    import h5py

    with h5py.File(next(folder.glob("*.tmp"))) as file:
        found: dict[str, object] = json.loads(file.attrs["attributes"])
    return found


def test_equal_pixels_share_a_group_in_whatever_format(tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    face = Image.fromarray(toyface(1, 40))
    for name in ("a.png", "b.bmp", "c.tiff"):
        face.save(folder / name)
    exif = Image.Exif()
    exif[0x010E] = "a caption"
    face.save(folder / "d.jpg", quality=90)
    face.save(folder / "e.jpg", quality=90, exif=exif)
    Image.fromarray(toyface(2, 40)).save(folder / "f.png")
    groups = {}
    for size in (16, 256):  # a file's group must not depend on the size asked for
        prepare(_settings(folder, tmp_path / str(size), size=size))
        groups[size] = ShardSet(tmp_path / str(size)).columns["group"].tolist()
    a, b, c, d, e, f = groups[16]
    assert a == b == c and d == e and len({a, d, f}) == 3 and groups[16] == groups[256]
    splits = ShardSet(tmp_path / "16").columns["split"].tolist()
    assert splits[0] == splits[1] == splits[2] and splits[3] == splits[4]


def test_files_that_are_added_move_no_other(photos: Path, tmp_path: Path) -> None:
    prepare(_settings(photos, tmp_path / "before"))
    for number in range(20):
        Image.fromarray(toyface(1000 + number, 24)).save(photos / "1" / f"new {number}.png")
    prepare(_settings(photos, tmp_path / "after"))
    before, after = (
        dict(zip(s.columns["origin"].tolist(), s.columns["split"].tolist(), strict=True))
        for s in (ShardSet(tmp_path / "before"), ShardSet(tmp_path / "after"))
    )
    assert len(after) == 170 and {origin: after[origin] for origin in before} == before


def test_fakes_get_the_same_chain_and_their_generators_name(photos: Path, tmp_path: Path) -> None:
    prepare(_settings(photos, tmp_path / "real"))
    prepare(_settings(photos, tmp_path / "fake", label="fake", generator="gan-x", name="web", split="0/0/1"))
    real, fake = ShardSet(tmp_path / "real"), ShardSet(tmp_path / "fake")
    assert real.columns["crc32"].tolist() == fake.columns["crc32"].tolist()
    assert real.attributes["crop"] == fake.attributes["crop"]
    assert set(fake.columns["label"]) == {1} and set(fake.columns["generator"]) == {"gan-x"}
    assert set(fake.columns["source"]) == {"web"} and set(fake.columns["split"]) == {"test"}


def test_shards_from_shards_keep_rows_and_the_crops_history(tmp_path: Path) -> None:
    face = {"policy": "face", "margin": 1.0, "detector": "abc"}
    with ShardWriter(tmp_path / "a", 32, attributes={"crop": face}) as writer:
        for number in range(5):
            writer.append(toyface(number, 32), Row(1, "synth", "gan:1", "val", f"g{number}", 7 + number))
    prepare(_settings(tmp_path / "a", tmp_path / "b", margin=0.5))
    first, inner = ShardSet(tmp_path / "a"), ShardSet(tmp_path / "b")
    for name in ("label", "source", "generator", "split", "group", "seed"):
        assert inner.columns[name].tolist() == first.columns[name].tolist()
    assert np.array_equal(inner.read(3), first.read(3)[8:24, 8:24])
    assert (
        inner.attributes["crop"] == face | {"margin": 0.5} and inner.attributes["source_hash"] == first.hash
    )


def test_original_keeps_bytes_and_leaves_out_broken_files(photos: Path, tmp_path: Path) -> None:
    done = prepare(_settings(photos, tmp_path / "out", crop="none", codec="original"))
    shards = ShardSet(tmp_path / "out")
    assert done.images == 150 and shards.size is None
    assert shards.stored(0) == (photos / shards.columns["origin"][0]).read_bytes()


def test_webp_and_raw_hold_the_same_pixels(photos: Path, tmp_path: Path) -> None:
    for codec in ("raw", "webp"):
        prepare(_settings(photos, tmp_path / codec, codec=codec, limit=20))
    raw, webp = (ShardSet(tmp_path / codec).read_many(range(20)) for codec in ("raw", "webp"))
    assert np.array_equal(raw, webp)


def test_a_limit_can_be_raised(photos: Path, tmp_path: Path) -> None:
    prepare(_settings(photos, tmp_path / "whole"))
    for limit in (40, 90, None):
        prepare(_settings(photos, tmp_path / "out", limit=limit))
    assert _content(tmp_path / "out") == _content(tmp_path / "whole")


def test_sources_are_read_only_a_little_ahead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Memory stays flat: what is drawn but not yet written is bounded."""
    drawn, ahead = 0, []

    def counted(*args: object) -> np.ndarray:
        nonlocal drawn
        drawn += 1
        return np.zeros((16, 16, 3), np.uint8)

    append = ShardWriter.append

    def watched(self: ShardWriter, image: np.ndarray, row: Row, mask: object = None) -> None:
        append(self, image, row)
        ahead.append(drawn - len(ahead))

    monkeypatch.setattr("crossfake.datasets.sources.toyfaces.toyface", counted)
    monkeypatch.setattr(ShardWriter, "append", watched)
    prepare(PrepareSettings("toyfaces", tmp_path / "out", 16, "none", limit=600, workers=2))
    assert len(ahead) == 600 and max(ahead) <= 16 * (4 * 2 + 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 4}, "--size 4 is out of range"),
        ({"label": "maybe"}, "no label 'maybe': choose one of real, fake"),
        ({"split": "1/2/3"}, "three shares"),
        ({"codec": "jpeg"}, "no codec"),
        ({"codec": "original"}, "--crop none"),
        ({"crop": "face", "margin": 9.0}, "margin"),
        ({"limit": 0}, "--limit 0"),
        ({"workers": -2}, "--workers -2"),
        ({"source": "toyfaces"}, "never ends"),
        ({"source": "toyfaces", "limit": 3, "crop": "face"}, "--crop none"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, object], message: str, tmp_path: Path) -> None:
    defaults: dict[str, object] = {"source": "x", "out": tmp_path / "out", "crop": "center"}
    with pytest.raises(UserError, match=message):
        PrepareSettings(**(defaults | options))  # type: ignore[arg-type]


def test_nothing_usable_and_other_settings_are_one_line(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"no image of .* could be used \(unreadable: 1\)"):
        prepare(_settings(tmp_path / "bad", tmp_path / "out"))
    prepare(_settings(photos, tmp_path / "out2", limit=5))
    with pytest.raises(UserError, match="other settings"):
        prepare(_settings(photos, tmp_path / "out2", label="fake"))
    with pytest.raises(UserError, match="there is no source or folder"):
        prepare(_settings(tmp_path / "nowhere", tmp_path / "out3"))


def test_real_photos(real_data: Path, real_weights: Path, tmp_path: Path) -> None:
    done = prepare(_settings(real_data / "all-age-faces", tmp_path / "out", size=64, crop="face", limit=40))
    shards = ShardSet(tmp_path / "out")
    assert done.images == len(shards) >= 34 and shards.attributes["crop"]["policy"] == "face"
    assert set(done.skipped) <= {"picture ends too close to the face", "no face"}


def test_killed_in_the_middle_of_a_video_and_started_again_gives_the_same(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from crossfake.datasets.sources.fixtures import face_video

    for number in range(12):
        face_video(tmp_path / "clips" / f"{number:02d}.mp4", number, frames=30, size=32)
    (tmp_path / "clips" / "05.mp4").write_bytes(b"no video")
    options: dict[str, object] = {"frames": 20, "size": 16, "crop": "none", "workers": 1}
    prepare(PrepareSettings(str(tmp_path / "clips"), tmp_path / "whole", **options))  # type: ignore[arg-type]
    code = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from crossfake.datasets.prepare import *\n"
        "append = ShardWriter.append\n"
        "def killing(self, image, row, mask=None):\n"
        "    append(self, image, row, mask)\n"
        "    if row.origin == '07.mp4#frame=000012': os.kill(os.getpid(), signal.SIGKILL)\n"
        "ShardWriter.append = killing\n"
        f"prepare(PrepareSettings({str(tmp_path / 'clips')!r}, Path('out'), **{options!r}))\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, timeout=120)
    assert killed.returncode == -9, killed.stderr
    done = prepare(PrepareSettings(str(tmp_path / "clips"), tmp_path / "out", **options))  # type: ignore[arg-type]
    assert (done.images, done.skipped) == (11 * 20, {"unreadable": 1})
    assert _content(tmp_path / "out") == _content(tmp_path / "whole")


def test_masks_survive_a_crash(tmp_path: Path) -> None:
    image, mask = toyface(1, 16), np.arange(256, dtype=np.uint8).reshape(16, 16)
    with pytest.raises(ZeroDivisionError), ShardWriter(tmp_path, 16, masks=True) as writer:
        writer.append(image, Row(1, "s", origin="0"), mask)
        raise ZeroDivisionError
    with ShardWriter(tmp_path, 16, masks=True) as writer:
        assert writer.rows_done == 1
        writer.append(image, Row(0, "s", origin="1"))
    shards = ShardSet(tmp_path)
    assert shards.has_masks and np.array_equal(shards.mask(0), mask) and not shards.mask(1).any()
    assert verify(tmp_path) == []
    with pytest.raises(UserError, match="other settings"):
        ShardWriter(tmp_path, 16)


def test_one_history_for_all(tmp_path: Path, photos: Path) -> None:
    prepare(_settings(photos, tmp_path / "a", limit=5))
    prepare(_settings(photos, tmp_path / "b", limit=5, history=50))
    plain, jpeg = ShardSet(tmp_path / "a"), ShardSet(tmp_path / "b")
    assert jpeg.attributes["history"] == ["jpeg 50 4:2:0"] and plain.attributes["history"] == []
    for row in range(5):
        assert np.array_equal(jpeg.read(row), with_history(plain.read(row), 50))
        assert not np.array_equal(jpeg.read(row), plain.read(row))


def test_nothing_is_enlarged_where_that_is_asked(tmp_path: Path, photos: Path) -> None:
    done = prepare(_settings(photos, tmp_path / "out", size=28, enlarge=1.0))
    assert 0 < done.images < 150 and done.skipped["picture too small"] == 150 - done.images
    assert (tmp_path / "out" / "rejects.png").exists() and "rejects.png" in done.table()


def test_one_class_of_a_set_with_both(tmp_path: Path) -> None:
    made = SOURCES.get("hardfakevsrealfaces")().fixture(tmp_path / "set")
    for only, label in (("real", 0), ("fake", 1)):
        done = prepare(_settings(made, tmp_path / only, only=only))
        assert done.images == 4 and set(ShardSet(tmp_path / only).columns["label"]) == {label}


def test_files_added_later_are_found_wherever_they_stand(photos: Path, tmp_path: Path) -> None:
    first = prepare(_settings(photos, tmp_path / "out"))
    before = ShardSet(tmp_path / "out").columns["origin"].tolist()
    Image.fromarray(toyface(999, 24)).save(photos / "0" / "0000 new.png")
    (photos / "1" / "000 new.png").write_text("no picture")
    again = prepare(_settings(photos, tmp_path / "out"))
    assert again.images == first.images + 1 and again.skipped == {"unreadable": 3}
    assert ShardSet(tmp_path / "out").columns["origin"].tolist() == [*before, "0/0000 new.png"]
    assert prepare(_settings(photos, tmp_path / "out")).images == again.images
    assert (tmp_path / "out" / "skipped.csv").read_text().count("\n") == 4


def test_a_table_that_names_a_file_twice_gives_two_rows_however_often_it_runs(tmp_path: Path) -> None:
    Image.fromarray(toyface(1, 24)).save(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text("file,label\na.png,real\na.png,real\n")
    for _ in range(2):
        assert prepare(_settings(tmp_path / "list.csv", tmp_path / "out")).images == 2
    assert ShardSet(tmp_path / "out").columns["origin"].tolist() == ["a.png", "a.png:3"]


def test_two_writers_of_one_folder_keep_out_of_each_others_way(photos: Path, tmp_path: Path) -> None:
    with (
        ShardWriter(tmp_path / "out", 16),
        pytest.raises(UserError, match="another process writes"),
    ):
        prepare(_settings(photos, tmp_path / "out"))
    assert prepare(_settings(photos, tmp_path / "out")).images == 150


@pytest.fixture
def headshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Reals cut closely around the face, fakes that are not, and options with a detector that knows their middle."""
    points = np.array([[-20, -11], [20, -11], [0, 14], [-15, 34], [15, 34]], np.float64)

    def found(image: np.ndarray, model: Path, **_: object) -> list[Face]:
        middle = np.array([image.shape[1] / 2, image.shape[0] / 2])
        return [Face(points + middle, (middle[0] - 30, middle[1] - 30, 60, 60))]

    monkeypatch.setattr("crossfake.datasets.crops.find_faces", found)
    (tmp_path / "model.onnx").write_bytes(b"a model")
    for number in range(60):
        # FFHQ's crop is 162 wide: a quarter of it lies outside a picture of 140
        for kind, side in (("real", 100 + number % 10), ("fake", 200)):
            path = tmp_path / "photos" / kind / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(toyface(number, 32)).resize((side, side)).save(path)
    return {"crop": "face", "face_model": tmp_path / "model.onnx"}


def test_a_loss_of_one_class_is_said_with_the_margin_that_mends_it(
    headshots: dict[str, object], tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    done = prepare(_settings(photos / "fake", tmp_path / "fake", label="fake", **headshots))
    assert done.fake == 60 and "warning" not in done.table()
    with pytest.raises(
        UserError, match=r"no image of .* could be used .*: give --margin 0\.9, for all sources"
    ):
        prepare(_settings(photos / "real", tmp_path / "real", **headshots))
    done = prepare(_settings(photos, tmp_path / "both", **headshots))
    assert (done.real, done.fake) == (0, 60)
    said = done.table().splitlines()[-3:]
    assert said[0].startswith("warning: 100% of the reals and 0% of the fakes were left out")
    assert "--margin 0.9 would keep 95% of these 60" in said[2]
    lines = list(csv.DictReader((tmp_path / "both" / "skipped.csv").read_text().splitlines()))
    assert len(lines) == 60 and {line["label"] for line in lines} == {"real"}
    assert all(0.9 <= float(line["margin"]) < 1.1 for line in lines)
    assert prepare(_settings(photos, tmp_path / "both", **headshots)).table() == done.table()  # repeated
    for number, more in enumerate(({"margin": 0.9}, {"edge": "reflect"})):
        kept = prepare(_settings(photos, tmp_path / f"kept {number}", **headshots, **more))
        assert (kept.real, kept.fake) == (60, 60) and "warning" not in kept.table()
    assert ShardSet(tmp_path / "kept 1").attributes["crop"]["edge"] == "reflect"
    assert "edge" not in ShardSet(tmp_path / "both").attributes["crop"]
    again = prepare(PrepareSettings(str(tmp_path / "both"), tmp_path / "smaller", 8, "none", workers=1))
    assert again.losses["real"].share == 0 and again.losses["fake"].share == 0


def test_what_was_lost_goes_with_shards_made_of_shards(headshots: dict[str, object], tmp_path: Path) -> None:
    wide = tmp_path / "photos" / "real" / "99.png"
    Image.fromarray(toyface(99, 32)).resize((200, 200)).save(wide)
    prepare(_settings(tmp_path / "photos" / "real", tmp_path / "a", **headshots))
    done = prepare(PrepareSettings(str(tmp_path / "a"), tmp_path / "b", 8, "none", workers=1))
    assert done.real == 1 and done.losses["real"].share == pytest.approx(60 / 61, abs=1e-3)
    assert "98% of the source was left out" in done.table()


def test_sub_folders_name_the_generators_where_that_is_asked_for(tmp_path: Path) -> None:
    for name in ("train/stylegan3/1.png", "train/stylegan3/2.png", "sd1.5/3.png", "4.png"):
        file = tmp_path / "fakes" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        save_png(toyface(len(name), 48), file)
    prepare(_settings(tmp_path / "fakes", tmp_path / "a", label="fake", generator="folders"))
    prepare(_settings(tmp_path / "fakes", tmp_path / "b", label="fake"))
    assert Counter(ShardSet(tmp_path / "a").columns["generator"].tolist()) == {
        "stylegan3": 2,
        "sd1.5": 1,
        "fakes": 1,
    }
    assert set(ShardSet(tmp_path / "b").columns["generator"]) == {"fakes"}


NATIVE = {"pixels": "native", "min_size": 26, "crop": "none"}


@pytest.mark.parametrize("codec", ["raw", "webp"])
def test_native_rows_are_the_pictures_as_they_are(codec: str, photos: Path, tmp_path: Path) -> None:
    done = prepare(_settings(photos, tmp_path / "native", codec=codec, workers=2, **NATIVE))
    small = sum(number % 9 < 2 for number in range(150))
    assert done.skipped == {"unreadable": 2, "smaller than 26 pixels": small}
    assert f"{small}  skipped: smaller than 26 pixels ({small} real)" in done.table()
    shards = ShardSet(tmp_path / "native")
    assert shards.native and shards.codec == codec and verify(tmp_path / "native") == []
    assert shards.attributes["crop"] == {"policy": "none", "pixels": "native", "min_size": 26}
    for row in (0, 7, 99):
        assert np.array_equal(shards.read(row), decode_image(photos / str(shards.columns["origin"][row])))
    aligned = prepare(_settings(photos, tmp_path / "aligned"))
    splits = [
        dict(zip(each.columns["origin"].tolist(), each.columns["split"].tolist(), strict=True))
        for each in (shards, ShardSet(aligned.out))
    ]
    assert splits[0].items() <= splits[1].items()  # native and aligned sets of the same photos agree


def test_a_killed_native_preparation_goes_on(photos: Path, tmp_path: Path) -> None:
    prepare(_settings(photos, tmp_path / "whole", **NATIVE))
    with ShardWriter(
        tmp_path / "part", codec="raw", attributes=ShardSet(tmp_path / "whole").attributes
    ) as writer:
        whole = ShardSet(tmp_path / "whole")
        for row in range(70):
            facts = {name: whole.columns[name][row].item() for name in COLUMNS if name != "crc32"}
            writer.append(whole.read(row), Row(**facts))
    done = prepare(_settings(photos, tmp_path / "part", **NATIVE))
    part = ShardSet(tmp_path / "part")
    assert done.images == len(whole) and part.ids().tolist() == whole.ids().tolist()
    assert all(map(np.array_equal, part.read_each(range(len(part))), whole.read_each(range(len(whole)))))


def test_shards_as_a_source_keep_what_parents_point_to(photos: Path, tmp_path: Path) -> None:
    prepare(_settings(photos, tmp_path / "a", **NATIVE))
    reals = ShardSet(tmp_path / "a")
    again = prepare(PrepareSettings(str(tmp_path / "a"), tmp_path / "b", workers=1, **NATIVE))  # type: ignore[arg-type]
    assert ShardSet(again.out).ids().tolist() == reals.ids().tolist()
    with ShardWriter(tmp_path / "fakes") as writer:
        for row, parent in enumerate(reals.ids()[:9].tolist()):
            writer.append(reals.read(row), Row(1, "synth", "toy", origin=f"{row % 8}", parent=parent))
    done = prepare(
        PrepareSettings(str(tmp_path / "fakes"), tmp_path / "taken", workers=1, **NATIVE)  # type: ignore[arg-type]
    )
    taken = ShardSet(done.out).columns
    assert taken["parent"].tolist() == reals.ids()[:9].tolist()
    assert len(set(taken["origin"].tolist())) == 9 and taken["origin"].tolist()[1:8] == list("1234567")


def test_native_settings_that_make_no_sense_are_one_line(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="codec original keeps files"):
        _settings(photos, tmp_path / "o", codec="original", **NATIVE)
    with pytest.raises(UserError, match="no image of .* could be used"):
        prepare(_settings(photos, tmp_path / "none", **{**NATIVE, "min_size": 300}))
    for options, wrong in (("--pixels native --size 64", "--size"), ("--min-size 64", "--min-size")):
        result = CliRunner().invoke(main, ["data", "prepare", str(photos), "--out", "o", *options.split()])
        assert result.exit_code == 2 and f"{wrong} is not for" in result.output
    with ShardWriter(
        tmp_path / "faces", attributes={"crop": {"policy": "face", "pixels": "native"}}
    ) as writer:
        writer.append(toyface(1, 32), Row(0, "a"))
    with pytest.raises(UserError, match="native crops, which are not aligned"):
        prepare(PrepareSettings(str(tmp_path / "faces"), tmp_path / "x", 16, "none"))
    with ShardWriter(tmp_path / "aligned", size=32) as writer:
        writer.append(toyface(1, 32), Row(0, "a"))
    done = prepare(PrepareSettings(str(tmp_path / "aligned"), tmp_path / "y", workers=1, **NATIVE))  # type: ignore[arg-type]
    assert "holds pixels of 32×32" in done.table()


def test_native_crops_made_smaller_keep_what_is_known_of_them_and_lose_their_blocks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with ShardWriter(
        tmp_path / "native", None, attributes={"crop": {"policy": "face", "pixels": "native"}}
    ) as writer:
        for number, (height, width) in enumerate([(160, 200), (150, 150), (140, 180), (130, 130)]):
            image = cv2.resize(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8), (width, height))
            split = "test" if number == 3 else "train"
            row = Row(0, "x", split=split, group=f"g{number}", origin=f"{number}.png")
            writer.append(with_history(image, 40), row)
    options = {"source": str(tmp_path / "native"), "pixels": "native", "crop": "none", "workers": 1}
    made = prepare(PrepareSettings(out=tmp_path / "small", min_size=120, shrink=0.5, **options))
    before, after = ShardSet(tmp_path / "native"), ShardSet(tmp_path / "small")
    assert made.skipped == {"smaller than 142 pixels, to be shrunk": 1} and len(after) == 3
    assert np.array_equal(after.read(2), before.read(3))  # one to test on
    shares = after.shapes[:2] / before.shapes[:2]
    assert (shares <= 0.86).all() and (shares > 0.59).all() and len(np.unique(shares[:, 0])) == 2
    assert (after.shapes >= 120).all() and after.ids().tolist() == before.ids()[[0, 1, 3]].tolist()
    assert after.columns["group"].tolist() == ["g0", "g1", "g3"] and after.attributes["crop"] == {
        "policy": "face",
        "pixels": "native",
        "min_size": 120,
    }
    assert after.attributes["history"] == ["train and val shrunk to 0.5-0.85"]
    for row in range(2):
        assert blockiness(before.read(row))[2:].min() > 0.3 > blockiness(after.read(row))[2:].max()
    again = prepare(PrepareSettings(out=tmp_path / "again", min_size=120, shrink=0.5, **options))
    assert again.images == 3 and np.array_equal(ShardSet(tmp_path / "again").read(1), after.read(1))
    with pytest.raises(UserError, match="for native crops"):
        PrepareSettings(str(tmp_path), tmp_path / "y", shrink=0.5)
    with pytest.raises(UserError, match="shrink"):
        PrepareSettings(str(tmp_path), tmp_path / "y", pixels="native", shrink=0.9)
