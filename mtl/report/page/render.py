"""Templates and context become one HTML file, which a browser shows without any network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mtl import __version__
from mtl.console import counted, duration, number
from mtl.report.charts.intervals import key_of
from mtl.report.charts.marks import amount, brief, spread

STYLE, SCRIPT = "style.css", "page.js"


@cache
def _environment() -> Environment:
    """The templates: every value is escaped, and a name that the context lacks is an error."""
    environment = Environment(
        loader=PackageLoader("mtl.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "amount": amount,
        "brief": brief,
        "spread": spread,
        "counted": counted,
        "duration": duration,
    }
    environment.globals |= {"key_of": key_of}
    return environment


@cache
def _asset(name: str) -> str:
    return (files("mtl.report") / "templates" / name).read_text(encoding="utf-8").strip()


def _digest(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def policy() -> str:
    """The content security policy of a page: its own style and script by their digests, and no address at all."""
    return (
        f"default-src 'none'; style-src {_digest(_asset(STYLE))}; script-src {_digest(_asset(SCRIPT))}; "
        "base-uri 'none'; form-action 'none'"
    )


def render(template: str, context: Mapping[str, Any]) -> bytes:
    """A page as UTF-8.

    Args:
        template: its file in mtl/report/templates.
        context: the values that it shows; all are text or numbers, never markup.
    """
    own = {
        "policy": policy(),
        "style": Markup(_asset(STYLE)),
        "script": Markup(_asset(SCRIPT)),
        "version": __version__,
    }
    text = _environment().get_template(template).render(**own, **context)
    return text.encode("utf-8", "backslashreplace")
