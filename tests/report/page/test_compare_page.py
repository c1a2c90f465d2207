"""The page of a comparison: every sentence of compare.json, a row per arm, and names that stay text."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from mtl.errors import UserError
from mtl.report.page.write import write_report
from tests.report.page.test_run_page import HOSTILE, Page
from tests.support.comparisons import compare_values, make_comparison


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_comparison(tmp_path / "compared")


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The folder, with its compare.json changed."""
    path = folder / "compare.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    return folder


def sentences(value: Any) -> list[str]:
    """Every sentence of compare.json, wherever it stands."""
    if isinstance(value, dict):
        own = [text for key, text in value.items() if key in ("sentence", "words", "what")]
        return [*own, *(s for inner in value.values() for s in sentences(inner))]
    return [s for inner in value for s in sentences(inner)] if isinstance(value, list) else []


def test_every_sentence_is_on_the_page(folder: Path) -> None:
    path = write_report(folder)
    assert path == folder / "compare.html"
    page, values = Page(path), compare_values()
    told = [*sentences(values), *values["summary"]]
    assert len(told) >= 20
    for sentence in told:
        assert sentence in page.words, sentence
    for text in (
        "data, split, labels",
        "initial weights, order, dropout",
        "best step of each task by validation",
        "looked at once",
    ):
        assert text in page.words, text
    assert "Collapsed seeds. shared learned nothing of price with seed 3." in page.words
    assert "Exploratory." not in page.words


def test_the_table_has_a_mean_and_a_spread_for_each_arm_and_task(folder: Path) -> None:
    page, values = Page(write_report(folder)), compare_values()
    for arm in values["arms"].values():
        for result in arm["results"].values():
            assert f"{result['mean']:#.4g}" in page.words
    best = max(arm["results"]["garment"]["mean"] for arm in values["arms"].values())
    assert f">{best:.4f}</span>" in page.source.split('class="best ')[1]
    assert page.source.count('baseline"') == 3


def test_each_task_has_a_picture_of_its_differences(folder: Path) -> None:
    page = Page(write_report(folder))
    for task, metric in (("garment", "accuracy"), ("audience", "accuracy"), ("price", "rmse")):
        (label,) = [
            label for label in page.labels if label.startswith(f"{task}, {metric} minus that of single: ")
        ]
        assert label.count(";") == 2
    assert "cross_stitch, rows and seeds: " in page.source
    assert "cross_stitch, seeds alone: " in page.source
    assert page.source.count("← better") == 1, "a lower error is better"
    (label,) = [label for label in page.labels if label.startswith("accuracy over the number of labels")]
    assert "cross_stitch" in label


def test_costs_and_runs(folder: Path) -> None:
    (folder / "runs" / "single" / "0" / "report.html").write_text("")
    page = Page(write_report(folder))
    assert "1 min 03 s" in page.words
    assert "1,206,000" in page.words
    links = [address for address in page.addresses if address.startswith("runs/")]
    assert len(links) == 25
    assert "runs/single/0/report.html" in links
    assert all((folder / link).exists() for link in links)


def test_a_page_that_was_looked_at_often_says_so(folder: Path) -> None:
    page = Page(write_report(changed(folder, lambda values: values.update(exploratory=True, looks=4))))
    assert "Exploratory. These results were looked at 4 times" in page.words


def test_parts_may_be_absent(folder: Path) -> None:
    def drop(values: dict[str, Any]) -> None:
        values.update(label_curve=None, delta_m=None, leading=None, transfer={}, comparisons=[], summary=[])
        values["arms"]["linear"]["results"]["price"].update(values=[None], mean=None, sd=None)

    (folder / "timings.json").unlink()
    page = Page(write_report(changed(folder, drop)))
    assert "With fewer labels" not in page.words
    assert "No arm was compared in this task." in page.words
    assert "Nothing was measured about it." in page.words


def test_names_stay_text(folder: Path) -> None:
    def rename(values: dict[str, Any]) -> None:
        values["recipe"].update(name=HOSTILE[0], description=HOSTILE[1])
        values["arms"][HOSTILE[1]] = {**values["arms"]["linear"], "what": HOSTILE[2], "changes": HOSTILE}
        values["tasks"][HOSTILE[3]] = values["tasks"]["price"]
        values["summary"] = HOSTILE
        values["comparisons"][0].update(arm=HOSTILE[1], task=HOSTILE[3], words=HOSTILE[4])

    page = Page(write_report(changed(folder, rename)))
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    for name in HOSTILE:
        assert name in "".join(page.text), name


def test_an_arm_does_not_lead_out_of_the_folder(folder: Path) -> None:
    def climb(values: dict[str, Any]) -> None:
        values["arms"] |= dict.fromkeys(("../../elsewhere", ".."), values["arms"]["linear"])

    outside = folder.parent / "elsewhere" / "0"
    outside.mkdir(parents=True)
    (outside / "run.json").write_text("{}")
    page = Page(write_report(changed(folder, climb)))
    assert not any(".." in address for address in page.addresses)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda values: values.pop("seeds"), "compare.json: has no 'seeds'; put back the one that"),
        (lambda values: values.update(schema_version=2), "compare.json: schema_version is 2, which no run writes"),
        (lambda values: values["comparisons"][0].update(arm="x"), "compare.json: names arm 'x', which it does"),
        (lambda values: values["baseline"].update(y="single"), "compare.json: names task 'y', which it does not have"),
        (lambda values: values["comparisons"][0].update(verdict="good"), "comparisons[0].verdict is 'good'"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused(
    change: Callable[[dict[str, Any]], object], line: str, folder: Path
) -> None:
    with pytest.raises(UserError) as caught:
        write_report(changed(folder, change))
    assert line in str(caught.value)


def test_damaged_timings_are_refused(folder: Path) -> None:
    (folder / "timings.json").write_text('{"single": {"seconds": [-1]}}')
    with pytest.raises(UserError, match=r"timings\.json: single\.seconds"):
        write_report(folder)


def test_the_command_prints_the_path(folder: Path, run_mtl: Callable[..., CompletedProcess[str]]) -> None:
    done = run_mtl("report", folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{folder}/compare.html\n", "")
