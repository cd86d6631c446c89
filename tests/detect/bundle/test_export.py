import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from crossfake.datasets.shards import ShardSet
from crossfake.detect.bundle import calibration, driver, export
from crossfake.detect.bundle.bundle import load
from crossfake.detect.bundle.export import Portable
from crossfake.detect.bundle.portable import OnnxNetwork, open_session
from crossfake.detect.commands.export import export as command
from crossfake.detect.commands.predict import predict as predict_command
from crossfake.detect.prediction.predict import predict
from crossfake.detect.settings import ExportSettings
from crossfake.detect.view import View
from crossfake.errors import UserError

from ..conftest import make_fit

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def bundle(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with every kind of number in its calibration, exported once."""
    folder = Path(shutil.copytree(trained / "model", tmp_path_factory.mktemp("export") / "bundle"))
    card = json.loads((folder / "bundle.json").read_text())
    card["calibration"] = {"method": "beta", "a": 0.7, "b": 1.3, "c": -0.2}
    (folder / "bundle.json").write_text(json.dumps(card))
    found = CliRunner().invoke(command, ["--bundle", str(folder)])
    assert found.exit_code == 0, found.output
    assert "logits agree to" in found.output and "images of" in found.output
    return make_fit(folder)


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


def test_every_way_to_a_score_gives_the_same(bundle: Path, fake: Path, tmp_path: Path) -> None:
    """The command line, Python, both back ends and the bare ONNX file; the web app calls the same Python."""
    import onnxruntime

    images = ShardSet(fake).read_many(range(5))
    detector = load(bundle, "cpu", "fp32")
    wanted = detector.score(images)
    by_onnx = load(bundle, backend="onnx")
    assert by_onnx.score(images) == pytest.approx(wanted, abs=1e-5)
    assert by_onnx.outputs(images)[1] == pytest.approx(detector.outputs(images)[1], abs=1e-4)
    bare = onnxruntime.InferenceSession(bundle / "model.onnx")
    for count in (1, 5):
        _, _, scores = bare.run(None, {"images": images[:count]})
        assert scores == pytest.approx(wanted[:count], abs=1e-5)
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    files = [tmp_path / f"{number}.png" for number in range(5)]
    assert [detector(file) for file in files] == wanted.tolist()
    assert [by_onnx(file) for file in files] == pytest.approx(wanted, abs=1e-5)
    assert [each.probability for each in predict(files, detector)] == wanted.tolist()
    for backend in ("torch", "onnx"):
        words = [*map(str, files), "--bundle", str(bundle), "--json", "--workers", "1", "--precision", "fp32"]
        found = CliRunner().invoke(predict_command, [*words, "--backend", backend])
        assert found.exit_code == 0, found.output
        judged = json.loads(found.stdout)["files"]
        assert [each["probability"] for each in judged] == pytest.approx(wanted, abs=1e-5)


def test_the_file_says_what_it_is(bundle: Path) -> None:
    facts = {p.key: p.value for p in onnx.load(bundle / "model.onnx").metadata_props}
    found = json.loads(facts["crossfake"])
    assert found["weights"] == load(bundle, "cpu").hash and found["int8"] is False
    assert found["card"]["calibration"]["method"] == "beta" and found["labels"] == ["real", "fake"]
    assert str(Path(export.__file__).parent).encode() not in (bundle / "model.onnx").read_bytes()


def test_gradients_through_onnx_are_one_line(bundle: Path) -> None:
    with pytest.raises(UserError, match="no gradients"):
        load(bundle, backend="onnx").network(torch.zeros(1, 3, 16, 16))


def test_missing_stale_and_hostile_files_are_refused(copy: Path, tmp_path: Path) -> None:
    file = copy / "model.onnx"
    good = file.read_bytes()
    model = onnx.load_model_from_string(good)
    assert len(model.graph.initializer)
    outside = onnx.load_model_from_string(good)
    tensor = outside.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    unknown = onnx.load_model_from_string(good)
    unknown.graph.node[0].op_type, unknown.graph.node[0].domain = "RunCommand", "evil"
    foreign = onnx.load_model_from_string(good)
    del foreign.metadata_props[:]
    renamed = onnx.load_model_from_string(good)
    renamed.graph.output[0].name = "score"
    spoilt = [outside, unknown, foreign, renamed]
    for content in (b"", b"\x80\x04pickle", good[: len(good) // 2], *(m.SerializeToString() for m in spoilt)):
        file.write_bytes(content)
        with pytest.raises(UserError, match="is no ONNX file of a detector") as raised:
            load(copy, backend="onnx")
        assert "\n" not in str(raised.value)
    stale = onnx.load_model_from_string(good)
    facts = json.loads(stale.metadata_props[0].value)
    stale.metadata_props[0].value = json.dumps({**facts, "weights": "0" * 64})
    file.write_bytes(stale.SerializeToString())
    with pytest.raises(UserError, match="other weights"):
        load(copy, backend="onnx")
    file.unlink()
    with pytest.raises(UserError, match=r"there is no .*model\.onnx: make it again with 'detect export"):
        load(copy, backend="onnx")


@pytest.mark.parametrize("place", ["sparse_initializer", "sparse_tensor", "functions", "graphs"])
def test_tensors_in_other_files_are_found_wherever_they_hide(
    bundle: Path, tmp_path: Path, place: str
) -> None:
    model = onnx.load(bundle / "model.onnx")
    match place:
        case "sparse_initializer":
            tensor = model.graph.sparse_initializer.add().values
        case "sparse_tensor":
            tensor = model.graph.node.add(op_type="Constant").attribute.add(name="v").sparse_tensor.indices
        case "functions":
            tensor = model.functions.add(name="f").node.add(op_type="Constant").attribute.add(name="v").t
        case _:
            tensor = model.graph.node.add(op_type="If").attribute.add(name="v").graphs.add().initializer.add()
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(tmp_path / "secret"))
    with pytest.raises(ValueError, match="keeps weights in other files"):
        open_session(model.SerializeToString())


def test_int8_tells_what_it_costs_and_runs(copy: Path, real: Path) -> None:
    found = CliRunner().invoke(command, ["--bundle", str(copy), "--int8"])
    assert found.exit_code == 0, found.output
    assert "int8: AP" in found.output
    small, large = (copy / name for name in ("model-int8.onnx", "model.onnx"))
    assert small.stat().st_size < 0.5 * large.stat().st_size
    assert {node.op_type for node in onnx.load(small).graph.node} & {"QuantizeLinear", "DequantizeLinear"}
    images = ShardSet(real).read_many(range(5))
    detector, plain = load(copy, backend="onnx-int8"), load(copy, "cpu")
    assert isinstance(detector.network, OnnxNetwork) and detector.network.facts["int8"]
    moved = np.abs(detector.score(images) - plain.score(images)).max()
    assert 0 < moved < 0.3
    Image.fromarray(images[0]).save(copy / "x.png")
    words = [str(copy / "x.png"), "--bundle", str(copy), "--json", "--backend", "onnx-int8"]
    found = CliRunner().invoke(predict_command, words)
    assert found.exit_code == 0, found.output
    stale = onnx.load(small)
    (fact,) = (each for each in stale.metadata_props if each.key == "crossfake")
    fact.value = json.dumps({**json.loads(fact.value), "weights": "0" * 64})
    small.write_bytes(stale.SerializeToString())
    with pytest.raises(UserError, match="other weights.*--int8"):
        load(copy, backend="onnx-int8")


def test_torchscript_gives_the_same_and_carries_its_card(copy: Path, real: Path) -> None:
    report = export.export(ExportSettings(copy, "torchscript", images=(real,)))
    assert report["deviation"] <= 1e-4 and str(real) in report["on"]
    extra = {"crossfake.json": ""}
    module = torch.jit.load(report["out"], _extra_files=extra)
    images = ShardSet(real).read_many(range(7))
    _, _, scores = module(torch.from_numpy(images))
    assert scores.numpy() == pytest.approx(load(copy, "cpu", "fp32").score(images), abs=1e-5)
    assert json.loads(extra["crossfake.json"])["card"]["model"] == "cnn"


def test_without_photos_faces_are_drawn(copy: Path) -> None:
    card = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps({**card, "data_hashes": {"/gone": "0"}}))
    report = export.export(ExportSettings(copy, "torchscript", out=copy / "deep" / "m.ts"))
    assert "drawn faces" in report["on"] and Path(report["out"]).is_file()
    with pytest.raises(UserError, match="needs reals and fakes"):
        export._cost(load(copy, "cpu"), lambda images: images, np.zeros((2, 16, 16, 3)), np.zeros(2))  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("what", [0, 1, 2])
def test_a_file_that_deviates_is_not_written(copy: Path, monkeypatch: pytest.MonkeyPatch, what: int) -> None:
    make = export._torchscript

    def wrong(*arguments: Any) -> Any:
        content, run = make(*arguments)

        def deviating(images: Any) -> Any:
            found = list(run(images))
            found[what] = found[what] + 0.01
            return found

        return content, deviating

    monkeypatch.setattr(export, "_torchscript", wrong)
    with pytest.raises(UserError, match=r"deviate by 0\.0.*so no file was written"):
        export.export(ExportSettings(copy, "torchscript"))
    assert not (copy / "model.torchscript").exists()


def test_a_model_that_cannot_be_expressed_is_one_line(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no such operator\nand a page of advice")

    monkeypatch.setattr(torch.jit, "trace", fails)
    with pytest.raises(UserError, match=r"cnn cannot be written as torchscript \(no such operator\): try"):
        export.export(ExportSettings(copy, "torchscript"))


def test_bad_settings_are_one_line(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no format"):
        ExportSettings(copy, "coreml")
    with pytest.raises(UserError, match="int8 is for ONNX"):
        ExportSettings(copy, "torchscript", int8=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        export.export(ExportSettings(copy, "torchscript", out=tmp_path / "file" / "m.ts"))


@pytest.mark.parametrize("method", calibration.METHODS)
def test_exported_maps_are_the_bundles(method: str) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    fitted = calibration.fit(method, rng.normal(labels * 2 - 1, 1.5), labels)
    logits = np.linspace(-12, 12, 4001).astype(np.float32)
    found = Portable(torch.nn.Identity(), fitted).probability(torch.from_numpy(logits))  # type: ignore[arg-type]
    assert found.dtype == torch.float32
    assert found.numpy() == pytest.approx(calibration.probability(fitted, logits), abs=1e-5)


@pytest.fixture(scope="module")
def windows_bundle(native_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of native windows with a calibration, exported once."""
    folder = Path(shutil.copytree(native_run / "model", tmp_path_factory.mktemp("export") / "native"))
    card = json.loads((folder / "bundle.json").read_text())
    card["calibration"] = {"method": "beta", "a": 0.7, "b": 1.3, "c": -0.2}
    (folder / "bundle.json").write_text(json.dumps(card))
    found = CliRunner().invoke(command, ["--bundle", str(folder)])
    assert found.exit_code == 0, found.output
    assert f"python {folder / 'model.py'} FACE.png" in found.output and "images of" in found.output
    return make_fit(folder)


def test_the_driver_of_a_native_detector_scores_as_predict_does(
    windows_bundle: Path, native: tuple[Path, Path], tmp_path: Path
) -> None:
    """One score for one crop: command line, Python, the back end, and the script beside the bare ONNX file."""
    images = ShardSet(native[1]).read_each(range(5))
    detector = load(windows_bundle, "cpu")
    wanted = detector.score(images)
    assert load(windows_bundle, backend="onnx").score(images) == pytest.approx(wanted, abs=1e-5)
    files = [tmp_path / f"{number}.png" for number in range(5)]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    assert [each.probability for each in predict(files, detector)] == pytest.approx(wanted, abs=1e-9)
    small = tmp_path / "small.png"
    Image.fromarray(images[0][:12]).save(small)
    script = subprocess.run(
        [sys.executable, "-I", str(windows_bundle / "model.py"), *map(str, files), str(small)],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line.split() for line in script.stdout.splitlines()]
    assert [float(score) for score, *_ in lines] == pytest.approx(wanted, abs=1e-5)
    assert [word for _, word, _ in lines] == ["fake" if x >= detector.threshold else "real" for x in wanted]
    assert script.returncode == 2 and "×12 is smaller than the window of 16" in script.stderr


@pytest.mark.parametrize("method", calibration.METHODS)
def test_the_driver_places_and_calibrates_as_the_package(method: str) -> None:
    for shape in ((16, 16), (17, 40), (31, 23), (200, 64)):
        for count in (1, 5, 9, 12, 30):
            expected = View("native", 16).places(shape, count)
            assert driver.places(*shape, 16, count) == [tuple(at) for at in expected.tolist()]
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    fitted = calibration.fit(method, rng.normal(labels * 2 - 1, 1.5), labels)
    logits = np.linspace(-40, 40, 81)
    found = [driver.probability(fitted, float(logit)) for logit in logits]
    assert found == pytest.approx(calibration.probability(fitted, logits), abs=1e-9)


def test_the_driver_needs_a_picture_and_nothing_of_the_package() -> None:
    assert driver.main([]) == 2
    assert "import crossfake" not in Path(driver.__file__).read_text()
    assert "from crossfake" not in Path(driver.__file__).read_text()


def test_native_and_resized_images_are_told_apart(
    windows_bundle: Path, copy: Path, real: Path, native: tuple[Path, Path]
) -> None:
    with pytest.raises(UserError, match="resized: a native view"):
        export.export(ExportSettings(windows_bundle, "torchscript", images=(real,)))
    with pytest.raises(UserError, match="which an aligned view does not take"):
        export.export(ExportSettings(copy, "torchscript", images=(native[0],)))
    report = export.export(ExportSettings(windows_bundle, "torchscript", images=native))
    assert str(native[0]) in report["on"] and "driver" not in report


def test_int8_of_windows_tells_what_it_costs(windows_bundle: Path, native: tuple[Path, Path]) -> None:
    report = export.export(ExportSettings(windows_bundle, int8=True))
    assert report["measured"] == 24 and report["driver"].endswith("model-int8.py")
