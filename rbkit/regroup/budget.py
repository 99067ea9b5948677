"""What given proportions mean for each domain: examples, tokens, repetitions, shortages."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rbkit.errors import InputError, RbkitWarning
from rbkit.regroup.distances import Floats
from rbkit.regroup.weights import domain_tokens, proportions_of

if TYPE_CHECKING:
    import pandas as pd

    from rbkit.regroup.domains import Domains

# Up to four epochs, repeated text is worth about as much as new text; after that its worth
# decays (Muennighoff et al. 2023, arXiv 2305.16264).
MAX_EPOCHS = 4.0
MIN_BATCHES = 4  # examples of a domain, in batches: below it a domain is a handful of texts
_NAMED = 4


def training_table(
    domains: Domains,
    p: ArrayLike | str = "target",
    *,
    steps: int,
    batch_size: int,
    tokens: ArrayLike | None = None,
    round_steps: int | None = None,
    max_epochs: float = MAX_EPOCHS,
    min_batches: float = MIN_BATCHES,
    warn: bool = True,
) -> pd.DataFrame:
    """Tell, for each domain, what training with the proportions p would take from it.

    Parameters
    ----------
    domains : Domains
    p : array of shape (m,), or {"target", "uniform", "proportional"}
        As in :func:`proportions_of`.
    steps, batch_size : int
        Optimizer steps, and examples per step over all processes and micro-batches.
    tokens : int array of shape (n_train,) or (m,), optional
        Tokens of each training example (:func:`token_counts`), or of each domain.
    round_steps : int, optional
        Steps of a round, for the examples of each domain that a round sees.
    max_epochs : float
        Repetitions from which to warn.
    min_batches : float
        Batches that a domain should be able to fill.
    warn : bool
        Warn with :class:`RbkitWarning`; what there is to say also stands in the table's `note`.

    Returns
    -------
    pandas.DataFrame
        A row per domain, by name: ``examples, share, q, p``; ``drawn``, the examples expected
        to be drawn; ``epochs``, drawn / examples; ``batches``, how many it can fill;
        ``lasts``, the steps until it has been seen once; with `tokens` also ``tokens``,
        ``tokens_seen`` and ``token_share``; with `round_steps` also ``per_round``; ``note``.

    Raises
    ------
    InputError
        Steps or batch size below 1, or proportions that cannot be.

    Warns
    -----
    RbkitWarning
        Domains that would be repeated more than `max_epochs` times, or that cannot fill
        `min_batches` batches.

    Examples
    --------
    >>> from rbkit.regroup.domains import Domains
    >>> domains = Domains.from_labels(["wiki", "code"], [0] * 90 + [1] * 10, [0, 1])
    >>> table = training_table(domains, steps=10, batch_size=20, min_batches=0, warn=False)
    >>> table["epochs"].round(1).tolist(), table["note"].tolist()
    ([1.1, 10.0], ['', 'seen 10 times'])
    """
    import pandas as pd

    for name, value in {"steps": steps, "batch_size": batch_size}.items():
        if value < 1:
            raise InputError(name, f"{value} is not positive", "give at least 1")
    shares, sizes = proportions_of(domains, p), domains.sizes
    drawn = shares * steps * batch_size
    there = sizes > 0
    epochs = np.divide(drawn, sizes, out=np.zeros(domains.m), where=there)
    lasts = np.divide(sizes, shares * batch_size, out=np.full(domains.m, np.inf), where=shares > 0)
    table = pd.DataFrame(
        {
            "examples": sizes,
            "share": sizes / max(1, sizes.sum()),
            "q": domains.eval_sizes / max(1, domains.eval_sizes.sum()),
            "p": shares,
            "drawn": drawn,
            "epochs": epochs,
            "batches": sizes / batch_size,
            "lasts": lasts,
        },
        index=pd.Index(domains.names, name="domain"),
    )
    if tokens is not None:
        inside = domain_tokens(domains, tokens)
        seen = epochs * inside
        table["tokens"] = inside
        table["tokens_seen"] = seen
        table["token_share"] = seen / max(float(seen.sum()), 1e-300)
    if round_steps is not None:
        table["per_round"] = shares * batch_size * round_steps
    often = epochs > max_epochs * (1 + 1e-9)
    # A share of 0 needs no examples; an empty domain says so itself.
    small = (sizes < min_batches * batch_size) & there & (shares > 0)
    table["note"] = [
        _note(epochs[i] if often[i] else None, sizes[i] / batch_size if small[i] else None)
        for i in range(domains.m)
    ]
    if warn:
        _warn(table, often, small, max_epochs, min_batches, batch_size)
    return table


def smallest_size(
    p: ArrayLike, *, steps: int, batch_size: int, max_epochs: float = MAX_EPOCHS
) -> Floats:
    """Return the examples that a domain of share p needs, so as not to be repeated too often.

    ``p * steps * batch_size / max_epochs``, the shape of `p`: a guard for merging and cutting.

    Examples
    --------
    >>> smallest_size([0.5, 0.01], steps=300, batch_size=16).tolist()
    [600.0, 12.0]
    """
    return np.asarray(p, dtype=np.float64) * steps * batch_size / max_epochs


def _note(epochs: float | None, batches: float | None) -> str:
    said = [] if epochs is None else [f"seen {epochs:.3g} times"]
    if batches is not None:
        said.append(f"fills {batches:.2g} batches" if batches >= 1 else "fills no batch")
    return ", ".join(said)


def _warn(
    table: pd.DataFrame,
    often: NDArray[np.bool_],
    small: NDArray[np.bool_],
    most: float,
    least: float,
    batch_size: int,
) -> None:
    if often.any():
        worst = table[often].sort_values("epochs", ascending=False)["epochs"]
        named = [f"{name!r} {value:.3g} times" for name, value in worst.items()]
        told = f"{_domains(named)} would be seen more than {most:g} times ({_some(named)})"
        advice = "train for fewer steps, lower their shares, merge them, or set max_epochs"
        warnings.warn(f"{told}: repeated text teaches less; {advice}", RbkitWarning, stacklevel=3)
    if small.any():
        few = table[small].sort_values("examples", kind="stable")["examples"]
        named = [f"{name!r} {value:,} examples" for name, value in few.items()]
        told = f"{_domains(named)} cannot fill {least:g} batches of {batch_size} ({_some(named)})"
        warnings.warn(f"{told}; merge them, or drop them", RbkitWarning, stacklevel=3)


def _domains(named: list[str]) -> str:
    return f"{len(named)} domain{'s' if len(named) > 1 else ''}"


def _some(named: list[str]) -> str:
    return ", ".join(named[:_NAMED]) + (", ..." if len(named) > _NAMED else "")
