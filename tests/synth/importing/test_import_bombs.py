"""Small files that would take all memory or time, or end the process: each is refused at once."""

import io
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch

from crossfake.errors import UserError
from crossfake.synth.importing.importer import import_model
from crossfake.synth.settings import ImportSettings

START = b"\x80\x04"


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _name(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def _put(slot: int) -> bytes:
    return b"r" + struct.pack("<I", slot) + b"0"


def _get(slot: int) -> bytes:
    return b"j" + struct.pack("<I", slot)


def _shared(depth: int) -> bytes:
    """A tuple of twice the same tuple, and so on: few bytes, 2**depth leaves."""
    return b")" + b"".join(_put(1000 + k) + 2 * _get(1000 + k) + b"\x86" for k in range(depth))


def _module(state: bytes, class_name: bytes = b"N") -> bytes:
    name = _name("torch_utils.persistence", "_reconstruct_persistent_obj")
    return name + b"}(" + _text("class_name") + class_name + _text("state") + state + b"u\x85R"


def _ema(value: bytes) -> bytes:
    return START + b"}(" + _text("G_ema") + value + b"u."


def _blob(count: int) -> bytes:
    stream = io.BytesIO()
    torch.save(torch.zeros(count).storage(), stream, _use_new_zipfile_serialization=False)
    return b"B" + struct.pack("<I", stream.tell()) + stream.getvalue()


def _often(function: bytes, arguments: bytes) -> bytes:
    call = _get(1) + _get(2) + b"R"
    return START + function + _put(1) + arguments + _put(2) + b"](" + call * 2000 + b"e."


def _storage(count: int) -> bytes:
    return _name("torch.storage", "_load_from_bytes") + _blob(count) + b"\x85R"


def _colliding() -> bytes:
    keys = ((2**61 - 1) * (k + 1) for k in range(20_000))
    raw = (key.to_bytes(key.bit_length() // 8 + 1, "little") for key in keys)
    return START + b"}(" + b"".join(b"\x8a" + bytes([len(key)]) + key + b"N" for key in raw) + b"u."


def _long_names() -> bytes:
    inner = _text("a" * 100_000) + _put(1) + _text("b" * 100_000) + _put(2) + _module(b"}") + _put(3)
    for k in range(3, 17):
        parts = b"}(" + _get(1) + _get(k) + _get(2) + _get(k) + b"u"
        inner += _module(b"}(" + _text("_modules") + parts + b"u") + _put(k + 1)
    return START + inner + b"}(" + _text("G_ema") + _get(17) + b"u."


ONE = b"(" + b"J\xff\xff\x00\x00t"
BOMBS = {
    "deep key": (START + b"}" + b")" + b"\x85" * 150_000 + b"Ns.", "key of kind tuple"),
    "shared key": (START + b"}" + _shared(60) + b"Ns.", "key of kind tuple"),
    "shared name": (START + _shared(60) + _text("x") + b"\x93.", "not text"),
    "shared class": (_ema(_module(b"}", _shared(60))), "lacks"),
    "shared fact": (
        _ema(_module(b"}(" + _text("activation") + _shared(60) + b"u")),
        "activation of kind tuple",
    ),
    "colliding keys": (_colliding(), "key of kind int"),
    "names that add up": (_long_names(), "without a proper name"),
    "copied mapping": (
        _often(_name("collections", "OrderedDict"), b"}(" + b"K\x01N" * 5000 + b"u\x85"),
        "made of another",
    ),
    "copied storage": (
        _often(_name("torch.storage", "_load_from_bytes"), _blob(100_000) + b"\x85"),
        "nested bytes",
    ),
    "views of a storage": (
        _often(
            _name("torch._utils", "_rebuild_tensor_v2"),
            b"(" + _storage(65_535) + b"K\x00" + ONE + b"(K\x01t\x89}t",
        ),
        "holds no G_ema",
    ),
    "many values": (START + b"(" + b"}" * 2_100_000 + b"l.", "more opcodes"),
    "no buffers": (_ema(_module(b"}(" + _text("conv_clamp") + b"K\x03u")), "lacks"),
    "odd buffers": (_ema(_module(b"}(" + _text("_buffers") + b"]u")), "lacks"),
}


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("name", BOMBS)
def test_small_files_take_little(name: str, tmp_path: Path) -> None:
    content, message = BOMBS[name]
    (tmp_path / "bomb.pkl").write_bytes(content)
    measured = name != "many values"  # tracing each of two million values takes a minute
    started = time.monotonic()
    if measured:
        tracemalloc.start()
    try:
        with pytest.raises(UserError, match=message):
            import_model(ImportSettings(tmp_path / "bomb.pkl", tmp_path / "model"))
        assert not measured or tracemalloc.get_traced_memory()[1] < 60_000_000
    finally:
        tracemalloc.stop()
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("content", ["x", 3, {}, torch.zeros(()), torch.zeros(1, 1)])
@pytest.mark.parametrize(
    "name", ["noises.noise_0", "conv1.conv.weight", "to_rgb1.bias", "conv1.noise.weight"]
)
def test_odd_values_are_one_line(name: str, content: object, tmp_path: Path) -> None:
    torch.save({"g_ema": {name: content}, "latent_avg": content}, tmp_path / "n.pt")
    with pytest.raises(UserError) as raised:
        import_model(ImportSettings(tmp_path / "n.pt", tmp_path / "m"))
    assert "\n" not in str(raised.value)


def test_compressed_members_are_refused(tmp_path: Path) -> None:
    torch.save({"g_ema": {"input.input": torch.zeros(1000)}}, tmp_path / "n.pt")
    with zipfile.ZipFile(tmp_path / "n.pt") as old, zipfile.ZipFile(tmp_path / "z.pt", "w", 8) as new:
        for member in old.namelist():
            new.writestr(member, old.read(member))
    with pytest.raises(UserError, match="compressed members"):
        import_model(ImportSettings(tmp_path / "z.pt", tmp_path / "m"))


def test_widths_that_no_array_fills_are_not_allocated(tmp_path: Path) -> None:
    weights = {"style.1.weight": torch.zeros(4, 4), "style.1.bias": torch.zeros(4)}
    for layer in ("to_rgb1", "to_rgbs.0", "to_rgbs.1"):
        weights[f"{layer}.conv.weight"] = torch.zeros(1, 3, 50_000, 1, 1)
        weights[f"{layer}.conv.modulation.weight"] = torch.zeros(1, 1)
    torch.save({"g_ema": weights, "latent_avg": torch.zeros(4)}, tmp_path / "n.pt")
    with pytest.raises(UserError, match="no StyleGAN of colour images"):  # 90 GB if they were
        import_model(ImportSettings(tmp_path / "n.pt", tmp_path / "m"))
