"""Reads dates and times in ISO form as numbers."""

from __future__ import annotations

from datetime import UTC, datetime


def iso_seconds(text: str) -> float:
    """Seconds since 1970 of a date or time in ISO form, in UTC unless the text names a zone.

    Raises:
        ValueError: the text is no date or time in ISO form.
    """
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
