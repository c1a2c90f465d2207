"""Comparisons on a Ray cluster: real nodes on this machine, of which one may be killed under way."""

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mtl.comparison.conduct import conduct
from mtl.comparison.processes.pool import Job, Report
from mtl.errors import EnvironmentFault, UserError
from mtl.recipe.load import to_yaml
from mtl.registry import load_plugin
from tests.comparison.test_conduct import ENVIRONMENT, Watching, asked, compared, waited
from tests.support.assertions import plugins_undone

ray = pytest.importorskip("ray", reason="needs pip install 'mtl-recipes[ray]'")
from ray.cluster_utils import Cluster  # noqa: E402

from mtl.comparison.processes.on_ray import pool  # noqa: E402
from mtl.comparison.processes.on_ray.cluster import RayMachines  # noqa: E402
from mtl.comparison.processes.on_ray.node import Hello, versions  # noqa: E402

pytestmark = [
    pytest.mark.xdist_group("ray"),  # its cluster is made once
    pytest.mark.filterwarnings("ignore"),  # Ray leaves files and sockets open
]
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
WILD = """
import mtl
from mtl.weightings.sum import Sum

@mtl.register_weighting("plain")
class Plain(Sum):
    '''The sum under another name.'''

    reference = "ours"
"""


class Progress(Watching):
    """Keeps the positions of runs too."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: dict[str, int] = {}

    def reports(self, report: Report) -> None:
        super().reports(report)
        if report.step is not None:
            self.steps[report.job.name] = report.step


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster with a head of one core, which `--on ray` finds."""
    with ray_cluster(monkeypatch) as made:
        yield made


class ray_cluster:
    """`with` it, a cluster runs; all of its processes end after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **head: Any) -> None:
        monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        monkeypatch.setenv("RAY_raylet_start_wait_time_s", "120")  # of a machine that has other work
        self.cluster = Cluster(initialize_head=True, head_node_args=NODE | head)
        monkeypatch.setenv("RAY_ADDRESS", self.cluster.address)

    def __enter__(self) -> Cluster:
        return self.cluster

    def __exit__(self, *error: object) -> None:
        ray.shutdown()
        self.cluster.shutdown()


def hide_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no node find the folder of a comparison, as on machines without a shared disk."""
    monkeypatch.setattr(pool, "write_whole", lambda path, data: path.write_bytes(b"of another comparison"))


def test_runs_on_ray_are_those_of_this_machine(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = tmp_path / "plain.py"
    plugin.write_text(WILD, encoding="utf-8")
    with plugins_undone():
        load_plugin(str(plugin))
        given: dict[str, Any] = {
            "arms": ["single", "weighting=plain", "trees"], "seeds": (0,), "plugins": [str(plugin)],
            "made": compared(train__epochs=2),
        }  # fmt: skip
        conduct(asked(tmp_path / "here", **given))
        shared, watching = tmp_path / "shared", Progress()
        conduct(asked(shared, on="ray", jobs=None, **given), watching)
        assert watching.announced[0].where == " on 1 node of Ray"
        assert watching.announced[0].jobs == 1
        hide_folder(monkeypatch)
        apart = tmp_path / "apart"
        conduct(asked(apart, on="ray", **given))
    for folder in (shared, apart):
        assert (folder / "compare.json").read_bytes() == (tmp_path / "here/compare.json").read_bytes()
        names = {path.relative_to(folder) for path in folder.glob("**/*")}
        assert names == {path.relative_to(tmp_path / "here") for path in (tmp_path / "here").glob("**/*")}
    assert not ray.is_initialized()


@pytest.mark.slow
@pytest.mark.parametrize("is_shared", [True, False])
def test_a_node_that_is_killed_changes_nothing(
    tmp_path: Path, is_shared: bool, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    given: dict[str, Any] = {"seeds": tuple(range(6)), "made": compared(train__epochs=40)}
    conduct(asked(tmp_path / "here", **given))
    if not is_shared:
        hide_folder(monkeypatch)

    class Killing(Progress):
        """Kills a node as soon as both have made a step."""

        is_done = False

        def reports(self, report: Report) -> None:
            super().reports(report)
            if len(self.steps) > 3 and not self.is_done:
                self.is_done = True
                cluster.remove_node(second, allow_graceful=False)

    watching = Killing()
    conduct(asked(tmp_path / "there", on="ray", jobs=None, **given), watching)
    assert watching.is_done
    assert watching.announced[0].jobs == 2
    assert len(watching.ended) == 12
    (line,) = watching.said
    assert "was lost; what is saved of the run goes on elsewhere (retry 1 of 3)" in line
    compare = [(tmp_path / place / "compare.json").read_bytes() for place in ("here", "there")]
    assert compare[0] == compare[1]


def command(folder: Path, out: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "mtl", "compare", str(folder / "r.yaml"), "--arms", "single,sharing", "--seeds", "1",
        "--out", str(out), *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_an_interrupt_saves_what_runs_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "r.yaml").write_text(to_yaml(compared(train__epochs=300)), encoding="utf-8")
    subprocess.run(command(tmp_path, tmp_path / "here"), env=ENVIRONMENT, capture_output=True, check=True)
    out = tmp_path / "there"
    with ray_cluster(monkeypatch, num_cpus=2):
        environment = {**ENVIRONMENT, "RAY_ADDRESS": os.environ["RAY_ADDRESS"]}
        on_ray = command(tmp_path, out, "--on", "ray")
        process = subprocess.Popen(on_ray, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        waited(lambda: len(list(out.glob("runs/*/seed-*/run.json"))) == 2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (
            130, b"the same command goes on with this comparison; what is finished stays\ninterrupted\n"
        )  # fmt: skip
        assert list(out.glob("runs/*/seed-*/checkpoints/step-*"))
        assert list(out.glob(".here-*")) == []
    again = subprocess.run(command(tmp_path, out), env=ENVIRONMENT, capture_output=True, check=False)
    assert again.returncode == 0, again.stderr
    assert (out / "compare.json").read_bytes() == (tmp_path / "here/compare.json").read_bytes()


@pytest.mark.slow
def test_through_the_port_of_ray_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "r.yaml").write_text(to_yaml(compared()), encoding="utf-8")
    with ray_cluster(monkeypatch, num_cpus=2, ray_client_server_port=20021):
        on = "ray://127.0.0.1:20021"
        done = subprocess.run(
            command(tmp_path, tmp_path / "there", "--on", on),
            env=ENVIRONMENT,
            capture_output=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"2 runs; 2 at a time on 1 node of Ray with 1 thread each" in done.stdout
    subprocess.run(command(tmp_path, tmp_path / "here"), env=ENVIRONMENT, capture_output=True, check=True)
    compare = [(tmp_path / place / "compare.json").read_bytes() for place in ("here", "there")]
    assert compare[0] == compare[1]


class FakePlace:
    """Stands for an actor that has gone."""

    host = "far"

    def __init__(self, job: Job | None) -> None:
        self.job = job
        self.hello: Hello | None = None

    def free(self) -> None:
        self.job = None


def workers(folder: Path, said: list[str]) -> pool.RayWorkers:
    return pool.RayWorkers(1, 1, [], folder, said.append)


def test_a_run_is_lost_four_times_at_most(tmp_path: Path) -> None:
    said: list[str] = []
    made, waiting = workers(tmp_path, said), deque[Job]()
    job = Job("single, seed 0", {"do": "run"})
    for n in (1, 2, 3):
        made._again(FakePlace(job), "was lost", waiting)  # type: ignore[arg-type]
        assert waiting.popleft() is job
        assert said[-1].endswith(
            f"node far was lost; what is saved of the run goes on elsewhere (retry {n} of 3)"
        )
    with pytest.raises(
        EnvironmentFault, match=r"seed 0: node far was lost, which is the 4th loss of this run; see"
    ):
        made._again(FakePlace(job), "was lost", waiting)  # type: ignore[arg-type]


def test_nodes_without_mtl(tmp_path: Path) -> None:
    made = workers(tmp_path, [])
    for _ in range(3):
        made._again(FakePlace(None), "", deque())  # type: ignore[arg-type]
    with pytest.raises(
        EnvironmentFault,
        match="--on: no process starts on the nodes of Ray: No module named 'mtl'; install",
    ):
        made._again(FakePlace(None), "No module named 'mtl'", deque())  # type: ignore[arg-type]


def test_a_node_with_other_versions(tmp_path: Path) -> None:
    said: list[str] = []
    made, own = workers(tmp_path, said), versions()
    place: Any = FakePlace(None)
    for _ in range(2):
        made._welcome(place, Hello("far", True, own | {"torch": "1.0"}))
    (line,) = said  # once
    assert line == (
        f"node far has torch 1.0, and this machine {own['torch']}; the last digits of its results may be others"
    )
    with pytest.raises(
        UserError, match=r"--on: node far: has mtl 9, and this machine .*; install the same version"
    ):
        made._welcome(place, Hello("far", True, own | {"mtl": "9"}))
    with pytest.raises(EnvironmentFault, match=r"--on: node far: may not write to .*, which it shares with"):
        made._welcome(place, Hello("far", None, own))
    made.all_share = True
    with pytest.raises(
        EnvironmentFault, match=r"--on: node far: does not see .*, where the runs are kept; put --out"
    ):
        made._welcome(place, Hello("far", False, own))


class FakeRay:
    """Nodes of some cluster."""

    @staticmethod
    def nodes() -> list[dict[str, Any]]:
        return [
            {"Alive": True, "Resources": {"CPU": 9.0, "GPU": 2.0}},
            {"Alive": True, "Resources": {"CPU": 3.0}},
            {"Alive": False, "Resources": {"CPU": 64.0}},
        ]


def machines() -> RayMachines:
    made = RayMachines.__new__(RayMachines)
    made._ray, made._is_own = FakeRay, False
    return made


def test_what_a_cluster_can_do() -> None:
    made, recipe = machines(), compared()
    with made:
        assert made.told == " on 2 nodes of Ray"
    assert made.at_once(recipe, 2, 1) == 4 + 1
    assert made.at_once(recipe, 16, 1) == 1
    assert made.threads(compared(train__threads=3), 2, 2) == 3
    assert made.threads(recipe, 1, 2) == 1
    on_gpu = compared(train__device="cuda")
    assert made.at_once(on_gpu, 2, 1) == 2
    assert made.looked_at(recipe) is recipe


def test_gpus_are_those_that_ray_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert machines().looked_at(compared(train__device="cuda")).train.device == "cpu"
    with pytest.raises(UserError, match=r"train.device: Ray chooses the GPU of each run; train.device=cuda"):
        machines().looked_at(compared(train__device="cuda:1"))


def test_no_cluster_at_an_address() -> None:
    with pytest.raises(
        EnvironmentFault,
        match=r"--on ray://127.0.0.1:9: no cluster answers: connection refused; docs/clusters.md",
    ):
        RayMachines("ray://127.0.0.1:9")


@pytest.mark.parametrize(
    ("address", "why"), [("127.0.0.1:9", "connection refused"), ("127.0.0.1:x", "port could not be .*")]
)
def test_no_cluster_at_the_address_of_the_environment(
    address: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(
        EnvironmentFault, match=f"--on {address}: no cluster answers: ({why}); docs/clusters.md"
    ):
        RayMachines(None)


def test_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        EnvironmentFault, match=r"--on ray: ray is not installed; pip install 'mtl-recipes\[ray\]'"
    ):
        RayMachines(None)
