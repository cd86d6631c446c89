import io

import numpy as np
import torch
from PIL import Image

from crossfake.detect.augmentation import augment, jpeg


def _images(count: int = 16, size: int = 32) -> torch.Tensor:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def test_the_same_generator_gives_the_same_batch_and_leaves_its_input_alone() -> None:
    images = _images()
    before = images.clone()
    first, second = (augment(images, 0.5, np.random.default_rng(7)) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(images, before)
    assert first.dtype == torch.uint8 and first.shape == images.shape
    assert not torch.equal(first, augment(images, 0.5, np.random.default_rng(8)))


def test_probability_zero_only_mirrors() -> None:
    images = _images()
    for before, after in zip(images, augment(images, 0.0, np.random.default_rng(0)), strict=True):
        assert torch.equal(after, before) or torch.equal(after, before.flip(2))


def test_probability_one_changes_every_image_and_blurs() -> None:
    images = _images(64)
    after = augment(images, 1.0, np.random.default_rng(0))
    assert all(
        not torch.equal(a, b) and not torch.equal(a, b.flip(2)) for a, b in zip(images, after, strict=True)
    )
    roughness = [x.float().diff(dim=3).abs().mean() for x in (images, after)]
    assert roughness[1] < 0.8 * roughness[0]


def test_jpeg_is_a_real_jpeg() -> None:
    image = _images(1)[0]
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=60)
    ours, pillows = jpeg(image, 60), np.asarray(Image.open(buffer)).transpose(2, 0, 1)
    assert np.array_equal(ours.numpy(), pillows)
    errors = [(jpeg(image, q).float() - image.float()).abs().mean() for q in (30, 60, 95)]
    assert errors[0] > errors[1] > errors[2]
