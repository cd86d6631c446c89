import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from crossfake.datasets.colour import adobe_rgb
from crossfake.datasets.crops import Cropper
from crossfake.datasets.decode import CODES, decode, decode_image
from crossfake.datasets.prepare import prepare
from crossfake.datasets.settings import PrepareSettings
from crossfake.datasets.shards import ShardSet
from crossfake.detect.prediction.media import Input, open_picture

# XYZ of the primaries under D50, and the exponent, as the profiles of these names state them
ADOBE = ([[0.60974, 0.31111, 0.01947], [0.20528, 0.62567, 0.06087], [0.14919, 0.06322, 0.74457]], 2.19921875)
PROPHOTO = ([[0.79767, 0.28804, 0.0], [0.13519, 0.71188, 0.0], [0.03134, 0.00009, 0.82491]], 1.8)
DISPLAY_P3 = (
    [[0.51512, 0.2412, -0.00105], [0.29198, 0.69225, 0.04189], [0.1571, 0.06657, 0.78407]],
    0.0,
)  # 0: the curve of sRGB
SRGB = [[0.43607, 0.22249, 0.01392], [0.38515, 0.71687, 0.09708], [0.14307, 0.06061, 0.7141]]


def linear(values: np.ndarray, exponent: float) -> np.ndarray:
    if exponent:
        return values**exponent
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def profile(space: bytes, primaries: list[list[float]], exponent: float, extra: bytes = b"") -> bytes:
    """A version 4 display profile (ICC.1:2022, sec. 8.3 and 8.4) of three primaries and a curve, or of a curve."""

    def number(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    curve = (3, [2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045]) if not exponent else (0, [exponent])
    para = b"para" + struct.pack(">IHH", 0, curve[0], 0) + b"".join(map(number, curve[1]))
    xyz = [b"XYZ " + bytes(4) + b"".join(map(number, each)) for each in ([0.9642, 1.0, 0.8249], *primaries)]
    tags = {b"wtpt": xyz[0]} | ({b"zzzz": b"data" + extra} if extra else {})
    if space == b"GRAY":
        tags[b"kTRC"] = para
    else:
        tags |= dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), xyz[1:], strict=True))
        tags |= {name: para for name in (b"rTRC", b"gTRC", b"bTRC")}
    table, body = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    size = 132 - 4 + len(table) + len(body)
    head = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x04200000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    head += number(0.9642) + number(1.0) + number(0.8249)
    return head + bytes(128 - len(head)) + table + body


def expected(stored: np.ndarray, primaries: list[list[float]], exponent: float) -> np.ndarray:
    """By the formula: stored to linear, to XYZ under D50, to linear sRGB, to sRGB."""
    light = linear(stored / 255, exponent) @ np.array(primaries) @ np.linalg.inv(np.array(SRGB))
    light = light.clip(0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def colours() -> np.ndarray:
    steps = np.array([20, 90, 128, 170, 230], np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps), -1).reshape(5, 25, 3)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("primaries", "exponent"), [ADOBE, PROPHOTO, DISPLAY_P3])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_wide_gamuts_become_srgb_as_the_formula_says(
    primaries: list[list[float]], exponent: float, kind: str
) -> None:
    options: dict[str, object] = {"lossless": True} if kind == "WEBP" else {}
    icc = profile(b"RGB ", primaries, exponent)
    found = decode(saved(Image.fromarray(colours()), kind, icc_profile=icc, **options))
    off = np.abs(found.pixels - expected(colours(), primaries, exponent))
    assert off.max() < 3 and off.mean() < 0.6 and found.codes == ()
    assert np.abs(found.pixels.astype(int) - colours()).mean() > 4  # it mattered


def test_a_photo_of_a_phone() -> None:
    photo = Image.fromarray(np.full((64, 64, 3), (200, 120, 90), np.uint8))
    found = decode_image(
        saved(photo, "JPEG", quality=95, subsampling=0, icc_profile=profile(b"RGB ", *DISPLAY_P3))
    )
    wanted = expected(np.array([200, 120, 90.0]), *DISPLAY_P3)
    assert np.abs(found.mean((0, 1)) - wanted).max() < 2


@pytest.mark.parametrize(("space", "interop"), [(0xFFFF, "R03"), (2, None), (0xFFFF, "R98"), (1, None)])
def test_cameras_say_adobe_rgb_in_exif_alone(space: int, interop: str | None) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned as well
    own: dict[int, object] = {0xA001: space}
    if interop:
        own[0xA005] = {1: interop}
    exif[0x8769] = own
    photo = Image.fromarray(np.full((32, 64, 3), (200, 120, 90), np.uint8))
    found = decode(saved(photo, "JPEG", quality=95, subsampling=0, exif=exif))
    wanted = np.array([200, 120, 90.0])
    if interop == "R03" or space == 2:
        wanted = expected(wanted, *ADOBE)
    assert found.pixels.shape == (64, 32, 3) and not found.codes
    assert np.abs(found.pixels.mean((0, 1)) - wanted).max() < 2


def test_the_profile_made_here_is_adobes() -> None:
    made = ImageCms.ImageCmsProfile(io.BytesIO(adobe_rgb())).profile
    assert made.red_colorant[0] == pytest.approx(ADOBE[0][0], abs=2e-5)
    for icc in (adobe_rgb(), profile(b"RGB ", *ADOBE)):
        found = decode_image(saved(Image.fromarray(colours()), icc_profile=icc))
        assert np.abs(found - expected(colours(), *ADOBE)).max() < 3


def test_srgb_profiles_change_nothing() -> None:
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for icc in (own, profile(b"RGB ", SRGB, 0.0)):
        assert np.array_equal(decode_image(saved(Image.fromarray(colours()), icc_profile=icc)), colours())


def test_grey_with_a_profile_of_its_own_and_with_one_for_colours() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    wanted = expected(np.repeat(ramp[..., None], 3, 2), SRGB, 1.8)
    for icc in (profile(b"GRAY", [], 1.8), profile(b"RGB ", SRGB, 1.8)):
        for image in (Image.fromarray(ramp), Image.fromarray(ramp).convert("LA")):
            found = decode(saved(image, icc_profile=icc))
            assert np.abs(found.pixels - wanted).max() < 2 and not found.codes
    deep = Image.fromarray(ramp.astype(np.uint16) * 257)
    found = decode(saved(deep, icc_profile=profile(b"GRAY", [], 1.8)))
    assert np.abs(found.pixels - wanted).max() < 2


def test_colours_are_converted_under_transparency() -> None:
    image = Image.fromarray(np.full((4, 4, 3), (60, 160, 60), np.uint8)).convert("RGBA")
    image.putpixel((0, 0), (60, 160, 60, 0))
    found = decode_image(saved(image, icc_profile=profile(b"RGB ", *ADOBE)))
    assert found[0, 0].tolist() == [255, 255, 255]
    assert np.abs(found[2, 2] - expected(np.array([60, 160, 60.0]), *ADOBE)).max() < 3


def test_lab_needs_no_profile() -> None:
    made = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    picture = Image.fromarray(colours())
    lab = ImageCms.applyTransform(picture, made)
    found = decode(saved(lab, "TIFF"))
    assert np.abs(found.pixels.astype(int) - colours()).mean() < 3 and not found.codes


@pytest.mark.parametrize(
    ("mode", "icc"),
    [
        ("RGB", b"no profile at all" * 10),
        ("RGB", profile(b"GRAY", [], 1.8)),
        ("RGB", profile(b"RGB ", *ADOBE)[:200]),
        ("CMYK", profile(b"RGB ", *ADOBE)),
    ],
)
def test_what_cannot_be_converted_is_kept_with_a_note(mode: str, icc: bytes, tmp_path: Path) -> None:
    image = Image.fromarray(np.full((40, 40, 3), (90, 140, 30), np.uint8)).convert(mode)
    content = saved(image, "JPEG", quality=95, icc_profile=icc)
    found = decode(content)
    assert found.codes == ("colour-profile",)
    assert np.array_equal(found.pixels, decode_image(saved(image, "JPEG", quality=95)))
    media = open_picture(Input("a"), content, Cropper(16, "center"))
    assert "colour-profile" in media.looks[0].reasons
    (tmp_path / "in").mkdir()
    for number in range(2):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(content)
    done = prepare(PrepareSettings(str(tmp_path / "in"), tmp_path / "out", size=16, crop="center", workers=1))
    assert done.images == 2 and done.codes == {"colour-profile": 2}
    assert f"       2  {CODES['colour-profile']}" in done.table()


def test_preparing_and_judging_see_the_same_colours(tmp_path: Path) -> None:
    picture = colours()[:, :5].repeat(2, 0).repeat(2, 1)
    content = saved(Image.fromarray(picture), icc_profile=profile(b"RGB ", *PROPHOTO))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(content)
    prepare(PrepareSettings(str(tmp_path / "in"), tmp_path / "out", size=10, crop="none", workers=1))
    stored = ShardSet(tmp_path / "out").read(0)
    look = open_picture(Input("a"), content, Cropper(10, "none")).looks[0]
    assert np.array_equal(stored, look.image)
    assert np.abs(stored - expected(picture, *PROPHOTO)).max() < 3


def test_a_large_profile_in_a_png_is_no_damage() -> None:
    icc = profile(b"RGB ", *ADOBE, extra=bytes(2 << 20))
    found = decode(saved(Image.fromarray(colours()), icc_profile=icc))
    assert np.abs(found.pixels - expected(colours(), *ADOBE)).max() < 3 and not found.codes
