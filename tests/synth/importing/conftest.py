"""Files as the official repositories write them, without their code."""

import collections
import sys
import types
from typing import Any

import pytest
import torch


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Stand-ins for the modules whose names official pickles use."""
    persistence, util = types.ModuleType("torch_utils.persistence"), types.ModuleType("dnnlib.util")

    class EasyDict(dict[str, Any]):
        pass

    def _reconstruct_persistent_obj(meta: Any) -> None:
        raise AssertionError("the pickle was run")

    EasyDict.__module__, EasyDict.__qualname__ = "dnnlib.util", "EasyDict"
    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    util.EasyDict = EasyDict  # type: ignore[attr-defined]
    for name in ("torch_utils", "dnnlib"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", persistence)
    monkeypatch.setitem(sys.modules, "dnnlib.util", util)

    class Network:
        """What the official decorator makes of a module when it is pickled."""

        def __init__(self, class_name: str, **state: Any) -> None:
            self.meta = {
                "type": "class",
                "version": 6,
                "module_src": "import os\nos.system('touch run-by-the-import')\n",
                "class_name": class_name,
                "state": state,
            }

        def __reduce__(self) -> Any:
            return _reconstruct_persistent_obj, (EasyDict(self.meta),)

    return types.SimpleNamespace(Network=Network, EasyDict=EasyDict)


def nested(
    official: Any, class_name: str, arrays: dict[str, torch.Tensor], frozen: bool, **facts: Any
) -> Any:
    """A tree of modules from dotted names; ``frozen`` puts the weights among the buffers."""
    own = {key: value for key, value in arrays.items() if "." not in key}
    parts: dict[str, dict[str, torch.Tensor]] = collections.defaultdict(dict)
    for key, value in arrays.items():
        if "." in key:
            head, _, rest = key.partition(".")
            parts[head][rest] = value
    constant = (
        "resample_filter",
        "noise_const",
        "w_avg",
        "freqs",
        "phases",
        "transform",
        "magnitude_ema",
        "up_filter",
        "down_filter",
    )
    parameters = collections.OrderedDict(
        (key, torch.nn.Parameter(value)) for key, value in own.items() if key not in constant and not frozen
    )
    buffers = collections.OrderedDict((key, value) for key, value in own.items() if key in constant or frozen)
    inner = dict(facts)
    if "weight" not in own:
        inner.pop("conv_clamp", None)
    elif any(name in own for name in ("noise_strength",)):
        inner["activation"] = "lrelu"
    modules = collections.OrderedDict(
        (name, nested(official, "Part", part, frozen, **facts)) for name, part in parts.items()
    )
    return official.Network(class_name, _parameters=parameters, _buffers=buffers, _modules=modules, **inner)
