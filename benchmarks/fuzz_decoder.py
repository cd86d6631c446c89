"""``python benchmarks/fuzz_decoder.py``: what the page's intake and decoders make of 10,000 broken files.

Small pictures, videos and archives of every format that is taken are damaged at random: flipped bits, cut ends,
pieces of other files, length fields set to extremes. Each goes the way of an upload, in this process: checked, then
decoded with its maps, key frames and metadata, or refused. Anything else that is raised is printed as a bug; a crash
ends the process with a trace; memory that grows after the warm-up is a leak. File ``n`` depends on the seed and ``n``
alone: ``--start n --count 1``.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import struct
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from crossfake.datasets.crops import Cropper
from crossfake.datasets.decode import Copies, Unreadable, register_heif
from crossfake.datasets.toyfaces import toyface
from crossfake.datasets.video import read_frames
from crossfake.detect.metadata.reading import read_metadata
from crossfake.detect.prediction.media import Input, open_frames, open_picture
from crossfake.serve.engine.evidence import key_frames, traces
from crossfake.serve.intake.accepting import (
    Upload,
    accept,
    session_folder,
    unpack,
)
from crossfake.serve.intake.headers import Refused
from crossfake.serve.intake.limits import Limits

SIDE = 96
LIMITS = Limits(frames=4)
_EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def originals(folder: Path) -> dict[str, bytes]:
    """One small file of each format and variant, by name."""
    picture = Image.fromarray(toyface(0, SIDE))
    other = Image.fromarray(toyface(1, SIDE))
    deep = Image.fromarray(np.asarray(picture)[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    spaces = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.applyTransform(picture, ImageCms.buildTransform(*spaces, "RGB", "LAB"))
    made = {
        "jpeg": _saved(picture, "JPEG", quality=85, exif=exif.tobytes()),
        "jpeg progressive": _saved(picture, "JPEG", progressive=True),
        "jpeg cmyk": _saved(picture.convert("CMYK"), "JPEG"),
        "png": _saved(picture, "PNG"),
        "png palette": _saved(picture.convert("P"), "PNG", transparency=0),
        "png 16 bit": _saved(deep, "PNG"),
        "png animated": _saved(picture, "PNG", save_all=True, append_images=[other]),
        "webp": _saved(picture, "WEBP"),
        "webp lossless": _saved(picture, "WEBP", lossless=True),
        "webp animated": _saved(picture, "WEBP", save_all=True, append_images=[other]),
        "gif": _saved(picture.convert("P"), "GIF", save_all=True, append_images=[other.convert("P")]),
        "tiff": _saved(picture, "TIFF"),
        "tiff lzw": _saved(picture, "TIFF", compression="tiff_lzw"),
        "tiff deflate": _saved(picture, "TIFF", compression="tiff_adobe_deflate"),
        "tiff jpeg": _saved(picture, "TIFF", compression="jpeg"),
        "tiff 16 bit": _saved(deep, "TIFF"),
        "jpeg profile": _saved(picture, "JPEG", icc_profile=profile),
        "png profile": _saved(picture, "PNG", icc_profile=profile),
        "tiff lab": _saved(lab, "TIFF"),
        "avif": _saved(picture, "AVIF"),
        "mp4": _video(folder / "clip.mp4"),
        "mp4 turned": _video(folder / "turned.mp4", turned=True),
        "webm": _video(folder / "clip.webm"),
    }
    if register_heif():
        made["heic"] = _saved(picture, "HEIF")
    inside = [made["jpeg"], made["png"], made["webp"]]
    made["zip"] = _packed(inside, zipfile.ZIP_STORED)
    made["zip deflate"] = _packed(inside, zipfile.ZIP_DEFLATED)
    return made


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _packed(files: list[bytes], how: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as archive:
        for number, content in enumerate(files):
            archive.writestr(f"folder/{number}.dat", content)
    return out.getvalue()


def _video(path: Path, turned: bool = False) -> bytes:
    import av

    codec = "libvpx" if path.suffix == ".webm" else "mpeg4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        if turned:
            stream.set_display_rotation(90, hflip=True)
            stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for number in range(12):
            frame = av.VideoFrame.from_ndarray(np.roll(toyface(2, SIDE), number, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()


def damaged(sources: dict[str, bytes], seed: int, number: int) -> tuple[str, bytes]:
    """File ``number``: its format, and its bytes after one to three kinds of damage."""
    rng = np.random.default_rng([seed, number])
    names = list(sources)
    name = names[number % len(names)]
    data = bytearray(sources[name])
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(data))) if rng.random() < 0.5 else int(rng.integers(min(len(data), 256)))
        match int(rng.integers(5)):
            case 0:  # flipped bits
                for place in rng.integers(len(data), size=int(rng.integers(1, 33))):
                    data[place] ^= 1 << int(rng.integers(8))
            case 1:  # cut short
                del data[max(1, at) :]
            case 2:  # a piece of another file, written over or put in
                donor = sources[names[int(rng.integers(len(names)))]]
                start = int(rng.integers(len(donor)))
                piece = donor[start : start + int(rng.integers(1, 512))]
                data[at : at + (len(piece) if rng.random() < 0.5 else 0)] = piece
            case 3:  # a length field
                width = str(rng.choice(["B", "<H", ">H", "<I", ">I"]))
                value = int(rng.choice(_EXTREMES)) & (256 ** struct.calcsize(width) - 1)
                data[at : at + struct.calcsize(width)] = struct.pack(width, value)
            case _:  # a piece repeated
                piece = bytes(data[at : at + int(rng.integers(1, 256))])
                data[at:at] = piece * int(rng.integers(1, 8))
    return name, bytes(data)


def examine(path: Path, folder: Path) -> str:
    """What becomes of a file: ``decoded``, ``unreadable``, or the code with which it is refused."""
    try:
        upload = accept(path, LIMITS)
        if upload.kind != "archive":
            return _decode(upload)
        for inside in unpack(upload, folder, LIMITS):
            if not inside.refused:
                with contextlib.suppress(Unreadable):
                    _decode(inside)
                inside.path.unlink()
        return "unpacked"
    except Refused as error:
        return error.code
    except Unreadable:
        return "unreadable"


def _decode(upload: Upload) -> str:
    cropper, source = Cropper(64, "center"), Input("file")
    if upload.kind == "image":
        copies = Copies(upload.path.read_bytes())
        open_picture(source, copies, cropper)
        traces(upload, copies)
    else:
        open_frames(source, read_frames(upload.path, LIMITS.frames), cropper)
        key_frames(upload)
    read_metadata(upload.path)
    return "decoded"


def fuzz(seed: int, start: int, count: int) -> Iterator[tuple[str, str]]:
    """Format and outcome of each file; what is raised against the rules is raised on.

    Example:
        >>> list(fuzz(0, 0, 1))
        [('jpeg', 'decoded')]
    """
    with session_folder() as folder:
        sources = originals(folder)
        for number in range(start, start + count):
            name, data = damaged(sources, seed, number)
            path = folder / "upload"
            path.write_bytes(data)
            with session_folder() as inner:
                try:
                    outcome = examine(path, inner)
                except Exception as error:  # it is raised again, with the file that provoked it
                    error.add_note(f"file {number} of seed {seed} ({name})")
                    raise
            yield name, outcome


def resident() -> float:
    """Memory of this process, in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    faulthandler.enable()
    outcomes: dict[str, Counter[str]] = {}
    memory: list[float] = []
    started = time.monotonic()
    for done, (name, outcome) in enumerate(fuzz(options.seed, options.start, options.count), 1):
        outcomes.setdefault(name, Counter())[outcome] += 1
        if done % max(1, options.count // 20) == 0:
            memory.append(resident())
            print(f"{done:>7,}  {memory[-1]:7.1f} MiB  {time.monotonic() - started:6.0f} s", file=sys.stderr)
    for name, counts in sorted(outcomes.items()):
        print(f"{name:<18}", ", ".join(f"{count:,} {what}" for what, count in counts.most_common()))
    total = sum(outcomes.values(), Counter())
    print(f"\n{total.total():,} files, no crash: " + ", ".join(f"{n:,} {w}" for w, n in total.most_common()))
    late = memory[len(memory) // 4 :]
    if late:
        slope = np.polyfit(range(len(late)), late, 1)[0] if len(late) > 1 else 0.0
        print(
            f"memory after the warm-up: {late[0]:.1f} to {late[-1]:.1f} MiB, highest {max(late):.1f}, "
            f"slope {slope * 20 / max(1, options.count) * 1000:+.2f} MiB per 1,000 files"
        )
    print(f"{options.count / (time.monotonic() - started):.0f} files/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
