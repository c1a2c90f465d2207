"""Tests of pages are skipped with a reason where there is no browser, and fail where one must be there."""

import pytest

from tests.support.chromium import REQUIRED, require_chromium


def test_without_a_browser_the_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv(REQUIRED, raising=False)
    with pytest.raises(
        pytest.skip.Exception, match="NOT TESTED: pages in a browser; chromium is not installed"
    ):
        require_chromium()
    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(pytest.fail.Exception, match=f"chromium is not installed .* and {REQUIRED} is set"):
        require_chromium()
