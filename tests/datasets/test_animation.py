import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from crossfake.datasets import animation
from crossfake.datasets.animation import count_animation, is_animated
from crossfake.datasets.crops import Cropper
from crossfake.datasets.decode import Unreadable
from crossfake.datasets.prepare import prepare
from crossfake.datasets.settings import PrepareSettings
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.toyfaces import toyface
from crossfake.datasets.video import count_frames, read_frames
from crossfake.detect.prediction.media import Input, find_inputs, open_one
from crossfake.serve.intake.accepting import accept

FORMATS = ["GIF", "WEBP", "PNG", "AVIF"]
SHOWN = [40, 60, 80, 100, 120, 40, 60, 80, 100, 400]  # milliseconds


def animation_of(frames: list[Image.Image], format: str, **options: object) -> bytes:
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    buffer = io.BytesIO()
    options = {"lossless": True} | options if format == "WEBP" else options
    frames[0].save(buffer, format, save_all=True, append_images=frames[1:], **options)
    return buffer.getvalue()


def greys(count: int = 10) -> list[Image.Image]:
    """Frames whose grey level says which they are."""
    return [Image.new("RGB", (24, 16), (20 + 20 * n,) * 3) for n in range(count)]


@pytest.mark.parametrize("format", FORMATS)
def test_frames_are_spread_with_their_times(format: str, tmp_path: Path) -> None:
    content = animation_of(greys(), format, duration=SHOWN)
    (tmp_path / "a").write_bytes(content)
    assert is_animated(content) and count_frames(tmp_path / "a") == count_animation(content) == 10
    for source in (content, tmp_path / "a"):
        found = list(read_frames(source, 4))
        assert [frame.number for frame in found] == [1, 3, 6, 8]
        for frame in found:
            assert frame.pixels.shape == (16, 24, 3) and frame.pixels.dtype == np.uint8
            assert abs(float(frame.pixels.mean()) - (20 + 20 * frame.number)) < 3
            assert frame.seconds == pytest.approx(sum(SHOWN[: frame.number]) / 1000, abs=0.002)
    assert len(list(read_frames(content, 99))) == 10


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "JPEG", "MPO"])
def test_stills_and_pages_are_no_animations(format: str) -> None:
    buffer = io.BytesIO()
    several = {"save_all": True, "append_images": greys()[1:2]} if format in ("TIFF", "MPO") else {}
    greys()[0].save(buffer, format, **several)
    assert not is_animated(buffer.getvalue())


def test_frames_are_drawn_on_those_before() -> None:
    """A GIF stores what changes: frame 5 needs frames 0 to 4."""
    base = toyface(0, 32)
    frames = []
    for number in range(6):
        base = base.copy()
        base[4 * number : 4 * number + 4] = 40 * number
        frames.append(Image.fromarray(base).quantize(64))
    content = animation_of(frames, "GIF", optimize=False)
    (last,) = list(read_frames(content, 1, total=11))
    assert last.number == 5
    assert np.abs(last.pixels.astype(int) - np.asarray(frames[5].convert("RGB"))).mean() < 6


def test_the_still_for_those_who_see_no_animation_is_not_judged() -> None:
    """A PNG may show old programs another picture than its animation."""
    content = animation_of([Image.new("RGB", (24, 16), "red"), *greys(3)], "PNG", default_image=True)
    assert count_animation(content) == 3
    assert [frame.pixels[0, 0].tolist() for frame in read_frames(content, 3)] == [
        [20] * 3,
        [40] * 3,
        [60] * 3,
    ]


def test_one_frame_and_a_still_that_nobody_sees() -> None:
    content = animation_of([Image.new("RGB", (24, 16), "red"), greys(1)[0]], "PNG", default_image=True)
    assert is_animated(content) and count_animation(content) == 1
    assert [frame.pixels[0, 0].tolist() for frame in read_frames(content, 3)] == [[20] * 3]


@pytest.mark.parametrize("format", FORMATS)
def test_one_cut_short_gives_what_it_has_or_says_so(format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    content = animation_of([Image.fromarray(each) for each in noise], format)
    for share in (0.1, 0.5, 0.9):
        cut = content[: int(len(content) * share)]
        try:
            assert 0 < len(list(read_frames(cut, 6))) < 7
        except Unreadable as error:
            assert "\n" not in str(error)


def test_too_much_to_draw_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(animation, "_MOST", 24 * 16 * 9)
    with pytest.raises(Unreadable, match="10 frames of 24×16 pixels, too many"):
        list(read_frames(animation_of(greys(), "GIF"), 2))


def test_an_animation_is_prepared_and_judged_frame_by_frame(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.gif").write_bytes(animation_of(greys(), "GIF", duration=100))
    (tmp_path / "in" / "b.png").write_bytes(animation_of(greys()[:1], "PNG"))
    done = prepare(
        PrepareSettings(
            str(tmp_path / "in"), tmp_path / "out", size=8, crop="center", frames=4, workers=1, split="1/0/0"
        )
    )
    shards = ShardSet(tmp_path / "out")
    names = ["a.gif#frame=000001", "a.gif#frame=000003", "a.gif#frame=000006", "a.gif#frame=000008", "b.png"]
    assert done.images == 5 and shards.columns["origin"].tolist() == names
    assert len(set(shards.columns["group"][:4])) == 1
    assert abs(float(shards.read(3).mean()) - 180) < 3

    (source,) = find_inputs([tmp_path / "in" / "a.gif"])
    media = open_one(source, Cropper(8, "center"), 4)
    assert media.kind == "video" and media.size == (24, 16) and media.rate == pytest.approx(10)
    assert [(look.frame, look.seconds) for look in media.looks] == [(1, 0.1), (3, 0.3), (6, 0.6), (8, 0.8)]
    assert open_one(Input("b", tmp_path / "in" / "b.png"), Cropper(8, "center")).kind == "picture"

    left_out = prepare(
        PrepareSettings(
            str(tmp_path / "in"), tmp_path / "original", size=8, crop="none", codec="original", workers=1
        )
    )
    assert left_out.skipped == {"an animation, not a picture": 1} and left_out.images == 1


def test_the_page_takes_an_animation_for_a_video(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(animation_of(greys(), "WEBP"))
    upload = accept(tmp_path / "a")
    assert upload.kind == "video" and upload.animated and upload.width == 24
    buffer = io.BytesIO()
    greys()[0].save(buffer, "TIFF", save_all=True, append_images=greys()[1:2])
    (tmp_path / "b").write_bytes(buffer.getvalue())
    assert accept(tmp_path / "b").kind == "image" and accept(tmp_path / "b").animated
