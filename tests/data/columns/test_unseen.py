from __future__ import annotations

import pyarrow as pa

from mtl.data.columns.inputs import KnownCodes
from mtl.data.columns.unseen import notices, trackers


def test_values_that_training_lacked_are_counted_over_batches() -> None:
    unseen = trackers({"c": ("1", "2"), "d": ("a",)})
    codes = KnownCodes(("1", "2"), unseen["c"])
    assert codes.add(pa.array(["1.0", "7", None, "7"])).tolist() == [0, -1, -1, -1]
    assert codes.add(pa.array(["2", "8"])).tolist() == [1, -1]
    assert (unseen["c"].n_values, unseen["c"].n_unseen, unseen["c"].example) == (5, 3, "7")
    assert notices(unseen) == [
        "column 'c': 3 of 5 values, such as '7', were not seen in training, which had '1'; they count as unknown"
    ]


def test_half_of_the_values_is_not_told() -> None:
    unseen = trackers({"c": ("1", "2")})
    KnownCodes(("1", "2"), unseen["c"]).add(pa.array(["1", "9"]))
    assert unseen["c"].n_unseen == 1
    assert notices(unseen) == []
