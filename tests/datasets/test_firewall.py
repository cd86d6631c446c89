import shutil
from pathlib import Path

import numpy as np
import pytest

from crossfake.datasets.firewall import (
    FILE,
    Seen,
    count_overlap,
    pixel_keys,
    refuse_overlap,
    refuse_unknown,
    seen_by_makers,
)
from crossfake.datasets.prepare import prepare
from crossfake.datasets.settings import PrepareSettings
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.datasets.types import Pixels
from crossfake.errors import UserError

SIZE = 8


def _images(count: int, seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 255, (count, SIZE, SIZE, 3), dtype=np.uint8)


def _shards(folder: Path, images: Pixels, prefix: str, codec: str = "raw", **facts: object) -> ShardSet:
    with ShardWriter(folder, SIZE, codec, attributes={}) as writer:
        for number, image in enumerate(images):
            row = {"label": 0, "source": "x", "split": "train", "origin": f"{number}.png"} | facts
            writer.append(image, Row(**row, group=f"{prefix}-{number}"))  # type: ignore[arg-type]
    return ShardSet(folder)


@pytest.fixture
def faces(tmp_path: Path) -> ShardSet:
    return _shards(tmp_path / "faces", _images(20, 0), "p")


def _all(shards: ShardSet) -> np.ndarray:
    return np.arange(len(shards))


def test_a_record_survives_the_folder_that_it_is_of(faces: ShardSet, tmp_path: Path) -> None:
    seen = Seen.of(faces, np.arange(10)) | Seen.of(faces, np.arange(10, 15), "validated on")
    (tmp_path / "model").mkdir()
    digest = seen.save(tmp_path / "model")
    copy = ShardSet(shutil.copytree(faces.path, tmp_path / "elsewhere"))
    shutil.rmtree(faces.path)
    found = Seen.load(tmp_path / "model")
    assert found is not None and found.digest == digest
    assert str(tmp_path).encode() not in (tmp_path / "model" / FILE).read_bytes()
    with pytest.raises(
        UserError, match=r"group 'p-3' of .*elsewhere was trained on, and so were 1 others: hint"
    ):
        refuse_overlap(found, [copy], [np.array([3, 4])], "hint")
    with pytest.raises(UserError, match=r"group 'p-12' of .*elsewhere was validated on: hint"):
        refuse_overlap(found, [copy], [np.array([12])], "hint")
    refuse_overlap(found, [copy], [np.arange(15, 20)], "hint")
    refuse_overlap(found.only("trained on"), [copy], [np.array([12])], "hint")
    assert count_overlap(found, copy, _all(copy)) == (15, 0)


@pytest.mark.parametrize("codec", ["raw", "webp"])
def test_pixels_are_known_under_any_group_and_codec(faces: ShardSet, tmp_path: Path, codec: str) -> None:
    twins = _shards(tmp_path / "twins", _images(20, 0)[5:], "other", codec)
    seen = Seen.of(faces, np.arange(7))
    assert np.array_equal(pixel_keys(faces, np.arange(5, 20)), pixel_keys(twins, _all(twins)))
    assert count_overlap(seen, twins, _all(twins)) == (0, 2)
    with pytest.raises(UserError, match=r"image 0 of .*twins was trained on: it is image 5 of .*faces"):
        refuse_overlap(seen, [twins], [_all(twins)], "hint")
    refuse_overlap(seen, [twins], [np.arange(2, 15)], "hint")


def test_equal_checksums_alone_are_chance(faces: ShardSet, tmp_path: Path) -> None:
    others = _shards(tmp_path / "others", _images(20, 1), "other")
    others.columns["crc32"] = faces.columns["crc32"]
    assert count_overlap(Seen.of(faces, _all(faces)), others, _all(others)) == (0, 0)


def test_groups_of_before_and_after_a_split_are_both_known(faces: ShardSet, tmp_path: Path) -> None:
    """``data split`` gives rows that belong together the least of their names."""
    before = Seen.of(faces, np.array([7]))
    others = _shards(tmp_path / "others", _images(20, 1), "q")
    lines = ["origin,group,split", *(f"{n}.png,{'p-7' if n == 2 else f'q-{n}'},train" for n in range(20))]
    (others.path / "splits.csv").write_text("\n".join(lines) + "\n")
    split = ShardSet(others.path)
    assert count_overlap(before, split, _all(split)) == (1, 0)
    assert count_overlap(Seen.of(split, np.array([2])), others, np.array([2])) == (1, 0)  # by the name it had


def test_rows_without_a_group_share_none(tmp_path: Path) -> None:
    one, other = (tmp_path / name for name in ("one", "other"))
    for folder, seed in ((one, 0), (other, 1)):
        with ShardWriter(folder, SIZE, attributes={}) as writer:
            writer.extend(_images(3, seed), [Row(0, "x")] * 3)
    sets = ShardSet(one), ShardSet(other)
    assert count_overlap(Seen.of(sets[0], np.arange(3)), sets[1], np.arange(3)) == (0, 0)


def test_fakes_carry_what_their_generator_learned_from(faces: ShardSet, tmp_path: Path) -> None:
    facts = {"label": 1, "source": "synth", "generator": "gan:1"}
    fakes = _shards(tmp_path / "fakes", _images(5, 2), "z", **facts)
    unknown = seen_by_makers(fakes)
    assert "what their generator learned from is unknown" in unknown.unknown[0]
    with pytest.raises(UserError, match="holds own fakes"):
        refuse_unknown(unknown, force=False, hint="x")
    (note,) = refuse_unknown(unknown, force=True, hint="x")
    assert note.endswith("overlap with it is unchecked")
    Seen.of(faces, np.arange(10)).save(fakes.path)
    with pytest.raises(UserError, match=r"group 'p-1' of .*faces was trained on by generator gan:1: hint"):
        refuse_overlap(seen_by_makers(fakes), [faces], [np.array([1])], "hint")
    again = tmp_path / "again"
    prepare(PrepareSettings(str(fakes.path), again, SIZE, "none", workers=1))
    assert seen_by_makers(ShardSet(again)).digest == seen_by_makers(fakes).digest
    published = _shards(tmp_path / "published", _images(5, 3), "y", label=1, source="kaggle", generator="x")
    assert seen_by_makers(published) == Seen()


def test_a_record_of_other_shards_or_a_damaged_one_is_one_line(faces: ShardSet, tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "fakes", SIZE, attributes={"seen": "of another"}) as writer:
        writer.append(_images(1, 0)[0], Row(1, "synth", "gan:1"))
    fakes = ShardSet(tmp_path / "fakes")
    Seen.of(faces, np.arange(2)).save(fakes.path)
    with pytest.raises(UserError, match="is not of these shards"):
        seen_by_makers(fakes)
    file = fakes.path / FILE
    for content in (b"", b"x" * 100, file.read_bytes()[:-40]):
        file.write_bytes(content)
        with pytest.raises(UserError, match=f"{FILE} is damaged"):
            Seen.load(fakes.path)


def test_union_counts_the_same_rows_once(faces: ShardSet) -> None:
    one, two = Seen.of(faces, np.arange(3)), Seen.of(faces, np.arange(3, 6))
    assert (one | one).digest == one.digest and len((one | two | one).blocks) == 2
    both = Seen(by_name=("ffhq",)) | Seen(by_name=("ffhq", "sd"), unknown=("y",))
    assert both.by_name == ("ffhq", "sd") and both.unknown == ("y",)
    assert Seen.of(faces, np.empty(0, np.int64)) == Seen()


@pytest.mark.parametrize("codec", ["raw", "webp"])
def test_native_rows_are_known_by_their_pixels(codec: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (40 + k, 50 - k, 3), dtype=np.uint8) for k in range(6)]
    for name, chosen in (("one", images[:4]), ("other", images[3:])):
        with ShardWriter(tmp_path / name, codec="raw" if name == "one" else codec) as writer:
            for k, image in enumerate(chosen):
                writer.append(image, Row(0, name, group=f"{name} {k}", origin=str(k)))
    one, other = ShardSet(tmp_path / "one"), ShardSet(tmp_path / "other")
    assert count_overlap(Seen.of(one, np.arange(4)), other, np.arange(3)) == (0, 1)
    turned = images[0].reshape(50, 40, 3)  # the same bytes, so the same checksum, of another picture
    with ShardWriter(tmp_path / "turned") as writer:
        writer.append(turned, Row(0, "turned", group="t"))
    assert count_overlap(Seen.of(one, np.arange(4)), ShardSet(tmp_path / "turned"), np.arange(1)) == (0, 0)
