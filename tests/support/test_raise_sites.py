"""The list of refusals finds what it should, and tells those that no test reached."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from coverage import Coverage, CoverageData

from tests.support import raise_sites
from tests.support.raise_sites import ROOT, Ran, Site, all_sites, classes, main, report, sites_in

MODULE = '''\
class OwnFault(UserError):
    """Below UserError."""


class Deeper(OwnFault):
    """Two steps below."""


def one(value: int) -> None:
    if value < 0:
        raise UserError(
            "place",
            "is negative",
        )
    if value > 9:
        raise ValueError("too large") from None
    try:
        print(value)
    except OSError as error:
        raise error


def two() -> UserError:
    return Deeper("", "made here, raised elsewhere")


def three(value: int) -> Iterator[Problem]:
    if value:
        yield ("a", "b"), "is wrong"
    yield path, "is wrong too"
    print((("a",), "no finding of this function's, but it looks like one"))


def four() -> object:
    errors = []
    errors.append((("a",), "found"))
    raise recipe_errors("title", errors)


def five() -> None:
    raise NotImplementedError
    raise AssertionError("ours")
    pairs = [(("a",), "no finding")]
    raise self.fault("by a method")
    raise Plain
'''


def sites() -> list[Site]:
    tree = ast.parse(MODULE)
    return list(sites_in(tree, "m.py", raise_sites.MAKERS | classes([tree])))


def test_what_is_a_site() -> None:
    lines = MODULE.splitlines()
    found = [(lines[site.first - 1].strip(), site.last - site.first) for site in sites()]
    assert found == [
        ("raise UserError(", 3),
        ('raise ValueError("too large") from None', 0),
        ('return Deeper("", "made here, raised elsewhere")', 0),
        ('yield ("a", "b"), "is wrong"', 0),
        ('yield path, "is wrong too"', 0),
        ('print((("a",), "no finding of this function\'s, but it looks like one"))', 0),
        ('errors.append((("a",), "found"))', 0),
        ('raise recipe_errors("title", errors)', 0),
        ('raise self.fault("by a method")', 0),
        ("raise Plain", 0),
    ]


def test_the_sites_of_the_package() -> None:
    """As many in each layer as there are now, so that a file that is not found is not passed over."""
    found = all_sites()
    files = {site.file for site in found}
    assert len(found) >= 480
    assert len(files) >= 60
    assert not any(file.startswith(("mtl/tasks/", "mtl/recipes/")) for file in files)  # links
    assert [layer for layer in raise_sites.ENFORCED if not any(f.startswith(layer) for f in files)] == [
        "mtl/weightings/"  # which refuse nothing
    ]
    for layer in raise_sites.INPUT_LAYERS:
        assert sum(site.file.startswith(layer) for site in found) >= 25, layer
    assert [site for site in found if not site.text] == []


def ran(lines: dict[str, set[int]], bad: dict[str, set[int]] | None = None) -> Ran:
    return Ran(lines, bad)


def test_a_site_that_no_test_reached_is_told() -> None:
    every = {line for site in sites() for line in (site.first, site.last)}
    table, unreached, _ = report(sites(), ran({"m.py": every}))
    assert table == [f"{'m.py':34} {10:4} {10:4}"]
    assert unreached == []
    for site in sites():
        _, unreached, _ = report(sites(), ran({"m.py": every - set(range(site.first, site.last + 1))}))
        assert unreached == [site]
    assert report(sites(), ran({}))[1] == sites()


def test_one_line_of_a_statement_is_enough() -> None:
    first = sites()[0]
    assert first.last - first.first == 3
    assert all(first.reached([line]) for line in range(first.first, first.last + 1))
    assert not first.reached([first.first - 1, first.last + 1])


@pytest.mark.parametrize("by", ["a test", "a bad input"])
def test_coverage_data_are_read(by: str, tmp_path: Path) -> None:
    """Of a real measurement: a module of which one refusal is reached, in a context of tests/bad or another."""
    (tmp_path / "mtl" / "recipe").mkdir(parents=True)
    module = tmp_path / "mtl" / "recipe" / "m.py"
    lines = ("class UserError(Exception): ...", "", "def f(x):", "    if x:", "        raise UserError('a')")
    text = "\n".join([*lines, "    raise UserError('b')", ""])
    module.write_text(text, encoding="utf-8")
    context = raise_sites.CONTEXT if by == "a bad input" else "another"
    data = CoverageData(str(tmp_path / ".coverage"))
    data.set_context(context)
    data.add_lines({str(module): [1, 3, 4, 5]})
    data.write()
    found = all_sites(tmp_path, ("mtl",))
    assert [site.first for site in found] == [5, 6]
    measured = Ran.read(tmp_path / ".coverage", tmp_path)
    table, unreached, not_bad = report(found, measured)
    assert [site.first for site in unreached] == [6]
    assert [site.first for site in not_bad] == ([6] if by == "a bad input" else [])
    assert table[0].split()[1:] == (["2", "1", "1"] if by == "a bad input" else ["2", "1"])


def write(path: Path, lines: dict[str, list[int]], context: str = "") -> Path:
    data = CoverageData(str(path))
    if context:
        data.set_context(context)
    data.add_lines({str(ROOT / file): numbers for file, numbers in lines.items()})
    data.write()
    return path


def everything() -> dict[str, list[int]]:
    return {file: list(range(1, 1000)) for file in {site.file for site in all_sites()}}


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = write(tmp_path / "whole", everything(), raise_sites.CONTEXT)
    assert main(["--data", str(whole)]) == 0
    out, err = capsys.readouterr()
    n = len(all_sites())
    first, second = out.splitlines()
    assert first == f"{n} of {n} refusals are reached by a test"
    n_input, _, n_all, *rest = second.split()
    assert n_input == n_all
    assert " ".join(rest) == "in the input layers by an input of tests/bad"
    assert err == ""
    site = next(site for site in all_sites() if site.file == "mtl/recipe/text/yaml.py")
    lines = everything()
    lines[site.file] = [n for n in lines[site.file] if not site.first <= n <= site.last]
    most = write(tmp_path / "most", lines, raise_sites.CONTEXT)
    assert main(["--data", str(most)]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == f"{n - 1} of {n} refusals are reached by a test"
    assert out.splitlines()[1].startswith(f"{int(n_input) - 1} of {n_input} in the input layers")
    assert err == f"error: {site} is reached by no test\n"
    elsewhere = next(site for site in all_sites() if site.file == "mtl/model/tasks/heads.py")
    lines = everything()
    lines[elsewhere.file] = [n for n in lines[elsewhere.file] if not elsewhere.first <= n <= elsewhere.last]
    assert main(["--data", str(write(tmp_path / "elsewhere", lines, raise_sites.CONTEXT))]) == 0
    out, err = capsys.readouterr()
    assert (out.splitlines()[0], err) == (f"{elsewhere} is reached by no test", "")
    assert main(["--data", str(write(tmp_path / "without", everything()))]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'without'}: no test of tests/bad was measured\n"


def test_a_refusal_that_only_another_test_reaches_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "other", everything())
    data = CoverageData(str(path))
    data.read()
    data.set_context(raise_sites.CONTEXT)
    data.add_lines({str(ROOT / "mtl" / "errors.py"): [1]})
    data.write()
    assert main(["--data", str(path)]) == 1
    _, err = capsys.readouterr()
    site = next(site for site in all_sites() if site.file == "mtl/recipe/text/yaml.py")
    assert f"error: {site} is reached by no input of tests/bad\n" in err


@pytest.mark.parametrize(
    ("test", "told_apart"),
    [("tests/test_bad.py::test_bad_meaning[S1]", True), ("tests/test_x.py::test_y", False)],
)
def test_tests_of_bad_inputs_have_a_context(
    test: str, told_apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    switched: list[str] = []

    class Measured:
        def switch_context(self, name: str) -> None:
            switched.append(name)

    monkeypatch.setattr(raise_sites.Coverage, "current", Measured)
    with raise_sites.in_context(test):
        assert switched == [raise_sites.CONTEXT] * told_apart
    assert switched == [raise_sites.CONTEXT, ""] * told_apart


def test_no_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path / "none")]) == 1
    assert (
        capsys.readouterr().err
        == f"error: {tmp_path / 'none'}: no coverage data; run `make test COVERAGE=1`\n"
    )


def test_the_exceptions_are_sites_and_have_a_reason() -> None:
    for (file, part), reason in {**raise_sites.UNREACHABLE, **raise_sites.NOT_BY_AN_INPUT}.items():
        assert [site for site in all_sites() if site.file == file and part in site.text], (file, part)
        assert reason


def test_coverage_reads_the_settings_of_the_project() -> None:
    """Else `all_sites` and the data would speak of other files."""
    assert Coverage(config_file=str(ROOT / "pyproject.toml")).get_option("run:source_dirs") == list(
        raise_sites.SOURCES
    )
