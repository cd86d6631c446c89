from pathlib import Path

import numpy as np
import pytest

from crossfake.datasets.shards import ShardSet
from crossfake.detect.bundle import bundle
from crossfake.detect.explain.prototypes import Prototypes
from crossfake.detect.explain.references import open_sets, training_rows, validation_rows
from crossfake.detect.explain.spectrum import Spectra, azimuthal, log_spectrum
from crossfake.errors import UserError

from ..conftest import make_shards


def test_the_spectrum_of_a_wave_peaks_at_its_frequency() -> None:
    size, down, right = 32, 5, 9
    y, x = np.mgrid[:size, :size]
    wave = 128 + 60 * np.cos(2 * np.pi * (down * y + right * x) / size)
    spectrum = log_spectrum(np.rint(wave)[..., None].repeat(3, 2).astype(np.uint8))
    row, column = np.unravel_index(spectrum.argmax(), spectrum.shape)
    assert {abs(row - 16), abs(column - 16)} == {down, right}
    assert azimuthal(spectrum).argmax() + 1 == round(np.hypot(down, right))


def test_white_noise_has_the_power_of_its_variance() -> None:
    noise = np.random.default_rng(0).normal(128, 20, (64, 64))
    profile = azimuthal(log_spectrum(noise.round().clip(0, 255)[..., None].repeat(3, 2).astype(np.uint8)))
    np.testing.assert_allclose(profile[8:], 10 * np.log10(400), atol=2.5)
    assert profile[8:].mean() == pytest.approx(10 * np.log10(400), abs=0.3)


def test_a_flat_image_has_a_finite_spectrum() -> None:
    flat = log_spectrum(np.full((16, 16, 3), 77, np.uint8))
    np.testing.assert_allclose(flat, 10 * np.log10(1 / 12))


def test_fakes_with_a_grid_stand_out_from_reals(trained: Path, real: Path, fake: Path) -> None:
    spectra = Spectra.of(bundle.load(trained, "cpu"), [ShardSet(real), ShardSet(fake)])
    assert spectra.count == 72  # the training reals, and only they
    means = []
    for folder in (real, fake):
        found = [spectra.explain(ShardSet(folder).read(row)) for row in range(100, 120)]
        means.append(np.mean([one["difference"] for one in found], 0))
        assert np.isfinite([one["high_frequency"] for one in found]).all()
    nyquist = ([0, 0, 8], [0, 8, 0])  # where a grid on every second pixel has its power
    assert np.abs(means[0]).mean() < 0.5 and np.abs(means[0][nyquist]).max() < 1
    assert means[1][nyquist].min() > 2 and means[1].argmax() == 0
    with pytest.raises(UserError, match="no reals"):
        Spectra.of(bundle.load(trained, "cpu"), [ShardSet(fake)])


def test_the_nearest_prototype_of_a_training_image_is_itself(trained: Path, real: Path, fake: Path) -> None:
    detector = bundle.load(trained, "cpu")
    prototypes = Prototypes.of(detector, [ShardSet(real), ShardSet(fake)])
    assert prototypes.labels.tolist() == [0] * 72 + [1] * 72
    agree = []
    for row in (0, 7, 80, 143):
        found = prototypes.explain(prototypes.images[row], 5)
        assert found["similarity"][0] == pytest.approx(1, abs=1e-5)
        assert np.abs(prototypes.images[found["nearest"][0]].astype(int) - prototypes.images[row]).max() == 0
        assert (np.diff(found["similarity"]) <= 0).all() and len(found["names"]) == 5
        agree.append((found["labels"] == prototypes.labels[row]).mean())
    assert np.mean(agree) > 0.8
    with pytest.raises(UserError, match="no training images"):
        Prototypes.of(detector, [])


def test_rows_keep_to_their_split(real: Path) -> None:
    shards = ShardSet(real)
    for rows, part, most in ((training_rows, "train", 72), (validation_rows, "val", 24)):
        ((_, found),) = rows([shards], 1000, 0)
        assert set(shards.columns["split"][found]) == {part} and len(found) == most
        ((_, few),) = rows([shards], 10, 0)
        assert len(few) == 10
        assert rows([shards], 10, 1) == []


def test_open_sets(trained: Path, real: Path, fake: Path, tmp_path: Path) -> None:
    detector = bundle.load(trained, "cpu")
    assert {shards.path for shards in open_sets([], detector)} == {real, fake}
    with pytest.raises(UserError, match="was cropped as"):
        open_sets([make_shards(tmp_path / "other", 0, 8, crop="center")], detector)
    detector.card["data_hashes"] = {"gone": ""}
    with pytest.raises(UserError, match="--data DIR"):
        open_sets([], detector)


def test_folders_that_are_gone_or_changed_are_told(
    trained: Path, real: Path, fake: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detector = bundle.load(trained, "cpu")
    detector.card["data_hashes"] = {str(real): ShardSet(real).hash, "gone": "0", str(fake): "another"}
    assert [shards.path for shards in open_sets([], detector)] == [real]
    told = capsys.readouterr()
    assert f"gone (not there any more), {fake} (changed since)" in told.out + told.err
    detector.card["data_hashes"] = {"gone": "0"}
    with pytest.raises(
        UserError, match=r"is not here: gone \(not there any more\): name shards with --data DIR"
    ):
        open_sets([], detector)
