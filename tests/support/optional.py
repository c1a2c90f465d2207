"""Packages that only some of the tests need."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

needs_timm = pytest.mark.skipif(
    find_spec("timm") is None and "MTL_REQUIRE_TIMM" not in os.environ,
    reason="timm is not installed: make test installs it, or pip install -c constraints.txt --no-deps timm",
)
"""Marks a test of the backbones of timm; with MTL_REQUIRE_TIMM it fails without timm."""
