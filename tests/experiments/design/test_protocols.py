"""Every protocol's conditions, tests and contrasts, and what each refuses."""

import pytest

from crossfake.errors import UserError
from crossfake.experiments.design.config import load
from crossfake.experiments.design.protocols import PROTOCOLS, Test, design, explain, seen

ROLES = {"old": "seen", "mine": "synthetic", "yours": "synthetic", "new": "unseen"}


def config(protocol, generators=None, **more):
    if generators is None:
        generators = [{"name": name, "role": role, "dir": name} for name, role in ROLES.items()]
    base = {"name": "x", "protocol": protocol, "detectors": ["cnn"], "real": ["faces"]}
    return load({**base, "generators": generators, **more})


def plain(*names, **more):
    return [{"name": name, "dir": name, **more} for name in names]


def trained(found):
    return {c.name: (c.fakes, c.synthetic) for c in found.conditions}


def test_ablation():
    found = design(config("synthetic-ablation"))
    assert trained(found) == {"without": (("old",), ()), "with": (("old",), ("mine", "yours"))}
    assert [(c.a, c.b, c.tests) for c in found.contrasts] == [("without", "with", ("new",))]
    assert [t.name for t in found.tests] == ["old", "mine", "yours", "new"]


def test_dose_response():
    found = design(config("dose-response", doses=[1000, 0, 50]))
    assert [(c.name, c.limit, c.x) for c in found.conditions] == [
        ("0", None, 0),
        ("50", 50, 50),
        ("1,000", 1000, 1000),
    ]
    assert [(c.a, c.b) for c in found.contrasts] == [("0", "50"), ("0", "1,000")]
    assert found.axis == ("synthetic fakes", "images")


def test_mixture():
    found = design(config("mixture"))
    assert [c.name for c in found.conditions] == ["without", "with mine", "with yours", "with all"]
    assert len(found.contrasts) == 3


def test_matrix_marks_what_was_trained_on():
    setting = config("cross-generator", plain("a", "b", "c"))
    found = design(setting)
    assert [[seen(setting, c, t) for t in found.tests] for c in found.conditions] == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
    ]
    subsets = design(config("cross-generator", plain("a", "b", "c"), train_on=[["a"], ["a", "b"]]))
    assert trained(subsets) == {"a": (("a",), ()), "a + b": (("a", "b"), ())}


def test_leave_one_out_without_seen_fakes_asks_what_not_knowing_costs():
    found = design(config("leave-one-out", plain("a", "b", "c")))
    assert trained(found)["all but b"] == (("a", "c"), ())
    assert [(c.a, c.b, c.tests) for c in found.contrasts][1] == ("all", "all but b", ("b",))


def test_leave_one_family_out():
    generators = [
        {"name": "old", "role": "seen", "dir": "o"},
        *plain("a", "b", family="gan"),
        *plain("c"),
        {"name": "new", "role": "unseen", "dir": "n"},
    ]
    setting = config("leave-one-out", generators, by="family")
    found = design(setting)
    assert trained(found) == {
        "without": (("old",), ()),
        "all but gan": (("old",), ("c",)),
        "all but c": (("old",), ("a", "b")),
        "all": (("old",), ("a", "b", "c")),
    }
    assert [(c.b, c.tests) for c in found.contrasts] == [
        ("all but gan", ("a", "b")),
        ("all but c", ("c",)),
        ("all", ("new",)),
    ]
    one_gan = found.condition("all but c")
    assert seen(setting, one_gan, Test("a", "a")) and not seen(setting, one_gan, Test("c", "c"))


def test_a_name_that_is_another_family_leaves_nobody_else_out():
    generators = [*plain("gan"), *plain("small", family="gan"), *plain("c")]
    assert [c.tests for c in design(config("leave-one-out", generators)).contrasts] == [
        ("gan",),
        ("small",),
        ("c",),
    ]
    apart = [*plain("gan", family="other"), *plain("small", family="gan"), *plain("c")]
    found = design(config("leave-one-out", apart, by="family"))
    assert [c.tests for c in found.contrasts] == [("gan",), ("small",), ("c",)]


def test_a_relative_is_seen_when_families_are_left_out():
    generators = [*plain("a", family="gan"), *plain("b", family="gan", role="unseen"), *plain("c")]
    setting = config("leave-one-out", generators, by="family")
    with_gan = design(setting).condition("all but c")
    assert with_gan.fakes == ("a",) and seen(setting, with_gan, Test("b", "b"))


def test_chronological():
    generators = [
        {"name": n, "dir": n, "year": y} for n, y in (("c", 2022), ("a", 2016), ("b", 2019), ("d", 2022))
    ]
    found = design(config("chronological", generators))
    assert trained(found) == {"until 2016": (("a",), ()), "until 2019": (("a", "b"), ())}
    assert [(c.a, c.b, c.tests) for c in found.contrasts] == [("until 2016", "until 2019", ("c", "d"))]


def test_transfer_and_cross_auc():
    generators = [
        {"name": "old", "role": "seen", "dir": "o"},
        {"name": "web", "role": "unseen", "dir": "f", "real": "r"},
    ]
    assert [(t.name, t.real) for t in design(config("transfer", generators)).tests] == [
        ("old", "real"),
        ("web", "web"),
    ]
    names = [t.name for t in design(config("cross-auc", generators)).tests]
    assert names == [
        "old against own reals",
        "old against reals of web",
        "web against own reals",
        "web against reals of web",
    ]


def test_what_is_known_to_all_or_to_none_is_perturbed():
    found = design(config("synthetic-ablation", perturbations={"jpeg": [90, 50]}))
    changed = [t for t in found.tests if t.perturbation]
    assert [(t.name, t.base, t.perturbation) for t in changed] == [
        ("old, jpeg 90", "old", ("jpeg", 90.0)),
        ("old, jpeg 50", "old", ("jpeg", 50.0)),
        ("new, jpeg 90", "new", ("jpeg", 90.0)),
        ("new, jpeg 50", "new", ("jpeg", 50.0)),
    ]
    assert len(design(config("synthetic-ablation", perturbations={"jpeg": []})).tests) > 6


@pytest.mark.parametrize("protocol", PROTOCOLS.names())
def test_every_protocol_is_explained(protocol):
    assert len(explain(protocol)) > 10


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: config("synthetic-ablatoin"), "did you mean 'synthetic-ablation'"),
        (lambda: config("synthetic-ablation", plain("a", role="seen")), "there are no synthetic fakes"),
        (lambda: config("synthetic-ablation", doses=[0, 1]), "doses means nothing to synthetic-ablation"),
        (lambda: config("dose-response", doses=[5, 6]), "give 0 and at least one more"),
        (lambda: config("leave-one-out", plain("a")), "nothing to leave out"),
        (lambda: config("cross-generator", plain("a"), train_on=[["z"]]), "train_on names z"),
        (
            lambda: config("cross-generator", plain("a"), train_on=[["a"], ["a"]]),
            "two conditions are called 'a'",
        ),
        (
            lambda: config("cross-generator", plain("a", "b"), perturbations={"jpeg": []}),
            "trains on every generator in some conditions only",
        ),
        (
            lambda: config(
                "leave-one-out",
                [*plain("k", family="gan", role="seen"), *plain("a", family="gan"), *plain("b")],
                by="family",
            ),
            "k is always trained on, so its family gan cannot be left out",
        ),
        (lambda: config("chronological", plain("a", "b")), "a has no year"),
        (lambda: config("chronological", plain("a", "b", year=2020)), "all generators are of one year"),
        (lambda: config("synthetic-ablation", perturbations={"jpg": [9]}), "did you mean 'jpeg'"),
    ],
)
def test_what_is_refused(make, expected):
    with pytest.raises(UserError, match=expected):
        design(make())
