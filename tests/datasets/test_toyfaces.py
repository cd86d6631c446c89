import numpy as np
import pytest

from crossfake.datasets.toyfaces import toyface


@pytest.mark.parametrize("size", [16, 32, 100])
def test_any_size_and_the_same_for_the_same_seed(size: int) -> None:
    face = toyface((3, 1), size)
    assert face.shape == (size, size, 3) and face.dtype == np.uint8
    assert np.array_equal(face, toyface((3, 1), size))


def test_faces_vary_in_colour_and_shape() -> None:
    faces = np.stack([toyface((0, n), 32) for n in range(100)]).astype(float)
    assert len(np.unique(faces.reshape(100, -1), axis=0)) == 100
    assert faces.std(axis=0).min() > 15  # no pixel is the same in all
    assert faces.std(axis=(1, 2, 3)).min() > 15  # and none is flat
    assert np.ptp(faces.mean(axis=(1, 2)), axis=0).min() > 60
