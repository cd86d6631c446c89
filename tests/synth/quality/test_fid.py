from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_fid import fid_score, inception
from scipy import linalg
from torchmetrics.image.mifid import _mifid_compute

from crossfake.errors import UserError
from crossfake.synth.quality.features import InceptionFeatures
from crossfake.synth.quality.fid import fid_infinity, frechet_distance, mifid
from crossfake.synth.quality.moments import Moments, merge
from crossfake.synth.quality.neighbours import nearest

CPU = torch.device("cpu")


def _sample(seed: int, n: int, d: int = 12) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


@pytest.mark.parametrize("n", [400, 8])  # 8 vectors of 12 numbers: singular covariances
def test_frechet_distance_equals_pytorch_fid_and_scipy(n: int) -> None:
    a, b = _sample(1, n), _sample(2, n + 5)
    ours = frechet_distance(Moments.of(a), Moments.of(b))
    means, covariances = zip(*((x.mean(0), np.cov(x, rowvar=False)) for x in (a, b)), strict=True)
    tolerance = 1e-9 if n > 12 else 1e-3  # the general matrix root is what is inexact when singular
    root = linalg.sqrtm(covariances[0] @ covariances[1])
    scipys = ((means[0] - means[1]) ** 2).sum() + np.trace(sum(covariances) - 2 * root.real)
    assert ours == pytest.approx(scipys, rel=tolerance)
    try:
        theirs = fid_score.calculate_frechet_distance(means[0], covariances[0], means[1], covariances[1])
    except TypeError:
        pytest.skip("this scipy has no sqrtm(disp=...), which pytorch-fid calls")
    assert ours == pytest.approx(theirs, rel=tolerance)


def test_frechet_distance_is_symmetric_and_zero_for_equals() -> None:
    a, b = Moments.of(_sample(3, 50)), Moments.of(_sample(4, 60))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-10)
    assert 0 <= frechet_distance(a, a) < 1e-9 * np.trace(a.covariance)


@pytest.fixture(scope="module")
def reference(random_inception: Path) -> dict[int, inception.InceptionV3]:
    """pytorch-fid's own network for each dims, reading the local file where it would download."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: torch.load(random_inception))
        return {
            dims: inception.InceptionV3([k]).eval()
            for dims, k in inception.InceptionV3.BLOCK_INDEX_BY_DIM.items()
        }


@pytest.mark.parametrize("dims", [64, 192, 768, 2048])
def test_features_equal_pytorch_fid(
    random_inception: Path, reference: dict[int, inception.InceptionV3], dims: int
) -> None:
    images = torch.randint(
        0, 256, (2, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    ours = InceptionFeatures(random_inception, dims, CPU, "fp32")(images)
    with torch.inference_mode():
        theirs = reference[dims](images.float() / 255)[0].mean((2, 3)).numpy()
    assert ours.shape == (2, dims) and ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


def test_bfloat16_features_are_close(random_inception: Path) -> None:
    images = torch.randint(
        0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    exact, quick = (InceptionFeatures(random_inception, 192, CPU, p)(images) for p in ("fp32", "bf16"))
    assert np.abs(exact - quick).max() < 0.03 * np.abs(exact).max()
    assert (exact != quick).any()


def test_only_the_needed_stages_are_kept(random_inception: Path) -> None:
    sizes = [
        sum(p.numel() for p in InceptionFeatures(random_inception, d, CPU).stages.parameters())
        for d in (64, 768)
    ]
    assert sizes[0] < 30_000 < sizes[1]


def test_file_cut_at_768_is_refused_at_2048_in_one_line(random_inception: Path, tmp_path: Path) -> None:
    state = torch.load(random_inception, weights_only=True)
    for name in state:
        if name.startswith(("Mixed_7b", "Mixed_7c")):
            state[name].zero_()
    torch.save(state, tmp_path / "cut.pth")
    InceptionFeatures(tmp_path / "cut.pth", 768, CPU)
    with pytest.raises(UserError, match=r"cut\.pth lacks the layers for dims 2048: give --dims 768"):
        InceptionFeatures(tmp_path / "cut.pth", 2048, CPU)


@pytest.mark.parametrize("content", ["nothing", "text", "other", "short"])
def test_a_wrong_file_is_named(random_inception: Path, tmp_path: Path, content: str) -> None:
    file = tmp_path / "weights.pth"
    if content == "other":
        torch.save({"weight": torch.zeros(3)}, file)
    else:
        file.write_bytes(
            {"nothing": b"", "text": b"no\n", "short": random_inception.read_bytes()[:5000]}[content]
        )
    with pytest.raises(UserError, match=r"weights\.pth is not the FID network"):
        InceptionFeatures(file, 64, CPU)


def test_the_real_file_up_to_768(real_weights: Path) -> None:
    file = real_weights / "pt_inception-2015-12-05-upto768.pth"
    if not file.exists():
        pytest.skip(f"needs {file.name}")
    images = torch.full((1, 3, 64, 64), 128, dtype=torch.uint8)
    features = InceptionFeatures(file, 768, CPU, "fp32")(images)
    assert np.isfinite(features).all() and features.min() >= 0 and features.max() > 0.1
    with pytest.raises(UserError, match="--dims 768"):
        InceptionFeatures(file, 2048, CPU)


def test_endless_fakes_undo_the_bias_of_few() -> None:
    """Reals and fakes are of one distribution, so the distance is zero."""
    draw = np.random.default_rng(0).normal
    real = Moments.of(draw(size=(40_000, 12)))
    trials = [[Moments.of(draw(size=(40, 12))) for _ in range(10)] for _ in range(20)]
    plain = np.mean([frechet_distance(real, merge(blocks)) for blocks in trials])
    endless = np.mean([estimate.value for blocks in trials if (estimate := fid_infinity(real, blocks))])
    assert plain > 0.1 and abs(endless) < plain / 4


def test_few_blocks_have_no_line() -> None:
    assert fid_infinity(Moments.of(_sample(1, 50)), [Moments.of(_sample(k, 9)) for k in range(5)]) is None


@pytest.mark.parametrize("noise", [0.01, 5.0])
def test_mifid_is_that_of_torchmetrics(noise: float) -> None:
    real = torch.from_numpy(_sample(1, 60))
    fake = real[:50] + noise * torch.from_numpy(_sample(2, 50))
    means, covariances = [x.mean(0) for x in (fake, real)], [x.T.cov() for x in (fake, real)]
    theirs = _mifid_compute(means[0], covariances[0], fake, means[1], covariances[1], real)
    distance = nearest(fake.numpy(), real.numpy())[1].mean()
    ours = mifid(frechet_distance(*(Moments.of(x.numpy()) for x in (real, fake))), float(distance))
    assert ours == pytest.approx(float(theirs), rel=1e-3)
