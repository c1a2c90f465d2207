"""Figures as marks: positions on scales, round ticks, and what stands in for a picture where none can be seen."""

from typing import Any

import pytest

from mtl.report.charts.curves import POINTS, label_curve, learning_curve, precision_recall
from mtl.report.charts.intervals import LABELS, SHAPES, Difference, differences, key_of, strip
from mtl.report.charts.marks import Figure, Mark, Scale, amount, brief, cut, range_of, tick_text
from mtl.report.charts.outcomes import confusion, predicted_beside_labels, reliability, residual_histogram
from mtl.runs.results.details import Curve, Residuals


def of(figure: Figure, tag: str, css: str = "") -> list[Mark]:
    return [
        mark for mark in figure.marks if mark.tag == tag and css in str(mark.attributes.get("class") or "")
    ]


def texts(figure: Figure, css: str = "") -> list[str]:
    return [mark.text for mark in of(figure, "text", css)]


def points(mark: Mark) -> list[tuple[float, float]]:
    pairs = str(mark.attributes["points"]).split()
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in pairs)]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0.901, 0.918, ["0.905", "0.910", "0.915"]),
        (-31.0, 44.0, ["-20", "0", "20", "40"]),
        (0, 2.4e6, ["0", "5e5", "1e6", "1.5e6", "2e6"]),
    ],
)
def test_ticks_are_round_and_tell_their_distance(low: float, high: float, expected: list[str]) -> None:
    ticks = Scale(low, high, 0, 100).ticks()
    shown = [tick_text(tick, ticks) for tick in ticks]
    assert shown == expected


def test_ticks_of_epochs_are_whole() -> None:
    assert Scale(1, 3, 0, 100).ticks(integer=True) == [1, 2, 3]


def test_a_logarithmic_scale_has_equal_steps_for_equal_factors() -> None:
    x = Scale(10, 1000, 0, 100, log=True)
    assert [round(x(value), 6) for value in (10, 100, 1000)] == [0, 50, 100]
    assert {10.0, 100.0, 1000.0} <= set(x.ticks())


def test_a_scale_of_one_value_is_in_the_middle() -> None:
    assert Scale(3, 3, 0, 100)(3) == 50
    low, high = range_of([3.0, 3.0])
    assert low < 3 < high
    assert range_of([0.0]) == (-0.5, 0.5)


def test_numbers_for_people() -> None:
    assert [amount(value) for value in (300.0, 2.5, None)] == ["300", "2.500", "-"]
    assert [brief(value) for value in (0.0123, 0.0002, 12.34, 0.0, None)] == [
        "0.012",
        "< 0.001",
        "12",
        "0",
        "-",
    ]
    assert cut("platinum members", 10) == "platinum…"


def test_a_learning_curve_marks_the_selected_epoch() -> None:
    lines = {"train": [(1, 0.5), (2, 0.7), (3, 0.8)], "validation": [(1, 0.4), (2, 0.6), (3, 0.5)]}
    figure = learning_curve(lines, "accuracy", "epoch", 2)
    (selected,) = of(figure, "line", "selected")
    train, validation = of(figure, "polyline")
    assert selected.attributes["x1"] == pytest.approx(points(train)[1][0], abs=0.1)
    assert points(train)[0][1] > points(train)[2][1], "higher values are higher up"
    assert points(validation)[1][1] < points(validation)[2][1]
    assert figure.legend == [("split-train", "train"), ("split-validation", "validation")]
    assert figure.label == "accuracy over each epoch; at the end train 0.8000, validation 0.5000"
    assert not of(learning_curve(lines, "accuracy", "epoch", None), "line", "selected")


def test_a_long_learning_curve_is_thinned_with_its_ends() -> None:
    line = [(float(k), float(k)) for k in range(5000)]
    figure = learning_curve({"train": line}, "loss", "step", None)
    (drawn,) = of(figure, "polyline")
    assert len(points(drawn)) == POINTS
    assert points(drawn)[0][0] == 44
    assert points(drawn)[-1][0] == figure.width - 10


def test_precision_and_recall_of_many_show_the_most_frequent() -> None:
    curves = [Curve(recall=[0.5, 1.0], precision=[1.0, 0.5]) for _ in range(9)]
    shares = [k / 100 for k in range(9)]
    figure = precision_recall([*curves, None], [f"c{k}" for k in range(10)], [*shares, 0.9])
    assert [name for _, name in figure.legend] == ["c8", "c7", "c6", "c5", "c4", "c3"]
    assert figure.note == "the 6 most frequent of 9"
    one = precision_recall(curves[:1], [""], [0.25])
    assert "chance 0.2500" in texts(one)
    assert one.legend == []


def test_a_confusion_matrix_is_coloured_by_shares_of_its_rows() -> None:
    figure = confusion([[8, 2], [0, 0]], ["yes", "no"])
    cells = of(figure, "rect")
    shades = [float(str(cell.attributes["fill-opacity"])) for cell in cells]
    assert shades[0] > shades[1] > 0 == shades[2] == shades[3]
    assert cells[1].title == "true yes, predicted no: 2"
    assert texts(figure, "count") == ["8", "2", "0", "0"]
    assert "8 of 10 rows are predicted right" in figure.label
    assert texts(confusion([[1] * 20] * 20, ["x"] * 20), "count") == []


def test_reliability_puts_the_mean_distance_into_words() -> None:
    figure = reliability([[90, 0.5, 0.4], [10, 0.9, 0.9]])
    assert "differ from shares of hits by 0.09000 on average" in figure.label
    large, small = of(figure, "circle")
    assert float(str(large.attributes["r"])) > float(str(small.attributes["r"]))


def test_residuals_and_predictions_are_in_the_unit_of_the_label() -> None:
    residuals = Residuals(edges=[-2.0, 0.0, 2.0], counts=[3, 5], below=1, above=0)
    figure = residual_histogram(residuals, "CHF")
    assert "prediction - label (CHF)" in texts(figure)
    low, high = of(figure, "rect", "bar")
    assert float(str(low.attributes["height"])) < float(str(high.attributes["height"]))
    assert figure.note == "1 row lies beyond the ends"
    beside = predicted_beside_labels([[10, 1.0, 0.5, 1.1, 2.0], [10, 5.0, 3.0, 4.0, 6.0]], "")
    assert {"label", "prediction"} <= set(texts(beside))
    assert len(of(beside, "circle")) == 2


def test_a_strip_keeps_everything_on_its_line() -> None:
    figure = strip((0.0, 1.0), 0.9, (0.85, 1.2), [("constant", 0.1), ("other", 0.5)], 0.95)
    (interval,) = of(figure, "line", "interval")
    assert interval.attributes["x2"] == 232
    assert [mark.title for mark in of(figure, "path")] == [
        "best possible: 0.9500", "constant: 0.1000", "other: 0.5000",
    ]  # fmt: skip
    assert figure.label == "test result 0.9000, constant 0.1000, other 0.5000"


def arms(**changes: Any) -> list[Difference]:
    return [Difference("stitch", 0.02, (-0.01, 0.05), (0.0, 0.04), "cannot tell", **changes)]


def test_differences_are_better_on_the_right() -> None:
    figure = differences("price", "rmse, in favour of the arm", arms(), 0.01)
    assert texts(figure)[:2] == ["← worse", "better →"]
    wide, narrow = of(figure, "line", "interval")
    assert float(str(wide.attributes["x1"])) < float(str(narrow.attributes["x1"]))
    assert len(of(figure, "rect", "margin")) == 1
    assert figure.label == "price, rmse, in favour of the arm: stitch: 0.02000, cannot tell"
    assert not of(differences("price", "rmse", arms(), None), "rect", "margin")


def test_intervals_that_look_alike_are_drawn_once() -> None:
    assert len(of(differences("price", "rmse", arms(), None), "line", "interval seeds")) == 1
    alike = [Difference("stitch", 0.02, (-0.01, 0.05), (-0.0099, 0.05), "cannot tell", "trees")]
    figure = differences("price", "rmse", alike, None)
    assert not of(figure, "line", "interval seeds")
    texts = [mark for mark in figure.marks if mark.tag == "text" and "arm" in str(mark.attributes["class"])]
    assert [mark.text for mark in texts] == ["stitch", "against trees", "cannot tell"]
    (zero,) = of(figure, "line", "zero")
    assert float(str(zero.attributes["x1"])) >= LABELS, "nothing is drawn through the names"


def test_a_wide_margin_leaves_room_for_the_differences() -> None:
    figure = differences("price", "rmse", arms(), 100.0)
    (margin,) = of(figure, "rect", "margin")
    assert margin.title == "equivalent: within 100.0"
    wide, _ = of(figure, "line", "interval")
    assert float(str(wide.attributes["x2"])) - float(str(wide.attributes["x1"])) > 100


def test_a_label_curve_has_a_line_for_each_arm() -> None:
    line = [(100.0, 0.5, 0.4, 0.6), (1000.0, 0.7, 0.7, 0.7)]
    figure = label_curve({"single": line, "stitch": line}, "accuracy")
    assert [name for _, name in figure.legend] == ["single", "stitch"]
    assert len(of(figure, "polyline")) == 2
    assert "labels (logarithmic)" in texts(figure)


@pytest.mark.parametrize("name", ["result", "interval", "seeds", "margin", "of a later release", *SHAPES])
def test_each_key_of_a_legend_is_a_mark(name: str) -> None:
    assert len(key_of(name).marks) == 1


def test_an_interval_narrower_than_the_dot_has_caps_that_show() -> None:
    figure = strip((0.0, 1.0), 0.5, (0.499, 0.501), [], None)
    caps = of(figure, "line", "cap")
    dot = of(figure, "circle", "dot result")[0].attributes
    assert len(caps) == 2
    assert all(float(cap.attributes["y1"]) < 12 - float(dot["r"]) for cap in caps)


def test_short_names_below_a_matrix_are_not_turned() -> None:
    turned = [
        sum("transform" in mark.attributes for mark in confusion([[1, 0], [0, 1]], names).marks)
        for names in (["0", "1"], ["no", "yes"], ["a name that is long " * 2, "b"])
    ]
    assert turned == [0, 0, 2]
