"""Every key of a recipe as Markdown tables, from the schema that checks recipes.

`python -m docs.tools.key_table` writes those of docs/recipe.md anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docs.tools.markdown import cell, marks, renewed, sentence
from mtl.console import counted
from mtl.recipe.keys.recipe import Recipe
from mtl.recipe.specs import FAMILIES

Schema = Mapping[str, Any]

PAGE = Path(__file__).parents[1] / "recipe.md"
BEGIN, END = MARKS = marks("key_table")
COLUMNS = ("key", "type", "default", "bounds", "meaning")
PLURALS = {"sharing": "sharing schemes", "schedule": "schedules"}


@dataclass
class Section:
    """One table: the keys of a part of a recipe, or of one member of a family.

    Args:
        title: the heading.
        level: how deep the heading stands.
        text: what stands above the table.
        rows: one per key.
    """

    title: str
    level: int
    text: str
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def markdown(self) -> str:
        parts = [f"{'#' * self.level} {self.title}", self.text]
        if self.rows:
            lines = [COLUMNS, ("---",) * len(COLUMNS), *self.rows]
            parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in lines))
        return "\n\n".join(part for part in parts if part)


def key_table() -> str:
    """The tables of all keys; members that plug-ins registered are there too."""
    return "\n\n".join(section.markdown() for section in _Walk().sections()) + "\n"


def fresh(page: str) -> str:
    """A page with the tables of today between its two marks."""
    return renewed(page, MARKS, key_table())


class _Walk:
    """Goes through the schema once; what is met on the way becomes a section of its own."""

    def __init__(self) -> None:
        self.root = Recipe.model_json_schema()
        self.definitions: dict[str, Schema] = self.root.pop("$defs")
        self.parts: list[tuple[str, Schema]] = [("", self.root)]
        self.place_of: dict[str, str] = {}
        self.families: dict[str, tuple[str, list[Schema]]] = {}

    def sections(self) -> list[Section]:
        """The recipe and its parts first, then each family with its members."""
        parts = list(self._drained())
        members: list[Section] = []
        done: set[str] = set()
        while family := next((name for name in self.families if name not in done), None):
            done.add(family)
            members += self._family(family)
            members += self._drained()
        return [*parts, *members]

    def _drained(self) -> Iterator[Section]:
        while self.parts:
            path, schema = self.parts.pop(0)
            title = f"`{path}`" if path else "The recipe"
            yield Section(title, 3, _prose(schema), list(self._rows(path, schema, {})))

    def _family(self, family: str) -> Iterator[Section]:
        place, variants = self.families[family]
        names = ", ".join(f"`{_kind(variant)}`" for variant in variants)
        common = self._common(family)
        title = PLURALS.get(family, f"{family}s").capitalize()
        head = Section(title, 3, f"At `{place}`. `kind` is one of {names}.")
        if common:
            head.text += " Keys of every one of them:"
            needed = [key for key in common if all(key in v["required"] for v in variants)]
            head.rows = list(self._rows(place, {"properties": common, "required": needed}, {}))
        yield head
        for variant in variants:
            kind = _kind(variant)
            reference = cell(variant["properties"]["kind"]["description"])
            text = f"{_prose(variant)}{_equation(family, kind)} Reference: {reference}."
            text += _metrics(kind) if family == "task" else ""
            words = _words_of(family, kind)
            yield Section(f"{family} `{kind}`", 4, text, list(self._rows(place, variant, common, words)))

    def _common(self, family: str) -> dict[str, Schema]:
        """The keys that all members have, as most of them have them."""
        variants = self.families[family][1]
        keys = set.intersection(*(set(v["properties"]) for v in variants)) - {"kind"}
        common: dict[str, Schema] = {}
        for key in (k for k in variants[0]["properties"] if k in keys):
            texts = [json.dumps(v["properties"][key], sort_keys=True) for v in variants]
            most = max(dict.fromkeys(texts), key=texts.count)
            if len(variants) > 1 and texts.count(most) > len(variants) / 2:
                common[key] = json.loads(most)
        return common

    def _rows(
        self, path: str, schema: Schema, common: Mapping[str, Schema], words: Mapping[str, str] | None = None
    ) -> Iterator[tuple[str, ...]]:
        required = schema.get("required", ())
        for key, value in schema["properties"].items():
            own = f"{path}.{key}" if path else key
            if key == "kind" and "const" in value:
                continue
            if key in common and json.dumps(value, sort_keys=True) == json.dumps(common[key], sort_keys=True):
                continue
            yield (
                f"`{key}`",
                self._type(own, value),
                "required" if key in required else default_of(value),
                "; ".join(dict.fromkeys(bounds(value))),
                cell(value.get("description") or (words or {}).get(key) or self._about(value)),
            )

    def _about(self, schema: Schema) -> str:
        """What a part or a family says of itself, for a key without words of its own."""
        options = [schema, *schema.get("allOf", ()), *schema.get("anyOf", ())]
        for option in options:
            if "$ref" in option:
                text = self.definitions[option["$ref"].removeprefix("#/$defs/")].get("description", "")
                return sentence(text)
            family = _family_of(option)
            if family:
                return sentence(FAMILIES[family].base.__doc__ or "")
        return ""

    def _type(self, path: str, schema: Schema) -> str:
        """The type in words; parts and families that it names are remembered."""
        if "$ref" in schema:
            return self._part(path, schema["$ref"].removeprefix("#/$defs/"))
        if "allOf" in schema:
            return self._type(path, schema["allOf"][0])
        if "oneOf" in schema and all("kind" in s.get("properties", {}) for s in schema["oneOf"]):
            return self._member(path, schema["oneOf"])
        for options in (schema.get("anyOf"), schema.get("oneOf")):
            if options:
                types = [self._type(path, option) for option in options if option.get("type") != "null"]
                return " or ".join(dict.fromkeys(types))
        if "const" in schema or "enum" in schema:
            return ", ".join(f"`{plain(v)}`" for v in schema.get("enum", [schema.get("const")]))
        if schema.get("type") == "array":
            if "prefixItems" in schema:
                return f"list of {', '.join(self._type(path, part) for part in schema['prefixItems'])}"
            return f"list of {self._type(path + '[]', schema.get('items', {}))}"
        if schema.get("type") == "object":
            inner = next(
                iter(schema.get("patternProperties", {}).values()), schema.get("additionalProperties")
            )
            of = self._type(f"{path}.<name>", inner) if isinstance(inner, Mapping) and inner else "any keys"
            return f"name -> {of}" if of != "any keys" else "mapping"
        names = {"integer": "integer", "number": "number", "boolean": "`true`, `false`", "string": "text"}
        return names.get(schema.get("type", ""), "any value")

    def _part(self, path: str, name: str) -> str:
        if name not in self.place_of:
            self.place_of[name] = path
            self.parts.append((path, self.definitions[name]))
        return f"mapping, see `{self.place_of[name]}`"

    def _member(self, path: str, variants: list[Schema]) -> str:
        family = _family_of({"oneOf": variants}) or path.split(".")[-1].removesuffix("[]").removesuffix("s")
        self.families.setdefault(family, (path, variants))
        return f"an {family}" if family[0] in "aeio" else f"a {family}"


def _family_of(schema: Schema) -> str:
    """The family whose members the schema offers; nothing if it is another choice."""
    kinds = {s.get("properties", {}).get("kind", {}).get("const") for s in schema.get("oneOf", ())}
    return next((name for name, registry in FAMILIES.items() if set(registry.names()) == kinds), "")


def _words_of(family: str, kind: str) -> dict[str, str]:
    """Key -> its meaning as a class above says it, for keys to which a member only gives another default."""
    above = FAMILIES[family][kind].__mro__ if family in FAMILIES else ()
    words: dict[str, str] = {}
    for member in above:
        for key, field_ in getattr(member, "model_fields", {}).items():
            if field_.description:
                words.setdefault(key, field_.description)
    return words


def _equation(family: str, kind: str) -> str:
    """The equation of a sharing scheme."""
    equation = getattr(FAMILIES[family][kind], "equation", "") if family in FAMILIES else ""
    return f" `{equation}`." if equation else ""


def _metrics(kind: str) -> str:
    """The metrics of a kind of task, those first that are measured unless the recipe names others."""
    member = FAMILIES["task"][kind]
    default = ", ".join(f"`{name}`" for name in member.default_metrics)
    others = ", ".join(f"`{name}`" for name in member.known_metrics if name not in member.default_metrics)
    return f" Metrics: {default}; on request also {others}." if others else f" Metrics: {default}."


def _kind(variant: Schema) -> str:
    return str(variant["properties"]["kind"]["const"])


def _prose(schema: Schema) -> str:
    """A docstring as one paragraph."""
    return cell(schema.get("description", ""))


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
        yield counted(low, "entry", "entries")
    elif low or most:
        yield (
            f"{low or 0} to {number(most)} entries"
            if most
            else f"at least {counted(low or 0, 'entry', 'entries')}"
        )
    if "maxLength" in schema:
        yield f"up to {counted(schema['maxLength'], 'character')}"
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
    """A bound, which is exact: 10,000 rather than 10000, and 2^32 rather than 4294967296."""
    whole = int(value)
    if whole == value and whole >= 2**32 and whole & (whole - 1) == 0:
        return f"2^{whole.bit_length() - 1}"
    if whole == value and abs(whole) < 10**9:
        return f"{whole:,}"
    return re.sub(r"e\+?(-?)0*", r"e\1", f"{value:g}")


if __name__ == "__main__":
    PAGE.write_text(fresh(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
