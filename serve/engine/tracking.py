"""A video: people followed through its frames, and every detector's score over time."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Generator

from crossfake.datasets.crops import Cropper
from crossfake.datasets.decode import Frame
from crossfake.datasets.video import read_frames
from crossfake.detect.prediction.media import Input, Media, frame_rate, open_frames
from crossfake.detect.verdict import FrameScore, Verdict
from crossfake.images import fitted
from crossfake.serve.engine.agreement import answer
from crossfake.serve.engine.judging import Found, counterpart, looks_of
from crossfake.serve.intake.accepting import Upload
from crossfake.serve.intake.headers import too_many_pixels
from crossfake.serve.intake.limits import Limits

_THUMBNAIL = 96


def follow(
    upload: Upload,
    cropper: Cropper,
    limits: Limits,
    lock: threading.Lock,
    progress: Callable[[float, str], None],
) -> Media:
    """The crops of all people in a video's frames.

    Args:
        upload: the video.
        cropper: what cuts the frames.
        limits: how many frames are looked at, and of how many pixels: they may grow within a video.
        lock: held while faces are looked for, not while frames are decoded.
        progress: takes the share done; what it raises ends the work.

    Raises:
        Refused: a frame has more pixels than the header said, and too many.
        Unreadable: not one frame can be decoded.
    """

    def frames() -> Generator[Frame]:
        for done, frame in enumerate(read_frames(upload.path, limits.frames, "the video")):
            if frame.pixels.shape[0] * frame.pixels.shape[1] > limits.pixels:
                raise too_many_pixels(limits.pixels)
            progress(done / limits.frames, f"frame {frame.number}")
            with lock:
                yield frame

    with contextlib.closing(frames()) as pictures:
        return open_frames(Input("the video", upload.path), pictures, cropper, frame_rate(upload.path))


def over_time(lead: Found, face: Verdict, others: dict[str, Found]) -> list[FrameScore]:
    """One person's frames with what every detector says of each.

    Args:
        lead: what the detector found that the person is taken from.
        face: the person.
        others: what each detector found, by name; the first among them.
    """
    series: dict[str, dict[int, Verdict]] = {}
    for name, found in others.items():
        same = face if found is lead else counterpart(face, found.prediction)
        if same is not None:
            series[name] = {
                each.frame: Verdict(each.score, each.probability, None, None, each.verdict, grade=same.grade)
                for each in same.frames
            }
    crops = {lead.media.looks[n].frame: lead.media.looks[n].image for n in looks_of(lead, face)}
    scores = []
    for each in face.frames:
        verdicts = {name: found[each.frame] for name, found in series.items() if each.frame in found}
        head = answer(list(verdicts.values()))
        scores.append(
            dataclasses.replace(
                each,
                score=head.score,
                probability=head.probability,
                verdict=head.verdict,
                per_detector={name: verdict.probability for name, verdict in verdicts.items()},
                crop=fitted(crops[each.frame], _THUMBNAIL),
            )
        )
    return scores
