import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from crossfake.datasets.shards import ShardSet
from crossfake.detect.commands.predict import predict
from crossfake.detect.prediction.output import Summary, printable, write_table
from crossfake.detect.prediction.verdicts import Prediction
from crossfake.detect.verdict import FrameScore, MissedFace, Verdict
from crossfake.errors import UserError

FACE = Verdict(0.8, 0.7, 0.6, 0.9, "fake", 0.99, ("out-of-distribution", "blurred"), (1, 2, 3, 4), 0)


def _invoke(*args: object) -> Result:
    return CliRunner().invoke(predict, [str(arg) for arg in args])


@pytest.fixture
def folder(fake: Path, tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for number in range(3):
        Image.fromarray(ShardSet(fake).read(number)).save(tmp_path / "in" / f"{number}.png")
    (tmp_path / "in" / "1.png").write_text("broken")
    return tmp_path / "in"


def test_one_json_document_and_a_csv_row_per_face(fit_run: Path, folder: Path, tmp_path: Path) -> None:
    result = _invoke(folder, "--bundle", fit_run, "--device", "cpu", "--json", "--csv", tmp_path / "x.csv")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["schema"] == 1 and found["summary"] | {"real": 0, "fake": 0, "uncertain": 0} == {
        "files": 3,
        "judged": 2,
        "not_judged": 1,
        "real": 0,
        "fake": 0,
        "uncertain": 0,
        "no_reliable_answer": 0,
    }
    assert set(found["detector"]) == {
        "path",
        "hash",
        "model",
        "size",
        "crop",
        "threshold",
        "view",
        "grade",
        "basis",
    }
    assert [each["kind"] for each in found["files"]] == ["picture"] * 3
    good, broken = found["files"][:2]
    assert set(good) == {
        "path",
        "kind",
        "width",
        "height",
        "verdict",
        "probability",
        "faces",
        "skipped",
        "problem",
        "annotated",
        "claim",
        "metadata",
    }
    assert set(good["faces"][0]) == {
        "box",
        "person",
        "score",
        "probability",
        "low",
        "high",
        "verdict",
        "novelty",
        "reasons",
        "quantile",
        "frames",
        "grade",
        "prior",
    }
    assert broken["verdict"] == "not judged" and broken["probability"] is None and not broken["faces"]
    assert result.stderr == "2 judged, 1 could not be (listed in the document)\n"
    rows = list(csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text())))
    assert [row["verdict"] for row in rows] == [each["verdict"] for each in found["files"]]
    assert (
        float(rows[0]["probability"]) == good["probability"] and "no known image format" in rows[1]["problem"]
    )


def test_the_table_ends_with_what_could_not_be_judged(fit_run: Path, folder: Path, tmp_path: Path) -> None:
    result = _invoke(folder, "--bundle", fit_run, "--device", "cpu", "--annotate", tmp_path / "out")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[4:6] == [
        "1 could not be judged:",
        f"  {folder / '1.png'}: cannot be read (no known image format)",
    ]
    assert lines[7] == "2 judged, 1 could not be (listed above)" and lines[-1].endswith("It is not proof.")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "2.png"]


def test_when_nothing_can_be_judged_the_exit_code_says_so(
    trained: Path, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "b.png").write_text("broken")
    for how in ([], ["--json"]):
        result = _invoke(tmp_path / "b.png", "--bundle", trained, "--device", "cpu", *how)
        assert isinstance(result.exception, UserError) and "nothing could be judged" in str(result.exception)
    result = _invoke(folder, "--bundle", trained, "--device", "cpu", "--csv", tmp_path / "none" / "x.csv")
    assert isinstance(result.exception, UserError) and "cannot write" in str(result.exception)


def test_names_cannot_write_to_the_terminal() -> None:
    lines: list[str] = []
    frames = (FrameScore(3, 0.1, 0.8, 0.7, "fake", None),)
    video = Verdict(0.8, 0.7, None, None, "uncertain", person=0, quantile=0.75, frames=frames)
    predictions = [
        Prediction(
            "a\x1b[31m\n\udcff.png", "picture", 9, 9, "fake", 0.7, (FACE, FACE), (MissedFace("too small"),)
        ),
        Prediction("v.mp4", "video", 9, 9, "uncertain", 0.7, (video,), (MissedFace("no face", frames=2),)),
        Prediction("b.png", "picture", 0, 0, "not judged", problem="cannot\x07 be read"),
    ]
    write_table(iter(predictions), lines.append, "Learned from x.")
    text = "\n".join(lines)
    assert (
        "\x07" not in text and "a\\x1b[31m\\n\\udcff.png  face 1 of 2" in text and printable("é ü") == "é ü"
    )
    assert "0.60 to 0.90" in text and "one face: too small" in text and "2 frames: no face" in text
    assert "1 frames, highest tenth from 0.750" in text and "2 judged, 1 could not be" in text
    assert "out-of-distribution: more unusual" in text and "near-threshold:" not in text
    assert "Uncertain: Both are plausible" in text and "Learned from x." in text


def test_without_a_reliable_answer_no_number_is_shown(trained: Path, folder: Path, tmp_path: Path) -> None:
    result = _invoke(folder, "--bundle", trained, "--device", "cpu", "--csv", tmp_path / "x.csv")
    line = result.stdout.splitlines()[1]
    assert line.startswith("no reliable answer      -  -  ") and "untested" in line
    assert "No reliable answer: Look for where the picture comes from" in result.stdout
    assert "never tested on pictures of strangers." in result.stdout
    with open(tmp_path / "x.csv") as file:
        row = next(csv.DictReader(file))
    assert (row["verdict"], row["probability"], row["low"]) == ("no reliable answer", "", "")


def test_the_summary_counts_in_thousands() -> None:
    summary = Summary()
    summary.counts.update({"real": 9000, "fake": 999, "not judged": 1})
    assert summary.line("listed above") == "9,999 judged, 1 could not be (listed above)"
    summary.counts["not judged"] = 0
    assert summary.line("") == "9,999 judged: 999 fake, 9,000 real"
