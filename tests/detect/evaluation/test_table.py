from typing import Any

from crossfake.detect.evaluation import metrics
from crossfake.detect.evaluation.table import format_table, worst_lines
from crossfake.stats import ranking


def _part(auc: float | None, n: int = 20_000) -> dict[str, Any]:
    names = (*ranking.RANKING, *metrics.AT_THRESHOLD, *metrics.OF_PROBABILITIES)
    figures: dict[str, Any] = dict.fromkeys(names, 0.5)
    intervals = {name: [0.4, 0.6] for name in names}
    return {**figures, "auc": auc, "n_real": n, "n_fake": n, "n_groups": n, "intervals": intervals}


def _result(generators: int) -> dict[str, Any]:
    by = {f"a-generator-with-a-very-long-name-{k:03d}": _part(k / 100) for k in range(generators)}
    return {"overall": _part(0.5), "by_source": {}, "by_generator": by, "by_group": {}, "by_video": {}}


def test_the_table_fits_a_terminal() -> None:
    lines = format_table(_result(5)).splitlines()
    assert len(lines) == 7 and max(map(len, lines)) <= 100
    assert "20,000 + 20,000" in lines[1] and "0.500 [0.400, 0.600]" in lines[1]


def test_of_many_parts_the_worst_are_shown() -> None:
    text = format_table(_result(40))
    assert "… and 28 more, which did better, in evaluation.json" in text
    assert "0.110 [" in text and "0.120 [" not in text


def test_the_worst_in_a_line() -> None:
    worst = {
        "name": "x",
        "figure": "auc",
        "value": 0.25,
        "interval": [0.2, 0.3],
        "n_real": 10,
        "n_fake": 1000,
    }
    (line,) = worst_lines({"worst": {"generator": worst}})
    assert line == "worst generator: x, AUC 0.250 [0.200, 0.300] (10 reals, 1,000 fakes)"


def test_the_table_fits_a_terminal_and_says_nothing_twice() -> None:
    result = _result(5)
    only = {**result["overall"]}
    result["by_source"] = {"the-only-source-of-everything-with-a-long-name": only}
    text = format_table(result)
    assert max(map(len, text.splitlines())) <= 100
    assert "the same as overall: source the-only-source" in text
    assert sum("source the-only" in line for line in text.splitlines()) == 1
