"""What an offline method proposes: a mixture, how far to trust it, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rbkit.balance.mixers.fixed import Fixed
from rbkit.balance.signals import FloatArray
from rbkit.errors import InputError
from rbkit.files import read_json, write_json
from rbkit.train.record import Run

FORMAT = "rbkit-proposal/1"
# Regroup is paid for once, whatever is proposed afterwards.
_NOT_OURS = ("embed", "cluster")


@dataclass(frozen=True, eq=False)
class Proposal:
    """A fixed mixture that a method proposes for another training run.

    Attributes
    ----------
    p : ndarray of shape (m,), float64
        The mixture.
    method : str
        ``RegMix`` or ``MixMin``.
    domains : tuple of m str
        Names of the domains that `p` is about.
    predicted_loss : float
        What the method expects of `p`, in nats per token; of a small run, or (MixMin) of a
        mixture of the source models: not of the run that will use it.
    diagnostics : dict
        How far to trust it; JSON values.
    cost : dict
        ``runs``, and their ``flops`` and ``seconds`` by the runs' own ledgers.
    options : dict
        Options that it was made with; JSON values.

    Examples
    --------
    >>> proposal = Proposal(np.array([0.25, 0.75]), "RegMix", ("code", "prose"), 3.2)
    >>> proposal.mixer().options()
    {'p': [0.25, 0.75]}
    >>> import tempfile
    >>> path = proposal.save(tempfile.mkdtemp() + "/proposal.json")
    >>> Proposal.load(path).p
    array([0.25, 0.75])
    """

    p: FloatArray
    method: str
    domains: tuple[str, ...]
    predicted_loss: float
    diagnostics: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        p = np.asarray(self.p, dtype=np.float64)
        object.__setattr__(self, "p", p)
        object.__setattr__(self, "domains", tuple(self.domains))
        if p.shape != (len(self.domains),):
            raise InputError(
                "Proposal(p=...)", f"{p.size} shares for {len(self.domains)} domains",
                "give one per domain",
            )  # fmt: skip
        if not (np.isfinite(p).all() and (p >= 0).all() and abs(p.sum() - 1) < 1e-6):
            raise InputError("Proposal(p=...)", f"{p} is no mixture", "give shares that sum to 1")

    def mixer(self) -> Fixed:
        """Return the mixer that trains on this mixture."""
        return Fixed(self.p.tolist())

    def save(self, path: str | Path) -> Path:
        """Write the proposal as JSON, atomically; return the path."""
        values = asdict(self) | {"p": self.p.tolist(), "domains": list(self.domains)}
        write_json(path, {"format": FORMAT, **values})
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Proposal:
        """Read a proposal; :class:`InputError` if the file is none."""
        if not Path(path).is_file():
            raise InputError(str(path), "no such file", "give the proposal.json of a folder")
        values = read_json(path)
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise InputError(str(path), f"not in the format {FORMAT!r}", "make the proposal again")
        try:
            return cls(**{**values, "p": np.array(values["p"], dtype=np.float64)})
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                str(path), f"not a whole proposal ({error})", "make the proposal again"
            ) from error

    def __repr__(self) -> str:
        top = np.argsort(-self.p, kind="stable")[:3]
        shares = ", ".join(f"{self.domains[i]} {self.p[i]:.0%}" for i in top)
        return f"Proposal({self.method}, loss {self.predicted_loss:.3f}: {shares}, ...)"


def cost_of(runs: Sequence[Run]) -> dict[str, float]:
    """Add up what runs cost by their ledgers, Regroup left out."""
    entries: list[Mapping[str, Any]] = [
        entry for run in runs for entry in run.info["ledger"]["entries"]
        if entry["name"] not in _NOT_OURS
    ]  # fmt: skip
    return {
        "runs": len(runs),
        "flops": float(sum(entry["flops_counted"] or 0 for entry in entries)),
        "seconds": float(sum(entry["seconds"] or 0 for entry in entries)),
    }
