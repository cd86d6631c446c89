"""The pages that commands write, in a browser: nothing is cut off unseen, and no two labels of a chart overlap."""

from pathlib import Path
from typing import Any

import pytest

from crossfake.experiments.report.comparing import answers
from crossfake.experiments.report.reporting import texts
from crossfake.experiments.report.results import Results

from ..detect.conftest import make_shards
from ..experiments.conftest import write_experiment

WIDTHS = (1440, 390)
# Elements that reach beyond the window. One inside an element that scrolls is not lost where that element shows that it
# does: by a shadow, as tables have it, or by being one of code, whose lines are cut in plain sight.
_CUT = """() => {
  const wide = document.documentElement.clientWidth;
  const lost = element => {
    for (let each = element.parentElement; each; each = each.parentElement) {
      const style = getComputedStyle(each);
      if (/auto|scroll/.test(style.overflowX))
        return !(each.tagName == 'PRE' || style.backgroundImage.includes('gradient'));
      if (/hidden|clip/.test(style.overflowX)) return true;
    }
    return true;
  };
  return [...document.querySelectorAll('body *')]
    .filter(e => e.getClientRects().length && (e.getBoundingClientRect().right > wide + 1
      || e.getBoundingClientRect().left < -1))
    .filter(lost).map(e => e.tagName + ': ' + e.textContent.trim().slice(0, 60));
}"""
_OVERLAPS = """() => {
  const found = [];
  for (const chart of document.querySelectorAll('svg, .axis')) {
    const labels = [...chart.querySelectorAll('text, span')].filter(e => e.textContent.trim())
      .map(e => [e.textContent.trim(), e.getBoundingClientRect()]).filter(([, box]) => box.width);
    labels.forEach(([one, a], number) => labels.slice(number + 1).forEach(([other, b]) => {
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (across > 1 && down > 2) found.push(one + ' over ' + other);
    }));
  }
  return found;
}"""


def _looked_at(browser: Any, page: Path, width: int) -> dict[str, list[str]]:
    context = browser.new_context(viewport={"width": width, "height": 900})
    try:
        opened = context.new_page()
        opened.goto(page.resolve().as_uri())
        opened.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
        beyond = opened.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return {
            "cut": opened.evaluate(_CUT) + [f"the page by {beyond} pixels"] * (beyond > 0),
            "overlaps": opened.evaluate(_OVERLAPS),
        }
    finally:
        context.close()


@pytest.fixture(scope="module")
def pages(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each kind, with as much on it as there can be."""
    from crossfake.datasets.audit.audit import (
        audit,
    )
    from crossfake.datasets.audit.settings import AuditSettings
    from crossfake.detect.evaluation.evaluate import evaluate
    from crossfake.detect.settings import EvaluateSettings

    root = tmp_path_factory.mktemp("pages")
    found = {}
    for design in ("ablation", "robustness", "matrix", "leave-one-out", "dose-response"):
        folder = write_experiment(root / design, design, seeds=(0, 1), failures=("broken",), shards=True)
        results = Results(folder)
        _many_probes(results.experiment)
        (folder / "report.html").write_text(texts(results, answers(results))["report.html"])
        found[design] = folder / "report.html"
    sets = [
        make_shards(root / "faces", 0, seed=11, split="test"),
        make_shards(root / "fakes", 1, seed=12, split="test"),
    ]
    for number in range(7):
        name = f"a-generator-of-a-long-name-{number}"
        sets.append(make_shards(root / name, 1, 30, seed=20 + number, split="test"))
        _named(sets[-1], name)
    evaluate(EvaluateSettings(trained, tuple(sets), out=root / "evaluation", bootstrap=100, device="cpu"))
    found["evaluation"] = root / "evaluation" / "evaluation.html"
    audit(AuditSettings((str(sets[0]),), (str(sets[1]),), out=root / "audit"))
    found["audit"] = root / "audit" / "audit.html"
    return found


def _named(shards: Path, generator: str) -> None:
    """Other fakes than those of the others."""
    import h5py

    with h5py.File(shards / "00000.h5", "r+") as file:
        file["generator"][:] = [generator] * len(file["generator"])


def _many_probes(experiment: dict[str, Any]) -> None:
    """As many as an audit has, one of which fails."""
    for audit in experiment["audits"].values():
        probe = {"auc": 0.5, "low": 0.44, "high": 0.56, "verdict": "pass"}
        audit["probes"] = {f"probe of kind {k}": probe for k in range(12)} | {
            "metadata": {"auc": 0.97, "low": 0.9, "high": 1.0, "verdict": "fail"},
            "background": {"auc": None, "low": 0.0, "high": 1.0, "verdict": "not run"},
        }


KINDS = ("ablation", "robustness", "matrix", "leave-one-out", "dose-response", "evaluation", "audit")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_cut_off_and_no_labels_overlap(
    kind: str, width: int, pages: dict[str, Path], browser: Any
) -> None:
    assert _looked_at(browser, pages[kind], width) == {"cut": [], "overlaps": []}


@pytest.mark.parametrize("width", WIDTHS)
def test_what_fails_is_in_the_first_rows_and_in_sight(
    width: int, pages: dict[str, Path], browser: Any
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    page.goto(pages["ablation"].as_uri())
    rows = page.locator("table.probes tbody tr")
    assert rows.nth(0).locator("th").inner_text() == "verdict"
    assert rows.nth(1).locator("th").inner_text() == "metadata" and "fail" in rows.nth(1).inner_text()
    for cell in rows.nth(1).locator("td b.fail").all():
        box = cell.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
    context.close()


def test_the_checks_find_what_they_look_for(browser: Any, tmp_path: Path) -> None:
    page = tmp_path / "x.html"
    page.write_text(
        "<!doctype html><meta name=viewport content='width=device-width'>"
        "<div style='overflow-x:auto;width:100px'><div style='width:3000px'>unseen</div></div>"
        "<div style='overflow:hidden;width:100px'><div style='width:3000px'>gone</div></div>"
        "<svg width=100 height=20><text x=0 y=15>one</text><text x=5 y=15>two</text></svg>"
    )
    found = _looked_at(browser, page, 390)
    assert found["cut"] == ["DIV: unseen", "DIV: gone"] and found["overlaps"] == ["one over two"]
