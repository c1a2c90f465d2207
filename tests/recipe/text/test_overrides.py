"""Changes on the command line: what they do to values and places, and what is refused, by the message."""

from __future__ import annotations

import copy
from itertools import permutations
from typing import Any

import pytest

from mtl.errors import KeyPath, ManyErrors, UserError
from mtl.recipe.text.overrides import COMMAND_LINE, apply
from mtl.recipe.text.yaml import Document, Mark, place_of, read_bytes

TEXT = b"""\
name: x
note:
tasks:
  garment: {kind: binary, weight: 1}
  '7': seven
model:
  backbone:
    stages:
      - {name: conv1, channels: 8}
      - {name: pool1, size: 2}
      - {name: conv2, channels: 16}
  sharing: {kind: cross_stitch, after: []}
optimizer: {kind: adam, lr: 0.1}
"""

OF_KINDS = b"""\
data: {source: {kind: npz, path: x.npz}, split: {kind: b, test: 0.5}}
tasks: {garment: {kind: multiclass, target: g, weight: 1, classes: 3}}
model:
  backbone: {kind: layers, stages: [{name: conv1, kind: conv, channels: 8}]}
  sharing: {kind: cross_stitch, after: [conv1], init: {convex: 0.9, other: 1}}
optimizer: {kind: adam, lr: 0.1, betas: [0.8, 0.9]}
"""

STAGES: KeyPath = ("model", "backbone", "stages")


@pytest.fixture
def document() -> Document:
    return read_bytes(TEXT, "r.yaml")


def at(value: Any, path: KeyPath) -> Any:
    for key in path:
        value = value[key]
    return value


def faults(document: Document, *overrides: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        apply(document, overrides)
    texts = str(caught.value).split("\n")
    assert all(text.isprintable() and len(text) < 250 for text in texts)
    return texts


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("tasks.garment.weight=2", ("tasks", "garment", "weight"), 2),
        ("optimizer.lr=1e-3", ("optimizer", "lr"), 0.001),
        ("optimizer={kind: sgd, lr: 0.2}", ("optimizer",), {"kind": "sgd", "lr": 0.2}),
        ("optimizer=kind: sgd", ("optimizer",), {"kind": "sgd"}),
        ("optimizer.kind=sgd", ("optimizer",), {"kind": "sgd", "lr": 0.1}),
        ("data.source.path=x.npz", ("data",), {"source": {"path": "x.npz"}}),
        ("tasks.shoe.kind=multiclass", ("tasks", "shoe"), {"kind": "multiclass"}),
        ("tasks.7=eight", ("tasks", "7"), "eight"),
        ("tasks.007=bond", ("tasks", "007"), "bond"),
        ("tasks.été-1_b=1", ("tasks", "été-1_b"), 1),
        ("note.inner=1", ("note",), {"inner": 1}),
        ("note=a=b", ("note",), "a=b"),
        ("note=~", ("note",), None),
        ("model.backbone.stages.0.channels=16", (*STAGES, 0), {"name": "conv1", "channels": 16}),
        ("model.backbone.stages.2.kernel=3", (*STAGES, 2, "kernel"), 3),
        ("model.backbone.stages.1={name: p}", (*STAGES, 1), {"name": "p"}),
        ("model.backbone.stages=[{name: p}]", STAGES, ({"name": "p"},)),
        ("model.sharing.after=[pool1, conv2]", ("model", "sharing", "after"), ("pool1", "conv2")),
    ],
)
def test_setting(document: Document, override: str, path: KeyPath, value: object) -> None:
    before = copy.deepcopy(document)
    after = apply(document, [override])
    assert at(after.value, path) == value
    assert document == before
    assert after.file == "r.yaml"
    for known, mark in before.marks.items():  # what was not touched is where it was
        if known[: len(path)] != path and path[: len(known)] != known:
            assert at(after.value, known) == at(before.value, known)
            assert after.marks[known] == mark


def test_removing(document: Document) -> None:
    before = copy.deepcopy(document)
    after = apply(document, ["~model.sharing", "~note"])
    assert list(after.value) == ["name", "tasks", "model", "optimizer"]
    assert list(after.value["model"]) == ["backbone"]
    assert not [path for path in after.marks if path[:2] == ("model", "sharing")]
    assert document == before


def test_removing_an_item_moves_the_places_of_the_later_ones(document: Document) -> None:
    after = apply(document, ["~model.backbone.stages.1", "~model.backbone.stages.0.channels"])
    assert at(after.value, STAGES) == ({"name": "conv1"}, {"name": "conv2", "channels": 16})
    assert after.marks[*STAGES, 1, "channels"] == document.marks[*STAGES, 2, "channels"]
    assert after.marks[*STAGES, 0] == document.marks[*STAGES, 0]
    assert (*STAGES, 2) not in after.marks
    assert (*STAGES, 0, "channels") not in after.marks


def test_overrides_follow_each_other(document: Document) -> None:
    after = apply(
        document, ["optimizer=null", "optimizer.kind=sgd", "optimizer.lr=1", "~optimizer.lr", "a.b=1"]
    )
    assert after.value["optimizer"] == {"kind": "sgd"}
    assert after.value["a"] == {"b": 1}
    assert apply(document, []) == document


@pytest.mark.parametrize(
    ("overrides", "path", "value"),
    [
        (["optimizer.kind=sgd"], ("optimizer",), {"kind": "sgd", "lr": 0.1}),
        (["optimizer.kind=adam"], ("optimizer",), {"kind": "adam", "lr": 0.1, "betas": (0.8, 0.9)}),
        (["optimizer.kind=sgdd"], ("optimizer",), {"kind": "sgdd", "lr": 0.1}),
        (["model.sharing.kind=none"], ("model", "sharing"), {"kind": "none"}),
        (
            ["tasks.garment.kind=regression"],
            ("tasks", "garment"),
            {"kind": "regression", "target": "g", "weight": 1},
        ),
        (
            ["model.backbone.stages.0.kind=dropout"],
            (*STAGES, 0),
            {"name": "conv1", "kind": "dropout"},
        ),
        (
            ["tasks.garment.kind=x", "tasks.garment.kind=binary"],
            ("tasks", "garment"),
            {"kind": "binary", "target": "g", "weight": 1},
        ),
        (["data.split.kind=a"], ("data", "split"), {"kind": "a", "test": 0.5}),  # no family of kinds
    ],
)
def test_another_kind_keeps_what_all_kinds_of_the_family_have(
    overrides: list[str], path: KeyPath, value: object
) -> None:
    document = read_bytes(OF_KINDS, "r.yaml")
    after = apply(document, overrides)
    assert at(after.value, path) == value
    for known in after.marks:
        at(after.value, known)  # no place of a key that is gone
    assert document == read_bytes(OF_KINDS, "r.yaml")


SET_WITH_KIND = ["model.sharing.kind=mmoe", "model.sharing.experts=4", "model.sharing.init.convex=0.8"]


@pytest.mark.parametrize("overrides", list(permutations(SET_WITH_KIND)))
def test_a_kind_and_its_keys_come_in_any_order(overrides: tuple[str, ...]) -> None:
    after = apply(read_bytes(OF_KINDS, "r.yaml"), overrides)
    assert after.value["model"]["sharing"] == {"kind": "mmoe", "experts": 4, "init": {"convex": 0.8}}
    inside = [path for path in after.marks if path[:2] == ("model", "sharing")]
    assert len(inside) == 5
    set_here = {path[-1] for path in inside if after.marks[path].value == COMMAND_LINE}
    assert set_here - {"init"} == {"kind", "experts", "convex"}  # the first override of `init` may make it


def test_a_mapping_that_is_given_whole_replaces_what_overrides_before_it_set() -> None:
    overrides = ["optimizer.kind=sgd", "optimizer={kind: adamw, lr: 1}"]
    assert apply(read_bytes(OF_KINDS, "r.yaml"), overrides).value["optimizer"] == {"kind": "adamw", "lr": 1}


def test_places(document: Document) -> None:
    after = apply(document, ["optimizer={lr: 1, betas: [0, 1]}", "data.source.path=x", "tasks.shoe.kind=z"])
    new: list[KeyPath] = [("optimizer",), *(("optimizer", key) for key in ("lr", "betas"))]
    new += [
        ("optimizer", "betas", 0),
        ("optimizer", "betas", 1),
        ("tasks", "shoe"),
        ("tasks", "shoe", "kind"),
    ]
    new += [("data",), ("data", "source"), ("data", "source", "path")]
    assert {path for path, mark in after.marks.items() if mark.value == COMMAND_LINE} == set(new)
    assert after.marks["data",] == Mark(COMMAND_LINE, COMMAND_LINE)
    assert ("optimizer", "kind") not in after.marks
    assert after.marks["tasks",] == document.marks["tasks",]
    error = UserError(place_of(after.marks, ("optimizer", "lr")), "wrong", path=("optimizer", "lr"))
    assert str(error) == "command line: optimizer.lr: wrong"


def test_a_mapping_without_places_of_its_own_keeps_those_around_it() -> None:
    top = read_bytes(b"a: 1", "recipe").marks[()]
    after = apply(Document("recipe", {"optimizer": {"kind": "adam"}}, {(): top}), ["optimizer.lr=1"])
    assert set(after.marks) == {(), ("optimizer", "lr")}


FORM = "; write key.sub=value, or ~key.sub to remove"


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("optimizer.lr", f"command line: 'optimizer.lr' is not an override{FORM}"),
        ("", f"command line: '' is not an override{FORM}"),
        ("=1", f"command line: '=1' has no usable key{FORM}"),
        ("~", f"command line: '~' has no usable key{FORM}"),
        ("a..b=1", f"command line: 'a..b=1' has no usable key{FORM}"),
        ("a b=1", f"command line: 'a b=1' has no usable key{FORM}"),
        ("~a=1", f"command line: '~a=1' has no usable key{FORM}"),
        ("a\x1b=1", rf"command line: 'a\x1b=1' has no usable key{FORM}"),
        ("k" * 201 + "=1", f"command line: '{'k' * 35}...' has no usable key{FORM}"),
        ("a." * 32 + "a=1", f"command line: '{'a.' * 17}a...' is nested deeper than 32"),
        ("x" * 300, f"command line: '{'x' * 35}...' is not an override{FORM}"),
        ("optimizer.lr=", "command line: optimizer.lr: the value is missing; write null for none, or ''"),
        ("optimizer.lr=017", "command line: optimizer.lr: the leading zero of '017' is ambiguous; write 17"),
        ("optimizer.lr=[1", "command line: optimizer.lr: expected ',' or ']', but got '<stream end>'"),
        ("optimizer.lr=!!python/name:os.system", "command line: optimizer.lr: tags (tag:yaml.org"),
        ("optimizer={a: 1, a: 2}", "command line: optimizer: key 'a' is given twice"),
        ("name.x=1", "command line: name: is 'x', which has no key 'x'"),
        ("model.backbone.stages.3.size=1", "command line: model.backbone.stages: has items 0 to 2, not '3'"),
        (
            "model.backbone.stages.-1.size=1",
            "command line: model.backbone.stages: has items 0 to 2, not '-1'",
        ),
        (
            "model.backbone.stages.conv1=1",
            "command line: model.backbone.stages: has items 0 to 2, not 'conv1'",
        ),
        ("model.backbone.stages.२=1", "command line: model.backbone.stages: has items 0 to 2, not '२'"),
        (
            f"model.backbone.stages.{'9' * 150}=1",
            "command line: model.backbone.stages: has items 0 to 2, not",
        ),
        ("model.sharing.after.0=x", "command line: model.sharing.after: has no items, not '0'"),
        ("~model.backbone.stages.3", "command line: model.backbone.stages: has items 0 to 2, not '3'"),
        (
            "~model.sharng",
            "command line: there is no 'model.sharng' to remove (did you mean 'sharing'?)",
        ),
        ("~modl.sharing", "command line: there is no 'modl' to remove (did you mean 'model'?)"),
        ("~nothing.like.it", "command line: there is no 'nothing' to remove"),
        ("~note.x", "command line: there is no 'note.x' to remove"),
        ("~name.x", "command line: there is no 'name.x' to remove"),
    ],
)
def test_a_bad_override(document: Document, override: str, text: str) -> None:
    (only,) = faults(document, override)
    assert only.startswith(text)


def test_all_bad_overrides_are_named(document: Document) -> None:
    with pytest.raises(ManyErrors) as caught:
        apply(document, ["optimizer.lr=yes", "name=fine", "seed", "~sed"])
    assert [error.path for error in caught.value.errors] == [("optimizer", "lr"), (), ()]
    texts = str(caught.value).split("\n")
    assert [text.split(" ", 3)[2] for text in texts] == ["optimizer.lr:", "'seed'", "there"]
