from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row
from crossfake.datasets.torch_data import ShardDataset
from crossfake.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)


def _folder(path: Path, label: int = 0, size: int = 8, codec: str = "raw") -> Path:
    with ShardWriter(path, size, codec, shard_rows=12) as writer:
        for number, image in enumerate(IMAGES):
            image = image if size == 8 else np.zeros((size, size, 3), np.uint8)
            writer.append(
                image, Row(label, path.name, split="val" if number < 5 else "train", group=f"{number}")
            )
    return path


@pytest.mark.parametrize("codec", ["raw", "webp"])
def test_items_and_batches_are_the_stored_pixels(codec: str, tmp_path: Path) -> None:
    data = ShardDataset(
        [_folder(tmp_path / "a", codec=codec), _folder(tmp_path / "b", 1, codec=codec)], split="train"
    )
    assert len(data) == 30 and data.size == 8
    image, label, position = data[16]
    assert (label, position) == (1, 16) and image.dtype == torch.uint8
    assert np.array_equal(image.permute(1, 2, 0).numpy(), IMAGES[6])
    batch = data.batch([0, 29, 3])
    assert batch.shape == (3, 3, 8, 8) and batch.is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(batch.permute(0, 2, 3, 1).numpy(), IMAGES[[5, 19, 8]])
    assert data.column("source").tolist() == ["a"] * 15 + ["b"] * 15


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_the_same(method: str, tmp_path: Path) -> None:
    data = ShardDataset(_folder(tmp_path / "a"))
    data[0]  # an open handle must not reach the workers
    loader = DataLoader(data, batch_size=6, num_workers=2, multiprocessing_context=method)
    images = torch.cat([images for images, _, _ in loader])
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), IMAGES)


def test_label_and_split_filter(tmp_path: Path) -> None:
    folders = [_folder(tmp_path / "a"), _folder(tmp_path / "b", 1)]
    assert len(ShardDataset(folders, split="val", label=1)) == 5
    assert set(ShardDataset(folders, label=0).column("label").tolist()) == {0}


def test_what_cannot_be_one_data_set_is_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "a")
    with pytest.raises(UserError, match="no split 'test' images"):
        ShardDataset(folder, split="test")
    with pytest.raises(UserError, match="images of one size"):
        ShardDataset([folder, _folder(tmp_path / "large", size=16)])


def _native(path: Path, sides: list[int], label: int = 0, codec: str = "raw") -> Path:
    rng = np.random.default_rng(0)
    with ShardWriter(path, codec=codec) as writer:
        for side in sides:
            image = rng.integers(0, 256, (side, side + 4, 3), dtype=np.uint8)
            writer.append(image, Row(label, path.name, split="train"))
    return path


@pytest.mark.parametrize("codec", ["raw", "webp"])
def test_windows_lie_at_random_places_of_native_rows(codec: str, tmp_path: Path) -> None:
    folders = [_native(tmp_path / "a", [16, 30, 20], codec=codec), _native(tmp_path / "b", [40], 1, codec)]
    data = ShardDataset(folders, split="train", window=16, seed=3)
    first = data.batch(range(4))
    assert data.size == 16 and first.shape == (4, 3, 16, 16)
    assert torch.equal(first, ShardDataset(folders, split="train", window=16, seed=3).batch(range(4)))
    assert torch.equal(first[2], data[2][0])
    rows = [shards.read(k) for shards, found in data.rows() for k in found]
    for window, row in zip(first.permute(0, 2, 3, 1).numpy(), rows, strict=True):
        views = np.lib.stride_tricks.sliding_window_view(row, (16, 16), (0, 1)).transpose(0, 1, 3, 4, 2)
        assert (views == window).all((2, 3, 4)).sum() == 1
    data.set_epoch(1)
    assert not torch.equal(first, data.batch(range(4)))
    assert not torch.equal(first, ShardDataset(folders, window=16, seed=4).batch(range(4)))


def test_workers_that_live_on_see_the_epoch(tmp_path: Path) -> None:
    data = ShardDataset(_native(tmp_path / "a", [40] * 4), window=16)
    loader = DataLoader(data, batch_size=4, num_workers=1, persistent_workers=True)
    for epoch in (0, 1):
        data.set_epoch(epoch)
        assert torch.equal(next(iter(loader))[0], data.batch(range(4)))


def test_what_has_no_window_is_one_line(tmp_path: Path) -> None:
    native = _native(tmp_path / "a", [12, 16, 15])
    with pytest.raises(UserError, match=r"2 images of .*a are smaller than 16"):
        ShardDataset(native, window=16)
    with pytest.raises(UserError, match=r"1 image of .*a is smaller than 13"):
        ShardDataset(native, window=13)
    with pytest.raises(UserError, match="windows are of native ones"):
        ShardDataset([native, _folder(tmp_path / "b")], window=8)
    with pytest.raises(UserError, match="images of one size are needed"):
        ShardDataset(native)
