"""Each row of the tables of bad inputs has a case in tests/bad/ that is called after it, or a test, named here.

The tables: R, the text of a recipe; S, its meaning; D, data; K, checkpoints and run folders; C, the command line,
plug-ins and the environment. A case is a file whose name begins with the row: `D12-minus-one.csv` is of row D12.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
BAD = TESTS / "bad"
ROWS = {
    "R": (1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 23, 24, 25, 27, 28, 29, 30, 31, 32, 34),
    "S": (1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18, 19, 20, 22, 23, 24, 26, 27, 28),
    "D": (
        *(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 29, 30),
        *(31, 33, 34, 35, 37, 39, 40, 41, 42, 43, 44, 45, 47, 48),
    ),
    "K": (1, 2, 3, 4, 5, 6, 7, 9, 10, 13, 14, 15, 16, 17, 18),
    "C": (1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
}  # fmt: skip
NOT_HERE = {
    "S28": "no registered weighting needs two tasks or shared parameters",
    "D47": "batches are made by mtl alone: there is no collate function of a user's",
    "C7": "one process on one device: mtl opens no port and reads neither RANK nor MASTER_PORT",
}
"""Rows that do not apply, and why."""
BY_A_TEST = {
    # what cannot be kept as a file, what must stay accepted or is a warning, and what needs a run or a network
    "R1": "recipe/text/test_yaml.py::test_missing_file",
    "R2": "recipe/text/test_yaml.py::test_folder",
    "R3": "recipe/text/test_yaml.py::test_no_permission",
    "R5": "recipe/text/test_yaml.py::test_large_file",
    "R11": "recipe/text/test_yaml.py::test_byte_order_marks_and_line_ends",
    "R23": "recipe/text/test_yaml.py::test_depth_is_capped",
    "R24": "recipe/text/test_yaml.py::test_the_number_of_values_is_capped",
    "R31": "recipe/text/test_yaml.py::test_values",
    "R34": "recipe/text/test_yaml.py::test_mutations_give_a_document_or_a_line",
    "S7": "test_bad.py::test_a_recipe_with_257_tasks",
    "S27": "training/test_devices.py::test_a_device_that_is_not_there",
    "D3": "data/files/test_csv.py::test_header",
    "D18": "test_bad_data.py::test_words_of_other_programs_are_classes",
    "D21": "training/test_loop.py::test_a_batch_without_labels_of_a_task_is_no_fault",
    "D24": "test_missing_labels.py::test_a_rare_class",
    "D25": "test_missing_labels.py::test_what_is_warned_of",
    "D26": "test_bad_data.py::test_an_id_among_the_inputs_is_warned_of",
    "D41": "data/files/test_download.py::test_d41_a_page_instead_of_the_data",
    "D42": "data/files/test_download.py::test_d42_the_right_size_and_other_bytes",
    "D43": "data/files/test_download.py::test_d43_no_network",
    "D44": "data/files/test_download.py::test_d44_a_cached_file_that_was_damaged_later",
    "D45": "test_missing_labels.py::test_batch_norm_has_no_variance_of_one_row",
    "D48": "experiment/test_resume.py::test_changed_data_are_refused",
    "K1": "test_cli.py::test_resume_of_no_run",
    "K2": "experiment/test_resume.py::test_a_damaged_checkpoint_is_passed_over",
    "K3": "experiment/test_resume.py::test_all_damaged",
    "K4": "experiment/test_resume.py::test_a_named_checkpoint_that_is_damaged_is_refused",
    "K5": "runs/test_checkpoint.py::test_a_manifest_that_is_none",
    "K6": "experiment/test_resume.py::test_a_newer_schema_is_refused",
    "K7": "experiment/test_resume.py::test_a_run_of_this_release_goes_on",
    "K9": "runs/test_state.py::test_weights_of_another_model_are_refused_as_a_whole",
    "K10": "experiment/test_resume.py::test_weights_that_are_nan_are_refused",
    "K13": "experiment/test_changes.py::test_what_may_not",
    "K14": "experiment/test_changes.py::test_what_may_change",
    "K15": "test_cli.py::test_a_finished_run_is_left_alone",
    "K16": "experiment/test_resume.py::test_a_run_in_use_is_refused",
    "K17": "test_cli.py::test_a_run_folder_that_cannot_be_made",
    "K18": "runs/test_checkpoint.py::test_only_whole_names_are_steps",
    "C3": "test_bad.py::test_a_plugin_that_is_not_there",
    "C6": "test_cli.py::test_torch_is_missing_or_too_old",
    "C8": "test_cli.py::test_nobody_reads_on",
    "C9": "data/files/test_download.py::test_a_folder_that_cannot_be_made",
    "C10": "experiment/test_run.py::test_twice_in_one_process",
}


def rows() -> list[str]:
    return [f"{table}{number}" for table, numbers in ROWS.items() for number in numbers]


def cases() -> dict[str, list[Path]]:
    """Row -> its cases, and "" -> those that no table names."""
    found: dict[str, list[Path]] = {}
    for path in sorted(BAD.glob("*/*.txt")):
        match = re.match(r"([RSDKC][0-9]+)-", path.name)
        found.setdefault(match[1] if match else "", []).append(path)
    return found


def test_every_row_has_a_case_or_a_test_or_does_not_apply() -> None:
    found = cases()
    assert len(rows()) == 117
    assert [row for row in rows() if row not in found and row not in BY_A_TEST and row not in NOT_HERE] == []
    assert [row for row in (*BY_A_TEST, *NOT_HERE) if row not in rows()] == []
    assert [row for row in NOT_HERE if row in found or row in BY_A_TEST] == []


@pytest.mark.parametrize("row", BY_A_TEST)
def test_the_tests_named_are_there(row: str) -> None:
    file, name = BY_A_TEST[row].split("::")
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_rows_of_cases_are_rows_of_a_table() -> None:
    """R35 is ours: escapes and versions on which PyYAML itself fails."""
    assert {row for row in cases() if row} - set(rows()) <= {"R35"}


def numbers_on_the_page() -> dict[str, int]:
    page = (TESTS.parent / "docs" / "reliability.md").read_text(encoding="utf-8")
    section = page.split("## Bad inputs")[1].split("\n## ")[0]
    return {name: int(number) for name, number in re.findall(r"^\| ([^|]+) \| ([0-9]+) \|", section, re.M)}


def test_the_page_counts_the_cases() -> None:
    counted = Counter((row[0] if row else "none of them") for row, paths in cases().items() for _ in paths)
    shown = numbers_on_the_page()
    assert {name.split(":")[0]: number for name, number in shown.items()} == dict(counted)
    assert sum(shown.values()) == len(list(BAD.glob("*/*.txt"))) >= 440
