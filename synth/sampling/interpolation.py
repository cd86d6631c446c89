"""Films of a walk from seed to seed and back to the first, as MP4 or GIF."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from crossfake.errors import UserError
from crossfake.files import replacing
from crossfake.images import Images
from crossfake.progress import tqdm
from crossfake.synth.families.styles import StyleGenerator
from crossfake.synth.sampling.latents import (
    has_styles,
    label_of,
    open_model,
    render,
    styled,
    styles_of,
    synthesise,
    vectors_of,
)
from crossfake.synth.sampling.models import Model
from crossfake.synth.settings import InterpolateSettings

Floats = npt.NDArray[np.float32]
_LEAST_SIDE = 256  # pixels: players show smaller films as stamps, and halved colour blurs them


def slerp(a: Floats, b: Floats, t: Floats) -> Floats:
    """Points at ``t`` ``[T]`` on the great arc from ``a`` ``[D]`` to ``b`` ``[D]``: ``[T, D]`` (Shoemake 1985).

    Gaussian vectors lie near a sphere, and the straight way between two leads through where none are. The length goes
    evenly from the one's to the other's.

    Example:
        >>> slerp(np.float32([1, 0]), np.float32([0, 1]), np.float32([0.5])).round(3).tolist()
        [[0.7070000171661377, 0.7070000171661377]]
    """
    lengths = np.linalg.norm(a), np.linalg.norm(b)
    first, second = a / lengths[0], b / lengths[1]
    angle = np.arccos(np.clip(first @ second, -1, 1))
    at = np.asarray(t, np.float32)[:, None]
    if np.sin(angle) < 1e-4:  # one way, or opposite ways and no arc is the shortest
        return np.asarray((1 - at) * a + at * b, np.float32)
    arc = (np.sin((1 - at) * angle) * first + np.sin(at * angle) * second) / np.sin(angle)
    return np.asarray(arc * ((1 - at) * lengths[0] + at * lengths[1]), np.float32)


def frames(
    model: Model,
    seeds: Sequence[int],
    space: str = "w",
    steps: int = 60,
    psi: float = 1.0,
    label: int | None = None,
) -> Iterator[Images]:
    """The ``steps * len(seeds)`` frames of a looped walk, some at a time: uint8 ``[B, size, size, 3]``.

    In ``w`` it follows a periodic cubic spline through the seeds' w, in ``z`` arcs from one z to the next. A model with
    styles keeps its own constant noise all the way; of others the whole Gaussian vector moves.
    """
    if space == "w":
        from scipy.interpolate import CubicSpline

        keys = styles_of(model, seeds, psi, label)[0][:, 0].cpu().numpy()
        spline = CubicSpline(np.arange(len(seeds) + 1), [*keys, keys[0]], bc_type="periodic")
        path = np.asarray(spline(np.arange(len(seeds) * steps) / steps), np.float32)
    else:
        vectors = vectors_of(model, seeds).numpy()
        if isinstance(model.network, StyleGenerator):
            vectors = vectors[:, : model.network.z_dim]  # the rest is noise
        at = np.linspace(0, 1, steps, endpoint=False, dtype=np.float32)
        path = np.concatenate(
            [slerp(a, b, at) for a, b in zip(vectors, np.roll(vectors, -1, 0), strict=True)]
        )
    for part in torch.from_numpy(path).split(model.tile):
        yield _images(model, part, space, psi, label)


@torch.inference_mode()
def _images(model: Model, part: torch.Tensor, space: str, psi: float, label: int | None) -> Images:
    if not isinstance(model.network, StyleGenerator):
        return render(model, part, psi, label)
    network, part = model.network, part.to(model.device)
    if space == "w":
        ws = part[:, None].expand(-1, network.num_ws, -1)  # truncated already
    else:
        ws = network.styles(part, label_of(model, len(part), label), psi)
    return synthesise(model, ws, network.constant_noise())


def film(settings: InterpolateSettings) -> Path:
    """Write the film of ``synth interpolate``; returns its path.

    Raises:
        UserError: there is no such model, it has no such space, or the film cannot be written.
    """
    model = open_model(settings.model, settings.device, settings.precision)
    space = settings.space or ("w" if has_styles(model) else "z")
    return interpolate(
        model,
        settings.seeds,
        settings.out,
        space,
        settings.frames,
        settings.fps,
        settings.trunc,
        settings.label,
    )


def interpolate(
    model: Model,
    seeds: Sequence[int],
    out: Path,
    space: str = "w",
    steps: int = 60,
    fps: int = 30,
    psi: float = 1.0,
    label: int | None = None,
) -> Path:
    """Write a looped film from seed to seed; returns its path.

    Args:
        model: any generator.
        seeds: at least two.
        out: ``*.mp4`` (H.264, which needs PyAV) or ``*.gif``.
        space: ``w``, for models with styles, or ``z``.
        steps: frames from a seed to the next.
        fps: frames per second.
        psi: truncation.
        label: class of all frames.
    """
    writers = {".mp4": _write_mp4, ".gif": _write_gif}
    if out.suffix.lower() not in writers:
        raise UserError(f"a film cannot be written as {out.name}", hint="name it *.mp4 or *.gif")
    if len(seeds) < 2 or not 1 <= steps <= 10_000 or not 1 <= fps <= 120:
        raise UserError(
            f"{len(seeds)} seeds, {steps} frames between them at {fps} a second make no film",
            hint="give two seeds or more, --frames 60 and --fps 30, say",
        )
    if space == "w":
        styled(model)
    if out.suffix.lower() == ".mp4":
        _import_av()  # before any work
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with (
            tqdm(total=steps * len(seeds), unit="frame", desc="interpolate") as bar,
            replacing(out) as temporary,
        ):
            walk = _enlarged(frames(model, seeds, space, steps, psi, label), bar)
            writers[out.suffix.lower()](walk, temporary, fps)
    except OSError as error:
        raise UserError(
            f"cannot write {out} ({error.strerror or error})", hint="check the folder and its space"
        ) from error
    return out


def _enlarged(batches: Iterator[Images], bar: Any) -> Iterator[Images]:
    """Single frames of at least 256 pixels; their sides are even, as H.264's halved colour needs."""
    for batch in batches:
        for image in batch:
            side = max(_LEAST_SIDE, image.shape[0])
            larger = image.shape[0] < side
            yield cv2.resize(image, (side, side), interpolation=cv2.INTER_LANCZOS4) if larger else image
            bar.update()


def _import_av() -> Any:
    from crossfake.datasets.video import import_av

    return import_av()


def _write_mp4(walk: Iterator[Images], path: Path, fps: int) -> None:
    av = _import_av()
    try:
        with av.open(str(path), "w", format="mp4") as container:
            stream = None
            for image in walk:
                if stream is None:
                    stream = container.add_stream("h264", rate=fps, options={"crf": "18"})
                    stream.height, stream.width, stream.pix_fmt = *image.shape[:2], "yuv420p"
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            if stream is not None:
                container.mux(stream.encode(None))
    except (av.FFmpegError, av.codec.codec.UnknownCodecError) as error:
        raise OSError(str(error)) from error


def _write_gif(walk: Iterator[Images], path: Path, fps: int) -> None:
    from PIL import Image

    pictures = (Image.fromarray(image) for image in walk)
    first = next(pictures)
    first.save(path, "GIF", save_all=True, append_images=pictures, duration=round(1000 / fps), loop=0)
