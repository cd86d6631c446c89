import json
from pathlib import Path

import numpy as np
import pytest

from crossfake.datasets.shard_writer import ShardWriter
from crossfake.datasets.shards import Row, ShardSet
from crossfake.datasets.splits import Fractions, learned_from
from crossfake.errors import UserError


def test_shares_come_out_as_asked() -> None:
    fractions = Fractions.parse("0.7/0.2/0.1")
    parts = [fractions.split_of(f"group {n}") for n in range(5000)]
    shares = [parts.count(name) / 5000 for name in ("train", "val", "test")]
    assert shares == pytest.approx([0.7, 0.2, 0.1], abs=0.02)


def test_a_group_always_falls_into_the_same_split() -> None:
    names = [f"person {n}" for n in range(50)]
    first, again = (Fractions.parse("0.5/0.25/0.25") for _ in range(2))
    assert [first.split_of(n) for n in names] == [again.split_of(n) for n in reversed(names)][::-1]
    assert [Fractions.parse("0.5/0.25/0.25", seed=1).split_of(n) for n in names] != [
        first.split_of(n) for n in names
    ]


def test_a_share_of_nothing_stays_empty() -> None:
    assert {Fractions.parse("0/0/1").split_of(str(n)) for n in range(200)} == {"test"}
    assert {Fractions.parse("1/0/0").split_of(str(n)) for n in range(200)} == {"train"}


@pytest.mark.parametrize("text", ["", "0.8", "0.8/0.2", "0.8/0.1/0.2", "a/b/c", "-1/1/1", "nan/0/1"])
def test_anything_but_three_shares_of_one_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--split 0.8/0.1/0.1"):
        Fractions.parse(text)


def test_cards_tell_what_learned_from_a_folder(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "faces", 16) as writer:
        writer.append(np.zeros((16, 16, 3), np.uint8), Row(0, "s", origin="0"))
    faces = ShardSet(tmp_path / "faces")
    cards = {
        "runs/by-path/config.yaml": {"kind": "synth", "data_hashes": {"faces": "older"}},
        "runs/by-path/model/bundle.json": {
            "data_hashes": {"faces": "older"}
        },  # in a run that is named already
        "runs/by-hash/config.yaml": {"kind": "detect", "data_hashes": {"/gone": faces.hash}},
        "runs/grid/cells/1/cell.json": {"inputs": {"/gone": faces.content_hash}},
        "runs/other/config.yaml": {"kind": "detect", "data_hashes": {"elsewhere": "another"}},
        "runs/empty/config.yaml": {"kind": "detect"},
        "runs/strange/config.yaml": ["no", "card"],
        ".hidden/run/config.yaml": {"kind": "detect", "data_hashes": {"faces": "older"}},
    }
    for name, card in cards.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(card))  # JSON is YAML
    (tmp_path / "runs" / "damaged").mkdir()
    (tmp_path / "runs" / "damaged" / "config.yaml").write_text("a: [")
    (tmp_path / "runs" / "damaged" / "model.json").write_bytes(b"\xff{")
    found = [text.removeprefix(f"{tmp_path}/") for text in learned_from([faces], tmp_path)]
    assert found == ["runs/by-hash (detect)", "runs/by-path (synth)", "runs/grid/cells/1"]
    assert learned_from([], tmp_path) == []
