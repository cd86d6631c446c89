import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from crossfake.datasets.shards import ShardSet
from crossfake.detect.bundle import novelty
from crossfake.detect.bundle.bundle import load
from crossfake.errors import UserError


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A bundle that may be spoilt."""
    return Path(shutil.copytree(trained / "model", tmp_path / "bundle"))


def _change(bundle: Path, **facts: Any) -> None:
    card = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps({**card, **facts}))


def test_a_score_does_not_depend_on_the_images_beside_it(trained: Path, fake: Path) -> None:
    detector = load(trained, device="cpu")
    images = ShardSet(fake).read_many(range(9))
    together = detector.score(images)
    assert together.dtype == np.float64 and ((together >= 0) & (together <= 1)).all()
    assert np.array_equal(together, np.concatenate([detector.score(image[None]) for image in images]))
    assert detector.score(images[:0]).shape == (0,) and detector.judge(images[:0]) == []


def test_one_pass_gives_logits_and_features(trained: Path, fake: Path) -> None:
    detector = load(trained, device="cpu", precision="fp32")
    images = ShardSet(fake).read_many(range(60)).repeat(3, axis=0)
    assert len(images) > detector.batch
    logits, features = detector.outputs(images)
    assert logits.dtype == np.float64 and logits.shape == (len(images),)
    assert features.dtype == np.float32 and features.shape == (len(images), 256)
    head: nn.Linear = detector.network.head[-1]  # type: ignore[index]
    by_hand = features.astype(np.float64) @ head.weight[0].double().numpy() + head.bias.item()
    assert logits == pytest.approx(by_hand, abs=1e-4)
    assert np.array_equal(detector.probability(logits), detector.score(images))


def test_loading_twice_gives_the_same_scores(trained: Path, copy: Path, fake: Path) -> None:
    images = ShardSet(fake).read_many(range(4))
    assert np.array_equal(load(trained, device="cpu").score(images), load(copy, device="cpu").score(images))


def test_a_picture_file_is_cropped_and_scored(trained: Path, fake: Path, tmp_path: Path) -> None:
    image = ShardSet(fake).read(0)
    Image.fromarray(image).save(tmp_path / "a.png")
    detector = load(trained, device="cpu")
    assert detector(tmp_path / "a.png") == detector(image) == detector.score(image[None])[0]
    Image.fromarray(image.repeat(3, 0).repeat(2, 1)).save(tmp_path / "b.png")
    assert 0 <= detector(str(tmp_path / "b.png")) <= 1


def test_wrong_size_or_type_is_one_line(trained: Path) -> None:
    detector = load(trained, device="cpu")
    for images in (np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 16, 16, 3), np.float32)):
        with pytest.raises(UserError, match="takes uint8 images of 16×16"):
            detector.score(images)


def test_a_plain_bundle_judges_by_one_half_and_its_threshold(trained: Path, real: Path, fake: Path) -> None:
    detector = load(trained, device="cpu")
    images = np.concatenate([ShardSet(folder).read_many(range(100, 110)) for folder in (real, fake)])
    for judgement, score in zip(detector.judge(images), detector.score(images), strict=True):
        assert judgement.probability == score and judgement.low is judgement.high is judgement.novelty is None
        label = "fake" if score >= 0.5 else "real"
        agrees = (score >= 0.5) == (score >= detector.threshold)
        assert judgement.verdict == (label if agrees else "uncertain")
        assert judgement.reasons == (() if agrees else ("near-threshold",))


def test_every_reason_for_a_verdict(copy: Path) -> None:
    """Logits and features by hand: real below 1, fake above -1, both between; one kind of features is known."""
    usual = np.random.default_rng(0).normal(0, 1, (200, 4)).astype(np.float32) + 9
    fitted = novelty.fit(usual, (np.zeros(200), usual), 0.99)
    _change(
        copy,
        temperature=2.0,
        calibration={
            "method": "temperature",
            "temperature": 1.0,
            "interval": {"logits": [-5, 0, 5], "low": [0, 0.4, 0.9], "high": [0.1, 0.6, 1]},
        },
        threshold=0.5,
        abstention={"coverage": 0.9, "real_at_most": 1.0, "fake_at_least": -1.0},
        novelty=novelty.save(fitted, copy),
    )
    detector = load(copy, device="cpu")
    logits = np.array([-4.0, 4.0, 0.0, 4.0])
    features = np.concatenate([usual[:3], -usual[:1]])
    real, fake, near, far = detector.judge_outputs(logits, features)
    assert (real.verdict, real.reasons) == ("real", ())
    assert (fake.verdict, fake.reasons) == ("fake", ())
    assert (near.verdict, near.reasons) == ("uncertain", ("near-threshold",))
    assert (far.verdict, far.reasons, far.novelty) == ("uncertain", ("out-of-distribution",), 1.0)
    assert near.low == pytest.approx(0.4) and near.high == pytest.approx(0.6)
    assert real.novelty is not None and 0 <= real.novelty <= 0.99
    _change(copy, abstention={"coverage": 0.9, "real_at_most": -1.0, "fake_at_least": 1.0})
    _, fake, near, _ = load(copy, device="cpu").judge_outputs(logits, features)
    assert (fake.verdict, near.verdict) == ("fake", "uncertain")  # neither label is plausible in between
    _change(copy, threshold=0.999, abstention=None)
    between = load(copy, device="cpu").judge_outputs(logits, features)[
        1
    ]  # above one half, below the threshold
    assert (between.verdict, between.reasons) == ("uncertain", ("near-threshold",))


def test_a_verdict_never_contradicts_the_threshold(copy: Path) -> None:
    _change(copy, threshold=0.99, abstention={"coverage": 0.9, "real_at_most": -3.0, "fake_at_least": -2.0})
    judgements = load(copy, device="cpu").judge_outputs(np.array([0.0]), np.zeros((1, 256), np.float32))
    assert judgements[0].verdict == "uncertain"


def test_bundles_from_before_models_had_a_head_still_load(copy: Path, fake: Path) -> None:
    images = ShardSet(fake).read_many(range(4))
    wanted = load(copy, device="cpu").score(images)
    state = load_file(copy / "model.safetensors")
    old = {name.replace("head.1.", "network.10."): tensor for name, tensor in state.items()}
    assert old.keys() != state.keys()
    save_file(old, copy / "model.safetensors")
    card = json.loads((copy / "bundle.json").read_text())
    new = ("options", "calibration", "novelty", "abstention")
    (copy / "bundle.json").write_text(json.dumps({k: v for k, v in card.items() if k not in new}))
    assert np.array_equal(load(copy, device="cpu").score(images), wanted)


def test_damaged_bundles_are_refused(trained: Path, copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no detector"):
        load(tmp_path)
    with pytest.raises(UserError, match="no back end"):
        load(copy, backend="tensorflow")
    (copy / "model.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(UserError, match="is damaged"):
        load(copy)
    (copy / "model.safetensors").write_bytes(b"\x80\x04c__builtin__\nexec\n.")  # a pickle is not opened
    with pytest.raises(UserError, match="is damaged"):
        load(copy)
    shutil.copy(trained / "model" / "model.safetensors", copy)
    for text in ("{}", "[]", "null", '{"model": ', "\xff", "[" * 100_000):
        (copy / "bundle.json").write_text(text, encoding="latin-1")
        with pytest.raises(UserError, match="is damaged"):
            load(copy)


@pytest.mark.parametrize("name", ["patches", "hf-hub:someone/else"])
def test_a_model_that_is_not_registered_here_is_named(copy: Path, name: str) -> None:
    _change(copy, model=name)
    with pytest.raises(
        UserError, match="is of the model .*, which is not known here: start the file"
    ) as raised:
        load(copy, device="cpu")
    assert repr(name) in str(raised.value) and "damaged" not in str(raised.value)


@pytest.mark.parametrize(
    "facts",
    [
        {"model": ["cnn"]},
        {"model": "resnet18"},
        {"options": {"no_such": 1}},
        {"options": "size"},
        {"size": 10**9},
        {"size": -1},
        {"size": "large"},
        {"crop": "face"},
        {"threshold": float("nan")},
        {"temperature": 0, "calibration": None},
        {"calibration": {"method": "exec"}},
        {"calibration": "isotonic"},
        {"abstention": {"coverage": 0.9}},
        {"abstention": [1]},
        {"novelty": {"method": "knn", "file": "../../etc/passwd", "quantile": 0.9, "sha256": ""}},
        {"novelty": {"method": "knn", "file": "gone.safetensors", "quantile": 0.9, "sha256": ""}},
        {"novelty": 3},
        {"audit": "pass"},
        {"data_hashes": ["folder"]},
        {"sources": 5},
    ],
)
def test_hostile_cards_are_refused_in_one_line(copy: Path, facts: dict[str, Any]) -> None:
    _change(copy, **facts)
    with pytest.raises(UserError, match="is damaged") as raised:
        load(copy, device="cpu")
    assert "\n" not in str(raised.value) and str(copy) in str(raised.value)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: {name: tensor * float("nan") for name, tensor in state.items()},
        lambda state: {"head.1.weight": state["head.1.weight"] * 1e38 * 1e3},
    ],
)
def test_weights_that_give_no_number_are_never_scored(copy: Path, spoil: Callable[[Any], Any]) -> None:
    state = load_file(copy / "model.safetensors")
    spoilt = spoil({name: tensor for name, tensor in state.items() if tensor.is_floating_point()})
    save_file({**state, **spoilt}, copy / "model.safetensors")
    with pytest.raises(UserError, match="weights are damaged"):
        load(copy, device="cpu").score(np.full((2, 16, 16, 3), 100, np.uint8))
