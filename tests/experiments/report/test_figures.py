"""Figures for a paper: which are drawn, in every format, the same bytes each time, and as the numbers say."""

import xml.etree.ElementTree as ET

import matplotlib
import matplotlib.colors
import numpy as np
import pytest
from PIL import Image

from crossfake.experiments.report import charts, figures
from crossfake.experiments.report.comparing import answers
from crossfake.experiments.report.results import Results

from ..conftest import write_experiment


@pytest.fixture(scope="module")
def dose(tmp_path_factory):
    results = Results(write_experiment(tmp_path_factory.mktemp("dose"), "dose-response", seeds=(0, 1)))
    return results, figures.write_figures(results, answers(results))


def test_every_figure_is_there_in_every_format(dose):
    results, names = dose
    assert set(names) == {"heatmap-cnn", "forest", "synthetic-fakes", "synthetic-fakes-ap", "roc"}
    for name in names:
        file = results.folder / "figures" / name
        with Image.open(file.with_suffix(".png")) as image:
            assert image.width >= 3.4 * 300 and np.asarray(image.convert("L")).std() > 5
        assert file.with_suffix(".pdf").read_bytes().startswith(b"%PDF-")
        text = "".join(ET.parse(file.with_suffix(".svg")).getroot().itertext())
        assert "AUC" in text or "AP" in text or "hits" in text


def test_axes_have_names_and_units(dose):
    results, _ = dose
    text = (results.folder / "figures" / "synthetic-fakes.svg").read_text()
    assert "synthetic fakes, images" in text and "20,000" in text and "AUC" in text
    assert "AP, unseen" in (results.folder / "figures" / "synthetic-fakes-ap.svg").read_text()
    assert "false alarms" in (results.folder / "figures" / "roc.svg").read_text()


def test_the_same_results_give_the_same_bytes(dose, tmp_path):
    results, _ = dose
    for _ in range(2):
        with matplotlib.rc_context(figures._STYLE):
            figures.save(figures.forest(answers(results)), tmp_path / "forest")
        for ending in figures.FORMATS:
            drawn = (results.folder / "figures" / f"forest.{ending}").read_bytes()
            assert (tmp_path / f"forest.{ending}").read_bytes() == drawn


def test_curves_are_the_means_and_their_bands(dose):
    results, _ = dose
    (panel,) = charts.axis_panels(results)
    mean, *tests = panel.series
    assert [line.name for line in tests] == ["dcgan", "web faces"]
    for k, condition in enumerate(results.conditions):
        found = results.mean("cnn", condition, ["dcgan", "web faces"])
        assert (mean.y[k], mean.low[k], mean.high[k]) == (found.mean, found.low, found.high)
    assert mean.y == tuple(sorted(mean.y))  # more helped, as it was simulated
    (panel,) = charts.axis_panels(results, "ap")
    expected = tuple(results.mean("cnn", c, ["dcgan", "web faces"], "ap").mean for c in results.conditions)
    assert panel.series[0].y == expected and panel.ylabel == "AP, unseen generators"


def test_robustness_starts_from_clean_pictures_and_falls(tmp_path):
    results = Results(write_experiment(tmp_path / "x", "robustness", seeds=(0, 1)))
    panels = charts.robustness_panels(results)
    assert [(panel.ylabel, panel.title, panel.about) for panel in panels] == [
        (f"AUC, {who} generators", kind, detector)
        for who in ("unseen", "known")
        for kind in ("jpeg", "blur")
        for detector in ("cnn", "resnet_18")
    ]
    assert [label for _, label in panels[0].ticks] == ["none", "90", "60", "30"]
    for line in panels[0].series:
        assert line.y[0] == results.mean("cnn", line.name, ["dcgan", "web faces"]).mean
        assert list(line.y) == sorted(line.y, reverse=True)


def test_a_heat_map_has_its_best_among_the_unseen(tmp_path):
    results = Results(write_experiment(tmp_path / "x", "matrix", seeds=(0,)))
    heat = charts.heat(results, "cnn")
    assert [list(row) for row in heat.seen] == np.eye(5, dtype=bool).tolist()
    assert heat.best[2] == {1} and heat.best[1] == {2}  # the StyleGANs know each other
    assert heat.best[-1] == frozenset()  # means over different tests are no race


def test_colours_are_told_apart_with_any_colour_vision():
    """No two of the first six are close after Viénot, Brettel & Mollon (1999): deuteranopia and protanopia."""
    rgb = np.array([matplotlib.colors.to_rgb(color) for color in figures.COLORS[:6]]) ** 2.2
    to_lms = np.array(
        [[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]]
    )
    lms = rgb @ to_lms.T
    protan = np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]])
    deutan = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
    for eye in (protan, deutan):
        seen = np.clip((lms @ eye.T) @ np.linalg.inv(to_lms).T, 0, 1) ** (1 / 2.2)
        gaps = np.linalg.norm(seen[:, None] - seen[None], axis=-1)[np.triu_indices(6, 1)]
        assert gaps.min() > 0.1
