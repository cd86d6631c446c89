"""Every published layout: its miniature is written, recognised, read, and read again without some of its files."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from crossfake.datasets.prepare import PrepareSettings, prepare
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources import SOURCES, Asked, Record, open_source, related
from crossfake.datasets.sources.faceforensics import components
from crossfake.errors import UserError

LAYOUTS = [
    name for name in SOURCES.names() if name not in ("folder", "shards", "toyfaces", "lfw", "olivetti")
]
NEEDED = {"faceforensics": "av", "celebdf": "av", "huggingface": "pyarrow"}


def _fixture(name: str, out: Path) -> Path:
    if name in NEEDED:
        pytest.importorskip(NEEDED[name])
    return SOURCES.get(name)().fixture(out)


def _read(where: Path, **options: str) -> tuple[list[Record], Asked]:
    asked = Asked(str(where), **options)
    return list(open_source(asked)), asked


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_miniature_is_recognised_and_prepared(name: str, tmp_path: Path) -> None:
    made = _fixture(name, tmp_path / "made")
    records, asked = _read(made)
    assert asked.layout == name and not asked.missing.counts or name in ("celebdf", "faceforensics")
    origins = [record.origin for record in records]
    assert len(set(origins)) == len(origins) and all(record.source for record in records)
    assert [r.origin for r in open_source(Asked(f"{name}:{made}"))] == origins  # named, and in the same order
    done = prepare(PrepareSettings(str(made), tmp_path / "out", size=16, crop="none", frames=3, workers=1))
    shards = ShardSet(tmp_path / "out")
    assert not done.skipped and len(shards) >= len(records)
    labels = {record.label for record in records} - {None}
    assert set(shards.columns["label"]) == (labels or {0})
    assert shards.has_masks == SOURCES.get(name).has_masks


@pytest.mark.parametrize("name", sorted(set(LAYOUTS) - {"zip", "manifest"}))
def test_a_layout_with_half_its_files_is_still_read(name: str, tmp_path: Path) -> None:
    made = _fixture(name, tmp_path)
    files = sorted(
        path for path in made.rglob("*") if path.is_file() and path.suffix not in (".json", ".txt", ".csv")
    )
    whole = len(_read(Path(made))[0])
    for path in files[1::2]:
        path.unlink()
    left = list(open_source(Asked(f"{name}:{made}")))
    assert 0 < len(left) < whole or name == "huggingface"


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_empty_folder_is_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        open_source(Asked(f"{name}:{tmp_path}"))
    with pytest.raises(UserError, match="not there"):
        open_source(Asked(f"{name}:{tmp_path / 'nowhere'}"))


def test_faceforensics_groups_and_splits(tmp_path: Path) -> None:
    records, asked = _read(_fixture("faceforensics", tmp_path))
    by_name = {record.origin: record for record in records}
    swap = by_name["manipulated_sequences/Deepfakes/c23/videos/071_054.mp4"]
    assert (swap.label, swap.generator, swap.split, swap.group) == (
        1,
        "Deepfakes",
        "train",
        "faceforensics:054",
    )
    assert str(swap.mask).endswith("Deepfakes/masks/videos/071_054.mp4")
    for name in ("071", "054"):  # a pair stands for both orders and both originals
        original = by_name[f"original_sequences/youtube/c23/videos/{name}.mp4"]
        assert (original.label, original.split, original.group) == (0, "train", swap.group)
    assert by_name["manipulated_sequences/FaceSwap/c23/videos/003_000.mp4"].split == "test"
    assert by_name["manipulated_sequences/FaceShifter/c23/videos/003_000.mp4"].mask is None
    actors = [record for record in records if "exit_phone_room" in record.origin]
    assert len(actors) == 3 and {record.group for record in actors} == {"faceforensics:actor01"}
    assert {record.split for record in actors} == {""}
    groups: dict[str, set[str]] = {}
    for record in records:
        groups.setdefault(record.group, set()).add(record.split)
    assert all(len(splits) == 1 for splits in groups.values()) and len(groups) == 5
    assert not asked.missing.counts


def test_faceforensics_says_what_is_missing(tmp_path: Path) -> None:
    made = _fixture("faceforensics", tmp_path)
    (made / "original_sequences/youtube/c23/videos/087.mp4").unlink()
    shutil.rmtree(made / "manipulated_sequences/NeuralTextures")
    shutil.move(made / "splits/val.json", made / "val.json")
    _, asked = _read(made)
    assert asked.missing.counts == {"sequence": 1, "original video of the official split": 1}
    assert any("087" in line for line in asked.missing.lines())
    with pytest.raises(UserError, match=r"8  missing: sequence in c40"):
        open_source(Asked(str(made), variant="c40"))
    with pytest.raises(UserError, match="choose one of c23"):
        open_source(Asked(str(made), variant="c99"))
    (made / "val.json").write_text("[[1")
    with pytest.raises(UserError, match="no list of pairs"):
        _read(made)


def test_connected_components() -> None:
    links = [("a", "b"), ("c", "d"), ("b", "c"), ("e",), ("g", "f")]
    assert components(links) == dict.fromkeys("abcd", "a") | {"e": "e", "f": "f", "g": "f"}


def test_openforensics_faces_share_their_photos_group(tmp_path: Path) -> None:
    records, asked = _read(_fixture("openforensics", tmp_path))
    assert Counter(record.split for record in records) == {"train": 4, "val": 4, "test": 8}
    first = [record for record in records if record.group == "openforensics:Train:0"]
    assert [record.label for record in first] == [0, 1] and first[0].box == (10, 20, 64, 64)
    assert isinstance(first[0].mask, tuple) and first[0].mask[0].shape == (4, 2)
    prepare(PrepareSettings(str(tmp_path), tmp_path / "out", size=32, crop="none", workers=1))
    shards = ShardSet(tmp_path / "out")
    assert shards.mask(0).shape == (32, 32) and shards.mask(0).mean() > 250  # cut to the marked face
    assert not np.array_equal(shards.read(0), shards.read(1))
    next((tmp_path / "Train").glob("*.jpg")).unlink()
    content = json.loads((tmp_path / "Val_poly.json").read_text())
    content["categories"].append({"id": 2, "name": "unknown"})
    content["annotations"][0]["category_id"] = 2
    (tmp_path / "Val_poly.json").write_text(json.dumps(content))
    (tmp_path / "Test-Dev_poly.json").unlink()
    records, asked = _read(tmp_path)
    assert len(records) == 16 - 2 - 1 - 4 and asked.missing.counts.total() == 3
    (tmp_path / "Val_poly.json").write_text('{"images": [{}]}')
    with pytest.raises(UserError, match="COCO"):
        _read(tmp_path)


def test_celebdf_reads_one_as_real(tmp_path: Path) -> None:
    made = _fixture("celebdf", tmp_path)
    records, asked = _read(made)
    test = {record.origin: record.label for record in records if record.split == "test"}
    assert test == {
        "Celeb-real/id2_0000.mp4": 0,
        "YouTube-real/00002.mp4": 0,
        "Celeb-synthesis/id2_id0_0000.mp4": 1,
    }
    assert len({record.group for record in records}) == 6 and not asked.missing.counts
    (made / "List_of_testing_videos.txt").write_text("0 Celeb-real/id2_0000.mp4\n1 YouTube-real/99999.mp4\n")
    _, asked = _read(made)
    assert asked.missing.counts.total() == 2
    (made / "List_of_testing_videos.txt").write_text("real Celeb-real/id2_0000.mp4\n")
    with pytest.raises(UserError, match="line 1"):
        _read(made)


def test_df40_shares_the_groups_of_its_sources(tmp_path: Path) -> None:
    records, _ = _read(_fixture("df40", tmp_path))
    groups = {record.origin: record.group for record in records}
    assert groups["DF40/simswap/ff/frames/000_003/000.png"] == "faceforensics:000"
    assert groups["DF40/simswap/cdf/frames/id0_id1_0000/001.png"] == "celebdf:id0_0000"
    assert groups["DF40/heygen/fake/frames/clip1/000.png"] == "df40:heygen/clip1"
    assert Counter(record.label for record in records) == {1: 9, 0: 1}
    assert {record.generator for record in records} == {"", "simswap", "sadtalker", "heygen"}


def test_forensynths_and_genimage_name_their_generators(tmp_path: Path) -> None:
    records, _ = _read(_fixture("forensynths", tmp_path / "a"))
    assert Counter((r.split, r.generator) for r in records if r.label) == {
        ("train", "progan"): 4,
        ("val", "progan"): 2,
        ("test", "progan"): 4,
        ("test", "biggan"): 2,
    }
    records, _ = _read(_fixture("genimage", tmp_path / "b"))
    assert {r.generator for r in records} == {"", "adm", "midjourney"}
    shared = [r for r in records if r.group == "imagenet:n01440764_0"]
    assert len(shared) == 2 and {r.label for r in shared} == {0}  # one photo under two generators


def test_celeba_knows_people_and_splits(tmp_path: Path) -> None:
    made = _fixture("celeba", tmp_path)
    records, asked = _read(made)
    assert [r.split for r in records] == ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    assert records[0].group == records[1].group == "celeba:2880" != records[2].group
    (made / "Anno").mkdir()
    shutil.move(made / "identity_CelebA.txt", made / "Anno")
    lines = (made / "list_eval_partition.txt").read_text().replace(" ", ",")
    (made / "list_eval_partition.csv").write_text("image_id,partition\n" + lines)  # as on Kaggle
    (made / "list_eval_partition.txt").unlink()
    (made / "img_align_celeba/000008.jpg").unlink()
    again, asked = _read(made)
    assert [(r.group, r.split) for r in again] == [(r.group, r.split) for r in records[:-1]]
    assert asked.missing.lines()[0].endswith("(1 of 8)")


def test_ffhq_has_its_authors_split(tmp_path: Path) -> None:
    records, _ = _read(_fixture("ffhq", tmp_path))
    assert [r.split for r in records] == ["train"] * 4 + ["val"] and {r.label for r in records} == {0}


def test_a_manifest_is_checked_line_by_line(tmp_path: Path) -> None:
    table = _fixture("manifest", tmp_path)
    records, asked = _read(table)
    assert [r.label for r in records] == [0, 1, 0, 1, 0, 1] and records[1].generator == "mygan"
    assert records[0].group == records[1].group == "p0" and records[0].split == "train"
    lines = [{"file": "pictures/0.png", "label": 1, "seed": 7}, {"file": "gone.png"}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    records, asked = _read(tmp_path / "list.jsonl")
    assert (records[0].label, records[0].seed) == (1, 7) and asked.missing.counts == {"file": 1}
    for bad, message in (
        ("file,label\npictures/0.png,maybe\n", "line 2: 'maybe' is no label"),
        ("file,split\npictures/0.png,later\n", "'later' is no split"),
        ("name\npictures/0.png\n", "line 2 names no file"),
    ):
        table.write_text(bad)
        with pytest.raises(UserError, match=message):
            _read(table)
    for bad in ('{"file": ', "[1]"):
        (tmp_path / "list.jsonl").write_text(bad)
        with pytest.raises(UserError, match="cannot be read"):
            _read(tmp_path / "list.jsonl")


def test_hugging_face_exports(tmp_path: Path) -> None:
    made = _fixture("huggingface", tmp_path)
    records, asked = _read(made)
    assert [r.label for r in records] == [0, 1] * 4 and records[1].generator == "mygan"
    assert Counter(r.split for r in records) == {"train": 4, "test": 4}
    parquet, _ = _read(made.parent / "parquet")
    assert [r.label for r in parquet] == [0, 1, 0, 1] and all(isinstance(r.image, bytes) for r in parquet)
    (made / "train" / "metadata.csv").write_text("file_name,label\nimages/0.png,cat\n")
    with pytest.raises(UserError, match="neither real nor fake"):
        _read(made)
    next((made.parent / "parquet" / "data").glob("*")).write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match="not a whole parquet file"):
        _read(made.parent / "parquet")


def test_kaggle_is_no_cross_data_set_test_of_openforensics(tmp_path: Path) -> None:
    records, _ = _read(_fixture("kaggle-deepfake-real", tmp_path))
    assert Counter((r.split, r.label) for r in records) == {
        (split, label): 3 for split in ("train", "val", "test") for label in (0, 1)
    }
    assert "made from openforensics" in related("openforensics", "kaggle-deepfake-real")
    assert related("df40", "celebdf") and related("df40", "df40") and not related("celeba", "df40")
    shutil.rmtree(tmp_path / "Dataset/Validation/Fake")
    asked = Asked(f"kaggle-deepfake-real:{tmp_path}")
    assert len(list(open_source(asked))) == 15
    assert asked.missing.lines() == ["       1  missing: folder (Validation/Fake)"]


def test_a_folder_like_two_data_sets_asks_which(tmp_path: Path) -> None:
    _fixture("ffhq", tmp_path)
    _fixture("celeba", tmp_path)
    with pytest.raises(UserError, match=f"write celeba:{tmp_path} or ffhq:{tmp_path}"):
        open_source(Asked(str(tmp_path)))


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    made = _fixture("hardfakevsrealfaces", tmp_path)
    os.rename(made / "real/real_0.jpg", os.fsencode(made / "real") + b"/\xff\xfe.jpg")
    done = prepare(PrepareSettings(str(made), tmp_path / "out", size=16, crop="none", workers=1))
    assert done.images == 8 and any("\udcff" in name for name in ShardSet(tmp_path / "out").columns["origin"])


def test_masks_of_videos_are_cut_like_their_frames(tmp_path: Path) -> None:
    made = _fixture("faceforensics", tmp_path / "made")
    prepare(PrepareSettings(str(made), tmp_path / "out", size=48, crop="none", frames=3, workers=1))
    shards = ShardSet(tmp_path / "out")
    for name, marked in (("Deepfakes", True), ("FaceShifter", False), ("", False)):
        rows = shards.select(generator=name)
        assert len(rows) and all((shards.mask(int(row)).max() > 200) == marked for row in rows)
    row = int(shards.select(generator="Deepfakes")[0])
    face = shards.mask(row) > 127  # the drawn face lies where the mask says: elsewhere the picture is grey
    assert np.abs(shards.read(row)[~face].astype(int) - 90).mean() < 12 < shards.read(row)[face].std()
