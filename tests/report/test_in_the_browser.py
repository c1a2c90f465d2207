"""Pages in a real browser: no complaint, no request, a slider that moves, and no text that is cut or overlaps."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mtl.report.page.write import write_report
from tests.support.chromium import Browser, browser, require_chromium
from tests.support.comparisons import make_comparison
from tests.support.run_folders import add_links, add_resamples, make_run

pytestmark = pytest.mark.xdist_group("browser")  # one browser for all
NAMES = ["</script><script>window.broken = 1</script>", "x" * 200, "a & 'b' \"c\""]
WIDTHS = (1280, 360)
OUTSIDE = """
(() => {
  const width = document.documentElement.clientWidth;
  const shown = (e) => !e.closest('.scroll, pre, .hidden') && getComputedStyle(e).position !== 'absolute';
  const outside = [...document.querySelectorAll('main *, footer *')].filter(
    (e) => shown(e) && e.getBoundingClientRect().width > 0 && e.getBoundingClientRect().right > width + 1);
  return outside.map((e) => `${e.tagName} ${e.className.baseVal ?? e.className} ${e.textContent.slice(0, 40)}`);
})()
"""
"""What reaches beyond the window, but for tables that scroll on their own."""
OVERLAPS = """
(() => {
  const found = [];
  for (const svg of document.querySelectorAll('figure svg')) {
    const texts = [...svg.querySelectorAll('text:not([transform])')].filter((t) => t.textContent);
    const boxes = texts.map((t) => t.getBoundingClientRect());
    boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b, k) => {
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (wide > 2 && high > 5) found.push(`${texts[i].textContent} / ${texts[i + 1 + k].textContent}`);
    }));
  }
  return found;
})()
"""
"""Pairs of texts of a figure that lie on each other."""
FAINT = """
(() => {
  const light = (c) => {
    const [r, g, b] = c.match(/[0-9.]+/g).map(Number).map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const contrast = (c) => (Math.max(light(c), paper) + 0.05) / (Math.min(light(c), paper) + 0.05);
  const faint = new Set();
  const texts = 'svg text, p, li, h1, h2, h3, span, small, td, th, dt, dd, a, summary, figcaption';
  for (const e of document.querySelectorAll(texts)) {
    const style = getComputedStyle(e);
    const colour = e.tagName === 'text' ? style.fill : style.color;
    if (contrast(colour) < 4.5) faint.add(`${e.tagName} ${colour}`);
  }
  return [...faint];
})()
"""
"""Texts whose contrast with the page is below 4.5, the least that WCAG 2.1 asks of small text (1.4.3, level AA)."""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    require_chromium()
    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    usual = make_run(folder / "usual", {"shape": ["round", "square", "flat"], "size": ["small", "large"]})
    add_resamples(usual)
    add_links(usual)
    hostile = make_run(
        folder / "hostile", {name.replace("/", "|")[:150]: NAMES for name in NAMES}, name=NAMES[0]
    )
    many = make_run(folder / "many", {f"a task with the number {t}": ["a", "b", "c"] for t in range(40)})
    wide = make_run(folder / "wide", {"kind": [f"class {k}" for k in range(100)]}, rows=4000)
    compared = make_comparison(folder / "compared", looks=3)
    runs = {
        name: run.path
        for name, run in (("usual", usual), ("hostile", hostile), ("many", many), ("wide", wide))
    }
    return {name: write_report(path) for name, path in {**runs, "compared": compared}.items()}


NAMES_OF_PAGES = ("usual", "hostile", "many", "wide", "compared")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", NAMES_OF_PAGES)
def test_a_page_is_read_without_a_complaint(
    name: str, dark: bool, pages: dict[str, Path], tab: Browser
) -> None:
    tab.complaints.clear()
    tab.requests.clear()
    for width in WIDTHS:
        tab.open(pages[name], width, dark=dark)
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        assert tab.evaluate(OUTSIDE) == []
        tab.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        assert tab.evaluate(OUTSIDE) == []
        assert tab.evaluate(OVERLAPS) == []
        assert tab.evaluate(FAINT) == []
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(21, 23, 26)" if dark else "rgb(255, 255, 255)"
    )
    assert tab.complaints == []
    assert set(tab.requests) == {pages[name].as_uri()}
    assert tab.evaluate("window.broken") is None


def cells(tab: Browser) -> Any:
    """What the cells of the first map show: their numbers, opacities, signs and titles."""
    return tab.evaluate(
        "[...document.querySelectorAll('#map-0 rect.weight')].map((cell, k) => ["
        "  document.querySelectorAll('#map-0 text.count')[k].textContent, Number(cell.getAttribute('fill-opacity')),"
        "  cell.classList.contains('negative'), cell.querySelector('title').textContent])"
    )


def move(tab: Browser, to: int) -> None:
    tab.evaluate(f"(() => {{ const s = document.getElementById('epoch'); s.value = {to}; "
                 "s.dispatchEvent(new Event('input')); })()")  # fmt: skip


def test_the_slider_shows_another_epoch(pages: dict[str, Path], tab: Browser) -> None:
    tab.open(pages["usual"])
    assert tab.evaluate("document.getElementById('moment').textContent") == "epoch 3, step 30"
    before = cells(tab)
    assert [row[0] for row in before] == ["0.67", "-0.03", "-0.03", "0.67"]
    assert [row[2] for row in before] == [False, True, True, False]
    move(tab, 0)
    assert tab.evaluate("document.getElementById('moment').textContent") == "epoch 1, step 10"
    after = cells(tab)
    assert [row[0] for row in after] == ["0.89", "-0.01", "-0.01", "0.89"]
    assert after[0][1] > before[0][1] > 0
    assert after[0][3] == "shape from shape: 0.89"
    move(tab, 2)
    assert [row[:3] for row in cells(tab)] == [
        [text, pytest.approx(shade, abs=1e-3), sign] for text, shade, sign, _ in before
    ]


def test_the_slider_moves_by_keys_and_says_where_it_is(pages: dict[str, Path], tab: Browser) -> None:
    tab.open(pages["usual"])
    tab.evaluate("document.getElementById('epoch').focus()")
    key = {"key": "ArrowRight", "code": "ArrowRight", "windowsVirtualKeyCode": 39}
    tab.ask("Input.dispatchKeyEvent", type="keyDown", **key)
    tab.ask("Input.dispatchKeyEvent", type="keyUp", **key)
    assert tab.evaluate("document.getElementById('moment').textContent") == "epoch 4, step 40"
    assert (
        tab.evaluate("document.getElementById('epoch').getAttribute('aria-valuetext')") == "epoch 4, step 40"
    )


def test_the_policy_stops_scripts_and_addresses(pages: dict[str, Path], tab: Browser, tmp_path: Path) -> None:
    """The same page with a script and a picture from elsewhere, as if escaping had failed."""
    page = tmp_path / "broken.html"
    strange = "<script>window.broken = 1</script><img src='http://127.0.0.1:9/x.png' alt=''>"
    page.write_text(pages["usual"].read_text().replace("</main>", f"{strange}</main>"))
    tab.complaints.clear()
    tab.requests.clear()
    tab.open(page)
    assert tab.evaluate("window.broken") is None
    assert any("Content Security Policy" in text for text in tab.complaints)
    assert tab.evaluate("document.querySelector('img').naturalWidth") == 0


def test_print_shows_what_is_folded(pages: dict[str, Path], tab: Browser) -> None:
    tab.open(pages["usual"])
    folded = "document.querySelectorAll('details:not([open])').length"
    assert tab.evaluate(folded) > 0
    tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert tab.evaluate(folded) == 0
    tab.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert tab.evaluate(folded) > 0
    assert tab.pdf().startswith(b"%PDF-")


def test_links_of_a_page_lead_to_its_sections(pages: dict[str, Path], tab: Browser) -> None:
    for name in NAMES_OF_PAGES:
        tab.open(pages[name])
        lost = "[...document.querySelectorAll('a[href^=\"#\"]')].filter((a) => !document.querySelector(a.hash)).length"
        assert tab.evaluate("document.querySelectorAll('nav a').length") >= 4
        assert tab.evaluate(lost) == 0
