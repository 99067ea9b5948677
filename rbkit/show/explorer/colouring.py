"""What the points of the map are coloured by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rbkit.errors import InputError

if TYPE_CHECKING:
    from rbkit.show.explorer.session import Session

_UNKNOWN = 255
_TITLES = {
    "domain": "domain", "source": "source", "distance": "distance to the domain's centre",
    "length": "characters of the text (log scale)", "loss": "eval loss, nats per token",
    "gram": "alignment of the domain's gradient with the target",
}  # fmt: skip


class Colouring:
    """The colour modes of a session, and their values.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.mode = "domain"
        self.run: Any = None
        self._distances: tuple[Any, NDArray[np.float32]] | None = None

    def modes(self) -> list[dict[str, Any]]:
        """Modes that there are data for."""
        found = ["domain", "source", "distance", "length"]
        found += ["loss", "gram"] if self.run is not None else []
        return [
            {"id": mode, "label": mode if mode != "gram" else "gradient",
             "continuous": mode not in ("domain", "source")}
            for mode in found
        ]  # fmt: skip

    def choose(self, mode: str) -> None:
        """Colour by another quantity."""
        known = [entry["id"] for entry in self.modes()]
        if mode not in known:
            more = "; loss and gram need a run: explorer.show_run(run)"
            raise InputError("colour", f"{mode!r} is unknown", f"use {', '.join(known)}{more}")
        self.mode = mode

    def show_run(self, run: Any) -> None:
        """Take losses and Gram matrix from a run on these domains."""
        if run.domains is None or len(run.domains.train_labels) != len(
            self.session.editor.material.train
        ):
            what = "it was not trained on domains of this corpus"
            raise InputError("run", what, "give a run of these domains")
        self.run = run

    def distances(self) -> NDArray[np.float32]:
        """Distance of each point of the map to the centre of its cell; NaN for none."""
        session, now = self.session, self.session.now
        if self._distances is None or self._distances[0] is not now:
            material = session.editor.material
            train = now.distances("train", material.train)[session.shown]
            both = np.concatenate([train, now.distances("eval", material.eval)])
            self._distances = (now, np.sqrt(both))
        return self._distances[1]

    def distance(self, point: int) -> float | None:
        """Distance of one point, None where it is in no domain."""
        found = float(self.distances()[point])
        return found if np.isfinite(found) else None

    def values(self) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Return the value of each point (0 to 254; 255 unknown), and what a legend needs."""
        info = {
            "mode": self.mode, "modes": self.modes(), "title": _TITLES[self.mode],
            "low": "", "high": "", "diverging": self.mode == "gram",
        }  # fmt: skip
        if self.mode in ("domain", "source"):
            return np.zeros(0, dtype=np.uint8), info
        raw, _ = self.raw()
        known = np.isfinite(raw)
        if not known.any():
            return np.full(len(raw), _UNKNOWN, dtype=np.uint8), info
        # A few extreme points must not take the whole scale.
        low, high = np.quantile(raw[known], [0.01, 0.99])
        if self.mode == "gram":
            high = max(abs(low), abs(high))
            low = -high
        span = (high - low) or 1.0
        scaled = np.clip((np.where(known, raw, low) - low) / span, 0, 1) * 254
        exact = np.exp if self.mode == "length" else float
        info |= {"low": _number(float(exact(low))), "high": _number(float(exact(high)))}
        return np.where(known, scaled, _UNKNOWN).astype(np.uint8), info

    def raw(self) -> tuple[NDArray[np.float64], dict[str, str]]:
        """Return the quantity itself, NaN where it is not known, and its title."""
        found = np.asarray(getattr(self, f"_{self.mode}")(), dtype=np.float64)
        return found, {"title": _TITLES[self.mode]}

    def _distance(self) -> NDArray[np.float32]:
        return self.distances()

    def _length(self) -> NDArray[np.float64]:
        material = self.session.editor.material
        lengths = [material.lengths("train")[self.session.shown], material.lengths("eval")]
        return np.log(np.maximum(np.concatenate(lengths), 1))

    def _loss(self) -> NDArray[np.float64]:
        """Eval examples: their own loss; training examples: that of their domain in the run."""
        from rbkit.files import read_npz

        final = read_npz(self.run.path / "final.npz", "train to the end: the losses come last")
        own = np.asarray(next(iter(final.values())), dtype=np.float64)
        trained = self.run.domains
        by_domain = np.full(trained.m + 1, np.nan)
        for at in range(trained.m):
            inside = own[trained.eval_labels == at]
            if np.isfinite(inside).any():
                by_domain[at] = np.nanmean(inside)
        return np.concatenate([by_domain[trained.train_labels[self.session.shown]], own])

    def _gram(self) -> NDArray[np.float64]:
        """Cosine of each domain's gradient with that of the target mixture, in the last round."""
        history = self.run.history
        if "gram" not in history or not len(history["gram"]):
            what = f"{self.run.name} tracked no gradients"
            raise InputError("gram", what, "train with a rule that does, such as RnB")
        seen = np.flatnonzero(np.isfinite(history["gram"]).any(axis=(1, 2)))  # NaN: no estimate
        last = history["gram"][seen[-1] if len(seen) else -1]
        G = np.nan_to_num(last.astype(np.float64))
        q = np.asarray(self.run.domains.q)
        norms = np.sqrt(np.maximum(np.diag(G), 1e-30) * max(float(q @ G @ q), 1e-30))
        aligned = np.append((G @ q) / norms, np.nan)
        trained = self.run.domains
        labels = np.concatenate([trained.train_labels[self.session.shown], trained.eval_labels])
        return np.asarray(aligned[labels])


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}".replace("-", "−")
