"""Trained generators for the page of ``detect serve``: found below a folder, loaded when one is asked for."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossfake.errors import UserError
from crossfake.images import Images
from crossfake.runs import DEFAULT_ROOT, Run
from crossfake.synth.families.base import FAMILIES
from crossfake.synth.sampling.interpolation import frames
from crossfake.synth.sampling.latents import LAYERS, has_styles, mixing_table, render, styled, vectors_of
from crossfake.synth.sampling.models import CARD, WEIGHTS, Model, load_model

_MOST_LOADED = 2  # models kept in memory


class RunGenerators:
    """The generators of finished runs, and of model folders, below ``root``.

    Pictures are those of ``synth grid`` and ``synth interpolate``: seed s is image 0 of ``synth generate --seed s``.
    Its methods may be called from several threads, and raise :class:`crossfake.errors.UserError`:
    an unknown name, a damaged model, a generator that cannot do what is asked.

    Args:
        root: searched anew whenever names are asked for.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Example:
        >>> RunGenerators(Path("runs")).sample("stylegan2", [1, 2], psi=0.7).shape  # doctest: +SKIP
        (2, 64, 64, 3)
    """

    def __init__(self, root: Path = DEFAULT_ROOT, device: str = "auto") -> None:
        self.root, self.device = Path(root), device
        self._loaded: dict[tuple[str, float], Model] = {}  # the one used last at the end
        self._lock = threading.Lock()  # one picture after the other: they share cores and memory anyway

    def names(self) -> list[str]:
        """Folders below ``root`` with a generator that makes pictures of its own, the newest first."""
        found = sorted(self._found().items(), key=lambda pair: (-pair[1].stat().st_mtime, pair[0]))
        return [name for name, _ in found]

    def layers(self, name: str) -> tuple[str, ...]:
        """Which groups of styles it has: of ``coarse``, ``middle`` and ``fine`` as many as its size allows.

        Raises:
            UserError: there is no such generator, or it is damaged.
        """
        with self._lock:
            model = self._model(name)
            if not has_styles(model):
                return ()
            return tuple(key for key, part in LAYERS.items() if range(styled(model).num_ws)[part])

    def sample(self, name: str, seeds: Sequence[int], psi: float) -> Images:
        """A picture for every seed, uint8 ``[N, S, S, 3]``."""
        with self._lock:
            model = self._model(name)
            return render(model, vectors_of(model, seeds), psi)

    def interpolate(self, name: str, seeds: Sequence[int], psi: float, steps: int) -> Images:
        """The looped walk through the seeds, uint8 ``[N·steps, S, S, 3]``: along w where there are styles, else z.

        Raises:
            UserError: fewer than two seeds.
        """
        if len(seeds) < 2:
            raise UserError("a walk from one seed leads nowhere", hint="name two seeds or more")
        with self._lock:
            model = self._model(name)
            space = "w" if has_styles(model) else "z"
            return np.concatenate(list(frames(model, seeds, space, steps, psi)))

    def mix(self, name: str, rows: Sequence[int], columns: Sequence[int], layers: str, psi: float) -> Images:
        """A captioned sheet uint8 ``[H, W, 3]``: every row's picture with some styles of every column's."""
        with self._lock:
            return mixing_table(self._model(name), rows, columns, layers, psi)

    def _found(self) -> dict[str, Path]:
        """Names, and the cards of their models."""
        found = {}
        for card in self.root.glob(f"**/{CARD}"):
            folder = card.parent
            run = Run(folder.parent)
            of_run = folder.name == "model" and run.config_file.exists()
            if (of_run and not run.finished) or not (folder / WEIGHTS).is_file() or not _makes_pictures(card):
                continue
            name = (folder.parent if folder.name == "model" else folder).relative_to(self.root).as_posix()
            found[name] = card
        return found

    def _model(self, name: str) -> Model:
        card = self._found().get(name)  # by the names that were found, so that no path leads elsewhere
        if card is None:
            raise UserError(f"there is no generator {name!r}", hint="choose one of the list")
        key = (name, card.stat().st_mtime)
        model = self._loaded.pop(key, None) or load_model(card.parent, self.device)
        self._loaded[key] = model
        while len(self._loaded) > _MOST_LOADED:
            self._loaded.pop(next(iter(self._loaded)))
        return model


def _makes_pictures(card: Path) -> bool:
    """Whether a generator takes nothing but random numbers: no photos, no pool of pictures made elsewhere, no hub."""
    try:
        facts: dict[str, Any] = json.loads(card.read_text())
        generator: Any = FAMILIES.get(facts["family"]).generator
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return False
    return (
        facts["family"] != "pipeline"
        and not hasattr(generator, "take")
        and not getattr(generator, "needs_photos", False)
        and not facts.get("needs_photos", False)
    )
