"""Each published rule, in a case small enough to be computed by hand from its formula."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, minimize
from scipy.signal import savgol_filter
from scipy.special import softmax

from rbkit.balance import (
    ADO,
    DGA,
    MGDA,
    ODM,
    Aioli,
    DoGE,
    DoReMi,
    GramEstimate,
    GroupDRO,
    Observation,
    RnB,
    SkillIt,
    UPGrad,
)
from rbkit.balance.mixers.ado import fit_scaling_law
from rbkit.balance.mixers.torchjd import project
from rbkit.balance.signals import FreshGradients, ProbeRuns, TrainLosses
from rbkit.errors import InputError

NAN = np.nan
Q3, SIZES3 = np.array([0.5, 0.3, 0.2]), np.array([4, 9, 16])


def seen(p=None, q=None, sizes=None, **signals):
    m = len(next(x for x in (p, q, sizes) if x is not None))
    p = np.full(m, 1 / m) if p is None else np.array(p)
    q = np.full(m, 1 / m) if q is None else np.array(q)
    sizes = np.full(m, 9) if sizes is None else np.array(sizes)
    return Observation(0, p, q, sizes, **signals)


def losses(rows, excess=None, examples=None):
    rows = np.array(rows, dtype=float)
    there = np.isfinite(rows).astype(int)
    examples = there if examples is None else np.array(examples)
    return TrainLosses(rows, 10 * examples, examples, None if excess is None else np.array(excess))


def estimate(gram):
    nothing = np.full(len(gram), NAN)
    return GramEstimate(np.array(gram, dtype=float), np.full(len(gram), 8), nothing, nothing)


# ------------------------------------------------------------------ R&B


def test_rnbs_plain_form_is_algorithm_3s():
    gram = np.array([[2.0, 0.5, 0.1], [0.5, 1.0, 0.2], [0.1, 0.2, 3.0]])
    found = RnB(lam=2.0, eta=0.3, form="plain").update(seen(q=Q3, gram=estimate(gram)))
    np.testing.assert_allclose(found, softmax(0.3 * 2.0 * gram @ Q3))


def test_rnbs_normalised_form_does_not_depend_on_eta():
    gram = estimate([[2.0, 0.5], [0.5, 1.0]])
    one, other = (RnB(eta=eta).update(seen(p=[0.5, 0.5], gram=gram)) for eta in (1.0, 7.0))
    np.testing.assert_array_equal(one, other)


# ------------------------------------------------------------------ Skill-It


BEFORE = np.array([2.0, 4.0, 5.0])
AFTER = np.array([[1.0, 3.8, 5.0], [1.6, 2.0, 5.5], [2.0, 3.6, 3.0]])
GRAPH = np.array([[0.5, 0.05, 0.0], [0.2, 0.5, -0.1], [0.0, 0.1, 0.4]])


def skill_it(**options):
    rule = SkillIt(**options)
    rule.start(Q3, SIZES3)
    return rule, rule.prepare(ProbeRuns(BEFORE, AFTER, 200))


def test_skill_it_begins_with_the_row_sums_of_its_graph():
    _, first = skill_it(eta=0.8)
    np.testing.assert_allclose(first, softmax(0.8 * GRAPH.sum(axis=1)))


def test_skill_it_sums_the_losses_of_its_window_and_forgets_older_ones():
    rule, p = skill_it(eta=0.8, window=2)
    seq = [np.array([1.8, 3.0, 4.0]), np.array([1.5, 2.5, 3.9]), np.array([1.4, 2.4, 3.0])]
    shown = [BEFORE, *seq]
    for t, now in enumerate(seq):
        p = rule.update(seen(p, Q3, SIZES3, eval_losses=now))
        np.testing.assert_allclose(p, softmax(0.8 * GRAPH @ (shown[t] + shown[t + 1])))


def test_skill_its_options_are_those_of_the_code():
    now = np.array([1.0, 3.0, 4.0])
    at = seen(q=Q3, sizes=SIZES3, eval_losses=now)
    total = BEFORE + now
    rule, _ = skill_it(eta=0.8, normalise=True)
    np.testing.assert_allclose(rule.update(at), softmax(0.8 * GRAPH @ (total / BEFORE)))
    rule, _ = skill_it(eta=0.8, decay=True)
    np.testing.assert_allclose(rule.update(at), softmax(0.8 * 11 / 8 * GRAPH @ total))
    rule, first = skill_it(eta=0.8, targets=[0, 2])
    np.testing.assert_allclose(first, softmax(0.8 * GRAPH[:, [0, 2]].sum(axis=1)))
    np.testing.assert_allclose(
        rule.update(at), softmax(0.8 * (GRAPH @ total - GRAPH[:, 1] * total[1]) / 2)
    )


def test_skill_its_dynamic_lambda_halves_the_edges_between_domains():
    rule, _ = skill_it(eta=0.8, halve_edges=True, window=1)
    now = np.array([1.0, 3.0, 4.0])
    at = seen(q=Q3, sizes=SIZES3, eval_losses=now)
    halved = GRAPH / 2 + np.diag(np.diag(GRAPH)) / 2
    np.testing.assert_allclose(rule.update(at), softmax(0.8 * GRAPH @ now))
    np.testing.assert_allclose(rule.update(at), softmax(0.8 * halved @ now))


def test_an_edge_drawn_as_1_between_domains_is_a_half():
    rule = SkillIt(eta=1.0)
    rule.start(np.full(2, 0.5), np.array([9, 9]))
    found = rule.prepare(ProbeRuns(np.array([2.0, 2.0]), np.array([[0.0, 0.0], [2.0, 2.0]]), 9))
    np.testing.assert_allclose(found, softmax([1 + 0.5, 0.0]))


def test_skill_it_needs_targets_that_exist():
    with pytest.raises(InputError, match="name some of 0 to 2"):
        SkillIt(targets=[3]).start(Q3, SIZES3)


# ------------------------------------------------------------------ Aioli


def run_aioli(rule, drop, rounds, sizes=(9, 9, 9), round_steps=100):
    """Drive a rule with eval losses that fall by ``drop @ p`` for each step on p."""
    m, sizes = len(sizes), np.array(sizes)
    q, level = np.full(m, 1 / m), np.full(m, 10.0)
    p, path = rule.start(q, sizes), []
    ends = 0
    while ends < rounds * round_steps:
        steps = rule.round_length(round_steps)
        ends += steps
        path.append((steps, p))
        level = level - steps * drop @ p
        p = rule.update(Observation(len(path), p, q, sizes, eval_losses=level.copy()))
    assert ends == rounds * round_steps
    return path


DROP = np.array([[3.0, 1.0, 0.5], [0.2, 2.0, 0.4], [0.3, 0.6, 1.0]]) / 1000


def test_aioli_recovers_a_linear_mixing_law_from_its_sweeps():
    """L_i falls by (A p)_i: then A is what LearnParams finds, whatever h is."""
    for h in (1.0, 0.75, 0.5):
        path = run_aioli(Aioli(one_hot=h, lp_rounds=2, lp_steps=4, eta=3.0), DROP, rounds=1)
        law = 4 * DROP
        np.testing.assert_allclose(path[-1][1], softmax(3.0 * (law / law.sum()).sum(axis=0)))


def test_aioli_sweeps_smoothed_one_hot_mixtures_and_gives_the_rest_to_p():
    path = run_aioli(Aioli(one_hot=0.6, lp_rounds=2, lp_steps=4, lead_steps=7), DROP, rounds=2)
    assert [steps for steps, _ in path] == [7, *[4] * 6, 69, *[4] * 6, 76]
    np.testing.assert_allclose(path[0][1], 1 / 3)
    for sweep in (path[1:4], path[4:7], path[8:11], path[11:14]):
        mixtures = np.array([p for _, p in sweep])
        np.testing.assert_allclose(np.sort(mixtures, axis=1), [[0.2, 0.2, 0.6]] * 3)
        assert set(mixtures.argmax(axis=1)) == {0, 1, 2}


def test_aioli_accumulates_weights_without_an_average_and_not_with_one():
    sums = (DROP / DROP.sum()).sum(axis=0)
    twice = run_aioli(Aioli(lp_steps=4, eta=3.0), DROP, rounds=2)[-1][1]
    np.testing.assert_allclose(twice, softmax(2 * 3.0 * sums))
    averaged = run_aioli(Aioli(lp_steps=4, eta=3.0, ema=0.4), DROP, rounds=2)[-1][1]
    np.testing.assert_allclose(averaged, softmax(3.0 * sums))


def test_aiolis_average_is_over_rounds():
    rule = Aioli(lp_steps=5, eta=3.0, ema=0.4, one_hot=1.0)
    q, sizes, level = np.full(2, 0.5), np.array([9, 9]), np.array([9.0, 9.0])
    p, laws = rule.start(q, sizes), [np.array([[3.0, 1], [1, 2]]), np.array([[1.0, 4], [2, 1]])]
    for law in laws:
        for segment in range(4 if law is laws[0] else 3):  # a lead, two mixtures, the rest
            one_hot = (p == 1).any()
            level = level - (law @ p if one_hot else 0)
            p = rule.update(Observation(segment, p, q, sizes, eval_losses=level.copy()))
            if law is laws[1] and segment == 1:
                break
    first, second = (law / law.sum() for law in laws)
    np.testing.assert_allclose(p, softmax(3.0 * (0.6 * second + 0.4 * first).sum(axis=0)))


def test_aioli_shifts_a_law_with_rising_losses():
    drop = DROP.copy()
    drop[0, 2] = -1e-3
    path = run_aioli(Aioli(lp_steps=4, eta=3.0), drop, rounds=1)
    law = drop + 1e-3
    np.testing.assert_allclose(path[-1][1], softmax(3.0 * (law / law.sum()).sum(axis=0)))


def test_aioli_does_not_sweep_domains_without_training_data():
    path = run_aioli(Aioli(lp_steps=5), DROP, rounds=1, sizes=(9, 0, 9))
    assert [steps for steps, _ in path] == [5, 5, 5, 85]
    assert all(p[1] == 0 for _, p in path)


def test_aiolis_orders_differ_between_rounds_and_seeds():
    orders = set()
    for seed in range(3):
        path = run_aioli(Aioli(seed=seed, lp_steps=1), np.eye(7) / 1000, 3, sizes=(9,) * 7)
        swept = [p.argmax() for steps, p in path if steps == 1][1:]
        orders |= {tuple(swept[7 * t : 7 * t + 7]) for t in range(3)}
    assert len(orders) == 9


def test_aioli_refuses_rounds_too_short_for_its_sweeps():
    rule = Aioli(lp_rounds=2, lp_steps=5)
    rule.start(Q3, SIZES3)
    with pytest.raises(InputError, match="LearnParams alone takes 35 steps of 35"):
        rule.round_length(35)
    with pytest.raises(InputError, match="all mixtures are uniform"):
        Aioli(one_hot=0.5).start(np.full(2, 0.5), np.array([1, 1]))


# ------------------------------------------------------------------ DGA and DoGE


def test_dga_multiplies_weights_and_averages_them_with_the_last():
    target = np.array([0.4, -0.2, 0.1])
    fresh = FreshGradients(np.ones(3), target=target, target_norm=1.0)
    rule, p = DGA(eta=2.0, ema=0.25), np.array([0.2, 0.3, 0.5])
    for _ in range(3):
        expected = 0.25 * p + 0.75 * softmax(np.log(p) + 2.0 * target)
        p = rule.update(seen(p, gradients=fresh))
        np.testing.assert_allclose(p, expected)


VECTORS = np.array([[8.0, 0.0], [3.0, 4.0], [-1.0, 1.0]])  # norms 8, 5, sqrt 2


def fresh_gradients(aim=(0.0, 10.0)):
    aim = np.array(aim)
    return FreshGradients(
        np.linalg.norm(VECTORS, axis=1),
        VECTORS @ aim,
        float(np.linalg.norm(aim)),
        VECTORS @ VECTORS.T,
    )


def clipped(vector):
    return vector * min(1, 5 / np.linalg.norm(vector))


@pytest.mark.parametrize("diagonal", ["kept", "dropped"])
def test_doge_weighs_up_what_helps_all_domains(diagonal):
    g = np.array([clipped(v) for v in VECTORS])
    products = g @ g.T
    if diagonal == "dropped":
        products -= np.diag(np.diag(products))
    rate, mu, eps, p = 2e-3, 0.02, 0.1, np.array([0.2, 0.3, 0.5])
    rule, path = DoGE(mu=mu, smoothing=eps, diagonal=diagonal), []
    for _ in range(2):
        w = np.clip(rate * products.sum(axis=1) / np.linalg.norm(g, axis=1).mean(), 0, 5 * rate)
        expected = (1 - eps) * softmax(np.log(p) + w / mu) + eps / 3
        p = rule.update(seen(p, gradients=fresh_gradients(), learning_rate=rate))
        np.testing.assert_allclose(p, expected, rtol=1e-5)
        path.append(p)
    assert 0 < w.min() + w.max() <= 5 * rate * 2  # neither all clipped nor all zero
    np.testing.assert_allclose(rule.proposal(), np.mean(path, axis=0))


def test_doge_can_help_the_eval_set_instead():
    g, aim, rate = np.array([clipped(v) for v in VECTORS]), clipped(np.array([0.0, 10.0])), 1e-3
    w = np.clip(rate * g @ aim / np.linalg.norm(g, axis=1).mean(), 0, 5 * rate)
    rule = DoGE(target="eval", learning_rate=rate)
    assert rule.signals == {"target_gradient"}
    assert DoGE().signals == {"domain_gradients"}
    found = rule.update(seen(p=[1 / 3] * 3, gradients=fresh_gradients()))
    np.testing.assert_allclose(found, softmax(w / 0.01), rtol=1e-5)


# ------------------------------------------------------------------ DoReMi and group DRO


def test_doremi_goes_through_the_steps_and_keeps_an_absent_domains_excess():
    excess = [[0.5, 0.1, 0.3], [NAN, 0.4, 0.2], [0.2, NAN, NAN]]
    filled = [[0.5, 0.1, 0.3], [0.5, 0.4, 0.2], [0.2, 0.4, 0.2]]
    p, path = np.full(3, 1 / 3), []
    for row in filled:
        p = 0.9 * softmax(np.log(p) + 2.0 * np.array(row)) + 0.1 / 3
        path.append(p)
    rule = DoReMi(eta=2.0, smoothing=0.1)
    assert rule.proposal() is None
    found = rule.update(seen(p=[1 / 3] * 3, train_losses=losses(np.ones((3, 3)), excess)))
    np.testing.assert_allclose(found, p)
    np.testing.assert_allclose(rule.proposal(), np.mean(path, axis=0))


def test_doremi_gives_a_domain_not_yet_seen_the_mean_excess():
    found = DoReMi(smoothing=0).update(
        seen(p=[1 / 3] * 3, train_losses=losses(np.ones((1, 3)), [[0.4, NAN, 0.2]]))
    )
    np.testing.assert_allclose(found, softmax([0.4, 0.3, 0.2]))


def test_group_dro_updates_what_was_drawn_and_favours_small_domains():
    rows, eta, c = np.array([[3.0, 2.0, NAN], [1.0, NAN, 4.0]]), 0.5, 6.0
    score = np.nansum(rows + c / np.sqrt(SIZES3), axis=0)
    found = GroupDRO(eta=eta, adjustment=c).update(
        seen(q=Q3, sizes=SIZES3, train_losses=losses(rows))
    )
    np.testing.assert_allclose(found, softmax(eta * score))


def test_rules_of_a_proxy_run_weigh_the_loss():
    assert [rule().acts for rule in (DoGE, DoReMi, GroupDRO)] == ["loss"] * 3
    assert DoReMi().normalise_loss
    assert DoReMi(acts="sampling").acts == "sampling"


# ------------------------------------------------------------------ ODM


def epsilon(t, k):
    return min(1 / k, np.sqrt(np.log(k) / (k * t)))


def test_odm_is_exp3_with_a_moving_reward():
    rng, rule, p, reward = np.random.default_rng(0), ODM(), np.full(3, 1 / 3), np.zeros(3)
    for t in range(1, 41):
        row = np.where(rng.random(3) < 0.6, rng.uniform(1, 4, 3) * [1, 2, 9], NAN)
        for i in np.flatnonzero(np.isfinite(row)):
            reward[i] = 0.9 * reward[i] + 0.1 * row[i] / p[i]
        least, shown = epsilon(t + 1, 3), seen(p=p, train_losses=losses([row]))
        p = (1 - 3 * least) * softmax(epsilon(t, 3) * reward) + least
        np.testing.assert_allclose(rule.update(shown), p)
    assert p.argmax() == 2
    assert p.max() - p.min() > 0.02


def test_odms_released_code_is_linear_in_the_exponential_of_the_loss():
    rule, rows = ODM(version="code", alpha=0.8), np.log([[2.0, 3.0, 5.0], [4.0, 1.0, 2.0]] * 10)
    reward = np.zeros(3)
    for row in rows:
        reward = 0.8 * reward + 0.2 * np.exp(row)
    least = epsilon(21, 3)
    found = rule.update(seen(p=[1 / 3] * 3, train_losses=losses(rows)))
    np.testing.assert_allclose(found, (1 - 3 * least) * reward / reward.sum() + least)


def test_ibms_odm_multiplies_weights_of_all_domains_with_their_last_losses():
    rule, p = ODM(version="fms", gamma=0.2, eta=0.5), np.array([0.5, 0.3, 0.2])
    log_w = 0.5 * (np.array([2.0, 1.0, 0.0]) + np.array([2.0, 3.0, 0.0])) / (p * 3)
    found = rule.update(seen(p=p, train_losses=losses([[2.0, 1.0, NAN], [NAN, 3.0, NAN]])))
    np.testing.assert_allclose(found, 0.8 * softmax(log_w) + 0.2 / 3)


def test_odm_is_uniform_while_it_warms_up():
    rule, row = ODM(version="code", warmup_steps=3), np.log([[1.0, 9.0]] * 3)
    found = rule.update(seen(p=[0.5, 0.5], train_losses=losses(row)))
    np.testing.assert_array_equal(found, [0.5, 0.5])
    assert rule.update(seen(p=[0.5, 0.5], train_losses=losses(row)))[1] > 0.5


# ------------------------------------------------------------------ ADO


def test_the_fit_is_no_worse_than_scipys_from_many_starts():
    rng, n = np.random.default_rng(3), np.linspace(1e3, 1e6, 60)
    curve = (np.exp(0.9) + np.exp(3) / n**0.3) * np.exp(0.02 * rng.normal(size=60))
    log_n, log_curve = np.log(n), np.log(curve)

    def objective(x):
        a, e, alpha = x
        error = np.abs(np.logaddexp(a - alpha * log_n, e) - log_curve)
        huber = np.where(error > 1e-3, 1e-3 * (error - 5e-4), error**2 / 2).sum()
        return huber + max(alpha - 0.8, 0) - min(alpha, 0.001) + max(a - 6.5, 0) - min(e - 0.5, 0)

    starts = [(a, e, alpha) for a in (-2, 1, 4) for e in (-1, 0, 1) for alpha in (0.1, 0.4, 0.7)]
    theirs = min(minimize(objective, x, method="L-BFGS-B").fun for x in starts)
    assert objective(fit_scaling_law(n, curve)) <= theirs + 1e-9


def test_a_fit_stays_within_its_penalties_and_nothing_gives_nothing():
    n = np.geomspace(10, 1e4, 30)
    _, e, alpha = fit_scaling_law(n, np.exp(0.6) + np.exp(5) / n**1.5, grid="coarse")
    assert alpha <= 0.8 + 1e-3
    assert e >= 0.5 - 1e-3
    assert np.isnan(fit_scaling_law(np.zeros(3), np.ones(3))).all()


def ado_history(steps, rng):
    t = np.arange(1, steps + 1)[:, None]
    curves = np.exp([0.7, 0.9]) + np.exp([2.0, 3.0]) / (8.0 * t) ** [0.5, 0.2]
    first = rng.integers(1, 8, steps)
    return curves, np.stack([first, 8 - first], axis=1)


def test_ado_follows_the_published_code_step_by_step():
    steps, start, ignore, refit, every = 131, 110, 4, 10, 2
    curves, counts = ado_history(steps, np.random.default_rng(1))
    mu = SIZES3[:2] / SIZES3[:2].sum()
    h = average = p = mu
    laws = None
    for itr in range(steps):  # as in the authors' loop: update(itr), then curr_dist(itr)
        h = 0.9 * h + 0.1 * counts[itr] / 8
        if itr < start:
            continue
        if itr % refit == 0:
            smooth = savgol_filter(curves[: itr + 1].T, 101, 3, axis=-1)[:, ignore::every]
            at = 8.0 * np.arange(1, itr + 2)[ignore::every]
            laws = np.array([fit_scaling_law(at, row, "coarse") for row in smooth])
        a, e, alpha = laws.T
        n = 8.0 * (itr + 1)
        now = np.exp(e) + np.exp(a) / n**alpha
        rho = np.maximum(alpha, 0.05) * (now - np.exp(e)) / n * mu * h**0.5
        rho = np.maximum(rho / rho.sum(), 0.01)
        rho = rho / rho.sum()
        p = 0.9 * average + 0.1 * rho
        average = (1 - 1 / (itr + 1)) * average + rho / (itr + 1)
    rule = ADO(
        start_steps=start, ignore_steps=ignore, refit_steps=refit, every=every, grid="coarse"
    )
    sizes = SIZES3[:2]
    found = rule.start(np.full(2, 0.5), sizes)
    np.testing.assert_allclose(found, mu)
    for rows in np.array_split(np.arange(steps), 9):
        shown = TrainLosses(curves[rows], counts[rows] * 10, counts[rows])
        found = rule.update(Observation(0, found, np.full(2, 0.5), sizes, train_losses=shown))
    np.testing.assert_allclose(found, p, rtol=1e-6)  # fits magnify the last digits
    assert np.abs(found - mu).max() > 1e-3


def test_ado_keeps_an_absent_domains_loss_and_begins_with_the_mean():
    rule = ADO()
    rule.start(Q3, SIZES3)
    rows = [[3.0, NAN, 2.0], [NAN, 4.0, NAN], [NAN, NAN, NAN], [1.0, NAN, NAN]]
    examples = [[1, 0, 3], [0, 2, 0], [0, 0, 0], [5, 0, 0]]
    rule.update(seen(q=Q3, sizes=SIZES3, train_losses=losses(rows, examples=examples)))
    expected = [[3.0, (3 + 3 * 2) / 4, 2.0], [3.0, 4.0, 2.0], [1.0, 4.0, 2.0]]
    np.testing.assert_allclose(rule.state_dict()["losses"], expected)


# ------------------------------------------------------------------ MGDA and UPGrad


@pytest.mark.parametrize("seed", range(5))
def test_mgda_finds_the_shortest_vector_in_the_hull(seed):
    a = np.random.default_rng(seed).normal(size=(4, 9)) + 0.5
    gram = a @ a.T
    found = MGDA(max_iters=5000, epsilon=1e-9).update(
        seen(q=[0.7, 0.1, 0.1, 0.1], gram=estimate(gram))
    )
    best = minimize(
        lambda w: w @ gram @ w,
        np.full(4, 0.25),
        bounds=[(0, 1)] * 4,
        method="SLSQP",
        constraints=LinearConstraint(np.ones(4), 1, 1),
        options={"ftol": 1e-12},
    )
    assert found @ gram @ found <= best.fun * 1.01  # Frank-Wolfe is slow at the end


def test_mgda_ignores_the_target():
    gram = estimate([[2.0, 0.5], [0.5, 1.0]])
    one, other = (MGDA().update(seen(q=q, gram=gram)) for q in ([0.9, 0.1], [0.1, 0.9]))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("seed", range(8))
def test_upgrads_projections_are_optimal_and_hurt_no_domain(seed):
    """The conditions of Karush, Kuhn and Tucker: v >= u, Gv >= 0, and (v - u)' G v = 0."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(5, 3))
    gram = a @ a.T + 0.1 * np.eye(5)
    u = np.diag(rng.dirichlet(np.ones(5)))
    regular = gram / np.trace(gram) + 1e-4 * np.eye(5)
    v = project(u, gram)
    assert (v >= u - 1e-12).all()
    assert (v @ regular >= -1e-9).all()
    np.testing.assert_allclose(((v - u) * (v @ regular)).sum(axis=1), 0, atol=1e-12)


def test_upgrad_combines_the_projections_by_its_preference():
    gram = np.array([[1.0, -0.5], [-0.5, 1.0]])  # v' G v least at v_j = v_i / 2
    g, q = 0.25 / (0.5 + 1e-4), np.array([0.8, 0.2])
    weights = np.array([0.8 + 0.2 * g, 0.2 + 0.8 * g])  # G has trace 2
    shown = seen(q=q, gram=estimate(gram))
    found = UPGrad(preference="target").update(shown)
    np.testing.assert_allclose(found, weights / weights.sum(), rtol=1e-6)
    np.testing.assert_allclose(UPGrad().update(shown), [0.5, 0.5])


def test_domains_unseen_in_a_round_keep_their_products_for_torchjds_rules():
    whole = np.array([[2.0, 0.5, 0.1], [0.5, 1.0, 0.2], [0.1, 0.2, 3.0]])
    partial = np.full((3, 3), NAN)
    partial[:2, :2] = [[4.0, 1.0], [1.0, 2.0]]
    merged = np.where(np.isfinite(partial), partial, whole)
    for make in (MGDA, UPGrad):
        rule = make()
        rule.update(seen(q=Q3, gram=estimate(whole)))
        after = rule.update(seen(q=Q3, gram=estimate(partial)))
        np.testing.assert_array_equal(after, make().update(seen(q=Q3, gram=estimate(merged))))


def test_a_domain_never_seen_gets_an_even_share_from_torchjds_rules():
    gram = np.full((3, 3), NAN)
    gram[:2, :2] = np.diag([3.0, 1.0])
    np.testing.assert_allclose(
        MGDA().update(seen(q=Q3, gram=estimate(gram))), [2 / 3 * 0.25, 2 / 3 * 0.75, 1 / 3]
    )
