"""Dates and times in ISO form as numbers."""

from __future__ import annotations

from datetime import UTC, datetime


def iso_seconds(text: str) -> float:
    """Seconds since 1970 of a date or time in ISO form, UTC unless it names a zone.

    Raises:
        ValueError: it is none.
    """
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
