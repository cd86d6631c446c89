"""PGD: a detector falls, pictures hardly change, and every model with gradients can be asked."""

import dataclasses

import numpy as np
import pytest
import torch

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.detect.bundle import bundle
from crossfake.detect.bundle.portable import OnnxNetwork
from crossfake.detect.models import MODELS, DetectorNetwork, create_model
from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.training.train import train
from crossfake.errors import UserError
from crossfake.experiments.run.adversarial import pgd
from crossfake.stats import ranking

SIZE = 16
TOWER = {"tower": "test_vit", "tower_size": 32}
MEMBERS = [{"model": "cnn", "options": {}, "temperature": 2.0}, {"model": "meso", "options": {"size": 32}}]
CASES = {
    **{name: (name, {}) for name in MODELS.names() if name not in ("clip_probe", "ensemble")},
    "clip_probe": ("clip_probe", TOWER),
    "clip_probe-nearest": ("clip_probe", {**TOWER, "head": "nearest"}),
    "ensemble": ("ensemble", {"members": MEMBERS}),
}


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch):
    """The network sees as many pictures at once as there are, not 128."""
    monkeypatch.setattr(bundle.Detector, "batch", 8)


def _shards(folder, label):
    """Coarse random squares; fakes carry a faint grid on every second pixel."""
    coarse = np.random.default_rng(label).integers(60, 180, (120, SIZE // 4, SIZE // 4, 3), dtype=np.uint8)
    images = coarse.repeat(4, axis=1).repeat(4, axis=2)
    if label:
        images[:, ::2, ::2] += 25
    with ShardWriter(folder, SIZE, attributes={"crop": {"policy": "none"}}) as writer:
        for number, image in enumerate(images):
            part = ("train", "train", "train", "val", "test")[number // 24]
            writer.append(image, Row(label, folder.name, "grid" if label else "", part, f"{label}-{number}"))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A detector that knows the grid, and test pictures with their labels."""
    folder = tmp_path_factory.mktemp("pgd")
    real, fake = _shards(folder / "real", 0), _shards(folder / "fake", 1)
    settings = TrainSettings(
        (real,),
        folder / "run",
        (fake,),
        steps=40,
        batch=16,
        eval_every=20,
        lr=3e-3,
        augment=0.0,
        device="cpu",
    )
    sets = [ShardSet(path) for path in (real, fake)]
    images = np.concatenate([shards.read_many(shards.select(split="test")) for shards in sets])
    return bundle.load(train(settings), device="cpu"), images, np.repeat([0, 1], 24)


def test_the_detector_falls_and_the_pictures_hardly_change(trained):
    detector, images, labels = trained
    before = ranking.auc(labels, detector.score(images))
    weak, strong = (pgd(detector, images, labels, eps=levels / 255, steps=5) for levels in (1, 8))
    for levels, attacked in ((1, weak), (8, strong)):
        assert attacked.dtype == np.uint8 and attacked.shape == images.shape
        assert 0 < np.abs(attacked.astype(int) - images).max() <= levels
    areas = [ranking.auc(labels, detector.score(attacked)) for attacked in (weak, strong)]
    assert before > 0.95 and areas[1] < areas[0] <= before and areas[1] < 0.3


def test_no_picture_is_judged_better_than_before(trained):
    detector, images, labels = trained
    attacked = pgd(detector, images, labels, eps=4 / 255, steps=3)
    moved = detector.outputs(attacked)[0] - detector.outputs(images)[0]
    assert (moved[labels == 0] >= 0).all() and (moved[labels == 1] <= 0).all() and np.abs(moved).max() > 0


def test_it_is_the_same_every_time_and_for_every_batch(trained):
    detector, images, labels = trained
    whole = pgd(detector, images, labels, eps=2 / 255, steps=2)
    assert np.array_equal(whole, pgd(detector, images, labels, eps=2 / 255, steps=2))
    assert np.array_equal(whole[20:30], pgd(detector, images[20:30], labels[20:30], eps=2 / 255, steps=2))
    assert np.array_equal(pgd(detector, images[:0], labels[:0], eps=2 / 255), images[:0])


def test_one_step_is_the_sign_of_the_loss_gradient(trained):
    """Madry et al. 2018, sec. 2, with cross-entropy as they have it."""
    detector, images, labels = trained
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255).requires_grad_()
    target = torch.from_numpy(labels).float()
    torch.nn.functional.binary_cross_entropy_with_logits(
        detector.network(x), target, reduction="sum"
    ).backward()
    step = x.grad.sign().permute(0, 2, 3, 1).numpy().astype(int)
    attacked = pgd(detector, images, labels, eps=3 / 255, steps=1).astype(int)
    changed = (attacked != images).any((1, 2, 3))  # the others would be judged better for the step
    expected = np.clip(images + 3 * step, 0, 255)
    assert changed.mean() > 0.8 and np.mean(attacked[changed] == expected[changed]) > 0.999


def _untrained(folder, case):
    torch.manual_seed(0)
    name, options = CASES[case]
    model = create_model(name, options={"size": 32, **options})
    if case == "clip_probe-nearest":
        model.fit_bank(model.eval().features(torch.rand(6, 3, 32, 32)), torch.tensor([0, 1, 0, 1, 1, 1]))
    card = {
        "model": name,
        "options": model.options,
        "size": 32,
        "crop": None,
        "temperature": 1.0,
        "threshold": 0.5,
    }
    bundle.save(folder, model, card)
    return bundle.load(folder, device="cpu")


@pytest.mark.parametrize("case", CASES)
def test_every_model_with_gradients_can_be_attacked(case, tmp_path):
    detector = _untrained(tmp_path, case)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    labels = np.array([0, 1, 1])
    attacked = pgd(detector, images, labels, eps=2 / 255, steps=2)
    assert 0 < np.abs(attacked.astype(int) - images).max() <= 2
    moved = detector.outputs(attacked)[0] - detector.outputs(images)[0]
    assert ((1 - 2 * labels) * moved >= 0).all() and np.abs(moved).max() > 0


class Blind(DetectorNetwork):
    """Sees how bright a picture is, and hides where that comes from."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Identity()

    def features(self, images):
        return images.detach().mean((1, 2, 3))[:, None]


def test_others_are_refused(trained):
    detector, images, labels = trained
    onnx = dataclasses.replace(detector, network=OnnxNetwork(None, {}))
    with pytest.raises(UserError, match="no gradients: use the torch back end"):
        pgd(onnx, images, labels)
    with pytest.raises(UserError, match="cnn has no gradient to its pixels"):
        pgd(dataclasses.replace(detector, network=Blind()), images, labels)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"eps": 0.5 / 255}, "within 0.00196"),
        ({"eps": float("nan")}, "within nan"),
        ({"eps": 2.0}, "within 2"),
        ({"steps": 0}, "0 steps"),
        ({"labels": [0, 1]}, "do not fit"),
        ({"labels": [2] * 48}, "do not fit"),
        ({"images": np.zeros((48, 8, 8, 3), np.uint8)}, "takes uint8 images of 16"),
    ],
)
def test_what_does_not_fit_is_refused(trained, change, expected):
    detector, images, labels = trained
    with pytest.raises(UserError, match=expected):
        pgd(detector, **{"images": images, "labels": labels, **change})
