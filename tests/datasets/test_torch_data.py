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
