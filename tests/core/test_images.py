import numpy as np
import torch

from crossfake.images import captioned_sheet, contact_sheet, to_uint8


def test_to_uint8_rounds_and_clamps() -> None:
    values = torch.tensor([-2.0, -1.0, 0.0, 0.999, 1.0, 3.0]).reshape(1, 1, 1, 6).expand(1, 3, 1, 6)
    assert to_uint8(values)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255, 255]
    assert to_uint8(values, low=0.0)[0, 0, :, 1].tolist() == [0, 0, 0, 255, 255, 255]


def test_to_uint8_gives_back_every_byte_value() -> None:
    levels = torch.arange(256.0).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    for images, low in ((levels / 127.5 - 1, -1.0), (levels / 255, 0.0)):
        assert np.array_equal(to_uint8(images, low)[0, :, :, 0].ravel(), np.arange(256))


def test_contact_sheet_places_images_row_by_row() -> None:
    images = np.stack([np.full((4, 4, 3), value, np.uint8) for value in (10, 20, 30)])
    sheet = contact_sheet(images, columns=2, pad=1)
    assert sheet.shape == (11, 11, 3)
    assert (sheet[1, 1, 0], sheet[1, 6, 0], sheet[6, 1, 0]) == (10, 20, 30)
    assert (sheet[6:, 6:] == 255).all() and (sheet[0] == 255).all()


def test_captions_are_wrapped_not_cut() -> None:
    """Every line of a long caption is on the sheet, and none is wider than its picture."""
    from PIL import ImageFont

    from crossfake.images import _wrapped

    text = "picture ends too close to the face, averylongwordthatfitsnowhereatallinsofewpixels"
    lines = _wrapped(text, 94)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "") and len(lines) > 3
    assert all(ImageFont.load_default().getlength(line) <= 94 for line in lines)
    assert _wrapped("no face", 94) == ["no face"] and _wrapped("", 94) == [""]
    pictures = np.zeros((2, 40, 96, 3), np.uint8)
    short, long = (captioned_sheet(pictures, ["no face", caption]) for caption in ("other", text))
    assert long.shape[1] == short.shape[1] and long.shape[0] > short.shape[0] + 2 * 13
    last = long[40 + 13 * (len(lines) - 1) :, 98:]
    assert (last < 100).any()  # the last line is there, too
