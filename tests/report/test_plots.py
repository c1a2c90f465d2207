"""Plots of a run: files that are pictures, and heat maps the right way round."""

import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mtl.errors import UserError
from mtl.report import plots
from mtl.report.curves import abscissa, learning_curves
from mtl.report.plots import plot_run
from mtl.report.sharing_history import sharing_paths
from mtl.report.sharing_plots import sharing_maps
from mtl.runs.folder import RunFolder
from mtl.runs.record import Selected
from tests.support.records import record

MAGIC = b"\x89PNG\r\n\x1a\n"


def size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, from the header of a PNG."""
    data = path.read_bytes()
    assert data.startswith(MAGIC)
    assert data.endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def rows(tasks: list[str], epochs: int = 3, hole: str | None = None) -> list[dict[str, Any]]:
    made = []
    for epoch in range(1, epochs + 1):
        for split in ("train", "validation"):
            row: dict[str, Any] = {"split": split, "epoch": epoch, "step": 10 * epoch}
            for t, task in enumerate(tasks):
                row[f"{split}/{task}/loss"] = None if task == hole else 1 / epoch + t
                row[f"{split}/{task}/accuracy"] = None if epoch == 2 else 1 - 1 / (epoch + 1)
                row[f"{split}/{task}/labels"] = 17
            row[f"{split}/mean/accuracy"] = None
            made.append(row)
    return made


def matrix(values: Any, targets: list[str], sources: list[str] | None = None) -> dict[str, Any]:
    """What a line of sharing.jsonl has of one place."""
    return {"targets": targets, "sources": targets if sources is None else sources, "values": values}


def alphas(
    n: int, sites: tuple[str, ...] = ("fc1", "fc2"), epochs: int = 3, towers: list[str] | None = None
) -> list[dict[str, Any]]:
    names = towers or [f"t{i}" for i in range(n)]
    return [
        {"epoch": e, "step": e, "sharing": {s: matrix((np.eye(n) + 0.01 * e).tolist(), names) for s in sites}}
        for e in range(epochs)
    ]


def paths_of(lines: list[dict[str, Any]]) -> Figure:
    return sharing_paths(lines, abscissa(lines))


def run_of(path: Path, tasks: list[str], *, stitched: bool = True, hole: str | None = None) -> RunFolder:
    path.mkdir(exist_ok=True)
    run = RunFolder(path, record(towers={task: [task] for task in tasks}))
    run.logs.append("metrics.jsonl", rows(tasks, hole=hole))
    if stitched:
        run.logs.append("sharing.jsonl", alphas(len(tasks), towers=tasks))
    return run


@pytest.mark.parametrize("n_tasks", [1, 3, 12])
def test_every_plot_is_a_picture_of_sane_size(n_tasks: int, tmp_path: Path) -> None:
    run = run_of(tmp_path, [f"task{t}" for t in range(n_tasks)])
    paths = plot_run(run)
    assert [path.name for path in paths] == [
        "curves_loss.png",
        "curves_accuracy.png",
        "sharing.png",
        "sharing_history.png",
    ]
    assert set(paths) == set(run.plots.iterdir())
    for path in paths:
        width, height = size(path)
        assert path.stat().st_size > 5000
        assert 200 < width < 4000, path.name
        assert 200 < height < 4000, path.name


def test_without_stitches_there_is_no_alpha(tmp_path: Path) -> None:
    assert [p.name for p in plot_run(run_of(tmp_path, ["a", "b"], stitched=False))] == [
        "curves_loss.png",
        "curves_accuracy.png",
    ]


@pytest.mark.parametrize("hole", ["a", "b"])
def test_values_that_are_undefined(hole: str, tmp_path: Path) -> None:
    """Also where the first task has no value at all; warnings are errors here."""
    assert len(plot_run(run_of(tmp_path, ["a", "b"], hole=hole))) == 4


def test_drawing_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    run = run_of(tmp_path, ["a", "b"])
    before = {path: path.read_bytes() for path in plot_run(run)}
    assert {path: path.read_bytes() for path in plot_run(run)} == before


def drawn(figure: Figure) -> Figure:
    FigureCanvasAgg(figure).draw()
    return figure


def test_curves_show_each_task_and_split() -> None:
    figure = drawn(learning_curves(rows(["a", "b"]), "loss"))
    panels = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in panels] == ["a", "b"]
    lines = {line.get_label(): line for line in panels[1].get_lines()}
    assert set(lines) == {"train", "validation"}
    assert list(lines["train"].get_xdata()) == [1, 2, 3]
    np.testing.assert_allclose(lines["train"].get_ydata(), [2, 1.5, 1 + 1 / 3])
    assert panels[0].get_ylabel() == "loss (mean per label)"
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"train", "validation"}


def test_panels_of_a_metric_from_0_to_1_have_one_range() -> None:
    made = [
        {"split": "train", "epoch": k, "step": k, "train/a/accuracy": 0.5 + 0.01 * k, "train/b/accuracy": 0.9}
        for k in (1, 2)
    ]
    one, two = (axis.get_ylim() for axis in drawn(learning_curves(made, "accuracy")).axes)
    assert one == two
    losses = drawn(learning_curves(rows(["a", "b"]), "loss"))
    assert not losses.axes[0].get_shared_y_axes().joined(losses.axes[0], losses.axes[1])


def test_curves_of_many_tasks_are_a_heat_map_and_a_dot_plot() -> None:
    """Each task has a row of colours for validation, and a dot per split at the step; the highest is on top."""
    names = [f"t{i}" for i in range(40)]
    made = rows(names)
    made.append({"split": "test", "epoch": 2, "step": 20, **{f"test/{t}/loss": 7.0 for t in names}})
    figure = drawn(learning_curves(made, "loss", step=20))
    heat, dots = figure.axes[:2]
    (image,) = heat.get_images()
    assert np.shape(image.get_array()) == (40, 3)
    np.testing.assert_allclose(np.asarray(image.get_array())[0], [1 + 39, 1 / 2 + 39, 1 / 3 + 39])
    assert [label.get_text() for label in heat.get_yticklabels()] == names[::-1]
    assert [label.get_text() for label in heat.get_xticklabels()] == ["1", "2", "3"]
    assert heat.get_title() == "validation, each epoch"
    assert dots.get_title() == "40 tasks at step 20, sorted by validation"
    lines = {str(line.get_label()).split(",")[0]: line for line in dots.get_lines()}
    assert list(lines) == ["train", "validation", "test"]
    np.testing.assert_allclose(lines["train"].get_xdata(), [1 / 2 + k for k in range(39, -1, -1)])
    np.testing.assert_allclose(lines["test"].get_xdata(), [7.0] * 40)
    assert dots.get_xscale() == "linear"


def test_a_task_of_many_without_a_value_is_grey_and_at_the_bottom() -> None:
    names = [f"t{i}" for i in range(14)]
    figure = drawn(learning_curves(rows(names, hole="t13"), "loss"))
    (image,) = figure.axes[0].get_images()
    assert np.ma.getmaskarray(image.get_array())[13].all()
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][13] == "t13"
    assert image.get_cmap()(np.ma.masked).count(1.0) < 4  # type: ignore[operator]


def test_many_tasks_in_several_units_have_a_logarithmic_scale() -> None:
    names = [f"t{i}" for i in range(14)]
    made = [
        {
            "split": "validation",
            "epoch": e,
            "step": e,
            **{f"validation/{t}/rmse": 10.0**k for k, t in enumerate(names)},
        }
        for e in (1, 2)
    ]
    heat, dots = drawn(learning_curves(made, "rmse")).axes[:2]
    assert dots.get_xscale() == "log"
    assert heat.get_images()[0].norm.vmin == 1.0
    assert dots.get_xlabel() == "rmse (in the unit of the label)"


def test_the_unit_of_a_label_stands_by_its_task() -> None:
    made = [
        {
            "split": "train",
            "epoch": 1,
            "step": 1,
            **{f"train/{t}/{m}": 2.0 for t in "ab" for m in ("mae", "r2")},
        }
    ]
    titles = {
        metric: [axis.get_title() for axis in learning_curves(made, metric, units={"b": "CHF"}).axes]
        for metric in ("mae", "r2")
    }
    assert titles == {"mae": ["a", "b (CHF)"], "r2": ["a", "b"]}


def test_ticks_of_epochs_are_whole_numbers() -> None:
    curves = [learning_curves(rows(["a"], epochs=n), "loss") for n in (1, 2)]
    for figure in (*curves, paths_of(alphas(2, epochs=2))):
        drawn(figure)
        ticks = [tick for axis in figure.axes if axis.get_visible() for tick in axis.get_xticks()]
        assert ticks
        assert all(float(tick).is_integer() for tick in ticks)


@pytest.mark.parametrize(("n", "shape"), [(1, (1, 1)), (4, (4, 1)), (5, (3, 2)), (9, (3, 3)), (12, (4, 3))])
def test_panels_of_a_few_tasks_leave_few_holes(n: int, shape: tuple[int, int]) -> None:
    made = [{"split": "train", "epoch": 1, "step": 1, **{f"train/t{k}/loss": 1.0 for k in range(n)}}]
    grid = learning_curves(made, "loss").axes[0].get_gridspec()
    assert grid is not None
    assert (grid.ncols, grid.nrows) == shape


def test_the_medians_of_the_splits_are_of_the_same_tasks() -> None:
    """The medians of 40 tasks in train and of 10 in validation could not be compared."""
    names = [f"t{i}" for i in range(40)]
    measured = rows(names)
    for task in names[:30]:
        measured[-1][f"validation/{task}/loss"] = None
    dots = drawn(learning_curves(measured, "loss")).axes[1]
    labels = [str(line.get_label()) for line in dots.get_lines()]
    assert labels == [f"{split}, median 34.83 of 10" for split in ("train", "validation")]
    for task in names[30:]:
        measured[-2][f"train/{task}/loss"] = None
    dots = drawn(learning_curves(measured, "loss")).axes[1]
    assert [line.get_label() for line in dots.get_lines()] == ["train", "validation"]


def test_only_the_metrics_asked_for_are_drawn(tmp_path: Path) -> None:
    paths = plot_run(run_of(tmp_path, ["a", "b"], stitched=False), {"auroc"})
    assert [path.name for path in paths] == ["curves_loss.png"]


def test_the_history_of_five_towers_has_a_named_line_for_each() -> None:
    """What a tower takes from others, as a share of all it takes: 4 e of 1 + 5 e, with e = 0.00, 0.01, 0.02."""
    figure = drawn(paths_of(alphas(5, towers=list("abcde"))))
    for axis in figure.axes:
        assert [line.get_label() for line in axis.get_lines()] == list("abcde")
        np.testing.assert_allclose(axis.get_lines()[3].get_ydata(), [0, 100 * 0.04 / 1.05, 100 * 0.08 / 1.1])
    assert figure.axes[0].get_ylabel() == "share taken from others (%)"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list("abcde")
    colours = [line.get_color() for line in figure.axes[0].get_lines()]
    assert len(set(colours)) == 5


def test_a_tower_that_takes_nothing_takes_no_share_from_others() -> None:
    names = [f"t{i}" for i in range(5)]
    lines = [
        {"epoch": e, "step": e, "sharing": {"s": matrix(np.zeros((5, 5)).tolist(), names)}} for e in range(2)
    ]
    np.testing.assert_array_equal(drawn(paths_of(lines)).axes[0].get_lines()[0].get_ydata(), [0, 0])


def test_the_history_of_thirty_towers_is_a_heat_map() -> None:
    """The tower that takes most from others at the end is on top, in each place."""
    lines = alphas(30)
    for place in ("fc1", "fc2"):
        lines[-1]["sharing"][place]["values"][17][3] = 2.0
    figure = drawn(paths_of(lines))
    for axis in figure.axes[:2]:
        (image,) = axis.get_images()
        shares = np.asarray(image.get_array())
        assert shares.shape == (30, 3)
        np.testing.assert_allclose(shares[0, -1], 100 * (28 * 0.02 + 2) / (28 * 0.02 + 2 + 1.02))
        np.testing.assert_allclose(shares[:, 1], 100 * 0.29 / 1.3)
    assert figure.axes[0].get_yticklabels()[0].get_text() == "t17"


def test_a_metric_that_no_row_has() -> None:
    with pytest.raises(UserError, match="no row has a metric 'acuracy'"):
        learning_curves(rows(["a"]), "acuracy")


def test_an_undefined_value_is_a_gap_in_the_curve() -> None:
    figure = drawn(learning_curves(rows(["a"]), "accuracy"))
    assert [axis.get_title() for axis in figure.axes if axis.get_visible()] == ["a", "mean"]
    assert list(figure.axes[0].get_lines()[0].get_xdata()) == [1, 3]
    assert figure.axes[1].get_lines()[:] == []


def test_a_metric_whose_name_ends_another() -> None:
    """`loss` is not `val_loss`."""
    given = [{"split": "train", "epoch": 1, "step": 1, "train/a/loss": 1.0, "train/b/val_loss": 2.0}]
    figure = drawn(learning_curves(given, "loss"))
    assert [axis.get_title() for axis in figure.axes if axis.get_visible()] == ["a"]


def test_maps_have_targets_in_rows_and_sources_in_columns() -> None:
    """values[i][j] is what target i takes from source j; targets and sources may be of other numbers."""
    values = [[0.9, 0.1, 0.0], [0.2, 0.7, -0.3]]
    line = {"step": 7, "sharing": {s: matrix(values, ["x", "y"], ["p", "q", "r"]) for s in ("fc1", "gates")}}
    figure = drawn(sharing_maps(line))
    for place, axis in zip(("fc1", "gates"), figure.axes, strict=False):
        assert axis.get_title() == place
        assert axis.get_xlabel() == "from"
        assert [label.get_text() for label in axis.get_xticklabels()] == ["p", "q", "r"]
        (image,) = axis.get_images()
        np.testing.assert_array_equal(image.get_array(), values)
        assert image.origin == "upper"
        low, high = image.get_clim()
        assert low == -high == -1.0
        # row i is drawn at height y = i, column j at x = j; y grows downwards
        bottom, top = axis.get_ylim()
        assert bottom > top
        texts = {text.get_position(): text.get_text() for text in axis.texts}
        assert texts == {(j, i): f"{values[i][j]:.2f}" for i in range(2) for j in range(3)}
    first = figure.axes[0]
    assert first.get_ylabel() == "into"
    assert [label.get_text() for label in first.get_yticklabels()] == ["x", "y"]


def test_large_values_widen_the_scale() -> None:
    line = {"step": 7, "sharing": {"s": matrix([[1.0, -2.5], [0.0, 1.0]], ["x", "y"])}}
    assert sharing_maps(line).axes[0].get_images()[0].get_clim() == (-2.5, 2.5)


def test_paths_tell_own_from_foreign() -> None:
    figure = drawn(paths_of(alphas(2, ("fc1",), towers=["x", "y"])))
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert set(lines) == {"x from x", "x from y", "y from x", "y from y"}
    assert lines["x from x"].get_linestyle() == "-"
    assert lines["x from y"].get_linestyle() == "--"
    np.testing.assert_allclose(lines["x from y"].get_ydata(), [0, 0.01, 0.02])


@pytest.mark.parametrize("n", [3, 12])
def test_the_history_of_gates_is_the_largest_weight_of_each(n: int) -> None:
    """No tower is one of the experts, so that nothing is taken from itself or from others."""
    names, experts = [f"t{i}" for i in range(n)], [f"e{i}" for i in range(8)]
    values = np.full((n, 8), 0.1)
    values[:, 5] = 0.3
    lines = [
        {"epoch": e, "step": e, "sharing": {"gates": matrix((values + e).tolist(), names, experts)}}
        for e in range(2)
    ]
    axis = drawn(paths_of(lines)).axes[0]
    if n == 3:
        assert axis.get_ylabel() == "largest weight of one source"
        assert [line.get_label() for line in axis.get_lines()] == names
        np.testing.assert_allclose(axis.get_lines()[1].get_ydata(), [0.3, 1.3])
    else:
        np.testing.assert_allclose(np.asarray(axis.get_images()[0].get_array()), [[0.3, 1.3]] * n)


def test_loss_weights_are_drawn_where_they_move(tmp_path: Path) -> None:
    run = run_of(tmp_path, ["a"], stitched=False)
    for epoch, weight in ((1, 1.0), (2, 1.0)):
        line = {"split": "train", "epoch": epoch, "step": epoch, "train/a/loss_weight": weight}
        run.logs.append("metrics.jsonl", [line])
    assert "curves_loss_weight.png" not in [path.name for path in plot_run(run)]
    run.logs.append("metrics.jsonl", [{"split": "train", "epoch": 3, "step": 3, "train/a/loss_weight": 0.5}])
    assert "curves_loss_weight.png" in [path.name for path in plot_run(run, {"accuracy"})]


def test_names_with_dollars_and_underscores_are_text(tmp_path: Path) -> None:
    """A site or metric name is the user's; it must not be read as mathematics."""
    run = run_of(tmp_path, ["a_b", "c-d"])
    run.logs.append("metrics.jsonl", [{"split": "train", "epoch": 4, "step": 1, "train/a_b/top_5": 1.0}])
    assert len(plot_run(run)) == 5


def overlapping(labels: Any) -> int:
    boxes = [label.get_window_extent() for label in labels if label.get_text()]
    return sum(first.overlaps(second) for first, second in pairwise(boxes))


@pytest.mark.parametrize("n", [9, 30, 64, 256])
def test_names_of_many_towers_do_not_touch_each_other(n: int) -> None:
    towers = [f"t{i}" for i in range(n)]
    figure = drawn(sharing_maps(alphas(n, ("s1", "s2"))[0]))
    assert max(figure.get_size_inches() * 110) < 4000
    for axis in figure.axes[:2]:
        named = [label.get_text() for label in axis.get_xticklabels()]
        assert [towers[int(at)] for at in axis.get_xticks()] == named
        assert len(named) >= 10 if n > 30 else len(named) == n
        assert overlapping(axis.get_xticklabels()) == overlapping(axis.get_yticklabels()) == 0


@pytest.mark.parametrize("n", [13, 100, 256])
def test_names_of_many_tasks_do_not_touch_each_other(n: int) -> None:
    figure = drawn(learning_curves(rows([f"a_longer_name_{i}" for i in range(n)]), "loss"))
    assert max(figure.get_size_inches() * 110) < 4000
    assert len(figure.axes[0].get_yticklabels()) == n
    assert overlapping(figure.axes[0].get_yticklabels()) == 0


def test_colours_of_a_large_map_cover_what_is_taken_from_others() -> None:
    """What a tower keeps of itself is a hundred times larger; it is grey, and the title has its range."""
    lines = alphas(9, ("fc1",), towers=[f"t{i}" for i in range(9)])
    lines[1]["sharing"]["fc1"]["values"][2][7] = -0.05
    figure = drawn(sharing_maps(lines[1]))
    (image,) = figure.axes[0].get_images()
    assert image.get_clim() == (-0.05, 0.05)
    np.testing.assert_array_equal(np.ma.getmaskarray(image.get_array()), np.eye(9, dtype=bool))
    assert figure.axes[0].get_title() == "fc1 (grey: of itself, 1.010 to 1.010)"


def test_of_a_hundred_towers_the_largest_weights_are_listed() -> None:
    line = alphas(100)[1]
    line["sharing"]["fc2"]["values"][17][3] = -0.5
    line["sharing"]["fc1"]["values"][4][90] = 0.25
    listed = drawn(sharing_maps(line)).axes[-1]
    assert listed.get_title() == "the 30 largest weights of what is taken from others"
    named = [label.get_text() for label in listed.get_yticklabels()]
    assert named[:2] == ["t17 from t3, fc2", "t4 from t90, fc1"]
    (dots,) = [line for line in listed.get_lines() if line.get_marker() == "o"]
    np.testing.assert_allclose(np.asarray(dots.get_xdata())[:3], [-0.5, 0.25, 0.01])


def test_no_picture_is_wider_than_can_be_written(tmp_path: Path) -> None:
    from mtl.report.plots import _save

    assert size(_save(Figure(figsize=(1000, 2)), tmp_path / "wide.png"))[0] <= 2**14
    assert size(_save(Figure(figsize=(5, 2)), tmp_path / "usual.png")) == (550, 220)


@pytest.mark.parametrize(("within", "label"), [(False, "epoch"), (True, "step")])
@pytest.mark.parametrize("n_tasks", [2, 20])
def test_curves_run_over_steps_if_an_epoch_was_evaluated_more_than_once(
    within: bool, label: str, n_tasks: int
) -> None:
    tasks = [f"t{t}" for t in range(n_tasks)]
    made, history = rows(tasks), alphas(n_tasks)
    if within:
        made.insert(3, {**made[3], "step": 15})
        history.insert(1, {**history[0], "step": 0.5})
    made.append({**made[-1], "split": "validation"})  # measured again with thresholds: the same step
    for figure in (learning_curves(made, "loss"), paths_of(history)):
        shown = [axis for axis in figure.axes if axis.lines or axis.get_images()]
        assert label in {axis.get_xlabel() for axis in shown}
        assert len(shown) >= 2
    if n_tasks == 2:
        longest = {"epoch": 3, "step": 30}[label]
        curve = learning_curves(made, "loss").axes[1].lines[0]
        assert max(curve.get_xdata()) == longest  # type: ignore[arg-type]


@pytest.mark.parametrize("n_tasks", [2, 20])
def test_curves_run_over_steps_if_validation_is_not_at_the_end_of_its_epoch(n_tasks: int) -> None:
    """Evaluated each 9 steps of epochs of 6: at steps 9, 18, ..., of which none is measured twice in an epoch."""
    tasks = [f"t{t}" for t in range(n_tasks)]
    made: list[dict[str, Any]] = []
    for split, steps in (("train", range(6, 37, 6)), ("validation", range(9, 37, 9))):
        for step in steps:
            row = {"split": split, "epoch": -(-step // 6), "step": step}
            made.append({**row, **{f"{split}/{task}/loss": 1 / step for task in tasks}})
    figure = drawn(learning_curves(made, "loss"))
    assert figure.axes[0].get_xlabel() == "step"
    if n_tasks == 20:
        assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["9", "18", "27", "36"]
        return
    lines = [line for axis in figure.axes for line in axis.get_lines()]
    runs_over = {tuple(np.asarray(line.get_xdata(), int)) for line in lines}
    assert runs_over == {(6, 12, 18, 24, 30, 36), (9, 18, 27, 36)}


@pytest.mark.parametrize("generated", [True, False])
def test_pictures_say_what_is_generated(
    generated: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the table of results does; the words are on every picture, and nothing is on those of measured data."""
    words: list[str] = []

    def look(figure: Figure) -> None:
        words.append(figure.get_supxlabel())
        real(figure)

    real = plots.FigureCanvasAgg
    monkeypatch.setattr(plots, "FigureCanvasAgg", look)
    run = run_of(tmp_path, ["a", "b"])
    run.record.data.generated = generated
    assert len(plot_run(run)) == 4
    assert words == ["the data are generated, not measured" if generated else ""] * 4


@pytest.mark.parametrize("n", [2, 3, 12])
def test_nothing_of_a_heat_map_is_cut_off(n: int) -> None:
    figure = sharing_maps(alphas(n, towers=[f"a_rather_long_name_{k}" for k in range(n)])[-1])
    figure.set_figheight(figure.get_figheight() + 0.3)
    figure.supxlabel("the data are generated, not measured", fontsize=9)
    drawn(figure)
    width, height = figure.get_size_inches() * figure.dpi
    for text in [*(axis.title for axis in figure.axes), figure._supxlabel]:  # type: ignore[attr-defined]
        box = text.get_window_extent()
        assert 0 <= box.x0 <= box.x1 <= width
        assert 0 <= box.y0 <= box.y1 <= height


@pytest.mark.parametrize("other", [alphas(2, sites=("fc1",)), alphas(2, towers=["a", "c"]), alphas(3)])
def test_lines_of_another_form_are_named(other: list[dict[str, Any]], tmp_path: Path) -> None:
    run = run_of(tmp_path, ["a", "b"])
    run.logs.append("sharing.jsonl", other[:1])
    with pytest.raises(UserError) as caught:
        plot_run(run)
    told = "what is shared here is not what line 1 has; put back the one that the run wrote"
    assert str(caught.value) == f"{tmp_path}/sharing.jsonl:4: {told}"


@pytest.mark.parametrize(("selected", "shown"), [(1, 1), (0, 0), (7, 2), (None, 2)])
def test_the_heat_map_is_of_the_selected_weights(
    selected: int | None, shown: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the last ones where nothing was selected, or nothing was logged at that step; the title says which."""
    figures: list[Figure] = []
    real = plots.FigureCanvasAgg
    monkeypatch.setattr(plots, "FigureCanvasAgg", lambda figure: (figures.append(figure), real(figure)))
    run = run_of(tmp_path, ["a", "b"])
    if selected is not None:
        run.record.selected = Selected(epoch=1, step=selected)
    paths = [path.name for path in plot_run(run)]
    figure = figures[paths.index("sharing.png")]
    (image,) = figure.axes[0].get_images()
    np.testing.assert_allclose(np.asarray(image.get_array()), np.eye(2) + 0.01 * shown)
    title = f"small\nrun {tmp_path.name}, id 2511cdcf"
    assert figure.get_suptitle() == f"{title}, step {shown}"
    assert {one.get_suptitle() for one in figures if one is not figure} == {title}


def test_a_link_in_place_of_a_picture_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("dear")
    run = run_of(tmp_path / "run", ["a", "b"])
    run.plots.mkdir()
    for name in ("sharing.png", "curves_loss.png"):
        (run.plots / name).symlink_to(Path("..") / ".." / "victim")
    paths = plot_run(run)
    assert victim.read_text() == "dear"
    assert len(paths) == 4
    assert not any(path.is_symlink() for path in paths)
    assert set(paths) == set(run.plots.iterdir())
    assert all(size(path) for path in paths)


def test_a_link_in_place_of_the_folder_of_plots_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    run = run_of(tmp_path / "run", ["a", "b"])
    run.plots.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError) as caught:
        plot_run(run)
    assert str(caught.value) == f"{run.plots}: is a link, not a folder; remove it"
    assert list((tmp_path / "elsewhere").iterdir()) == []
