"""The shipped tasks of Fashion-MNIST."""

import numpy as np

from mtl.data.types import Array, Labels
from mtl.recipe.load import load_recipe
from mtl.recipe.specs import SOURCES, TASKS, TaskSpec

HEADER = SOURCES["fashion_mnist"](sample=True).header()


def encoded(spec: TaskSpec, raw: Array) -> Array:
    labels = Labels(raw, np.ones(len(raw), bool), HEADER.labels["label"])
    return spec.encode(labels, spec.outputs(HEADER) or ())


def test_garments_are_the_ten_of_the_source() -> None:
    spec = TASKS["fashion.garment"]()
    assert spec.outputs(HEADER) == HEADER.labels["label"]
    raw = np.arange(10)
    assert encoded(spec, raw).tolist() == raw.tolist()


def test_the_audience_is_a_function_of_the_garment() -> None:
    spec = TASKS["fashion.audience"]()
    outputs = spec.outputs(HEADER) or ()
    codes = encoded(spec, np.arange(10))
    names = dict(zip(HEADER.labels["label"] or (), (outputs[code] for code in codes), strict=True))
    assert names == {
        "T-shirt/top": "Other",
        "Trouser": "Other",
        "Pullover": "Other",
        "Dress": "For Women",
        "Coat": "Other",
        "Sandal": "Shoes",
        "Shirt": "For Women",
        "Sneaker": "Shoes",
        "Bag": "For Women",
        "Ankle boot": "Shoes",
    }


def test_the_recipe_that_writes_the_audience_out_means_the_registered_one() -> None:
    without = {"kind", "derived_from"}  # the registered task knows no other task
    written = load_recipe("fashion_stitch").tasks["audience"].model_dump(exclude=without)
    assert written == TASKS["fashion.audience"]().model_dump(exclude=without)
