"""The page from folders whose truth is known: what it finds, says, shows and leaves to nobody else."""

import csv
import io
import json
import re
from html.parser import HTMLParser

import pytest

from crossfake.errors import UserError
from crossfake.experiments.report.cards import model_cards
from crossfake.experiments.report.comparing import answers
from crossfake.experiments.report.quality_table import quality_table
from crossfake.experiments.report.reporting import report, texts
from crossfake.experiments.report.results import Results
from crossfake.pages import duration, signed

from ..conftest import GENERATORS, write_experiment


def page(folder):
    """The page alone, without the figures."""
    results = Results(folder)
    return texts(results, answers(results))["report.html"]


@pytest.fixture(scope="module")
def html(reported):
    return (reported / "report.html").read_text()


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    return page(write_experiment(tmp_path_factory.mktemp("matrix"), "matrix"))


def bare(html):
    return re.sub(r"\s+", " ", re.sub(r'"data:[^"]*"', '""', html))


def test_everything_is_written(reported):
    names = {path.relative_to(reported).as_posix() for path in reported.rglob("*") if path.is_file()}
    expected = {
        "report.html",
        "results.csv",
        "contrasts.csv",
        "results.tex",
        "croissant.json",
        "cards/cnn-with.md",
    }
    expected |= {f"figures/{name}.{end}" for name in ("forest", "roc") for end in ("png", "pdf", "svg")}
    assert expected <= names


def test_the_headline_says_it_in_words(html):
    assert "<h1>Training on stylegan2 fakes helped.</h1>" in html
    lead = re.search(r'<p class="lead">(.*?)</p>', html)[1]
    pattern = r"rose from 0\.\d{3} to 0\.\d{3} \(\+0\.\d{3}, 95% interval \+0\.\d{3} to \+0\.\d{3}, p &lt; 0.001, Holm"
    assert re.search(pattern, lead), lead
    assert "n = 280 fakes and 240 reals; 2 detectors; 3 seeds." in html


def test_worse_is_called_hurt_and_nothing_no_difference(tmp_path):
    assert "<h1>Training on stylegan2 fakes hurt.</h1>" in page(
        write_experiment(tmp_path / "x", swapped=True)
    )
    same = {("cnn", "without"): 1.0, ("cnn", "with"): 1.0}
    html = page(write_experiment(tmp_path / "y", strength=same))
    assert "<h1>Training on stylegan2 fakes showed no difference.</h1>" in html
    assert re.search(r"A true difference of 0\.\d{3} would have been found four times in five", html)


@pytest.mark.parametrize(
    ("kimg", "told", "said"),
    [
        (3.0, 1.0, ", with fakes of 3 kimg that anyone can tell"),
        (25_000.0, 0.995, ", with fakes that anyone can tell"),
        (112.4, 0.9, ", with fakes of 112 kimg"),
        (25_000.0, 0.9, ""),
        (None, 0.9, ""),  # an imported generator
    ],
)
def test_a_verdict_says_of_which_fakes_it_speaks(tmp_path, kimg, told, said):
    folder = write_experiment(tmp_path / "x", swapped=True, quality={"stylegan2": (kimg, told)})
    results = Results(folder)
    found = answers(results)
    written = texts(results, found)
    html = written["report.html"]
    assert f"<h1>Training on stylegan2 fakes hurt{said}.</h1>" in html
    assert "fakes are told was not measured" not in html
    said = said.removeprefix(", ")
    assert {row["own_fakes"] for row in csv.DictReader(io.StringIO(written["contrasts.csv"]))} == {said}
    assert (f"with minus without: {said}." in written["results.tex"]) == bool(said)
    card = model_cards(results, found)["cnn-with.md"]
    line = next(line for line in card.splitlines() if line.startswith("- with minus without: worse"))
    assert line.endswith(f"240 reals, 280 fakes){', ' if said else ''}{said}")


def test_several_verdicts_say_of_which_fakes_each_speaks(tmp_path):
    known = {"dcgan": (3.0, 1.0), "stylegan2": (12.0, 1.0), "stylegan3": (40.0, 0.8)}
    html = page(write_experiment(tmp_path / "x", "leave-one-out", quality=known))
    title = (
        "Own fakes helped in all 3 comparisons, with fakes of 3 to 40 kimg, some of which anyone can tell."
    )
    assert f"<h1>{title}</h1>" in html
    points = re.findall(r"<li><b>all but (\w+) minus without</b>.*?</li>", html)
    assert points == ["dcgan", "stylegan2", "stylegan3"]
    assert "with fakes of 3 to 12 kimg that anyone can tell</li>" in html  # all but stylegan3


def test_what_was_not_measured_of_own_fakes_is_said(html):
    assert "How easily stylegan2 fakes are told was not measured" in html


def test_figures_stand_with_n_and_what_chance_gives(html):
    table = html.split('<h3 id="test-0">dcgan: 130 fakes against 120 reals</h3>')[1].split("</table>")[0]
    chance = re.search(r">chance</th>(.*?)</tr>", table)[1]
    assert re.findall(r">(\d\.\d{3})<", chance) == [
        "0.500",
        "0.520",
        "0.500",
        "0.520",
    ]  # 130 of 250 are fakes
    assert "on dcgan: 130 fakes, 120 reals" in html
    assert html.count("± is half of the 95% interval") == 1 and "standard error" not in html


def test_quality_in_other_features_has_a_column_of_its_own():
    def pool(name, dims, value):
        detail = {
            "value": value,
            "standard_error": 0.01,
            "interval": [value - 0.02, value + 0.02],
            "dims": dims,
        }
        quality = {"fid": value, "n_real": 700, "n_fake": 700, "details": {"fid": detail}}
        return {"name": name, "quality": quality}

    pools = [pool("a", 768, 2.54), pool("b", 2048, 31.2), {"name": "c", "quality": None}]
    assert quality_table(pools) == {
        "headings": ["FID (768-d, not comparable with FID)", "FID"],
        "rows": [("a", ["2.54 ± 0.02", "–"], 700, 700), ("b", ["–", "31.20 ± 0.02"], 700, 700)],
    }


class Page(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.links, self.ids, self.tags = [], set(), []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        found = dict(attrs)
        self.ids.add(found.get("id"))
        self.links += [found[name] for name in ("src", "href", "srcset", "action") if name in found]


def test_the_page_asks_nobody_else_and_its_links_lead_somewhere(reported, html, matrix):
    for each in (html, matrix):
        found = Page(each)
        assert not {"script", "link", "iframe"} & set(found.tags)
        assert not re.search(r"https?://|url\(|@import", re.sub(r'"data:[^"]*"', "", each))
        inside = [link for link in found.links if link.startswith("#")]
        assert inside and {link[1:] for link in inside} <= found.ids
    beside = [link for link in Page(html).links if not link.startswith(("#", "data:image/"))]
    assert any(link.startswith("cells/") and link.endswith("/cell.json") for link in beside)
    assert [link for link in beside if not (reported / link).is_file()] == []


def test_every_number_of_a_table_leads_to_its_cells(html):
    for row in re.findall(r"<tr>.*?</tr>", html, re.DOTALL):
        if re.search(r'class="c\d">(with|without)', row) and "±" in row:
            links = re.findall(r'href="#(cells-\d-\d)">0\.\d{3}', row)
            assert len(links) >= 1
    group = re.search(r'id="cells-0-1">(.*?)</tbody>', html, re.DOTALL)[1]
    assert group.count("cell.json") == 3 and "0123abc" in group and "cnn, with" in group


def test_the_page_says_what_it_must(html):
    text = bare(html)
    expected = [
        "simulated &lt;scores&gt;",
        "150 fakes against 120 reals",
        "prefers-color-scheme: dark",
        "no difference shown",
        "reals among themselves",
        "0.09 ± 0.02",
        "resamples: 100",
        "1 cell(s) failed",
        "boom",
        "Wang et al. 2020",
        "What else gives the training data away",
        '0.600 <b class="warn">warn</b><small>0.560 to 0.640</small>',
        "Energy: 0.4 Wh for 12 of 12",
        "Reals called fake",
        "data:image/jpeg",
        "A sentence about the data.",
    ]
    assert [each for each in expected if each not in text and each not in html] == []
    assert html.count('aria-label="hits') == 4 and not re.search(r"\bnan\b", text)


def test_a_matrix_marks_what_was_trained_on(matrix):
    heat = re.search(r'<table class="heat">.*?</table>', matrix, re.DOTALL)[0]
    rows = re.findall(r"<tr><th>(\w+)</th>(.*?)</tr>", heat, re.DOTALL)
    assert [name for name, _ in rows] == list(GENERATORS)
    for k, (_, cells) in enumerate(rows):
        seen = [" seen" in cell for cell in re.findall(r"<td.*?</td>", cells, re.DOTALL)]
        assert seen == [place == k for place in range(6)]
    assert re.search(r"<h1>From 0\.9\d to 0\.6\d: detectors do worse on generators not trained on", matrix)
    assert "False alarms and misses of 20 pairs" in matrix


@pytest.mark.parametrize(
    ("design", "title", "charts"),
    [
        ("dose-response", "Own fakes helped in all 3 comparisons.", ["Synthetic fakes"]),
        ("leave-one-out", "Own fakes helped in all 3 comparisons.", []),
        ("robustness", "Training on stylegan2 fakes helped.", ["JPEG quality", "blur"]),
    ],
)
def test_the_other_protocols(tmp_path, design, title, charts):
    html = page(
        write_experiment(tmp_path / "x", design, seeds=(0, 1, 2)[: 2 if design == "robustness" else 3])
    )
    assert f"<h1>{title}</h1>" in html
    for chart in charts:
        assert chart in html
    bands = re.findall(r'class="band" d="M([^"]+)Z"', html)
    assert bool(bands) == bool(charts)
    for band in bands:
        points = [tuple(map(float, pair.split())) for pair in band.split("L")]
        assert all(-0.1 <= x <= 240.1 and -0.1 <= y <= 168.1 for x, y in points)


def test_an_unfinished_experiment_is_reported_as_far_as_it_got(tmp_path):
    folder = write_experiment(tmp_path / "x")
    next(iter(folder.glob("cells/*/cell.json"))).unlink()
    assert "1 cell(s) have not been run yet" in page(folder)


def test_one_seed_is_admitted(tmp_path):
    assert "leaves out how much training itself varies" in page(write_experiment(tmp_path / "x", seeds=(0,)))


def test_one_side_alone_is_reported_without_an_answer(tmp_path):
    folder = write_experiment(tmp_path / "x", seeds=(0,))
    for cell in Results(folder).cells:
        if cell.condition == "with":
            (cell.folder / "cell.json").unlink()
    html = page(folder)
    assert "detectors do worse on generators not trained on" in html and "2 cell(s) have not been run" in html
    assert "The comparisons" not in html


def test_without_pictures_it_still_works(tmp_path):
    folder = write_experiment(tmp_path / "x", seeds=(0, 1))
    (folder / "pictures" / "faces.png").unlink()
    html = page(folder)
    assert "<img" not in html and "Not shown: the pictures of" in html


def test_mistakes_are_the_right_pictures(reported, html):
    from crossfake.experiments.report.mistakes import sheets

    results = Results(reported)
    sheet = next(s for s in sheets(results) if (s.detector, s.condition) == ("cnn", "without"))
    worst = sheet.alarms[0]
    margins = {
        test: sum(cell.scores[test] - 0.5 for cell in results.cells_of("cnn", "without"))[:120] / 3
        for test in ("dcgan", "web faces")
    }
    assert worst.margin == pytest.approx(max(values.max() for values in margins.values()))
    assert margins[worst.test][worst.row] == pytest.approx(worst.margin)
    assert worst.pool in ("real", "web faces") and worst.image in html


def test_what_cannot_be_reported(tmp_path):
    with pytest.raises(UserError, match="holds no experiment"):
        report(tmp_path)


def test_an_experiment_without_extras_is_reported(tmp_path):
    """Neither audits, notes, published figures, quality nor energy."""
    folder = write_experiment(tmp_path / "x", seeds=(0,))
    facts = json.loads((folder / "experiment.json").read_text())
    facts |= {"audits": {}, "notes": [], "published": [], "note": ""}
    for pool in facts["pools"]:
        pool["quality"] = None
    (folder / "experiment.json").write_text(json.dumps(facts))
    for file in folder.glob("cells/*/cell.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"energy": None, "commit": None}))
    html = page(folder)
    assert "Energy:" not in html and "published" not in html and "How good" not in html


def test_what_trained_the_cells_is_said_where_it_differs(tmp_path):
    folder = write_experiment(tmp_path / "x", seeds=(0,))
    assert "do not share" not in page(folder)
    for number, file in enumerate(sorted(folder.glob("cells/*/cell.json"))):
        made = {
            "commit": "0123456789abcdef" + "+dirty" * (number == 0),
            "packages": {"torch": "2.15.0" if number else "2.14.1"},
            "hardware": {"cpu": "one", "gpus": []},
        }
        file.write_text(json.dumps(json.loads(file.read_text()) | made))
    html = page(folder)
    assert "do not share one version of torch: 2.15.0" in html and "2.14.1 (1)" in html
    assert "0123456789ab+dirty (1)" in html and "one processor" not in html


def test_numbers_in_words():
    assert [signed(value) for value in (0.12, -0.05, 0.0, -0.0001)] == [
        "+0.120",
        "\N{MINUS SIGN}0.050",
        "0.000",
        "0.000",
    ]
    assert [duration(seconds) for seconds in (41.6, 185, 7800)] == ["42 s", "3 min 05 s", "2 h 10 min"]
