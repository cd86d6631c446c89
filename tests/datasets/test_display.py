from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av")

from crossfake.datasets import display  # noqa: E402
from crossfake.datasets.crops import Cropper  # noqa: E402
from crossfake.datasets.decode import Unreadable  # noqa: E402
from crossfake.datasets.video import read_frames  # noqa: E402
from crossfake.detect.prediction.media import Input, open_one  # noqa: E402
from crossfake.serve.intake.headers import read_video  # noqa: E402

H264 = pytest.mark.skipif("libx264" not in av.codecs_available, reason="PyAV was built without libx264")


def corners() -> np.ndarray:
    """48 × 80 pixels whose corners are red, green, blue and white."""
    picture = np.full((48, 80, 3), 60, np.uint8)
    picture[:16, :16], picture[:16, -16:] = (220, 30, 30), (30, 200, 30)
    picture[-16:, :16], picture[-16:, -16:] = (30, 30, 220), (230, 230, 230)
    return picture


def encoded(
    path: Path,
    frames: list[np.ndarray],
    codec: str = "mpeg4",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    **settings: object,
) -> Path:
    """A video with these settings on the stream (methods are called) or its codec."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=10, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.codec_context.qmax = pixels, 4
        for name, value in settings.items():
            if name.startswith("set_"):
                getattr(stream, name)(**value)  # type: ignore[arg-type]
            else:
                setattr(stream.codec_context, name, value)
        for each in frames:
            form = "rgb24" if each.dtype == np.uint8 else "rgb48le"
            frame = av.VideoFrame.from_ndarray(each, format=form)
            if "color_trc" in settings:
                frame = frame.reformat(format=pixels, dst_colorspace="ITU709")
                frame.color_trc, frame.color_primaries = settings["color_trc"], settings["color_primaries"]
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


TURNS = {  # counter-clockwise degrees, then mirrored: as numpy does it
    "none": ({"degrees": 0}, lambda x: x),
    "90": ({"degrees": 90}, lambda x: np.rot90(x, 1)),
    "180": ({"degrees": 180}, lambda x: np.rot90(x, 2)),
    "270": ({"degrees": 270}, lambda x: np.rot90(x, 3)),
    "hflip": ({"degrees": 0, "hflip": True}, lambda x: x[:, ::-1]),
    "vflip": ({"degrees": 0, "vflip": True}, lambda x: x[::-1]),
    "transpose": ({"degrees": 90, "vflip": True}, lambda x: x.transpose(1, 0, 2)),
    "transverse": ({"degrees": 90, "hflip": True}, lambda x: x.transpose(1, 0, 2)[::-1, ::-1]),
}


@pytest.mark.parametrize("turn", TURNS)
def test_display_matrices(turn: str, tmp_path: Path) -> None:
    asked, as_numpy = TURNS[turn]
    path = encoded(tmp_path / "a.mp4", [corners()] * 3, set_display_rotation=asked)
    wanted = as_numpy(corners())
    for frame in read_frames(path, 3):
        assert frame.pixels.shape == wanted.shape
        assert np.abs(frame.pixels.astype(int) - wanted).mean() < 8
    assert open_one(Input("a", path), Cropper(16, "center"), 2).size == wanted.shape[1::-1]


@pytest.mark.parametrize(
    ("ratio", "size"),
    [((4, 3), (107, 48)), ((16, 11), (116, 48)), ((8, 9), (80, 54)), ((1, 2), (80, 96)), ((1, 1), (80, 48))],
)
def test_pixels_that_are_not_square(ratio: tuple[int, int], size: tuple[int, int], tmp_path: Path) -> None:
    path = encoded(tmp_path / "a.mp4", [corners()] * 3, sample_aspect_ratio=Fraction(*ratio))
    (frame,) = read_frames(path, 1)
    assert frame.pixels.shape[1::-1] == size
    left, right = frame.pixels[4:12, : size[0] // 8], frame.pixels[4:12, -size[0] // 8 :]
    assert np.abs(left.mean((0, 1)) - (220, 30, 30)).max() < 40
    assert np.abs(right.mean((0, 1)) - (30, 200, 30)).max() < 40
    claims = read_video(path, 600)
    assert (claims.width, claims.height) == size  # so that limits count what is decoded


def test_a_turned_video_of_oblong_pixels(tmp_path: Path) -> None:
    path = encoded(
        tmp_path / "a.mp4",
        [corners()] * 2,
        sample_aspect_ratio=Fraction(2, 1),
        set_display_rotation={"degrees": 90},
    )
    assert next(iter(read_frames(path, 1))).pixels.shape[:2] == (160, 48)


def test_oblong_pixels_beyond_belief_or_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encoded(tmp_path / "a.mp4", [corners()] * 2, sample_aspect_ratio=Fraction(200, 1))
    assert next(iter(read_frames(path, 1))).pixels.shape[:2] == (48, 80)
    path = encoded(tmp_path / "b.mp4", [corners()] * 2, sample_aspect_ratio=Fraction(4, 1))
    monkeypatch.setattr("crossfake.datasets.video.MAX_PIXELS", 48 * 80 * 3)
    with pytest.raises(Unreadable, match="320×48 pixels, too many"):
        list(read_frames(path, 1))


def moving(shift: float) -> np.ndarray:
    """A soft bright bar on a dark ground."""
    across = np.arange(96)[None, :] + 0.15 * np.arange(64)[:, None]
    level = 40 + 170 / (1 + np.exp(-(8 - np.abs(across - 30 - shift))))
    return np.repeat(level[..., None], 3, 2).round().astype(np.uint8)


@H264
def test_interlaced_video_is_not_combed(tmp_path: Path) -> None:
    fields = [moving(4 * k) for k in range(12)]  # at twice the rate of frames
    woven = []
    for k in range(0, 12, 2):
        frame = fields[k].copy()
        frame[1::2] = fields[k + 1][1::2]
        woven.append(frame)
    options = {"crf": "8", "x264-params": "tff=1"}
    path = encoded(tmp_path / "a.mp4", woven, "libx264", options=options)
    found = list(read_frames(path, 6))
    assert len(found) == 6 and not any(frame.codes for frame in found)
    for k, frame in enumerate(found):
        both = fields[2 * k].astype(int), fields[2 * k + 1].astype(int)
        combed = min(np.abs(woven[k] - one).mean() for one in both)
        assert min(np.abs(frame.pixels - one).mean() for one in both) < 0.25 * combed
    plain = encoded(tmp_path / "b.mp4", fields[::2], "libx264", options={"crf": "8"})
    for k, frame in enumerate(read_frames(plain, 6)):
        assert np.abs(frame.pixels.astype(int) - fields[2 * k]).mean() < 2


@H264
def test_what_is_called_interlaced_but_is_not_stays_as_it_is(tmp_path: Path) -> None:
    frames = [moving(8 * k) for k in range(4)]
    path = encoded(tmp_path / "a.mp4", frames, "libx264", options={"crf": "8", "x264-params": "tff=1"})
    for k, frame in enumerate(read_frames(path, 4)):
        assert np.abs(frame.pixels.astype(int) - frames[k]).mean() < 2


def pq(nits: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084, eq. 5.2: 0 to 10,000 nits to 0 to 1."""
    y = (nits / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def hlg(light: np.ndarray) -> np.ndarray:
    """ITU-R BT.2100, table 5: scene light 0 to 1 to 0 to 1."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(light <= 1 / 12, np.sqrt(3 * light), a * np.log(np.maximum(12 * light - b, 1e-6)) + c)


@H264
@pytest.mark.parametrize(("transfer", "number"), [("pq", 16), ("hlg", 18)])
def test_high_dynamic_range_is_tone_mapped(transfer: str, number: int, tmp_path: Path) -> None:
    steps = np.repeat(np.array([0.02, 0.1, 0.3, 1, 3, 10]), 16)  # of 100 nits
    light = pq(100 * steps) if transfer == "pq" else hlg(steps / 10)
    stored = np.repeat(np.tile(light, (32, 1))[..., None], 3, 2)
    path = encoded(
        tmp_path / "a.mp4",
        [(65535 * stored).round().astype(np.uint16)] * 2,
        "libx264",
        "yuv420p10le",
        {"crf": "4"},
        color_trc=number,
        color_primaries=9,
        colorspace=9,
    )
    frame = next(iter(read_frames(path, 1)))
    levels = frame.pixels[16, 8::16].mean(1)
    flat = 255 * stored[0, 8::16, 0]
    assert frame.codes == () and (np.diff(levels) > 3).all()
    # read as if it were of standard range, shadows are grey and everything is pale
    assert levels[0] < flat[0] - 10 if transfer == "pq" else levels[0] < flat[0] + 10
    assert np.abs(frame.pixels - frame.pixels.mean(2, keepdims=True)).max() < 6  # grey stays grey
    assert np.ptp(levels) > np.ptp(flat)


@H264
def test_without_the_filters_a_code_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"crf": "8", "x264-params": "tff=1"}
    path = encoded(
        tmp_path / "a.mp4", [corners()] * 4, "libx264", options=options, color_trc=16, color_primaries=9
    )
    assert [frame.codes for frame in read_frames(path, 2)] == [(), ()]
    monkeypatch.setattr(display, "_TONES", "no_such_option=1")
    assert {frame.codes for frame in read_frames(path, 2)} == {("hdr",)}

    class Graph:
        def __init__(self) -> None:
            raise ValueError("no filters")

    monkeypatch.setattr(av.filter, "Graph", Graph)
    found = list(read_frames(path, 2))
    assert {frame.codes for frame in found} == {("interlaced", "hdr")} and len(found) == 2
    media = open_one(Input("a", path), Cropper(16, "center"), 2)
    assert {"interlaced", "hdr"} <= set(media.looks[0].reasons)
