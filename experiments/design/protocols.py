"""Protocols: what is trained on what, tested on what, and which pairs are compared. Pure functions of a configuration.

- ``synthetic-ablation``: train without one's own fakes and with them.
- ``dose-response``: train with more and more of one's own fakes: 0, 1,000, 10,000, as ``doses`` says.
- ``mixture``: add the fakes of each own generator alone, and of all together: which help against which unseen one?
  Also for fakes of one generator at several truncations or qualities.
- ``cross-generator``: train on each generator (or on each of ``train_on``), test on all: the matrix of GenImage
  (Zhu et al. 2023), whose diagonal is no test of generalisation and stays out of means.
- ``leave-one-out``: train on all generators (or families) but one, test on that one.
- ``chronological``: train on generators up to a year, test on later ones (after AI-GenBench, Pellegrini et al. 2025).
- ``transfer``: train once, test on everything unseen: how Wang et al. 2020, Ojha et al. 2023 and DeepfakeBench
  (Yan et al. 2023) report.
- ``conditions``: train on the fakes that each of ``conditions`` names, test against strangers: generators that neither
  condition of a pair in ``contrasts`` trains on, with each source of ``photos`` apart.
- ``cross-auc``: train once, test every set of reals against every set of fakes: a detector that knows the data set
  rather than the forgery fails where the two come from different ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from crossfake.errors import UserError
from crossfake.experiments.design.config import Config, GeneratorConfig, Mix
from crossfake.experiments.design.reading import nearest
from crossfake.registry import Registry

REAL = "real"  # the pool of the experiment's own reals
BENIGN = "benign edits"  # the same reals, retouched
ELSEWHERE = "elsewhere"  # in place of a condition, where a detector was there already and is tested only


@dataclass(frozen=True)
class Condition:
    """What a detector trains on besides the reals.

    Attributes:
        name: in tables.
        about: in words.
        fakes: generators whose fakes it is given.
        synthetic: generators whose fakes are added as one's own: they fill half of a batch's fake half.
        limit: at most so many of them are used, evenly over their generators.
        x: position on the design's axis.
        without: sources of photos that are left out of its training.
        train: settings that its trainings have and others have not.
        ensemble: names of conditions whose detectors judge together here; nothing is trained.
    """

    name: str
    about: str
    fakes: tuple[str, ...]
    synthetic: tuple[str, ...] = ()
    limit: int | None = None
    x: float | None = None
    without: tuple[str, ...] = ()
    train: dict[str, Any] = field(default_factory=dict)
    ensemble: tuple[str, ...] = ()

    @property
    def trained_on(self) -> frozenset[str]:
        """Generators of all its fakes."""
        return frozenset(self.fakes + self.synthetic)


@dataclass(frozen=True)
class Test:
    """Fakes of one generator against one set of reals, as they are or perturbed."""

    name: str
    fake: str
    real: str = REAL
    perturbation: tuple[str, float] | None = None
    base: str = ""
    __test__ = False  # pytest takes classes of such a name for tests

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", self.base or self.name)


@dataclass(frozen=True)
class Contrast:
    """A question: does ``b`` do better than ``a`` on these tests?"""

    name: str
    a: str
    b: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Design:
    """A protocol's answer to a configuration.

    Attributes:
        conditions, tests, contrasts: see the classes.
        axis: name and unit of the conditions' ``x``; None where they lie on no axis.
    """

    conditions: tuple[Condition, ...]
    tests: tuple[Test, ...]
    contrasts: tuple[Contrast, ...] = ()
    axis: tuple[str, str] | None = None

    def condition(self, name: str) -> Condition:
        """The condition of that name."""
        return next(condition for condition in self.conditions if condition.name == name)


Parts = tuple[Sequence[Condition], Sequence[Contrast], tuple[str, str] | None]
PROTOCOLS: Registry[Callable[[Config], Parts]] = Registry("protocol")
_MIXES = ("conditions", "contrasts", "detector_contrasts", "photos", "reencode", "benign")
_SETTINGS = {"by": "leave-one-out", "doses": "dose-response", "train_on": "cross-generator"}
_SETTINGS |= dict.fromkeys(_MIXES, "conditions")


def design(config: Config) -> Design:
    """Conditions, tests and contrasts of a configuration.

    Raises:
        UserError: the protocol is unknown, or lacks something, or is given what belongs to another.

    Example:
        >>> from crossfake.experiments.design.config import load
        >>> two = [{"name": name, "dir": name} for name in ("a", "b")]
        >>> [c.name for c in design(load({"name": "x", "protocol": "cross-generator", "detectors": ["cnn"],
        ...     "real": ["faces"], "generators": two})).conditions]
        ['a', 'b']
    """
    make = PROTOCOLS.get(config.protocol)
    for setting, owner in _SETTINGS.items():
        if getattr(config, setting) and owner != config.protocol:
            raise UserError(
                f"{setting} means nothing to {config.protocol}", hint=f"leave it out, or use {owner}"
            )
    conditions, contrasts, axis = make(config)
    names = [condition.name for condition in conditions]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"two conditions are called {twice[0]!r}", hint="train on it once")
    for detector in config.detectors:
        if wrong := [name for name in detector.only if name not in names]:
            raise UserError(
                f"{detector.name} is trained in condition {wrong[0]} only, which there is not",
                hint=nearest(wrong[0], names),
            )
        for mine in conditions:
            lacking = [name for name in mine.ensemble if detector.only and name not in detector.only]
            if mine.name in detector.only and lacking:
                raise UserError(
                    f"{detector.name} judges in {mine.name} with {lacking[0]}, which it is not trained in",
                    hint=f"add {lacking[0]} to its only:",
                )
    trained = [each for each in config.detectors if not each.bundle] or config.detectors
    if all(detector.only for detector in trained):
        wanted = {name for detector in trained for name in detector.only}
        conditions = [condition for condition in conditions if condition.name in wanted]
        contrasts = [contrast for contrast in contrasts if {contrast.a, contrast.b} <= wanted]
    plain = _tests(config)
    changed = [
        Test(f"{test.name}, {name} {strength:g}", test.fake, test.real, (name, strength), test.name)
        for test in plain
        if len({test.fake in condition.trained_on for condition in conditions})
        == 1  # known to all, or to none
        for name, strength in _perturbations(config)
    ]
    if config.perturbations and not changed:
        raise UserError(
            f"{config.protocol} trains on every generator in some conditions only, and none of those is perturbed",
            hint="give a generator with role: unseen, or leave perturbations out",
        )
    return Design(tuple(conditions), (*plain, *changed), tuple(contrasts), axis)


def seen(config: Config, condition: Condition, test: Test) -> bool:
    """Whether a condition trained on a test's generator, or on its family where families are left out."""
    kin = {generator.name: generator.kin for generator in config.generators}
    if config.by == "family":
        return kin[test.fake] in {kin[name] for name in condition.trained_on}
    return test.fake in condition.trained_on


def _tests(config: Config) -> list[Test]:
    """Every generator against its own reals or the experiment's; with ``cross-auc`` against all, and with
    ``conditions`` those that are no own fakes against each source of photos, too."""
    if config.protocol == "conditions":
        apart = [p.name for p in config.photos] + [BENIGN] * config.benign
        strangers = [g for g in config.generators if g.role != "synthetic"]
        plain = [Test(g.name, g.name) for g in config.generators]
        return plain + [Test(f"{g.name} against {real}", g.name, real) for g in strangers for real in apart]
    if config.protocol != "cross-auc":
        return [Test(g.name, g.name, g.name if g.real else REAL) for g in config.generators]
    reals = [REAL, *(g.name for g in config.generators if g.real)]
    return [
        Test(f"{g.name} against {'own reals' if real == REAL else f'reals of {real}'}", g.name, real)
        for g in config.generators
        for real in reals
    ]


def _perturbations(config: Config) -> list[tuple[str, float]]:
    from crossfake.experiments.design import perturbations

    found = []
    for name, strengths in config.perturbations.items():
        usual = perturbations.grid(name)  # an unknown name is an error, whatever strengths are given
        for strength in strengths:
            perturbations.check(name, float(strength))
        found += [(name, float(strength)) for strength in strengths or usual]
    return list(dict.fromkeys(found))


def _names(generators: Sequence[GeneratorConfig]) -> tuple[str, ...]:
    return tuple(generator.name for generator in generators)


def _needed(config: Config, *roles: str) -> list[tuple[str, ...]]:
    """Names by role, each role filled."""
    for role in roles:
        if not config.of(role):  # type: ignore[arg-type]
            raise UserError(f"there are no {role} fakes", hint=f"give a generator with role: {role}")
    return [_names(config.of(role)) for role in roles]  # type: ignore[arg-type]


@PROTOCOLS.register("synthetic-ablation")
def _ablation(config: Config) -> Parts:
    given, own, unseen = _needed(config, "seen", "synthetic", "unseen")
    conditions = [
        Condition("without", "the seen fakes alone", given),
        Condition("with", "the seen fakes and one's own", given, own),
    ]
    return conditions, [Contrast("with minus without", "without", "with", unseen)], None


@PROTOCOLS.register("dose-response")
def _dose(config: Config) -> Parts:
    given, own, unseen = _needed(config, "seen", "synthetic", "unseen")
    doses = sorted(set(config.doses))
    if len(doses) < 2 or doses[0] != 0:
        raise UserError(f"doses are {doses}", hint="give 0 and at least one more, say [0, 1000, 5000]")
    conditions = [Condition("0", "the seen fakes alone", given, x=0.0)]
    conditions += [
        Condition(f"{n:,}", f"with {n:,} of one's own fakes", given, own, n, float(n)) for n in doses[1:]
    ]
    contrasts = [Contrast(f"{c.name} minus 0", "0", c.name, unseen) for c in conditions[1:]]
    return conditions, contrasts, ("synthetic fakes", "images")


@PROTOCOLS.register("mixture")
def _mixture(config: Config) -> Parts:
    given, own, unseen = _needed(config, "seen", "synthetic", "unseen")
    conditions = [Condition("without", "the seen fakes alone", given)]
    conditions += [
        Condition(f"with {name}", f"the seen fakes and those of {name}", given, (name,)) for name in own
    ]
    if len(own) > 1:
        conditions.append(Condition("with all", "the seen fakes and all of one's own", given, own))
    contrasts = [Contrast(f"{c.name} minus without", "without", c.name, unseen) for c in conditions[1:]]
    return conditions, contrasts, None


@PROTOCOLS.register("cross-generator")
def _matrix(config: Config) -> Parts:
    trainable = [g for g in config.generators if g.role != "unseen"]
    subsets = config.train_on or tuple((name,) for name in _names(trainable))
    for names in subsets:
        for name in names:
            if name not in _names(trainable):
                known = ", ".join(_names(trainable))
                raise UserError(f"train_on names {name}, which is not trained on", hint=f"known are {known}")
    conditions = [
        Condition(" + ".join(names), f"fakes of {' and '.join(names)} alone", names) for names in subsets
    ]
    return conditions, [], None


@PROTOCOLS.register("leave-one-out")
def _leave_one_out(config: Config) -> Parts:
    """Left out are those without a role or with role ``synthetic``; ``seen`` ones are always trained on."""
    given, unseen = _names(config.of("seen")), _names(config.of("unseen"))
    pool = [g for g in config.generators if g.role in (None, "synthetic")]

    def left_with(generator: GeneratorConfig) -> str:
        return generator.kin if config.by == "family" else generator.name

    kin = dict.fromkeys(map(left_with, pool))
    if len(kin) < 2:
        raise UserError("there is nothing to leave out", hint="give at least two generators, or families")
    for relative in config.of("seen"):
        if config.by == "family" and relative.kin in kin:
            raise UserError(
                f"{relative.name} is always trained on, so its family {relative.kin} cannot be left out",
                hint="give it another family, or no role",
            )
    members = {k: _names([g for g in pool if left_with(g) == k]) for k in kin}
    every = _names(pool)
    base = Condition("without", "the seen fakes alone", given) if given else Condition("all", "all", every)
    conditions, contrasts = [base], []
    for left, names in members.items():
        rest = tuple(name for name in every if name not in names)
        fakes, synthetic = (given, rest) if given else (rest, ())
        conditions.append(Condition(f"all but {left}", f"everything but {left}", fakes, synthetic))
        contrasts.append(Contrast(f"all but {left} minus {base.name}", base.name, f"all but {left}", names))
    if given and unseen:
        conditions.append(Condition("all", "the seen fakes and all of one's own", given, every))
        contrasts.append(Contrast("all minus without", "without", "all", unseen))
    return conditions, contrasts, None


@PROTOCOLS.register("chronological")
def _chronological(config: Config) -> Parts:
    undated = [g.name for g in config.generators if g.year is None]
    if undated:
        raise UserError(f"{undated[0]} has no year", hint="say when the generator was published, year: 2019")
    years = sorted({g.year for g in config.generators if g.year is not None})
    if len(years) < 2:
        raise UserError("all generators are of one year", hint="give some of later years")

    def until(year: int) -> tuple[str, ...]:
        return _names([g for g in config.generators if g.year is not None and g.year <= year])

    conditions = [
        Condition(f"until {year}", f"generators published until {year}", until(year), x=float(year))
        for year in years[:-1]
    ]
    later = {year: tuple(n for n in _names(config.generators) if n not in until(year)) for year in years}
    contrasts = [
        Contrast(f"until {new} minus until {old}", f"until {old}", f"until {new}", later[new])
        for old, new in zip(years[:-2], years[1:-1], strict=True)
    ]
    return conditions, contrasts, ("generators trained on, until", "year")


@PROTOCOLS.register("transfer")
@PROTOCOLS.register("cross-auc")
def _transfer(config: Config) -> Parts:
    given, _ = _needed(config, "seen", "unseen")
    own = _names(config.of("synthetic"))
    about = "the seen fakes" + (" and one's own" if own else "")
    return [Condition("trained", about, given, own)], [], None


@PROTOCOLS.register("conditions")
def _conditions(config: Config) -> Parts:
    """A generator's role says only whether its fakes are one's own (``synthetic``)."""
    if not config.conditions:
        raise UserError("there are no conditions", hint="give conditions: [{name: a, fakes: [NAME]}]")
    known = {g.name: g for g in config.generators}
    if brought := [name for name, g in known.items() if g.real]:
        raise UserError(f"{brought[0]} has reals of its own", hint="list them under photos:")
    conditions: list[Condition] = []
    for mix in config.conditions:
        if mix.ensemble:
            conditions.append(_together(mix, conditions))
            continue
        if wrong := [name for name in mix.fakes if name not in known]:
            raise UserError(
                f"condition {mix.name} names fakes of {wrong[0]}, which is no generator",
                hint=nearest(wrong[0], known),
            )
        if tested := [name for name in mix.fakes if known[name].role == "unseen"]:
            raise UserError(
                f"condition {mix.name} trains on {tested[0]}, whose role is unseen",
                hint="leave one of both out",
            )
        own = tuple(name for name in mix.fakes if known[name].role == "synthetic")
        given = tuple(name for name in mix.fakes if name not in own)
        if unknown := [name for name in mix.without if name not in {p.name for p in config.photos}]:
            raise UserError(
                f"condition {mix.name} leaves out {unknown[0]}, which is no set of photos",
                hint="name one of photos:",
            )
        about = mix.about or f"fakes of {' and '.join(mix.fakes)}"
        conditions.append(Condition(mix.name, about, given, own, without=mix.without, train=mix.train))
    by_name = {condition.name: condition for condition in conditions}
    contrasts = []
    names = [detector.name for detector in config.detectors]
    for pair in config.detector_contrasts:
        if len(pair) != 2 or not set(pair) <= set(names):
            raise UserError(f"{list(pair)} is no pair of detectors", hint=f"choose two of {', '.join(names)}")
    for pair in config.contrasts:
        if len(pair) != 2 or not set(pair) <= set(by_name):
            raise UserError(
                f"{list(pair)} is no pair of conditions", hint=f"choose two of {', '.join(by_name)}"
            )
        a, b = pair
        trained = by_name[a].trained_on | by_name[b].trained_on
        tests = tuple(name for name, g in known.items() if name not in trained and g.role != "synthetic")
        if tests:
            contrasts.append(Contrast(f"{b} minus {a}", a, b, tests))
    return conditions, contrasts, None


def _together(mix: Mix, before: Sequence[Condition]) -> Condition:
    """A condition whose detectors are ensembles; it has seen what any of its members has seen."""
    known = {condition.name: condition for condition in before if not condition.ensemble}
    if wrong := [name for name in mix.ensemble if name not in known]:
        raise UserError(
            f"condition {mix.name} is an ensemble of {wrong[0]}, which is not trained above it",
            hint=nearest(wrong[0], known) if known else "name conditions with fakes: first",
        )
    if len(set(mix.ensemble)) < 2:
        raise UserError(f"condition {mix.name} is an ensemble of one", hint="name two conditions or more")
    members = [known[name] for name in mix.ensemble]
    return Condition(
        mix.name,
        mix.about or f"the mean of {' and '.join(mix.ensemble)}",
        tuple(dict.fromkeys(name for member in members for name in member.fakes)),
        tuple(dict.fromkeys(name for member in members for name in member.synthetic)),
        without=tuple(name for name in members[0].without if all(name in m.without for m in members)),
        train={"force": True} if any(member.train.get("force") for member in members) else {},
        ensemble=mix.ensemble,
    )


def explain(name: str) -> str:
    """The first sentence about a protocol, from this module's docstring."""
    text: Any = __doc__
    entry = text.split(f"- ``{name}``: ")[1].split("\n- ")[0]
    return " ".join(entry.replace("``", "").split())
