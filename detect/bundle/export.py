"""A detector as one file for other programs: ONNX or TorchScript, checked against the original before it is kept."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossfake import __version__
from crossfake.datasets.shards import ShardSet
from crossfake.datasets.toyfaces import toyface
from crossfake.datasets.types import Pixels
from crossfake.detect.bundle import bundle, driver
from crossfake.detect.bundle.bundle import Detector, logits_and_features
from crossfake.detect.bundle.portable import INPUT, INT8, METADATA, ONNX, OUTPUTS, blank, open_session
from crossfake.detect.models import DetectorNetwork
from crossfake.detect.settings import ExportSettings
from crossfake.detect.verdict import LABELS
from crossfake.detect.view import Windows
from crossfake.detect.whole import Whole
from crossfake.errors import MissingDependency, UserError
from crossfake.files import write_bytes
from crossfake.stats import ranking

FORMATS = {"onnx": ONNX, "torchscript": "model.torchscript"}
TOLERANCE = 1e-4
_CHECKED = 64
_MEASURED = 2000
_BATCH = 16

Found = tuple[npt.NDArray[np.float64], npt.NDArray[np.float32], npt.NDArray[np.float64]]


class Portable(nn.Module):
    """uint8 ``images`` ``[N, H, W, 3]`` to logit ``[N]``, features ``[N, F]`` and calibrated probability ``[N]``."""

    def __init__(self, network: DetectorNetwork, calibration: dict[str, Any]) -> None:
        super().__init__()
        self.network, self.method = network, str(calibration["method"])
        if self.method == "isotonic":
            x = torch.tensor(calibration["logits"], dtype=torch.float64)
            y = torch.tensor(calibration["probabilities"], dtype=torch.float64)
            self.start, self.rise = nn.Buffer(x[:-1]), nn.Buffer(y.diff())
            self.width = nn.Buffer(x.diff().clamp_min(1e-12))
            self.lowest = float(y[0])
        else:
            self.parameters_ = [
                float(calibration[k]) for k in ("temperature", "a", "b", "c") if k in calibration
            ]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch = images.permute(0, 3, 1, 2).float() / 255
        logits, features = logits_and_features(self.network, batch)
        return logits, features.float(), self.probability(logits)

    def probability(self, logits: Tensor) -> Tensor:
        """As :func:`crossfake.detect.bundle.calibration.probability`."""
        if self.method == "temperature":
            return torch.sigmoid(logits / self.parameters_[0])
        if self.method == "beta":
            a, b, c = self.parameters_
            return torch.sigmoid(a * F.logsigmoid(logits) - b * F.logsigmoid(-logits) + c)
        climbed = ((logits.double()[:, None] - self.start) / self.width).clamp(0, 1)
        return (self.lowest + (climbed * self.rise).sum(dim=1)).float()


def export(settings: ExportSettings) -> dict[str, Any]:
    """Write the file, unless it disagrees with the original.

    Returns:
        ``out``; ``bytes``; ``checked``, number of images, and ``on``, what they are; ``deviation``, the largest
        difference of a logit; ``driver``, the script beside an ONNX file of a native view; for int8 also ``ap``,
        ``ap_int8`` and ``score_deviation``.

    Raises:
        UserError: a missing package, a model that the format cannot express, or a deviation above 1e-4.
    """
    _need(settings.format)
    detector = bundle.load(settings.bundle, "cpu", "fp32")
    if isinstance(detector.view, Whole) and not detector.view.fixed:
        raise UserError(
            f"{detector.card['model']} sees pictures of any size, and an exported file takes one",
            hint="use the bundle itself",
        )
    name = INT8 if settings.int8 else FORMATS[settings.format]
    out = Path(settings.out) if settings.out else detector.path / name
    images, labels, kind = _images(settings, detector, _MEASURED if settings.int8 else _CHECKED)
    checked = images[np.linspace(0, len(images) - 1, min(_CHECKED, len(images))).astype(int)]
    module = Portable(detector.network.to(memory_format=torch.contiguous_format), detector.calibration).eval()
    facts = {
        "crossfake": __version__,
        "labels": LABELS,
        "weights": detector.hash,
        "int8": settings.int8,
        # whose paths are of this disk only
        "card": {**detector.card, "data_hashes": sorted((detector.card.get("data_hashes") or {}).values())},
    }
    make = _onnx if settings.format == "onnx" else _torchscript
    try:
        with _quiet():
            content, run = make(module, detector.size, json.dumps(facts, default=str))
    except Exception as error:  # exporters raise many kinds of error for what they cannot express
        reason = (str(error) or type(error).__name__).strip().partition("\n")[0]
        raise UserError(
            f"{detector.card['model']} cannot be written as {settings.format} ({reason})",
            hint="try the other --format",
        ) from error
    report = {"checked": len(checked), "on": kind, "deviation": _check(detector, run, checked)}
    if settings.int8:
        with _quiet():
            content, run = _int8(content, checked, json.dumps(facts, default=str))
        report |= _cost(detector, run, images, labels)
    _write(out, content)
    if detector.view.native and not detector.view.whole and settings.format == "onnx":
        script = out.with_suffix(".py")
        _write(script, Path(driver.__file__).read_bytes())
        report["driver"] = str(script)
    return {"out": str(out), "bytes": len(content), **report}


def _need(kind: str) -> None:
    if kind == "onnx":
        for package in ("onnx", "onnxruntime", "onnxscript"):
            try:
                __import__(package)
            except ImportError as error:
                raise MissingDependency(package, extra="export") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters talk about their own insides; what matters is checked afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _images(
    settings: ExportSettings, detector: Detector, most: int
) -> tuple[Pixels, npt.NDArray[np.int64], str]:
    """Images to check on, of native ones the middle window, their labels, and what they are."""
    folders = [Path(folder) for folder in settings.images]
    if not folders:
        folders = [Path(folder) for folder in detector.card.get("data_hashes") or {} if Path(folder).is_dir()]
    sets = [ShardSet(folder) for folder in folders]
    for shards in sets if settings.images else ():
        detector.check_data(shards, force=True)
    images, labels = [], []
    for shards in (each for each in sets if _fits(each, detector)):
        rows = shards.select(split="val")
        rows = rows if len(rows) else shards.select(split=["train", ""])
        rows = np.random.default_rng(0).permutation(rows)[: max(1, most // len(sets))]
        if len(rows):
            found, rows, _ = detector.view.read(shards, rows, 1)
            images.append(found.images if isinstance(found, Windows) else found)
            labels.append(shards.columns["label"][rows].astype(np.int64))
    if images:
        return np.concatenate(images), np.concatenate(labels), "images of " + ", ".join(map(str, folders))
    if settings.images:
        raise UserError(f"{folders[0]} has test rows only", hint="name shards with validation rows")
    drawn = np.stack([toyface(seed, detector.size) for seed in range(_CHECKED)])
    return drawn, np.zeros(len(drawn), np.int64), "drawn faces, for want of photos"


def _fits(shards: ShardSet, detector: Detector) -> bool:
    if detector.view.whole:
        return True
    return shards.native if detector.view.native else shards.size == detector.size


def _onnx(module: Portable, size: int, facts: str) -> tuple[bytes, Callable[[Pixels], Found]]:
    program = torch.onnx.export(
        module,
        (torch.from_numpy(blank(2, size)),),
        dynamo=True,
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        verbose=False,
    )
    if program is None:
        raise RuntimeError("the exporter returned nothing")
    return _finished(program.model_proto, facts)


def _finished(model: Any, facts: str) -> tuple[bytes, Callable[[Pixels], Found]]:
    """Embed the facts, drop what the exporter notes of this machine, and open the result."""
    import onnx

    for item in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        del item.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
    onnx.helper.set_model_props(model, {METADATA: facts})
    content = model.SerializeToString()
    session = open_session(content)
    return content, lambda images: _typed(session.run(OUTPUTS, {INPUT: images}))


def _torchscript(module: Portable, size: int, facts: str) -> tuple[bytes, Callable[[Pixels], Found]]:
    with torch.inference_mode():
        traced = torch.jit.trace(module, torch.from_numpy(blank(2, size)), check_trace=False)
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer, _extra_files={f"{METADATA}.json": facts})
    content = buffer.getvalue()
    again = torch.jit.load(io.BytesIO(content))

    @torch.inference_mode()
    def run(images: Pixels) -> Found:
        return _typed([part.numpy() for part in again(torch.from_numpy(images))])

    return content, run


def _typed(found: Sequence[Any]) -> Found:
    return found[0].astype(np.float64), found[1].astype(np.float32), found[2].astype(np.float64)


def _batched(run: Callable[[Pixels], Found], images: Pixels) -> Found:
    """In batches of 16, the last one shorter: the batch must be free."""
    parts = [run(np.ascontiguousarray(images[i : i + _BATCH])) for i in range(0, len(images), _BATCH)]
    logits, features, probabilities = (np.concatenate(each) for each in zip(*parts, strict=True))
    return logits, features, probabilities


def _check(detector: Detector, run: Callable[[Pixels], Found], images: Pixels) -> float:
    """Largest deviation of a logit. Raises unless logits and features agree to 1e-4, relative where above 1."""
    seen = (
        Windows(images, np.ones(len(images), np.int64)) if detector.view.whole else images
    )  # resized already
    logits, features = detector.outputs(seen)
    try:
        found = _batched(run, images)
        alone = run(np.ascontiguousarray(images[:1]))
    except Exception as error:  # each runtime has errors of its own
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"the exported file does not run on every batch size ({reason})", hint="try the other --format"
        ) from error
    ends = [detector.probability(logits + sign * TOLERANCE) + sign * TOLERANCE for sign in (-1, 1)]
    deviations = {
        "logits": _deviation(found[0], logits),
        "logits of one image": _deviation(alone[0], logits[:1]),
        "features": _deviation(found[1], features),
        "probabilities": float(np.maximum(ends[0] - found[2], found[2] - ends[1]).max()) + TOLERANCE,
    }
    for name, deviation in deviations.items():
        if not deviation <= TOLERANCE:  # not a number is a deviation too
            raise UserError(
                f"the exported {name} deviate by {deviation:.2g}, more than {TOLERANCE:g}, so no file was written",
                hint="try the other --format",
            )
    return float(np.abs(found[0] - logits).max())


def _deviation(found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> float:
    if found.shape != wanted.shape:
        return float("inf")
    return float((np.abs(found - wanted) / np.maximum(1, np.abs(wanted))).max(initial=0))


def _int8(content: bytes, images: Pixels, facts: str) -> tuple[bytes, Callable[[Pixels], Found]]:
    """Static quantisation of convolutions and matrix products, ranges from ``images``."""
    import onnx

    quantization: Any = importlib.import_module("onnxruntime.quantization")  # it has no types
    batches = iter([{INPUT: images[i : i + _BATCH]} for i in range(0, len(images), _BATCH)])

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Any:
            return next(batches, None)

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.onnx"
        quantization.quantize_static(
            onnx.load_model_from_string(content),
            str(target),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MatMul"],
            per_channel=True,
            reduce_range=True,  # without VNNI, 8-bit products of full range overflow
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return _finished(onnx.load(str(target)), facts)


def _cost(
    detector: Detector, run: Callable[[Pixels], Found], images: Pixels, labels: npt.NDArray[np.int64]
) -> dict[str, Any]:
    """AP before and after on the images given."""
    if len(np.unique(labels)) < 2:
        raise UserError(
            "the AP that int8 costs needs reals and fakes", hint="name validation shards with --images"
        )
    seen = Windows(images, np.ones(len(images), np.int64)) if detector.view.whole else images
    before, after = detector.outputs(seen)[0], _batched(run, images)[0]
    change = np.abs(detector.probability(after) - detector.probability(before))
    return {
        "ap": ranking.average_precision(labels, before),
        "ap_int8": ranking.average_precision(labels, after),
        "score_deviation": float(change.max()),
        "measured": len(labels),
    }


def _write(out: Path, content: bytes) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(out, content)
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror})", hint="name another --out") from error
