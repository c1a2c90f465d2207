"""The page of a comparison: every sentence of compare.json, a row per arm, and names that stay text."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from urllib.parse import unquote

import pytest

from mtl.errors import UserError
from mtl.report.page.compare_file import CompareFile
from mtl.report.page.compare_rows import differences_of
from mtl.report.page.write import write_report
from tests.report.page.test_run_page import HOSTILE, Page
from tests.support.comparisons import TASKS, TOLD, compare_values, make_comparison, unknown_keys


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
        if "collapsed on seed" not in sentence:
            assert sentence in page.words, sentence
    for text in (
        "The same for all arms and seeds: data, split, labels. Different from seed to seed: initial weights, order,",
        "best step of each task by validation",
        "looked at once",
        TOLD,
    ):
        assert text in page.words, text
    assert "Collapsed seeds. hard learned nothing of price with seed 3." in page.words
    assert "for training: 54,000 rows, 5,400 labels of price" in page.words
    assert "Exploratory" not in page.words


def test_the_answer_says_nothing_twice(folder: Path) -> None:
    page, values = Page(write_report(folder)), compare_values()
    answer = page.words[page.words.index("The answer") : page.words.index("Results on the test rows")]
    for sentence in {*values["summary"], *(one["sentence"] for one in values["tasks_verdict"].values())}:
        assert answer.count(sentence.rstrip(".")) <= 1, sentence
    assert answer.startswith(
        "The answer cross_stitch (sharing) helps garment, audience and price. sharing was the best of 2"
    )
    assert "price rmse: sharing against single better +0.64 CHF +0.30 to +0.97 in words" in answer
    assert "garment accuracy: sharing against trees worse -0.57 points -0.96 to -0.17 in words" in answer


def test_a_metric_without_a_unit_has_none_in_its_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = compare_values()["tasks_verdict"]["price"]["sentence"]
    assert "0.64 CHF of rmse" in sentence
    monkeypatch.setitem(TASKS["price"], "metrics", ["r2", "rmse"])
    sentence = compare_values()["tasks_verdict"]["price"]["sentence"]
    assert " of r2 (" in sentence
    assert "CHF" not in sentence


def test_the_page_knows_every_key_of_the_file(folder: Path) -> None:
    content = json.loads((folder / "compare.json").read_text())
    assert list(unknown_keys(CompareFile.model_validate(content))) == []
    content["arms"]["single"]["results"]["price"]["later"] = 1
    assert list(unknown_keys(CompareFile.model_validate(content))) == [".arms.single.results.price.later"]


def test_the_table_has_a_mean_and_a_spread_for_each_arm_and_task(folder: Path) -> None:
    page, values = Page(write_report(folder)), compare_values()
    for arm in values["arms"].values():
        for result in arm["results"].values():
            assert f"{result['mean']:#.4g}" in page.words
    assert values["arms"]["trees"]["results"]["garment"]["mean"] > 0.916, (
        "a reference is not marked as the best"
    )
    best = max(
        values["arms"][arm]["results"]["garment"]["mean"] for arm in ("single", "hard", "sharing", "mmoe")
    )
    assert f">{best:.4f}</span>" in page.source.split('class="best ')[1]
    assert page.source.count('baseline"') == 3


def test_each_task_has_a_picture_of_its_differences(folder: Path) -> None:
    page = Page(write_report(folder))
    for task, measure, n in (
        ("garment", "points of accuracy in favour of the arm", 6),
        ("audience", "points of accuracy in favour of the arm", 6),
        ("price", "rmse (CHF), in favour of the arm", 9),
    ):
        (label,) = [label for label in page.labels if label.startswith(f"{task}, {measure}: ")]
        assert label.count(";") == n - 1
    assert "sharing, rows and seeds: " in page.source
    assert page.source.count("better →") == 3, "better is on the right, for errors too"
    assert "minus that of" not in page.source
    (label,) = [label for label in page.labels if label.startswith("accuracy over the number of labels")]
    assert "sharing" in label


def test_a_row_that_is_not_about_the_baseline_says_so_and_comes_later(folder: Path) -> None:
    found = CompareFile.model_validate(json.loads((folder / "compare.json").read_text()))
    rows = differences_of(found, "price").rows
    assert [row.arm for row in rows] == [
        "sharing", "mmoe", "hard", "trees", "sterile:price", "sharing, against sterile:price",
        "mmoe, against sterile:price", "sharing, against hard", "sharing, against trees",
    ]  # fmt: skip
    mean = {arm: own.results["price"].mean for arm, own in found.arms.items()}
    assert rows[3].difference == f"{mean['single'] - mean['trees']:+.2f}", "a lower error is better"
    assert float(rows[3].difference) < 0 < float(rows[0].difference)
    values = {one.arm: one.difference for one in found.comparisons if one.task == "garment"}
    shown = {row.arm: row.difference for row in differences_of(found, "garment").rows}
    assert shown["hard"] == f"{100 * float(values['hard'] or 0):+.2f}"
    page = Page(write_report(folder))
    assert "Against single, the baseline of this task, unless a row names another arm." in page.words


def test_settings_that_were_tried_and_labels_that_follow_from_others(folder: Path) -> None:
    page = Page(write_report(folder))
    assert "2 settings tried; validation chose optimizer.lr=0.01" in page.words
    assert "optimizer.lr=0.01 chosen 0.9000 0.9500 7.500 optimizer.lr=0.1 0.9000" in page.words
    assert "audience, derived from another task" in page.words
    assert "sharing 0.9420 0.9585" in page.words


def test_fresh_seeds_have_a_table_of_their_own(folder: Path) -> None:
    page, values = Page(write_report(folder)), compare_values()
    assert "5 + 5 fresh seeds" in page.words
    assert "Seeds 5, 6, 7, 8, 9 were run after the leading arm was chosen" in page.words
    for task, result in values["confirmation"]["arms"]["sharing"]["results"].items():
        assert result["values"] != values["arms"]["sharing"]["results"][task]["values"]
        assert f"{result['mean']:#.4g}" in page.words
    page = Page(write_report(changed(folder, lambda values: values.update(confirmation=None))))
    assert "5 seeds" in page.words
    assert "fresh" not in page.words[page.words.index("Results on the test rows") :].split("Differences")[0]


def test_one_tower_beside_a_candidate_is_a_reference(folder: Path) -> None:
    values = compare_values()
    assert {arm: own["role"] for arm, own in values["arms"].items()} == {
        "single": "single", "hard": "reference", "sharing": "candidate", "mmoe": "candidate",
        "sterile:price": "control", "trees": "reference",
    }  # fmt: skip
    for arm, factor in (("hard", 3), ("mmoe", 6)):  # three tasks, and of candidates there are two
        own = [c for c in values["comparisons"] if (c["arm"], c["against"]) == (arm, "single")]
        p, adjusted = (min(c[key] for c in own) for key in ("p", "p_adjusted"))
        assert adjusted == pytest.approx(min(1.0, factor * p)), arm
    assert "hard reference, named before" in Page(write_report(folder)).words


def test_the_legend_has_a_margin_only_where_there_is_one(folder: Path) -> None:
    assert "within it, differences are equivalent" in Page(write_report(folder)).words

    def drop(values: dict[str, Any]) -> None:
        for task in values["tasks"].values():
            task["margin"] = None

    assert "within it, differences" not in Page(write_report(changed(folder, drop))).words


def test_costs_and_runs(folder: Path) -> None:
    (folder / "runs" / "single" / "seed-0" / "report.html").write_text("")
    page = Page(write_report(folder))
    assert "1 min 03 s" in page.words
    assert "1,206,000" in page.words
    links = [address for address in page.addresses if address.startswith("runs/")]
    assert len(links) == 30
    assert "runs/single/seed-0/report.html" in links
    assert "runs/sterile-price/seed-4/" in links, "the folder of an arm is not its name"
    assert all((folder / link).exists() for link in links)


def test_each_part_of_the_labels_has_its_comparison_and_its_runs(folder: Path) -> None:
    part = make_comparison(folder / "garment=0.01", label_curve=None)
    write_report(part)
    make_comparison(folder / "garment=0.7")  # no point of the curve
    page = Page(write_report(folder))
    assert "with the fewest labels, 540 labels of garment (1.0%); further below" in page.words
    links = [address for address in page.addresses if address.startswith("garment")]
    assert "garment%3D0.01/compare.html" in links
    assert "garment%3D0.01/runs/sterile-price/seed-0/" in links
    assert all((folder / unquote(link)).exists() for link in links)
    assert not any("0.7" in link for link in links)
    assert "garment=0.01/seed-0" in page.words
    assert "with the fewest labels" not in Page(part / "compare.html").words


def test_a_page_that_was_looked_at_often_says_so(tmp_path: Path) -> None:
    page = Page(write_report(make_comparison(tmp_path / "often", looks=4)))
    assert "Exploratory: seeds were added after a look (4 looks)" in page.words


def test_parts_may_be_absent(folder: Path) -> None:
    def drop(values: dict[str, Any]) -> None:
        values.update(label_curve=None, delta_m=None, leading=None, transfer={}, comparisons=[], summary=[])
        values.update(derived={})
        values["tuning"] = {"single": []}
        values["arms"]["trees"]["results"]["price"].update(values=[None], mean=None, sd=None)

    (folder / "timings.json").unlink()
    page = Page(write_report(changed(folder, drop)))
    assert "With fewer labels" not in page.words
    assert "No arm was compared in this task." in page.words
    assert "Nothing was measured about it." in page.words


def test_names_stay_text(folder: Path) -> None:
    def rename(values: dict[str, Any]) -> None:
        values["recipe"].update(name=HOSTILE[0], description=HOSTILE[1])
        values["arms"][HOSTILE[1]] = {**values["arms"]["trees"], "what": HOSTILE[2], "changes": HOSTILE}
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
        for name in ("../../elsewhere", "..", ".", ""):
            values["arms"][f"arm {name}"] = {**values["arms"]["trees"], "folder": name}

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
        (lambda values: values.update(tuning={"x": []}), "compare.json: names arm 'x', which it does not have"),
        (lambda values: values.update(derived={"y": {}}), "compare.json: names task 'y', which it does not have"),
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
