import numpy as np
import pytest
import torch

from crossfake.datasets import blending
from crossfake.datasets.toyfaces import toyface
from crossfake.detect.training import augmentation, recipes
from crossfake.detect.training.recipes import RECIPES
from crossfake.errors import UserError


def _faces(count: int = 8, size: int = 32) -> np.ndarray:
    return np.stack([toyface(n, size) for n in range(count)])


ALIGNED = {"policy": "face", "margin": 1.3}


@pytest.mark.parametrize("name", RECIPES.names())
def test_a_recipe_repeats_itself_and_leaves_its_input_alone(name: str) -> None:
    images, recipe = _faces(), RECIPES.get(name)(0.7, 32, ALIGNED)
    before = images.copy()
    first, second = (recipe(images, recipe.draw(np.random.default_rng(7), 8)) for _ in range(2))
    other = recipe(images, recipe.draw(np.random.default_rng(8), 8))
    assert np.array_equal(first, second) and np.array_equal(images, before)
    assert first.dtype == np.uint8 and first.shape == (8 * (1 + recipe.reals_only), 32, 32, 3)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", RECIPES.names())
def test_draws_do_not_depend_on_what_came_before(name: str) -> None:
    """The same number per image whatever the outcome; and what is done to one image leaves the others alone."""
    states = []
    for probability in (0.0, 1.0):
        rng, recipe = np.random.default_rng(3), RECIPES.get(name)(probability, 32, ALIGNED)
        draws = recipe.draw(rng, 8)
        assert draws.shape == (8, recipe.n_random)
        states.append((rng.random(), draws))
    assert states[0][0] == states[1][0] and np.array_equal(states[0][1], states[1][1])
    recipe, images = RECIPES.get(name)(0.7, 32, ALIGNED), _faces()
    draws = recipe.draw(np.random.default_rng(4), 8)
    whole, part = recipe(images, draws), recipe(images[1::2], draws[1::2])
    expected = np.concatenate([whole[1:8:2], whole[9::2]]) if recipe.reals_only else whole[1::2]
    assert np.array_equal(part, expected)


@pytest.mark.parametrize(
    "name", ["wang2020", "robust", "plain", "native", "native-compression", "native-rescaling"]
)
def test_probability_zero_only_mirrors(name: str) -> None:
    images, recipe = _faces(), RECIPES.get(name)(0.0, 32)
    after = recipe(images, recipe.draw(np.random.default_rng(0), 8))
    same = [np.array_equal(a, b) for a, b in zip(images, after, strict=True)]
    assert all(ok or np.array_equal(a[:, ::-1], b) for ok, a, b in zip(same, images, after, strict=True))
    assert 0 < sum(same) < 8


@pytest.mark.parametrize("name", ["wang2020", "robust", "native", "native-compression", "native-strong"])
def test_probability_one_changes_every_image(name: str) -> None:
    images, recipe = _faces(16), RECIPES.get(name)(1.0, 32)
    after = recipe(images, recipe.draw(np.random.default_rng(0), 16))
    for a, b in zip(images, after, strict=True):
        assert not np.array_equal(a, b) and not np.array_equal(a[:, ::-1], b)


def test_wang2020_blurs_and_compresses_each_about_as_often_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    blurs: list[float] = []
    qualities: list[int] = []
    monkeypatch.setattr(recipes, "blurred", lambda image, sigma, strongest: (blurs.append(sigma), image)[1])
    monkeypatch.setattr(recipes, "coded", lambda image, codec, q: (qualities.append(q), image)[1])
    recipe = RECIPES.get("wang2020")(0.1, 224)
    recipe(np.zeros((600, 224, 1, 3), np.uint8), recipe.draw(np.random.default_rng(0), 600))
    assert 35 < len(blurs) < 85 and 35 < len(qualities) < 85
    assert min(qualities) >= 30 and max(qualities) <= 100 and max(qualities) - min(qualities) > 55
    assert max(blurs) <= 3 / 224  # of a picture one pixel wide: sigma goes with the width


def test_wang2020_cuts_what_is_larger_than_224_unless_the_network_needs_it_whole() -> None:
    images, recipe = np.zeros((2, 240, 240, 3), np.uint8), RECIPES.get("wang2020")(0.0, 240)
    draws = recipe.draw(np.random.default_rng(0), 2)
    assert recipe(images, draws).shape == (2, 224, 224, 3)
    recipe.keep_size()
    assert recipe(images, draws).shape == (2, 240, 240, 3)


def test_sbi_blends_each_real_with_itself_and_changes_both_alike() -> None:
    images, recipe = _faces(6, 64), RECIPES.get("sbi")(0.0, 64, ALIGNED)
    draws = recipe.draw(np.random.default_rng(1), 6)
    out = recipe(images, draws)
    mirrored = draws[:, 0] < 0.5
    for image, real, fake, flip in zip(images, out[:6], out[6:], mirrored, strict=True):
        assert np.array_equal(real, image[:, ::-1] if flip else image)
        assert not np.array_equal(real, fake)
    expected, _ = blending.self_blended(toyface(0, 64), blending.aligned_face(64), draws[0, 7:])
    assert np.array_equal(recipe.fakes(toyface(0, 64)[None], draws[:1])[0], expected)


def test_sbi_looks_for_faces_in_crops_that_are_not_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def found(image: np.ndarray, model: object) -> np.ndarray:
        seen.append(model)
        return blending.aligned_face(image.shape[0])

    for module in (recipes, blending):
        monkeypatch.setattr(module, "find_weights", lambda name, file=None: f"{name}.onnx")
    monkeypatch.setattr(blending, "landmarks", found)
    recipe = RECIPES.get("sbi")(0.5, 32, {"policy": "center"})
    for seed in range(2):
        recipe(_faces(4), recipe.draw(np.random.default_rng(seed), 4))
    assert seen == ["yunet.onnx"] * 4  # once an image
    wide = RECIPES.get("sbi")(0.5, 32, {"policy": "face", "margin": 2.6})
    face, center = wide._face(toyface(0, 32)), 15.5  # type: ignore[attr-defined]
    np.testing.assert_allclose(face - center, (blending.aligned_face(32) - center) / 2, rtol=1e-5)


def test_native_compresses_half_of_the_windows_lightly_and_rescales_a_tenth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[tuple[str, int, int]] = []
    scales: list[float] = []
    monkeypatch.setattr(
        recipes,
        "window_coded",
        lambda image, codec, q, colours, u: (made.append((codec, q, colours)), image)[1],
    )
    monkeypatch.setattr(recipes, "rescaled", lambda image, scale, u: (scales.append(scale), image)[1])
    images = np.zeros((1000, 8, 8, 3), np.uint8)

    def run(name: str) -> list[int]:
        made.clear()
        scales.clear()
        recipe = RECIPES.get(name)(0.5, 8)
        recipe(images, recipe.draw(np.random.default_rng(0), 1000))
        return [q for _, q, _ in made]

    qualities = run("native")
    assert 450 < len(made) < 550 and 70 < len(scales) < 130
    assert min(qualities) == 70 and max(qualities) == 98 and min(scales) >= 0.8 and max(scales) <= 1.25
    assert {(codec, colours) for codec, _, colours in made} == {("JPEG", 2), ("JPEG", 0), ("WEBP", 2)}
    assert run("native-compression") == qualities and not scales
    assert run("native-rescaling") == [] and 450 < len(scales) < 550
    assert 0.6 <= min(scales) < 0.65 and 1.4 < max(scales) <= 1.5
    qualities = run("native-strong")
    assert len(scales) == 1000 and 1450 < len(qualities) < 1550
    assert min(qualities) == 50 and max(qualities) == 95


def test_partners_that_share_a_draw_are_changed_alike() -> None:
    images = _faces(4, 64)
    for name in ("native", "native-strong"):
        recipe = RECIPES.get(name)(1.0, 64)
        draws = recipe.draw(np.random.default_rng(0), 4)
        out = recipe(np.concatenate([images, images]), np.concatenate([draws, draws]))
        assert np.array_equal(out[:4], out[4:])


@pytest.mark.parametrize("name", RECIPES.names())
def test_windows_of_native_pixels_need_no_face(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blending, "landmarks", lambda *_: pytest.fail("a face was looked for"))
    recipe = RECIPES.get(name)(0.5, 48, {"policy": "face", "margin": 1.3, "pixels": "native"})
    out = recipe(_faces(4, 48), recipe.draw(np.random.default_rng(0), 4))
    assert out.shape == (4 * (1 + recipe.reals_only), 48, 48, 3)
    if recipe.reals_only:
        assert not np.array_equal(out[:4], out[4:])


def test_an_unknown_recipe_is_one_line() -> None:
    with pytest.raises(UserError, match="no recipe 'wang2000': did you mean 'wang2020'"):
        RECIPES.get("wang2000")


def test_a_batch_is_what_it_was_when_images_were_turned_on_the_way() -> None:
    """Mirrored, changed and stacked as channels-first tensors, the way batches were made before."""
    images, recipe = _faces(8, 240), RECIPES.get("wang2020")(0.7, 240)
    draws = recipe.draw(np.random.default_rng(5), 8)
    turned = torch.from_numpy(images).permute(0, 3, 1, 2)
    turned = torch.stack([t.flip(2) if u < 0.5 else t for t, u in zip(turned, draws[:, 0], strict=True)])
    for at, u in enumerate(draws):
        image = np.ascontiguousarray(turned[at].permute(1, 2, 0).numpy())
        if u[1] < 0.7:
            image = augmentation.blurred(image, 3 * float(u[2]), 3.0)
        if u[3] < 0.7:
            image = augmentation.coded(image, "JPEG", int(u[4]))
        turned[at] = torch.from_numpy(image).permute(2, 0, 1)
    corners = (draws[:, 5:7] * 17).astype(int)
    before = [
        t[:, top : top + 224, left : left + 224] for t, (top, left) in zip(turned, corners, strict=True)
    ]
    after = recipe(images, draws)
    assert torch.equal(torch.from_numpy(after).permute(0, 3, 1, 2), torch.stack(before))


@pytest.mark.parametrize("name", RECIPES.names())
def test_pixels_lie_as_networks_read_them(name: str) -> None:
    """What a network gets is a view of the batch: channels last, turned by no copy."""
    recipe = RECIPES.get(name)(0.7, 240, ALIGNED)
    batch = torch.from_numpy(recipe(_faces(2, 240), recipe.draw(np.random.default_rng(1), 2)))
    assert batch.is_contiguous()
    assert batch.permute(0, 3, 1, 2).is_contiguous(memory_format=torch.channels_last)
