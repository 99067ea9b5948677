# %% [markdown]
# # Embeddings: from texts to vectors, and what a cosine says
#
# **You will** turn a corpus into vectors, read the neighbours of a sentence aloud, learn why a
# cosine of 0.3 can be close and one of 0.97 wrong, compare two embedders by the domains that come
# of them, and see what the cache keeps.
#
# **Time**: two minutes on two CPU cores, and once a minute and a half more for the embedding
# itself. No GPU; after the first fetch no internet.
#
# Each claim is followed by a cell that checks it. Predict first, then run.

# %% tags=["setup"]
import tempfile
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import adjusted_mutual_info_score
from sklearn.preprocessing import normalize

import rbkit as rb
from rbkit import show
from rbkit.regroup import embed, embed_corpus, exact_neighbours, make_embedder, token_counts
from rbkit.show.style import legend_above, plain_ticks, shorten, tidy

# %% tags=["parameters"]
corpus_name: str = "wiki"  # built-in name, file, glob or hub id
embedder: str = "minilm"  # minilm, tfidf, a folder or a hub id
pairs: int = 200_000  # random pairs of texts
read: int = 60  # texts that are shuffled and cut short
seed: int = 0  # seed of everything random
profile: str = "full"  # smoke: a few seconds, no download

# %%
smoke = profile == "smoke"
options, other = {}, rb.TfidfEmbedder()
if smoke:
    corpus_name, embedder, pairs, read = "docstrings", "tfidf", 20_000, 40
    options, other = {"eval_size": 40, "max_examples": 600}, rb.TfidfEmbedder(dim=12)
rng = np.random.default_rng(seed)
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#00835F", "#8c959f"

# %% [markdown]
# One helper: a picture in the style of rbkit, with words for those who cannot see it.


# %%
@contextmanager
def picture(alt, columns=1, width=6.4, height=3.1, **more):
    with show.rbkit_style():
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.subplots(1, columns, **more)
        for ax in figure.axes:
            if not ax.images:
                tidy(ax)
        show.set_alt(figure, alt)
        show.show(figure)


# %% [markdown]
# ## 1. The result first
# A corpus of encyclopaedia leads, each with a human topic (its *source*). The embedder turns every
# text into a list of numbers. The first time this takes a while; then it is read from disk
# (section 9).

# %%
corpus = rb.load_corpus(corpus_name, **options)
texts, sources = list(corpus["train"]["text"]), np.array(corpus["train"]["source"])
tool = make_embedder(embedder)
X = embed_corpus(corpus, tool, progress=not smoke)["train"]
X.shape, X.dtype

# %% [markdown]
# A question becomes a vector in the same way. Its neighbours are the texts whose vectors point in
# the same direction.


# %%
def nearest(question, n=5):
    cosines = X @ tool.transform([question])[0]
    for row in np.argsort(-cosines)[:n]:
        print(f"{cosines[row]:5.2f}  {sources[row][:22]:<22}  {shorten(texts[row], 62)}")


# %%
nearest("games played on a board" if not smoke else "the mean of an array")

# %% [markdown]
# No word of the question needs to be in the answer. **Predict** the answers to the next one; the
# corpus has articles on the ostrich, the emu, the kiwi, the dodo and on penguins. Then run.

# %%
nearest("a bird that cannot fly" if not smoke else "a tensor that has no gradient")

# %% [markdown]
# Birds, yes. But all of them fly, and among them sits the *fly*, an insect. The model has found
# what the sentence is **about**, and has not read the "not". Say it in one word:

# %%
nearest("a flightless bird" if not smoke else "a tensor without gradient")

# %% [markdown]
# One cassowary; the falcon still leads. Keep this in mind for all that follows: Regroup makes
# domains of what texts are about.

# %% [markdown]
# ## 2. What an embedding is
# A text is a point on the unit sphere of $d$ dimensions.

# %%
print(shorten(texts[0], 90))
print(X[0, :8].round(3), "...")

# %%
length = np.linalg.norm(X, axis=1)
assert np.allclose(length[length > 0], 1, atol=2e-3)
print(f"{(length == 0).sum()} of {len(X):,} vectors are zero (TF-IDF: no word that it knows)")

# %% [markdown]
# On the unit sphere the cosine is a product, and the distance says the same:
# $$\cos(x, y) = x \cdot y, \qquad \lVert x - y \rVert^2 = 2 - 2 \cos(x, y).$$
# So k-means, which works on distances, works on cosines.

# %%
some = X[length > 0][:200]
squared = ((some[:, None] - some[None]) ** 2).sum(axis=2)
assert np.allclose(squared, 2 - 2 * some @ some.T, atol=5e-3)

# %% [markdown]
# **Predict**: which of the $d$ numbers says "biology"? Turn the whole cloud of points by a random
# rotation, and look what becomes of the cosines.

# %%
turn = np.linalg.qr(rng.normal(size=(X.shape[1], X.shape[1])))[0].astype(np.float32)
turned = some @ turn
assert np.allclose(turned @ turned.T, some @ some.T, atol=1e-4)
assert not np.allclose(turned, some, atol=0.1)

# %% [markdown]
# None of them. All numbers have changed, and no cosine: only relations between texts mean
# something. Here are those of a few texts from four sources.

# %%
names, counts = np.unique(sources, return_counts=True)
four = names[np.argsort(-counts)[:4]]
chosen = np.concatenate([rng.choice(np.flatnonzero(sources == name), 6) for name in four])
cosines = X[chosen] @ X[chosen].T

# %%
block = np.repeat(np.arange(4), 6)
inside = (block[:, None] == block) & ~np.eye(24, dtype=bool)
within, across = cosines[inside].mean(), cosines[block[:, None] != block].mean()
assert within > across

# %%
alt = f"""Cosines of 24 texts, six from each of {", ".join(four)}: {within:.2f} within a source
on average, {across:.2f} across."""
with picture(alt, width=6.2, height=4.6) as ax:
    np.fill_diagonal(cosines, np.nan)
    image = ax.imshow(cosines, cmap="RdBu_r", vmin=-0.6, vmax=0.6)
    ax.set(xticks=[], yticks=[])
    for at, name in enumerate(four):
        ax.text(-1, 6 * at + 2.5, shorten(name, 22), ha="right", va="center", fontsize=9)
        ax.axhline(6 * at - 0.5, color="white", lw=3)
        ax.axvline(6 * at - 0.5, color="white", lw=3)
    ax.figure.colorbar(image, ax=ax, shrink=0.7, label="cosine")
    ax.set_title("Like goes with like, more or less")

# %% [markdown]
# ## 3. How close is close?
# A cosine runs from -1 to 1. Is 0.3 much? Ask what *random* pairs have.

# %%
i, j = rng.integers(len(X), size=(2, pairs))
i, j = i[i != j], j[i != j]
random = (X[i] * X[j]).sum(axis=1)
low, middle, high = np.quantile(random, [0.05, 0.5, 0.95])
print(f"random pairs: median {middle:.2f}, nine in ten between {low:.2f} and {high:.2f}")

# %%
neighbours, distances = exact_neighbours(X, 51)  # itself first
first = 1 - distances[:, 1]
print(f"nearest neighbour: median {np.median(first):.2f}")
assert np.median(first) > np.quantile(random, 0.99)

# %%
same = sources[i] == sources[j]
alt = f"""Distributions of cosines: pairs of different sources around
{random[~same].mean():.2f}, of the same source around {random[same].mean():.2f}, of a text and its
nearest neighbour around {np.median(first):.2f}."""
with picture(alt) as ax:
    bins = np.linspace(-0.3, 1, 80)
    for values, name, colour in (
        (random[~same], "different sources", GREY),
        (random[same], "same source", BLUE),
        (first, "text and nearest neighbour", ORANGE),
    ):
        ax.hist(values, bins, density=True, histtype="stepfilled", alpha=0.5, color=colour,
                label=name)  # fmt: skip
    ax.set(title="Cosines of pairs", xlabel="cosine", yticks=[])
    legend_above(ax)

# %% [markdown]
# Nearly all pairs are nearly at right angles: in many dimensions there is room for it. For random
# directions in $d$ dimensions the cosine has a standard deviation of $1/\sqrt d$.

# %%
d = X.shape[1]
ball = normalize(rng.normal(size=(4000, d)))
assert np.isclose((ball[:2000] * ball[2000:]).sum(axis=1).std(), 1 / np.sqrt(d), rtol=0.1)

# %% [markdown]
# **Predict**: do texts use all $d$ dimensions? Turn the formula around: random pairs of *texts*
# have the spread of random directions in $1/\mathrm{sd}^2$ dimensions.

# %%
effective = 1 / random.std() ** 2
assert effective < d
print(f"{d} numbers per text, {effective:.0f} effective dimensions")

# %% [markdown]
# **Where is zero?** The mean cosine of all pairs is the squared length of the mean vector; no more
# than algebra. Some embedders have a long one: then *every* pair looks similar.

# %%
mean = X.mean(axis=0)
assert np.isclose(random.mean(), mean @ mean, atol=0.01)
print(f"mean cosine {random.mean():.3f}, squared length of the mean {mean @ mean:.3f}")

# %% [markdown]
# So do not read a cosine: read how rare it is. The same number from another embedder is another
# statement. (The other one here is TF-IDF: counts of words, squeezed into fewer numbers.)

# %%
began = perf_counter()
Y = embed_corpus(corpus, other, progress=False)["train"]
other_seconds = perf_counter() - began
random_other = (Y[i] * Y[j]).sum(axis=1)


# %%
def rarity(cosine, of):
    """Share of random pairs that are at least as similar."""
    return (of >= cosine).mean()


for cosine in (0.1, 0.3, 0.5, 0.7):
    print(f"cosine {cosine}: {rarity(cosine, random):8.3%} of random pairs in X, "
          f"{rarity(cosine, random_other):8.3%} in Y")  # fmt: skip

# %%
assert rarity(0.3, random) < 0.1
assert not np.isclose(rarity(0.3, random), rarity(0.3, random_other), rtol=0.2)

# %%
grid = np.linspace(-0.2, 1, 121)
alt = f"""Share of random pairs above a cosine, log scale. At 0.3 it is
{rarity(0.3, random):.2%} for the first embedder and {rarity(0.3, random_other):.2%} for TF-IDF."""
with picture(alt) as ax:
    for values, name, colour in (
        (random, f"X, {embedder}", BLUE),
        (random_other, "Y, tfidf", GREEN),
    ):
        ax.semilogy(grid, [100 * rarity(at, values) for at in grid], color=colour, label=name)
    ax.axvline(0.3, color=GREY, lw=1, ls=(0, (4, 2)))
    ax.set_yticks([100, 10, 1, 0.1, 0.01], ["100", "10", "1", "0.1", "0.01"])
    ax.set(title="How rare is a cosine?", xlabel="cosine", ylabel="% of pairs above")
    legend_above(ax)

# %% [markdown]
# ## 4. What a cosine does not mean
# **Predict**: order these pairs by their cosine.

# %%
said = [
    ("The dog bit the man.", "The man bit the dog."),
    ("The vaccine is safe.", "The vaccine is dangerous."),
    ("This mushroom is edible.", "This mushroom is not edible."),
    ("The film was a success.", "The film was a failure."),
    ("He sat on the bank of the river.", "He went to the bank for a loan."),
    ("The old man died.", "The elderly gentleman passed away."),
]
found = np.array([a @ b for a, b in (tool.transform(list(pair)) for pair in said)])

# %%
if embedder == "minilm":  # contradictions above the paraphrase
    assert found[:3].min() > found[5]

# %%
alt = "; ".join(f"{a} / {b} {c:.2f}" for (a, b), c in zip(said, found, strict=True))
with picture(alt, width=7.8, height=2.7) as ax:
    order = np.argsort(found)
    ax.axvspan(low, high, color="#e1e7ec", label="nine in ten random pairs of texts")
    ax.plot(found[order], range(len(said)), "o", color=ORANGE, label="pair")
    plain_ticks(ax.yaxis, [f"{said[k][0]}  |  {said[k][1]}" for k in order])
    ax.set(xlim=(-0.25, 1.02), xlabel="cosine")
    legend_above(ax)

# %% [markdown]
# A cosine is high where two texts are *about the same thing*. It does not say that they agree, nor
# who bit whom. Word order matters little in general: shuffle the words of whole texts.

# %%
rows = rng.choice(np.flatnonzero(length > 0), read, replace=False)
shuffled = tool.transform([" ".join(rng.permutation(texts[row].split())) for row in rows])
kept = (shuffled * X[rows]).sum(axis=1)
found_again = ((shuffled @ X.T).argmax(axis=1) == rows).mean()

# %%
assert np.median(kept) > np.quantile(random, 0.999)
print(f"cosine with the shuffled text: median {np.median(kept):.2f}; of all texts the original "
      f"is the nearest to its shuffled self in {found_again:.0%} of the cases")  # fmt: skip

# %% [markdown]
# For our purpose that is not a fault: domains are about topics. For others it is: do not filter
# a corpus for true or friendly statements by cosine.

# %% [markdown]
# ## 5. Are neighbours of the same topic?
# The human labels were not shown to the embedder. How often does the neighbour share the label?

# %%
agree = (sources[neighbours[:, 1:]] == sources[:, None]).mean(axis=0)
agree_other = (sources[exact_neighbours(Y, 51)[0][:, 1:]] == sources[:, None]).mean(axis=0)
chance = ((counts / counts.sum()) ** 2).sum()
assert agree[0] > 1.5 * chance

# %%
alt = f"""Share of neighbours with the source of the text by rank: {agree[0]:.0%} for the nearest,
{agree[-1]:.0%} for the fiftieth; chance {chance:.0%}."""
with picture(alt) as ax:
    ranks = np.arange(1, 51)
    ax.plot(ranks, 100 * agree, color=BLUE, label=f"X, {embedder}")
    ax.plot(ranks, 100 * agree_other, color=GREEN, label="Y, tfidf")
    ax.axhline(100 * chance, color=GREY, ls=(0, (4, 2)), label="chance")
    ax.set(title="Neighbours of the same source", xlabel="rank of the neighbour", ylabel="%")
    ax.set_ylim(0, 100)
    legend_above(ax)

# %% [markdown]
# The rest is not all error. Read the closest pairs whose labels differ, and ask who is right.

# %%
differ = np.flatnonzero(sources[neighbours[:, 1]] != sources)
for row in differ[np.argsort(-first[differ])][:6:2]:
    print(f"{first[row]:.2f}")
    for at in (row, neighbours[row, 1]):
        print(f"   {sources[at][:26]:<26}  {shorten(texts[at], 54)}")

# %% [markdown]
# ## 6. Hubs
# Every text has ten nearest neighbours. **Predict**: how often is a text *in* the ten of others?
# Ten times on average, that much is sure. In many dimensions some are it far more often: *hubs*.

# %%
popular = np.bincount(neighbours[:, 1:11].ravel(), minlength=len(X))
assert np.isclose(popular.mean(), 10)
spread = popular.std() / np.sqrt(10)  # that of counts by chance (Poisson) is 1
print(f"from {popular.min()} to {popular.max()} times; spread {spread:.1f} times that of chance")

# %%
assert spread > 1
for row in np.argsort(-popular)[:3]:
    print(f"{popular[row]:>4} times  {shorten(texts[row], 72)}")

# %%
luck = np.bincount(rng.poisson(10, len(X)), minlength=popular.max() + 1)
alt = f"""How often a text is among the ten nearest of others: up to {popular.max()} times, by
chance hardly above {luck.nonzero()[0].max()}."""
with picture(alt) as ax:
    ax.bar(range(popular.max() + 1), np.bincount(popular), 1, color=BLUE, alpha=0.6, label="texts")
    ax.step(range(len(luck)), luck, where="mid", color=GREY, label="chance")
    ax.set(title="Popular texts", ylabel="texts", xlabel="times among the ten nearest of another")
    legend_above(ax)

# %% [markdown]
# It shows, and it is mild: no text is everybody's neighbour. And nearness is not mutual.

# %%
ten = neighbours[:, 1:11]
mutual = (ten[ten] == np.arange(len(X))[:, None, None]).any(axis=2).mean()
assert mutual < 1
print(f"{mutual:.0%} of the ten nearest have the text among their own ten")

# %% [markdown]
# ## 7. Length, and where a text is cut
# Do long texts attract long texts? A little.

# %%
words = np.log([1 + len(text.split()) for text in texts])
together = np.corrcoef(words, words[neighbours[:, 1]])[0, 1]
assert 0 < together < 0.9
print(f"correlation of the log lengths of a text and its nearest neighbour: {together:.2f}")

# %% [markdown]
# An embedder reads a limited number of tokens (`max_tokens=128` by default); what comes after is
# not seen. How much of a text is needed? **Predict**: after how many words does a beginning point
# to its own text, among all of them?

# %%
cuts = (2, 4, 8, 16, 32, 64)
starts = [tool.transform([" ".join(texts[row].split()[:n]) for row in rows]) for n in cuts]
like = [(start * X[rows]).sum(axis=1).mean() for start in starts]
itself = [((start @ X.T).argmax(axis=1) == rows).mean() for start in starts]

# %%
assert like[-1] > like[0]
assert itself[-1] > 0.9

# %%
alt = "First words, cosine with the whole, share that finds itself: " + "; ".join(
    f"{n}, {a:.2f}, {b:.0%}" for n, a, b in zip(cuts, like, itself, strict=True)
)
with picture(alt) as ax:
    ax.semilogx(cuts, like, "o-", base=2, color=BLUE, label="cosine with the whole text")
    ax.semilogx(cuts, itself, "D-", base=2, color=ORANGE, label="the own text is nearest (share)")
    ax.set_xticks(cuts, [str(n) for n in cuts])
    ax.set(title="A text by its beginning", xlabel="first words", ylim=(0, 1.05))
    legend_above(ax)

# %% [markdown]
# Here the first sentence tells nearly all: leads of an encyclopaedia say at once what they are
# about. In novels or transcripts it would not. What is cut off is cut off silently; see it once:

# %%
if embedder == "minilm":
    brief = rb.TransformerEmbedder(max_tokens=16)
    start = " ".join(texts[0].split()[:40])
    one, two = brief.transform([start, start + " And now for something completely different."])
    assert np.allclose(one, two, atol=1e-6)

# %%
tokens = token_counts(texts)  # without a tokenizer an estimate, four bytes each
print(f"about {(tokens > 128).mean():.0%} of the texts are longer than 128 tokens")

# %% [markdown]
# ## 8. Another embedder, other domains
# TF-IDF needs no model, and seconds. By the labels (section 5) its neighbours are hardly worse.
# **Predict**: of the ten nearest, how many are the same under both?

# %%
ten_other = exact_neighbours(Y, 11)[0][:, 1:]
shared = (ten[:, :, None] == ten_other[:, None, :]).any(axis=2).mean()
assert shared < 0.9
print(f"{10 * shared:.1f} of 10; embedding with TF-IDF took {other_seconds:.0f} s")

# %% [markdown]
# And the domains? Compare clusterings with the *adjusted mutual information* (AMI): 0 for chance,
# 1 for the same. It wants a yardstick: k-means with another seed, on the same vectors, does not
# give the same domains either. That is the ceiling.


# %%
def ami(a, b):
    return adjusted_mutual_info_score(a, b)


def clusters(vectors, k, seed):
    return rb.KMeans(k, seed=seed).fit(vectors).labels_


# %%
ks = (8, 16, 30)
X_domains = {k: [clusters(X, k, s) for s in (seed, seed + 1)] for k in ks}
Y_domains = {k: [clusters(Y, k, s) for s in (seed, seed + 1)] for k in ks}

# %%
looks = {
    "X, two seeds": [ami(*X_domains[k]) for k in ks],
    "Y, two seeds": [ami(*Y_domains[k]) for k in ks],
    "X against Y": [ami(X_domains[k][0], Y_domains[k][0]) for k in ks],
    "X against sources": [ami(X_domains[k][0], sources) for k in ks],
    "Y against sources": [ami(Y_domains[k][0], sources) for k in ks],
}

# %%
for name, values in looks.items():
    print(f"{name:<18}", *(f"k = {k}: {value:.2f}  " for k, value in zip(ks, values, strict=True)))
assert np.mean(looks["X against Y"]) < np.mean(looks["X, two seeds"])

# %%
alt = "AMI. " + "; ".join(f"{name} {np.mean(v):.2f}" for name, v in looks.items())
with picture(alt, height=2.8) as ax:
    for k, marker, scores in zip(ks, "os^", zip(*looks.values(), strict=True), strict=True):
        ax.plot(scores, range(len(looks)), marker, color=BLUE, alpha=0.7, ms=7, label=f"k = {k}")
    plain_ticks(ax.yaxis, list(looks))
    ax.set(xlim=(0, 1), xlabel="AMI", title="Seeds, embedders, labels")
    ax.invert_yaxis()
    legend_above(ax)

# %% [markdown]
# Both find the human topics about equally well, and yet make different domains. **Choosing an
# embedder is choosing domains.** Only what lies below the two seeds is a difference between
# embedders; and which of the two is better for training, only training can say.

# %% [markdown]
# ## 9. The cache
# Vectors are kept by content: the text, and all that its vector depends on. Any object with `fit`,
# `transform` and an `identity` is an embedder. This one counts letter pairs, and what it is asked.


# %%
class Letters:
    identity = {"embedder": "Letters", "d": 64}  # noqa: RUF012

    def __init__(self, dies_after=10**9):
        self.asked, self.dies_after = 0, dies_after

    def fit(self, texts):
        return self

    def transform(self, texts):
        if self.asked >= self.dies_after:
            raise KeyboardInterrupt
        self.asked += len(texts)
        rows = np.zeros((len(texts), 64), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for a, b in pairwise(text):
                row[(31 * ord(a) + ord(b)) % 64] += 1
        return normalize(rows)


# %%
few = list(dict.fromkeys(texts))[:1000]  # a text that occurs twice is computed once
folder = Path(tempfile.mkdtemp(prefix="rbkit-cache-"))
counting = Letters()
once = embed(few, counting, cache=folder, progress=False)
assert counting.asked == len(few)

# %% [markdown]
# A second call computes nothing, and gives the same bits. **Predict** what one text more costs, and
# another order.

# %%
counting = Letters()
again = embed(few, counting, cache=folder, progress=False)
assert counting.asked == 0
assert np.array_equal(once, again)

# %%
mixed = embed([*few[::-1], "one text more"], counting, cache=folder, progress=False)
assert counting.asked == 1
assert np.array_equal(mixed[:-1], once[::-1])

# %% [markdown]
# **On disk**: a folder for each embedder, a note for people, and shards: 16 bytes of hash and a
# vector in half precision for every text.

# %%
for path in sorted(folder.rglob("*.*")):
    print(f"{path.stat().st_size:>8,} bytes  {path.name}")
shard = max(folder.rglob("shard-*.npz"), key=lambda path: path.stat().st_size)
assert shard.stat().st_size < len(few) * (16 + 2 * 64) + 2000

# %% [markdown]
# **A run that is killed** loses the shard that it was at. One is written every 15 seconds; we do
# not wait, and let every chunk of 256 texts be one.

# %%
folder = Path(tempfile.mkdtemp(prefix="rbkit-cache-"))
with patch("rbkit.regroup.embedding._SECONDS_PER_SHARD", 0.0):
    try:
        embed(few, Letters(dies_after=256), cache=folder, progress=False)
    except KeyboardInterrupt:
        print("killed; on disk:", len(list(folder.rglob("shard-*.npz"))), "shard")

# %%
counting = Letters()
resumed = embed(few, counting, cache=folder, progress=False)
assert counting.asked == len(few) - 256
assert np.array_equal(resumed, once)
print(f"{counting.asked} of {len(few)} texts were left to do; the result is the same to the bit")

# %% [markdown]
# **A damaged file** is named and not believed.

# %%
shard = next(folder.rglob("shard-*.npz"))
shard.write_bytes(shard.read_bytes()[:500])
try:
    embed(few, Letters(), cache=folder, progress=False)
except rb.InputError as error:
    complaint = error

# %%
assert shard.name in complaint.where
print(complaint.what, "->", complaint.remedy)

# %% [markdown]
# Half precision costs a fourth digit. It is the same whether computed or read back, as the first
# call rounds, too; that is why the bits agree.

# %%
exact = Letters().transform(few)
assert np.abs(exact - once).max() < 5e-4
assert ((exact @ exact.T - 2 * np.eye(len(few))).argmax(0)
        == (once @ once.T - 2 * np.eye(len(few))).argmax(0)).mean() > 0.95  # fmt: skip

# %% [markdown]
# And with the embedder of this notebook, for a few texts, in seconds:

# %%
clock, timed = [perf_counter()], tool if getattr(tool, "cacheable", True) else Letters()
folder = Path(tempfile.mkdtemp(prefix="rbkit-cache-"))
for _ in range(2):
    embed(few[:100], timed, cache=folder, progress=False)
    clock.append(perf_counter())
cold, warm = np.diff(clock)

# %%
print(f"100 texts: {cold:.2f} s, and {warm:.3f} s from the cache")
assert smoke or warm < cold / 5

# %% [markdown]
# TF-IDF is never cached (`cacheable = False`): it is fitted to its corpus, and quicker than a look
# at the disk.

# %% [markdown]
# ## What to remember
# - An embedding is a direction. Single numbers mean nothing; relations do.
# - A cosine is read against random pairs: how rare is it? Its value depends on the embedder.
# - It says what texts are about: not what they claim, and nearly nothing of order or "not".
# - Two embedders can be equally good by labels and make different domains. Compare by AMI, next to
#   the ceiling of two seeds.
# - Texts are embedded once. Kill a run when you like.
#
# **Break it**
# - Ask `nearest` for something that the corpus has nothing about. Does the cosine tell?
# - Subtract `mean` from `X` and normalise. What becomes of section 3, and of the hubs?
# - Set `embedder="tfidf"` and read section 1 again.
#
# **Go on**: `02_regroup.ipynb` makes domains of these vectors.
