"""Errors that go from one process to another stay what they are."""

import pickle

import pytest

from crossfake.errors import MissingDependency, UserError
from crossfake.experiments.cells import Stopped


@pytest.mark.parametrize(
    "error", [UserError("a", mend="b"), UserError("a"), MissingDependency("av", "video"), Stopped("the work")]
)
def test_errors_cross_processes(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error) and again.mend == error.mend
