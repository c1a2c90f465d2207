"""How types, bounds and defaults of a JSON schema are written in a Markdown table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]


def sentence(text: str) -> str:
    """The first sentence, as the other meanings are written."""
    first = " ".join(text.split()).partition(". ")[0].rstrip(".")
    return first[:1].lower() + first[1:]


def cell(text: str) -> str:
    """Text as it may stand in a table: on one line, nothing in it taken for Markdown but code."""
    pieces = " ".join(str(text).split()).replace("|", "\\|").split("`")
    for i in range(0, len(pieces), 2):
        pieces[i] = pieces[i].replace("*", "\\*").replace("_", "\\_").replace("<", "&lt;")
    return "`".join(pieces)


def plain(value: Any) -> str:
    """A value as it is written in a recipe."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{k}: {plain(v)}' for k, v in value.items())}}}"
    if isinstance(value, str):
        return value.replace("|", "\\|") or '""'
    return json.dumps(value)


def default_of(schema: Schema) -> str:
    """The default as it is written in a recipe; nothing where there is none."""
    value = schema.get("default")
    return "" if value is None else f"`{plain(value)}`"


def bounds(schema: Schema) -> Iterator[str]:
    """What a value must keep to, of each of the types that it may have."""
    for key, sign in (
        ("minimum", ">="),
        ("exclusiveMinimum", ">"),
        ("maximum", "<="),
        ("exclusiveMaximum", "<"),
    ):
        if key in schema:
            yield f"{sign} {number(schema[key])}"
    low, most = (schema.get(f"{end}Items", schema.get(f"{end}Properties")) for end in ("min", "max"))
    if low and low == most:
        yield f"{low} entries"
    elif low or most:
        yield f"{low or 0} to {number(most)} entries" if most else f"at least {low} entries"
    if "maxLength" in schema:
        yield f"up to {schema['maxLength']} characters"
    if "pattern" in schema:
        yield f"matches `{plain(schema['pattern'])}`"
    for option in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        if "properties" not in option:
            yield from bounds(option)
    if isinstance(schema.get("items"), Mapping) and "oneOf" not in schema["items"]:
        yield from (f"each {bound.removeprefix('each ')}" for bound in bounds(schema["items"]))
    for value in schema.get("patternProperties", {}).values():
        if "properties" not in value and "oneOf" not in value:
            yield from (f"each {bound.removeprefix('each ')}" for bound in bounds(value))


def number(value: float) -> str:
    """10 000 rather than 10000, and 2^32 rather than 4294967296."""
    whole = int(value)
    if whole == value and whole >= 2**32 and whole & (whole - 1) == 0:
        return f"2^{whole.bit_length() - 1}"
    return f"{whole:,}".replace(",", " ") if whole == value and abs(whole) < 10**9 else f"{value:g}"
