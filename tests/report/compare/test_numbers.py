"""All numbers go into tables and come back the same; text cannot become a formula."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbkit.report.compare import compare, differences, write_numbers
from rbkit.report.compare.numbers import _array, _write_csv, cell
from rbkit.report.page.tables import by_domain_note

NAMES = ["runs", "metrics", "by_domain", "proportions", "comparisons"]
HOSTILE = ["=HYPERLINK('x')", "+1", "-2+3", "@SUM(A1)", "\t=1", 'a,"b"\nc', "'quoted", "", "ｅ＝"]


def from_cell(text):
    """The text that a cell was made of: an apostrophe guards what a spreadsheet would run."""
    return text[1:] if text.startswith("'") and cell(text[1:]) == text else text


@pytest.fixture(scope="module")
def comparison(tmp_path_factory, write_run):
    folder = tmp_path_factory.mktemp("numbers") / "runs"
    runs = [
        write_run(folder / f"{mixer}{seed}", mixer, seed, rounds=2, names=HOSTILE)
        for mixer in ("Stratified", "RnB")
        for seed in (0, 1)
    ]
    killed = {"status": "killed", "error": "=cmd|' /C calc'!A0"}
    runs.append(write_run(folder / "x" / "killed", "ADO", rounds=2, **killed))
    return compare(runs)


@pytest.fixture(scope="module")
def folder(comparison, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "new"
    paths = write_numbers(comparison, folder)
    assert sorted(p.name for p in paths) == sorted(
        f"{n}.{s}" for n in NAMES for s in ("csv", "parquet")
    )
    assert sorted(folder.iterdir()) == sorted(paths)
    return folder


def read(folder, name):
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def test_every_run_is_a_row_also_one_that_was_killed(folder):
    rows = {row["run"]: row for row in read(folder, "runs")}
    assert set(rows) == {"Stratified0", "Stratified1", "RnB0", "RnB1", "x/killed"}
    assert rows["x/killed"]["status"] == "killed"
    assert rows["x/killed"]["compared"] is False
    assert rows["RnB0"]["parameter mixer"] == "RnB"
    assert rows["Stratified1"]["is_baseline"] is True
    assert rows["RnB0"]["seconds"] > 40


def test_eval_examples_outside_have_a_row_and_a_sentence_of_their_own(comparison, tmp_path):
    runs = []
    for i, run in enumerate(comparison.runs[:2]):
        final = {**run.info["final"], "outside_token": 2.5 + i, "outside_example": 1.5}
        runs.append(run.with_(info={**run.info, "final": final}))
    write_numbers(compare(runs), tmp_path)
    rows = [row for row in read(tmp_path, "by_domain") if row["domain"] == "outside"]
    assert [(row["loss_token"], row["loss_example"]) for row in rows] == [(2.5, 1.5), (3.5, 1.5)]
    assert all(row["q"] is None or np.isnan(row["q"]) for row in rows)
    note = by_domain_note(compare(runs))
    assert "Outside all domains, in the overall loss alone:" in note
    assert "3.0000" in note
    assert "Outside" not in by_domain_note(comparison)


def test_losses_and_proportions_are_those_of_the_run(folder, comparison):
    run = comparison.variant("RnB").runs[1]
    mine = [row for row in read(folder, "metrics") if row["run"] == "RnB1"]
    evaluated = [row["value"] for row in mine if row["metric"] == "loss_token"]
    assert evaluated == [row["loss_token"] for row in run.metrics("eval")]
    assert len([row for row in mine if row["metric"] == "lr"]) == 50
    p = [row["p"] for row in read(folder, "proportions") if row["run"] == "RnB1"]
    assert np.array_equal(np.reshape(p, (2, -1)), run.history["p"][:2])
    domains = [row for row in read(folder, "by_domain") if row["run"] == "RnB1"]
    assert [row["domain"] for row in domains] == HOSTILE
    assert [row["loss_token"] for row in domains] == run.info["final"]["by_domain_token"]


def test_comparisons_are_those_of_the_page(folder, comparison):
    rows = {(row["variant"], row["metric"]): row for row in read(folder, "comparisons")}
    gap = differences(comparison)["RnB"]
    row = rows["RnB", "loss_token"]
    assert (row["mean"], row["low"], row["p_value"]) == (gap.mean, gap.low, gap.p_value)
    assert json.loads(row["values"]) == list(gap.values)
    assert rows["RnB", "steps_to_reach"]["unit"] == "ratio to the baseline"


@pytest.mark.parametrize("name", NAMES)
def test_both_files_hold_the_same(folder, name):
    table = pq.read_table(folder / f"{name}.parquet")
    options = pa_csv.ConvertOptions(
        column_types={
            f.name: pa.string() if pa.types.is_dictionary(f.type) else f.type for f in table.schema
        },
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    parsing = pa_csv.ParseOptions(newlines_in_values=True)
    other = pa_csv.read_csv(folder / f"{name}.csv", convert_options=options, parse_options=parsing)
    rows = [
        {k: from_cell(v) if isinstance(v, str) else v for k, v in row.items()}
        for row in other.to_pylist()
    ]
    assert rows == table.to_pylist()


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_of_text_starts_a_formula(folder, name):
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        cells = [value for row in csv.reader(file) for value in row]
    risky = [c for c in cells if c.strip()[:1] in tuple("=+-@＝＋－＠") and c.strip()]
    assert [c for c in risky if not _is_number(c)] == []


def _is_number(text):
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


@given(st.text())
def test_text_comes_back_and_cannot_be_a_formula(text):
    text = text.encode("utf-8", "replace").decode()
    assert from_cell(cell(text)) == text
    assert not cell(text).lstrip().startswith(("=", "+", "-", "@"))


@given(st.text(st.characters(categories=["Cs", "L"]), max_size=4))
def test_a_lone_surrogate_is_replaced(text):
    cell(text).encode()


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TYPES = [st.integers(-(2**62), 2**62), NUMBERS, st.booleans(), TEXT]


@given(st.one_of(*(st.lists(st.none() | kind, min_size=1, max_size=5) for kind in TYPES)))
def test_a_column_comes_back_from_csv_as_it_was(tmp_path_factory, values):
    column = _array(values)
    path = tmp_path_factory.getbasetemp() / "column.csv"
    _write_csv(pa.table({"index": pa.array(range(len(values))), "x": column}), path)
    options = pa_csv.ConvertOptions(
        column_types={"x": column.type}, strings_can_be_null=True, quoted_strings_can_be_null=False
    )
    parsing = pa_csv.ParseOptions(newlines_in_values=True)
    back = pa_csv.read_csv(path, convert_options=options, parse_options=parsing)["x"].to_pylist()
    assert [from_cell(v) if isinstance(v, str) else v for v in back] == column.to_pylist()


def test_values_of_mixed_types_are_written_as_json():
    assert _array([1, "a", [2, 3], None, {"lam": 1.0}]).to_pylist() == [
        "1",
        "a",
        "[2, 3]",
        None,
        '{"lam": 1.0}',
    ]
    assert _array([1, 2.5]).to_pylist() == [1.0, 2.5]
    assert _array([2**70]).to_pylist() == [float(2**70)]


def test_rows_of_a_stranger_that_make_no_sense_are_left_out(tmp_path, write_run):
    run = write_run(tmp_path / "run", rounds=2)
    before = write_numbers(compare([run]), tmp_path / "before")
    with (run.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"kind": "train", "loss": 1}\n{"kind": "eval", "step": "x", "loss_token": 2}\n')
    after = write_numbers(compare([type(run).open(run.path)]), tmp_path / "after")
    assert [path.read_bytes() for path in before] == [path.read_bytes() for path in after]


def test_no_runs_and_one_run_have_tables_too(tmp_path, comparison):
    write_numbers(compare([]), tmp_path / "none")
    assert read(tmp_path / "none", "runs") == []
    write_numbers(compare(comparison.runs[:1]), tmp_path / "one")
    assert len(read(tmp_path / "one", "runs")) == 1
