"""Training of one cell by several processes on one machine, started by torchrun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from crossfake.detect.training.runs import resumed
from crossfake.detect.training.settings import TrainSettings
from crossfake.detect.training.train import train
from crossfake.device import rank_world
from crossfake.errors import UserError
from crossfake.runs import Run
from crossfake.stopping import Stopper


def train_together(settings: TrainSettings, processes: int) -> None:
    """As ``train``, by several processes that share each batch and the threads of this one.

    They stop in good order when this process is asked to, and die with it.

    Raises:
        UserError: the training failed in one of them.
    """
    import torch

    threads = max(1, torch.get_num_threads() // processes)
    with tempfile.TemporaryDirectory() as folder:
        request = Run.create(Path(folder) / "request", asdict(settings), kind="detect")
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        stopped, code = _watched(
            [sys.executable, *launch, "-m", __name__, str(request.path)],
            {**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        if code and not stopped:
            reasons = sorted(request.path.glob("reason-*"), key=lambda file: file.stat().st_mtime_ns)
            reason = reasons[0].read_text() if reasons else f"torchrun ended with code {code}"
            raise UserError(f"one of {processes} processes failed: {reason}")


def _watched(command: list[str], environment: dict[str, str]) -> tuple[bool, int]:
    """Run a command; returns whether it was asked to stop, and its exit code.

    In a session of its own it does not hear Ctrl-C, which torchrun would pass on a second time. Its standard input
    is a pipe that closes when this process dies, which :func:`_end_with_parent` notices.
    """
    stopped = False
    with (
        Stopper() as stopper,
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True) as process,
    ):
        try:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
                if stopper.asked and not stopped:
                    stopped = True
                    process.terminate()  # torchrun passes it on
        except BaseException:  # also when it is stopped: no process is left
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
        return stopped, process.returncode


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)


def _main(request: Path) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    config = Run(request).config
    try:
        settings = resumed(request)
        train(replace(settings, out=Path(config["out"]), resume=config["resume"]))
    except Exception as error:  # the reason is written down, and raised again
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        (request / f"reason-{rank_world()[0]}").write_text(text)
        raise


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
