import numpy as np

from crossfake.detect.evaluation.pooling import POOLINGS, QUANTILE, pool, videos


def test_poolings_equal_numpy_group_by_group() -> None:
    rng = np.random.default_rng(0)
    groups, labels = rng.integers(0, 40, 500), rng.integers(0, 2, 500)
    scores = np.round(rng.random(500), 2)  # ties
    pooled = pool(scores, [groups, labels])
    wanted = {"mean": np.mean, "max": np.max, "quantile": lambda part: np.quantile(part, QUANTILE)}
    assert set(wanted) == set(POOLINGS) and pooled.count.sum() == 500
    assert len(pooled.first) == len(np.unique(groups * 2 + labels))
    for unit, first in enumerate(pooled.first):
        members = pooled.unit == unit
        assert members[first] and pooled.count[unit] == members.sum()
        assert (groups[members] == groups[first]).all() and (labels[members] == labels[first]).all()
        for name, function in wanted.items():
            np.testing.assert_allclose(pooled.scores[name][unit], function(scores[members]))


def test_a_unit_of_one_image_keeps_its_score() -> None:
    scores = np.array([0.3, 0.1, 0.2])
    pooled = pool(scores, [["c", "a", "b"]])
    for name in POOLINGS:
        assert pooled.scores[name].tolist() == [0.1, 0.2, 0.3] == scores[pooled.first].tolist()


def test_frames_and_faces_of_a_video_are_one_unit() -> None:
    names = videos(np.array(["v/a.mp4#frame=000000#face=1", "v/a.mp4#frame=000009", "b#1.png"]))
    assert names.tolist() == ["v/a.mp4", "v/a.mp4", ""]
    assert pool([0.2, 0.4, 1.0], [names]).scores["mean"].round(6).tolist() == [1.0, 0.3]


def test_nothing_pools_to_nothing() -> None:
    pooled = pool([], [np.empty(0, str), np.empty(0, int)])
    assert not len(pooled.count) and not len(pooled.scores["mean"])
