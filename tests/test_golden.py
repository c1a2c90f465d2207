"""One number per registered member, so that a change of meaning cannot pass unseen.

Fixed tensors are sines of whole numbers: no generator has a part in them. To add a member, run its test and
copy the number that it prints after checking it by hand.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mtl.backbones.layers import STAGES, Layers
from mtl.build import build
from mtl.data.types import Header
from mtl.recipe.load import load_recipe
from mtl.recipe.specs import FAMILIES
from tests.support import task_samples

B, T = 4, 2
TABLES = Path(__file__).parent / "tables"


def waves(*shape: int, phase: float = 0.0) -> Tensor:
    """sin(0.7 i + phase) for i = 0, 1, ..."""
    n = int(np.prod(shape))
    return torch.sin(0.7 * torch.arange(n, dtype=torch.float64) + phase).float().view(shape)


def weighted(y: Tensor) -> float:
    """A sum in which every entry has a weight of its own."""
    return (
        (y.detach().double().flatten() * torch.cos(torch.arange(y.numel(), dtype=torch.float64))).sum().item()
    )


def source_number(name: str) -> list[float]:
    """Weighted sum of the first rows' inputs, and sum of all labels."""
    options: dict[str, Any] = {
        "fashion_mnist": {"sample": True},
        "synthetic": {"rows": 50, "test_rows": 10},
        "face_embeddings": {},
        "table": {"path": str(TABLES / "four.csv"), "inputs": {"numeric": ("x",), "categorical": ("city",)}},
        "npz": {"path": str(TABLES / "four.npz")},
        "overlaid_garments": {"sample": True},
    }
    columns = FAMILIES["source"][name](**options[name]).columns(0)
    inputs = torch.from_numpy(columns.inputs[:4].astype(np.float64))
    return [weighted(inputs), float(sum(values.sum() for values in columns.labels.values()))]


TEN = Header(input_shape=(1,), labels={"label": tuple("abcdefghij")})


def task_number(name: str) -> list[float]:
    """The mean losses of two tasks on fixed logits."""
    options: dict[str, Any] = {"multiclass": {"label_smoothing": 0.1}, "binary": {"positive_weight": 3.0}}
    spec = task_samples.example(name, **options.get(name, {}))
    target, outputs = task_samples.encoded(spec)[[3, 0, 1, 2]], task_samples.outputs_of(spec)
    present_BT = torch.tensor([[True, True], [True, False], [True, True], [False, True]])
    logits_BTO = 2 * waves(B, T, spec.n_outputs(outputs))
    target_BT = torch.from_numpy(np.stack([target] * T, axis=1))
    module = task_samples.module_of(spec, spec.n_outputs(outputs), *[spec.constants(target, outputs)] * T)
    return task_samples.mean_loss(module, logits_BTO, target_BT, present_BT.float()).tolist()


def network_number(**model: Any) -> list[float]:
    """Weighted sum of the logits of two stitched towers in training mode."""
    recipe = load_recipe(
        {
            "schema_version": 1,
            "name": "golden",
            "data": {"source": {"kind": "synthetic"}},
            "tasks": {name: {"kind": "multiclass", "target": "label"} for name in ("one", "two")},
            "model": model,
            "optimizer": {"kind": "sgd", "lr": 0.1},
            "train": {"epochs": 1},
        }
    )
    header = Header(input_shape=(1, 6, 6), labels=TEN.labels)
    logits = build(recipe, header).model.train()(waves(B, 1, 6, 6))
    return [weighted(logits["one"]), weighted(logits["two"])]


LAYERS = {
    "kind": "layers",
    "stages": [
        {"name": "conv", "kind": "conv", "channels": 3, "kernel": 3},
        {"name": "fc", "kind": "linear", "features": 5},
    ],
}


def backbone_number(name: str) -> list[float]:
    return network_number(backbone={"layers": LAYERS}[name])


def sharing_number(name: str) -> list[float]:
    sites = {"after": ["conv", "fc"]}
    options = {"none": {}, "cross_stitch": sites, "mtan": sites, "mmoe": {"experts": 3}}[name]
    return network_number(backbone=LAYERS, sharing={"kind": name, **options})


def weighting_number(name: str) -> list[float]:
    """The objective of three losses; or the combination of three gradients of which two conflict, and its weights."""
    weighting = FAMILIES["weighting"][name]().build((1.0, 0.5, 2.0), (False, False, True))
    if weighting.needs == "gradients":
        jacobian = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.5, 1.0]])
        gradient, weights = weighting.combine(jacobian, torch.ones(3), torch.ones(3, dtype=torch.bool))
        return [*gradient.tolist(), *weights.tolist()]
    return [weighting(torch.tensor([1.0, 2.0, 4.0]), torch.ones(3, dtype=torch.bool)).item()]


def optimizer_number(name: str) -> list[float]:
    """A decayed weight and a scale after two steps on (w - s)^2 / 2 from 1 and -1."""
    options = {"adam": {"l2": 0.1}, "adamw": {"weight_decay": 0.1}, "sgd": {"l2": 0.1, "momentum": 0.9}}
    weight, scale = (nn.Parameter(torch.tensor([value], dtype=torch.float64)) for value in (1.0, -1.0))
    groups = [
        {"params": [weight], "decay": True, "lr": 0.1},
        {"params": [scale], "decay": False, "lr": 0.2},
    ]
    optimizer = FAMILIES["optimizer"][name](lr=0.1, **options[name]).build(groups)
    for _ in range(2):
        optimizer.zero_grad()
        ((weight - scale) ** 2 / 2).sum().backward()
        optimizer.step()
    return [weight.item(), scale.item()]


def schedule_number(name: str) -> list[float]:
    """The factor at the first, a middle and the last step of ten."""
    options = {"constant": {"warmup_steps": 4}, "cosine": {"min_factor": 0.1}}.get(name, {})
    spec = FAMILIES["schedule"][name](**options)
    return [spec.factor(step, 10) for step in (0, 6, 9)]


def stage_number(name: str) -> list[float]:
    """Weighted sum of a stage of two towers in training mode."""
    options = {
        "conv": {"channels": 2, "kernel": 3, "stride": 2},
        "linear": {"features": 3},
        "max_pool": {"size": 2},
        "avg_pool": {"size": 2},
        "global_avg_pool": {},
        "dropout": {"p": 0.0},
    }[name]
    spec = STAGES[name](name="it", **options)
    module, _ = spec.build(Layers(stages=(spec,), activation="tanh"), 2, (2, 4, 4), first=False)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(waves(*parameter.shape))
    return [weighted(module(waves(B, 4, 4, 4)))]


NUMBERS = {
    "source": source_number,
    "task": task_number,
    "backbone": backbone_number,
    "sharing": sharing_number,
    "weighting": weighting_number,
    "optimizer": optimizer_number,
    "schedule": schedule_number,
    "stage": stage_number,
}
REGISTRIES = {**FAMILIES, "stage": STAGES}
del REGISTRIES["tracker"]  # a tracker computes nothing

GOLDEN: dict[str, dict[str, list[float]]] = {
    "source": {
        "face_embeddings": [0.083426377, 4000.0],
        "fashion_mnist": [-1726.759, 1800.0],
        "npz": [6.5801051, 3.0],
        "overlaid_garments": [639.42835, 1800.0],
        "synthetic": [15.295536, 61.0],
        "table": [2.2189628, 0.0],
    },
    "task": {
        "binary": [1.3447447, 3.7109592],
        "faces.gender": [0.66662502, 0.77561539],
        "faces.young": [1.5558596, 0.99640304],
        "multilabel": [0.64942837, 1.1037976],
        "ordinal": [3.9677179, 6.2176032],
        "regression": [3.1256132, 4.5618253],
        "fashion.audience": [0.76197886, 1.0087212],
        "fashion.garment": [1.7598886, 2.6432846],
        "multiclass": [1.8918419, 2.6924522],
    },
    "backbone": {"layers": [1.2794912, -0.27896790]},
    "sharing": {
        "cross_stitch": [1.2363470, -0.12851197],
        "mmoe": [0.96947819, -0.32427144],
        "mtan": [0.10780639, -0.41159739],
        "none": [1.2794912, -0.27896790],
    },
    "weighting": {
        "sum": [10.0],
        "uncertainty": [5.0],
        # (0.5, 2, 2) with weights 1.5, 1 and 2, but for what keeps the solver's matrix definite
        "upgrad": [0.49989378, 1.9998938, 2.0, 1.4997876, 0.99989378, 2.0],
    },
    "optimizer": {
        "adam": [0.8007302, -0.60149689],
        "adamw": [0.7818875, -0.60157501],
        "sgd": [0.4541, 0.038],
    },
    "schedule": {
        "constant": [0.25, 1.0, 1.0],
        "cosine": [1.0, 0.41094235, 0.12202457],
        "one_cycle": [0.04, 0.38874198, 4e-06],
        "step": [1.0, 0.1, 0.01],
    },
    "stage": {
        "avg_pool": [0.056245302],
        "conv": [-0.18116377],
        "dropout": [-1.1392256],
        "global_avg_pool": [-0.039745722],
        "linear": [-1.4952047],
        "max_pool": [1.5653203],
    },
}


def test_every_family_has_numbers() -> None:
    assert set(GOLDEN) == set(NUMBERS) == set(REGISTRIES)


@pytest.mark.parametrize("family", NUMBERS)
def test_every_number_has_its_member(family: str) -> None:
    assert set(GOLDEN[family]) <= set(REGISTRIES[family].names())


@pytest.mark.parametrize(("family", "name"), [(f, name) for f, numbers in GOLDEN.items() for name in numbers])
def test_a_member_gives_its_number(family: str, name: str) -> None:
    assert NUMBERS[family](name) == pytest.approx(
        GOLDEN[family][name], rel=5e-5, abs=5e-6
    )  # processors differ by 1e-5
