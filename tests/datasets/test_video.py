import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av")

from crossfake.datasets import video as module  # noqa: E402
from crossfake.datasets.crops import Cropper  # noqa: E402
from crossfake.datasets.decode import Unreadable  # noqa: E402
from crossfake.datasets.prepare import prepare  # noqa: E402
from crossfake.datasets.settings import PrepareSettings  # noqa: E402
from crossfake.datasets.shards import ShardSet  # noqa: E402
from crossfake.datasets.sources.fixtures import face_video, write_video  # noqa: E402
from crossfake.datasets.video import read_frames, read_keyframes  # noqa: E402
from crossfake.detect.prediction.media import Input, open_one  # noqa: E402
from crossfake.errors import MissingDependency  # noqa: E402
from crossfake.serve.intake.headers import Refused, read_video  # noqa: E402


def _counting(path: Path, frames: int) -> Path:
    """A video whose grey level says which frame it is."""
    write_video(path, [np.full((32, 32, 3), 20 + 200 * k // frames, np.uint8) for k in range(frames)])
    return path


@pytest.mark.parametrize(("frames", "most"), [(40, 4), (40, 40), (40, 100), (1, 3), (7, 5)])
def test_frames_are_the_middles_of_equal_parts(frames: int, most: int, tmp_path: Path) -> None:
    path = _counting(tmp_path / "a.mp4", frames)
    found = list(read_frames(path, most))
    wanted = sorted({int((k + 0.5) * frames / most) for k in range(most)})
    assert [number for number, _ in found] == wanted
    for number, image in found:
        assert image.shape == (32, 32, 3) and image.dtype == np.uint8
        assert abs(float(image.mean()) - (20 + 200 * number // frames)) < 4


def _decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets an entry for every frame that is looked at from now on."""
    seen: list[int] = []
    whole = module._at

    class Counting:
        def __init__(self, container: object) -> None:
            self._container, self.format = container, container.format

        def seek(self, *args: object, **more: object) -> None:
            self._container.seek(*args, **more)

        def decode(self, stream: object) -> object:
            for frame in self._container.decode(stream):
                seen.append(frame.pts)
                yield frame

    monkeypatch.setattr(module, "_at", lambda container, *rest: whole(Counting(container), *rest))
    return seen


@pytest.mark.parametrize("jump", [5, 300])
def test_jumps_give_the_frames_that_decoding_on_gives(
    jump: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _counting(tmp_path / "a.mp4", 400)  # a key frame every twelve
    every = dict(read_frames(path, 400))
    monkeypatch.setattr(module, "_SEEK", jump)
    looked_at = _decoded(monkeypatch)
    jumped = list(read_frames(path, 6))
    assert [number for number, _ in jumped] == [33, 100, 166, 233, 300, 366]
    for number, image in jumped:
        assert np.array_equal(image, every[number])
    assert len(looked_at) < 150


@pytest.mark.parametrize(
    ("name", "codec", "pattern"),
    [
        ("a.mp4", "mpeg4", {"max_b_frames": 2}),  # pictures before a key frame need the group before it
        ("a.ts", "mpeg2video", {}),  # jumps lead to any packet
        ("a.mpg", "mpeg2video", {"max_b_frames": 2}),  # after a jump time stamps are guesses
        ("a.h264", "libx264", {}),  # raw: nothing to jump by
    ],
)
@pytest.mark.parametrize("jump", [5, 300])
def test_containers_that_lead_past_a_frame(
    name: str,
    codec: str,
    pattern: dict[str, int],
    jump: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV was built without {codec}")
    path = _groups(tmp_path / name, codec, 240, **pattern)
    every = [image for _, image in read_frames(path, 240)]
    monkeypatch.setattr(module, "_SEEK", jump)
    jumped = list(read_frames(path, 11))
    assert [number for number, _ in jumped] == sorted({int((k + 0.5) * 240 / 11) for k in range(11)})
    for number, image in jumped:
        assert np.array_equal(image, every[number])


def test_key_frames_that_come_far_apart_later_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _groups(tmp_path / "a.mp4", "mpeg4", 400, keys=(0, 5, 10), gop_size=600)
    looked_at = _decoded(monkeypatch)
    assert len(list(read_frames(path, 20))) == 20
    assert len(looked_at) < 500  # no group is decoded again for each of its frames


def _groups(path: Path, codec: str, frames: int, keys: tuple[int, ...] = (), **pattern: int) -> Path:
    """A video that is encoded as told, with key frames at ``keys`` too."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=30)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for setting, value in ({"gop_size": 12} | pattern).items():
            setattr(stream.codec_context, setting, value)
        for k in range(frames):
            grey = np.full((32, 32, 3), 20 + 200 * k // frames, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            if k in keys:
                frame.pict_type = av.video.frame.PictureType.I
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def test_where_time_says_nothing_frames_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:  # at a third of the rate after five frames
        stream = out.add_stream("mpeg4", rate=30)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 30)
        for k in range(200):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 20 + k, np.uint8), format="rgb24")
            frame.pts, frame.time_base = k if k < 5 else 5 + 3 * (k - 5), Fraction(1, 30)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    looked_at = _decoded(monkeypatch)
    for number, image in read_frames(path, 6):
        assert abs(float(image.mean()) - (20 + number)) < 4
    assert len(looked_at) > 180


def test_containers_that_do_not_say_how_long_they_are(tmp_path: Path) -> None:
    assert len(list(read_frames(_counting(tmp_path / "a.mkv", 30), 5))) == 5


def test_a_video_cut_short_gives_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    face_video(path, 1, frames=60, size=64)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 0 < len(list(read_frames(path, 60))) < 60


@pytest.mark.parametrize("content", [b"", b"no video at all", b"\x00\x00\x00\x20ftypisom" + bytes(64)])
def test_what_is_no_video_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(Unreadable, match=r"a\.mp4 cannot be read"):
        list(read_frames(tmp_path / "a.mp4", 3))
    done = None
    face_video(tmp_path / "b.mp4", 1)
    done = prepare(
        PrepareSettings(str(tmp_path), tmp_path / "out", size=16, crop="none", frames=2, workers=1)
    )
    assert done.images == 2 and done.skipped == {"unreadable": 1}


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(Unreadable, match="no picture"):
        list(read_frames(tmp_path / "a.mp4", 3))


def test_enormous_frames_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", 1000)
    with pytest.raises(Unreadable, match="too many"):
        list(read_frames(_counting(tmp_path / "a.mp4", 3), 3))


def test_without_pyav_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = _counting(tmp_path / "a.mp4", 3)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingDependency, match=r"\.\[video\]"):
        list(read_frames(path, 3))


def test_rows_of_a_video_say_which_frame_and_share_a_group(tmp_path: Path) -> None:
    for number in range(3):
        face_video(tmp_path / "clips" / f"{number}.mp4", number)
    done = prepare(
        PrepareSettings(
            str(tmp_path / "clips"), tmp_path / "out", size=16, crop="center", frames=4, workers=1
        )
    )
    shards = ShardSet(tmp_path / "out")
    assert done.images == 12 and len(set(shards.columns["group"])) == 3
    assert shards.columns["origin"][:2].tolist() == ["0.mp4#frame=000001", "0.mp4#frame=000004"]
    for group in set(shards.columns["group"]):
        assert len(set(shards.columns["split"][shards.columns["group"] == group])) == 1


def test_frames_that_grow_beyond_the_limit_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.setattr(module, "MAX_PIXELS", 200 * 200)
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p"
        for number, side in enumerate((64, 64, 64, 512)):
            out = io.BytesIO()
            Image.new("RGB", (side, side)).save(out, "JPEG")
            packet = av.Packet(out.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 5)
            container.mux(packet)
    assert {image.shape for _, image in read_frames(tmp_path / "a.avi", 4)} == {(64, 64, 3)}


def _jpegs(path: Path, sides: list[int]) -> Path:
    """A stream whose frames have these sides, each a square of its own grey."""
    from PIL import Image

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=5)
        stream.width, stream.height, stream.pix_fmt = sides[0], sides[0], "yuvj420p"
        for number, side in enumerate(sides):
            out = io.BytesIO()
            Image.new("L", (side, side), 20 * number).save(out, "JPEG")
            packet = av.Packet(out.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 5)
            container.mux(packet)
    return path


def test_a_stream_that_changes_its_size(tmp_path: Path) -> None:
    found = list(read_frames(_jpegs(tmp_path / "a.avi", [64, 64, 128, 96]), 4))
    assert [frame.pixels.shape[:2] for frame in found] == [(64, 64), (64, 64), (128, 128), (96, 96)]


def _tracks(path: Path, tracks: list[tuple[int, int, dict[str, object]]]) -> Path:
    """Streams of one container: side, number of frames, and what is set on the stream; the grey level says which."""
    with av.open(str(path), "w") as out:
        made = []
        for number, (side, frames, settings) in enumerate(tracks):
            stream = out.add_stream("mjpeg" if frames == 1 else "mpeg4", rate=10)
            stream.width = stream.height = side
            stream.pix_fmt = "yuvj420p" if frames == 1 else "yuv420p"
            for name, value in settings.items():
                setattr(stream, name, value)
            made.append((stream, np.full((side, side, 3), 60 + 90 * number, np.uint8), frames))
        for step in range(max(frames for _, _, frames in made)):
            for stream, grey, frames in made:
                if step < frames:
                    frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
                    frame.pts, frame.time_base = step, Fraction(1, 10)
                    out.mux(stream.encode(frame))
        for stream, _, _ in made:
            out.mux(stream.encode(None))
    return path


COVER = {"disposition": av.stream.Disposition.attached_pic}
DEFAULT = {"disposition": av.stream.Disposition.default}
NONE = {"disposition": av.stream.Disposition(0)}


@pytest.mark.parametrize(
    ("name", "tracks", "wanted"),
    [
        ("a.mp4", [(64, 1, COVER), (32, 20, DEFAULT)], 1),  # a cover larger than the video
        ("b.mp4", [(32, 20, DEFAULT), (64, 1, COVER)], 0),
        ("c.mkv", [(16, 1, DEFAULT), (64, 20, NONE)], 1),  # a small still first, and the default at that
        ("d.mkv", [(64, 1, NONE), (32, 20, NONE)], 1),
        ("e.mp4", [(32, 20, NONE), (64, 20, DEFAULT)], 1),  # FFmpeg's best is the default one
        ("f.mkv", [(64, 20, DEFAULT), (32, 20, NONE)], 0),
    ],
)
def test_one_stream_is_the_video_wherever_it_stands(
    name: str, tracks: list[tuple[int, int, dict[str, object]]], wanted: int, tmp_path: Path
) -> None:
    path = _tracks(tmp_path / name, tracks)
    with module.open_video(path) as (_, stream):
        assert stream.width == tracks[wanted][0]
    found = list(read_frames(path, 4))
    assert len(found) == 4 and module.count_frames(path) == 20
    for frame in found:
        assert frame.pixels.shape[0] == tracks[wanted][0]
        assert abs(float(frame.pixels.mean()) - (60 + 90 * wanted)) < 6
    claims = read_video(path, 600)
    assert claims.width == tracks[wanted][0] and claims.seconds == pytest.approx(2, abs=0.15)
    media = open_one(Input("a", path), Cropper(16, "center"), 4)
    assert media.size == (tracks[wanted][0],) * 2 and media.rate == pytest.approx(10, abs=0.5)
    assert all(abs(float(look.image.mean()) - (60 + 90 * wanted)) < 6 for look in media.looks)


def test_a_cover_alone_is_no_video(tmp_path: Path) -> None:
    path = _tracks(tmp_path / "a.mp4", [(64, 1, COVER)])
    with pytest.raises(Unreadable, match="no picture in it but a cover"):
        list(read_frames(path, 4))
    assert module.count_frames(path) == 0
    with pytest.raises(Refused, match="no picture"):
        read_video(path, 600)


def test_times_of_a_variable_frame_rate(tmp_path: Path) -> None:
    shown = [0.0, 0.1, 0.2, 0.3, 1.3, 2.3, 2.4, 3.0]
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 1000)
        for number, seconds in enumerate(shown):
            grey = np.full((32, 32, 3), 20 + 20 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts, frame.time_base = round(1000 * (seconds + 5)), Fraction(1, 1000)  # not from zero on
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    found = list(read_frames(tmp_path / "a.mp4", 8))
    assert [frame.seconds for frame in found] == pytest.approx(shown, abs=0.002)
    media = open_one(Input("a", tmp_path / "a.mp4"), Cropper(16, "center"), 8)
    assert [look.seconds for look in media.looks] == pytest.approx(shown, abs=0.002)


@pytest.mark.parametrize(
    ("name", "codec", "keys"),
    [("a.mp4", "libx264", 250), ("a.ts", "libx264", 250), ("b.ts", "libx264", 900), ("a.avi", "mpeg4", 50)],
)
def test_jumps_between_frames_of_any_length(name: str, codec: str, keys: int, tmp_path: Path) -> None:
    """No rate fits them, and some files then state their average for one."""
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV was built without {codec}")
    rng = np.random.default_rng(2)
    with av.open(str(tmp_path / name), "w") as out:
        stream = out.add_stream(codec, rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = keys, 0 if codec == "mpeg4" else 2
        time = 0
        for number in range(1500):
            bits = [255 * (number >> bit & 1) for bit in range(16)]
            grey = np.kron(np.array(bits, np.uint8).reshape(4, 4), np.ones((16, 16), np.uint8))
            frame = av.VideoFrame.from_ndarray(np.stack([grey] * 3, -1), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            time += int(rng.integers(10, 200))
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    found = list(read_frames(tmp_path / name, 4))
    assert [frame.number for frame in found] == [187, 562, 937, 1312]
    for frame in found:
        seen = frame.pixels[8::16, 8::16, 0].ravel() > 127
        assert sum(int(bit) << place for place, bit in enumerate(seen)) == frame.number


def test_without_an_end_the_first_frames_tell_the_streams_apart(tmp_path: Path) -> None:
    path = _tracks(tmp_path / "a.mkv", [(16, 1, DEFAULT), (64, 60, NONE)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    found = list(read_frames(path, 4))
    assert found and all(frame.pixels.shape[0] == 64 for frame in found)


def test_jumps_in_a_video_of_variable_rate_find_the_frames_that_they_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 frames within ten seconds, then 300 within a minute."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=30)
        stream.width = stream.height = 32
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 30)
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = 12, 2
        for k in range(600):
            grey = np.full((32, 32, 3), 20 + k // 3, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts, frame.time_base = k if k < 300 else 300 + 6 * (k - 300), Fraction(1, 30)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    every = {number: image for number, image in read_frames(path, 600)}
    assert len(every) == 600
    monkeypatch.setattr(module, "_SEEK", 50)
    looked_at = _decoded(monkeypatch)
    found = list(read_frames(path, 5))
    assert [frame.number for frame in found] == [60, 180, 300, 420, 540]
    for frame in found:
        shown = frame.number if frame.number < 300 else 300 + 6 * (frame.number - 300)
        assert np.array_equal(frame.pixels, every[frame.number])
        assert frame.seconds == pytest.approx(shown / 30, abs=0.001)
    assert len(looked_at) < 300


def _scenes(path: Path, greys: list[int], codec: str = "libx264") -> Path:
    """Scenes of five frames, each of one grey, each with one key frame."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width = stream.height = 64
        stream.gop_size = 5
        for number, grey in enumerate(np.repeat(greys, 5)):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), grey, np.uint8), format="rgb24")
            frame.pict_type = av.video.frame.PictureType.I if number % 5 == 0 else frame.pict_type
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "mpeg4"), ("a.avi", "mpeg4")])
def test_key_frames_are_one_of_each_scene(name: str, codec: str, tmp_path: Path) -> None:
    path = _scenes(tmp_path / name, [20, 120, 120, 220], codec)
    found = read_keyframes(path)
    assert [round(float(each.pixels.mean()), -1) for each in found] == [
        20,
        120,
        220,
    ]  # the third is as the second
    assert [each.number for each in found] == [0, 1, 3]
    times = [each.seconds for each in found]
    assert all(
        each is not None and each == pytest.approx(at, abs=0.21)
        for each, at in zip(times, (0, 0.5, 1.5), strict=True)
    )
    assert len(read_keyframes(path, most=2)) == 2


def test_key_frames_of_an_animation_and_of_what_is_no_video(tmp_path: Path) -> None:
    from PIL import Image

    pictures = [Image.new("L", (40, 30), grey) for grey in (0, 0, 255)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=100)
    assert [each.pixels.shape for each in read_keyframes(tmp_path / "a.gif")] == [(30, 40, 3)] * 2
    (tmp_path / "b.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(99))
    for path in (tmp_path / "b.mp4", tmp_path / "none.mp4"):
        with pytest.raises(Unreadable):
            read_keyframes(path)
    big = tmp_path / "big.mp4"
    write_video(big, [np.zeros((32, 1200, 3), np.uint8)])
    assert read_keyframes(big)[0].pixels.shape == (26, 960, 3)
