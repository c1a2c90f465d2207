"""Addresses of data: which ones are taken, and that no message about the others holds a part of them."""

from __future__ import annotations

import pytest

from mtl.data.files.remote.address import fault_of, is_address, without_protocol
from mtl.errors import UserError
from mtl.recipe.load import load_recipe
from tests.support import recipes

SECRET = "s3cr3tk3y"
KNOWN = "mtl reads s3://, gs://, hf:// and paths on disk"


@pytest.mark.parametrize(
    "path", ["rows.csv", "/d/rows.csv", "d/s3:/b/x", "C:\\rows", "a b://c", "://x", "rows/*.parquet"]
)
def test_paths_on_disk(path: str) -> None:
    assert not is_address(path)


@pytest.mark.parametrize(
    ("address", "rest"),
    [
        ("s3://bucket/rows.parquet", "bucket/rows.parquet"),
        ("S3://bucket/rows/", "bucket/rows"),
        ("s3://bucket/rows/year=202?/part-?.parquet", "bucket/rows/year=202?/part-?.parquet"),
        ("gs://bucket/a b.csv", "bucket/a b.csv"),
        ("hf://datasets/user/name@refs/x.parquet", "datasets/user/name@refs/x.parquet"),
        ("s3://bucket", "bucket"),
    ],
)
def test_addresses(address: str, rest: str) -> None:
    assert is_address(address)
    assert fault_of(address) is None
    assert without_protocol(address) == rest


REFUSED = [
    (f"s3://key:{SECRET}@bucket/x.csv", "the address holds credentials"),
    (f"s3://{SECRET}@bucket/x.csv", "the address holds credentials"),
    (f"s3://key:{SECRET[:4]}/{SECRET}@bucket/x.csv", "the address holds credentials"),
    (f"gs://key/{SECRET}@bucket/x.csv", "the address holds credentials"),
    (f"hf://user:{SECRET}/datasets/x.csv", "the address holds credentials"),
    (f"s3://bucket/x.csv?X-Amz-Signature={SECRET}", "the address has a query, which may hold credentials"),
    (f"https://host/x.csv?token={SECRET}", f"{KNOWN}, not 'https://'"),
    (f"simplecache::s3://{SECRET}/x.csv", f"{KNOWN}, not 'simplecache::s3://'"),
    (f"file:///{SECRET}.csv", f"{KNOWN}, not 'file://'"),
    ("s3://", "the address names no bucket and file"),
    ("s3://*/x.csv", "the address names no bucket and file"),
    ("s3://bucket/../other/x.csv", "the address names no bucket and file"),
    ("s3://bucket/x\x1b[2J.csv", "the address names no bucket and file"),
]


@pytest.mark.parametrize(("address", "text"), REFUSED)
def test_what_is_refused(address: str, text: str) -> None:
    fault = fault_of(address)
    assert fault is not None
    assert text in fault[0]
    assert SECRET not in " ".join(fault)


@pytest.mark.parametrize(("address", "text"), REFUSED)
@pytest.mark.parametrize("key", ["path", "test"])
def test_what_a_recipe_may_not_hold(key: str, address: str, text: str) -> None:
    source = {**recipes.table("t.csv", "x"), key: address}
    with pytest.raises(UserError) as caught:
        load_recipe(recipes.small(**recipes.around(source)))
    assert f"data.source.{key}: {text}" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_an_address_stays_as_it_is_and_a_pattern_gets_its_folder() -> None:
    source = recipes.table("s3://bucket/rows/*.parquet", "x", test="held/*.parquet")
    recipe = load_recipe(recipes.small(**recipes.around(source, split={})))
    assert recipe.data.source is not None
    found = recipe.data.source.model_dump()
    assert found["path"] == "s3://bucket/rows/*.parquet"
    assert found["test"].endswith("/held/*.parquet")
    assert found["test"].startswith("/")


def test_other_paths_take_no_address() -> None:
    source = {"kind": "fashion_mnist", "path": "s3://bucket/fashion"}
    with pytest.raises(
        UserError, match=r"data\.source\.path: an address is no path on disk, which this key takes"
    ):
        load_recipe(recipes.small(**recipes.around(source, split={})))
