"""What a training costs is counted over all its attempts, those that were killed included."""

from __future__ import annotations

import json

import pytest

from crossfake.experiments.run.cells import _counted


def spent(file):
    return json.loads(file.read_text())


def test_all_attempts_are_added_up(tmp_path, monkeypatch):
    class Meter:
        seconds, joules = 0.0, 0.0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    meter, ledger = Meter(), tmp_path / "spent.json"
    monkeypatch.setattr("crossfake.experiments.run.cells.Meter", lambda: meter)
    with pytest.raises(KeyboardInterrupt), _counted(ledger) as count:
        meter.seconds, meter.joules = 2.5, 100.0
        count(50, {"val_ap": 1.0})  # as a training reports; a kill leaves this
        assert spent(ledger) == {"seconds": 2.5, "energy": 100.0}
        meter.seconds, meter.joules = 3.0, 120.0
        raise KeyboardInterrupt
    assert spent(ledger) == {"seconds": 3.0, "energy": 120.0}
    with _counted(ledger):
        meter.seconds, meter.joules = 1.0, 30.0
    assert spent(ledger) == {"seconds": 4.0, "energy": 150.0}
    with _counted(ledger):
        meter.joules = None  # on another machine
    assert spent(ledger) == {"seconds": 5.0, "energy": None}
    ledger.write_text("{")  # a disk that was full
    with _counted(ledger):
        meter.joules = 5.0
    assert spent(ledger) == {"seconds": 1.0, "energy": 5.0}
