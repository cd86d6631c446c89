"""The audit of what a detector is trained on: made before every training, kept, and attached to its results."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from crossfake import __version__
from crossfake.datasets.audit.audit import (
    audit,
)
from crossfake.datasets.audit.settings import AuditSettings
from crossfake.datasets.losses import losses_of, shares
from crossfake.datasets.shards import ShardSet
from crossfake.errors import UserError
from crossfake.files import write_json
from crossfake.provenance import hash_json
from crossfake.weights import locate

_LIMIT = 500  # images of each class: what differs enough to be learnt shows in these


def audit_training(
    real: Sequence[Path], fake: Sequence[Path], split: tuple[str, ...] = ("train", "")
) -> dict[str, Any]:
    """Verdict on the rows of shard folders that a detector trains on, or on those of another split.

    The same data is audited once: the result is kept below ``$XDG_CACHE_HOME/crossfake/audits`` by the shards' hashes.

    Returns:
        ``verdict`` (``pass``, ``warn``, ``fail``, or ``not run``), ``summary`` in one line, and ``probes``: name to
        AUC, its interval and verdict.
    """
    sets = [[ShardSet(folder) for folder in folders] for folders in (real, fake)]
    facts = [
        sorted((shards.hash, *sorted(shares(losses_of(shards)).items())) for shards in part) for part in sets
    ]
    key = hash_json([__version__, facts, _LIMIT, split, locate("yunet") is not None])
    file = _folder() / f"{key}.json"
    with suppress(OSError, ValueError):
        kept: dict[str, Any] = json.loads(file.read_text())
        return kept
    words = [tuple(str(folder) for folder in folders) for folders in (real, fake)]
    try:
        found = audit(AuditSettings(words[0], words[1], limit=_LIMIT, split=split, workers=1))
    except UserError as error:  # a training is not stopped for want of a second opinion
        return {"verdict": "not run", "summary": f"audit: not run: {error}", "probes": {}}
    result = {
        "verdict": found.verdict,
        "summary": found.summary(),
        "probes": {
            probe.name: {"auc": probe.auc, "low": probe.low, "high": probe.high, "verdict": probe.verdict}
            for probe in found.probes
        },
    }
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, result)
    return result


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crossfake" / "audits"
