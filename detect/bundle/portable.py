"""Detectors as ONNX files: reading one safely, running it with ONNX Runtime."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crossfake.datasets.types import Pixels
from crossfake.detect.models import DetectorNetwork
from crossfake.errors import MissingDependency, UserError

METADATA = "crossfake"
ONNX, INT8 = "model.onnx", "model-int8.onnx"
INPUT, OUTPUTS = "images", ("logit", "features", "probability")


class OnnxNetwork(DetectorNetwork):
    """Stands where a torch model stands in a detector; ``session`` is what runs.

    Attributes:
        session: ``onnxruntime.InferenceSession``, uint8 ``images`` ``[N, size, size, 3]`` to :data:`OUTPUTS`.
        facts: what ``detect export`` wrote into the file: hash of the weights, card, whether int8.
    """

    def __init__(self, session: Any, facts: dict[str, Any]) -> None:
        super().__init__()
        self.session, self.facts, self.head = session, facts, nn.Identity()

    def run(self, images: Pixels) -> list[Any]:
        """Logit ``[N]``, features ``[N, F]`` and probability ``[N]`` of uint8 ``[N, size, size, 3]``."""
        return list(self.session.run(OUTPUTS, {INPUT: images}))

    def features(self, images: Tensor) -> Tensor:
        raise UserError("ONNX Runtime gives scores but no gradients", hint="use the torch back end for this")


def open_session(model: bytes) -> Any:
    """``onnxruntime.InferenceSession`` on the CPU, with as many threads as torch has.

    Raises:
        UserError: ONNX Runtime is missing.
        ValueError: the model keeps tensors in other files, which could be any file of this machine.
    """
    try:
        import onnx

        onnxruntime: Any = importlib.import_module("onnxruntime")  # it has no types
    except ImportError as error:
        raise MissingDependency("onnxruntime", extra="export") from error
    whole = onnx.load_model_from_string(model)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(whole, onnx.TensorProto)):
        raise ValueError("it keeps weights in other files")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    # Bytes that are an ONNX and an ORT file at once would be checked as one and run as the other
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _tensors(message: Any, kind: type) -> Iterator[Any]:
    """All messages of a kind inside a protobuf message, wherever the format lets one be."""
    if isinstance(message, kind):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        entries = value.values() if hasattr(value, "values") and hasattr(value, "keys") else value
        for each in (entries,) if hasattr(entries, "ListFields") else entries:
            if hasattr(each, "ListFields"):  # a map of texts has a message type, its values have none
                yield from _tensors(each, kind)


def open_onnx(path: Path, weights: str, size: int) -> OnnxNetwork:
    """The ONNX file of a bundle, ready to run.

    Args:
        path: what ``detect export`` wrote.
        weights: SHA-256 of the bundle's weights, which must be the file's.
        size: side of the images that the bundle takes.

    Raises:
        UserError: it is not there, damaged, not of crossfake, or of other weights.
    """
    kind = " --int8" if path.name == INT8 else ""
    again = f"make it again with 'detect export --bundle {path.parent}{kind}'"
    if not path.is_file():
        raise UserError(f"there is no {path}", hint=again)
    try:
        session = open_session(path.read_bytes())
        facts = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
        found = facts["weights"]
        found_size = facts["card"]["size"]
        inputs = {each.name: (each.type, list(each.shape)[1:]) for each in session.get_inputs()}
        names = {each.name for each in session.get_outputs()}
        if inputs != {INPUT: ("tensor(uint8)", [size, size, 3])} or not names >= set(OUTPUTS):
            raise ValueError(f"it does not take images of {size}×{size} to {', '.join(OUTPUTS)}")
    except MissingDependency:
        raise
    except Exception as error:  # ONNX Runtime and protobuf have errors of their own, without a common parent
        reason = (str(error) or type(error).__name__).partition("\n")[0]
        raise UserError(f"{path} is no ONNX file of a detector ({reason})", hint=again) from error
    if found != weights or found_size != size:
        raise UserError(f"{path} is of other weights than the bundle's", hint=again)
    return OnnxNetwork(session, facts)


def blank(count: int, size: int) -> Pixels:
    """Blank images, to shape a graph with."""
    return np.zeros((count, size, size, 3), np.uint8)
