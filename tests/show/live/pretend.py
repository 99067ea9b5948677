"""A run that only pretends to train, step by step: what a panel needs, without a model."""

import numpy as np

from rbkit.balance.signals import GramEstimate

NAMES = (
    "00 species, genus, bird",
    "01 recipe, butter, oven",
    "02 def, return, self",
    "03 river, lake, basin",
    "04 album, band, song",
    "05 election, party",
    "06 <b>battle</b>, army",
    "07 protein, gene, cell",
)
M, K = len(NAMES), 10
Q = np.arange(1, M + 1) / np.arange(1, M + 1).sum()


def estimate(step):
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(M, 6)) + 0.6 + 0.02 * step * rng.normal(size=(M, 6))
    gram = vectors @ vectors.T
    diagonal = np.diag(gram)
    return GramEstimate(gram, np.full(M, 9), 0.8 * diagonal, 0.2 * diagonal)


def one_step(live, step):
    """Tell a `rb.live` loop of one step; a round and an evaluation end every K steps."""
    loss = 4.0 + 4.0 * np.exp(-step / 40)
    more = {}
    if step % K == K - 1:
        p = Q ** (1 / (1 + step / 30))
        more = {
            "p": p / p.sum(),
            "gram": estimate(step),
            "eval_losses": loss + np.linspace(-0.5, 0.7, M),
        }
    live(loss + 0.1 * np.sin(step), tokens=900, **more)
