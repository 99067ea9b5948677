"""Runs become variants, and a baseline is chosen among them."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbkit.errors import InputError
from rbkit.report.compare import compare


def run(mixer="RnB", seed=0, loss=4.0, status="ok", path=None, ended="2026-01-01", **parameters):
    """A run with nothing but what comparisons ask of it."""
    parameters = {"mixer": mixer, "seed": seed, "steps": 100, **parameters}
    final = None if loss is None else {"loss_token": loss}
    path = path or "/runs/" + "-".join(map(str, [*parameters.values(), ended]))
    return SimpleNamespace(
        path=Path(path),
        status=status,
        history={},
        domains=None,
        metrics=lambda kind: [],
        info={"parameters": parameters, "final": final, "ended": ended},
    )


def grid(mixers=("Stratified", "RnB"), ks=(10, 30), seeds=range(3)):
    return [run(mixer, seed, k=k) for mixer in mixers for k in ks for seed in seeds]


GRID = grid()


def labels(comparison):
    return [variant.label for variant in comparison.variants]


def test_labels_say_only_what_varies():
    assert labels(compare(grid())) == [
        "Stratified · k 10",
        "Stratified · k 30",
        "RnB · k 10",
        "RnB · k 30",
    ]
    assert labels(compare(grid(ks=[10]))) == ["Stratified", "RnB"]
    assert labels(compare(grid(["RnB"]))) == ["k 10", "k 30"]
    assert labels(compare([run("RnB")])) == ["RnB"]


def test_seeds_and_folders_are_no_variants():
    found = compare([run(seed=seed, run_dir=f"/runs/{seed}", resume=seed > 1) for seed in range(3)])
    assert len(found.variants) == 1
    assert found.varied == ()
    assert found.variants[0].seeds == (0, 1, 2)
    assert found.shared["steps"] == 100


def test_numbers_are_in_order_of_size_and_usual_baselines_first():
    runs = [run(mixer, k=k) for mixer in ("ADO", "RnB", "Target") for k in (100, 8, 30)]
    assert [v.values["k"] for v in compare(runs).variants[:3]] == [8, 30, 100]
    assert [v.mixer for v in compare(runs).variants[::3]] == ["Target", "ADO", "RnB"]


@given(st.permutations(GRID))
def test_the_order_of_the_runs_does_not_matter(runs):
    assert compare(runs) == compare(GRID)


def test_a_mixer_is_the_same_however_it_is_spelt():
    found = compare([run("rnb", 0), run("RnB", 1), run("STRATIFIED", 0)])
    assert labels(found) == ["Stratified", "RnB"]
    assert len(found.variants[1].runs) == 2


@pytest.mark.parametrize(
    ("mixers", "expected"),
    [
        (("RnB", "Target", "Stratified"), {"mixer": "Stratified"}),
        (("RnB", "Proportional", "Target"), {"mixer": "Target"}),
        (("RnB", "Proportional"), {"mixer": "Proportional"}),
        (("RnB", "DoGE"), {"mixer": "DoGE"}),
        (("RnB",), {"k": 10}),
    ],
)
def test_the_usual_baseline_is_taken(mixers, expected):
    assert compare(grid(mixers)).baseline == expected


def test_a_baseline_shares_all_that_is_not_named():
    found = compare(grid(), "mixer=stratified")
    assert found.baseline_label == "Stratified"
    assert found.baseline_of(found.variant("RnB · k 30")) == found.variant("Stratified · k 30")
    by_k = compare(grid(), {"k": 10})
    assert by_k.baseline_of(by_k.variant("RnB · k 30")) == by_k.variant("RnB · k 10")
    both = compare(grid(), "mixer=Stratified, k=10")
    assert both.baseline_of(both.variant("RnB · k 30")) == both.variant("Stratified · k 10")


@pytest.mark.parametrize("given", ["k=8, 12", "k=[8, 12]", "k=8,12", {"k": [8, 12]}])
def test_a_value_may_be_written_in_any_way(given):
    assert compare(grid(ks=([8, 12], 30)), given).baseline == {"k": (8, 12)}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("mixer=Targt", "'Targt' is in none of the runs; use one of Stratified, RnB"),
        ("k=11", "'11' is in none of the runs; use one of 10, 30"),
        ("steps=7", "use one of 100"),
        ("colour=red", "what varies: mixer, k"),
        ("Target", 'write for example "mixer=Target"'),
        ({"mixer": "Target"}, "use one of Stratified, RnB"),
    ],
)
def test_a_baseline_that_is_not_there_is_refused_with_those_that_are(given, told):
    with pytest.raises(InputError, match="baseline") as error:
        compare(grid(), given)
    assert told in str(error.value)


def test_values_that_no_variant_has_together_are_refused():
    with pytest.raises(InputError, match="together"):
        compare([run("RnB", k=10), run("Target", k=30)], "mixer=RnB k=30")


def test_options_of_a_mixer_need_not_be_those_of_the_baseline():
    runs = [
        run("Stratified", mixer_options={}),
        *[run("RnB", mixer_options={"lam": lam}) for lam in (1.0, 2.0)],
    ]
    found = compare(runs)
    assert labels(found) == ["Stratified", "RnB · lam 1", "RnB · lam 2"]
    assert found.baseline_of(found.variants[2]).label == "Stratified"


def test_options_that_belong_to_a_mixer_do_not_tell_it_apart_once_more():
    doge = {"mu": 0.01, "clip": 5.0}
    rnb = [{"lam": lam, "prior": "uniform", "floor": 0.0} for lam in (1.0, 2.0)]
    plain = [run("Stratified", mixer_options={}, layer=None), run("DoGE", mixer_options=doge)]
    found = compare([*plain, run("RnB", mixer_options=rnb[0], layer="lm_head")])
    assert labels(found) == ["Stratified", "DoGE", "RnB"]
    assert found.varied == ("mixer",)
    found = compare([*plain, *(run("RnB", mixer_options=options) for options in rnb)])
    assert labels(found) == ["Stratified", "DoGE", "RnB · lam 1", "RnB · lam 2"]
    assert found.baseline_of(found.variants[3]).label == "Stratified"


def test_options_that_are_the_same_in_all_runs_are_said():
    runs = [run("RnB", seed, mixer_options={"lam": 3.0}) for seed in (0, 1)]
    assert compare(runs).shared["mixer_options"] == {"lam": 3.0}
    assert "mixer_options" not in compare([*runs, run("ADO", mixer_options={"mu": 1})]).shared


def test_runs_without_a_seed_are_said_not_to_pair():
    runs = [run(mixer, None, path=f"/{mixer}{i}") for mixer in ("RnB", "ADO") for i in (0, 1)]
    assert "record no seed" in " ".join(map(str, compare(runs).cautions()))


def test_runs_without_a_final_loss_are_kept_apart_and_counted():
    runs = [
        run("Stratified"),
        run("RnB"),
        run("RnB", 1, status="killed"),
        run("DoGE", status="failed"),
        run("ADO", loss=None),
    ]
    found = compare(runs)
    assert labels(found) == ["Stratified", "RnB"]
    assert [r.status for r in found.variants[1].unfinished] == ["killed"]
    assert [variant.label for variant in found.lost] == ["ADO", "DoGE"]
    said = " ".join(map(str, found.cautions()))
    assert "3 of 5 runs have no final loss (1 failed, 1 killed, 1 without an eval loss)" in said
    assert "no run of it has finished" in said


def test_a_baseline_of_which_every_run_failed_is_no_error():
    found = compare([run("Target", status="failed"), run("RnB")], "mixer=Target")
    assert found.baseline_of(found.variants[0]) is None
    assert "No finished baseline has the settings of RnB" in " ".join(map(str, found.cautions()))


def test_of_a_repeated_seed_the_latest_run_is_kept_and_that_is_said():
    old, new = run("RnB", ended="2026-01-01"), run("RnB", ended="2026-01-02", loss=3.0)
    found = compare([new, old, new])
    assert found.variants[0].runs == (new,)
    assert found.repeated == (old,)
    assert "1 run repeated a seed" in " ".join(map(str, found.cautions()))


def test_what_follows_from_the_data_of_a_seed_is_no_variant():
    runs = [run(mixer, seed, vocab_size=4000 + seed) for mixer in ("RnB", "ADO") for seed in (0, 1)]
    assert compare(runs).varied == ("mixer",)
    runs.append(run("RnB", 0, vocab_size=99, ended="later"))
    assert compare(runs).varied == ("mixer", "vocab_size")
    assert "different units" in " ".join(map(str, compare(runs).cautions()))


def test_folders_of_domains_count_only_where_nothing_else_tells_runs_apart():
    own = [run(seed=seed, domains=f"/runs/{seed}/domains") for seed in (0, 1)]
    assert compare(own).varied == ()
    shared = [run(seed=seed, domains=f"/d/{d}") for seed in (0, 1) for d in ("clusters", "labels")]
    assert labels(compare(shared)) == ["domains clusters", "domains labels"]


def test_a_parameter_that_only_some_runs_record_is_a_setting():
    runs = [run("RnB", 0), run("RnB", 0, trick=True, more=1), run("RnB", 1, trick=True, more=1)]
    found = compare(runs)
    assert labels(found) == ["more 1", "more not recorded"]
    assert found.repeated == ()
    assert found.incidental == ("trick",)
    assert "trick" not in found.shared


def test_a_run_that_had_no_time_to_record_all_is_no_other_variant():
    runs = [run("RnB", 0, buckets=4), run("RnB", 1, status="failed"), run("ADO", buckets=9)]
    found = compare(runs)
    assert labels(found) == ["ADO", "RnB"]
    assert len(found.variants[1].unfinished) == 1


def test_what_the_run_notebook_did_not_record_yet_is_its_default():
    of_it = {"corpus": "demo", "embedder": "tfidf", "k": 8}
    assert compare([run(**of_it), run(seed=1, far="keep", **of_it)]).varied == ()
    assert compare([run(**of_it), run(seed=1, far="apart", **of_it)]).varied == ("far",)


def test_what_is_recorded_as_an_argument_of_training_is_no_guess():
    of_train = run("RnB", 0)
    of_train.info["arguments"] = {"trick": True}
    found = compare([of_train, run("RnB", 1, trick=True), run("RnB", 2, trick=False)])
    assert labels(found) == ["trick no", "trick yes"]
    assert found.variants[1].seeds == (0, 1)


def by_hand(mixer, seed, corpus="demo", names="ab", path=None, method=None, **parameters):
    """A run of rb.train, which records corpus and domains beside the parameters."""
    made = run(mixer, seed, path=path or f"/{mixer}-{seed}-{corpus}-{names}", **parameters)
    made.info["corpus"] = {"name": corpus, "fingerprint": f"{corpus}-{seed}"}
    made.info["domains"] = {"names": list(names)}
    made.domains = method and SimpleNamespace(method={"name": method})
    return made


TWO = [(mixer, seed) for mixer in ("Stratified", "RnB") for seed in (0, 1)]


def test_runs_by_hand_on_two_corpora_are_no_repeats():
    found = compare([by_hand(*each, corpus) for corpus in ("demo", "wiki") for each in TWO])
    assert labels(found) == [
        "Stratified · corpus demo",
        "Stratified · corpus wiki",
        "RnB · corpus demo",
        "RnB · corpus wiki",
    ]
    assert found.repeated == ()
    assert found.setting(found.runs[0], "corpus") in ("demo", "wiki")


def test_a_corpus_that_changed_under_its_name_is_another_one():
    old, new = (by_hand("RnB", 0, path=f"/{i}") for i in range(2))
    old.info["corpus"]["fingerprint"] = "old"
    found = compare([old, new])
    assert found.repeated == ()
    assert [variant.values["corpus"] for variant in found.variants] == ["demo-0", "old"]


@pytest.mark.parametrize(
    ("methods", "second", "told"),
    [
        ((None, None), "abc", [2, 3]),
        (("KMeans", "Labels"), "abc", ["KMeans", "Labels"]),
        (("KMeans", "KMeans"), "abc", [2, 3]),
    ],
)
def test_runs_by_hand_with_other_domains_are_no_repeats(methods, second, told):
    found = compare(
        [
            by_hand(*each, names=names, method=method)
            for each in TWO
            for names, method in zip(("ab", second), methods, strict=True)
        ]
    )
    assert found.repeated == ()
    assert [variant.values["domains"] for variant in found.variants] == told * 2


def test_domains_of_the_same_number_are_told_apart_too():
    found = compare([by_hand("RnB", 0, names=names) for names in ("ab", "xy")])
    assert found.repeated == ()
    assert len(found.variants) == 2


def test_a_run_by_hand_on_the_data_of_the_notebook_is_compared_with_its_runs():
    of_it = {"corpus": "demo", "embedder": "tfidf", "k": 8}
    notebook = by_hand("Stratified", 0)
    notebook.info["parameters"] |= of_it
    assert labels(compare([notebook, by_hand("RnB", 0)])) == ["Stratified", "RnB"]
    assert "not recorded" in labels(compare([notebook, by_hand("RnB", 0, names="xy")]))[-1]


def test_labels_are_never_the_same():
    values = ["/a/x.csv", "/b/x.csv", 1, "1"]
    found = compare([run(corpus=value, path=f"/{i}") for i, value in enumerate(values)])
    assert len(set(labels(found))) == 4


def test_nothing_and_one_run_are_comparisons_too():
    assert compare([]).variants == ()
    assert compare([]).baseline == {}
    alone = compare([run()])
    assert alone.is_baseline(alone.variants[0])
    assert alone.baseline_label == "RnB"
    assert alone.cautions() == []
