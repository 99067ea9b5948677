# %% [markdown]
# # A tour of R&B in five minutes
#
# **You will see** a corpus regrouped into semantic domains, three ways to mix them while a small
# language model trains, and the one formula behind the third, which you will check by hand.
#
# **Time**: about five minutes on two CPU cores. No GPU, and after the first fetch no internet.
#
# R&B ([arXiv 2505.00358](https://arxiv.org/abs/2505.00358)) has two halves. *Regroup*: forget
# where texts came from and cluster them by meaning. *Balance*: while a model trains, sample more
# from the domains whose gradients point where the eval set wants to go.

# %% tags=["setup"]
import tempfile

import numpy as np

import rbkit as rb
from rbkit import show

# %% tags=["parameters"]
corpus_name: str = "demo"  # built-in name, file, glob or hub id
embedder: str = "tfidf"  # tfidf takes seconds; minilm understands more
steps: int = 300  # optimizer steps of each run
round_steps: int = 25  # steps between two updates of the proportions
k: int = 16  # number of domains
run_dir: str = ""  # where runs are written; a temporary folder if empty
profile: str = "full"  # smoke: a few seconds, to test

# %%
smoke = profile == "smoke"
folder = run_dir or tempfile.mkdtemp(prefix="rbkit-tour-")

# %% [markdown]
# ## The result first
# The corpus is encyclopaedia leads, recipes and code. The model should become good at a mix that
# is *not* the corpus' own: cooking, biology, code.

# %%
target = {"recipes": 0.3, "Biology and health sciences": 0.4, "code": 0.2, "Everyday life": 0.1}
options = {"eval_sources": target, "eval_size": 600}
if smoke:
    corpus_name, steps, round_steps, k = "docstrings", 8, 4, 3
    options = {"eval_size": 40, "max_examples": 300}

# %%
corpus = rb.load_corpus(corpus_name, **options)
corpus

# %% [markdown]
# **Regroup**: embed every text, cluster, send each eval example to the nearest domain.

# %%
domains = rb.regroup(corpus, embedder=embedder, k=k)
domains

# %% [markdown]
# **Balance**: the same model, seed and budget under three mixers. `Stratified` gives each domain
# the same share; `Target` copies the shares of the eval set; `RnB` adapts. A run that is there is
# never replaced unasked: with `resume=True` one that has ended is read, so the cell can run twice.
# `live=True` shows the third while it trains, and ends in one figure.

# %%
size = {"steps": steps, "round_steps": round_steps}
size |= {"context": 32, "vocab_size": 512} if smoke else {}

# %%
runs = [
    rb.train(corpus, domains, mixer=mixer, run_dir=f"{folder}/{mixer}", resume=True, **size)
    for mixer in ("Stratified", "Target")
]

# %%
rnb = rb.train(
    corpus, domains, mixer="RnB", run_dir=f"{folder}/RnB", resume=True, live=True, **size
)
runs.append(rnb)

# %%
show.show(show.loss_curves(runs, split="eval"))

# %%
for run in runs:
    print(f"{run.name:<11} eval loss per token {run.info['final']['loss_token']:.4f}")

# %% [markdown]
# **Look before you believe.** This is one seed, so a small difference means nothing yet. And
# mind `Target`: it knows as much of the eval set as `RnB` does, and the paper leaves it out.

# %% [markdown]
# ## What Regroup found
# Domains have no names of their own. These are the terms that set each apart.

# %%
show.show(show.domain_sizes(domains))

# %% [markdown]
# A map to walk in: lasso, search, cut finer or coarser, merge, rename. (In a batch run, a picture.)

# %%
rb.explore(domains)

# %%
card = max(domains.cards, key=lambda card: card.eval_size)
print(card.name, "|", ", ".join(card.terms[:8]))
print("\n".join(" ".join(text.split())[:100] for text in card.nearest))

# %% [markdown]
# Human labels and domains cut differently. This domain is the most mixed:

# %%
mixed = min(domains.cards, key=lambda card: max(card.sources.values()))
print(mixed.name, "|", ", ".join(f"{s} {share:.0%}" for s, share in mixed.sources.items()))

# %% [markdown]
# ## What Balance did
# Move through the rounds of the adaptive run: the mixture, with the target $q$ beside it, follows
# from one matrix per round, the inner products of the domains' mean gradients at the last layer.
# Training computes those gradients anyway; they are only added up by domain.

# %%
rb.scrub(rnb)

# %%
history = rnb.history
G, q, p = history["gram"], history["q"], history["p"]
G.shape, q.shape, p.shape

# %% [markdown]
# ## The formula, by hand
# $Gq$ says how well a step on each domain serves the eval mix, to first order. A softmax over it
# is the next mixture:
# $$p_{t+1} = \mathrm{softmax}\left(\lambda \frac{G_t q}{\lVert G_t q \rVert_2}\right),
# \quad \lambda = 3.$$
# **Predict**: which domain gets most? Then run.


# %%
def balance(G, q, lam=3.0):
    """Algorithm 1, line 14."""
    v = np.nan_to_num(G) @ q
    z = np.exp(lam * v / np.linalg.norm(v))
    return z / z.sum()


# %%
t = np.flatnonzero((history["counts"] > 0).all(axis=1))[0]  # a round that every domain was in
mine = balance(G[t], q)
domains.names[int(mine.argmax())], mine.max().round(3)

# %%
assert np.allclose(mine, p[t + 1]), "your proportions differ from the recorded ones"
print("the recorded proportions are the formula's, to", np.abs(mine - p[t + 1]).max())

# %% [markdown]
# **What does lambda do?** At 0 nothing counts; the larger it is, the fewer domains remain.

# %%
for lam in (0, 1, 3, 10, 30):
    p_lam = balance(G[t], q, lam)
    entropy = -(p_lam[p_lam > 0] * np.log(p_lam[p_lam > 0])).sum()
    print(f"lambda {lam:>2}: {np.exp(entropy):5.1f} effective domains, largest {p_lam.max():.2f}")

# %% [markdown]
# **Never below uniform, to first order.** The gain of a mixture is $q^T G p$; the rule maximises
# it plus an entropy, and no mixture has more entropy than the uniform one.

# %%
gain = q @ np.nan_to_num(G[t])
uniform = np.full(len(q), 1 / len(q))
assert gain @ mine >= gain @ uniform

# %%
for name, mixture in {"RnB": mine, "p = q": q}.items():
    print(f"{name}: {gain @ mixture / (gain @ uniform):.2f} times the gain of uniform")

# %% [markdown]
# ## How sure is the matrix?
# A mean over few examples is noisy, and its square too large. Two half-rounds tell by how much.

# %%
diagonal, noise = np.diagonal(G, axis1=1, axis2=2), history["noise_floor"]
share = np.nanmedian(noise / diagonal, axis=1)
print("share of the diagonal that is sampling noise, by round:", share.round(2))

# %% [markdown]
# ## What it cost

# %%
show.show(show.costs(runs))

# %% [markdown]
# ## What to remember
# - *Regroup*: cluster train, assign eval; that gives $q$.
# - *Balance*: add up gradients by domain over a round, then
#   $\mathrm{softmax}(\lambda Gq/\lVert Gq\rVert)$.
# - Judge it against `Target`, with several seeds.
#
# **Break it**: set `RnB(lam=30)` and see how many domains survive; then add `floor=0.2`.
# **Go on**: `90_run.ipynb` is the same as a template that `rbkit run` fills in.
