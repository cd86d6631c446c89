from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossfake.errors import UserError
from crossfake.synth.sampling.interpolation import frames, interpolate, slerp
from crossfake.synth.sampling.latents import render, styled, styles_of, synthesise, vectors_of
from crossfake.synth.sampling.models import Model, load_model


@pytest.fixture
def model(trained: Callable[[str], Path]) -> Model:
    return load_model(trained("stylegan2"), device="cpu")


def test_slerp_stays_on_the_sphere() -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 50)).astype(np.float32)
    b *= np.linalg.norm(a) / np.linalg.norm(b)
    path = slerp(a, b, np.linspace(0, 1, 9, dtype=np.float32))
    assert np.allclose(path[0], a, atol=1e-5) and np.allclose(path[-1], b, atol=1e-5)
    assert np.allclose(np.linalg.norm(path, axis=1), np.linalg.norm(a), rtol=1e-4)
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert np.allclose(steps, steps[0], rtol=1e-3)
    assert np.allclose(slerp(a, 3 * b, np.float32([0.5]))[0] / 2, path[4], atol=1e-4)
    assert np.allclose(slerp(a, a, np.float32([0.3]))[0], a)


@pytest.mark.parametrize("space", ["w", "z"])
def test_a_walk_passes_its_seeds(model: Model, space: str) -> None:
    walk = np.concatenate(list(frames(model, [3, 8, 5], space, steps=4, psi=0.8)))
    assert walk.shape == (12, 16, 16, 3)
    ws, _ = styles_of(model, [3, 8, 5], 0.8, None)
    keys = synthesise(model, ws, styled(model).constant_noise())
    assert np.abs(walk[::4].astype(int) - keys).max() <= 1
    gaps = np.abs(walk.astype(int) - np.roll(walk, -1, 0)).mean(axis=(1, 2, 3))
    apart = np.abs(keys.astype(int) - np.roll(keys, -1, 0)).mean()
    assert gaps.max() < apart  # the last frame leads back to the first, too


def test_other_families_walk_in_z(trained: Callable[[str], Path], tmp_path: Path) -> None:
    model = load_model(trained("dcgan"), device="cpu")
    walk = np.concatenate(list(frames(model, [1, 2], "z", steps=3)))
    assert np.abs(walk[::3].astype(int) - render(model, vectors_of(model, [1, 2]))).max() <= 1
    with pytest.raises(UserError, match="has no styles"):
        interpolate(model, [1, 2], tmp_path / "a.gif", "w")


def test_a_gif_needs_no_extra(model: Model, tmp_path: Path) -> None:
    film = interpolate(model, [1, 2], tmp_path / "new" / "walk.gif", "z", steps=3, fps=10)
    with Image.open(film) as picture:
        assert picture.n_frames == 6 and picture.size == (256, 256) and picture.info["duration"] == 100
    assert [path.name for path in film.parent.iterdir()] == ["walk.gif"]


def test_an_mp4_has_every_frame(model: Model, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    film = interpolate(model, [1, 2, 3], tmp_path / "walk.mp4", "w", steps=4, fps=24)
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == 24
    assert len(pictures) == 12 and pictures[0].shape == (256, 256, 3)
    first = next(frames(model, [1, 2, 3], "w", steps=4))[0]
    assert abs(pictures[0].mean() - first.mean()) < 4


def test_what_makes_no_film_is_said(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"\*\.mp4 or \*\.gif"):
        interpolate(model, [1, 2], tmp_path / "walk.avi")
    with pytest.raises(UserError, match="make no film"):
        interpolate(model, [1], tmp_path / "walk.gif")
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(UserError, match=r"pip install .*'\.\[video\]'"):
        interpolate(model, [1, 2], tmp_path / "walk.mp4")
    assert not list(tmp_path.iterdir())
