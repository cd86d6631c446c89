"""The shape of the code: which folders there are, what may import what, and what a file may hold."""

import ast
import configparser
import importlib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BELOW = {
    "core": set(),
    "datasets": {"core"},
    "synth": {"core", "datasets"},
    "detect": {"core", "datasets"},
    "serve": {"core", "datasets", "detect"},
    "experiments": {"core", "datasets", "synth", "detect"},
}
PARTS = {part: f"crossfake.{part}".removesuffix(".core") for part in BELOW}
LONGEST = 420
LONG = {
    "datasets/crops.py": "the policies share one cropper, and the settings of each stand beside what it does",
    "datasets/identities.py": "faces, their descriptors and the persons they make: one walk over the data",
    "datasets/leaks.py": "a split is dealt, checked and written by the same groups",
    "detect/prediction/media.py": "pictures and videos become faces by one path, so that both are judged alike",
    "experiments/run/running.py": "the order of a run from data to results, read from top to bottom",
}


def _files() -> list[Path]:
    return [file for part in PARTS for file in sorted((ROOT / part).rglob("*.py"))]


def _folders() -> dict[str, str]:
    """Import name -> folder, for every folder that holds Python files."""
    found = {}
    for part, name in PARTS.items():
        for file in sorted((ROOT / part).rglob("*.py")):
            below = file.parent.relative_to(ROOT / part).parts
            found[".".join((name, *below))] = "/".join((part, *below))
    return found


def test_setup_cfg_lists_every_folder() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    options = config["options"]
    mapping = dict(line.split(" = ") for line in options["package_dir"].strip().splitlines())
    assert mapping == _folders()
    assert options["packages"].split() == list(mapping)


def test_every_folder_is_a_package() -> None:
    assert [folder for folder in _folders().values() if not (ROOT / folder / "__init__.py").is_file()] == []


def test_no_folder_shadows_the_import_name() -> None:
    assert not (ROOT / "crossfake").exists()


def test_typing_links_show_every_module() -> None:
    links = {link.name: link for link in (ROOT / ".typing" / "crossfake").iterdir()}
    modules = {path for path in (ROOT / "core").iterdir() if path.name != "__pycache__"}
    expected = {path.name: path for path in modules} | {p: ROOT / p for p in PARTS if p != "core"}
    assert sorted(links) == sorted(expected)
    assert {
        name for name, link in links.items() if not link.is_symlink() or link.readlink().is_absolute()
    } == set()
    assert {name for name, link in links.items() if link.resolve() != expected[name]} == set()


def test_no_part_is_loaded_under_its_folder_name() -> None:
    """Not even after importing every module there is."""
    modules = [
        ".".join((name, *path.relative_to(ROOT / part).with_suffix("").parts)).removesuffix(".__init__")
        for part, name in PARTS.items()
        for path in (ROOT / part).rglob("*.py")
        if path.name != "__main__.py"
    ]
    for name in modules:
        importlib.import_module(name)
    assert set(PARTS) & set(sys.modules) == set()


def test_imports_run_one_way() -> None:
    wrong = []
    for part, allowed in BELOW.items():
        for file in (ROOT / part).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                names = (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import | ast.ImportFrom)
                    else []
                )
                if isinstance(node, ast.ImportFrom):
                    assert node.level == 0, f"{file}:{node.lineno} is a relative import"
                    names = [f"{node.module}.{name}" for name in names]
                parts = {name.split(".")[1] for name in names if name.startswith("crossfake.")} & set(PARTS)
                wrong += [f"{file.relative_to(ROOT)}:{node.lineno} {p}" for p in parts - allowed - {part}]
    assert wrong == []


def test_init_files_hold_exports_alone() -> None:
    """Registries are tables of names and modules, so nothing has to be imported for its effect."""
    wrong = []
    for file in (file for file in _files() if file.name == "__init__.py"):
        for node in ast.parse(file.read_text()).body:
            doc = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            named = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith("__")
            lazy = (
                isinstance(node, ast.FunctionDef) and node.name == "__getattr__"
            )  # exports that bring torch
            if not (doc or named or lazy or isinstance(node, ast.Import | ast.ImportFrom)):
                wrong.append(f"{file.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)[:60]}")
    assert wrong == []


def test_files_are_short_or_say_why_not() -> None:
    long = {str(file.relative_to(ROOT)) for file in _files() if len(file.read_text().splitlines()) > LONGEST}
    assert long == set(LONG)


def test_what_the_formatter_leaves_alone_says_why() -> None:
    """``# a table  # fmt: skip``; and what catches every exception says in its line why it may."""
    places = (ROOT / part for part in (*PARTS, "tests", "benchmarks"))
    wrong = [
        f"{file.relative_to(ROOT)}:{number}"
        for place in places
        for file in sorted(place.rglob("*.py"))
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if re.search(r"^[^#\"]*# fmt: ", line) or re.search(r"except (Base)?Exception\b[^#]*$", line)
    ]
    assert wrong == []


STATISTICS = {
    *("roc_auc_score", "average_precision_score", "rankdata", "mannwhitneyu"),  # rankings
    *("multinomial", "nanquantile", "nanpercentile", "proportion_ci", "binomtest"),  # resamples and shares
    *("ppf", "isf", "ndtri", "stdtrit", "betaincinv", "NormalDist"),  # tails of distributions
    *(
        "false_discovery_control",
        "multipletests",
        "ttest_1samp",
        "ttest_ind",
        "ttest_rel",
        "permutation_test",
    ),
}
HOMES = {
    "auc",
    "weighted_auc",
    "average_precision",
    "eer",
    "roc_curve",
    "wilson",
    "delong",
    "holm",
    "bootstrap",
}
TAILS = {0.025, 0.975, 1.96, 1.959964}
ELSEWHERE = {
    "detect/evaluation/pictures.py ppf": "the axes of a DET picture are normal deviates",
    "detect/explain/faithfulness.py rankdata": "the rank correlation of two maps",
}


def _statistics(tree: ast.AST) -> set[str]:
    """Names by which a file makes a statistic of its own."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            found |= {node.attr if isinstance(node, ast.Attribute) else node.id} & STATISTICS
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("scipy", "sklearn")):
            found |= {alias.name for alias in node.names} & (STATISTICS | HOMES)
        elif isinstance(node, ast.Constant) and isinstance(node.value, float) and node.value in TAILS:
            found.add(str(node.value))
    return found | {f"def {node.name}" for node in _functions(tree) if node.name in HOMES}


def _functions(tree: ast.AST) -> list[ast.FunctionDef]:
    return [node for node in ast.iter_child_nodes(tree) if isinstance(node, ast.FunctionDef)]


def test_each_statistic_has_one_home() -> None:
    """AUC, bootstrap, intervals and p values are those of core/stats; elsewhere they are called."""
    found = {
        f"{file.relative_to(ROOT)} {name}"
        for file in _files()
        if (ROOT / "core" / "stats") not in file.parents
        for name in _statistics(ast.parse(file.read_text()))
    }
    assert found == set(ELSEWHERE)


def test_a_statistic_of_ones_own_is_seen() -> None:
    own = """
from sklearn.metrics import roc_curve
def wilson(share, n): ...
low = np.quantile(draws, [0.025, 0.5])
drawn = rng.multinomial(9, p)
"""
    assert _statistics(ast.parse(own)) == {"roc_curve", "def wilson", "0.025", "multinomial"}


def test_there_is_one_training_loop() -> None:
    """Learners say what a step is; who makes their steps, and writes checkpoints to go on from, is core/fit."""
    found: dict[str, set[str]] = {"train_step": set(), "save": set()}
    for file in _files():
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            called = node.func
            if called.attr == "train_step" or ast.unparse(called) == "torch.save":
                found[called.attr].add(str(file.relative_to(ROOT)))
    assert found == {"train_step": {"core/fit/loop.py"}, "save": {"core/fit/checkpoints.py"}}


def test_charts_of_lines_have_one_renderer() -> None:
    """Pages draw them with core's macro."""
    drawing = {
        str(file.relative_to(ROOT))
        for part in PARTS
        for file in (ROOT / part).rglob("*.html")
        if re.search(r'class="(cf-)?curve', file.read_text())
    }
    assert drawing == {"core/templates/chart.html"}


def test_figures_are_not_kept_by_pyplot() -> None:
    """What draws through pyplot changes state that all share, and has to close its figures; Optuna draws so."""
    kept = {str(file.relative_to(ROOT)) for file in _files() if "matplotlib.pyplot" in file.read_text()}
    assert kept == {"detect/tuning/pictures.py"}


ALIKE = {
    "Generator": "each family has one",
    "Discriminator": "each family has one",
    "Conv": "each family scales its weights in its own way",
    "TrainSettings": "each part trains",
    "EvaluateSettings": "each part evaluates",
    "ImportSettings": "each part imports",
    "Model": "a generator that is opened; and in driver.py, which leaves the project beside a file, what that holds",
    "Job": "a visitor's analysis in its turn; and a trial that is sent to a machine",
}


def test_a_name_of_a_class_means_one_thing() -> None:
    homes: dict[str, set[str]] = {}
    for file in _files():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, set()).add(str(file.relative_to(ROOT)))
    assert {name for name, files in homes.items() if len(files) > 1} == set(ALIKE)


def _settings() -> dict[str, ast.ClassDef]:
    """Classes of settings, by name and file: two parts may each have a ``TrainSettings``."""
    return {
        f"{file.relative_to(ROOT)}:{node.name}": node
        for file in _files()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Settings")
    }


def _calls(node: ast.AST) -> list[str]:
    called = [each.func for each in ast.walk(node) if isinstance(each, ast.Call)]
    return [each.attr if isinstance(each, ast.Attribute) else ast.unparse(each) for each in called]


def test_settings_do_no_input_or_output() -> None:
    touching = {
        *("open", "exists", "is_file", "is_dir", "stat", "glob", "iterdir", "resolve", "absolute"),
        *("expanduser", "cwd", "read_text", "read_bytes", "write_text", "Run", "load", "print", "echo"),
    }
    found = _settings()
    assert len(found) > 10
    assert {
        name: touching & set(_calls(node)) for name, node in found.items() if touching & set(_calls(node))
    } == {}


def test_an_option_that_is_a_setting_is_made_of_it() -> None:
    """A command that takes or makes settings has no ``click.option`` for one of their fields."""
    fields: dict[tuple[str, str], set[str]] = {}
    for name, node in _settings().items():
        names = {ast.unparse(each.target) for each in node.body if isinstance(each, ast.AnnAssign)}
        fields.setdefault((name.split("/")[0], node.name), set()).update(names)
    wrong = []
    for file in _files():
        part = file.relative_to(ROOT).parts[0]
        for node in ast.parse(file.read_text()).body:
            if not isinstance(node, ast.FunctionDef):
                continue
            used = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
            own = set().union(
                *(names for (home, name), names in fields.items() if home == part and name in used)
            )
            for option in node.decorator_list:
                if isinstance(option, ast.Call) and ast.unparse(option.func) == "click.option":
                    typed = [arg.value for arg in option.args if isinstance(arg, ast.Constant)]
                    name = str(typed[-1]).lstrip("-").replace("-", "_")
                    wrong += [f"{file.relative_to(ROOT)}:{option.lineno} {name}"] * (name in own)
    assert wrong == []
