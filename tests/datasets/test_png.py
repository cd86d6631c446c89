import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from crossfake.datasets.decode import decode_image
from crossfake.datasets.png import chunks, is_animated, without_long_text
from crossfake.serve.intake.accepting import accept

PIXELS = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
WORKFLOW = (
    '{"nodes": [' + ",".join(f'{{"id": {n}}}' for n in range(200_000)) + "]}"
)  # as a generator writes it


def chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def png(text: str, how: str) -> bytes:
    buffer, info = io.BytesIO(), PngImagePlugin.PngInfo()
    if how == "itxt":
        info.add_itxt("workflow", text, zip=True)
    elif how != "behind":
        info.add_text("workflow", text, zip=how == "ztxt")
    Image.fromarray(PIXELS).save(buffer, "PNG", pnginfo=info)
    content = buffer.getvalue()
    if how == "behind":
        *_, (_, end, _) = chunks(content)
        content = (
            content[:end] + chunk(b"zTXt", b"workflow\0\0" + zlib.compress(text.encode())) + content[end:]
        )
    return content


@pytest.mark.parametrize("how", ["text", "ztxt", "itxt", "behind"])
def test_long_texts_are_no_damage(how: str, tmp_path: Path) -> None:
    content = png(WORKFLOW, how)
    assert len(WORKFLOW) > 2 << 20
    assert np.array_equal(decode_image(content), PIXELS)
    (tmp_path / "a.png").write_bytes(content)
    assert np.array_equal(decode_image(tmp_path / "a.png"), PIXELS)
    assert accept(tmp_path / "a.png").width == 16


def test_short_texts_that_unpack_to_much_and_many_of_them() -> None:
    content = png("x" * (20 << 20), "ztxt")
    assert len(content) < 32 << 10 and np.array_equal(decode_image(content), PIXELS)


def test_only_long_texts_are_left_out() -> None:
    content = png("short", "itxt")
    assert without_long_text(content) == content
    lean = without_long_text(png("y" * 100_000, "text"))
    assert [kind for kind, _, _ in chunks(lean)] == [b"IHDR", b"IDAT", b"IEND"]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(lean))), PIXELS)
    cut = png("y" * 100_000, "text")[:5000]  # ends within the text
    assert without_long_text(cut) == cut[:33] and without_long_text(b"") == b""


def test_a_turned_picture_stays_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer, info = io.BytesIO(), PngImagePlugin.PngInfo()
    info.add_text("prompt", "z" * 100_000)
    Image.fromarray(PIXELS[:8]).save(buffer, "PNG", pnginfo=info, exif=exif)
    assert np.array_equal(decode_image(buffer.getvalue()), np.rot90(PIXELS[:8], -1))


def test_animations_say_so() -> None:
    buffer = io.BytesIO()
    frames = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1])]
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    assert is_animated(buffer.getvalue()) and not is_animated(png("a", "text"))
    assert not is_animated(buffer.getvalue()[:40])
