# %% [markdown]
# # All the rules, on one corpus
#
# **You will** see what each published rule looks at, replay those that read the Gram matrix on
# one recorded run, train with the others, lay mixtures and prices side by side, and write a rule
# of your own in fifteen lines.
#
# **Time**: five minutes on two CPU cores. No GPU, and after the first fetch no internet.
#
# A *mixer* is a rule: once per round it sees something of the training and says what the next
# round is made of. Nearly everything that sets the rules apart is *what they see*.

# %% tags=["setup"]
import tempfile
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import softmax

import rbkit as rb
from rbkit import Observation, show
from rbkit.balance.mixers import MIXERS, Mixer, Rule
from rbkit.balance.mixers.ado import fit_scaling_law
from rbkit.balance.mixers.base import tilt
from rbkit.balance.mixers.check import made_up_run, run_through
from rbkit.balance.signals import SIGNALS, FreshGradients, ProbeRuns, TrainLosses
from rbkit.show.facts import NOT_ADAPTING
from rbkit.train.counterfactual import replay

# %% tags=["parameters"]
corpus_name: str = "demo"  # built-in name, file, glob or hub id
k: int = 6  # number of domains
steps: int = 40  # optimizer steps of each run
round_steps: int = 10  # steps between two updates of the proportions
seed: int = 0  # seed of everything random
run_dir: str = ""  # where runs are written; a temporary folder if empty
profile: str = "full"  # smoke: a few seconds, to test

# %%
smoke = profile == "smoke"
folder = run_dir or tempfile.mkdtemp(prefix="rbkit-mixers-")
target = {"recipes": 0.3, "Biology and health sciences": 0.4, "code": 0.2, "Everyday life": 0.1}
options = {"eval_sources": target, "eval_size": 120}
size = {"context": 48, "vocab_size": 1024, "batch_size": 8}

# %%
if smoke:
    corpus_name, k, steps, round_steps = "docstrings", 3, 8, 4
    options = {"eval_size": 30, "max_examples": 200}
    size = {"context": 24, "vocab_size": 400, "batch_size": 4}

# %% [markdown]
# ## 1. What a rule sees
# Each rule declares its *signals*, the trainer produces just those, and the ledger writes down
# what they cost. These are all there are:

# %%
for name, meaning in SIGNALS.items():
    print(f"{name:<17}{meaning}")

# %% [markdown]
# And this is who asks for what. *acts* tells what the proportions do: examples are **sampled** from
# them, or they weigh the **loss** of examples that are sampled evenly.

# %%
rows = {name: {"signals": ", ".join(sorted(rule.signals)) or "none", "acts": rule.acts,
               "every step": "yes" if rule.per_step else "", "from": rule.paper}
        for name, rule in MIXERS.items()}  # fmt: skip
pd.DataFrame(rows).T

# %% [markdown]
# **Predict**: you change what the eval set is made of, the target proportions $q$, and nothing
# else. How many of the adaptive rules notice? We show each rule the same made-up run twice, the
# second time with $q$ reversed.

# %%
run = made_up_run(3)
q_reversed = run.q[::-1].copy()
other = replace(run, q=q_reversed, rounds=tuple(replace(r, q=q_reversed) for r in run.rounds))

# %%
gram_rules = ["RnB"] + (["MGDA", "UPGrad"] if find_spec("torchjd") else [])
adaptive = [*gram_rules, "SkillIt", "Aioli", "DGA", "DoGE", "DoReMi", "ADO", "ODM", "GroupDRO"]
notice = [name for name in adaptive if not np.allclose(
    run_through(MIXERS[name](), run), run_through(MIXERS[name](), other))]  # fmt: skip
print("notice q:", notice)

# %% [markdown]
# Only R&B reads $q$ itself. That is a statement about this made-up run, where all other signals
# stayed as they were. In a real run DGA would notice, too: its signal is the gradient of the eval
# examples, and those would be others. Skill-It and Aioli see losses of eval domains, where each
# domain counts the same, however many examples it has. The rest never look at the eval set: they
# answer another question, how to train evenly.

# %%
assert notice == ["RnB"]
sees_eval = [name for name in adaptive if MIXERS[name].signals & {"eval_losses", "target_gradient"}]
assert sorted(sees_eval) == ["Aioli", "DGA", "SkillIt"]

# %% [markdown]
# ## 2. One run, recorded
# The same small model and domains for everybody. First R&B, with its signals written down.

# %%
corpus = rb.load_corpus(corpus_name, **options)
domains = rb.regroup(corpus, embedder="tfidf", k=k)
domains

# %%
setting = {"steps": steps, "round_steps": round_steps, "seed": seed, "save_model": False, **size}
setting["overwrite"] = True  # these cells are made to be changed and run again
run = rb.train(corpus, domains, mixer="RnB", run_dir=f"{folder}/RnB", **setting)
G, q = run.history["gram"], run.history["q"]
G.shape

# %% [markdown]
# ## 3. Rules on the Gram matrix: no training needed
# $G_{ij} = \langle g_i, g_j \rangle$ is all that these look at, and the run has recorded it. So
# we can ask each what it *would have* sampled.
#
# **R&B**: sample what points where the eval mix wants to go, but not only that.
# $$p = \mathrm{softmax}\left(\lambda\, \frac{G q}{\lVert G q \rVert}\right)$$
# A replay of the run's own rule must give the run's own proportions.

# %%
again = replay(run, "RnB")
assert np.allclose(again.p, run.history["p"])
again

# %% [markdown]
# **MGDA**: of all mixtures, the one whose gradient is *shortest*. A step along it hurts no domain.
# $$p = \mathrm{argmin}_{w \in \Delta} w^\top G w$$

# %%
drawn = np.flatnonzero((run.history["counts"] > 0).all(axis=1))[0]  # a round with all domains
G0 = G[drawn] / np.trace(G[drawn])
rng = np.random.default_rng(seed)
tried = rng.dirichlet(np.ones(len(q)), 5000)

# %%
if "MGDA" in gram_rules:
    w = replay(run, "MGDA").p[drawn + 1]
    best_of_many = np.einsum("ni,ij,nj->n", tried, G0, tried).min()
    print(f"w'Gw: MGDA {w @ G0 @ w:.4f}, best of 5,000 mixtures {best_of_many:.4f}")
    assert w @ G0 @ w <= best_of_many * 1.05

# %% [markdown]
# **UPGrad**: turn each domain's gradient until it hurts no other, then average.
# $$w = \sum_i \mathrm{argmin}_{v \ge u_i e_i} v^\top G v, \qquad p = w / \textstyle\sum_j w_j$$
# So no product $(Gp)_i$ is negative. Where no two gradients are opposed there is nothing to turn,
# and p is uniform.

# %%
if "UPGrad" in gram_rules:
    p = replay(run, "UPGrad").p[drawn + 1]
    assert (G0 @ p > -1e-3).all()
    opposed = (G0[np.triu_indices(len(q), 1)] < 0).mean()
    print(f"{opposed:.0%} of the pairs are opposed; p from {p.min():.3f} to {p.max():.3f}")
    assert opposed > 0 or np.ptp(p) < 0.01

# %% [markdown]
# The same evidence, read in different ways. The last panel tells how many examples each rule would
# have taken from other domains than the run did.

# %%
sharp = replay(run, "RnB", {"lam": 9.0})
show.show(show.replays(run, ["Target", *gram_rules[1:], sharp]))

# %% [markdown]
# **Look before you believe.** A replay shows how rules read the same gradients. A model trained
# on other proportions would have shown other gradients.
#
# ## 4. Rules on eval losses
# **Skill-It**: learn once which domain teaches which, then train on what teaches what is still bad.
# $$A_{ij} = \frac{L_j^{before} - L_j^{after\ i}}{L_j^{before}}, \qquad
# p_i \propto \exp\Big(\eta \sum_j A_{ij} \bar L_j\Big)$$
# It pays with a run per domain, before the first step. By hand, for the first proportions, where
# all losses count 1:

# %%
before, after = np.array([4.0, 4.0, 4.0]), np.array([[2.0, 3.0, 4.0], [4.0, 3.0, 4.0], [4.0] * 3])
rule = rb.SkillIt(eta=2.0)
rule.start(np.ones(3) / 3, np.array([9, 9, 9]))
p = rule.prepare(ProbeRuns(before, after, steps=10))

# %%
A = (before - after) / before
assert np.allclose(p, softmax(2.0 * A.sum(axis=1)))
p.round(3)

# %% [markdown]
# **Aioli**: keep asking, during training. Each round begins with a sweep: a few steps on each
# smoothed single domain $w^{(j)}$, the drops $\Delta$ of all losses, and a small linear problem:
# $$W a_i = \Delta_i, \qquad p_j \leftarrow p_j \exp\Big(\eta \sum_i A_{ij}\Big)$$
# **Predict**: a round of 20 steps, three domains, sweeps of 2 steps each. How is it divided? (The
# very first sweep has 2 more steps ahead of it, to know where the losses stand.)

# %%
rule, shares = rb.Aioli(lp_steps=2), np.ones(3) / 3
rule.start(shares, np.array([9, 9, 9]))
lengths = []
for t in range(9):
    lengths.append(rule.round_length(20))
    rule.update(
        Observation(t, shares, shares, np.array([9] * 3), eval_losses=np.full(3, 4.0 - t / 10))
    )

# %%
print("steps between evaluations:", lengths)
assert lengths == [2, 2, 2, 2, 12, 2, 2, 2, 14]

# %% [markdown]
# ## 5. Rules with gradients of their own
# The Gram matrix of R&B comes from training, at one layer. These take fresh batches and all
# parameters, and pay for it.
#
# **DGA**: multiply the weight of a domain by how its gradient agrees with the eval set's.
# $$p_i \leftarrow p_i \exp(\eta \langle \nabla \ell_i, \nabla \ell_{eval} \rangle) / Z$$

# %%
aligned = np.array([0.2, 0.1, -0.3])
found = FreshGradients(norms=np.ones(3), target=aligned, target_norm=1.0)
seen = Observation(0, shares, shares, np.array([9, 9, 9]), gradients=found)
assert np.allclose(rb.DGA(eta=2.0).update(seen), softmax(2.0 * aligned))

# %% [markdown]
# **DoGE**: a domain is worth as much as it helps *all* domains, itself included.
# $$W_i = \eta_t \frac{\sum_j \langle g_i, g_j \rangle}{\mathrm{mean}_i \lVert g_i \rVert},
# \qquad p \leftarrow \mathrm{softmax}(\log p + W / \mu)$$
# The learning rate $\eta_t$ is in it: when it has decayed, p stands still. **Predict**: two
# updates, the second at a thousandth of the learning rate. How far does each move p?

# %%
g = np.array([[1.0, 0.0], [0.8, 0.6], [-0.5, 0.5]])
found = FreshGradients(norms=np.linalg.norm(g, axis=1), gram=g @ g.T)
moves = []
for rate in (1e-2, 1e-5):
    seen = Observation(0, shares, shares, np.array([9] * 3), gradients=found, learning_rate=rate)
    moves.append(np.abs(rb.DoGE().update(seen) - shares).sum())

# %%
print("p moves by", np.array(moves).round(6))
assert moves[1] < moves[0] / 500

# %% [markdown]
# ## 6. Rules on training losses: free, but blind to the target
# The losses are there anyway. A helper that shows three steps in which domain 2 is the worst:

# %%
loss = np.array([[2.0, 3.0, 5.0]] * 3)
ones = np.ones((3, 3), dtype=np.int64)
excess = np.array([[0.1, 0.9, 0.0]] * 3)  # above a reference model
seen = Observation(
    0, shares, shares, np.array([9] * 3), train_losses=TrainLosses(loss, ones, ones, excess)
)

# %% [markdown]
# **Group DRO**: raise the worst, $p_i \leftarrow p_i \exp(\eta L_i) / Z$. It cannot tell hard
# from hopeless: a domain of noise would win for ever.
#
# **DoReMi**: raise what is worse *than it has to be*: than for a reference model, trained first.
# $$p \leftarrow (1 - c)\,\mathrm{softmax}(\log p + \eta \max(\ell - \ell_{ref}, 0)) + c/m$$
# **Predict** which domain each of the two prefers.

# %%
dro, doremi = rb.GroupDRO().update(seen), rb.DoReMi(smoothing=0).update(seen)
assert np.allclose(dro, softmax(3 * 0.01 * loss[0]))
assert np.allclose(doremi, softmax(3 * excess[0]))
print("Group DRO", dro.round(3), " DoReMi", doremi.round(3))

# %% [markdown]
# Domain 2 is the worst, but the reference does no better there. Domain 1 has something to learn.
#
# **ODM**: a bandit. Each step's losses are the reward $R$ of the domains that were drawn, and
# exploration fades. At the start there is nothing else.
# $$p = (1 - m\, \varepsilon_t)\,\mathrm{softmax}(\varepsilon_{t-1} R) + \varepsilon_t$$

# %%
first = replace(seen, train_losses=TrainLosses(loss[:1], ones[:1], ones[:1]))
rule = rb.ODM()
explored = rule.update(first)
later = [rule.update(seen) for _ in range(40)][-1]
print("after 1 step", explored.round(3), " after 121", later.round(3))

# %%
assert np.ptp(explored) < np.ptp(later)
assert later.argmax() == 2

# %% [markdown]
# **ADO**: fit a power law to each domain's loss, and sample where it says that the loss falls
# fastest.
# $$L_i(n) = e^{\varepsilon_i} + e^{a_i} n^{-\alpha_i}, \qquad
# p_i \propto - \frac{\partial L_i}{\partial n} \times \text{what was drawn of } i$$
# Power laws need room: on 40 steps its fits mean little. On a clean curve they are exact:

# %%
n = np.arange(1, 200.0) * 16
curve = np.exp(0.7) + np.exp(1.5) * n**-0.4
a, epsilon, alpha = fit_scaling_law(n, curve)
fitted = np.exp(epsilon) + np.exp(a) * n**-alpha

# %%
print(f"alpha {alpha:.2f} where 0.40 was put in")
assert np.abs(fitted - curve).max() < 0.02

# %% [markdown]
# ## 7. Train with each
# Settings published for thousands of steps are scaled down to these few: shorter probe runs,
# earlier fits. Rules that update after every step do so, except DoGE: m fresh gradients each
# time would take longer than all the others together. Aioli's sweep over all domains must fit
# into a round.

# %%
scaled = {
    "SkillIt": {"graph_steps": max(2, steps // 10)},
    "Aioli": {"lp_steps": 1},
    "ADO": {"start_steps": steps // 4, "ignore_steps": steps // 4, "refit_steps": steps // 4,
            "every": 1, "grid": "coarse"},
}  # fmt: skip

# %%
runs = {"RnB": run}
for name in ("SkillIt", "Aioli", "DGA", "DoGE", "DoReMi", "ADO", "ODM", "GroupDRO"):
    rule = MIXERS[name](**scaled.get(name, {}))
    own = {"round_steps": 1 if rule.per_step else round_steps, "eval_rounds": steps}
    own |= {"Aioli": {"round_steps": 2 * k}, "DoGE": {"round_steps": round_steps // 4}}.get(
        name, {}
    )
    runs[name] = rb.train(
        corpus, domains, mixer=rule, run_dir=f"{folder}/{name}", **{**setting, **own}
    )

# %%
assert all(each.status == "ok" for each in runs.values())
show.show(
    show.proportions_side_by_side([runs[name] for name in ("RnB", "SkillIt", "Aioli", "DGA")])
)

# %% [markdown]
# The stripes of Aioli are its sweeps: steps on mixtures that nobody wants to stay on.

# %%
show.show(show.proportions_side_by_side([runs[name] for name in ("RnB", "DoGE", "DoReMi", "ODM")]))

# %% [markdown]
# DoGE and DoReMi weigh losses here, and *propose* the mean of their weights for another, larger
# run:

# %%
proposed = {name: np.array(each.info["final"]["proposal"]) for name, each in runs.items()
            if each.info["final"]["proposal"] is not None}  # fmt: skip
for name, p in proposed.items():
    print(f"{name:<8}", p.round(3))
assert set(proposed) == {"DoGE", "DoReMi"}

# %% [markdown]
# **Side by side**: the mean over each whole run, with the target below.


# %%
def mean_p(run):
    lengths = np.diff(run.history["step"], prepend=0)
    return lengths @ run.history["p"][:-1] / lengths.sum()


# %%
shares_of = pd.DataFrame({name: mean_p(each) for name, each in runs.items()} | {"target q": q}).T
shares_of.columns = domains.names
assert np.allclose(shares_of.sum(axis=1), 1)


# %%
def table_of(shares):
    with show.rbkit_style():
        ax = Figure(figsize=(1.9 + 1.4 * shares.shape[1], 4.8), layout="constrained").subplots()
        ax.imshow(shares, cmap="Blues", aspect="auto", vmin=0, vmax=0.7)
        for (y, x), value in np.ndenumerate(shares.to_numpy()):
            ink = "white" if value > 0.4 else "#1f2933"
            ax.text(x, y, f"{value:.0%}", ha="center", va="center", color=ink)
        ax.set_yticks(range(len(shares)), shares.index)
        ax.set_xticks(range(shares.shape[1]), ["\n".join(n.split(" · ")) for n in shares.columns])
        ax.tick_params(length=0, labelsize=8.5)
        ax.set_title("Mean proportions of each run")
    top = ", ".join(f"{rule} {row.idxmax()}" for rule, row in shares.iterrows())
    show.set_alt(ax, f"Proportions by rule and domain. Largest: {top}.")
    return ax


# %%
show.show(table_of(shares_of))

# %% [markdown]
# How far is each from simply copying the eval set? The total variation distance to $q$:

# %%
away = 0.5 * (shares_of - q).abs().sum(axis=1).drop("target q").sort_values()
print(away.round(3).to_string())
assert away.between(0, 1).all()

# %% [markdown]
# And how well did they do? Two mixtures that never change belong beside them: uniform, and $q$
# itself, the one to beat.

# %%
for name in ("Stratified", "Target"):
    runs[name] = rb.train(corpus, domains, mixer=name, run_dir=f"{folder}/{name}",
                          **{**setting, "eval_rounds": steps})  # fmt: skip

# %% [markdown]
# **One seed and forty steps rank nothing**, so this table is in the order of training and not of
# losses; a ranking takes several seeds and intervals (`bench/learning.py`). Rules that weigh losses
# train proxies: judge them by a run on their proposal.

# %%
pd.DataFrame(
    {name: {"eval loss, nats per token": f"{each.info['final']['loss_token']:.3f}",
            "p acts on": MIXERS[name].acts} for name, each in runs.items()}
).T  # fmt: skip

# %% [markdown]
# ## 8. What each costs
# From the ledgers: everything that is there for the rule, over the plain training steps.


# %%
def overhead(run, column):
    entries = {entry["name"]: entry for entry in run.info["ledger"]["entries"]}
    extra = sum(e[column] or 0 for name, e in entries.items() if name not in NOT_ADAPTING)
    return extra / entries["step"][column]


# %%
prices = pd.DataFrame(
    {column: {name: overhead(runs[name], column) for name in runs if MIXERS[name].signals}
     for column in ("flops_counted", "seconds")}
).sort_values("flops_counted")  # fmt: skip
prices.map("{:.1%}".format)

# %% [markdown]
# **Check**: what reads training losses counts no FLOPs beyond training (ADO's fits of curves are
# paid for in seconds); the Gram matrix costs some, fresh gradients cost more; a reference as long
# as the run costs more than the run.

# %%
flops = prices["flops_counted"]
assert flops[["GroupDRO", "ODM", "ADO"]].max() == 0
assert 0 < flops["RnB"] < flops["DGA"] < flops["DoGE"]
assert flops["DoReMi"] > 1

# %%
with show.rbkit_style():
    ax = Figure(figsize=(6.8, 3.6), layout="constrained").subplots()
    looks = {"flops_counted": ("#0072B2", "o"), "seconds": ("#D55E00", "^")}
    for column, (colour, marker) in looks.items():
        known = prices[column] > 0  # what is free has no place on a logarithmic axis
        at = np.flatnonzero(known)
        ax.plot(100 * prices[column][known], at, marker, color=colour, ms=7, label=column)
    ax.set_xscale("log")
    ax.set_yticks(range(len(prices)), prices.index)
    ax.set(xlabel="% of plain training (logarithmic)", title="What the rule adds")
    ax.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
show.set_alt(ax, f"Overhead by rule, least: {prices.index[0]}; most: {prices.index[-1]}.")
show.show(ax)

# %% [markdown]
# `rbkit costs` makes this table for all rules, with the modelled price next to it; notebook 07
# takes the cost model apart.
#
# ## 9. A rule of your own
# Idea: sample what *still falls*. A domain whose eval loss dropped most in the last round gets
# most. First try:


# %%
class Falling(Mixer):
    signals = frozenset({"eval_losses"})
    last = None

    def update(self, seen):
        fall = 0 if self.last is None else self.last - seen.eval_losses
        self.last = seen.eval_losses
        return softmax(5.0 * fall * seen.available)


# %% [markdown]
# It runs. Would it survive a killed process, a domain without data, a round without an evaluation?
# `check_mixer` shows it twenty made-up runs. **Predict** what it says first.

# %%
try:
    rb.check_mixer(Falling)
    complaint = ""
except (AssertionError, TypeError, ValueError) as error:
    complaint = str(error)
print(complaint)
assert complaint

# %% [markdown]
# Second try. A `Rule` is a dataclass: public fields are options, fields with an underscore are
# memory, saved with every checkpoint. `tilt` gives 0 where the prior is 0.


# %%
@dataclass(eq=False)
class StillFalling(Rule):
    """Sample what fell most in the last round."""

    sharpness: float = 5.0
    _last: Any = field(default=None, init=False, repr=False)

    signals = frozenset({"eval_losses"})

    def update(self, seen):
        last, self._last = self._last, seen.eval_losses.copy()
        if last is None:
            return seen.p
        fall = np.nan_to_num(last - seen.eval_losses)  # unknown: neither favoured nor dropped
        even = seen.available / seen.available.sum()
        return tilt(even, fall, self.sharpness)


# %%
rb.check_mixer(StillFalling)
rb.check_mixer(lambda: StillFalling(sharpness=50.0))
print("fine: simplex, resume, missing domains, blank rounds, order of domains")

# %% [markdown]
# Now train with it. The trainer makes the evaluations, the record and the ledger by itself.

# %%
mine = rb.train(corpus, domains, mixer=StillFalling(), run_dir=f"{folder}/mine", **setting)
show.show(show.proportions(mine))

# %%
evals = {row["step"]: np.array(row["by_domain_token"], float) for row in mine.metrics("eval")}
a, b = mine.history["step"][-2:]
expected = softmax(5.0 * np.nan_to_num(evals[a] - evals[b]))  # NaN: no eval example
assert np.allclose(mine.history["p"][-1], expected)
print("the recorded proportions are the rule's; overhead", f"{overhead(mine, 'flops_counted'):.0%}")

# %% [markdown]
# ## What to remember
# - A rule is what it sees: training losses are free and blind to the target; the eval set's
#   losses and gradients, and side runs are not free. R&B's Gram matrix is nearly so.
# - A replay compares rules on the same evidence; only training with several seeds compares
#   results.
# - A rule of your own is one method. `check_mixer` says what it forgot.
#
# **Break it**: make `StillFalling` sharper (50) and watch it chase noise; then give it a memory of
# two rounds. **Go on**: 04 derives R&B's rule, 07 takes the costs apart.
