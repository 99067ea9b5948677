# %% [markdown]
# # Balance: where the rule comes from, and what it does and does not promise
#
# **You will** derive R&B's update from one line of calculus, check it against a numerical
# optimiser, see every statement of the paper's theory hold (and where it stops), watch a mixture
# collapse, and keep it from collapsing.
#
# **Time**: one minute on a CPU. No download, no GPU; everything is small enough to print.
#
# Each claim is followed by a cell that checks it. Predict first, then run.

# %% tags=["setup"]
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import minimize

from rbkit import Observation, RnB, show
from rbkit.balance import GramEstimate
from rbkit.balance.mixers.rnb import effective_number, tilt

# %% tags=["parameters"]
seed: int = 0  # seed of everything random
trials: int = 4000  # random cases per claim
rounds: int = 40  # rounds of the simulated training
profile: str = "full"  # smoke: a few seconds, to test

# %%
smoke = profile == "smoke"
trials = 400 if smoke else trials
rng = np.random.default_rng(seed)
BLUE, ORANGE, GREY, GREEN = "#0072B2", "#D55E00", "#59636e", "#00835F"

# %% [markdown]
# Helpers for pictures: axes in the style of rbkit; labels, and words for those who cannot see them.


# %%
def picture(columns=1, width=4.2, height=2.9):
    with show.rbkit_style():
        figure = Figure(figsize=(width * columns, height), layout="constrained")
        return figure.subplots(1, columns)


def label(ax, title, x="", y="", alt="", key=None):
    with show.rbkit_style():
        ax.set_title(title, loc="left", fontsize=10.5, fontweight="bold")
        ax.set(xlabel=x, ylabel=y)
        if ax.get_legend_handles_labels()[0]:
            ax.legend(frameon=False, fontsize=9, title=key)
    show.set_alt(ax, alt or title)


def finish(ax, *words, **more):
    label(ax, *words, **more)
    show.show(ax)


# %% [markdown]
# ## 1. One step, to first order
# A step of SGD on the mixture $p$ goes along $\sum_i p_i g_i$, with $g_i$ the gradient of domain
# $i$. The loss on the eval mix $q$ then falls by about
# $$L_q(\theta) - L_q\Big(\theta - \eta \sum_i p_i g_i\Big) \approx \eta\, q^\top G\, p,
# \qquad G_{ij} = \langle g_i, g_j \rangle.$$
# We test it in a world small enough to see through: each domain's loss is a quadratic bowl.


# %%
class Bowls:
    """m losses 1/2 (theta - c_i)' H_i (theta - c_i), with eigenvalues of H_i in [low, 1]."""

    def __init__(self, rng, m=6, d=8, low=0.0):
        self.c = rng.normal(size=(m, d))
        axes = np.linalg.qr(rng.normal(size=(m, d, d)))[0]
        self.H = (axes * rng.uniform(low, 1, (m, 1, d))) @ axes.mT

    def gradients(self, theta):
        return np.einsum("mde,me->md", self.H, theta - self.c)

    def loss(self, theta, q):
        away = theta - self.c
        return 0.5 * q @ np.einsum("md,mde,me->m", away, self.H, away)


# %%
world, theta = Bowls(rng), rng.normal(size=8)
q = rng.dirichlet(np.ones(6))
g = world.gradients(theta)
G = g @ g.T

# %% [markdown]
# **Predict**: the learning rate is divided by 10. By how much does the *error* of the first-order
# formula shrink?

# %%
etas = np.logspace(-4, 0, 9)
p = rng.dirichlet(np.ones(6))
fall = np.array([world.loss(theta, q) - world.loss(theta - eta * p @ g, q) for eta in etas])
error = np.abs(fall - etas * (q @ G @ p))

# %%
slope = np.polyfit(np.log(etas), np.log(error), 1)[0]
assert abs(slope - 2) < 0.01
print(f"error grows like eta^{slope:.2f}: a hundred times smaller, not ten")

# %%
ax = picture()
ax.loglog(etas, etas * (q @ G @ p), color=BLUE, label="η qᵀGp")
ax.loglog(etas, error, "o-", color=ORANGE, ms=4, label="what it misses")
words = f"Fall of the loss by learning rate: linear; the error has slope {slope:.1f}."
finish(ax, "The formula and its error", "learning rate", "fall of the loss", words)

# %% [markdown]
# ## 2. Alone, that is a corner
# $q^\top G p$ is linear in $p$. A linear function on the simplex is largest at a corner: the single
# best domain, $i^\star = \mathrm{argmax}_i\, (Gq)_i$. No other mixture beats it.

# %%
v = G @ q  # how well a step on each domain serves the eval mix: the alignment
mixtures = rng.dirichlet(np.ones(6), trials)
assert (mixtures @ v <= v.max()).all()
print(f"best corner {v.max():.3f}, best of {trials} mixtures {(mixtures @ v).max():.3f}")

# %% [markdown]
# Two things are wrong with a corner. A domain that is not sampled shows no gradient, so nobody
# notices when it becomes the best. And it jumps. Let the two best domains nearly tie, and add
# noise of 5 % to the alignments. **Predict**: how often do *all* examples come from another domain
# than they would have without noise? How many examples does a softmax move?

# %%
tie = v.copy()
tie[np.argsort(v)[-2]] = 0.98 * v.max()
noisy = tie + 0.05 * np.abs(tie).mean() * rng.normal(size=(trials, 6))
jumps = (noisy.argmax(axis=1) != tie.argmax()).mean()

# %%
soft = np.array([tilt(np.full(6, 1 / 6), n / np.linalg.norm(n), 3.0) for n in [tie, *noisy]])
moved = 0.5 * np.abs(soft[1:] - soft[0]).sum(axis=1).mean()
assert moved < jumps / 3
print(f"the corner moves {jumps:.0%} of the examples on average, a softmax {moved:.1%}")

# %% [markdown]
# ## 3. With an entropy: the softmax
# Add the entropy $H(p) = -\sum_i p_i \log p_i$, weighted by a temperature $\tau$:
# $$\max_p\; v^\top p + \tau H(p) \quad\text{subject to}\quad \sum_i p_i = 1.$$
# Lagrange: $v_i - \tau(\log p_i + 1) - \mu = 0$, so $p_i \propto \exp(v_i/\tau)$. The paper weighs
# the entropy with $\tau = \lVert v \rVert / \lambda$, and out comes
# $$p = \mathrm{softmax}\left(\lambda\, \frac{Gq}{\lVert Gq \rVert_2}\right).$$
# Do not believe algebra: maximise numerically.


# %%
def by_optimiser(v, tau, prior):
    """Maximise v'p - tau KL(p, prior) over the simplex, knowing nothing of softmaxes."""
    free = np.zeros(len(v))

    def cost(z):
        p = np.exp(z - z.max())
        p /= p.sum()
        inside = p > 0
        return -(v @ p) + tau * (p[inside] * np.log(p[inside] / prior[inside])).sum()

    z = minimize(cost, free, tol=1e-14).x
    return np.exp(z - z.max()) / np.exp(z - z.max()).sum()


# %%
uniform, lam = np.full(6, 1 / 6), 3.0
found = by_optimiser(v / np.linalg.norm(v), 1 / lam, uniform)
mine = tilt(uniform, v / np.linalg.norm(v), lam)
np.abs(found - mine).max()

# %%
assert np.allclose(found, mine, atol=1e-4), "the softmax is not the maximum"

# %% [markdown]
# And that is what `RnB` does when a round ends. It is shown an `Observation` and returns the next
# $p$.


# %%
def observation(G, q, p=None):
    m, unknown = len(q), np.full(len(q), np.nan)
    estimate = GramEstimate(G, np.full(m, 8), unknown, unknown)
    return Observation(0, np.full(m, 1 / m) if p is None else p, q, np.full(m, 99), gram=estimate)


# %%
assert np.allclose(RnB(lam=lam).update(observation(G, q)), mine)
assert np.allclose(RnB(lam=lam).update(observation(1000 * G, q)), mine)

# %% [markdown]
# The second line is why the norm is there: scale all gradients, and nothing changes. The paper also
# prints the rule without the norm (Algorithm 3). **Predict** what that one does when gradients are
# ten times smaller, as they are late in training.

# %%
for scale in (1, 0.1, 0.01):
    print(f"gradients x {scale:<5}", tilt(uniform, lam * scale**2 * v, 1.0).round(2))

# %% [markdown]
# ## 4. What lambda does
# $\lambda = 0$ is uniform; as it grows, domains leave one by one. Count those that remain by
# $\exp H(p)$, the *effective number of domains*: $m$ for uniform, 1 at a corner.

# %%
lams = np.linspace(0, 30, 121)
path = np.array([tilt(uniform, v / np.linalg.norm(v), lam) for lam in lams])
number = np.array([effective_number(p) for p in path])

# %%
assert np.isclose(number[0], 6)
assert (np.diff(number) <= 1e-9).all()

# %%
left, right = picture(2)
left.stackplot(lams, path.T, colors=show.domain_colours(6), edgecolor="white", lw=0.6)
left.set(xlim=(0, 30), ylim=(0, 1))
label(left, "Mixture by lambda", "lambda", "share", "Shares of six domains against lambda.")
right.plot(lams, number, color=BLUE)
right.set_ylim(0.8, 6.2)
words = f"Effective domains fall from 6 at lambda 0 to {number[-1]:.1f} at lambda 30."
label(right, "Effective domains", "lambda", "exp H(p)", words)
show.show(left)

# %% [markdown]
# ## 5. The same lambda is weaker when domains are many
# $\lVert v\rVert = 1$ makes a typical entry $1/\sqrt m$, so the logits shrink as $m$ grows.
# **Predict**: at $\lambda = 3$ and alignments drawn from $U(0,1)$, how many times the share of the
# worst domain does the best one get, with 7 domains? With 1000?


# %%
def best_to_worst(m, lam, draws=200):
    x = rng.uniform(size=(draws, m))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return np.exp(lam * (x.max(axis=1) - x.min(axis=1))).mean()


# %%
ms = np.array([7, 10, 30, 100, 1000])
plain = np.array([best_to_worst(m, 3.0) for m in ms])
scaled = np.array([best_to_worst(m, 3.0 * np.sqrt(m / 7)) for m in ms])

# %%
for m, ratio, kept in zip(ms, plain, scaled, strict=True):
    print(f"m = {m:<5} {ratio:5.2f}   with lambda ~ sqrt(m): {kept:5.2f}")

# %%
assert (np.diff(plain) < 0).all()
assert plain[-1] < 1.3, "with 1000 domains the rule is nearly uniform"
assert scaled.max() / scaled.min() < 2

# %%
ax = picture()
ax.loglog(ms, plain, "o-", color=ORANGE, label="lambda = 3")
ax.loglog(ms, scaled, "s-", color=BLUE, label="lambda = 3 √(m/7)")
ax.set_ylim(0.9, 12)
ax.set_xticks(ms, [str(m) for m in ms])
ax.set_yticks([1, 2, 5, 10], ["1", "2", "5", "10"])
ax.minorticks_off()
words = f"At lambda 3 the ratio falls from {plain[0]:.1f} with 7 domains to {plain[-1]:.2f}."
finish(ax, "Best share over the worst", "number of domains m", "ratio", words)

# %% [markdown]
# There is a hard limit too. Two entries of a unit vector differ by at most $\sqrt 2$, so no ratio
# of shares exceeds $e^{\sqrt 2 \lambda}$; if no domain hurts ($Gq \ge 0$), by at most 1:
# $e^\lambda$.

# %%
x = rng.normal(size=(trials, 5)) ** 3
x /= np.linalg.norm(x, axis=1, keepdims=True)
assert (x.max(axis=1) - x.min(axis=1) <= np.sqrt(2) + 1e-12).all()
assert (np.abs(x).max(axis=1) <= 1 + 1e-12).all()

# %%
print(f"at lambda = 3: at most {np.exp(3):.0f}, or {np.exp(3 * np.sqrt(2)):.0f} with conflicts")

# %% [markdown]
# So say what you mean: ask for a number of domains, and let lambda follow.

# %%
many = rng.normal(size=(100, 20))
p = RnB(effective_domains=40).update(observation(many @ many.T, np.full(100, 0.01)))
assert np.isclose(effective_number(p), 40)

# %% [markdown]
# ## 6. Priors: what the mixture is drawn towards
# The entropy is, up to a constant, minus the divergence from *uniform*. Put another mixture $\pi$
# in its place and the maximum is $p \propto \pi \exp(v/\tau)$: uniform (the paper), $\pi = q$, or
# $\pi = p_{t-1}$, which is multiplicative weights, the family of DoGE and DGA.

# %%
found = by_optimiser(v / np.linalg.norm(v), 1 / 3.0, q)
assert np.allclose(RnB(prior="target").update(observation(G, q)), found, atol=1e-4)

# %% [markdown]
# `previous` remembers: after $T$ rounds it is one softmax over the *sum* of all alignments.

# %%
p, total = uniform, np.zeros(6)
for _ in range(5):
    steps = rng.normal(size=(6, 8))
    noisy = steps @ steps.T
    p = RnB(lam=0.5, prior="previous").update(observation(noisy, q, p))
    total += noisy @ q / np.linalg.norm(noisy @ q)
assert np.allclose(p, tilt(uniform, total, 0.5))

# %% [markdown]
# **Predict**: the same evidence comes round after round. Which of the three priors ends at a
# corner?


# %%
def watch(prior, count=15):
    p, seen = uniform, []
    for _ in range(count):
        seen.append(effective_number(p))
        p = RnB(lam=1.0, prior=prior).update(observation(G, q, p))
    return np.array(seen)


# %%
watched = {prior: watch(prior) for prior in ("uniform", "target", "previous")}
assert np.allclose(watched["uniform"][1:], watched["uniform"][1])
assert (np.diff(watched["previous"]) < 0).all()

# %%
ax = picture()
looks = (("o-", BLUE), ("D-", ORANGE), ("v-", GREEN))
for (prior, seen), (line, colour) in zip(watched.items(), looks, strict=True):
    ax.plot(seen, line, color=colour, ms=4, label=prior)
ax.set_ylim(0.8, 6.4)
words = f"Only the previous prior goes on, to {watched['previous'][-1]:.1f} effective domains."
finish(ax, "Same evidence every round", "round", "effective domains", words, "prior")

# %% [markdown]
# ## 7. Never below uniform. And against $p = q$?
# The softmax maximises gain plus entropy, and no mixture has more entropy than the uniform one. So
# its gain cannot be lower: $q^\top G p \ge q^\top G u$ for *every* $G$, $q$ and $\lambda$.


# %%
def gains(lam, draws, m=8):
    rows = []
    for _ in range(draws):
        grads, q = rng.normal(size=(m, 12)) + rng.normal(size=12), rng.dirichlet(np.full(m, 0.5))
        v = grads @ grads.T @ q
        p = tilt(np.full(m, 1 / m), v / np.linalg.norm(v), lam)
        rows.append([v @ p, v.mean(), v @ q])
    return np.array(rows).T


# %%
against = {lam: gains(lam, trials) for lam in (1, 3, 10)}
assert all((ours >= even - 1e-9).all() for ours, even, _ in against.values())

# %% [markdown]
# $p = q$ knows as much about the target as R&B does. It is the baseline that the paper leaves out.
# **Predict** the share of cases in which R&B promises less than $p = q$, at $\lambda$ = 1, 3, 10.

# %%
below = {lam: (ours < target).mean() for lam, (ours, _, target) in against.items()}
print("; ".join(f"lambda {lam}: {share:.1%}" for lam, share in below.items()))
assert below[1] > below[3] > below[10]

# %% [markdown]
# All of the grey is right of zero. Orange left of zero: there `Target` promises more.

# %%
axes = picture(3, width=3.0)
for ax, (lam, (ours, even, target)) in zip(axes, against.items(), strict=True):
    bins = np.linspace(-2, 2.5, 60)
    names = ("minus uniform", "minus p = q") if lam == 1 else (None, None)
    ax.hist((ours - even) / even.std(), bins, color=GREY, alpha=0.6, label=names[0])
    ax.hist((ours - target) / even.std(), bins, color=ORANGE, alpha=0.6, label=names[1])
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks([])
    words = f"Lambda {lam}: no gain is below uniform's, {below[lam]:.0%} are below p = q's."
    label(ax, f"lambda = {lam}", "difference in gain", alt=words)
show.show(axes[0])

# %% [markdown]
# Both are statements about *one* step to first order, nothing more. Still: a report without the
# `Target` baseline cannot tell balancing from merely moving to $q$.

# %% [markdown]
# ## 8. The theory of the paper, statement by statement
# All of it speaks of one SGD step, to first order. Write $a(x) = \langle \nabla \ell(x), \nabla
# L_q\rangle$ for the *alignment* of an example; that of a domain is the mean over its examples.
#
# ### Lemma 2: the best domain beats any fixed mixture, if the step is small
# With losses of smoothness $L$, $i^\star$ the best-aligned domain and $p''$ any mixture, the step
# on $i^\star$ alone is at least as good if
# $$\eta \le \frac{1}{L} \cdot \frac{\max_i (Gq)_i - q^\top G p''}
# {\max_i \left\lVert g_i\right\rVert^2 + \left\lVert g_{p''} \right\rVert^2}.$$
# In a quadratic world the learning rate at which the advantage ends is known exactly. **Predict**:
# how far above the bound is it?


# %%
def end_of_advantage(rng):
    """Return the bound of Lemma 2, and the rate at which the fixed mixture gets better."""
    world, theta = Bowls(rng, m=3, d=3, low=-1.0), rng.normal(size=3)  # saddles too: L = 1
    q, p = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3))
    g, H = world.gradients(theta), np.tensordot(q, world.H, 1)
    best, mixed = g[(g @ g.T @ q).argmax()], p @ g
    ahead = q @ g @ (best - mixed)
    bound = ahead / ((g**2).sum(axis=1).max() + mixed @ mixed)
    bend = best @ H @ best - mixed @ H @ mixed
    return bound, 2 * ahead / bend if bend > 0 else np.inf


# %%
bound, end = np.array([end_of_advantage(rng) for _ in range(trials)]).T
ratio = end / bound
assert (ratio >= 2).all(), "the lemma, and more than the lemma"

# %%
for times in (1, 2, 3, 10):
    print(f"at {times:>2} times the bound the fixed mixture wins in {(ratio < times).mean():.1%}")

# %% [markdown]
# Never below *twice* the bound, and that is not luck: the proof uses $\eta^2 L$ where Taylor gives
# $\eta^2 L / 2$. Twice the bound is tight, in a world made for it:

# %%
H = np.diag([1.0, -1.0])  # uphill along the best domain, downhill along the mixture
best, mixed = np.array([1.0, 0.0]), np.array([0.0, 1.0])
target = np.array([1.0, 0.5])  # gradient of the eval loss
ahead = target @ (best - mixed)
end, bound_here = 2 * ahead / (best @ H @ best - mixed @ H @ mixed), ahead / (1 + 1)
assert end == 2 * bound_here

# %%
ax = picture()
ax.hist(ratio[np.isfinite(ratio)], np.logspace(0, 3, 50), color=BLUE)
ax.set_xscale("log")
for times, colour in ((1, ORANGE), (2, GREY)):
    ax.axvline(times, color=colour, label=f"{times} x the bound")
words = f"The fixed mixture wins from {ratio.min():.1f} times the bound of Lemma 2 at the least."
finish(ax, "Where the advantage ends", "learning rate / bound of Lemma 2", "random worlds", words)

# %% [markdown]
# ### Lemma 3: a good swap is one that brings in a better-aligned example
# Two domains, $D_0$ the better one. Swap $x_0 \in D_0$ with $x_1 \in D_1$: the alignment of $D_0$
# rises if and only if $a(x_1) > a(x_0)$. Here are all the swaps of a small set.

# %%
examples, target = rng.normal(size=(16, 5)), np.array([1.0, 0.5, 0, 0, 0])
a = examples @ target
a = a[np.r_[np.argsort(a)[::-2], np.argsort(a)[-2::-2]]]  # every second one: D_0 is a bit better
a0, a1 = a[:8], a[8:]
assert a0.mean() > a1.mean()


# %%
def swapped(a0, a1, i, j):
    """Means of both domains after example i of one and j of the other changed places."""
    b0, b1 = a0.copy(), a1.copy()
    b0[i], b1[j] = a1[j], a0[i]
    return b0.mean(), b1.mean()


# %%
after = np.array([[swapped(a0, a1, i, j) for j in range(8)] for i in range(8)])
rise = after[:, :, 0] - a0.mean()
assert ((rise > 0) == (a1[None, :] > a0[:, None])).all()

# %%
ax = picture(width=4.4, height=3.4)
most = np.abs(rise).max()
image = ax.imshow(rise, cmap="RdBu_r", vmin=-most, vmax=most)
ax.figure.colorbar(image)
words = f"Swaps: {(rise > 0).mean():.0%} raise the alignment of the better domain."
finish(ax, "Change of D₀'s alignment", "x₁, best to worst", "x₀, best to worst", words)

# %% [markdown]
# Read it with care: it is about the domain called $D_0$. A swap of the wrong kind may lift $D_1$ so
# high that *it* becomes the best, and the best alignment rises after all:

# %%
overtakes = (a1[None, :] < a0[:, None]) & (after[:, :, 1] > a0.mean())
print(f"{overtakes.sum()} of {overtakes.size} swaps worsen D_0 and yet raise the maximum")

# %% [markdown]
# ### Definitions 1 and 2, Lemma 4: stable domains
# Domains are *stable* if no swap raises the alignment of the best one. Lemma 4: that is so if and
# only if each of its members is at least as aligned as every other example. Two programs, one
# answer:


# %%
def stable_by_swapping(a, labels):
    means = [a[labels == i].mean() for i in range(labels.max() + 1)]
    best = int(np.argmax(means))
    inside, outside = a[labels == best], a[labels != best]
    pairs = ((i, j) for i in range(len(inside)) for j in range(len(outside)))
    return all(swapped(inside, outside, i, j)[0] <= means[best] + 1e-12 for i, j in pairs)


def stable_by_lemma_4(a, labels):
    means = [a[labels == i].mean() for i in range(labels.max() + 1)]
    best = labels == np.argmax(means)
    return a[best].min() >= a[~best].max()


# %%
answers = []
for _ in range(trials // 4):
    a = rng.normal(size=9)
    ranks = np.argsort(np.argsort(-a + rng.choice([0, 0.2, 2]) * rng.normal(size=9)))
    labels = ranks // 3  # by alignment, more or less noisily
    answers.append((stable_by_swapping(a, labels), stable_by_lemma_4(a, labels)))

# %%
by_swapping, by_lemma = np.array(answers).T
assert (by_swapping == by_lemma).all()
assert 0.1 < by_lemma.mean() < 0.9, "both kinds occurred"
print(f"{len(answers)} groupings, {by_lemma.mean():.0%} of them stable, no disagreement")

# %% [markdown]
# How to see it: the best domain's examples must all lie to the right of all others.

# %%
a = np.sort(rng.normal(size=12))[::-1]
axes = picture(2, height=2.0)
for ax, labels in zip(axes, (np.arange(12) // 4, np.arange(12) % 3), strict=True):
    ax.scatter(a, labels, c=np.array([BLUE, ORANGE, GREEN])[labels], s=36)
    ax.set_yticks(range(3), ["D₀", "D₁", "D₂"])
    ax.invert_yaxis()
    says = "Stable" if stable_by_lemma_4(a, labels) else "Not stable"
    label(ax, says, "alignment a(x)", alt=f"Alignments of examples in three domains. {says}.")
show.show(axes[0])

# %% [markdown]
# Grouping by alignment itself would be perfectly stable, but alignments change with every step.
# Domains must be good in *many* directions. Hence the next statement.
#
# ### Lemma 1 (5 in the appendix): regret is bounded by radii and gap
# The regret of the domains $i, j$: how much better the best set of $|D_i|$ examples out of both
# would be aligned than $D_i$. For equal sizes, $\mu_i \ge \mu_j$ and radii $r = \max_x |a(x) -
# \mu|$:
# $$R \le \max\left\{0,\; \tfrac{1}{2}\left(r_i + r_j - (\mu_i - \mu_j)\right)\right\}.$$


# %%
def regret_and_bound(ai, aj):
    if ai.mean() < aj.mean():
        ai, aj = aj, ai
    best = np.sort(np.r_[ai, aj])[-len(ai) :].mean()
    radii = np.abs(ai - ai.mean()).max() + np.abs(aj - aj.mean()).max()
    return best - ai.mean(), max(0.0, 0.5 * (radii - (ai.mean() - aj.mean())))


# %%
def random_pair(rng):
    n = 2 * rng.integers(1, 6)
    if rng.random() < 0.5:  # half of each domain at either end: the hard case
        ends = np.repeat([-1.0, 1.0], n // 2)
        return rng.uniform(0.2, 1) * ends + rng.uniform(0, 1.5), rng.uniform(0.2, 1) * ends
    return rng.normal(size=n) + rng.uniform(0, 2), rng.normal(size=n)


# %%
regret, bound = np.array([regret_and_bound(*random_pair(rng)) for _ in range(5 * trials)]).T
assert (regret <= bound + 1e-12).all()
assert (regret >= -1e-12).all()

# %% [markdown]
# **Predict**: is the bound ever reached? Half of each domain at $\mu + 1$, half at $\mu - 1$,
# means 0.5 apart: the bound says $(1 + 1 - 0.5)/2 = 0.75$.

# %%
ends = np.repeat([-1.0, 1.0], 4)
assert regret_and_bound(0.5 + ends, ends) == (0.75, 0.75)

# %%
ax = picture(width=4.0, height=3.6)
ax.scatter(bound, regret, s=4, color=BLUE, alpha=0.25, label="random pairs")
ax.plot([0, bound.max()], [0, bound.max()], color=GREY, lw=1, label="regret = bound")
ax.plot(0.75, 0.75, "D", color=ORANGE, ms=8, label="the case above")
words = f"Regret against bound for {len(regret)} pairs: none above the diagonal, some on it."
finish(ax, "Regret never exceeds its bound", "bound", "regret", words)

# %% [markdown]
# Why it holds: swap a fraction $s$ of $D_i$. What leaves lies at most $\min(s, 1-s)\, r_i$ below
# the mean in total, what comes likewise above; the gap costs $s(\mu_i - \mu_j)$. Worst at $s =
# 1/2$.
#
# ### The remark: hence small, well separated clusters
# The paper concludes that domains should have small radii in all directions, and so it looks at the
# silhouette. Here are gradients with six true groups, clustered with different k.

# %%
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

centres = 4 * np.linalg.qr(rng.normal(size=(12, 12)))[0][:6]
grads = np.repeat(centres, 40, axis=0) + rng.normal(size=(240, 12))
directions = rng.normal(size=(20, 12))
directions /= np.linalg.norm(directions, axis=1, keepdims=True)


# %%
def mean_bound(labels):
    """Bound of Lemma 1, averaged over pairs of domains and over directions."""
    bounds = []
    for a in directions @ grads.T:
        parts = [a[labels == i] for i in range(labels.max() + 1)]
        bounds += [regret_and_bound(x, y)[1] for i, x in enumerate(parts) for y in parts[:i]]
    return np.mean(bounds)


# %%
ks = np.arange(2, 13)
clusterings = [KMeans(int(k), n_init=10, random_state=seed).fit_predict(grads) for k in ks]
silhouettes = np.array([silhouette_score(grads, labels) for labels in clusterings])
bounds = np.array([mean_bound(labels) for labels in clusterings])

# %%
assert ks[silhouettes.argmax()] == 6
assert bounds[ks == 6] < bounds[ks == 2]
assert bounds[ks == 12] < bounds[ks == 6]

# %%
left, right = picture(2)
left.plot(ks, silhouettes, "o-", color=BLUE, ms=4)
label(left, "Silhouette", "k", alt=f"Silhouette by k, highest at k = {ks[silhouettes.argmax()]}.")
right.plot(ks, bounds, "s-", color=ORANGE, ms=4)
label(right, "Regret bound, mean", "k", alt=f"Regret bound by k, lowest at {ks[bounds.argmin()]}.")
show.show(left)

# %% [markdown]
# The bound falls until the true groups are apart, and then on: smaller domains have smaller radii.
# By itself it would ask for a domain per example. The silhouette has a peak.
#
# **What this is not**: the lemma is for domains of equal size and for *gradients*. Regroup
# clusters *embeddings* of texts. That these mimic gradients is an assumption, and the paper's own
# correlation between silhouette and loss goes from $R^2 = 0.05$ to $0.90$, depending on the
# corpus.

# %% [markdown]
# ## 9. Collapse, and how a floor prevents it
# Now train. Twelve domains share some features of a softmax regression and each has some of its
# own, which nobody else can teach. Examples are drawn from $p$; `RnB` sees the sums of gradients of
# the round, as in a real run, and the noise that comes with few examples.


# %%
class Classes:
    """Domains with features of their own; labels come from one teacher."""

    def __init__(self, rng, m=12, shared=4, own=4, classes=5):
        self.uses = np.ones((m, shared + own * m))
        self.uses[:, shared:] = np.kron(np.eye(m), np.ones(own))
        self.teacher = 1.5 * rng.normal(size=(classes, shared + own * m))

    def draw(self, rng, domains):
        x = rng.normal(size=(len(domains), self.uses.shape[1])) * self.uses[domains]
        noise = rng.gumbel(size=(len(domains), len(self.teacher)))
        return x, (x @ self.teacher.T + noise).argmax(axis=1)


# %%
def errors(W, x, y):
    """Predicted probabilities minus the truth: the gradient at the logits."""
    z = np.exp(x @ W.T - (x @ W.T).max(axis=1, keepdims=True))
    delta = z / z.sum(axis=1, keepdims=True)
    delta[np.arange(len(y)), y] -= 1
    return delta


def eval_losses(W, tests):
    truth = [1 + errors(W, x, y)[np.arange(len(y)), y] for x, y in tests]
    return np.array([-np.log(p).mean() for p in truth])


# %%
def one_round(world, W, p, rng, steps=5, batch=16, eta=0.5):
    """Train for a round; return the new weights, summed gradients by domain, and counts."""
    sums, counts = np.zeros((len(p), *W.shape)), np.zeros(len(p), int)
    for _ in range(steps):
        domains = rng.choice(len(p), batch, p=p)
        x, y = world.draw(rng, domains)
        delta = errors(W, x, y)
        np.add.at(sums, domains, delta[:, :, None] * x[:, None, :])
        np.add.at(counts, domains, 1)
        W = W - eta * delta.T @ x / batch
    return W, sums.reshape(len(p), -1), counts


# %% [markdown]
# A domain that no example came from has an unknown row in $G$: NaN, as `GramTracker` gives it.
# `RnB` then keeps the products of earlier rounds. (The paper's formula would be 0/0.)


# %%
def gram_of(sums, counts):
    mean = sums / np.where(counts > 0, counts, np.nan)[:, None]
    return mean @ mean.T


def train(world, mixer, q, seed):
    rng, m = np.random.default_rng(seed), len(q)
    tests = [world.draw(rng, np.full(300, i)) for i in range(m)]
    W, p = np.zeros_like(world.teacher), mixer.start(q, np.full(m, 999))
    history = {"p": [p], "step": [], "empty": [], "loss": [eval_losses(W, tests)], "q": q}
    for t in range(rounds):
        W, sums, counts = one_round(world, W, p, rng)
        p = mixer.update(observation(gram_of(sums, counts), q, p))
        history["p"].append(p)
        history["step"].append(5 * (t + 1))
        history["empty"].append((counts == 0).sum())
        history["loss"].append(eval_losses(W, tests))
    return {name: np.array(rows) for name, rows in history.items()}


# %%
from rbkit import Stratified, Target

rules = {"Stratified": Stratified(), "Target": Target(), "lambda 3": RnB(lam=3)}
rules |= {"lambda 30": RnB(lam=30), "lambda 30, floor 0.2": RnB(lam=30, floor=0.2)}

# %% [markdown]
# **Predict**: with $\lambda = 30$, how many of the twelve domains are empty in a typical round? Is
# the eval loss better or worse than with uniform shares?

# %%
worlds = range(3 if smoke else 8)
made = {name: [] for name in rules}
for i in worlds:
    mine = np.random.default_rng([seed, i])
    world, q = Classes(mine), mine.dirichlet(np.ones(12))
    for name, rule in rules.items():
        made[name].append(train(world, rule, q, seed=100 + i))

# %%
final = {name: np.array([h["loss"][-1] @ h["q"] for h in runs]) for name, runs in made.items()}
empty = {name: np.mean([h["empty"].mean() for h in runs]) for name, runs in made.items()}
for name in rules:
    print(f"{name:<22} eval loss {final[name].mean():.3f}   empty domains {empty[name]:4.1f} of 12")

# %%
assert empty["lambda 30"] > 6 > empty["lambda 3"]
assert final["lambda 30"].mean() > final["Stratified"].mean(), "collapse: worse than uniform"
assert final["lambda 30, floor 0.2"].mean() < final["Stratified"].mean(), "a floor prevents it"


# %%
def as_run(name, history):
    known = {"names": [f"domain {i}" for i in range(12)], "q": history["q"]}
    info = {"domains": known, "parameters": {"mixer": name}}
    return SimpleNamespace(history=history, info=info, path=Path(name), status="ok")


# %% [markdown]
# One of the worlds, seen from the side of the mixture. With $\lambda = 30$ the domains that win are
# those that were seen; knowledge of the others goes stale. The floor keeps it fresh.

# %%
axes = picture(3, width=3.1, height=3.2)
shown = ("lambda 3", "lambda 30", "lambda 30, floor 0.2")
for ax, name in zip(axes, shown, strict=True):
    run = as_run(name, made[name][0])
    show.proportions(run, ax, order=range(12), names=ax is axes[-1], title=name)
show.show(axes[0])

# %% [markdown]
# And from the side of the loss, averaged over the worlds:

# %%
ax = picture(width=5.6, height=3.2)
for (name, runs), colour in zip(made.items(), (GREY, GREEN, BLUE, ORANGE, "#A23B7C"), strict=True):
    curve = np.mean([h["loss"] @ h["q"] for h in runs], axis=0)
    ax.plot(5 * np.arange(rounds + 1), curve, color=colour, label=f"{name}: {curve[-1]:.3f}")
ax.set_ylim(top=1.2)
words = "; ".join(f"{name} ends at {losses.mean():.3f}" for name, losses in final.items())
finish(ax, f"Eval loss, mean of {len(worlds)} worlds", "step", "nats per example", words)

# %% [markdown]
# **Look before you believe**: this world was made to show a mechanism, in a few hundred steps of a
# linear model. It says that collapse exists and what stops it, not which lambda is right for you.
# And compare `lambda 3` with `Target` above: what balancing adds to merely moving to $q$ is small
# here.

# %% [markdown]
# ## What to remember
# - First order: a step gains $\eta\, q^\top G p$. Linear, so a corner; with an entropy, a softmax.
# - The norm makes it blind to the scale of gradients, and lambda weaker as $1/\sqrt m$. Ask for
#   `effective_domains` instead.
# - Never below uniform, to first order. No such promise against $p = q$: keep `Target` in the
#   table.
# - The lemmas are about one step and equal clusters. None is about the softmax, noise, or many
#   rounds.
# - A large lambda starves domains of evidence. A floor costs little and prevents it.
#
# **Break it**
# - Lemma 2: raise the power of the worlds (`low=-5`) without changing $L$. Which assert fails, and
#   why?
# - Section 9: take `floor=0.02`. How much floor is enough? Try `prior="previous"` without any
#   floor.
# - Section 7: make all gradients orthogonal. Can you find a $q$ for which $p = q$ always wins?
