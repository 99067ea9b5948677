"""The pieces of the page, one by one."""

import base64
import io
import json
import shlex

import matplotlib.image
import numpy as np
import pytest
from PIL import Image

from rbkit.report.compare import compare, differences, reach_baseline
from rbkit.report.page.page import orderly
from rbkit.report.page.pictures import (
    drawings,
    mean_by_domain,
    picture,
    side_by_side,
    sparkline,
    thumbnail,
)
from rbkit.report.page.tables import (
    by_domain_note,
    command_of,
    environment_rows,
    failures,
    incidental_values,
    ledger_rows,
    links,
    run_names,
    run_rows,
    sweep_commands,
    unfinished,
    variant_rows,
)
from rbkit.report.sweep.folder import new_job
from rbkit.show import domain_sizes, loss_curves
from rbkit.show.style import alt_text
from rbkit.text import number


def with_job(run, status, **job):
    """A run with a job, as the collector gives it."""
    return run.with_(
        status=status, job={**new_job("a", "run.ipynb", {}, {}), "status": status, **job}
    )


@pytest.fixture(scope="module")
def grid(tmp_path_factory, write_run):
    """Three mixers, two seeds, two values of lam for RnB; one run failed."""
    folder, made = tmp_path_factory.mktemp("grid"), []
    for mixer, seed, lam in [
        ("Stratified", 0, None),
        ("Stratified", 1, None),
        ("RnB", 0, 1),
        ("RnB", 1, 1),
        ("RnB", 0, 9),
        ("RnB", 1, 9),
    ]:
        run = write_run(folder / f"{len(made)}", mixer, seed, rounds=3)
        run.info["parameters"]["mixer_options"] = {"lam": lam} if lam else {}
        made.append(run)
    bad = write_run(folder / "bad", "Target", status="failed", rounds=3, error="why\n\x1b[1mTail")
    return compare([orderly(run) for run in [*made, bad]])


# ------------------------------------------------------------------------------ tiny pictures


def pixels(address):
    return np.asarray(
        Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("RGB")
    )


def test_a_thumbnail_is_red_where_domains_agree_blue_in_conflict_grey_where_unknown():
    cells = pixels(thumbnail(np.array([[1.0, -1.0], [np.nan, 0.0]]))).astype(int)
    assert cells[0, 0, 0] > cells[0, 0, 2] + 60
    assert cells[0, 1, 2] > cells[0, 1, 0] + 60
    assert np.ptp(cells[1, 1]) < 5
    assert cells[1, 0].tolist() == [217, 222, 227]


@pytest.mark.parametrize("m", [1, 14, 36, 37, 300])
def test_thumbnails_stay_small_whatever_the_number_of_domains(m):
    vectors = np.random.default_rng(0).normal(size=(m, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    address = thumbnail(vectors @ vectors.T)
    assert len(base64.b64decode(address.split(",")[1])) <= 1500
    assert pixels(address).shape[:2] == (min(m, 36),) * 2


def test_a_curve_stays_inside_its_box_and_says_what_it_is():
    svg = sparkline(
        [0, 5, 10], [99.0, 5.0, 4.0], last_step=10, low=4, high=6, colour="#0072B2", title='a "<b>"'
    )
    assert 'points="3,3 48,13 93,23"' in svg
    assert "&#34;&lt;b&gt;&#34;" in svg
    assert sparkline([], [], last_step=1, low=0, high=1, colour="#000000", title="") == ""


# --------------------------------------------------------------------------------- tables


def test_runs_are_called_by_what_varied_and_only_then_by_seed(grid):
    assert run_names(grid)[2:5] == [
        "RnB · lam 1, seed 0",
        "RnB · lam 1, seed 1",
        "RnB · lam 9, seed 0",
    ]
    assert run_names(grid)[-1] == "Target"


def test_a_run_is_compared_with_the_baseline_of_its_own_seed(grid, tmp_path):
    rows = {(row["name"]): row for row in run_rows(grid, tmp_path)}
    row, base = rows["RnB · lam 9, seed 1"], rows["Stratified, seed 1"]
    assert row["gap"] == pytest.approx(row["token"] - base["token"])
    assert base["is_baseline"]
    assert base["gap"] is None
    assert rows["Target"]["status"] == "failed"
    assert list(rows)[-1] == "Target"


def test_a_run_that_did_not_finish_has_no_final_loss_and_no_difference(tmp_path, write_run):
    runs = [
        write_run(
            tmp_path / f"{mixer}{seed}",
            mixer,
            seed,
            rounds=2,
            status="failed" if (mixer, seed) == ("RnB", 1) else "ok",
        )
        for mixer in ("Stratified", "RnB")
        for seed in (0, 1)
    ]
    runs[3].info["final"] = None
    runs[3] = runs[3].with_(metrics=[{"kind": "eval", "step": 25, "loss_token": 5.48}])
    rows = run_rows(compare([orderly(run) for run in runs]), tmp_path)
    assert [row["token"] is None for row in rows] == [False] * 3 + [True]
    assert rows[-1]["so_far"] == "5.480 at step 25"
    assert (rows[-1]["gap"], rows[-1]["worst"], rows[-1]["is_baseline"]) == (None, None, False)


def test_a_run_that_was_repeated_is_marked_and_compared_with_nothing(tmp_path, write_run):
    runs = [
        write_run(tmp_path / name, mixer, rounds=1)
        for name, mixer in (("a", "Stratified"), ("b", "RnB"), ("c", "RnB"))
    ]
    rows = {row["name"]: row for row in run_rows(compare([orderly(run) for run in runs]), tmp_path)}
    assert rows["RnB, seed 0, b"]["repeated"]
    assert rows["RnB, seed 0, b"]["gap"] is None
    assert rows["RnB, seed 0, c"]["gap"] is not None


def test_seconds_of_training_hold_what_the_rule_cost(tmp_path, write_run):
    run = write_run(tmp_path / "run", "SkillIt", rounds=1)
    entries = run.info["ledger"]["entries"]
    step = entries[0]["seconds"]
    entries.append({"name": "probe_runs", "seconds": 20.0, "flops_counted": 10, "calls": 1})
    found = compare([orderly(run)])
    assert variant_rows(found, {}, {})[0]["seconds"] == pytest.approx(step + 20)
    assert run_rows(found, tmp_path)[0]["seconds"] == pytest.approx(step + 20)


@pytest.fixture(scope="module")
def by_k(tmp_path_factory, write_run):
    """One mixer, one seed, three k with other domains."""
    folder = tmp_path_factory.mktemp("k")
    runs = [
        write_run(folder / str(k), parameters={"k": k}, names=list("abcdef")[:k], rounds=1)
        for k in (3, 4, 5)
    ]
    return compare([orderly(run) for run in runs])


def test_single_runs_are_held_against_the_baseline_whatever_it_is(by_k):
    gaps = differences(by_k)
    drawn = drawings(by_k, gaps, None, None)
    said = alt_text(drawn["gap"]().get_figure())
    assert "minus that of k 3" in said
    assert f"k 5 ends at {number(gaps['k 5'].mean)}" in said


def test_nothing_is_drawn_where_nothing_can_be_compared(tmp_path, write_run):
    runs = [
        write_run(tmp_path / mixer, mixer, seed, rounds=1)
        for seed, mixer in enumerate(("Stratified", "RnB"))
    ]
    drawn = drawings(compare([orderly(run) for run in runs]), {}, None, None)
    assert "gap" not in drawn
    assert "pareto" not in drawn


def test_of_other_machines_cost_is_drawn_in_flops(tmp_path, write_run):
    runs = [write_run(tmp_path / mixer, mixer, rounds=1) for mixer in ("Stratified", "RnB")]
    runs[0].info["device"] = "cuda"
    found = compare([orderly(run) for run in runs])
    assert "FLOPs" in drawings(found, {}, None, None)["pareto"]().get_xlabel()
    assert reach_baseline(found)["RnB"] is None or reach_baseline(found)["RnB"].seconds is None


def test_how_many_seeds_losses_by_domain_are_of_is_said(grid, tmp_path, write_run):
    assert by_domain_note(grid) == "Means over 2 seeds."
    runs = [
        write_run(
            tmp_path / f"{mixer}{seed}",
            mixer,
            seed,
            rounds=1,
            names=["a", "b"] if seed else ["x", "y"],
        )
        for mixer in ("Stratified", "RnB")
        for seed in (0, 1)
    ]
    found = compare([orderly(run) for run in runs])
    assert by_domain_note(found) == ("Seed 0 alone, which all have with the same domains.")


def test_what_differs_without_being_a_variant_is_said(tmp_path, write_run):
    runs = [
        write_run(tmp_path / mixer, mixer, rounds=1, parameters={"accumulate": n})
        for mixer, n in (("Stratified", 1), ("RnB", 2))
    ]
    found = compare([orderly(run) for run in runs])
    assert found.varied == ("mixer",)
    assert incidental_values(found) == [("accumulate", "1; 2")]


def test_variants_without_a_finished_run_are_rows_too(grid):
    rows = variant_rows(grid, {}, {})
    assert rows[-1]["name"] == "Target"
    assert (rows[-1]["seeds"], rows[-1]["missing"], rows[-1]["token"]) == (0, 1, None)
    assert [row["is_baseline"] for row in rows].count(True) == 1


def test_ledgers_of_many_runs_are_means_by_variant(grid):
    rows, means = ledger_rows(grid)
    assert means
    assert {row["run"] for row in rows} == {v.label for v in grid.variants}
    step = next(row for row in rows if row["run"] == "Stratified" and row["name"] == "step")
    each = [
        e["seconds"]
        for run in grid.runs[:2]
        for e in run.info["ledger"]["entries"]
        if e["name"] == "step"
    ]
    assert step["seconds"] == pytest.approx(np.mean(each))
    assert not ledger_rows(compare(grid.runs[:3]))[1]


def test_losses_by_domain_are_means_over_seeds_of_one_variant_per_mixer(grid):
    shown = side_by_side(grid, 8)
    assert [v.mixer for v in shown] == ["Stratified", "RnB"]
    mean = mean_by_domain(shown[0]).info["final"]["by_domain_token"]
    each = [run.info["final"]["by_domain_token"] for run in grid.runs[:2]]
    assert mean == pytest.approx(np.mean(each, axis=0))


# ------------------------------------------------------------------------------- failures


def test_runs_that_failed_alike_are_listed_once(grid):
    run = grid.runs[0]
    out_of_memory = {"error": "OutOfMemoryError", "cell": "train", "tail": ["a", "b"]}
    runs = [
        with_job(run, "failed", **out_of_memory),
        with_job(run, "failed", **out_of_memory),
        with_job(run, "killed"),
        with_job(run, "ok"),
        with_job(run, "timeout", attempts=3),
    ]
    found = failures(runs, list("abcde"))
    assert [(g["status"], len(g["runs"])) for g in found] == [
        ("failed", 2),
        ("killed", 1),
        ("timeout", 1),
    ]
    assert [row["tail"] for row in found[0]["runs"]] == ["a\nb", ""]
    assert "killed from outside" in found[1]["headline"]
    assert found[2]["runs"][0]["attempts"] == 3


def test_the_error_of_a_run_made_by_hand_is_split_in_headline_and_tail(grid):
    (found,) = failures([grid.runs[-1]], ["x"])
    assert (found["headline"], found["runs"][0]["tail"]) == ("why", "Tail")


def test_runs_that_have_not_ended_are_counted(grid):
    run = grid.runs[0]
    runs = [with_job(run, status) for status in ("ok", "queued", "running", "queued")]
    assert unfinished(runs) == ("This page is not final: of 4 runs 1 is running and 2 are queued.")
    assert unfinished(runs[:1]) == ""


# ------------------------------------------------------------------------------ repeating


def test_a_run_of_a_sweep_is_repeated_by_its_own_command(grid):
    assert command_of(with_job(grid.runs[0], "ok", command="rbkit run -p seed=0")).endswith(
        "seed=0"
    )


def test_a_run_of_the_run_notebook_is_repeated_by_a_command_line_that_gives_its_parameters(grid):
    from rbkit.cli import read_parameters
    from rbkit.report.parameters import RunParameters

    run = grid.runs[4]
    words = shlex.split(command_of(run))
    assert words[:2] == ["rbkit", "run"]
    pairs = [words[i + 1] for i, word in enumerate(words) if word == "-p"]
    again = RunParameters.from_mapping(read_parameters(pairs)).to_dict()
    recorded = run.info["parameters"]
    assert {k: again[k] for k in recorded if k in again} == {
        k: v for k, v in recorded.items() if k in again
    }


def test_a_run_trained_from_python_is_repeated_in_python(grid):
    recorded = {"mixer": 'R"nB', "steps": 10, "micro_batch_size": 8}
    source = command_of(grid.runs[2].with_(info={"parameters": recorded}))
    compile(source, "again", "exec")
    assert "batch_size=8" in source
    assert """mixer_by_name('R"nB', {})""" in source


def test_a_run_on_data_in_memory_says_so_and_how_to_save_them(grid):
    recorded = {"mixer": "RnB", "steps": 10}
    corpus = {"name": "DataFrame of 30\nrows", "in_memory": True}
    info = {"parameters": recorded, "corpus": corpus}
    source = command_of(grid.runs[2].with_(info=info))
    compile(source, "again", "exec")
    said = (
        "# the data was in memory ('DataFrame of 30\\nrows'): there, corpus.save_to_disk('corpus')"
    )
    assert said in source.splitlines()
    assert "corpus = rb.load_corpus('corpus')" in source
    info = {"parameters": recorded, "corpus": {"name": "wiki"}}
    assert "rb.load_corpus('wiki')" in command_of(grid.runs[2].with_(info=info))


def test_a_run_of_a_model_object_is_not_repeated_with_its_name(grid):
    recorded = {"mixer": "RnB", "steps": 10, "model": "PeftModel(my\nmodel)", "trainable_layers": 2}
    info = {"parameters": recorded, "model": {"class": "PeftModel"}}
    source = command_of(grid.runs[2].with_(info=info))
    compile(source, "again", "exec")
    assert "model, tokenizer = ...  # objects: 'PeftModel(my\\nmodel)'" in source
    for argument in ("model=model", "tokenizer=tokenizer", "steps=10", "trainable_layers=2"):
        assert argument in source


def test_the_environment_names_versions_machine_and_commit(grid):
    sweep = {
        "machine": {"cpus": 2, "gpus": []},
        "git": {"commit": "abc", "changed": True},
        "template": "t.ipynb",
        "command": "rbkit sweep t",
        "calls": [{"command": "rbkit sweep s"}, {"command": "rbkit sweep t"}],
    }
    rows = dict(environment_rows(list(grid.runs), [sweep]))
    assert rows["torch"] == "2.9.0"
    assert rows["cpus"] == "2"
    assert rows["git commit"] == "abc, with changes"
    assert sweep_commands([sweep]) == ["rbkit sweep s", "rbkit sweep t"]


def test_links_are_addresses_of_files_whatever_a_folder_is_called(tmp_path):
    run = tmp_path / "runs" / 'javascript:alert(1) "#?%'
    run.mkdir(parents=True)
    (run / "run.html").write_text("")
    ((_, address),) = links(run, tmp_path)
    assert address == "runs/javascript%3Aalert%281%29%20%22%23%3F%25/run.html"


def test_a_record_in_disorder_is_put_in_order(tmp_path, write_run):
    run = write_run(tmp_path / "run", rounds=2)
    run.info = json.loads(json.dumps(run.info)) | {
        "corpus": "text",
        "ledger": {"entries": [1, {"name": 2}, {"name": "step"}]},
        "versions": None,
        "domains": {"names": "abc"},
    }
    info = orderly(run).info
    assert info["corpus"] == {}
    assert [entry["name"] for entry in info["ledger"]["entries"]] == ["step"]
    assert info["domains"]["names"][:2] == ["domain 0", "domain 1"]


def test_the_values_of_marks_can_be_read_by_pointing_at_them(runs):
    made = picture(loss_curves(runs))
    pixels = matplotlib.image.imread(io.BytesIO(base64.b64decode(made["src"].partition(",")[2])))
    losses = runs[-1].metrics("eval")
    words = {f"RnB: optimizer step {row['step']}, {number(row['loss_token'])}" for row in losses}
    points = [point for point in made["points"] if point["text"] in words]
    assert len(points) == len(losses)
    height, width, _ = pixels.shape
    for point in points:  # there is a mark, and no paper
        x, y = (round(float(point[at]) / 1000 * size) for at, size in (("x", width), ("y", height)))
        assert pixels[y - 2 : y + 3, x - 2 : x + 3, :3].min() < 0.7
    rows = picture(domain_sizes(runs[-1].domains))["points"]
    assert any(point["text"].startswith("target q: 00 species") for point in rows)
