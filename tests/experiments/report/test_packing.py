"""What is packed can be verified where nothing else is, and says nothing of the machine that it comes from."""

import json
import re
import shutil
import subprocess
import zipfile

import pytest
from click.testing import CliRunner

from crossfake.cli import main
from crossfake.errors import UserError
from crossfake.experiments.report.packing import pack, verify_archive
from crossfake.experiments.report.reporting import report
from crossfake.experiments.report.verifying import verify

from ..conftest import write_experiment

HOME = "/home/annabel"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An experiment on the machine of somebody whose name is in every place where one can be."""
    strength = {("cnn", "without"): 0.5, ("cnn", "with"): 2.0}
    root = tmp_path_factory.mktemp("packing")
    folder = write_experiment(root / "trial", seeds=(0, 1), strength=strength, shards=True)
    facts = json.loads((folder / "experiment.json").read_text())
    facts["config"] |= {"real": [f"{HOME}/my faces/64"], "prepare": {"source": f"ffhq:{HOME}/ffhq"}}
    facts["notes"] = [f"{HOME}/fakes/own holds own fakes (see {HOME}/x.txt), and/or 280/240 others."]
    (folder / "experiment.json").write_text(json.dumps(facts))
    (folder / "config.yaml").write_text(f"kind: experiment\nreal: [{HOME}/my faces/64]\ncache: null\n")
    command = [f"{HOME}/.venv/bin/crossfake", "experiment", "run"]
    (folder / "environment.json").write_text(json.dumps({"crossfake": "1.0", "command": command}))
    for file in folder.glob("cells/*/cell.json"):
        card = json.loads(file.read_text())
        card["settings"]["real"] = [f"{HOME}/my faces/64"]
        file.write_text(json.dumps(card))
        for scores in (file.parent / "scores").iterdir():  # persons are named by their folders
            scores.write_text(scores.read_text().replace("real person ", f"{HOME}/Annabel Lee "))
    report(folder)
    return folder


@pytest.fixture(scope="module")
def archive(run, tmp_path_factory):
    return pack(run, tmp_path_factory.mktemp("packed") / "x.zip")


def _rewritten(archive, out, change):
    """The archive with other contents: ``change`` of a dict of bytes by name."""
    with zipfile.ZipFile(archive) as old:
        files = {name: old.read(name) for name in old.namelist()}
    change(files)
    with zipfile.ZipFile(out, "w") as new:
        for name, content in files.items():
            new.writestr(name, content)
    return out


def test_it_verifies_elsewhere_with_the_original_gone(run, tmp_path):
    copied = tmp_path / "here" / "trial"
    shutil.copytree(run, copied)
    packed = pack(copied)
    assert packed == tmp_path / "here" / "trial.zip"
    moved = shutil.move(packed, tmp_path / "moved.zip")
    shutil.rmtree(tmp_path / "here")
    assert verify_archive(moved) == []
    done = CliRunner().invoke(main, ["experiment", "verify", str(moved)])
    assert done.exit_code == 0 and "all numbers are those of the stored scores" in done.output


def test_it_says_nothing_of_the_machine_and_shows_nobody(archive, run):
    with zipfile.ZipFile(archive) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    for name, content in files.items():
        assert not re.search(rb"annabel|/home|\bcommand\b|" + str(run).encode(), content, re.I), name
        assert name.startswith("trial/") and "pictures/" not in name
    page = files["trial/report.html"].decode()
    assert "<img" not in page and "data:image" not in page
    note = json.loads(files["trial/experiment.json"])["notes"][0]
    assert note == "own holds own fakes (see x.txt), and/or 280/240 others."


def test_figures_are_the_same_and_groups_are_numbers(archive, run, tmp_path):
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path)
    assert (tmp_path / "trial" / "contrasts.csv").read_bytes() == (run / "contrasts.csv").read_bytes()
    scores = next((tmp_path / "trial").glob("cells/*/scores/*.csv"))
    original = run / scores.relative_to(tmp_path / "trial")
    pairs = [
        (a.split(","), b.split(","))
        for a, b in zip(scores.read_text().split()[1:], original.read_text().splitlines()[1:], strict=True)
    ]
    assert all(new[:2] == old[:2] and float(new[3]) == float(old[3]) for new, old in pairs)
    assert all(re.fullmatch(r"g\d+", new[2]) for new, _ in pairs)
    assert len({(new[2], old[2]) for new, old in pairs}) == len({old[2] for _, old in pairs})
    assert verify(tmp_path / "trial") == []
    sums = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=tmp_path / "trial")
    assert sums.returncode == 0


def test_pictures_are_kept_when_asked_for(reported, tmp_path):
    packed = pack(reported, tmp_path / "p.zip", pictures=True)
    name = reported.name
    with zipfile.ZipFile(packed) as opened:
        page = opened.read(f"{name}/report.html").decode()
        assert f"{name}/pictures/faces.png" in opened.namelist()
    assert "Fakes called real" in page and page.count("data:image/jpeg") > 5
    assert verify_archive(packed) == []


def test_a_changed_file_is_named(archive, tmp_path):
    def change(files):
        files["trial/contrasts.csv"] = files["trial/contrasts.csv"].replace(b",0.", b",0.9", 1)
        files["trial/more.txt"] = b"x"
        del files["trial/figures/roc.png"]

    said = verify_archive(_rewritten(archive, tmp_path / "x.zip", change))
    assert said[:3] == [
        "figures/roc.png is listed in SHA256SUMS and not there",
        "more.txt is not listed in SHA256SUMS",
        "contrasts.csv is not what it was when it was packed",
    ]
    assert any(each.startswith("contrasts.csv, with minus without") for each in said[3:])


def test_a_forged_score_is_found_even_with_its_hash(archive, tmp_path):
    """Who changes a score has to change the list of hashes, and then the tables give it away."""
    import hashlib

    def change(files):
        name = next(name for name in files if "/scores/" in name)
        old = hashlib.sha256(files[name]).hexdigest()
        files[name] = re.sub(rb"(?m)^0,0,(g\d+),.*$", rb"0,0,\1,0.0001", files[name])
        sums = files["trial/SHA256SUMS"]
        files["trial/SHA256SUMS"] = sums.replace(
            old.encode(), hashlib.sha256(files[name]).hexdigest().encode()
        )

    said = verify_archive(_rewritten(archive, tmp_path / "x.zip", change))
    assert said and any("scores_sha256 is" in each for each in said)


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("key", "../../../etc"),
        ("hash", "../../../../x"),
        ("picture", "../../secret.png"),
        ("cache", "/etc"),
        ("parts", [["/etc", [0]]]),
    ],
)
def test_an_archive_cannot_have_other_files_read(archive, tmp_path, what, value):
    def change(files):
        facts = json.loads(files["trial/experiment.json"])
        place = {"key": facts["cells"][0], "picture": facts["pools"][0], "cache": facts["config"]}
        place.get(what, facts["tests"][0])[what] = value
        files["trial/experiment.json"] = json.dumps(facts).encode()

    with pytest.raises(UserError, match="names files outside of it"):
        verify_archive(_rewritten(archive, tmp_path / "x.zip", change))


def test_members_cannot_leave_the_folder(archive, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def change(files):
        files["../escaped.txt"] = files[str(tmp_path / "rooted.txt")] = b"x"

    verify_archive(_rewritten(archive, tmp_path / "x.zip", change))
    assert [file.name for file in tmp_path.iterdir()] == ["x.zip"]


def test_what_is_no_archive_is_one_line(tmp_path, monkeypatch, archive):
    (tmp_path / "x.zip").write_text("letter")
    with pytest.raises(UserError, match="is not a whole zip archive"):
        verify_archive(tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as other:
        other.writestr("a/b.txt", "x")
    with pytest.raises(UserError, match="holds no packed experiment"):
        verify_archive(tmp_path / "y.zip")
    monkeypatch.setattr("crossfake.experiments.report.packing._MAX_BYTES", 1000)
    with pytest.raises(UserError, match="unpacks to more than"):
        verify_archive(archive)


def test_a_report_that_is_not_what_scores_give_is_not_packed(run, tmp_path):
    shutil.copytree(run, tmp_path / "x")
    (tmp_path / "x" / "results.tex").write_text("%")
    with pytest.raises(UserError, match=r"the report is not what the scores give \(results\.tex"):
        pack(tmp_path / "x")
    next((tmp_path / "x").glob("cells/*/cell.json")).unlink()
    with pytest.raises(UserError, match="1 cells are not finished"):
        pack(tmp_path / "x")
    with pytest.raises(UserError, match="holds no experiment"):
        pack(tmp_path / "nothing")


def test_it_is_the_same_archive_twice(run, tmp_path, archive):
    """As to text; figures hold the time of drawing."""
    again = pack(run, tmp_path / "again.zip")
    with zipfile.ZipFile(archive) as one, zipfile.ZipFile(again) as other:
        assert one.namelist() == other.namelist()
        for name in one.namelist():
            if name.endswith((".csv", ".json", ".html", ".tex", ".md")):
                assert one.read(name) == other.read(name), name


def test_out_is_named_where_it_cannot_be_written(run, tmp_path):
    done = CliRunner().invoke(main, ["experiment", "pack", str(run), "--out", str(tmp_path / "no" / "x.zip")])
    assert done.exit_code == 2 and "cannot be written" in done.output
    done = CliRunner().invoke(main, ["experiment", "pack", str(run), "--out", str(tmp_path / "x.zip")])
    assert done.exit_code == 0 and "sha256" in done.output and "experiment verify x.zip" in done.output
