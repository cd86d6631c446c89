import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from crossfake.datasets import fingerprints as module
from crossfake.datasets.fingerprints import CACHE, distance, fingerprint, fingerprints, near_pairs
from crossfake.datasets.settings import RADIUS
from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.datasets.toyfaces import toyface


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def test_copies_are_near_and_other_faces_are_not() -> None:
    faces = [toyface(number, 128) for number in range(40)]
    codes = np.stack([fingerprint(face) for face in faces])
    assert codes.dtype == np.uint64 and codes.shape == (40, 4)
    for face, code in zip(faces, codes, strict=True):
        picture = Image.fromarray(face)
        copies = [
            _jpeg(face, 30),
            np.asarray(picture.resize((70, 70))),
            np.asarray(picture.resize((200, 200), Image.Resampling.BICUBIC)),
            np.asarray(ImageEnhance.Brightness(picture).enhance(0.9)),
        ]
        assert max(int(distance(code, fingerprint(copy))) for copy in copies) <= RADIUS
    apart = distance(codes[:, None], codes[None])[np.triu_indices(40, 1)]
    assert apart.min() > RADIUS


@pytest.mark.parametrize("radius", [0, 3, 15])
@pytest.mark.parametrize("skewed", [False, True])
def test_the_index_finds_all_pairs_that_brute_force_finds(
    radius: int, skewed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK", 50)
    rng = np.random.default_rng(0)
    share = (
        np.where(np.arange(256) % 2, 0.02, 0.5) if skewed else 0.5
    )  # bits of like pictures are not balanced
    bits = rng.random((300, 256)) < share
    for copy in range(100):  # half of the rest are copies with a few bits flipped
        bits = np.concatenate([bits, bits[copy][None]])
        bits[-1, rng.choice(256, copy % 25, replace=False)] ^= True
    codes = np.packbits(bits, axis=1).view(np.uint64)
    near = distance(codes[:, None], codes[None]) <= radius
    expected = {(int(i), int(j)) for i, j in zip(*np.nonzero(near), strict=True) if i < j}
    assert {tuple(pair) for pair in near_pairs(codes, radius).tolist()} == expected and len(expected) > 3


def test_few_pairs_just_within_the_radius_are_missed() -> None:
    rng = np.random.default_rng(1)
    bits = rng.random((1000, 256)) < 0.5
    flipped = bits.copy()
    for row in flipped:
        row[rng.choice(256, 32, replace=False)] ^= True
    codes = np.packbits(np.concatenate([bits, flipped]), axis=1).view(np.uint64)
    assert 850 <= len(near_pairs(codes, 32)) <= 1000


def test_many_equal_rows_are_a_chain() -> None:
    codes = np.zeros((5000, 4), np.uint64)
    pairs = near_pairs(codes, 5)
    assert len(pairs) == 4999 and len(np.unique(pairs)) == 5000
    assert near_pairs(codes[:1]).shape == near_pairs(codes[:0]).shape == (0, 2)


def test_fingerprints_are_kept_until_the_shards_change(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(count: int) -> ShardSet:
        with ShardWriter(tmp_path, 32) as writer:
            for number in range(writer.rows_done, count):
                writer.append(toyface(number, 32), Row(0, "s", origin=str(number)))
        return ShardSet(tmp_path)

    first = fingerprints(write(4))
    assert np.array_equal(first[2], fingerprint(toyface(2, 32))) and (tmp_path / CACHE).exists()
    monkeypatch.setattr(module, "fingerprint", lambda image: pytest.fail("computed twice"))
    assert np.array_equal(fingerprints(ShardSet(tmp_path)), first)
    monkeypatch.undo()
    assert len(fingerprints(write(6))) == 6
    (tmp_path / CACHE).write_bytes(b"damaged")
    assert np.array_equal(fingerprints(ShardSet(tmp_path))[:4], first)
    monkeypatch.setattr(module, "_ROWS", 1)
    (tmp_path / CACHE).unlink()
    assert np.array_equal(fingerprints(ShardSet(tmp_path), workers=2)[:4], first)
