"""Official pickles: what they hold comes out, and nothing that they ask for is done."""

import collections
import io
import os
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from crossfake.errors import UserError
from crossfake.inert.pickles import read_pickle
from crossfake.inert.values import number
from crossfake.synth.cli import synth
from crossfake.synth.importing.importer import import_model
from crossfake.synth.sampling.generation import generate
from crossfake.synth.sampling.models import load_model
from crossfake.synth.settings import GenerateSettings, ImportSettings

from .conftest import nested

WIDTHS = {4: 8, 8: 8, 16: 6}


def _arrays(classes: int = 0) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Random weights of a 16×16 generator and discriminator under the official names."""
    rng = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=rng)

    row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    taps, w = torch.outer(row, row), 12
    g: dict[str, torch.Tensor] = {"synthesis.b4.const": draw(8, 4, 4), "mapping.w_avg": draw(w)}
    d: dict[str, torch.Tensor] = {}

    def dense(net: dict[str, torch.Tensor], name: str, inputs: int, outputs: int) -> None:
        net |= {f"{name}.weight": draw(outputs, inputs), f"{name}.bias": draw(outputs)}

    before = 0
    for resolution, width in WIDTHS.items():
        block = f"synthesis.b{resolution}"
        g[f"{block}.resample_filter"] = taps
        for conv, inputs in ([("conv0", before)] if before else []) + [("conv1", width), ("torgb", width)]:
            name, outputs = f"{block}.{conv}", 3 if conv == "torgb" else width
            kernel = 1 if conv == "torgb" else 3
            g |= {f"{name}.weight": draw(outputs, inputs, kernel, kernel), f"{name}.bias": draw(outputs)}
            dense(g, f"{name}.affine", w, inputs)
            if conv != "torgb":
                g |= {f"{name}.noise_strength": draw(), f"{name}.noise_const": draw(resolution, resolution)}
                g[f"{name}.resample_filter"] = taps
        before = width
    for layer in range(2):
        dense(g, f"mapping.fc{layer}", 10 + w * bool(classes) if layer == 0 else w, w)
    if classes:
        dense(g, "mapping.embed", classes, w)
    dense(d, "b16.fromrgb", 3, 6)
    d["b16.fromrgb.weight"] = d["b16.fromrgb.weight"][:, :, None, None]
    for resolution, (inputs, outputs) in {16: (6, 8), 8: (8, 8)}.items():
        for conv, shape in (("conv0", (inputs, inputs, 3, 3)), ("conv1", (outputs, inputs, 3, 3))):
            d |= {f"b{resolution}.{conv}.weight": draw(*shape), f"b{resolution}.{conv}.bias": draw(shape[0])}
        d[f"b{resolution}.skip.weight"] = draw(outputs, inputs, 1, 1)
    d |= {"b4.conv.weight": draw(8, 9, 3, 3), "b4.conv.bias": draw(8)}
    dense(d, "b4.fc", 128, 8)
    dense(d, "b4.out", 8, 8 if classes else 1)
    for layer in range(8 if classes else 0):
        dense(d, f"mapping.fc{layer}", 8, 8)
    if classes:
        dense(d, "mapping.embed", classes, 8)
    return g, d


def _file(official: Any, path: Path, classes: int = 0, frozen: bool = False, **facts: Any) -> Path:
    g, d = _arrays(classes)
    content = {
        "training_set_kwargs": official.EasyDict(resolution=16, scale=np.float64(0.5), shape=np.zeros(3)),
        "G": None,
        "D": nested(official, "Discriminator", d, frozen, **{**facts, "architecture": "resnet"}),
        "G_ema": nested(official, "Generator", g, False, **{"architecture": "skip", **facts}),
        "augment_pipe": None,
    }
    path.write_bytes(pickle.dumps(content))
    return path


@pytest.mark.parametrize(
    ("classes", "frozen", "facts"),
    [(0, False, {}), (3, False, {"conv_clamp": 256}), (0, True, {"conv_clamp": np.float64(0.5)})],
)
def test_an_official_pickle_becomes_a_model(
    classes: int, frozen: bool, facts: dict[str, Any], official: Any, tmp_path: Path
) -> None:
    file = _file(official, tmp_path / "network.pkl", classes, frozen, **facts)
    done = CliRunner().invoke(synth, ["import", str(file), "--out", str(tmp_path / "model")])
    assert done.exit_code == 0 and "16×16" in done.output, done.output
    model = load_model(tmp_path / "model")
    assert len(model.card["classes"]) == classes and model.card["source"]["file"] == "network.pkl"
    assert model.card["network"]["clamp"] == (float(facts["conv_clamp"]) if facts else None)
    arrays = _arrays(classes)
    state = model.network.state_dict()
    assert torch.equal(state["ups.1.weight"], arrays[0]["synthesis.b16.conv0.weight"])
    assert torch.equal(state["convs.0.noise_const"], arrays[0]["synthesis.b4.conv1.noise_const"])
    assert (tmp_path / "model" / "discriminator.safetensors").exists()
    assert not Path("run-by-the-import").exists()
    out = generate(GenerateSettings(5, tmp_path / "model", tmp_path / "out"))
    assert out == tmp_path / "out"
    with pytest.raises(UserError, match="holds a model already"):
        import_model(ImportSettings(file, tmp_path / "model"))


@pytest.mark.parametrize("name", ["uncond", "cond", "clamp"])
def test_images_of_an_imported_pickle_equal_the_reference(
    name: str, official: Any, tmp_path: Path, real_weights: Path
) -> None:
    file = real_weights.parent / "vectors" / f"stylegan2_{name}_32px.npz"
    if not file.exists():
        pytest.skip("no reference arrays beside the weights")
    arrays = np.load(file)
    nets = [
        {key[2:]: torch.from_numpy(arrays[key]) for key in arrays.files if key.startswith(which)}
        for which in ("G/", "D/")
    ]
    clamp = {"conv_clamp": 0.4} if name == "clamp" else {}
    content = {
        "G_ema": nested(official, "Generator", nets[0], False, architecture="skip", **clamp),
        "D": nested(official, "Discriminator", nets[1], False, architecture="resnet", **clamp),
    }
    (tmp_path / "n.pkl").write_bytes(pickle.dumps(content))
    network: Any = load_model(
        import_model(ImportSettings(tmp_path / "n.pkl", tmp_path / "m")), precision="fp32"
    ).network
    labels = torch.from_numpy(arrays["c"]) if name == "cond" else None
    images = network.synthesis(
        network.styles(torch.from_numpy(arrays["z"]), labels, 0.7), network.constant_noise()
    )
    torch.testing.assert_close(images, torch.from_numpy(arrays["img_psi0.7"]), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"architecture": "orig"}, "architecture 'orig'"),
        ({"activation": "relu"}, "activation 'relu'"),
    ],
)
def test_other_networks_are_refused(
    facts: dict[str, str], message: str, official: Any, tmp_path: Path
) -> None:
    file = _file(official, tmp_path / "x.pkl", **facts)
    with pytest.raises(UserError, match=message):
        import_model(ImportSettings(file, tmp_path / "m"))
    (tmp_path / "y.pkl").write_bytes(
        pickle.dumps({"G_ema": official.Network("Generator", _parameters={"input.freqs": torch.zeros(3)})})
    )
    with pytest.raises(UserError, match="not part of a StyleGAN2 generator"):
        import_model(ImportSettings(tmp_path / "y.pkl", tmp_path / "m"))


class _Asks:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def _codecs_trick() -> bytes:
    """A name put together out of parts, so that no scan for strings would find it."""
    return b"\x80\x02c_codecs\ndecode\n(X\x06\x00\x00\x00cevsbaX\x05\x00\x00\x00rot13tR."


HOSTILE: dict[str, tuple[bytes, str]] = {
    "os.system": (pickle.dumps(_Asks(os.system, "touch run-by-the-import")), "posix.system"),
    "eval": (pickle.dumps(_Asks(eval, "open('run-by-the-import', 'w')")), "builtins.eval"),
    "protocol 0": (b"cos\nsystem\n(S'touch run-by-the-import'\ntR.", "neither a pickle"),
    "protocol 2": (b"\x80\x02cos\nsystem\n(X\x05\x00\x00\x00touchtR.", "os.system"),
    "nested": (
        pickle.dumps({"G_ema": [_Asks(collections.OrderedDict, [[1, _Asks(os.getcwd)]])]}),
        "posix.getcwd",
    ),
    "codecs": (_codecs_trick(), "_codecs.decode"),
    "getattr": (b"\x80\x02c__builtin__\ngetattr\n.", "__builtin__.getattr"),
    "dotted name": (b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.", "OrderedDict.__init__"),
    "inst": (b"\x80\x02(ios\nsystem\n.", "the opcode INST"),
    "obj": (b"\x80\x02(cos\nsystem\no.", "os.system"),
    "extension": (b"\x80\x02\x82\x01.", "the opcode EXT1"),
    "persistent": (b"\x80\x02X\x01\x00\x00\x00aQ.", "outside the file"),
    "call of a value": (b"\x80\x02K\x01)R.", "a call of int"),
    "state of a value": (b"\x80\x02]}X\x01\x00\x00\x00aK\x01sb.", "setting up of list"),
    "tensorflow": (b"\x80\x02cdnnlib.tflib.network\nNetwork\n.", "TensorFlow"),
    "torch.load": (pickle.dumps(_Asks(torch.load, "x")), "torch.serialization.load"),
    "numpy.load": (b"\x80\x02cnumpy\nload\n.", "numpy.load"),
    "long string": (b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"abc.", "damaged"),
    "long bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"abc.", "damaged"),
    "frame": (b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b".", "damaged"),
    "memo": (b"\x80\x02K\x01r\xff\xff\xff\x7f" + b"0K\x02.", "holds no G_ema"),
    "empty": (b"", "neither a pickle"),
    "cut short": (pickle.dumps({"G_ema": [1, 2, 3]})[:-3], "damaged|ends too early"),
    "deep": (b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".", "holds no G_ema"),
    "unhashable": (b"\x80\x02}]K\x01s.", "damaged"),
    "mark": (b"\x80\x02t.", "damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_do_nothing_and_are_named(name: str, tmp_path: Path) -> None:
    content, message = HOSTILE[name]
    (tmp_path / "evil.pkl").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=message) as raised:
            import_model(ImportSettings(tmp_path / "evil.pkl", tmp_path / "model"))
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()
    assert "evil.pkl" in str(raised.value) and "\n" not in str(raised.value)
    assert not Path("run-by-the-import").exists() and not (tmp_path / "model").exists()


def _storage_bytes(values: torch.Tensor) -> bytes:
    stream = io.BytesIO()
    torch.save(values.storage(), stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_tensors_larger_than_their_storage_are_refused() -> None:
    content = _storage_bytes(torch.arange(4.0))

    def pickled(
        size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, raw: bytes = content
    ) -> bytes:
        inner = _Asks(torch.storage._load_from_bytes, raw)
        return pickle.dumps(_Asks(torch._utils._rebuild_tensor_v2, inner, offset, size, stride, False, {}))

    whole = read_pickle(pickled((2, 2), (2, 1)))
    assert torch.equal(whole, torch.arange(4.0).reshape(2, 2))
    assert read_pickle(pickled((0, 5), (5, 1))).shape == (0, 5)
    for size, stride, offset in (
        ((1 << 40,), (0,), 0),
        ((4,), (1,), 1),
        ((2, 2), (3, 1), 0),
        ((1,), (1,), 9),
    ):
        with pytest.raises(UserError, match="in a storage of 4"):
            read_pickle(pickled(size, stride, offset))
    for size, stride in (((-1,), (1,)), ((2,), (-1,)), ((2,), (1, 1)), ((True,), (1,))):
        with pytest.raises(UserError, match="damaged"):
            read_pickle(pickled(size, stride))
    for broken in (content[:-5], content.replace(struct.pack("<q", 4), struct.pack("<q", 1 << 50)), b"abc"):
        with pytest.raises(UserError, match="damaged|too early"):
            read_pickle(pickled((4,), (1,), raw=broken))


def test_modules_within_themselves_end() -> None:
    memo = (
        b"\x80\x02ctorch_utils.persistence\n_reconstruct_persistent_obj\n(}(X\x05\x00\x00\x00state}q\x01utR"
    )
    # the state's _modules hold the module itself
    loop = memo + b"q\x02h\x01X\x08\x00\x00\x00_modules}X\x01\x00\x00\x00ah\x02ss0."
    module = read_pickle(loop)
    with pytest.raises(UserError, match="more parts than any network has"):
        module.tensors()


def test_numbers_of_numpy_are_read_without_numpy() -> None:
    for value in (np.float64(0.5), np.float32(0.5), np.int64(3), 2, 0.25):
        assert number(read_pickle(pickle.dumps(value))) == float(value)
    assert number(read_pickle(pickle.dumps(np.zeros(3)))) is None and number(None) is None


def test_limits_that_are_not_the_same_everywhere(official: Any, tmp_path: Path) -> None:
    """In the generator they are refused; a discriminator with another than the generator's is left out."""
    arrays = _arrays()
    generator = nested(official, "Generator", arrays[0], False, conv_clamp=256)
    judge = nested(official, "Discriminator", arrays[1], False, conv_clamp=None)
    (tmp_path / "n.pkl").write_bytes(pickle.dumps({"G_ema": generator, "D": judge}))
    assert not (
        import_model(ImportSettings(tmp_path / "n.pkl", tmp_path / "m")) / "discriminator.safetensors"
    ).exists()
    block = generator.meta["state"]["_modules"]["synthesis"].meta["state"]["_modules"]["b8"]
    block.meta["state"]["_modules"]["torgb"].meta["state"]["conv_clamp"] = None
    (tmp_path / "o.pkl").write_bytes(pickle.dumps({"G_ema": generator}))
    with pytest.raises(UserError, match="different limits"):
        import_model(ImportSettings(tmp_path / "o.pkl", tmp_path / "o"))
