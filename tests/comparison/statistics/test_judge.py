"""The judge as a whole: from values to the parts of compare.json."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mtl.comparison.statistics.arms import Arm, Role, Task
from mtl.comparison.statistics.judge import judge

TASKS = {"scarce": Task("accuracy", margin=0.02), "rich": Task("mae", False, "mm", margin=0.2)}
BASELINE = dict.fromkeys(TASKS, "single")
ENTRY = {
    *("arm", "against", "task", "difference", "interval", "interval_seeds", "p", "p_adjusted", "verdict"),
    *("words", "details", "sd", "se_rows", "correlation", "seeds_needed", "n_seeds"),
}


def arm(
    role: Role,
    scarce: float,
    rich: float,
    seed: int,
    k: int = 5,
    rows: bool = True,
    control: str | None = None,
) -> Arm:
    """Runs with a spread of 0.004 and 0.04 whose test rows share a noise that is small beside it."""
    rng, at_rows = np.random.default_rng(seed), np.random.default_rng(0).normal(size=(2, 1, 200))
    values = {"scarce": scarce + 0.004 * rng.normal(size=k), "rich": rich + 0.04 * rng.normal(size=k)}
    replicates = {
        "scarce": values["scarce"][:, None] + 0.01 * at_rows[0] + 0.001 * rng.normal(size=(k, 200)),
        "rich": values["rich"][:, None] + 0.1 * at_rows[1] + 0.01 * rng.normal(size=(k, 200)),
    }
    return Arm(role, {t: v.tolist() for t, v in values.items()}, replicates if rows else {}, control)


def three(**more: Arm) -> dict[str, Arm]:
    return {
        "single": arm("single", 0.65, 4.0, 1),
        "stitched": arm("candidate", 0.69, 4.0, 2),
        "sterile": arm("control", 0.64, 4.0, 3),
        **more,
    }


def judged(arms: dict[str, Arm], **more: Any) -> dict[str, Any]:
    found = judge(TASKS, arms, BASELINE, range(5), n_units=400, **more)
    return json.loads(json.dumps(found, allow_nan=False))


def one(found: dict[str, Any], arm: str, against: str, task: str) -> dict[str, Any]:
    (entry,) = [
        c for c in found["comparisons"] if (c["arm"], c["against"], c["task"]) == (arm, against, task)
    ]
    return entry


def test_one_candidate_a_control_and_a_reference() -> None:
    found = judged(three(trees=Arm("reference", {"scarce": [0.70]})))
    pairs = [(c["arm"], c["against"], c["task"]) for c in found["comparisons"]]
    assert pairs == [
        *(("stitched", "single", task) for task in TASKS),
        *(("stitched", "sterile", task) for task in TASKS),
        *(("sterile", "single", task) for task in TASKS),
        ("trees", "single", "scarce"),
    ]
    assert all(set(c) == ENTRY for c in found["comparisons"])
    assert {t: v["verdict"] for t, v in found["tasks_verdict"].items()} == {
        "scarce": "better",
        "rich": "equivalent",
    }
    assert found["tasks_verdict"]["scarce"]["sentence"] == one(found, "stitched", "single", "scarce")["words"]
    assert found["transfer"]["scarce"]["claimed"]
    assert found["transfer"]["scarce"]["size"] == pytest.approx(0.04, abs=0.01)
    assert not found["transfer"]["rich"]["claimed"]
    assert set(found["delta_m"]) == {"stitched"}
    assert (found["leading"], found["exploratory"], found["collapsed"]) == (None, False, {})
    assert found["summary"][0] == "stitched helps scarce; it makes no difference that matters to rich."
    assert found["summary"][-1] == (
        "The intervals cover other seeds and new test rows like these. They do not cover other training rows."
    )
    assert "trees has one value for all seeds" in one(found, "trees", "single", "scarce")["details"]
    assert "Against single, trees is better on scarce (+4.91 points)." in found["summary"]
    assert not any("Against single, sterile" in line for line in found["summary"]), "a control only explains"


def test_the_headline_says_what_the_leading_arm_is() -> None:
    stitched = arm("candidate", 0.69, 4.0, 2)
    named = replace(stitched, what="cross_stitch (sharing)")
    assert judged(three(stitched=named))["summary"][0].startswith("cross_stitch (sharing) helps scarce; it ")


def test_an_error_is_oriented() -> None:
    found = judged(three(stitched=arm("candidate", 0.65, 3.5, 2)))
    rich = one(found, "stitched", "single", "rich")
    assert rich["verdict"] == "better"
    assert rich["difference"] == pytest.approx(0.5, abs=0.06)
    assert "mm of mae" in rich["words"]
    assert found["delta_m"]["stitched"]["by_score"] > 0


def test_without_replicates_the_summary_says_so() -> None:
    arms = {
        "single": arm("single", 0.65, 4.0, 1, rows=False),
        "stitched": arm("candidate", 0.69, 4.0, 2, rows=False),
    }
    found = judged(arms)
    assert found["summary"][-1] == (
        "The intervals cover other seeds, on these test rows. They do not cover other training rows."
    )
    assert found["transfer"]["scarce"]["sentence"].startswith(
        "scarce: no transfer is claimed without a sterile arm"
    )
    splits = judged(arms, resampled=(400, 100))
    assert splits["summary"][-1].endswith("(Nadeau and Bengio 2003).")
    assert one(splits, "stitched", "single", "scarce")["interval_seeds"] is None


def test_the_best_of_several_arms_leads_and_is_not_yet_better() -> None:
    arms = three(other=arm("candidate", 0.66, 4.0, 4))
    found = judged(arms)
    assert found["leading"]["arm"] == "stitched"
    assert not found["leading"]["confirmed"]
    assert found["leading"]["sentence"].startswith("stitched leads 2 candidate arms on scarce, corrected")
    assert found["leading"]["sentence"].endswith(
        "fresh seeds have to confirm it: the same command with --confirm"
    )
    assert not found["transfer"]["scarce"]["claimed"]
    alone = one(judged(three()), "stitched", "single", "scarce")
    among = one(found, "stitched", "single", "scarce")
    assert among["p"] == alone["p"]
    assert among["p_adjusted"] == pytest.approx(2 * alone["p_adjusted"])


def test_before_fresh_seeds_the_same_verdict_stands_everywhere() -> None:
    found = judged(three(other=arm("candidate", 0.66, 4.0, 4)))
    entry = one(found, "stitched", "single", "scarce")
    assert found["summary"][0].startswith("stitched is ahead on scarce (+3.80 ")
    assert "points), not yet confirmed; it " in found["summary"][0]
    assert entry["words"].startswith("scarce: stitched is ahead of single by 3.80 ")
    assert entry["verdict"] == found["tasks_verdict"]["scarce"]["verdict"] == "ahead"
    assert one(found, "stitched", "sterile", "scarce")["verdict"] == "ahead"
    assert any(line.startswith("Against single, other ") for line in found["summary"])
    assert not any(" is better than " in line or " is better on " in line for line in found["summary"])


def test_fresh_seeds_alone_give_the_verdict_of_the_leading_arm() -> None:
    arms = three(other=arm("candidate", 0.66, 4.0, 4))
    fresh = {"single": arm("single", 0.65, 4.0, 11), "stitched": arm("candidate", 0.69, 4.0, 12)}
    found = judged(arms, confirmed=fresh, confirmed_seeds=range(5, 10))
    assert found["leading"] == {
        "arm": "stitched",
        "confirmed": True,
        "sentence": "stitched was the best of 2 candidate arms; on fresh seeds alone it is better on scarce",
    }
    assert found["tasks_verdict"]["scarce"]["verdict"] == "better"
    assert found["transfer"]["scarce"]["claimed"]
    entry = one(found, "stitched", "single", "scarce")
    assert "5 fresh seeds" in entry["details"]
    assert entry["difference"] == pytest.approx(
        np.mean(fresh["stitched"].values["scarce"]) - np.mean(fresh["single"].values["scarce"])
    )
    null = {"single": arm("single", 0.69, 4.0, 11), "stitched": arm("candidate", 0.69, 4.0, 12)}
    fallen = judged(arms, confirmed=null, confirmed_seeds=range(5, 10))
    assert fallen["tasks_verdict"]["scarce"]["verdict"] != "better"
    assert fallen["leading"]["sentence"].endswith(
        "on fresh seeds alone it is not shown to be better on any task"
    )
    with_control = {**fresh, "sterile": arm("control", 0.69, 4.0, 13)}
    checked = judged(arms, confirmed=with_control, confirmed_seeds=range(5, 10))
    assert not checked["transfer"]["scarce"]["claimed"]


def test_of_five_null_arms_none_is_called_better() -> None:
    """As often as 5% of the time a corrected comparison may say so; a task's verdict never does before fresh seeds."""
    claimed = corrected = 0
    for i in range(80):
        arms = {"single": arm("single", 0.65, 4.0, 1000 + 10 * i, rows=False)}
        arms |= {f"arm{j}": arm("candidate", 0.65, 4.0, 1001 + 10 * i + j, rows=False) for j in range(5)}
        found = judge(TASKS, arms, BASELINE, range(5))
        claimed += any(v["verdict"] == "better" for v in found["tasks_verdict"].values())
        corrected += any(c["verdict"] in ("better", "ahead") for c in found["comparisons"])
    assert claimed == 0
    assert corrected <= 0.062 * 80


def test_arms_that_lead_by_chance_are_said_to() -> None:
    arms = three(stitched=arm("candidate", 0.65, 4.0, 2), other=arm("candidate", 0.65, 4.0, 4))
    assert judged(arms)["leading"]["sentence"].endswith("but no more than the best of 2 equal arms would")


def test_a_collapsed_run_is_named_and_takes_the_verdict_away() -> None:
    arms = three()
    values = {**arms["stitched"].values, "scarce": [0.69, 0.70, 0.69, 0.25, 0.695]}
    found = judged(three(stitched=Arm("candidate", values)))
    assert found["collapsed"] == {"stitched": [{"task": "scarce", "seed": 3}]}
    entry = one(found, "stitched", "single", "scarce")
    assert entry["verdict"] == "cannot tell"
    assert "stitched collapsed on seed 3" in entry["details"]
    assert "stitched collapsed on seed 3 (scarce)." in found["summary"]


def test_seeds_that_were_added_after_a_look() -> None:
    assert judged(three(), looks=2)["exploratory"]
    assert any(
        line.startswith("Exploratory: seeds were added") for line in judged(three(), looks=2)["summary"]
    )
    assert not judged(three(), looks=2, maximum=5)["exploratory"]
    assert judged(three(), looks=2, maximum=4)["exploratory"]
    interim = judged(three(), looks=1, maximum=10)
    assert "Interim: 5 of the 10 seeds that were set before; only all of them decide." in interim["summary"]


def test_each_candidate_has_its_own_control_where_there_are_several() -> None:
    arms = three(
        stitched=arm("candidate", 0.69, 4.0, 2, control="sterile"),
        other=arm("candidate", 0.66, 4.0, 4, control="sterile2"),
        sterile2=arm("control", 0.65, 4.0, 5),
    )
    found = judged(arms)
    assert one(found, "other", "sterile2", "scarce")
    assert not [c for c in found["comparisons"] if (c["arm"], c["against"]) == ("other", "sterile")]


def test_a_baseline_per_task_and_missing_results() -> None:
    arms = three(single_rows=arm("single", 0.66, 4.0, 6))
    arms["stitched"] = Arm("candidate", {"scarce": [0.69, None, 0.70, 0.69, 0.68]})
    found = judge(TASKS, arms, {"scarce": "single_rows", "rich": "single"}, range(5), n_units={"scarce": 100})
    entry = one(found, "stitched", "single_rows", "scarce")
    assert entry["n_seeds"] == 4
    assert "no value on seed 1" in entry["details"]
    assert set(found["tasks_verdict"]) == {"scarce"}
    refused = found["delta_m"]["stitched"]
    assert (refused["by_score"], refused["by_error"]) == (None, None)
    assert refused["sentence"] == "delta_m has no meaning here: rich: mae has no value"
    assert not any("delta_m" in line for line in found["summary"]), "it is no answer"


def test_no_candidate_is_no_verdict() -> None:
    found = judged({"single": arm("single", 0.65, 4.0, 1)})
    assert found["comparisons"] == []
    assert found["summary"][0] == "No arm shares, so that there is no verdict."


def test_what_the_judge_refuses() -> None:
    with pytest.raises(ValueError, match=r"baselines are arms: \['nosuch'\]"):
        judge(TASKS, three(), dict.fromkeys(TASKS, "nosuch"), range(5))
    with pytest.raises(ValueError, match="seeds that were not looked at"):
        judged(three(), confirmed=three(), confirmed_seeds=range(4, 9))
    with pytest.raises(ValueError, match="has one candidate"):
        judged(three(), confirmed={"single": arm("single", 0.65, 4.0, 1)}, confirmed_seeds=range(5, 10))
