# %% [markdown]
# # The Gram matrix: what it is, how wrong it is, and what it costs
#
# **You will** take the gradient of a layer apart by domain, build the matrix from which R&B
# decides, fall into its four traps and climb out, shrink it six-thousandfold, and ask whether one
# layer may speak for the whole model.
#
# **Time**: about two minutes on two CPU cores. No GPU, no download.
#
# Each claim is followed by a cell that checks it. Predict first, then run.

# %% tags=["setup"]
import copy
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import rbkit as rb
from rbkit import show
from rbkit.show.style import legend_above, plain_ticks, tidy
from rbkit.train.models import PadCollator, build_model, tokenize, train_tokenizer

# %% tags=["parameters"]
steps: int = 200  # optimizer steps of the small language model
round_steps: int = 25  # steps of a round
seeds: int = 6  # seeds of each sketch
draws: int = 5  # fresh draws when scopes are compared
seed: int = 0  # seed of everything random
profile: str = "full"  # smoke: a few seconds, to test

# %%
smoke = profile == "smoke"
if smoke:
    steps, round_steps, seeds, draws = 12, 6, 3, 2
torch.set_num_threads(1)  # products this small only wait for one another on more
rng, dice = np.random.default_rng(seed), np.random.default_rng(seed)  # training; simulations
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#00835F", "#59636e"

# %% [markdown]
# Two helpers: a picture in the style of rbkit, with words for those who cannot see it, and plain
# numbers on logarithmic axes.


# %%
def plain_numbers(axis, locator):
    axis.set_major_locator(locator)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="minor", length=0)


# %%
@contextmanager
def picture(alt, columns=1, width=6.4, height=3.1, **options):
    with show.rbkit_style():
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.subplots(1, columns, **options)
        for ax in figure.axes:
            if not ax.images:
                tidy(ax)
            if ax.get_xscale() == "log":
                plain_numbers(ax.xaxis, LogLocator(base=2))
            if ax.get_yscale() == "log":
                plain_numbers(ax.yaxis, LogLocator(subs=(1, 2, 5)))
        show.set_alt(figure, alt)
        show.show(figure)


# %% [markdown]
# ## 1. The result first
# A small language model learns from the docstrings of nine Python libraries. Each library is a
# domain. The model should become good at a mix that we choose, $q$.

# %%
corpus = rb.load_corpus("docstrings", eval_size=100, max_examples=500 if smoke else None)["train"]
names = sorted(set(corpus["source"]))
labels = np.array([names.index(source) for source in corpus["source"]])
m = len(names)

# %%
target = {"torch": 0.4, "pandas": 0.3, "sympy": 0.2, "numpy": 0.1}
q = np.array([target.get(name, 0.0) for name in names])
assert np.isclose(q.sum(), 1.0)

# %%
context = 32 if smoke else 48
tokenizer = train_tokenizer(corpus["text"], 512 if smoke else 1024, progress=False)
data = list(tokenize(corpus["text"], tokenizer, context=context))
collate = PadCollator(0)
model = build_model("tiny", vocab_size=len(tokenizer), context=context, seed=seed)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

# %% [markdown]
# A plain training loop. The only line that is not PyTorch's is the one that opens
# `tracker.batch`: a `GramTracker` watches the last layer and adds up its gradient by domain.


# %%
def train(steps, *trackers, coins=None):
    for _ in range(steps):
        rows = rng.integers(len(data), size=16)
        batch = collate([data[row] for row in rows])
        tokens = int((batch["labels"][:, 1:] != -100).sum())
        with ExitStack() as watching:
            for tracker in trackers:
                watching.enter_context(tracker.batch(labels[rows], scale=tokens))
            if coins:  # a tracker of 2 m domains: each domain's two half-rounds (section 6)
                twin = labels[rows] + m * rng.integers(2, size=len(rows))
                watching.enter_context(coins.batch(twin, scale=tokens))
            model(**batch).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


# %%
train(steps // 10)
early = copy.deepcopy(model)  # kept for section 9
train(steps - steps // 10)

# %%
tracker = rb.GramTracker(model.lm_head, m, seed=seed)
train(round_steps, tracker)
estimate = tracker.estimate()
tracker.remove()

# %% [markdown]
# This is all that R&B looks at: $G_{ij} = \langle g_i, g_j\rangle$, the inner products of the
# domains' mean gradients over a round. Red pairs help each other; blue ones are in each other's
# way. The diagonal is another matter, as you will see.

# %%
show.show(show.gram(estimate.gram, names, title="Who helps whom"))

# %% [markdown]
# And this is what it does with it, $p = \mathrm{softmax}(\lambda\, Gq / \lVert Gq\rVert)$
# (Algorithm 1 of [R&B](https://arxiv.org/abs/2505.00358); notebook 04 derives it).


# %%
def proportions(G, lam=3.0):
    v = G @ q
    z = np.exp(lam * v / np.linalg.norm(v))
    return z / z.sum()


# %%
for name, share, want in zip(names, proportions(estimate.gram), q, strict=True):
    print(f"{name:<13} p {share:.2f}   q {want:.2f}")

# %% [markdown]
# **The questions of this notebook.** Where do the $g_i$ come from, if training only makes their
# sum? How much of $G$ is noise? What does it cost? And does one layer speak for all?

# %% [markdown]
# ## 2. Domain gradients by hand
# A linear layer, nine tokens with inputs $H$, labels $y$, three domains. Nothing more is needed.

# %%
V, d, T = 6, 4, 9
torch.manual_seed(seed)
H, y = torch.randn(T, d), torch.randint(V, (T,))
domain = torch.arange(T) % 3
layer = nn.Linear(d, V, bias=False)

# %% [markdown]
# Backpropagation arrives at the layer's outputs with one row per token, $\delta_t$. For
# cross-entropy it has a closed form, softmax minus one-hot:
# $$\delta_t = \mathrm{softmax}(z_t) - e_{y_t}.$$

# %%
logits = layer(H)
Delta = (logits.softmax(-1) - F.one_hot(y, V)).detach()

# %%
(by_autograd,) = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), logits)
assert torch.allclose(Delta, by_autograd, atol=1e-6)

# %% [markdown]
# **Predict**: each row of $\Delta$ sums to the same number. Which one?

# %%
assert torch.allclose(Delta.sum(1), torch.zeros(T), atol=1e-6)

# %% [markdown]
# The gradient of the weight is a sum over tokens, $\Delta^\top H = \sum_t \delta_t h_t^\top$. A sum
# can be taken apart as one likes. The part of domain $i$ is the sum over its own tokens:
# $$A_i = \Delta_i^\top H_i.$$

# %%
A = torch.stack([Delta[domain == i].T @ H[domain == i] for i in range(3)])
A.shape

# %% [markdown]
# Is it the gradient of that domain's loss? Ask autograd, one backward pass per domain.

# %%
for i in range(3):
    loss = F.cross_entropy(layer(H[domain == i]), y[domain == i], reduction="sum")
    (g,) = torch.autograd.grad(loss, layer.weight)
    assert torch.allclose(A[i], g, atol=1e-6)

# %% [markdown]
# And the `.grad` that the optimizer uses is the sum of the parts.

# %%
F.cross_entropy(layer(H), y, reduction="sum").backward()
assert torch.allclose(layer.weight.grad, A.sum(0), atol=1e-6)

# %%
parts, top = [*A, layer.weight.grad], float(layer.weight.grad.abs().max())
titles = ["domain 0", "+ domain 1", "+ domain 2", "= .grad"]
alt = "Four heat maps of 6 by 4: the gradients of three domains, and .grad, which is their sum."
with picture(alt, 4, width=5.2, height=2.2) as axes:
    for ax, part, title in zip(axes, parts, titles, strict=True):
        ax.imshow(part, cmap="RdBu_r", vmin=-top, vmax=top)
        ax.set_title(title, fontsize=10)
        ax.axis("off")

# %% [markdown]
# **So the split costs no product.** Three small ones take as many operations as the one large one
# that training does anyway. rbkit calls this estimator *grouped*.


# %%
def flops(work):
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


# %%
whole = flops(lambda: Delta.T @ H)
split = flops(lambda: [Delta[domain == i].T @ H[domain == i] for i in range(3)])
assert split == whole == 2 * T * V * d

# %% [markdown]
# The Gram matrix: inner products of the parts, divided by the numbers of examples.

# %%
n = torch.bincount(domain).double()
G = A.flatten(1).double() @ A.flatten(1).double().T / torch.outer(n, n)

# %% [markdown]
# `GramTracker` does the same from a hook on the layer's output. (Here each token is an example.)

# %%
tracker = rb.GramTracker(layer, 3, estimator="exact")
with tracker.batch(domain):
    F.cross_entropy(layer(H), y, reduction="sum").backward()
assert np.allclose(tracker.estimate().gram, G)

# %% [markdown]
# ### Single examples
# One step further down: the gradient of one token is the outer product $\delta_t h_t^\top$.

# %%
each = torch.einsum("tv,td->tvd", Delta, H)
of_one = torch.func.grad(lambda W, h, y: F.cross_entropy(h @ W.T, y))
by_vmap = torch.func.vmap(of_one, in_dims=(None, 0, 0))(layer.weight.detach(), H, y)
assert torch.allclose(each, by_vmap, atol=1e-6)

# %% [markdown]
# An inner product of two outer products is a product of two inner products,
# $$\langle \delta_1 h_1^\top, \delta_2 h_2^\top\rangle = (\delta_1\cdot\delta_2)(h_1\cdot h_2).$$
# So $G$ can be had without making a single gradient: the *ghost* trick.

# %%
K = (Delta @ Delta.T) * (H @ H.T)
M = F.one_hot(domain).T.float()  # which token belongs to which domain
assert np.allclose(M @ K @ M.T / torch.outer(n, n), G, atol=1e-6)

# %% [markdown]
# It looks cheap, but compares every token with every other one of *the same step*. A round has
# hundreds of steps. Trap two, below, is about that.

# %% [markdown]
# ## 3. Trap one: a mean hides the weights
# Libraries return the *mean* loss of a batch. Then each example's gradient is divided by the size
# of its batch, and examples of small batches count more. Take the nine tokens in batches of
# three and six:


# %%
def in_batches(scale):
    tracker = rb.GramTracker(layer, 3, estimator="exact")
    for rows in (slice(0, 3), slice(3, 9)):
        with tracker.batch(domain[rows], scale=scale(len(H[rows]))):
            F.cross_entropy(layer(H[rows]), y[rows]).backward()  # a mean
    tracker.remove()
    return tracker.estimate().gram


# %% [markdown]
# **Predict** which of these three gives the $G$ from above: no scale, twice the batch size, the
# batch size. And which of the other two does no harm?

# %%
none, twice, right = (in_batches(s) for s in (lambda n: 1, lambda n: 2 * n, lambda n: n))
assert np.allclose(right, G)
assert not np.allclose(none, G)

# %% [markdown]
# A *constant* factor cancels, since R&B divides $Gq$ by its norm. One that varies does not.


# %%
def direction(G):
    v = G @ np.array([0.5, 0.3, 0.2])  # some q
    return v / np.linalg.norm(v)


# %%
assert np.allclose(twice, 4 * right)
assert np.allclose(direction(twice), direction(right))
assert not np.allclose(direction(none), direction(right), atol=1e-3)

# %% [markdown]
# With texts of different lengths every batch has another number of tokens. That is why the loop of
# section 1 says `scale=tokens`.

# %% [markdown]
# ## 4. Trap two: never add up Gram matrices
# A round has $K$ steps. It is tempting to form $G$ in each step and to average. Two steps are
# enough to see why not: a true gradient $(1, 0)$, one noisy example per step.

# %%
step_gradients = np.array([[1.0, 3.0], [1.0, -3.0]])
of_the_mean = (step_gradients.mean(0) ** 2).sum()
mean_of_steps = (step_gradients**2).sum(1).mean()
print(of_the_mean, mean_of_steps)

# %% [markdown]
# **Gradients first, products last**: in the sum the noise cancels, and the true squared norm, 1,
# is found. In per-step products it never meets its opposite, and gives 10.

# %%
assert of_the_mean == 1
assert mean_of_steps == 10

# %% [markdown]
# Off the diagonal it is worse. Two domains with the same gradient that never share a batch:

# %%
a, b = np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [1.0, 0.0]])  # (step, weight)
per_step = (a * b).sum()
accumulated = a.sum(0) @ b.sum(0)
assert per_step == 0  # "unrelated"
assert accumulated == 1  # "identical"

# %% [markdown]
# The accumulated product holds all $K^2$ pairs of steps, the per-step one only $K$ of them. Now
# with noise: two domains, $\left\lVert g\right\rVert^2 = 1$, two examples per step.

# %%
dim, per, sigma2 = 20, 2, 1.0  # weights, examples per step, variance of one weight
g1, g2 = np.zeros(dim), np.zeros(dim)
g1[0], g2[:2] = 1.0, [0.6, 0.8]
trace = dim * sigma2  # tr(Sigma)


# %%
def round_of(g, K, repeats=400):
    """Mean gradients of K steps, (repeats, K, dim)."""
    return g + dice.normal(0, np.sqrt(sigma2 / per), (repeats, K, dim))


# %%
lengths = np.array([1, 2, 4, 8, 16, 32, 64])
rounds = [(round_of(g1, K), round_of(g2, K)) for K in lengths]
diagonal = np.array([[(a**2).sum(2).mean(), (a.mean(1) ** 2).sum(1).mean()] for a, _ in rounds])
off = np.array([[(a * b).sum(2).mean(1).std(), (a.mean(1) * b.mean(1)).sum(1).std()]
                for a, b in rounds])  # fmt: skip

# %% [markdown]
# **Predict** both curves for both ways: the mean of the diagonal, whose truth is 1, and the
# scatter of an off-diagonal entry.

# %%
alt = f"""Left: the diagonal over K from 1 to 64. Averaged Grams stay near {diagonal[-1, 0]:.0f},
accumulated gradients fall to {diagonal[-1, 1]:.2f}; the truth is 1. Right: the scatter off the
diagonal falls to {off[-1, 0]:.2f} and to {off[-1, 1]:.2f}."""
with picture(alt, 2, width=7.4) as axes:
    for ax, values in zip(axes, (diagonal, off), strict=True):
        ax.loglog(lengths, values[:, 0], "s-", color=ORANGE, label="Grams averaged")
        ax.loglog(lengths, values[:, 1], "o-", color=BLUE, label="gradients accumulated")
        ax.set_xlabel("K, steps of a round")
    axes[0].axhline(1, color=GREY, ls=":", label="truth")
    axes[0].set(title="Diagonal, mean")
    axes[1].set(title="Off the diagonal, scatter")
    axes[0].legend(frameon=False, loc="center right", fontsize=9)

# %% [markdown]
# With $b$ examples of the domain in a step and $\Sigma$ the covariance of their gradients, the
# averaged diagonal keeps $\mathrm{tr}\,\Sigma / b$ whatever $K$ is; the accumulated one has
# $\mathrm{tr}\,\Sigma / (bK)$. It is $K$ times more noise.

# %%
ratio = (diagonal[:, 0] - 1) / (diagonal[:, 1] - 1)
assert np.allclose(ratio, lengths, rtol=0.35)
assert off[-1, 0] > 1.5 * off[-1, 1]

# %% [markdown]
# What is *linear* in the gradient may be added up over steps, over processes, over sketches. A
# Gram matrix is quadratic, so it comes last, once per round.

# %% [markdown]
# ## 5. Trap three: the diagonal is too large
# Even the accumulated diagonal is not unbiased. With $n$ examples of covariance $\Sigma$,
# $$\mathbb{E}\,\left\lVert \hat g\right\rVert^2
# = \left\lVert g\right\rVert^2 + \frac{\mathrm{tr}\,\Sigma}{n},$$
# because each example is multiplied with itself. Off the diagonal, noise meets only the noise of
# *other* examples, and averages out.
#
# ### Your turn
# Given the gradients of single examples, (n, dim), estimate $\left\lVert g\right\rVert^2$ without
# that bias.


# %% tags=["exercise"]
def my_estimate(each):
    return (each.mean(0) ** 2).sum()  # the plug-in estimate: improve it


# %%
def check(estimator, n=8):
    found = [estimator(g1 + dice.normal(0, 1, (n, dim))) for _ in range(3000)]
    excess, error = np.mean(found) - 1, np.std(found) / 3000**0.5
    if abs(excess) < 4 * error:
        return "unbiased, as far as 3,000 draws can tell"
    if abs(excess - trace / n) < 4 * error:
        return (
            f"too large by {excess:.2f}, which is tr(Sigma)/n: is an example multiplied by itself?"
        )
    return f"wrong by {excess:.2f}: how many pairs of different examples are there?"


# %%
print(check(my_estimate))

# %% [markdown]
# <details><summary>A hint</summary>
#
# The sum of all products of pairs is the squared norm of the sum. Take away the products of
# examples with themselves, and divide by the number of pairs that are left, n (n - 1).
#
# </details>


# %% tags=["solution"]
def u_statistic(each):
    n = len(each)
    return ((each.sum(0) ** 2).sum() - (each**2).sum()) / (n * (n - 1))


# %%
assert check(u_statistic).startswith("unbiased")
assert check(lambda each: (each.mean(0) ** 2).sum()).startswith("too large")

# %% [markdown]
# ### Two halves
# The U-statistic wants the norm of *every single* example's gradient. There is a way that needs
# none: cut the round in two and multiply one half's mean by the other's. Their noise is
# independent, so what remains is $\left\lVert g\right\rVert^2$.


# %%
def half_rounds(each):
    return each[0::2].mean(0) @ each[1::2].mean(0)


# %%
assert check(half_rounds).startswith("unbiased")

# %%
sizes = [2, 4, 8, 16, 32, 64, 128, 256]
ways = {"plug-in": my_estimate, "two halves": half_rounds, "U-statistic": u_statistic}
ways["plug-in"] = lambda each: (each.mean(0) ** 2).sum()
found = {
    way: np.array([[f(g1 + dice.normal(0, 1, (n, dim))) for _ in range(2000)] for n in sizes])
    for way, f in ways.items()
}

# %% [markdown]
# **Predict** the left picture: how many examples until the plug-in diagonal is right to 10 %?

# %%
at = sizes.index(16)
centre = {way: values[at].mean() for way, values in found.items()}
alt = f"""Left: the plug-in mean follows 1 + tr Sigma / n from {found["plug-in"][0].mean():.0f} down
to {found["plug-in"][-1].mean():.2f}, the others stay at 1. Right: 2,000 estimates at n = 16; the
plug-in ones lie around {centre["plug-in"]:.2f}, the others around 1 and wider, some below 0."""
looks = {"plug-in": (ORANGE, "s"), "two halves": (GREEN, "^"), "U-statistic": (BLUE, "o")}
with picture(alt, 2, width=7.4, height=3.3) as (left, right):
    for way, (colour, marker) in looks.items():
        left.plot(sizes, found[way].mean(1), marker, color=colour, label=way)
        right.hist(found[way][at], np.linspace(-1.5, 5, 53), histtype="step", lw=1.8, color=colour)
    left.plot(sizes, 1 + trace / np.array(sizes), color=ORANGE, lw=1, label="1 + tr Σ / n")
    left.set(title="Mean of 2,000 estimates", xlabel="n, examples", xscale="log", yscale="log")
    left.legend(frameon=False, fontsize=9)
    right.axvline(1, color=GREY, ls=":")
    right.set(title="All estimates at n = 16", xlabel="estimate of ‖g‖² = 1", yticks=[])

# %%
expected = 1 + trace / np.array(sizes)
assert np.allclose(found["plug-in"].mean(1), expected, rtol=0.1)
assert all(abs(found[w][at:].mean() - 1) < 0.1 for w in ("two halves", "U-statistic"))

# %% [markdown]
# Nothing is for nothing: the two halves use half of the pairs, so they scatter more than the
# U-statistic, and both can be *negative*, which a squared norm never is.

# %%
scatter = {way: values.std(1) for way, values in found.items()}
assert np.mean(scatter["two halves"] / scatter["U-statistic"]) > 1.03
assert (found["two halves"][0] < 0).any()

# %% [markdown]
# **Is the unbiased diagonal better for training?** That is another question. The bias adds
# $q_i\,\mathrm{tr}\,\Sigma_i / n_i$ to the score of domain $i$: it favours what the target wants
# most, and what was *sampled rarely*, an accidental bonus for exploring. Section 6 shows how strong
# it is. rbkit's default is the paper's plug-in diagonal; `RnB(diagonal="debiased")` is an option.

# %% [markdown]
# ## 6. The noise floor
# The halves are worth keeping for a second reason: how far they lie apart *is* the noise.
# With means $a_1, a_2$ of two equal halves, exactly:
# $$\left\lVert \frac{a_1 + a_2}{2} \right\rVert^2 = \langle a_1, a_2\rangle
# + \frac14 \left\lVert a_1 - a_2\right\rVert^2.$$
# The first term on the right estimates the signal, the second is the **noise floor**.

# %%
each = g1 + dice.normal(0, 1, (16, dim))
a1, a2 = each[0::2].mean(0), each[1::2].mean(0)
floor = ((a1 - a2) ** 2).sum() / 4
assert np.isclose(ways["plug-in"](each), half_rounds(each) + floor)

# %% [markdown]
# On average the floor is $\mathrm{tr}\,\Sigma/n$, just what the diagonal has too much.

# %%
halves = g1 + dice.normal(0, 1, (4000, 2, 8, dim))
floors = (np.diff(halves.mean(2), axis=1) ** 2).sum((1, 2)) / 4
assert np.isclose(floors.mean(), trace / 16, rtol=0.05)

# %% [markdown]
# `GramTracker` sends the examples of a domain to two half-rounds in turn and gives both numbers.
# Back to the language model of section 1. **Predict**: what share of its diagonal is noise?

# %%
plug_in, noise = np.diag(estimate.gram), estimate.noise_floor
share = noise / plug_in
order = np.argsort(plug_in)
print(f"noise makes up {np.nanmedian(share):.0%} of the diagonal (median over domains)")

# %%
alt = f"""Bars of the diagonal of G for {m} domains, split into signal and noise. Noise is between
{np.nanmin(share):.0%} and {np.nanmax(share):.0%} of a bar."""
with picture(alt, width=6.4, height=3.2) as ax:
    signal = np.nan_to_num((plug_in - noise)[order])
    ax.barh(range(m), signal, color=BLUE, label="signal")
    ax.barh(range(m), noise[order], left=signal, color="#c9d1d9", label="noise floor")
    plain_ticks(ax.yaxis, [f"{names[i]} (n = {estimate.counts[i]})" for i in order])
    ax.set(title="The diagonal", xlabel="squared norm of the mean gradient")
    legend_above(ax)

# %%
assert np.all(noise > 0)
assert np.nanmedian(share) > 0.1, "with so few examples per domain noise should be visible"

# %% [markdown]
# Where it matters is $p$. Both mixtures come from the same gradients; only the diagonal differs.

# %%
p_plain, p_debiased = proportions(estimate.gram), proportions(estimate.debiased())


def tv(p, other):
    """Total variation distance: the share of examples that would change domain."""
    return 0.5 * np.abs(p - other).sum()


# %%
alt = f"""Three dots per domain: q, p from the plug-in diagonal, p from the debiased one. The two p
differ by {tv(p_plain, p_debiased):.2f} in total variation."""
with picture(alt, width=6.4, height=3.0) as ax:
    ax.plot(q[order], range(m), "D", color=GREY, mfc="none", label="q")
    ax.plot(p_plain[order], range(m), "o", color=ORANGE, label="p, plug-in")
    ax.plot(p_debiased[order], range(m), "^", color=GREEN, label="p, debiased")
    plain_ticks(ax.yaxis, [names[i] for i in order])
    ax.set(title="What the bias does", xlabel="share")
    legend_above(ax)

# %% [markdown]
# ## 7. Sketches: fewer numbers, the same products
# A head of GPT-Neo-125M has 38.6 million weights; one gradient of a domain is 154 MB, and its two
# half-rounds are 309 MB. But $G$ only wants inner products, and these survive a random projection.
# The cheapest one is a **count sketch**: give each row a random sign and add up rows $j$, $j + c$,
# $j + 2c$, ...


# %%
def count_sketch(A, c, seed):
    """Fold (..., V, d) to (..., c * d) numbers."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (A.shape[-2], 1), generator=generator) * 2.0 - 1
    A = F.pad(A * signs, (0, 0, 0, -A.shape[-2] % c))
    return A.unflatten(-2, (-1, c)).sum(-3).flatten(-2)


# %% [markdown]
# Two rows that land in one bucket bring their product along, times two random signs, which is 0
# on average. So $\mathbb{E}\,\langle SA, SB\rangle = \langle A, B\rangle$. Try it with 2,000 seeds.

# %%
torch.manual_seed(seed)
pair = torch.randn(2, 64, 8) + 0.5 * torch.randn(64, 8)
truth = float((pair[0] * pair[1]).sum())
sketches = [count_sketch(pair, 8, s) for s in range(2000)]
products = np.array([float(one @ other) for one, other in sketches])

# %%
error = products.std() / len(products) ** 0.5
assert abs(products.mean() - truth) < 4 * error

# %%
alt = f"""Histogram of 2,000 sketched inner products around the true one, {truth:.0f}; their mean is
{products.mean():.1f}, their standard deviation {products.std():.0f}."""
with picture(alt, height=2.6) as ax:
    ax.hist(products, 50, color="#9ec5e3", label="sketched")
    ax.axvline(truth, color=ORANGE, label="true product")
    ax.set(title="64 rows in 8 buckets, 2,000 seeds", xlabel="inner product", yticks=[])
    legend_above(ax)

# %% [markdown]
# Right on average, and any single one may be far off. How far, for the rows of a language model?
# Here are its real ones: hidden states $H$ and $\Delta$ from the closed form, no backward pass.


# %%
@torch.no_grad()
def head_parts(model, rows):
    batch = collate([data[row] for row in rows])
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    hidden = model.model(**inputs).last_hidden_state[:, :-1]
    valid, targets = batch["labels"][:, 1:] != -100, batch["input_ids"][:, 1:]
    delta = model.lm_head(hidden).softmax(-1) - F.one_hot(targets, len(tokenizer))
    ids = torch.as_tensor(labels[rows])[:, None].expand(valid.shape)
    return hidden[valid], delta[valid], ids[valid]


# %%
members = [np.flatnonzero(labels == i) for i in range(m)]
some = np.concatenate([rng.choice(rows, 8 if smoke else 24, replace=False) for rows in members])
H, Delta, ids = head_parts(model, some)
A = torch.stack([Delta[ids == i].T @ H[ids == i] for i in range(m)])
A.shape

# %% [markdown]
# ### A head is a hard case
# **Predict**: two rows of such a gradient, of two different tokens. Are they unrelated?

# %%
common = H.mean(0)
cosines = F.cosine_similarity(A.flatten(0, 1), common[None], dim=1)
unrelated = F.cosine_similarity(torch.randn(A.flatten(0, 1).shape), common[None], dim=1)
assert cosines.abs().mean() > 2 * unrelated.abs().mean()

# %% [markdown]
# They are not. Every row is a weighted sum of hidden states, and hidden states have a mean. Rows
# point along it, or against it. When two of them meet in a bucket, their product is large, and
# *one* random sign decides where it goes.

# %%
alt = f"""Histograms of the cosine between a row of the gradient and the mean hidden state. Random
rows are near 0, those of the head: {cosines.abs().mean():.2f} in absolute value, up to 1."""
with picture(alt, height=2.6) as ax:
    bins = np.linspace(-1, 1, 61)
    ax.hist(unrelated.numpy(), bins, density=True, color="#c9d1d9", label="random rows")
    ax.hist(cosines.numpy(), bins, density=True, histtype="step", lw=2, color=BLUE, label="head")
    ax.set(title="Rows of the head", xlabel="cosine with the mean hidden state", yticks=[])
    legend_above(ax)

# %% [markdown]
# ### What rbkit does about it
# Fold the outputs into $B$ groups of $c$ buckets, cut the *inputs* into $B$ blocks with signs of
# their own, and add group $g$ of block $k$ to place $g \oplus k$ (exclusive or). The result has
# the same $c\,d$ numbers. But two outputs of different groups now meet only in *different*
# blocks of their inputs, where the common direction is multiplied by other signs.


# %%
def block_sketch(A, c, seed, blocks):
    """As count_sketch, with groups of outputs convolved with blocks of inputs."""
    m, _, d = A.shape
    columns = blocks * c
    X = count_sketch(A, columns, seed).view(m, blocks, c, blocks, d // blocks)
    signs = torch.randint(
        0, 2, (blocks, d // blocks), generator=torch.Generator().manual_seed(seed)
    )
    X, k = X * (signs * 2.0 - 1), torch.arange(blocks)
    return torch.stack([X[:, place ^ k, :, k].sum(0) for place in range(blocks)], 1).flatten(1)


# %% [markdown]
# With one block it is the plain sketch again.

# %%
assert block_sketch(A, 16, 0, blocks=1).abs().allclose(count_sketch(A, 16, 0).abs())
assert block_sketch(A, 16, 0, blocks=8).shape == count_sketch(A, 16, 0).shape


# %%
def relative_error(gram, exact):
    """Root mean square error of G, in units of the norms."""
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    return np.sqrt((((gram - exact) / scale) ** 2).mean())


# %%
def errors(sketch, A, sizes):
    exact = (A.flatten(1) @ A.flatten(1).T).numpy()
    return np.array([
        np.mean([relative_error((S @ S.T).numpy(), exact)
                 for S in (sketch(A, c, s) for s in range(seeds))])
        for c in sizes
    ])  # fmt: skip


# %%
def most_blocks(A, c, seed):
    return block_sketch(A, c, seed, blocks=min(len(tokenizer) // c, A.shape[2]))


# %% [markdown]
# How good can it get? A dense random projection to $c\,d$ numbers errs by about $1/\sqrt{c\,d}$.

# %%
buckets = [8, 16, 32, 64, 128]
plain = errors(count_sketch, A, buckets)
blocked = errors(most_blocks, A, buckets)
random_rows = errors(count_sketch, torch.randn(A.shape), buckets)
dense = 1 / np.sqrt(np.array(buckets) * A.shape[2])

# %% [markdown]
# And rbkit's own. To show a tracker *given* $H$ and $\Delta$, use a loss whose gradient at the
# outputs is $\Delta$.


# %%
def tracked(H, Delta, ids, **options):
    layer = nn.Linear(H.shape[1], Delta.shape[1], bias=False)
    tracker = rb.GramTracker(layer, m, **options)
    with tracker.batch(ids):
        (layer(H) * Delta).sum().backward()
    return tracker


# %%
exact = tracked(H, Delta, ids, estimator="exact").estimate().gram
n = np.bincount(ids, minlength=m)
assert np.allclose(
    exact, (A.flatten(1) @ A.flatten(1).T).numpy() / np.outer(n, n), rtol=1e-3, atol=1e-9
)

# %%
library = np.array([
    np.mean([relative_error(tracked(H, Delta, ids, buckets=c, seed=s).estimate().gram, exact)
             for s in range(seeds)])
    for c in buckets
])  # fmt: skip

# %%
lines = {
    "plain": (plain, ORANGE, "s-"), "plain, random rows": (random_rows, GREY, "x--"),
    "by hand, with blocks": (blocked, GREEN, "^-"), "rbkit": (library, BLUE, "o-"),
}  # fmt: skip
alt = "Error of G over buckets, log-log. At 32 buckets: " + ", ".join(
    f"{name} {values[2]:.3f}" for name, (values, _, _) in lines.items())  # fmt: skip
with picture(alt, width=6.4, height=3.6) as ax:
    for name, (values, colour, style) in lines.items():
        ax.loglog(buckets, values, style, color=colour, label=name, ms=5)
    ax.loglog(buckets, dense, ":", color=GREY, label="1 / √(c d)")
    ax.set(title="Error of G", xlabel="c, buckets", ylabel="relative to the norms")
    ax.legend(frameon=False, fontsize=9)

# %%
assert np.all(plain > 1.2 * random_rows), "aligned rows are the hard case"
assert np.all(blocked < 2 * dense), "blocks should make them easy"
assert np.mean(library / plain) < 0.8

# %% [markdown]
# With as many blocks as fit, aligned rows are as easy as random ones. rbkit leaves at least two
# outputs in each column, which is cheaper; with a vocabulary as small as ours its line therefore
# bends at the right.

# %% [markdown]
# ### How much memory?
# A tracker keeps two half-rounds of float32 per domain: $2 \cdot 4 \cdot c\,d$ bytes.

# %%
kept = tracked(H, Delta, ids, buckets=32).bytes
assert kept == m * 2 * 4 * 32 * H.shape[1]

# %% [markdown]
# The error depends on the number of numbers, $c\,d$. rbkit keeps at most 8,192 by default: 64
# buckets of this width, 10 of them for the head of GPT-Neo-125M. From three hundred megabytes to
# sixty kB:

# %%
width, vocabulary = 768, 50257  # the head of GPT-Neo-125M
for name, rows in {"exact": vocabulary, "128 buckets": 128, "10 buckets": 10}.items():
    print(f"{name:<12} {2 * 4 * rows * width / 1e6:8.2f} MB per domain")

# %% [markdown]
# ## 8. Is the sketch's error large?
# Large compared with what? With the noise that is there anyway. One more thing to watch per
# round: a tracker that counts each domain's two half-rounds as domains of their own, so that each
# half gives a $p$. (A half is noisier than the whole: halve their distance for the error of the
# whole round's $p$.) **Predict**: which moves $p$ more, 32 buckets or the luck of the draw?

# %%
head = model.lm_head
exact = rb.GramTracker(head, m, estimator="exact")
coins = rb.GramTracker(head, 2 * m, estimator="exact")
sketched = {c: [rb.GramTracker(head, m, buckets=c, seed=s) for s in range(2)] for c in buckets}
trackers = [exact, *(t for group in sketched.values() for t in group)]

# %%
distance = {c: [] for c in buckets}
by_luck, by_bias = [], []
for _ in range(3):
    train(round_steps, *trackers, coins=coins)
    found, twins = exact.estimate(), np.nan_to_num(coins.estimate().gram)
    p = proportions(np.nan_to_num(found.gram))
    by_luck.append(tv(proportions(twins[:m, :m]), proportions(twins[m:, m:])))
    by_bias.append(tv(p, proportions(np.nan_to_num(found.debiased()))))
    for c, group in sketched.items():
        distance[c] += [tv(p, proportions(np.nan_to_num(t.estimate().gram))) for t in group]
    for t in (coins, *trackers):
        t.reset()
for t in (coins, *trackers):
    t.remove()

# %%
alt = f"""Distance of p from the exact one over buckets, six points each, falling from
{np.mean(distance[8]):.3f} to {np.mean(distance[128]):.4f}. Two half-rounds differ by
{np.mean(by_luck):.2f}, plug-in and debiased diagonal by {np.mean(by_bias):.2f}."""
with picture(alt, height=3.4) as ax:
    for c in buckets:
        ax.loglog([c] * len(distance[c]), distance[c], "o", color=BLUE, alpha=0.6, ms=5)
    for value, name, colour in (
        (np.mean(by_luck), "two half-rounds: sampling noise", ORANGE),
        (np.mean(by_bias), "plug-in or debiased diagonal", GREEN),
    ):
        ax.axhline(value, color=colour)
        ax.annotate(name, (buckets[0], value), (0, 4), textcoords="offset points", color=colour)
    ax.set_ylim(top=2.2 * max(*by_luck, *by_bias))
    ax.set(title="What moves p", xlabel="c, buckets of the sketch", ylabel="TV distance of p")

# %%
assert np.mean(distance[64]) < np.mean(by_luck) / 2
ratio = np.mean(by_luck) / np.mean(distance[64])
print(f"two half-rounds are {ratio:.0f} times as far apart as 64 buckets and no sketch")

# %% [markdown]
# **Spend on examples, not on buckets.** And mind what the half-rounds do *not* see: both halves
# have the same bias, so their distance is silent about it.

# %% [markdown]
# ## 9. Is the last layer enough?
# All this watched the head. R&B takes one layer for the whole model; nobody promised that its $Gq$
# is that of all parameters. In a model this small we can look.
#
# **Trap four: a tied weight.** This model's head is also its embedding, so `.grad` mixes two uses.
# (A `GramTracker` sees $H$ and $\Delta$ of the head alone.) Here a copy of the weight keeps them
# apart, and one backward pass gives every scope.

# %%
SCOPES = ["head", "final norm", "last MLP", "embedding", "all parameters"]


def summed_loss(model, rows, head):
    batch = collate([data[row] for row in rows])
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    hidden = model.model(**inputs).last_hidden_state[:, :-1]
    logits, targets = F.linear(hidden, head), batch["labels"][:, 1:]
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")


# %%
def gradients(model, rows):
    """Gradient of the summed loss of `rows`, one flat tensor per scope."""
    head = model.lm_head.weight.detach().clone().requires_grad_()
    named = dict(model.named_parameters())
    parts = [
        torch.autograd.grad(summed_loss(model, rows[k : k + 32], head), [head, *named.values()])
        for k in range(0, len(rows), 32)
    ]
    of_head, *rest = (sum(part) for part in zip(*parts, strict=True))
    rest = dict(zip(named, rest, strict=True))
    embedding = rest.pop("model.embed_tokens.weight")
    mlp = [g for name, g in rest.items() if name.startswith("model.layers.1.mlp")]
    found = [[of_head], [rest["model.norm.weight"]], mlp, [embedding],
             [of_head + embedding, *rest.values()]]  # fmt: skip
    return {s: torch.cat([g.flatten() for g in f]) for s, f in zip(SCOPES, found, strict=True)}


# %% [markdown]
# The head's part is the $\Delta^\top H$ that we know; its `.grad` is not, as the weight is tied.

# %%
rows = members[0][:16]
parts = gradients(model, rows)
h, delta, _ = head_parts(model, rows)
assert torch.allclose(parts["head"], (delta.T @ h).flatten(), rtol=1e-3, atol=1e-4)

# %%
model.zero_grad()
summed_loss(model, rows, model.lm_head.weight).backward()
tied = model.lm_head.weight.grad.flatten()
assert not torch.allclose(tied, parts["head"], rtol=1e-2, atol=1e-3)
assert torch.allclose(tied, parts["head"] + parts["embedding"], rtol=1e-3, atol=1e-3)

# %% [markdown]
# For each scope: the mean gradients of both halves of some rows, and from them $G$ with the plug-in
# and with the debiased diagonal.


# %%
def grams(model, rows_by_domain):
    """{scope: (G, debiased G, G of half 0, G of half 1)} in float64."""
    means = {scope: [] for scope in SCOPES}
    for rows in rows_by_domain:
        halves = [gradients(model, rows[h::2]) for h in (0, 1)]
        for scope in SCOPES:
            means[scope].append(torch.stack([g[scope] for g in halves]) / (len(rows) // 2))
    return {scope: four_grams(torch.stack(found, 1)) for scope, found in means.items()}


def four_grams(halves):
    one, two = halves.double()
    gram = (one + two) @ (one + two).T / 4
    debiased = gram.clone().fill_diagonal_(0) + torch.diag((one * two).sum(1))
    return [G.numpy() for G in (gram, debiased, one @ one.T, two @ two.T)]


# %% [markdown]
# First the truth, as near as we get in a minute: 256 examples of each domain, and the debiased
# diagonal. Then small draws, as a round has them. At two moments: early in training, and now.

# %%
most = min(20 if smoke else 256, *map(len, members)) // 2 * 2
many = [rng.choice(rows, most, replace=False) for rows in members]
size = 12 if smoke else 48
models = {f"step {steps // 10}": early.eval(), f"step {steps + 4 * round_steps}": model.eval()}

# %%
truths = {when: grams(net, many) for when, net in models.items()}
few = {
    when: [grams(net, [rng.choice(r, size, replace=False) for r in members]) for _ in range(draws)]
    for when, net in models.items()
}

# %% [markdown]
# Three distances of $p$ per scope. *The layer itself*: its $p$ from many examples, against that of
# all parameters. *A round's estimate*: its $p$ from a few examples, against the same. And its
# *noise floor*: how far the two halves of a draw are apart.


# %%
def compare(when, scope):
    best = proportions(truths[when]["all parameters"][1])
    return {
        "layer itself": [tv(proportions(truths[when][scope][1]), best)],
        "plug-in": [tv(proportions(draw[scope][0]), best) for draw in few[when]],
        "debiased": [tv(proportions(draw[scope][1]), best) for draw in few[when]],
        "noise floor": [tv(*map(proportions, draw[scope][2:])) for draw in few[when]],
    }


# %%
table = {when: {scope: compare(when, scope) for scope in SCOPES} for when in models}
for when, net_truth in truths.items():
    v = {scope: found[1] @ q for scope, found in net_truth.items()}
    print(f"{when}: correlation of Gq with that of all parameters, many examples:")
    print("  ", {s: round(float(np.corrcoef(v[s], v["all parameters"])[0, 1]), 2) for s in SCOPES})

# %% [markdown]
# **Predict**: which is the larger mistake, to watch one layer, or to watch few examples?

# %%
looks = {"plug-in": (ORANGE, "o"), "debiased": (GREEN, "^"), "layer itself": (BLUE, "D")}
alt = ". ".join(
    f"{when}, {s}: " + ", ".join(f"{k} {np.mean(v):.2f}" for k, v in table[when][s].items())
    for when in table for s in SCOPES
)  # fmt: skip
with picture(alt, 2, width=7.8, height=3.9, sharex=True, sharey=True) as axes:
    for ax, (when, scopes) in zip(axes, table.items(), strict=True):
        floors = [np.mean(found["noise floor"]) for found in scopes.values()]
        ax.barh(range(len(SCOPES)), floors, 0.75, color="#dfe3e8", label="noise floor")
        for shift, (kind, (colour, marker)) in enumerate(looks.items(), start=-1):
            for row, found in enumerate(scopes.values()):
                at = [row + 0.22 * shift] * len(found[kind])
                label = kind if row == 0 else None
                ax.plot(found[kind], at, marker, color=colour, ms=5, label=label, clip_on=False)
        ax.set(title=when, xlabel="TV distance of p")
    axes[0].set_xlim(left=0)
    plain_ticks(axes[0].yaxis, SCOPES)
    axes[0].invert_yaxis()
    handles, words = axes[0].get_legend_handles_labels()
    axes[0].figure.legend(handles, words, loc="outside lower center", ncols=4, frameon=False)

# %%
now = table[list(table)[-1]]
assert all(now["all parameters"]["layer itself"][0] <= now[s]["layer itself"][0] for s in SCOPES)
print(f"few examples, all parameters: {np.mean(now['all parameters']['plug-in']):.3f}")
print(f"many examples, head only:     {now['head']['layer itself'][0]:.3f}")

# %% [markdown]
# How to read it. A *blue* diamond within the grey bar: the layer differs by less than the noise of
# a draw, and you will not notice. One far outside: this layer asks another question than the whole
# model does. *Orange* beyond *green*: the bias of the diagonal, which the grey bar cannot show.
# Look at both moments before you trust one.
#
# This is one small model, one corpus, one $q$. It does not say that a layer is good or bad in
# yours: it says how to find out.

# %% [markdown]
# ### The same, in a run
# `rb.train(..., fidelity_rounds=2)` measures it every second round, for the layer that you track,
# and writes it down. Here is the function that it calls.

# %%
from rbkit.train.fidelity import measure_fidelity
from rbkit.train.losses import FreshBatches, example_losses

# %%
batches = FreshBatches(data, None, members, np.array([], int), collate, 16, seed)
seen = rb.Observation(0, np.full(m, 1 / m), q, np.array([len(rows) for rows in members]))
found = measure_fidelity(
    model, [model.lm_head], batches, seen, loss_of=example_losses, examples=size
)
print(f"head against all parameters: correlation {found.correlation:.2f}, TV {found.tv:.3f}")
print(f"noise floor: head {found.noise_tv_layer:.3f}, all parameters {found.noise_tv_all:.3f}")

# %%
assert -1 <= found.correlation <= 1
assert 0 <= found.tv <= 1

# %% [markdown]
# ## 10. What it costs
# Count, don't guess: torch counts the operations of one training step, with a tracker and without.


# %%
def step_flops(**options):
    batch = collate([data[row] for row in some[:16]])
    ids, tracker = labels[some[:16]], None
    if options:
        tracker = rb.GramTracker(model.lm_head, m, **options)
    with tracker.batch(ids) if tracker else ExitStack():
        counted = flops(lambda: model(**batch).loss.backward())
    if tracker:
        tracker.remove()
    return counted


# %%
base = step_flops()
choices = {"exact": {"estimator": "exact"}, "sketch": {"buckets": 48},
           "grouped": {"estimator": "grouped"}}  # fmt: skip
extra = {name: step_flops(**options) - base for name, options in choices.items()}

# %%
for name, counted in extra.items():
    print(f"{name:<8} {counted / base:7.2%} of a training step")
assert extra["exact"] > extra["sketch"] > extra["grouped"] == 0

# %% [markdown]
# torch counts products only. A sketch adds mostly, and the tracker keeps the books of its own
# additions: `tracker.flops`. Take the head of GPT-Neo-125M, a few tokens, and ask.


# %%
def per_token(**options):
    head, x = nn.Linear(width, vocabulary, bias=False), torch.randn(4, width, requires_grad=True)
    head.weight.requires_grad_(False)
    tracker = rb.GramTracker(head, 1, **options)
    with tracker.batch([0, 0, 0, 0]):
        head(x).sum().backward()
    return tracker.flops / len(x)


# %% [markdown]
# A training step takes $6N$ operations per token, an exact tracker $2 V d$ more. **Predict** the
# shares.

# %%
N = 125.2e6
shares = {"exact": 2 * vocabulary * width / (6 * N)}
shares |= {f"{c} buckets": per_token(buckets=c) / (6 * N) for c in (128, 8)}
shares["8 buckets, 1/8 of the steps"] = shares["8 buckets"] / 8  # fraction=1/8

# %%
assert 0.09 < shares["exact"] < 0.11
assert shares["8 buckets"] < 0.001

# %%
alt = "Cost as a share of training GPT-Neo-125M: " + ", ".join(
    f"{name} {value:.3%}" for name, value in shares.items())  # fmt: skip
with picture(alt, height=2.2) as ax:
    ax.barh(list(shares), [100 * value for value in shares.values()], color=BLUE)
    for row, value in enumerate(shares.values()):
        ax.text(100 * value + 0.15, row, f"{100 * value:.3g} %", va="center", fontsize=9)
    ax.invert_yaxis()
    ax.set(title="Extra operations", xlabel="% of a training step, GPT-Neo-125M")

# %% [markdown]
# The paper books 0.0006 % (Dolly): it counts only the last product, $G = A A^\top$, once per round,
# and takes the $A_i$ as given. They are given only where the split is part of the backward pass, as
# in *grouped*: no product more, but an addition per weight and domain, and the memory of *exact*.

# %% [markdown]
# ## What to remember
# - The layer's gradient is a sum over examples; group the sum by domain and you have the $A_i$:
#   $G_{ij} = \langle A_i, A_j\rangle / (n_i n_j)$.
# - Undo the mean (`scale`). Add up gradients, never Grams.
# - The diagonal is too large by $\mathrm{tr}\,\Sigma / n$; two half-rounds show by how much, and
#   can take it away. Their distance shows the noise, not the bias.
# - A sketch of a few thousand numbers errs less than the draw of examples does.
# - One layer is a choice. Measure it against all parameters, and against the noise.
#
# **Break it**
# - Drop `scale=tokens` in section 1 and make batches of 2 and of 30. Does $p$ notice?
# - Set `round_steps=200`. Which shrinks: noise, bias, the sketch's error, the layer's own distance?
# - Choose a $q$ with one library only. Which scope goes wrong first?
#
# **Go on**: `04_balance.ipynb` derives the rule that turns $Gq$ into $p$.
