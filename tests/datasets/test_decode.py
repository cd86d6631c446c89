import io
import pickle
import random
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, features

import crossfake.datasets.decode as decode
from crossfake.datasets.decode import Unreadable, decode_image
from crossfake.errors import UserError


def _bytes(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _ramp() -> Image.Image:
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[..., 0] = np.arange(30) * 8
    pixels[..., 1] = np.arange(20)[:, None] * 12
    return Image.fromarray(pixels)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_formats_come_back_exactly(format: str, tmp_path: Path) -> None:
    raw = _bytes(_ramp(), format, **({"lossless": True} if format == "WEBP" else {}))
    (tmp_path / "x").write_bytes(raw)
    for source in (raw, tmp_path / "x", str(tmp_path / "x")):
        pixels = decode_image(source)
        assert pixels.dtype == np.uint8 and np.array_equal(pixels, np.asarray(_ramp()))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = np.asarray(_ramp())
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    pixels = decode_image(_bytes(image, "JPEG", exif=exif, quality=100, subsampling=0))
    assert pixels.shape == (20, 30, 3) and np.abs(pixels.astype(int) - upright).mean() < 3


def test_cmyk() -> None:
    pixels = decode_image(_bytes(_ramp().convert("CMYK"), "JPEG", quality=100, subsampling=0))
    assert pixels.shape == (20, 30, 3) and np.abs(pixels.astype(int) - np.asarray(_ramp())).mean() < 4


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16)
    pixels = decode_image(_bytes(Image.fromarray(values), "PNG"))
    assert np.abs(pixels[..., 0] - values / 257).max() <= 0.5 and (pixels[..., 0] == pixels[..., 2]).all()
    for kind in (".png", ".tiff"):
        colored = np.stack([values, values // 2, values // 4], axis=2)
        raw = cv2.imencode(kind, colored[..., ::-1])[1].tobytes()
        assert np.abs(decode_image(raw) - colored / 257).max() <= 1


def test_grey_palette_and_transparency() -> None:
    grey = _ramp().convert("L")
    assert np.array_equal(decode_image(_bytes(grey, "PNG"))[..., 1], np.asarray(grey))
    assert decode_image(_bytes(_ramp().quantize(16), "PNG")).shape == (20, 30, 3)
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    clear.putpixel((0, 0), (255, 0, 0, 255))
    for image in (clear, clear.convert("PA") if hasattr(Image, "PA") else clear):
        pixels = decode_image(_bytes(image, "PNG"))
        assert pixels[0, 0].tolist() == [255, 0, 0] and pixels[3, 3].tolist() == [255, 255, 255]
    half = decode_image(_bytes(Image.new("LA", (2, 2), (0, 128)), "PNG"))
    assert 120 <= half[0, 0, 0] <= 135
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert decode_image(_bytes(palette, "PNG", transparency=1))[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_is_taken(format: str) -> None:
    frames = [Image.new("RGB", (6, 6), color) for color in ("red", "blue")]
    options: dict[str, object] = {"lossless": True} if format == "WEBP" else {}
    pixels = decode_image(_bytes(frames[0], format, save_all=True, append_images=frames[1:], **options))
    assert pixels[3, 3].tolist() == [255, 0, 0]


def test_large_jpegs_are_decoded_smaller_only_when_asked() -> None:
    raw = _bytes(Image.new("RGB", (800, 640), "green"), "JPEG")
    assert decode_image(raw).shape == (640, 800, 3)
    assert decode_image(raw, at_least=160).shape == (160, 200, 3)
    assert decode_image(raw, at_least=400).shape == (640, 800, 3)


@pytest.mark.parametrize(
    "content", [b"", b"not a picture", _bytes(_ramp(), "PNG")[:60], _bytes(_ramp(), "JPEG")[:300]]
)
def test_what_is_no_whole_picture_is_named_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "face.jpg").write_bytes(content)
    with pytest.raises(UserError, match=r"face\.jpg cannot be read as an image \(.+\)") as error:
        decode_image(tmp_path / "face.jpg")
    assert "\n" not in str(error.value)
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
    with pytest.raises(UserError, match=r"none\.png cannot be read"):
        decode_image(tmp_path / "none.png")


def test_a_bomb_is_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_PIXELS", 500)
    with pytest.raises(UserError, match="has 30×20 pixels"):
        decode_image(_bytes(_ramp(), "PNG"))


def test_a_jpeg_with_too_many_pixels_is_decoded_at_a_half(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = _bytes(_ramp().resize((41, 30)), "JPEG", quality=100, subsampling=0)
    whole = decode_image(raw)
    monkeypatch.setattr(decode, "MAX_PIXELS", 500)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # of which PIL refuses the double
    half = decode.decode(raw)
    assert (
        half.pixels.shape == (15, 21, 3)
        and half.scale == 21 / 41
        and decode.decode(raw, at_least=4).scale < 0.3
    )
    means = whole[:, :40].reshape(15, 2, 20, 2, 3).mean((1, 3))
    assert np.abs(half.pixels[:, :20] - means).mean() < 3
    with pytest.raises(Unreadable, match="has 80×60 pixels, too many"):
        decode_image(_bytes(_ramp().resize((80, 60)), "JPEG"))
    for format in ("PNG", "WEBP"):
        with pytest.raises(Unreadable):
            decode_image(_bytes(_ramp(), format))


@pytest.mark.slow
def test_a_phone_of_108_megapixels() -> None:
    raw = _bytes(Image.new("L", (12000, 9000), 90), "JPEG")
    assert decode_image(raw).shape == (4500, 6000, 3)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_files_cut_short_anywhere_are_refused(format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    raw = _bytes(Image.fromarray(noise), format)
    for share in (0.02, 0.5, 0.9):
        with pytest.raises(Unreadable):
            decode_image(raw[: int(len(raw) * share)])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "AVIF"])
def test_damaged_bytes_raise_nothing_else_and_warn_of_nothing(
    format: str, recwarn: pytest.WarningsRecorder
) -> None:
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    rng = random.Random(0)
    whole = _bytes(_ramp(), format)
    for _ in range(100):
        raw = bytearray(whole)
        for _ in range(rng.choice((1, 3, 20))):
            raw[rng.randrange(min(len(raw), rng.choice((40, 400, 10**6))))] = rng.randrange(256)
        try:
            assert decode_image(bytes(raw)).ndim == 3
        except Unreadable as error:
            assert "\n" not in str(error)
    assert not recwarn.list
