"""What the scrubber reads, sends, replays and freezes."""

import json
import shutil

import numpy as np
import pytest

import rbkit as rb
from rbkit.errors import InputError
from rbkit.show.gram_layout import to_cosine
from rbkit.show.scrub.rounds import GRAM_BYTES, rounds_of, sent_rounds, together
from rbkit.show.scrub.scrubber import ScrubberWidget, menu, options_from
from rbkit.show.style import alt_text
from rbkit.train import Run

HOSTILE = [
    "<script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=2>",
    "\u202edlrow\u202c right to left",
    "👩‍🚀🌍 emoji",
    "x" * 10_000,
    "a$b$c",
]


def read(payload, name, kind="<f4"):
    return np.frombuffer(payload[name], kind)


@pytest.fixture(scope="module")
def made(tmp_path_factory, write_run):
    """Runs that differ: RnB, Stratified (no Gram matrix), a killed one, one of other domains."""
    folder = tmp_path_factory.mktemp("scrub")
    return {
        "rnb": write_run(folder / "rnb", "RnB"),
        "stratified": write_run(folder / "stratified", "Stratified"),
        "killed": write_run(folder / "killed", "RnB", status="killed", rounds=7, seed=3),
        "others": write_run(folder / "others", "RnB", names=["b", "00 species, genus, bird", "a"]),
        "hostile": write_run(folder / "hostile", "RnB", names=HOSTILE),
    }


def altered(run, folder, **arrays):
    """A copy of a run with other arrays in its history; None takes one away."""
    shutil.copytree(run.path, folder)
    history = {k: v for k, v in (dict(run.history) | arrays).items() if v is not None}
    np.savez(folder / "history.npz", **history)
    return Run.open(folder)


# --- what is read and sent ---------------------------------------------------------------


def test_the_browser_gets_cosines_and_norms_of_the_recorded_matrices(made):
    rounds = rounds_of(made["rnb"])
    sent = rb.scrub(made["rnb"], display="live").widget.runs[0]
    m = len(rounds.keys)
    triangle = read(sent, "grams", "<f2").reshape(12, -1)
    diagonal = read(sent, "diagonals").reshape(12, m)
    expected = to_cosine(rounds.gram(5))[np.triu_indices(m)]
    np.testing.assert_allclose(triangle[5], expected, atol=1e-3)
    np.testing.assert_allclose(diagonal[5], np.diagonal(rounds.gram(5)), rtol=1e-6)


def test_domains_are_in_dendrogram_order_in_everything_that_is_sent(made):
    run = made["rnb"]
    scrubber = rb.scrub(run, display="live")
    order = rb.show.domain_order(run.history)
    names = [domain["name"] for domain in scrubber.widget.domains]
    assert names == [run.info["domains"]["names"][i] for i in order]
    p = read(scrubber.widget.runs[0], "p").reshape(13, 14)
    np.testing.assert_allclose(p, run.history["p"][:, order], rtol=1e-6)
    last = run.metrics("eval")[-1]["by_domain_token"]
    losses = read(scrubber.widget.runs[0], "by_domain").reshape(13, 14)
    np.testing.assert_allclose(losses[-1], np.array(last)[order], rtol=1e-6)


def test_the_score_is_that_of_the_papers_rule(made):
    rounds = rounds_of(made["rnb"])
    score = rounds.gram(0) @ rounds.q
    np.testing.assert_allclose(rounds.score[0], score / np.linalg.norm(score))


def test_a_domain_that_a_round_did_not_see_is_unknown_not_zero(made):
    rounds = rounds_of(made["rnb"])
    hidden = rounds.names.index("07 protein, gene, cell")
    assert np.isnan(rounds.score[4][hidden])
    assert np.isfinite(rounds.score[5]).all()


def test_large_runs_are_thinned_and_say_so(tmp_path, write_run):
    run = write_run(tmp_path / "big", "RnB", names=[f"d{i}" for i in range(260)], rounds=6)
    scrubber = rb.scrub(run, display="live")
    sent = scrubber.widget.runs[0]
    size = sum(len(v) for v in sent.values() if isinstance(v, bytes))
    assert len(sent["ids"]) == 200
    assert sent["total"] == 260
    assert size < 2 * GRAM_BYTES
    assert any("200 of 260 domains" in text for text in scrubber.widget.notices)
    assert len(alt_text(scrubber.freeze(2))) > 100


def test_matrices_that_do_not_fit_are_sent_when_they_are_asked_for(made, monkeypatch):
    monkeypatch.setattr("rbkit.show.scrub.rounds.GRAM_BYTES", 1000)
    scrubber = rb.scrub(made["rnb"], display="live")
    answers = []
    monkeypatch.setattr(scrubber.widget, "send", lambda m, buffers=None: answers.append(buffers))
    assert sent_rounds(scrubber.runs[0]).tolist() == [0, 6, 11]
    assert any("3 of 12 Gram matrices" in text for text in scrubber.widget.notices)
    scrubber._on_message(None, {"type": "gram", "run": 0, "round": 2, "token": "t"}, [])
    np.testing.assert_allclose(
        np.frombuffer(answers[0][1], "<f4"), np.diagonal(scrubber.runs[0].gram(2)), rtol=1e-6
    )


# --- unfinished, damaged, tiny -----------------------------------------------------------


def test_a_killed_run_shows_what_it_recorded(made):
    scrubber = rb.scrub(made["killed"], display="live")
    assert scrubber.stops[-1] == 175
    assert any("killed" in text for text in scrubber.widget.notices)


def test_a_run_before_its_first_round_is_shown_without_a_slider(tmp_path, made):
    run = altered(
        made["rnb"],
        tmp_path / "new",
        step=np.zeros(0),
        p=made["rnb"].history["p"][:1],
        counts=None,
        gram=None,
        noise_floor=None,
        diagonal_debiased=None,
    )
    scrubber = rb.scrub(run, display="live")
    assert scrubber.stops == []
    assert "No round has ended yet." in scrubber.widget.notices
    assert "0 rounds" in repr(scrubber)
    assert scrubber.freeze()
    (tmp_path / "new" / "history.npz").unlink()
    without = rb.scrub(tmp_path / "new", display="live")
    assert without.freeze()
    assert len(without.widget.domains) == 14  # their losses may be known


@pytest.mark.parametrize("shape", [(12, 14), (11, 14, 14), (12, 3, 3)])
def test_a_damaged_gram_matrix_is_left_out_and_named(tmp_path, made, shape):
    scrubber = rb.scrub(
        altered(made["rnb"], tmp_path / "run", gram=np.zeros(shape)), display="live"
    )
    assert scrubber.widget.runs[0]["gram"] is False
    assert any(str(shape) in text for text in scrubber.widget.notices)


def test_a_gram_matrix_of_zeros_and_infinities_does_no_harm(tmp_path, made):
    gram = np.zeros((12, 14, 14))
    gram[3] = np.inf
    gram[4] = 1e300
    scrubber = rb.scrub(altered(made["rnb"], tmp_path / "run", gram=gram), display="live")
    assert scrubber.freeze(2)


def test_two_domains_are_enough(tmp_path, write_run):
    scrubber = rb.scrub(write_run(tmp_path / "run", "RnB", names=["a", "b"]), display="live")
    assert scrubber.freeze(3)
    assert scrubber.replay("Target").p.shape == (13, 2)


def test_no_run_no_scrubber(tmp_path):
    with pytest.raises(InputError, match=r"no run\.json there"):
        rb.scrub(tmp_path)


# --- two runs ----------------------------------------------------------------------------


def test_two_runs_have_one_slider_by_step_and_one_scale(made):
    scrubber = rb.scrub(made["rnb"], made["killed"], display="live")
    assert scrubber.stops == list(range(25, 301, 25))
    assert any(
        "Rounds differ: 12 up to step 300, and 7 up to step 175" in text
        for text in scrubber.widget.notices
    )
    assert (
        scrubber.widget.scale["cosine"]
        >= rb.scrub(made["rnb"], display="live").widget.scale["cosine"]
    )


def test_domains_of_two_runs_are_matched_by_name(made):
    first, second = rounds_of(made["rnb"]), rounds_of(made["others"])
    both = together([first, second])
    assert both.shared == 1
    assert len(both.domains) == 16
    names = [both.domains[i]["name"] for i in both.ids[1]]
    assert names == second.names
    again = rounds_of(made["others"], first.keys)
    assert again.names[0] == "00 species, genus, bird"
    notices = rb.scrub(made["rnb"], made["others"], display="live").widget.notices
    assert any("share 1 of 14 and 3 domains" in text for text in notices)


def test_domains_of_the_same_name_stay_apart(made):
    known = {**made["others"].info["domains"], "names": ["a", "a", "b"]}
    info = {**made["others"].info, "domains": known}
    rounds = rounds_of(made["others"].with_(info=info))
    assert sorted(rounds.keys) == [("a", 0), ("a", 1), ("b", 0)]


def test_compare_puts_a_run_beside_and_takes_it_away(made):
    scrubber = rb.scrub(made["rnb"], display="live")
    assert len(scrubber.compare(made["stratified"]).widget.runs) == 2
    assert len(scrubber.compare(None).widget.runs) == 1


# --- replay ------------------------------------------------------------------------------


def test_a_replay_is_that_of_rbkit_replay_in_the_order_of_the_widget(made):
    scrubber = rb.scrub(made["rnb"], display="live")
    done = scrubber.replay("RnB", prior="target")
    expected = rb.replay(made["rnb"], "RnB", {"prior": "target"})
    np.testing.assert_array_equal(done.p, expected.p)
    sent = scrubber.widget.replay
    assert sent["label"] == "RnB(prior=target)"
    np.testing.assert_allclose(
        read(sent, "p").reshape(13, 14), expected.p[:, scrubber.runs[0].domain_indices], rtol=1e-6
    )
    np.testing.assert_allclose(read(sent, "distance"), expected.distance, rtol=1e-6)
    assert scrubber.forget().widget.replay == {}


def test_the_menu_offers_what_the_record_can_serve_and_says_why_not_else(made):
    entries = {entry["name"]: entry for entry in menu(made["rnb"])}
    assert not entries["RnB"]["reason"]
    assert "target_gradient" in entries["DGA"]["reason"]
    assert "'gram'" in {e["name"]: e for e in menu(made["stratified"])}["RnB"]["reason"]
    options = {option["name"]: option for option in entries["RnB"]["options"]}
    assert options["prior"]["choices"] == ["uniform", "target", "previous"]
    assert options["effective_domains"]["optional"]
    assert "max_epochs" not in options
    json.dumps(list(entries.values()))  # goes to the browser


def test_the_menu_begins_with_the_runs_own_options(tmp_path, made):
    shutil.copytree(made["rnb"].path, tmp_path / "run")
    info = made["rnb"].info
    info = {**info, "parameters": {**info["parameters"], "mixer_options": {"lam": 7.0}}}
    (tmp_path / "run" / "run.json").write_text(json.dumps(info))
    entry = next(e for e in menu(Run.open(tmp_path / "run")) if e["name"] == "RnB")
    assert entry["options"][0]["value"] == 7.0


def test_fields_become_options():
    assert options_from("RnB", {"lam": 2, "effective_domains": ""}) == {
        "lam": 2.0,
        "effective_domains": None,
    }
    assert options_from("MGDA", {"max_iters": 50.0}) == {"max_iters": 50}
    assert options_from("RnB", {"lam": "much"}) == {"lam": "much"}  # the rule says what is wrong


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"type": "replay", "mixer": "RnB", "fields": {"lam": "much"}}, "'much' is not a number"),
        ({"type": "replay", "mixer": "DGA", "fields": {}}, "target_gradient"),
        ({"type": "replay", "mixer": "Nothing"}, "is unknown"),
        ({"type": "gram", "run": 5, "round": 0}, "IndexError"),
        ({"type": "__init__"}, "is unknown"),
        ("nonsense", "is unknown"),
    ],
)
def test_what_goes_wrong_is_answered_not_raised(made, monkeypatch, message, said):
    scrubber = rb.scrub(made["rnb"], display="live")
    answers = []
    monkeypatch.setattr(scrubber.widget, "send", lambda m, buffers=None: answers.append(m))
    scrubber._on_message(None, message, [])
    assert answers[0]["type"] == "error"
    assert said in answers[0]["text"]
    assert scrubber.replayed is None


# --- the place, the figure, the notebook -------------------------------------------------


def test_the_place_is_set_from_python_too(made):
    scrubber = rb.scrub(made["rnb"], display="live")
    assert scrubber.at == 11
    scrubber.at = -12
    assert scrubber.widget.at == 0
    with pytest.raises(InputError, match="use 0 to 11"):
        scrubber.at = 12


def test_the_figure_shows_n_rounds_of_each_run_and_says_what_it_shows(made):
    scrubber = rb.scrub(made["rnb"], made["killed"], display="off")
    scrubber.replay("RnB", prior="target")
    figure = scrubber.freeze(3)
    titles = [ax.get_title(loc="left") for ax in figure.get_axes()]
    assert [title for title in titles if title.startswith("step")] == [
        "step 25",
        "step 175",
        "step 300",
        "step 25",
        "step 100",
        "step 175",
    ]
    assert sum("proportions" in title for title in titles) == 2
    said = alt_text(figure)
    assert "closest pair" in said
    assert "would have drawn" in said
    with pytest.raises(InputError, match="whole number"):
        scrubber.freeze(0)


def test_names_of_strangers_do_not_break_the_figure(made):
    scrubber = rb.scrub(made["hostile"], display="final")
    data, metadata = scrubber._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain"}
    assert metadata["image/png"]["alt"] == data["text/plain"]


def test_the_mode_decides_what_a_cell_shows(made, monkeypatch):
    assert rb.scrub(made["rnb"], display="off")._repr_mimebundle_() == {
        "text/plain": "Scrubber of RnB: 12 rounds, 14 domains"
    }
    live = rb.scrub(made["rnb"], display="live")._repr_mimebundle_()[0]
    assert "application/vnd.jupyter.widget-view+json" in live
    monkeypatch.setenv("RBKIT_DISPLAY", "batch")
    assert set(rb.scrub(made["rnb"])._repr_mimebundle_()[0]) == {"image/png", "text/plain"}
    with pytest.raises(InputError, match="'loud'"):
        rb.scrub(made["rnb"], display="loud")


def test_a_figure_opens_no_widget(made, monkeypatch):
    opened = []
    monkeypatch.setattr(ScrubberWidget, "open", lambda self: opened.append(self))
    for mode in ("batch", "final", "off"):
        scrubber = rb.scrub(made["rnb"], display=mode)
        assert scrubber.at == 11  # the last round, as in the widget
        scrubber.at = 2
        scrubber.replay("Target")
        scrubber.forget().compare(made["stratified"]).refresh()
        if mode == "batch":
            scrubber._repr_mimebundle_()
        assert not opened
    assert rb.scrub(made["rnb"], display="live").at == 11
    assert len(opened) == 1


def test_the_function_is_there_before_and_after_its_package_is_imported(made):
    import rbkit.show.scrub.scrubber

    assert rb.show.scrub(made["rnb"], display="off").stops == list(range(25, 301, 25))
    assert rbkit.show.scrub.scrubber.ScrubberWidget


def test_a_run_that_goes_on_while_it_is_read_is_read_once(made):
    class Growing:
        def __init__(self, run):
            self.run, self.rows = run, run.metrics("eval")[:1]

        def __getattr__(self, name):
            return getattr(self.run, name)

        def metrics(self, kind=None):
            self.rows = [*self.rows, self.rows[-1]]
            return self.rows if kind == "eval" else self.run.metrics(kind)

    rounds = rounds_of(Growing(made["rnb"]))
    assert rounds.evaluation.shape[1] == len(rounds.by_domain)


def test_proportions_that_nobody_told_are_unknown(tmp_path, made):
    p = np.array(made["rnb"].history["p"])
    p[:2] = np.nan
    rounds = rounds_of(altered(made["rnb"], tmp_path / "run", p=p))
    assert np.isnan(rounds.p[:2]).all()
    assert np.isnan(rounds.effective[:2]).all()
    assert np.isfinite(rounds.p[2:]).all()
