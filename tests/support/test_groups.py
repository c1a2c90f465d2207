"""Tests of one group run in one process, so that what they have in common is made once."""

import os

import pytest


@pytest.mark.xdist_group("groups")
def test_the_scheduler_sees_the_group(request: pytest.FixtureRequest) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("all tests run in one process")
    assert request.node.nodeid.endswith("@groups")
