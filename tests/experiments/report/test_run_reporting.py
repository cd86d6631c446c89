"""The page of a training run: what it shows of whole, unfinished, empty and foreign folders."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

from crossfake.cli import main
from crossfake.errors import UserError
from crossfake.experiments.report.run_reporting import run_report
from crossfake.images import contact_sheet, save_png
from crossfake.runs import Run


@pytest.fixture
def run(tmp_path):
    run = Run.create(tmp_path / "gan", {"family": "stylegan2", "images": 1234, "size": 32}, kind="synth")
    for step in range(1, 101):
        values = {"kimg": step / 2, "loss": 9.0, "loss_g": 10 / step, "sec_per_kimg": 12.0, "eta_min": 1.0}
        with open(run.path / "log.jsonl", "a") as file:
            file.write(
                json.dumps({"step": step, **values, **({"fid": 50.0 - step} if step % 50 == 0 else {})})
                + "\n"
            )
    faces = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), dtype=np.uint8)
    for name in ("reals", "000010.000", "000020.000", "000050.000"):
        save_png(contact_sheet(faces), run.samples / f"{name}.png")
    return run


def test_the_page_shows_samples_and_every_curve(run):
    html = run_report(run.path).read_text()
    assert "Training of stylegan2, not finished" in html
    assert "50 kimg on 1,234 images of 32 pixels in 10 min 00 s." in html
    assert re.findall(r"<b>([^<]+)</b>", html) == ["Reals", "10 kimg", "20 kimg", "50 kimg"]
    assert re.findall(r"<h3>([^<]+) <span>([^<]+)</span>", html) == [
        ("Generator&#39;s loss", "0.1"),
        ("FID", "-50"),
        ("Seconds per kimg", "12"),
    ]
    assert not re.search(r'https?://|d="[^"]*nan', html)


def test_a_curve_stays_within_its_frame(run):
    html = run_report(run.path).read_text()
    paths = re.findall(r'class="(?:curve line1|seed)" d="M([^"]+)"', html)
    assert len(paths) == 6  # a thin and a thick one of each value
    for path in paths:
        points = np.array([pair.split() for pair in path.split("L")], float)
        assert points.min() >= 0 and points[:, 0].max() <= 240 and points[:, 1].max() <= 168


def test_a_finished_run_says_so_through_the_command(run):
    run.finish()
    found = CliRunner().invoke(main, ["experiment", "report", str(run.path)])
    assert found.exit_code == 0, found.output
    assert found.output == f"report:  {run.path / 'report.html'}\n"
    assert "not finished" not in (run.path / "report.html").read_text()


def test_a_run_that_logged_nothing_has_a_page(tmp_path):
    run = Run.create(tmp_path / "new", {"model": "cnn"}, kind="detect")
    assert "Nothing has been logged yet." in run_report(run.path).read_text()


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        run_report(tmp_path)
