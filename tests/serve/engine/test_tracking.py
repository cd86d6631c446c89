import io
import threading
from fractions import Fraction
from pathlib import Path

import pytest
from PIL import Image

from crossfake.datasets.crops import Cropper
from crossfake.datasets.sources.fixtures import face_video
from crossfake.serve.engine.analysis import Analyser
from crossfake.serve.engine.tracking import follow
from crossfake.serve.intake.accepting import (
    accept,
)
from crossfake.serve.intake.headers import Refused
from crossfake.serve.intake.limits import Limits

pytest.importorskip("av")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "clip.bin"
    face_video(path.with_suffix(".mp4"), 0, frames=12)
    return path.with_suffix(".mp4").rename(path)


def test_frames_are_told_and_the_lock_is_free_between_them(clip: Path) -> None:
    lock, told = threading.Lock(), []

    def progress(share: float, what: str) -> None:
        assert not lock.locked()
        told.append(share)

    media = follow(accept(clip), Cropper(16, "center"), Limits(frames=4), lock, progress)
    assert [look.frame for look in media.looks] == [1, 4, 7, 10] and told == [0, 0.25, 0.5, 0.75]
    assert media.rate > 0 and media.size == (96, 96)


def test_a_cancelled_video_lets_go_of_the_lock(clip: Path) -> None:
    lock = threading.Lock()

    def progress(share: float, what: str) -> None:
        if share > 0.3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        follow(accept(clip), Cropper(16, "center"), Limits(frames=4), lock, progress)
    assert not lock.locked()


def test_a_video_has_a_score_over_time(both: Analyser, clip: Path) -> None:
    found = both.analyse(clip, name="../clip.mp4")
    assert (found.kind, found.name, found.width, found.height) == ("video", "clip.mp4", 96, 96)
    assert found.key_frames and found.key_frames[0].seconds == 0 and not found.traces
    assert found.key_frames[0].picture.shape == (96, 96, 3)
    assert found.picture is None and found.duration == pytest.approx(accept(clip).seconds)
    (person,) = found.faces
    assert len(person.frames) == 12 and not person.stability and person.heatmap is not None
    for number, frame in enumerate(person.frames):
        assert frame.frame == number and set(frame.per_detector) == {"small", "other"}
        assert frame.probability == pytest.approx(sum(frame.per_detector.values()) / 2)
        assert frame.seconds is not None and frame.crop is not None and frame.crop.shape == (16, 16, 3)
    times = [frame.seconds or 0 for frame in person.frames]
    assert times == sorted(times) and times[-1] > 0
    mean = sum(frame.probability for frame in person.frames) / 12
    assert person.opinion.probability == pytest.approx(mean)
    best = max(person.frames, key=lambda frame: frame.probability)
    assert best.crop is not None and (person.crop == best.crop).all()


def test_a_video_that_is_too_long(bundle: Path, tmp_path: Path) -> None:
    face_video(tmp_path / "a.mp4", 0, frames=60, size=32)
    assert 1 < accept(tmp_path / "a.mp4").seconds < 60
    with pytest.raises(Refused) as caught:
        Analyser([bundle], Limits(seconds=1), "cpu").analyse(tmp_path / "a.mp4")
    assert caught.value.code == "too-long"


def test_frames_that_grow_within_a_video_are_refused(tmp_path: Path) -> None:
    import av

    def jpeg(side: int) -> bytes:
        out = io.BytesIO()
        Image.new("RGB", (side, side)).save(out, "JPEG")
        return out.getvalue()

    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p"
        for number, side in enumerate((64, 64, 64, 256)):
            packet = av.Packet(jpeg(side))
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 5)
            container.mux(packet)
    limits = Limits(pixels=100 * 100)
    upload = accept(tmp_path / "a.avi", limits)
    assert (upload.width, upload.height) == (64, 64)
    with pytest.raises(Refused) as caught:
        follow(upload, Cropper(16, "center"), limits, threading.Lock(), lambda share, what: None)
    assert caught.value.code == "too-many-pixels"


def test_a_picture_is_no_video(analyser: Analyser, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"GIF89a")
    with pytest.raises(Refused):
        analyser.analyse(tmp_path / "a.mp4")
