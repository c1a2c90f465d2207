"""The page of a run: what it says, that names stay text, and that it is one file that needs nothing."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

import mtl
from mtl.errors import UserError
from mtl.experiment.resume import resume
from mtl.report.page import write as writing
from mtl.report.page.facts import read_facts
from mtl.report.page.results import results_of, verdict
from mtl.report.page.sharing import sharing_of
from mtl.report.page.write import write_report
from mtl.runs.disk import MOST_BYTES
from mtl.runs.folder import RunFolder
from mtl.training.events import Warned
from tests.support.listening import Watching
from tests.support.recipes import small, stitched
from tests.support.run_folders import add_links, add_resamples, make_run

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "a \"b\" 'c' & d &amp; {{ 7 * 7 }} {% raw %}",
    "x" * 200,
    "Zürich ☃ aufwärts",
]
VOID = {"meta", "br", "input", "img", "link", "hr"}


class Page(HTMLParser):
    """What a browser would find: balanced tags, text, labels of pictures, and addresses."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.labels: list[str] = []
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.policy = ""
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = dict(attrs)
        self.tags.append(tag)
        if own.get("http-equiv") == "Content-Security-Policy":
            self.policy = own["content"] or ""
        self.ids |= {own["id"]} if own.get("id") else set()
        self.addresses += [own[name] or "" for name in ("src", "href", "action", "data") if name in own]
        assert not any(name.startswith("on") or name == "style" for name in own), own
        if tag == "svg":
            assert own.get("aria-hidden") == "true" or own.get("aria-label"), own
            self.labels.append(own.get("aria-label") or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "run", {"shape": ["round", "square", "flat"], "size": ["small", "large"]})


def page_of(run: RunFolder | Path) -> Page:
    return Page(write_report(run if isinstance(run, Path) else run.path))


def test_the_page_says_what_was_run_and_how_good_it_is(run: RunFolder) -> None:
    page = page_of(run)
    record = run.record
    for said in (
        record.id, record.data.sha256, f"mtl run {run.path}/recipe.resolved.yaml", "40 train, 10 test", "shape", "size",
        "generated data", "name: made", "init 5, order 5, split 5, labels 5", "2.13.0+cpu", "one answer for all rows",
        "7.2 s for 4 epochs: train 6.0 s, evaluate 0.8 s, save 0.4 s", "results at step 30 (epoch 3)",
    ):  # fmt: skip
        assert said in page.words, said
    for task in ("shape", "size"):
        assert f"{record.results[f'test/{task}/accuracy']:.4f}" in page.words
    said = " ".join(page.labels)
    for figure in (
        "accuracy over each epoch",
        "confusion matrix of 3 classes",
        "reliability",
        "precision over recall",
        "fc1: how much",
    ):
        assert figure in said, figure
    assert {f"#{name}" for name in ("tasks", "sharing", "data", "run", "recipe")} == set(page.addresses)
    assert {address[1:] for address in page.addresses} <= page.ids


def test_the_page_loads_nothing(run: RunFolder) -> None:
    page = page_of(run)
    assert "http:" not in page.source
    assert "https:" not in page.source
    assert "url(" not in page.source
    assert page.policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in page.policy
    assert not {"img", "link", "iframe", "object", "form"} & set(page.tags)


def test_the_same_folder_gives_the_same_bytes(run: RunFolder) -> None:
    before = write_report(run.path).read_bytes()
    assert write_report(str(run.path)).read_bytes() == before


def test_names_stay_text(tmp_path: Path) -> None:
    """The marker of the page's own script must be the only one that a browser runs."""
    classes = {name.replace("/", "|")[:150]: HOSTILE for name in HOSTILE}  # no metric's name holds a slash
    run = make_run(tmp_path / "run", classes, name=HOSTILE[1], description=HOSTILE[0], plugins=[HOSTILE[2]])
    add_links(run, words=HOSTILE)
    page = page_of(run)
    assert page.tags.count("script") == 2
    assert "img" not in page.tags
    for name in HOSTILE:
        assert name in "".join(page.text), name
    (frames,) = re.findall(r'<script type="application/json" id="frames">(.*?)</script>', page.source)
    assert len(json.loads(frames)["frames"]) == 4


def test_forty_tasks_and_a_hundred_classes_stay_small(tmp_path: Path) -> None:
    many = make_run(tmp_path / "many", {f"task{t}": [f"class {k}" for k in range(10)] for t in range(40)})
    page = page_of(many)
    assert (many.path / "report.html").stat().st_size < 2e6
    assert len(re.findall('<details class="task">', page.source)) == 40
    wide = make_run(tmp_path / "wide", {"kind": [f"class {k}" for k in range(100)]}, rows=4000)
    page = page_of(wide)
    assert "The most frequent confusions of 100 classes" in page.words
    assert not any("confusion matrix" in label for label in page.labels)
    assert (wide.path / "report.html").stat().st_size < 3e5


def test_more_places_than_a_map_can_name_are_told_by_their_largest_weights(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", {f"task{t}": ["a", "b"] for t in range(41)})
    page = page_of(run)
    assert "The largest weights between different names" in page.words
    assert "frames" not in page.ids


# --- intervals and sentences -------------------------------------------------------------------------------


def test_intervals_are_percentiles_of_the_resamples(run: RunFolder) -> None:
    assert all(row.interval is None for row in results_of(read_facts(run))[1])
    replicates = add_resamples(run)
    _, rows = results_of(read_facts(run))
    for row in rows:
        assert row.interval == pytest.approx(np.percentile(replicates[row.task], [2.5, 97.5]).tolist())
        assert row.error == pytest.approx(np.std(replicates[row.task], ddof=1))
    page = page_of(run)
    assert "95% interval over resampled test rows (200)" in page.words
    path = run.path / "bootstrap.json"
    content = json.loads(path.read_text())
    content["tasks"]["shape"]["n_units"] = 1500
    path.write_text(json.dumps(content))
    assert "over resampled test rows (200 to 1,500, by task)" in page_of(run).words
    content["tasks"]["size"].update(by_group=True, n_units=30)
    path.write_text(json.dumps(content))
    assert "over resampled test rows (1,500) or test groups (30)" in page_of(run).words


def test_resamples_of_another_metric_or_mostly_undefined_give_no_interval(run: RunFolder) -> None:
    add_resamples(run)
    path = run.path / "bootstrap.json"
    content = json.loads(path.read_text())
    content["tasks"]["shape"]["metric"] = "loss"
    content["tasks"]["size"]["replicates"][:150] = [None] * 150
    path.write_text(json.dumps(content))
    assert [row.interval for row in results_of(read_facts(run))[1]] == [None, None]


def sentence(run: RunFolder, **baselines: float) -> str:
    run.record.baselines = {f"test/{task}/linear": value for task, value in baselines.items()}
    split, rows = results_of(read_facts(run))
    return " ".join(verdict(split, rows, True))


def test_the_verdict_compares_with_the_best_baseline(run: RunFolder) -> None:
    own = {task: float(run.record.results[f"test/{task}/accuracy"] or 0) for task in ("shape", "size")}
    low, high = ({task: value + lift for task, value in own.items()} for lift in (-0.1, 0.1))
    assert sentence(run, **low) == "Both tasks are better than a linear model."
    assert sentence(run, **high) == "0 tasks of 2 are better than a linear model; shape and size are not."
    assert sentence(run, shape=low["shape"], size=high["size"]) == (
        "1 task of 2 is better than a linear model; size is not."
    )
    assert sentence(run) == "There is nothing beside these results: no baseline was measured."
    add_resamples(run, spread=0.01)
    assert sentence(run, **low).endswith("a linear model, and the 95% intervals leave these baselines out.")
    level = {**low, "size": own["size"] + 0.005}
    assert sentence(run, **level) == "1 task of 2 is better than a linear model; size is level with it."
    near = {**low, "size": own["size"] - 0.005}
    assert sentence(run, **near).endswith("though the 95% interval of size reaches a baseline.")


def test_the_verdict_tells_one_baseline_from_another(run: RunFolder) -> None:
    own = {task: float(run.record.results[f"test/{task}/accuracy"] or 0) for task in ("shape", "size")}
    run.record.baselines = {
        **{f"test/{task}/constant": value - 0.2 for task, value in own.items()},
        **{f"test/{task}/linear": value + 0.2 for task, value in own.items()},
    }
    split, rows = results_of(read_facts(run))
    assert list(verdict(split, rows, True)) == [
        "Both tasks are better than one answer for all rows.",
        "0 tasks of 2 are better than a linear model; shape and size are not.",
    ]


def test_each_task_may_have_a_step_of_its_own(run: RunFolder) -> None:
    own = {"shape": {"step": 20, "epoch": 2, "validation": {"accuracy": 0.5}, "test": {"accuracy": 0.4321}}}
    path = run.path / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "task_results": own}))
    page = page_of(run.path)
    assert "0.4321" in page.words
    assert "Its result is that of step 20, which validation chose for it." in page.words
    assert set(read_facts(RunFolder.open(run.path)).details) == {"size"}, "the counts of shape are of step 30"
    details = run.path / "test_details.json"
    details.write_text(json.dumps({**json.loads(details.read_text()), "steps": {"shape": 20}}))
    assert set(read_facts(RunFolder.open(run.path)).details) == {"shape", "size"}
    own["shape"]["step"] = -1
    path.write_text(json.dumps({**json.loads(path.read_text()), "task_results": own}))
    with pytest.raises(UserError, match=r"run\.json: task_results\.shape\.step is -1"):
        write_report(run.path)


# --- what was shared ----------------------------------------------------------------------------------------


def test_the_slider_begins_at_the_selected_step(run: RunFolder) -> None:
    sharing = sharing_of(read_facts(run))
    assert sharing is not None
    assert [frame["epoch"] for frame in sharing.frames] == [1, 2, 3, 4]
    assert sharing.first == 2
    assert sharing.frames[2]["values"] == [[0.67, -0.03, -0.03, 0.67]]
    assert sharing.words == [
        "fc1: 4.3% of the weight is on other towers' activations, on average over 2 towers; at the start it was 1.1%.",
        "A weight alone says little, since activations differ in size and a norm may undo its scale: "
        f"mtl sharing {run.path} measures how much is used.",
    ]


def test_links_are_told_with_their_shares_and_the_losses_when_they_are_cut(run: RunFolder) -> None:
    content = add_links(run)
    page = page_of(run)
    for word in content["words"]:
        assert word in page.words
    assert "on average over" not in page.words
    assert "fc1: share of each source: how much each of 2 targets takes from each source" in page.labels
    assert (
        "task without shape without size shape - +0.200 ± 0.040 used size -0.100 ± 0.010 hurts -"
        in page.words
    )
    assert "Losses when one link is cut, on 1,234 validation rows" in page.words
    assert "shape fc1 shape size 25% 0.3000 0.5000 +0.200 ± 0.040 used" in page.words
    add_links(run, words=[f"sentence {k}" for k in range(9)])
    assert "2 further sentences" in page_of(run).words


def test_many_cuts_are_folded_and_counted(run: RunFolder) -> None:
    link = add_links(run)["links"][0]
    add_links(run, links=[link] * 130)
    assert "30 further rows: see links.json." in page_of(run).words


def test_links_of_another_step_are_not_shown(run: RunFolder) -> None:
    add_links(run, step=20)
    page = page_of(run)
    assert "on average over" in page.words
    assert "What the links do" not in page.words


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"words": [3]}, r"words\[0\] is 3"),
        ({"sites": [{"site": "fc1"}]}, r"sites\[0\] has no 'kind'"),
        ({"tasks": {}}, "names tasks that it does not have; mtl sharing writes it again"),
        ({"transfer": {"tasks": ["a"], "towers": [], "delta": [], "se": [], "verdict": []}}, "names tasks that"),
    ],
)  # fmt: skip
def test_links_that_do_not_fit_together_are_refused(
    run: RunFolder, changes: dict[str, Any], line: str
) -> None:
    add_links(run, **changes)
    with pytest.raises(UserError, match=rf"links\.json: .*{line}"):
        write_report(run.path)


def test_gates_name_the_expert_that_a_task_takes_most_from(run: RunFolder) -> None:
    matrix = {
        "targets": ["shape", "size"],
        "sources": ["expert 1", "expert 2"],
        "values": [[0.1, 0.9], [0.7, 0.3]],
    }
    (run.path / "sharing.jsonl").write_text(
        json.dumps({"epoch": 3, "step": 30, "sharing": {"gates": matrix}}) + "\n"
    )
    page = page_of(run)
    assert "gates: shape takes most from expert 2 (weight 0.9000)." in page.words
    assert "gates: size takes most from expert 1 (weight 0.7000)." in page.words
    assert "frames" not in page.ids


# --- runs that are not whole -----------------------------------------------------------------------------------


def test_a_run_that_is_not_finished_shows_what_there_is(small_run: Path) -> None:
    page = page_of(small_run)
    assert "The run is not finished: these are its last values on the train rows." in page.words
    assert "interrupted at step 8" in page.words
    assert any("accuracy over each epoch" in label for label in page.labels)


def test_a_run_without_any_line_has_a_page(run: RunFolder) -> None:
    for name in ("metrics.jsonl", "sharing.jsonl", "timings.jsonl", "test_details.json"):
        (run.path / name).unlink()
    run.record.results, run.record.selected, run.record.baselines = {}, None, None
    run.record.status = "interrupted"
    run.save_record()
    page = page_of(run)
    assert "interrupted at step 0" in page.words
    assert "There is nothing to draw yet." in page.words


def test_details_of_an_earlier_end_are_left_out(run: RunFolder) -> None:
    assert read_facts(run).details
    path = run.path / "test_details.json"
    path.write_text(path.read_text().replace('"step":30', '"step":20'))
    assert not read_facts(run).details
    assert "There is no picture of its test rows" in page_of(run).words


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("test_details.json", "{", "test_details.json: cannot be read: "),
        ("test_details.json", "[]", "test_details.json: holds [], which is no object; put back the one that the run"),
        ("test_details.json", '{"schema_version": 2}', "schema_version is 2, which no run writes"),
        ("bootstrap.json", '{"schema_version": 1, "schema_version": 1}', "bootstrap.json: cannot be read: a key"),
        ("bootstrap.json", '{"schema_version": 1}', "bootstrap.json: has no 'tasks'"),
        ("links.json", "NaN", "links.json: cannot be read: NaN is not allowed"),
        ("links.json", '{"schema_version": 1}', "links.json: has no 'step'; mtl sharing writes it again"),
        ("recipe.resolved.yaml", "name: other\n", "recipe.resolved.yaml is not as the run wrote it"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused_by_name(name: str, text: str, line: str, run: RunFolder) -> None:
    (run.path / name).write_text(text)
    with pytest.raises(UserError) as caught:
        write_report(run.path)
    assert line in str(caught.value)
    assert str(run.path) in str(caught.value)


def test_a_large_file_is_refused(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MOST_BYTES, ".json", 10)
    with pytest.raises(UserError, match=r"run\.json: cannot be read: is larger than 0 mb"):
        write_report(run.path)


def test_a_folder_or_a_link_at_the_place_of_the_page_is_not_followed(run: RunFolder, tmp_path: Path) -> None:
    (run.path / "report.html").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is not a regular file"):
        write_report(run.path)
    (run.path / "report.html").unlink()
    (run.path / "report.html").mkdir()
    with pytest.raises(UserError, match="is a folder, and the page would have this name; move it away"):
        write_report(run.path)
    assert not (tmp_path / "elsewhere").exists()


def test_damaged_timings_are_skipped(run: RunFolder) -> None:
    with (run.path / "timings.jsonl").open("a") as file:
        file.write('{"epoch": 5, "seconds": 3}\n\0\0\n{"epo')
    assert [line["epoch"] for line in read_facts(run).timings] == [1, 2, 3, 4]


# --- the end of a run -------------------------------------------------------------------------------------------


class Heard(Watching):
    """Keeps the warnings of a run."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def on(self, event: Any) -> None:
        if isinstance(event, Warned):
            self.warnings.append(event.text)


def test_a_run_writes_its_page_unless_it_is_told_not_to(tmp_path: Path) -> None:
    recipe = small(model__sharing=stitched("fc1"))
    mtl.run(recipe, out=tmp_path / "with")
    mtl.run(recipe, out=tmp_path / "without", report=False)
    page = Page(tmp_path / "with" / "report.html")
    assert "finished at step 5" in page.words
    assert any("confusion matrix" in label for label in page.labels)
    assert not (tmp_path / "without" / "report.html").exists()
    assert [any((tmp_path / name).glob("plots/*.png")) for name in ("with", "without")] == [True, False]
    again = write_report(tmp_path / "without").read_text().replace("without", "with")
    dates = re.compile(r"began [^<]*|[0-9a-f]{8}-[0-9a-f-]{27}|<dt>time</dt>.*")
    assert dates.sub("", again) == dates.sub("", page.source)


@pytest.mark.parametrize("fault", [RuntimeError("a fault"), UserError("report.html", "a fault")])
def test_a_fault_in_the_page_costs_a_run_nothing_else(
    fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr(writing, "write_run_report", fail)
    heard = Heard()
    result = mtl.run(small(), out=tmp_path / "run", listeners=(heard,))
    assert result.record.status == "finished"
    (warning,) = heard.warnings
    assert warning.startswith("no report is drawn: ")
    assert "a fault" in warning
    assert warning.endswith(f"; `mtl report {tmp_path / 'run'}` tries again")


def test_a_resumed_run_writes_its_page(small_run: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(small_run, copy)
    resume(copy)
    assert "finished at step 16" in Page(copy / "report.html").words


def test_the_command_prints_the_path(
    run: RunFolder, run_mtl: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    done = run_mtl("report", run.path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{run.path}/report.html\n", "")
    none = run_mtl("report", tmp_path)
    assert none.returncode == 2
    assert none.stderr.startswith(f"error: {tmp_path}: no checkpoint found: it has no run.json")
