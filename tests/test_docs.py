"""What docs/ says is so: every code block runs, every link leads somewhere, code from examples/ is the code there.

Each page has a folder of its own, in which its blocks run in order:
- yaml with `schema_version` is a recipe: it is written to <name>.yaml, loaded and built without data;
- other yaml is a fragment: it is merged over the recipe before it on the page, or over `SMALL`;
- python that equals a file of examples/ is written there; any other is run, in one namespace per page;
- console and bash: the lines that begin with `mtl ` (or `$ mtl `) are run and must exit with 0;
- text and toml are for reading.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mtl.errors import UserError
from mtl.experiment.trial import build_and_try
from mtl.recipe.load import load_recipe
from tests.support import recipes
from tests.support.assertions import Capture, called, plugins_undone
from tests.support.optional import needs_timm
from tests.support.recipes import linear

ROOT = Path(__file__).parents[1]
PAGES = {path.stem: path for path in sorted((ROOT / "docs").glob("*.md"))}
EXAMPLES = {
    path.read_text(encoding="utf-8").strip(): path
    for path in sorted((ROOT / "examples").rglob("*"))
    if path.suffix in (".py", ".yaml", ".toml")
}
LANGUAGES = {"yaml", "python", "console", "bash", "text", "toml"}
SMALL = recipes.text(model__backbone__stages=linear(4, 4))


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, text) of each fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    """The lines that call mtl; one that ends in a backslash goes on in the next."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.removeprefix("$ ").startswith("mtl ")]


class Page:
    """A page's folder and what its blocks left behind."""

    def __init__(self, folder: Path, capsys: Capture) -> None:
        self.folder, self.capsys = folder, capsys
        self.names: dict[str, Any] = {"__name__": "page"}
        self.base = self.folder / "small.yaml"
        self.base.write_text(SMALL, encoding="utf-8")

    def run(self, language: str, text: str) -> None:
        example = EXAMPLES.get(text.strip())
        if example is not None:
            (self.folder / example.name).write_text(text, encoding="utf-8")
        elif language == "yaml":
            self.recipe(text) if "schema_version" in text else self.fragment(text)
        elif language == "python":
            exec(compile(text, "page.py", "exec"), self.names)
        elif language in ("console", "bash"):
            for command in commands(text):
                done = called(self.capsys, *shlex.split(command, comments=True)[1:])
                assert done.returncode == 0, f"{command}\n{done.stderr}"

    def recipe(self, text: str) -> None:
        (name,) = re.findall(r"^name: (\S+)", text, flags=re.MULTILINE)
        path = self.folder / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        build_and_try(load_recipe(path))
        self.base = path

    def fragment(self, text: str) -> None:
        """Over the last recipe of the page; a fragment with tasks of its own needs no others."""
        path = self.folder / "fragment.yaml"
        head = f"schema_version: 1\nname: fragment\nbase: {self.base.name}\n"
        path.write_text(head + text, encoding="utf-8")
        try:
            load_recipe(path)
        except UserError as error:
            raise AssertionError(f"{error}\n{text}") from error


@pytest.fixture
def page(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    monkeypatch.chdir(tmp_path)
    with plugins_undone():
        yield Page(tmp_path, capsys)


def test_the_pages() -> None:
    assert set(PAGES) == {
        *("recipe", "data", "tasks", "missing_labels", "sharing", "weighting", "comparing", "from_libmtl"),
        *("plugins", "resuming", "reliability", "trackers", "reports", "exporting", "distributed"),
        *("clusters", "scaling", "tuning", "backbones"),
    }


NEEDS = {"backbones": needs_timm}


@pytest.mark.parametrize("name", [pytest.param(name, marks=NEEDS.get(name, ())) for name in PAGES])
def test_every_block_runs(name: str, page: Page) -> None:
    found = blocks(PAGES[name].read_text(encoding="utf-8"))
    assert len(found) >= 3
    assert {language for language, _ in found} <= LANGUAGES
    assert {"yaml", "console"} <= {language for language, _ in found}
    for language, text in found:
        page.run(language, text)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("yaml", "schema_version: 1\nname: it\n"),
        ("yaml", "optimizer: {lr: -1}\n"),
        ("yaml", "optimiser: {lr: 1}\n"),
        ("python", "assert False"),
        ("console", "mtl validate nosuch.yaml"),
        ("bash", "# first\n$ mtl validate \\\n    nosuch.yaml\n"),
    ],
)
def test_a_block_that_is_wrong_is_found(language: str, text: str, page: Page) -> None:
    with pytest.raises((AssertionError, UserError)):
        page.run(language, text)


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def broken_links(path: Path) -> list[str]:
    """Relative links of a page that lead nowhere: no such file, or no such heading in it."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        if not target.exists():
            broken.append(link)
        elif anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
            if anchor not in map(slug, headings):
                broken.append(link)
    return broken


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES.values()], ids=lambda path: path.stem)
def test_every_link_leads_somewhere(path: Path) -> None:
    assert broken_links(path) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(
        "# One `key`\n[a](nosuch.md) [b](page.md#two) [c](#one-key) [d](https://x.org) [e](page.md)\n",
        encoding="utf-8",
    )
    assert broken_links(path) == ["nosuch.md", "page.md#two"]


# -- plugins.md: the code is that of examples/ ---------------------------------------------------------------


def test_the_plugins_page_shows_the_examples_as_they_are() -> None:
    """Every file of examples/plugins and of the package is there, whole."""
    shown = {text.strip() for _, text in blocks(PAGES["plugins"].read_text(encoding="utf-8"))}
    wanted = {text: path for text, path in EXAMPLES.items() if path.parent.name not in ("examples", "serve")}
    assert len(wanted) >= 8
    assert [path.name for text, path in wanted.items() if text not in shown] == []
