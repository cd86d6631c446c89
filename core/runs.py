"""Run folders: where a training, generation or experiment keeps everything that belongs to it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from crossfake.errors import UserError
from crossfake.files import replacing, write_json, write_text
from crossfake.provenance import environment

if TYPE_CHECKING:
    from torch import nn

DEFAULT_ROOT = Path("runs")
_DONE = "finished.json"


class Run:
    """One folder ``runs/NAME``: config, environment, log, checkpoints, samples, and the model at the end.

    Example:
        >>> run = Run.create("runs/x", {"kimg": 200}, kind="synth")  # doctest: +SKIP
        >>> run.log({"kimg": 1.0, "loss_g": 0.7}, step=1000)  # doctest: +SKIP
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._tensorboard: Any = None

    @classmethod
    def create(cls, path: str | Path, config: dict[str, Any], *, kind: str, resume: bool = False) -> Run:
        """Make the folder and write ``config.yaml`` and ``environment.json`` into it.

        Raises:
            UserError: the folder holds a run already and ``resume`` is false, or it cannot be written.
        """
        run = cls(Path(path))
        if run.config_file.exists() and not resume:
            raise UserError(
                f"{path} holds a run already", hint="continue it with --resume, or name another --out"
            )
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            write_text(run.config_file, yaml.safe_dump({"kind": kind, **_for_yaml(config)}, sort_keys=False))
            write_json(run.path / "environment.json", environment())
        except OSError as error:
            raise UserError(
                f"cannot write the run folder {path} ({error.strerror})", hint="name another --out"
            ) from error
        (run.path / _DONE).unlink(missing_ok=True)
        return run

    @property
    def config_file(self) -> Path:
        """The settings, fully resolved."""
        return self.path / "config.yaml"

    @property
    def config(self) -> dict[str, Any]:
        """The settings as they are stored; ``OSError`` without a run."""
        loaded: dict[str, Any] = yaml.safe_load(self.config_file.read_text())
        return loaded

    def amend(self, **values: Any) -> None:
        """Write into ``config.yaml`` what was chosen after the run began."""
        text = yaml.safe_dump({**self.config, **_for_yaml(values)}, sort_keys=False)
        write_text(self.config_file, text)

    @property
    def checkpoints(self) -> Path:
        """The folder of training states, made where it is missing."""
        return _made(self.path / "checkpoints")

    @property
    def samples(self) -> Path:
        """The folder of sample sheets, made where it is missing."""
        return _made(self.path / "samples")

    @property
    def model(self) -> Path:
        """The folder that other commands take, made where it is missing."""
        return _made(self.path / "model")

    def refuse_other(self, name: str, asked: Any) -> None:
        """Raise ``UserError`` when a run is to go on with another value of a setting that its networks are made by."""
        begun = self.config.get(name)
        if asked is not None and begun is not None and asked != begun:
            option = f"--{name.replace('_', '-')}"
            raise UserError(
                f"{self.path} was begun with {option} {begun}, not {asked}",
                hint=f"leave {option} out, or start another --out",
            )

    def log(self, values: dict[str, Any], step: int) -> None:
        """Append one line to ``log.jsonl``, and its numbers to the TensorBoard events."""
        with open(self.path / "log.jsonl", "a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self._tensorboard is None:
            from torch.utils.tensorboard.writer import SummaryWriter  # slow to import

            self._tensorboard = SummaryWriter(str(self.path))
        for name, value in values.items():
            if isinstance(value, int | float):
                self._tensorboard.add_scalar(name, value, step)

    def log_lines(self) -> list[dict[str, Any]]:
        """What was logged; a line that a killed process left unfinished is no line."""
        file = self.path / "log.jsonl"
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}\n")]

    def trim_log(self, step: int) -> None:
        """Drop log lines after ``step``: a resumed run writes them again."""
        kept = [json.dumps(line) + "\n" for line in self.log_lines() if line["step"] <= step]
        write_text(self.path / "log.jsonl", "".join(kept))

    def close(self) -> None:
        """Let TensorBoard's file go."""
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None

    def finish(self, summary: dict[str, Any] | None = None) -> None:
        """Mark the run as finished; only finished runs are taken by default by other commands."""
        self.close()
        write_json(self.path / _DONE, {"time": time.time(), **(summary or {})})

    @property
    def finished(self) -> bool:
        """Whether the training came to its end."""
        return (self.path / _DONE).exists()


def newest_run(kind: str, root: str | Path = DEFAULT_ROOT) -> Path | None:
    """The finished run of that kind under ``root`` that ended last, or None."""
    ended: list[tuple[float, Path]] = []
    for done in Path(root).glob(f"**/{_DONE}"):
        run = Run(done.parent)
        if run.config_file.exists() and run.config.get("kind") == kind:
            ended.append((json.loads(done.read_text())["time"], run.path))
    return max(ended)[1] if ended else None


def newest_synthetic(root: str | Path = DEFAULT_ROOT) -> Path | None:
    """The shard folder that ``synth generate`` completed last under ``root``, or None."""
    ended = [(done.stat().st_mtime, done.parent) for done in Path(root).glob("**/generated.json")]
    return max(ended)[1] if ended else None


def save_weights(path: Path, network: nn.Module) -> None:
    """Replace a safetensors file by a network's arrays."""
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, temporary)


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _for_yaml(value: Any) -> Any:
    """YAML's safe writer knows no Path and no tuple."""
    if isinstance(value, dict):
        return {str(key): _for_yaml(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_for_yaml(item) for item in value]
    return str(value) if isinstance(value, Path) else value
