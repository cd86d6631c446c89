"""Every published layout: its miniature is written, recognised, read, and read again without some of its files."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from crossfake.datasets.prepare import prepare
from crossfake.datasets.settings import PrepareSettings
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.sources.base import SOURCES, Record, Rejected, SourceSpec, open_source, related
from crossfake.datasets.sources.faceforensics import components
from crossfake.datasets.sources.faceforensics_pairs import PAIRS
from crossfake.datasets.sources.fixtures import mask_video, write_face, write_json
from crossfake.errors import UserError

LAYOUTS = [
    name
    for name in SOURCES.names()
    if name not in ("folder", "shards", "toyfaces", "lfw", "olivetti", "objects")
]
NEEDED = {"faceforensics": "av", "celebdf": "av", "dfdc": "av", "huggingface": "pyarrow"}


def _fixture(name: str, out: Path) -> Path:
    if name in NEEDED:
        pytest.importorskip(NEEDED[name])
    return SOURCES.get(name)().fixture(out)


def _read(where: Path, **options: str) -> tuple[list[Record], SourceSpec]:
    spec = SourceSpec(str(where), **options)
    return list(open_source(spec)), spec


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_miniature_is_recognised_and_prepared(name: str, tmp_path: Path) -> None:
    made = _fixture(name, tmp_path / "made")
    records, spec = _read(made)
    assert spec.layout == name and not spec.missing.counts or name in ("celebdf", "faceforensics")
    origins = [record.origin for record in records]
    assert len(set(origins)) == len(origins) and all(record.source for record in records)
    assert [
        r.origin for r in open_source(SourceSpec(f"{name}:{made}"))
    ] == origins  # named, and in the same order
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
    left = list(open_source(SourceSpec(f"{name}:{made}")))
    assert 0 < len(left) < whole or name == "huggingface"


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_empty_folder_is_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        open_source(SourceSpec(f"{name}:{tmp_path}"))
    with pytest.raises(UserError, match="not there"):
        open_source(SourceSpec(f"{name}:{tmp_path / 'nowhere'}"))


def test_faceforensics_groups_and_splits(tmp_path: Path) -> None:
    records, spec = _read(_fixture("faceforensics", tmp_path))
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
    assert not spec.missing.counts


def test_faceforensics_says_what_is_missing(tmp_path: Path) -> None:
    made = _fixture("faceforensics", tmp_path)
    (made / "original_sequences/youtube/c23/videos/087.mp4").unlink()
    shutil.rmtree(made / "manipulated_sequences/NeuralTextures")
    shutil.move(made / "splits/val.json", made / "val.json")
    _, spec = _read(made)
    assert spec.missing.counts == {"sequence": 1, "original video of the official split": 1}
    assert any("087" in line for line in spec.missing.lines())
    with pytest.raises(UserError, match=r"8  missing: sequence in c40"):
        open_source(SourceSpec(str(made), variant="c40"))
    with pytest.raises(UserError, match="choose one of c23"):
        open_source(SourceSpec(str(made), variant="c99"))
    (made / "val.json").write_text("[[1")
    with pytest.raises(UserError, match="no list of pairs"):
        _read(made)


def test_connected_components() -> None:
    links = [("a", "b"), ("c", "d"), ("b", "c"), ("e",), ("g", "f")]
    assert components(links) == dict.fromkeys("abcd", "a") | {"e": "e", "f": "f", "g": "f"}


def test_openforensics_faces_share_their_photos_group(tmp_path: Path) -> None:
    records, spec = _read(_fixture("openforensics", tmp_path))
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
    records, spec = _read(tmp_path)
    assert len(records) == 16 - 2 - 1 - 4 and spec.missing.counts.total() == 3
    (tmp_path / "Val_poly.json").write_text('{"images": [{}]}')
    with pytest.raises(UserError, match="COCO"):
        _read(tmp_path)


def test_celebdf_reads_one_as_real(tmp_path: Path) -> None:
    made = _fixture("celebdf", tmp_path)
    records, spec = _read(made)
    test = {record.origin: record.label for record in records if record.split == "test"}
    assert test == {
        "Celeb-real/id2_0000.mp4": 0,
        "YouTube-real/00002.mp4": 0,
        "Celeb-synthesis/id2_id0_0000.mp4": 1,
    }
    assert len({record.group for record in records}) == 6 and not spec.missing.counts
    (made / "List_of_testing_videos.txt").write_text("0 Celeb-real/id2_0000.mp4\n1 YouTube-real/99999.mp4\n")
    _, spec = _read(made)
    assert spec.missing.counts.total() == 2
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
    records, spec = _read(made)
    assert [r.split for r in records] == ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    assert records[0].group == records[1].group == "celeba:2880" != records[2].group
    (made / "Anno").mkdir()
    shutil.move(made / "identity_CelebA.txt", made / "Anno")
    lines = (made / "list_eval_partition.txt").read_text().replace(" ", ",")
    (made / "list_eval_partition.csv").write_text("image_id,partition\n" + lines)  # as on Kaggle
    (made / "list_eval_partition.txt").unlink()
    (made / "img_align_celeba/000008.jpg").unlink()
    again, spec = _read(made)
    assert [(r.group, r.split) for r in again] == [(r.group, r.split) for r in records[:-1]]
    assert spec.missing.lines()[0].endswith("(1 of 8)")


def test_ffhq_has_its_authors_split(tmp_path: Path) -> None:
    records, _ = _read(_fixture("ffhq", tmp_path))
    assert [r.split for r in records] == ["train"] * 4 + ["val"] and {r.label for r in records} == {0}


def test_a_manifest_is_checked_line_by_line(tmp_path: Path) -> None:
    table = _fixture("manifest", tmp_path)
    records, spec = _read(table)
    assert [r.label for r in records] == [0, 1, 0, 1, 0, 1] and records[1].generator == "mygan"
    assert records[0].group == records[1].group == f"{records[0].source}:p0" and records[0].split == "train"
    lines = [{"file": "pictures/0.png", "label": 1, "seed": 7}, {"file": "gone.png"}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    lines += [{"file": "pictures/0.png", "seed": 1 << 70, "group": "imagenet:n1"}, {"file": "x" * 300}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    records, spec = _read(tmp_path / "list.jsonl")
    assert [r.origin for r in records] == ["pictures/0.png", "pictures/0.png:3"]
    assert (records[1].seed, records[1].group) == (-1, "imagenet:n1")
    spec.missing.counts["file"] -= 1
    assert (records[0].label, records[0].seed) == (1, 7) and spec.missing.counts == {"file": 1}
    for bad, message in (
        ("file,label\npictures/0.png,maybe\n", "line 2: 'maybe' says neither real nor fake"),
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
    records, spec = _read(made)
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


def test_hugging_face_labels_of_all_sorts(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def read(column: str, values: list[object], names: list[str] | None = None) -> list[tuple[object, ...]]:
        file = tmp_path / "default" / "train" / "0000.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        table = pyarrow.table({"image": [{"bytes": b"x", "path": ""}] * len(values), column: values})
        if names:
            features = {column: {"names": names, "_type": "ClassLabel"}}
            table = table.replace_schema_metadata(
                {"huggingface": json.dumps({"info": {"features": features}})}
            )
        parquet.write_table(table, file)
        records, _ = _read(tmp_path)
        assert {r.split for r in records} == {"train"}
        return [(r.label, r.generator, isinstance(r.image, Rejected)) for r in records]

    real, fake, none = (0, "", False), (1, "", False), (None, "", True)
    assert read("label", [0, 1, -1, None]) == [real, fake, none, none]
    assert read("label", [1, 0, -1], ["fake", "real"]) == [real, fake, none]
    assert read("label", [0.0, 1.0, None]) == [real, fake, none]
    assert read("is_fake", [False, True]) == [real, fake]
    assert read("is_real", [False, True]) == [fake, real]
    assert read("label", [2, 0, 1], ["sd", "mj", "real"]) == [real, (1, "sd", False), (1, "mj", False)]
    with pytest.raises(UserError, match="'2' says neither"):
        read("label", [2])
    with pytest.raises(UserError, match="'cat' says neither"):
        read("label", [0], ["cat", "dog"])
    parquet.write_table(pyarrow.table({"image": [["a"], ["b"]]}), tmp_path / "default/train/0000.parquet")
    assert all(isinstance(record.image, Rejected) for record in _read(tmp_path)[0])


def test_hugging_face_metadata_in_the_root_and_tables_beside_pictures(tmp_path: Path) -> None:
    for number in range(2):
        write_face(tmp_path / "train" / f"{number}.png", number)
    (tmp_path / "metadata.csv").write_text(
        "file_name,label\ntrain/0.png,real\ntrain/1.png,fake\nx.png,real\n"
    )
    records, spec = _read(tmp_path)
    assert [(r.label, r.split) for r in records] == [(0, "train"), (1, "train")]
    assert spec.missing.counts.total() == 1
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "features.parquet").write_bytes(b"a table of somebody's own")
    assert SourceSpec(str(tmp_path)).layout == "folder"


def test_frames_that_somebody_took_out_of_the_videos(tmp_path: Path) -> None:
    write_json(tmp_path / "ff" / "train.json", [["000", "003"]])
    for folder in (
        "original_sequences/youtube/c23/frames/000",
        "manipulated_sequences/Deepfakes/c23/frames/000_003",
        "manipulated_sequences/Deepfakes/c23/frames/003_005",
        "manipulated_sequences/Deepfakes/masks/frames/000_003",
    ):
        write_face(tmp_path / "ff" / folder / "0001.png", 1)
    records, _ = _read(tmp_path / "ff")
    assert [(r.label, r.group, r.split) for r in records] == [
        (0, "faceforensics:000", "train"),
        (1, "faceforensics:000", "train"),
        (1, "faceforensics:000", "train"),  # 005 is on no list, but its other face is
    ]
    assert records[1].mask and not records[2].mask
    (tmp_path / "cdf").mkdir()
    (tmp_path / "cdf" / "List_of_testing_videos.txt").write_text("1 Celeb-real/id0_0000.mp4\n")
    for folder in ("Celeb-real/frames/id0_0000", "Celeb-synthesis/id0_id1_0000"):
        for frame in range(2):
            write_face(tmp_path / "cdf" / folder / f"{frame:03d}.png", frame)
    records, spec = _read(tmp_path / "cdf")
    assert [(r.label, r.split) for r in records] == [(0, "test")] * 2 + [(1, "train")] * 2
    assert {r.group for r in records} == {"celebdf:id0_0000"} and "Celeb-synthesis" not in str(spec.missing)


def test_df40_frames_loose_and_names_that_are_no_ids(tmp_path: Path) -> None:
    for name in ("m/ff/1234.png", "m/ff/frames/clip_0001/0.png", "m/ff/frames/000_003/0.png", "m/cdf/9.png"):
        write_face(tmp_path / "DF40" / name, 1)
    groups = {r.origin.removeprefix("DF40/m/"): r.group for r in _read(tmp_path)[0]}
    assert groups == {
        "ff/1234.png": "",
        "cdf/9.png": "",
        "ff/frames/clip_0001/0.png": "df40:m/clip_0001",
        "ff/frames/000_003/0.png": "faceforensics:000",
    }


def test_forensynths_below_another_folder(tmp_path: Path) -> None:
    for name in ("CNN_synth/progan_train/cat", "CNN_synth/test/stargan", "CNN_synth/test/progan/cat"):
        for kind in ("0_real", "1_fake"):
            write_face(tmp_path / name / kind / "0.png", 1)
    facts = {(r.split, r.generator) for r in _read(Path(tmp_path))[0] if r.label}
    assert facts == {("train", "progan"), ("test", "stargan"), ("test", "progan")}


def test_names_like_a_published_set_are_not_enough(tmp_path: Path) -> None:
    for split in ("Train", "Validation", "Test"):
        for kind in ("Real", "Fake"):
            write_face(tmp_path / "mine" / split / kind / "holiday.jpg", 1)
    assert SourceSpec(str(tmp_path / "mine")).layout == "folder"
    records, _ = _read(tmp_path / "mine")  # its own folders say it all the same
    assert Counter((r.split, r.label) for r in records) == {
        (s, k): 1 for s in ("train", "val", "test") for k in (0, 1)
    }
    for kind in ("real", "fake"):
        write_face(tmp_path / "other" / kind / "a.jpg", 1)
    (tmp_path / "other" / "data.csv").write_text("day,steps\n")
    assert SourceSpec(str(tmp_path / "other")).layout == "folder"


def test_kaggle_is_no_cross_data_set_test_of_openforensics(tmp_path: Path) -> None:
    records, _ = _read(_fixture("kaggle-deepfake-real", tmp_path))
    assert Counter((r.split, r.label) for r in records) == {
        (split, label): 3 for split in ("train", "val", "test") for label in (0, 1)
    }
    assert "made from openforensics" in related("openforensics", "kaggle-deepfake-real")
    assert related("df40", "celebdf") and related("df40", "df40") and not related("celeba", "df40")
    shutil.rmtree(tmp_path / "Dataset/Validation/Fake")
    spec = SourceSpec(f"kaggle-deepfake-real:{tmp_path}")
    assert len(list(open_source(spec))) == 15
    assert spec.missing.lines() == ["       1  missing: folder (Validation/Fake)"]


def test_a_folder_like_two_data_sets_asks_which(tmp_path: Path) -> None:
    _fixture("ffhq", tmp_path)
    _fixture("celeba", tmp_path)
    with pytest.raises(UserError, match=f"write celeba:{tmp_path} or ffhq:{tmp_path}"):
        open_source(SourceSpec(str(tmp_path)))


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


def test_frames_beyond_a_masks_end_are_left_out(tmp_path: Path) -> None:
    made = _fixture("faceforensics", tmp_path / "made")
    masks = made / "manipulated_sequences/Deepfakes/masks/videos"
    mask_video(masks / "071_054.mp4", frames=6)
    (masks / "054_071.mp4").write_bytes(b"no video")
    prepare(PrepareSettings(str(made), tmp_path / "out", size=48, crop="none", frames=4, workers=1))
    shards = ShardSet(tmp_path / "out")
    rows = [row for row in shards.select(generator="Deepfakes") if "071_054" in shards.columns["origin"][row]]
    assert [shards.columns["origin"][row][-3:] for row in rows] == ["001", "004"]
    assert all(shards.mask(int(row)).max() > 200 for row in rows)
    listed = (tmp_path / "out" / "skipped.csv").read_text()
    assert listed.count("071_054.mp4#frame") == 2 and "no mask" in listed and "its mask's video: " in listed


@pytest.mark.parametrize("first", ["df40", "faceforensics"])
def test_a_video_that_df40_names_by_one_id_is_where_faceforensics_has_it(first: str, tmp_path: Path) -> None:
    """Also where nothing on the disk links the two: one was swapped with the other, whoever says so."""
    assert len(PAIRS) == 500 and sorted(sum(PAIRS, ())) == [f"{number:03d}" for number in range(1000)]
    write_face(tmp_path / "df40" / "sd2.1" / "ff" / "frames" / "003" / "0.png", 1)
    write_face(tmp_path / "faceforensics" / "original_sequences/youtube/c23/frames/000/0.png", 2)
    write_face(tmp_path / "faceforensics" / "manipulated_sequences/Deepfakes/c23/frames/003_000/0.png", 3)
    if first == "df40":
        shutil.rmtree(tmp_path / "faceforensics" / "manipulated_sequences")
    groups = {record.group for name in ("df40", "faceforensics") for record in _read(tmp_path / name)[0]}
    assert groups == {"faceforensics:000"}


def test_faceforensics_reads_one_compression_for_all(tmp_path: Path) -> None:
    youtube, fakes = "original_sequences/youtube", "manipulated_sequences/Deepfakes"
    for name in (f"{youtube}/c23/frames/000", f"{fakes}/c40/frames/000_003"):
        write_face(tmp_path / name / "0.png", 1)
    with pytest.raises(
        UserError, match=r"no version in common \(youtube in c23; Deepfakes in c40\).*--variant c23 or c40"
    ):
        _read(tmp_path)
    records, spec = _read(tmp_path, variant="c40")
    assert [record.label for record in records] == [1] and "sequence in c40" in spec.missing.counts
    write_face(tmp_path / youtube / "c40/frames/000/0.png", 1)
    records, spec = _read(tmp_path)
    assert all("/c40/" in record.origin for record in records) and {r.label for r in records} == {0, 1}
    assert spec.notes == ["read in c40, the version that all sequences have"]


def test_deepfakedetection_alone_is_one_group_and_says_so(tmp_path: Path) -> None:
    for name in (
        "original_sequences/actors/c23/frames/{}__walk",
        "manipulated_sequences/DeepFakeDetection/c23/frames/{}_02__walk__X",
    ):
        for actor in ("01", "03"):
            write_face(tmp_path / "dfd" / name.format(actor) / "0.png", int(actor))
    done = prepare(PrepareSettings(str(tmp_path / "dfd"), tmp_path / "out", size=16, crop="none", workers=1))
    assert "all 4 files of theirs are one group, on one side of any split" in done.table()
    (split,) = set(ShardSet(tmp_path / "out").columns["split"])
    assert (
        f"all 4 images are one group (faceforensics:actor01) that must not be torn apart: all are in {split}"
        in done.table()
    )
