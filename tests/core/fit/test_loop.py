"""The loop alone, with a line that is fitted to points."""

import math
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crossfake.distributed import Ranks
from crossfake.errors import UserError
from crossfake.fit import loop
from crossfake.fit.checkpoints import newest_checkpoint, open_run, restore_checkpoint
from crossfake.fit.learner import FitArguments, Learner, Training
from crossfake.fit.loop import fit, measure
from crossfake.progress import tqdm
from crossfake.runs import Run


class Line(Learner):
    parts = ("network", "average", "optimizer")

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"), 4, 1, seed=0)
        self.network = nn.Linear(1, 1)
        self.average = None
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=0.1)

    def train_step(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        loss = (self.network(x) - y).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return {"loss": loss.detach(), "weight": self.network.weight.detach().clone().squeeze()}

    def state(self) -> dict[str, Any]:
        return super().state() | {"figures": dict(self.figures)}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.figures.update(state["figures"])


class Fitting(Training):
    """Says in ``happened`` what the loop did."""

    def __init__(self, name: str = "{step:08d}.pt", patience: int = 99, **arguments: Any) -> None:
        self.learner, self.patience, self.happened = Line(), patience, list[str]()
        self.checkpoint_name = name  # type: ignore[misc]
        given = {"title": "line", "steps": 12, "log_every": 2, "snapshot_every": 4}
        self._arguments = FitArguments(**{**given, **arguments})

    @property
    def arguments(self) -> FitArguments:
        return self._arguments

    def describe(self) -> str:
        return "a line"

    def batches(self) -> Generator[tuple[Tensor, Tensor]]:
        self.happened.append("opened")
        try:
            for step in range(self.learner.step, 10**6):  # pragma: no branch
                x = torch.randn(4, 1, generator=torch.Generator().manual_seed(step))
                yield x, 3 * x
        finally:
            self.happened.append("closed")

    def context(self) -> AbstractContextManager[None]:
        @contextmanager
        def around() -> Generator[None]:
            self.happened.append("entered")
            yield
            self.happened.append("left")

        return around()

    def check_unchanged(self, run: Run) -> None:
        if run.config["data"] != "points":
            raise UserError("other points", hint="put them back")

    def check(self, means: dict[str, float], run: Run) -> None:
        if not all(map(math.isfinite, means.values())):
            raise UserError(f"not finite after {newest_checkpoint(run.path)}", hint="start again")

    def enough(self) -> str:
        return "that is enough" if self.learner.step >= self.patience else ""

    def validate(self) -> dict[str, float]:
        self.happened.append(f"validated {self.learner.step}")
        return {"error": 1.0}

    def snapshot(self, run: Run) -> dict[str, float]:
        checkpoint = newest_checkpoint(run.path)
        assert checkpoint is not None
        self.happened.append(f"snapshot after {checkpoint.name}")
        return {"sheet": 2.0}

    def rates(self, recent: float, overall: float) -> dict[str, float]:
        assert recent > 0 and overall > 0
        return {"rate": 3.0}

    def logged(self, figures: dict[str, float], bar: tqdm, snapshot: bool) -> None:
        self.happened.append(f"logged {self.learner.step}{' with a snapshot' if snapshot else ''}")


def _open(training: Training, out: Path, resume: bool = False) -> Run:
    return open_run(training, out, {"data": "points"}, kind="line", resume=resume)[0]


def _stop_after(calls: int, patch: pytest.MonkeyPatch) -> None:
    class Stops(loop.Stopper):
        asked_for = 0

        @property
        def asked(self) -> bool:  # type: ignore[override]
            Stops.asked_for += 1
            return Stops.asked_for >= calls

    patch.setattr(loop, "Stopper", Stops)


def _trained(training: Fitting) -> list[Tensor]:
    return [p.detach() for p in training.learner.network.parameters()]  # type: ignore[attr-defined]


def test_what_happens_and_when(tmp_path: Path) -> None:
    training = Fitting(steps=6)
    run = _open(training, tmp_path / "run")
    assert fit(training, run)
    assert training.happened == [
        *("entered", "opened", "logged 2"),
        *("validated 4", "snapshot after 00000004.pt", "logged 4 with a snapshot"),
        *("validated 6", "snapshot after 00000006.pt", "logged 6 with a snapshot"),
        *("closed", "left"),
    ]
    keys = [list(line) for line in run.log_lines()]
    assert keys[0] == ["step", "loss", "weight", "rate"]
    assert keys[1] == keys[2] == ["step", "loss", "weight", "error", "rate", "sheet"]
    assert [line["step"] for line in run.log_lines()] == [2, 4, 6]
    assert fit(training, run) and training.happened[-4:] == [
        "closed",
        "left",
        "entered",
        "left",
    ]  # no step left


def test_a_line_has_the_means_since_the_one_before(tmp_path: Path) -> None:
    training = Fitting(steps=4)
    run = _open(training, tmp_path / "run")
    fit(training, run)
    again, losses = Fitting(), []
    for _, batch in zip(range(4), again.batches(), strict=False):
        losses.append(float(again.learner.train_step(*batch)["loss"]))
    means = [line["loss"] for line in run.log_lines()]
    assert means == [pytest.approx(sum(losses[:2]) / 2), pytest.approx(sum(losses[2:]) / 2)]


@pytest.mark.parametrize("whole_stop", [False, True])
@pytest.mark.parametrize("name", ["{step:08d}.pt", "last.pt"])
@pytest.mark.parametrize("at", [3, 4, 7])
def test_stopped_and_resumed_equals_never_stopped(
    whole_stop: bool, name: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Fitting()
    fit(whole, _open(whole, tmp_path / "whole"))
    part = Fitting(name, snapshot_when_stopped=whole_stop)
    run = _open(part, tmp_path / "part")
    with monkeypatch.context() as patch:
        _stop_after(at, patch)
        assert not fit(part, run)
    assert part.learner.step == at and (f"validated {at}" in part.happened) == (whole_stop or at == 4)
    resumed = Fitting(name, snapshot_when_stopped=whole_stop)
    run = _open(resumed, tmp_path / "part", resume=True)
    assert resumed.learner.step == at and fit(resumed, run)
    assert all(torch.equal(one, other) for one, other in zip(_trained(whole), _trained(resumed), strict=True))
    if not whole_stop:  # nor can it be told from the log
        assert run.log_lines() == Run(tmp_path / "whole").log_lines()
    kept = {path.name for path in run.checkpoints.iterdir()}
    assert kept == ({"last.pt"} if name == "last.pt" else {"00000008.pt", "00000012.pt"})


def test_a_stop_is_what_the_vote_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that writes need not be the one that was sent a signal."""
    monkeypatch.setattr(Ranks, "agreed", lambda self, wish: True)
    training = Fitting()
    assert not fit(training, _open(training, tmp_path / "run")) and training.learner.step == 1


def test_a_stop_in_the_last_step_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stop_after(12, monkeypatch)
    training = Fitting()
    assert fit(training, _open(training, tmp_path / "run")) and training.learner.step == 12


@pytest.mark.parametrize("limit", [{"minutes": 1e-9, "snapshot_when_stopped": True}, {"patience": 1}])
def test_a_limit_ends_training_which_is_not_stopped_then(
    limit: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = Fitting(**limit)
    assert fit(training, _open(training, tmp_path / "run")) and training.learner.step == 1
    assert ("that is enough" in capsys.readouterr().out) == ("patience" in limit)


def test_nothing_is_kept_of_figures_that_are_not_finite(tmp_path: Path) -> None:
    training = Fitting()
    run = _open(training, tmp_path / "run")
    step = training.learner.train_step

    def poisoned(*batch: Tensor) -> dict[str, Tensor]:
        figures = step(*batch)
        return figures if training.learner.step < 7 else {"loss": torch.tensor(math.nan)}

    training.learner.train_step = poisoned  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"not finite after .*00000004\.pt"):
        fit(training, run)
    assert training.happened[-1] == "closed" and [line["step"] for line in run.log_lines()] == [2, 4, 6]


def test_how_long_the_rest_takes_is_told_once_and_where_it_is_worth_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    training = Fitting()
    fit(training, _open(training, tmp_path / "short"))
    assert "to go" not in capsys.readouterr().out
    monkeypatch.setattr(loop, "_WORTH", 0.0)
    training = Fitting(measured=3)
    fit(training, _open(training, tmp_path / "long"))
    said = capsys.readouterr().out
    assert said.startswith("7 of 12 steps to go: about 0 s at ") and said.count("to go") == 1
    assert said.endswith("s each (measured over 3)\n")


def test_measuring_leaves_nothing_behind() -> None:
    training = Fitting()
    cost = measure(training, 3)
    assert cost.seconds > 0 and cost.memory > 0.01 and training.learner.step == 5
    assert training.happened == ["entered", "opened", "closed", "left"] and not training.learner.figures


def test_a_run_goes_on_from_its_newest_checkpoint_or_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = Fitting()
    run, found = open_run(training, tmp_path / "run", {"data": "points"}, kind="line", resume=True)
    assert (
        found is None and "run has no checkpoint yet: starting from the beginning" in capsys.readouterr().out
    )
    fit(training, run)
    run.log({"loss": 0.0}, step=13)  # written after the checkpoint, before a kill
    again = Fitting()
    run, found = open_run(again, run.path, {"data": "points"}, kind="line", resume=True)
    assert found == run.checkpoints / "00000012.pt" and again.learner.step == 12
    assert [line["step"] for line in run.log_lines()][-1] == 12
    with pytest.raises(UserError, match="holds a run already"):
        _open(Fitting(), run.path)
    Run.create(run.path, {"data": "other"}, kind="line", resume=True)
    with pytest.raises(UserError, match="other points: put them back"):
        _open(Fitting(), run.path, resume=True)


@pytest.mark.parametrize(
    "damage", [lambda path: path.write_bytes(b"no checkpoint"), lambda path: torch.save({"step": 3}, path)]
)
def test_a_checkpoint_that_does_not_fit_changes_nothing(
    damage: Callable[[Path], object], tmp_path: Path
) -> None:
    training = Fitting()
    run = _open(training, tmp_path / "run")
    fit(training, run)
    checkpoint = newest_checkpoint(run.path)
    assert checkpoint is not None
    damage(checkpoint)
    written = run.config_file.read_bytes()
    with pytest.raises(UserError, match="does not fit this run .*: resume with the settings it had") as error:
        restore_checkpoint(Fitting(), checkpoint)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="does not fit this run"):
        open_run(Fitting(), run.path, {"data": "other"}, kind="line", resume=True)
    assert run.config_file.read_bytes() == written
