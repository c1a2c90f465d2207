"""A sweep on a Ray cluster: the trials are those that this machine makes."""

from pathlib import Path

import pytest

from mtl.tuning.conduct import conduct
from mtl.tuning.request import Asked
from tests.tuning.test_conduct import Watching, tuned

pytest.importorskip("ray", reason="needs pip install 'mtl-recipes[ray]'")
from tests.comparison.test_on_ray import ray_cluster

pytestmark = [
    pytest.mark.xdist_group("ray"),
    pytest.mark.filterwarnings("ignore"),  # Ray leaves files and sockets open
]


def test_the_trials_of_a_cluster_are_those_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = conduct(Asked(tuned(), 3, jobs=1, out=tmp_path / "here"))
    watching = Watching()
    with ray_cluster(monkeypatch):
        there = conduct(Asked(tuned(), 3, jobs=1, out=tmp_path / "there", on="ray"), watching)
    (announced,) = watching.announced
    assert announced.where == " on 1 node of Ray"
    assert [(trial.settings, trial.value) for trial in there.trials] == [
        (trial.settings, trial.value) for trial in here.trials
    ]
    assert there.best == here.best
