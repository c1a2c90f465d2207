"""What a process knows from the variables of torchrun."""

from contextlib import nullcontext

import pytest

from mtl.distributed.alone import Ranks
from mtl.distributed.join import joined
from mtl.distributed.launch import Place, place_of_process
from mtl.errors import USER, UserError
from tests.support.assertions import Capture, called

VARIABLES = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "a",
    "TORCHELASTIC_RESTART_COUNT": "0",
}


def test_torchrun_gives_the_place() -> None:
    assert place_of_process(VARIABLES) == Place(1, 2, 1, "localhost", 29500, "a/0")


@pytest.mark.parametrize("variables", [{}, {"WORLD_SIZE": "1", "RANK": "0"}])
def test_a_process_alone_has_no_place(variables: dict[str, str]) -> None:
    assert place_of_process(variables) is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"RANK": "x"}, "incomplete"),
        ({"MASTER_ADDR": None}, "incomplete: MASTER_ADDR"),
        ({"RANK": "2"}, "rank 2 of 2"),
        ({"MASTER_PORT": "0"}, "port 0"),
        ({"LOCAL_RANK": "-1"}, "cannot be"),
    ],
)
def test_variables_that_contradict_each_other_are_refused(
    change: dict[str, str | None], expected: str
) -> None:
    given = {name: value for name, value in {**VARIABLES, **change}.items() if value is not None}
    with pytest.raises(UserError, match=expected) as caught:
        place_of_process(given)
    assert "torchrun" in str(caught.value)


def test_a_process_alone_exchanges_nothing() -> None:
    with joined() as ranks:
        assert (ranks.rank, ranks.n, ranks.asked) == (0, 1, None)
        assert ranks.agreed(lambda: 3) == ranks.first(lambda: 3) == 3
        assert (ranks.told(b"3"), ranks.end("3")) == (b"3", "3")
        assert ranks.all_told(3) == [3]
        assert ranks.share(5) == slice(0, 5)
        assert ranks.part(5) is None


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_commands_other_than_run_are_for_one_process(
    rank: str, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    for name, value in {**VARIABLES, "RANK": rank}.items():
        monkeypatch.setenv(name, value)
    done = called(capsys, "compare", "synthetic_stitch")
    assert done.returncode == USER
    assert len(done.stderr.splitlines()) == lines
    if lines:
        assert "torchrun has started it 2 times" in done.stderr


class Two(Ranks):
    """Rank 0 of two, which exchange nothing."""

    n = 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--dry-run",), "--dry-run: 2 processes would all say the same; start it without torchrun"),
        (("phases={a: {}, b: {}}",), "phases: they train in one process each, and torchrun has started 2"),
    ],
)
def test_what_several_processes_cannot_do(
    arguments: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("mtl.commands.training.joined", lambda: nullcontext(Two()))
    done = called(capsys, "run", "synthetic_stitch", *arguments)
    assert done.returncode == USER
    assert expected in done.stderr
