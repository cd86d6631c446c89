"""The audit: can real be told from fake by something that has nothing to do with forgery?

Detectors that are trained on such data learn the file format, the size or the crop instead of the forgery, and look
better than they are (Grommelt et al. 2024, "Fake or JPEG?"; Torralba and Efros 2011, "Unbiased look at dataset bias").
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from crossfake.datasets.audit.checks import run_checks
from crossfake.datasets.audit.features import Facts, look_at_all
from crossfake.datasets.audit.probes import run_probes
from crossfake.datasets.audit.report import Audit
from crossfake.datasets.audit.sample import sample, survey
from crossfake.datasets.audit.settings import CLASSES, AuditSettings
from crossfake.errors import UserError
from crossfake.executor import LOCAL, ExecutorSettings
from crossfake.progress import tqdm
from crossfake.weights import find_weights, locate


def audit(settings: AuditSettings, where: ExecutorSettings = LOCAL) -> Audit:
    """Look at up to ``limit`` pictures of each class, and say what gives them away besides forgery.

    Args:
        settings: what to look at.
        where: what measures the pictures: this machine, or tasks of Ray.

    Returns:
        the verdict with all that led to it. With ``settings.out`` it is written there too, as ``audit.json`` and
        ``audit.html``.

    Raises:
        UserError: a source is not there or holds no picture of its class, or no picture of a class can be read.

    Example:
        >>> found = audit(AuditSettings(real=("photos",), fake=("fakes",)))  # doctest: +SKIP
        >>> found.verdict, found.summary()  # doctest: +SKIP
        ('fail', 'audit: FAIL: file format (AUC 1.00), size (AUC 0.98); 3 warnings')
    """
    face_model = find_weights("yunet", settings.face_model) if settings.face_model else locate("yunet")
    found = survey(settings)
    count = sum(min(settings.limit, found.total(label)) for label in (0, 1))
    with_pictures = settings.out is not None
    measured = look_at_all(sample(settings, found), count, settings.workers, face_model, with_pictures, where)
    everything = list(tqdm(measured, desc="audit", unit="img", total=count))
    corrupt = [fact for fact in everything if fact.problem]
    facts = [fact for fact in everything if not fact.problem]
    _check_enough(facts, corrupt)
    with warnings.catch_warnings(action="ignore"):
        probes = run_probes(facts, settings, face_model is not None)
        checks = run_checks(facts, corrupt, found)
    result = Audit(settings, probes, checks, _numbers(facts), dict(found.hashes))
    if settings.out is not None:
        from crossfake.datasets.audit.page import write

        write(result, facts, settings.out)
    return result


def _check_enough(facts: Sequence[Facts], corrupt: Sequence[Facts]) -> None:
    for label, name in enumerate(CLASSES):
        if not any(fact.label == label for fact in facts):
            unread = [fact for fact in corrupt if fact.label == label]
            raise UserError(
                f"none of {len(unread):,} {name} pictures can be read ({unread[0].name}: {unread[0].problem})",
                hint=f"name another source with --{name}",
            )


def _numbers(facts: Sequence[Facts]) -> dict[str, Any]:
    return {name: sum(fact.label == label for fact in facts) for label, name in enumerate(CLASSES)}
