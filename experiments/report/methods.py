"""The paragraphs of a paper that say what was done, and the works they cite; every figure is the experiment's own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from crossfake.experiments.report.comparing import LEVEL, Finding
from crossfake.experiments.report.results import (
    FIGURES,
    NOT_KNOWN,
    PRIMARY,
    SECONDARY_RESAMPLES,
    Cell,
    Results,
)
from crossfake.experiments.report.tables import chance, sizes, tex
from crossfake.experiments.report.wording import firewall, join
from crossfake.synth.quality.table import head_of

LIBRARY = Path(__file__).with_name("references.bib")

# Names that ``detect train --model`` takes here; all others are timm's.
MODELS = {
    "cnn": (),
    "ensemble": (),
    "npr": ("tan2024rethinking", "he2016deep"),
    "frequency": ("frank2020leveraging",),
    "meso": ("afchar2018mesonet",),
    "meso4": ("afchar2018mesonet",),
    "published": (),
    "noise": ("fridrich2012rich", "bayar2016constrained"),
    "clip_probe": ("ojha2023towards", "radford2021learning"),
    "squeezenet": ("iandola2016squeezenet",),
}
_BACKBONES = {  # the first that the name of a timm model holds
    "dinov2": ("dosovitskiy2021image", "oquab2024dinov2"),
    "clip": ("radford2021learning",),
    "vit_": ("dosovitskiy2021image",),
    "swin_": ("liu2021swin",),
    "efficientnet": ("tan2019efficientnet",),
    "mobilenetv2": ("sandler2018mobilenetv2",),
    "mobilenetv3": ("howard2019searching",),
    "densenet": ("huang2017densely",),
    "xception": ("chollet2017xception",),
    "convnext": ("liu2022convnet",),
    "resnet": ("he2016deep",),
}
FAMILIES = {
    "stylegan2": ("karras2020analyzing",), "stylegan3": ("karras2021alias",), "stylegan3-r": ("karras2021alias",),
    "dcgan": ("radford2016unsupervised",), "r3gan": ("huang2024gan",),
    "diffusion": ("ho2020denoising",), "autoencoder": ("kingma2014auto",), "blend": ("shiohara2022detecting",),
    "splice": ("li2020face",), "swap": ("li2020face",), "external": (), "pipeline": (),
    "reconstruct": ("rajan2025aligned", "guillaro2025bias"),
}  # a table  # fmt: skip
RECIPES = {
    "plain": (),
    "robust": (),
    "wang2020": ("wang2020cnn",),
    "sbi": ("shiohara2022detecting", "wang2020cnn"),
    "native": (),
    "native-compression": (),
    "native-rescaling": (),
    "native-strong": (),
}
QUALITY = {
    "fid": ("heusel2017gans", "parmar2022aliased"), "fid_infinity": ("chong2020effectively",), "mifid": (),
    "kid": ("binkowski2018demystifying",), "precision": ("kynkaanniemi2019improved",),
    "recall": ("kynkaanniemi2019improved",), "density": ("naeem2020reliable",), "coverage": ("naeem2020reliable",),
    "lpips": ("zhang2018unreasonable",), "memory": ("zhang2018unreasonable",), "swd": ("karras2018progressive",),
    "spectrum": ("durall2020watch",),
    "detectability": (),
}  # a table  # fmt: skip
_CHOICES = {  # a model's options, and what they take up
    ("tune", "lora"): ("hu2022lora",),
    ("tune", "effort"): ("yan2025orthogonal",),
    ("head", "positive"): ("rajan2025stay",),
}
_UNIT = re.compile(r" ×10³$|, (?![^(]*\)).*$")  # at the end of a figure's name
_PERTURBATIONS = {"pgd": ("madry2018towards",)}


class Cited:
    """Works in the order in which they were cited first."""

    def __init__(self) -> None:
        self.keys: dict[str, None] = {}

    def __call__(self, keys: Iterable[str]) -> str:
        """``~\\cite{a,b}`` to stand behind a word; empty where there is nothing to cite."""
        keys = tuple(dict.fromkeys(keys))
        self.keys.update(dict.fromkeys(keys))
        return rf"~\cite{{{','.join(keys)}}}" if keys else ""

    def bibliography(self) -> str:
        """The entries of ``references.bib`` that were cited."""
        entries = dict(re.findall(r"^(?=@\w+\{([\w-]+),)(.*?^\}\n)", LIBRARY.read_text(), re.M | re.S))
        return "\n".join(entries[key] for key in self.keys)


def works_of(model: str) -> tuple[str, ...]:
    """What a paper that uses a detector's model cites.

    Example:
        >>> works_of("resnet18"), works_of("cnn")
        (('he2016deep', 'wightman2019timm'), ())
    """
    if model in MODELS:
        return MODELS[model]
    found = next((keys for name, keys in _BACKBONES.items() if name in model.lower()), ())
    return (*found, "wightman2019timm")


def methods(results: Results, found: Sequence[Finding]) -> dict[str, str]:
    """``methods.tex`` (to be ``\\input`` below a heading) and ``references.bib`` with the works that it cites."""
    cite = Cited()
    parts = {
        "Pictures": _pictures(results, cite),
        "Detectors": _detectors(results, cite),
        "Tests": _tests(results, cite),
        "Statistics": _statistics(results, found, cite),
    }
    text = "\n\n".join(rf"\paragraph{{{title}.}} {' '.join(said)}" for title, said in parts.items())
    return {
        "methods.tex": f"% cites references.bib, which lies beside it\n{text}\n",
        "references.bib": cite.bibliography(),
    }


def _pictures(results: Results, cite: Cited) -> list[str]:
    prepare = results.experiment["config"].get("prepare") or {}
    said = []
    if "size" in prepare:
        said.append(f"Pictures are ${prepare['size']} \\times {prepare['size']}$ pixels.")
    for pool in results.experiment["pools"]:
        name, family = str(pool["name"]), pool.get("family") or ""
        called = "Reals" if pool["role"] == "real" else tex(name)
        if family and family != name:
            called += f" ({tex(family)})"
        said.append(f"{called}{cite(FAMILIES.get(family, ()))}: {tex(pool['caption'].rstrip('.'))}.")
    return [*said, *_quality(results, cite), tex(firewall(results.experiment))]


def _quality(results: Results, cite: Cited) -> list[str]:
    """What was measured of whose fakes; a sentence per set of figures."""
    measured: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for pool in results.experiment["pools"]:
        details = (pool["quality"] or {}).get("details", {})
        if figures := tuple((key, head_of(key, details[key])) for key in QUALITY if key in details):
            measured.setdefault(figures, []).append(tex(pool["name"]))
    return [
        f"The quality of {join(names)} was measured by "
        + join([tex(_UNIT.sub("", head)) + cite(QUALITY[key]) for key, head in figures])
        + "."
        for figures, names in measured.items()
    ]


def _detectors(results: Results, cite: Cited) -> list[str]:
    models = {cell.detector: str(cell.card["model"]) for cell in results.cells}
    named = {
        d: tex(d if d == models[d] else f"{d} ({models[d]})") + cite(works_of(models[d]))
        for d in results.detectors
    }
    given = {cell.detector: cell for cell in results.cells if cell.detector in results.given}
    trained = [text for d, text in named.items() if d not in given]
    conditions = [f"``{tex(name)}'' ({tex(about['about'])})" for name, about in results.trained.items()]
    mine = [cell for cell in results.cells if cell.detector not in given]
    seeds = sorted({cell.seed for cell in mine})
    said = [
        f"We trained {_counted(len(trained), 'detector')}: {join(trained)}.",
        f"Training data differed by {_counted(len(conditions), 'condition')}: {join(conditions)}.",
        f"With {'seed' if len(seeds) == 1 else 'seeds'} {join([str(seed) for seed in seeds])} this made "
        f"{_counted(len({cell.key for cell in mine}), 'training')}.",
    ]
    if not trained:
        said = ["We trained nothing."]
    if left := len(results.pending) + len(results.experiment["failures"]):
        said.append(f"{left} more did not finish and are not reported.")
    settings = {cell.detector: cell.card["settings"] for cell in results.cells}
    groups: dict[str, list[str]] = {}
    if given:
        made = [named[d] + _learned_from(cell) for d, cell in given.items()]
        said.append(f"Made elsewhere and only tested: {join(made)}; {NOT_KNOWN}.")
    for detector in (d for d in results.detectors if d not in given):
        groups.setdefault(_training(settings[detector], cite), []).append(tex(detector))
    for how, names in groups.items():
        who = "Each training" if len(groups) == 1 else f"Each training of {join(names)}"
        said.append(f"{who} {how}.")
    if trained:
        said.append(
            "All conditions share the reals, the number of steps and batches that are half real and half fake; only "
            "the pool that the fake half is drawn from differs. The checkpoint that is kept and the threshold come "
            "from validation pictures."
        )
    used = {"crossfake": {str(v) for cell in results.cells if (v := cell.card.get("version"))}}
    used["PyTorch"] = {v for cell in results.cells if (v := cell.card.get("packages", {}).get("torch"))}
    packages = [
        f"{name} {tex(join(sorted(versions)))}{cite(['paszke2019pytorch'] if name == 'PyTorch' else [])}"
        for name, versions in used.items()
        if versions
    ]
    if packages and trained:
        said.append(f"Networks were trained with {join(packages)}.")
    return said


def _learned_from(cell: Cell) -> str:
    """What a detector that was made elsewhere is said to have learned from; nothing where the cell does not say it."""
    names = cell.card.get("learned_from") or ()
    return tex(f" (trained on {join(list(names))})") if names else ""


def _training(settings: Mapping[str, Any], cite: Cited) -> str:
    """Such as ``took 1,500 steps of 64 pictures, …``: what the card says, nothing that it does not."""
    how = f"took {int(settings['steps']):,} steps of {settings['batch']} pictures"
    if "lr" in settings:
        how += (
            f" with AdamW{cite(['loshchilov2019decoupled'])} (largest step size {_decimal(settings['lr'])}, weight "
            f"decay {_decimal(settings['weight_decay'])}, cosine decay after a warm-up)"
        )
    if "recipe" in settings:
        name = settings["recipe"]
        how += f", augmented by the recipe {tex(name)}{cite(RECIPES.get(name, ()))}"
        how += f" with probability {_decimal(settings['augment'])}"
    if settings.get("loss") == "contrastive":
        how += f", with a supervised contrastive term{cite(['khosla2020supervised'])}"
    if settings.get("pretrained") or settings.get("weights"):
        how += ", from pretrained weights"
    for choice, works in _CHOICES.items():
        if (settings.get("options") or {}).get(choice[0]) == choice[1]:
            how += f", {' '.join(choice)}{cite(works)}"
    return how + _seen(settings)


def _seen(settings: Mapping[str, Any]) -> str:
    """What the network sees of the pictures, where these are not resampled to one size."""
    if settings.get("view") != "native":
        return ""
    side = int(settings["window"])
    said = f", on windows of ${side} \\times {side}$ pixels at the pictures' own resolution"
    if settings.get("pair"):
        said += ", each fake made of a photo beside that photo, in the same window and changed alike"
    return said + (", a quarter of the reals retouched" if settings.get("benign") else "")


def _tests(results: Results, cite: Cited) -> list[str]:
    titles = [
        {"ap": "average precision (AP)", "eer": "equal error rate (EER)"}.get(key, tex(figure.title.lower()))
        for key, figure in FIGURES.items()
        if key != PRIMARY
    ]
    said = [
        f"Every detector scored each picture of {_counted(len(results.plain), 'test')} once: fakes of one generator "
        f"against reals, {tex(sizes(results))}",
        f"The primary figure, named beforehand, is the area under the ROC curve "
        f"(AUC){cite(['hanley1982meaning'])}; {join(titles)} are given beside it. {tex(chance(results, PRIMARY))}",
    ]
    for codec, quality in (results.experiment["config"].get("reencode") or {}).items():
        said.append(f"Before that, all were coded alike, as {codec.upper()} of quality {_decimal(quality)}.")
    changes: dict[str, set[float]] = {}
    for test in results.tests.values():
        if test["perturbation"]:
            changes.setdefault(test["perturbation"]["name"], set()).add(
                float(test["perturbation"]["strength"])
            )
    if changes:
        listed = [
            f"{tex(name)}{cite(_PERTURBATIONS.get(name, ()))} "
            f"({', '.join(f'{strength:g}' for strength in sorted(strengths))})"
            for name, strengths in changes.items()
        ]
        said.append(f"Tests were repeated on perturbed pictures: {join(listed)}.")
    return said


def _statistics(results: Results, found: Sequence[Finding], cite: Cited) -> list[str]:
    several = any(len(results.seeds(d, c)) > 1 for d in results.detectors for c in results.conditions)
    said = [
        f"Intervals (95\\%) come from {results.resamples:,} bootstrap resamples{cite(['efron1993introduction'])} of "
        f"whole groups of test pictures ({min(results.resamples, SECONDARY_RESAMPLES):,} for all figures but "
        f"{FIGURES[PRIMARY].title}), the same for all conditions"
        + (
            ", and Student's $t$ for the spread between seeds, combined after "
            f"Cochran{cite(['cochran1964approximate'])}."
            if several
            else ". With one seed they leave out how much training itself varies."
        )
    ]
    if not found:
        return said
    said.append(
        f"We compared conditions in {_counted(len(found), 'comparison')}, fixed beforehand and paired by picture and "
        f"seed. Each $p$ is of the same chance as the intervals, adjusted after Holm{cite(['holm1979simple'])}; a "
        "difference is called one "
        f"where its interval excludes zero and its adjusted $p$ is below {LEVEL:g}."
    )
    if any(row.delong for answer in found for row in answer.rows):
        works = cite(["delong1988comparing", "sun2014fast", "obuchowski1997nonparametric"])
        said.append(f"Seed by seed, AUCs were also compared by DeLong's test for grouped pictures{works}.")
    if any(each.effect is not None for answer in found for each in (answer.overall, *answer.rows)):
        said.append(f"Effect sizes are Cohen's $d_z$ over seeds{cite(['cohen1988statistical'])}.")
    return said


def _counted(count: int, word: str) -> str:
    return f"one {word}" if count == 1 else f"{count:,} {word}s"


def _decimal(value: float) -> str:
    """``0.001`` as it is, ``1e-05`` as a power of ten.

    Example:
        >>> _decimal(0.001), _decimal(1e-5)
        ('0.001', '$1 \\\\times 10^{-5}$')
    """
    mantissa, _, exponent = f"{float(value):g}".partition("e")
    return rf"${mantissa} \times 10^{{{int(exponent)}}}$" if exponent else mantissa
