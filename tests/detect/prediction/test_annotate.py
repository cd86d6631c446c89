import dataclasses
import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossfake.datasets.sources.fixtures import write_video
from crossfake.datasets.toyfaces import toyface
from crossfake.detect.metadata.results import Metadata
from crossfake.detect.prediction.annotate import (
    COLOURS,
    Annotator,
    Mark,
    clean_name,
    draw_picture,
    draw_video,
    video_marks,
)
from crossfake.detect.prediction.media import Input, Media, open_one
from crossfake.detect.prediction.verdicts import Prediction
from crossfake.detect.verdict import FrameScore, MissedFace, Verdict
from crossfake.errors import UserError

FACE = Verdict(0.9, 0.91, 0.8, 0.97, "fake", None, ("blurred",), (20, 30, 30, 30), 0)


def _prediction(path: str = "a.png", kind: str = "picture", **options: object) -> Prediction:
    given = {"faces": (FACE,), "skipped": (MissedFace("face too small", (2, 2, 9, 9)),), **options}
    return Prediction(path, kind, 64, 64, "fake", 0.91, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("a.png", "a"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\x y.jpg", "x_y"),
        ("a\n\x1b[31m\0b.png", "a_31m_b"),
        (".hidden", "hidden"),
        ("...", "_"),
        ("con.png", "_con"),
        ("https://example.org/p/q.jpg?x=/../y#z", "q"),
        ("Straße 1.webp", "Straße_1"),
        ("-rf.png", "-rf"),
        ("x" * 300 + ".png", "x" * 80),
        ("a\udcff.png", "a"),
    ],
)
def test_names_are_cleaned(name: str, clean: str) -> None:
    assert clean_name(name) == clean


@pytest.mark.parametrize(
    ("height", "width"), [(16, 16), (64, 200), (700, 500), (30, 3000), (5000, 40), (1, 1)]
)
@pytest.mark.parametrize("ground", [0, 128, 255])
def test_boxes_are_drawn_on_any_ground_and_size(height: int, width: int, ground: int) -> None:
    picture = np.full((height, width, 3), ground, np.uint8)
    box = (width / 4, height / 4, width / 2, height / 2)
    marks = [Mark(box, "real", ("real 0.12 (0.02-0.30)",)), Mark(None, "fake", ("fake",))]
    marks += [Mark(box, "not judged", ("not judged", "face too small"))]
    drawn = draw_picture(picture, marks, "REAL 0.12, worst of 2 faces")
    assert drawn.dtype == np.uint8 and drawn.shape[1] >= 240
    assert max(drawn.shape[1], drawn.shape[0]) >= 450
    for color in (COLOURS["real"], (255, 255, 255)):
        assert (drawn == color).all(axis=2).any()
    assert picture.min() == picture.max() == ground


def test_copies_are_written_under_names_of_their_own(tmp_path: Path) -> None:
    for name in ("in/a.png", "in/b/A.png", "in/c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(toyface(0, 64)).save(tmp_path / name)
    annotator = Annotator(tmp_path / "out")
    paths = ["in/a.png", "in/b/A.png", "in/c.jpg"]
    written = [annotator.annotate(Media(Input(p, tmp_path / p)), _prediction(p)).annotated for p in paths]
    assert written == [str(tmp_path / "out" / name) for name in ("a.png", "A-2.png", "c.jpg")]
    for name in written:
        with Image.open(str(name)) as image:
            assert image.width == 512 and image.height > 512
    gone = annotator.annotate(Media(Input("x", tmp_path / "x.png")), _prediction())
    assert gone.annotated is None
    fetched = Media(Input("http://localhost/a.png"), content=(tmp_path / "in/a.png").read_bytes())
    assert annotator.annotate(fetched, _prediction()).annotated == str(tmp_path / "out" / "a-3.png")
    with pytest.raises(UserError, match="holds files already"):
        Annotator(tmp_path / "in")
    with pytest.raises(UserError, match="cannot use"):
        Annotator(tmp_path / "in" / "a.png")


def _person(person: int, numbers: list[int]) -> Verdict:
    frames = tuple(FrameScore(n, n / 25, 0.5, 0.5, "fake", (float(n), 0, 10, 10)) for n in numbers)
    return Verdict(0.5, 0.5, None, None, "fake", box=(0, 0, 10, 10), person=person, frames=frames)


def test_boxes_glide_between_judged_frames_and_do_not_stay() -> None:
    prediction = _prediction(
        kind="video", faces=(_person(0, [10, 20, 30, 40, 50]), _person(1, [10, 20])), skipped=()
    )

    def left(number: int) -> list[float]:
        return [mark.box[0] for mark in video_marks(prediction, number, 25) if mark.box]

    assert left(10) == [10, 10] and left(13) == [13, 13] and left(20) == [20, 20]
    assert left(24) == [24, 20] and left(27) == [27]  # the other was not there in frame 30
    assert left(5) == [10, 10] and left(55) == [50]
    rare = _prediction(kind="video", faces=(_person(0, [100, 900]),), skipped=())
    assert [len(video_marks(rare, n, 25)) for n in (80, 92, 100, 109, 120, 500, 895)] == [0, 1, 1, 1, 0, 0, 1]


def test_a_video_keeps_its_length_and_shows_boxes(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from crossfake.datasets.crops import Cropper
    from crossfake.datasets.sources.fixtures import face_video
    from crossfake.datasets.video import read_frames

    face_video(tmp_path / "a b.mp4", 0, frames=12)
    media = open_one(Input("a b.mp4", tmp_path / "a b.mp4"), Cropper(16, "none"), 3)
    frames = tuple(FrameScore(n, None, 0.9, 0.9, "fake", (20.0, 20.0, 40.0, 40.0)) for n in (2, 6, 10))
    face = Verdict(0.9, 0.9, None, None, "fake", box=(20, 20, 40, 40), person=0, frames=frames)
    annotator = Annotator(tmp_path / "out")
    written = annotator.annotate(media, _prediction(kind="video", faces=(face,), skipped=()))
    assert written.annotated == str(tmp_path / "out" / "a_b.mp4")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a_b.mp4"]
    shown = dict(read_frames(Path(written.annotated), 12))
    assert sorted(shown) == list(range(12))
    assert shown[0].shape[1] == 480 and all(side % 2 == 0 for side in shown[0].shape[:2])
    assert (np.abs(shown[6].astype(int) - COLOURS["fake"]).max(axis=2) < 40).sum() > 200


def test_a_video_keeps_its_times_and_every_frames_own_boxes(tmp_path: Path) -> None:
    """At an uneven rate, and with frames that grow."""
    av = pytest.importorskip("av")
    from crossfake.datasets.video import read_frames

    shown = [0, 1, 2, 10, 20, 21, 30]  # tenths of a second
    sides = [480, 480, 480, 480, 960, 960, 960]
    with av.open(str(tmp_path / "a.avi.mkv"), "w") as out:
        stream = out.add_stream("mjpeg", rate=10)
        stream.width = stream.height = 480
        stream.pix_fmt = "yuvj420p"
        for at, side in zip(shown, sides, strict=True):
            buffer = io.BytesIO()
            Image.new("L", (side, side), 60).save(buffer, "JPEG")
            packet = av.Packet(buffer.getvalue())
            packet.stream, packet.time_base = stream, Fraction(1, 10)
            packet.pts = packet.dts = at
            out.mux(packet)

    def box(side: int) -> tuple[float, float, float, float]:
        return (side / 2, side / 4, side / 4, side / 4)

    frames = tuple(
        FrameScore(n, t / 10, 0.9, 0.9, "fake", box(side))
        for n, (t, side) in enumerate(zip(shown, sides, strict=True))
        if n % 2 == 0
    )
    face = Verdict(0.9, 0.9, None, None, "fake", box=box(480), person=0, frames=frames)
    prediction = _prediction(kind="video", faces=(face,), skipped=())
    judged = {each.frame: (sides[each.frame],) * 2 for each in frames}
    draw_video(tmp_path / "a.avi.mkv", prediction, tmp_path / "b.mp4", 2.3, judged)
    found = list(read_frames(tmp_path / "b.mp4", 7))
    assert [frame.seconds for frame in found] == pytest.approx([t / 10 for t in shown], abs=0.01)
    for frame in found:  # alike in all, since the frames fill the same place
        near = np.abs(frame.pixels.astype(int) - COLOURS["fake"]).max(axis=2) < 40
        rows, columns = np.nonzero(near[:480])
        left, bottom = np.quantile(columns, 0.02), np.quantile(rows, 0.98)
        assert abs(left - 240) < 12 and abs(bottom - 240) < 12, frame.number


def test_with_metadata_maps_and_key_frames_are_written_too(tmp_path: Path) -> None:
    pytest.importorskip("av")
    said = Metadata("PNG")
    Image.fromarray(toyface(0, 64)).save(tmp_path / "a.png")
    write_video(tmp_path / "v.mp4", [toyface(1, 64)] * 3)
    annotator = Annotator(tmp_path / "out")
    annotator.annotate(Media(Input("a.png", tmp_path / "a.png"), size=(64, 64), metadata=said), _prediction())
    frames = (FrameScore(0, 0.0, 0.9, 0.9, "fake", (20, 30, 30, 30)),)
    shown = _prediction("v.mp4", "video", faces=(dataclasses.replace(FACE, frames=frames),), skipped=())
    annotator.annotate(Media(Input("v.mp4", tmp_path / "v.mp4"), "video", (64, 64), metadata=said), shown)
    found = sorted(each.name for each in (tmp_path / "out").iterdir())
    assert found == ["a-error-levels.png", "a-noise.png", "a.png", "v-key-0.jpg", "v.mp4"]
