"""What the explorer tells a person: how far the sliders go, what is advised, what is odd."""

from __future__ import annotations

from typing import Any

import numpy as np

from rbkit.regroup.clusterings import DENSITY, Progress
from rbkit.regroup.edits import noise_policy
from rbkit.regroup.noise import cliff
from rbkit.show.explorer.session import Session

_SMALL = 30  # examples: a domain of fewer is used up in a few steps
_METHODS = ["ward", "kmeans", "hdbscan", "sources"]
_FINEST = 300  # domains that the slider goes up to


class Guide:
    """Controls, advice and notices of a session.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.advice: dict[str, Any] | None = None
        self.verdict = ""
        self._cliffs: tuple[Any, list[str]] = (None, [])

    def controls(self) -> dict[str, Any]:
        """Where the sliders stand, how far they go, and which k is advised."""
        op, now = self.session.editor.ops[0], self.session.now
        noise = 0.0 if now.noise is None else float(now.noise.mean())
        policy = noise_policy(self.session.editor.ops)
        n = len(self.session.editor.material.train)
        tree = self.session.editor.clusterings.tree(seed=self.session.seed)
        return {
            "method": op["method"] if op["method"] in _METHODS else "hand", "methods": _METHODS,
            "k": now.m, "k_max": min(len(tree.micro_sizes_), _FINEST),
            "min_cluster_size": op.get("min_cluster_size") or max(10, round(np.sqrt(n) / 2)),
            "min_samples": op.get("min_samples", 10),
            "size_max": max(20, n // 5), "noise": policy.get("policy") or "nearest",
            "max_noise": policy.get("max_noise"), "n_neighbors": self.session.neighbours,
            "min_dist": self.session.min_dist, "recommended": self.advice,
            "noise_share": noise,
            "noise_text": self._noise_effect() if noise else "",
            "by_hand": self.session.editor.log.by_hand,
        }  # fmt: skip

    def notices(self) -> list[dict[str, str]]:
        """Return what a person should know before training on this."""
        now, told = self.session.now, []
        sizes = now.sizes
        largest = int(np.argmax(sizes))
        if now.m > 1 and sizes[largest] > (0.9 if now.m == 2 else 0.5) * sizes.sum():
            share = sizes[largest] / sizes.sum()
            name = self.session.editor.cards()[largest].name
            told.append(
                ("warn", f"{name} holds {share:.0%} of the examples: split it, or cut finer")
            )
        small = int((sizes < _SMALL).sum())
        if small:
            told.append(("warn", f"{small} domains have fewer than {_SMALL} examples"))
        told += [("warn", text) for text in self._cliff()]
        if self.verdict:
            told.append(("info", self.verdict))
        if self.session.sampled:
            n = len(self.session.editor.material.train)
            told.append(("info", f"the map shows {len(self.session.shown):,} of {n:,} examples"))
        return [{"level": level, "text": text} for level, text in told]

    def advise(self, on_progress: Progress | None = None) -> None:
        """Judge the number of domains: the silhouette, its stability, and whether they agree."""
        from rbkit.regroup.choose import DEFAULT_GRID, choose_k

        material = self.session.editor.material
        tree = self.session.editor.clusterings.tree(seed=self.session.seed)
        grid = [
            k for k in DEFAULT_GRID if k <= min(len(tree.micro_sizes_), len(material.train) // 20)
        ]
        if len(grid) < 2:
            return
        choice = choose_k(
            material.train, grid, tree=tree, eval_vectors=material.eval, seed=self.session.seed,
            n_seeds=2, sample=4_000, progress=False,
        )  # fmt: skip
        if choice.judged.kind == "clear":
            self.advice, self.verdict = {"k": choice.k, "text": choice.verdict}, ""
        else:  # no number is better than one that the data do not support
            self.advice, self.verdict = None, f"no k stands out: {choice.verdict}"

    def _noise_effect(self) -> str:
        """Say how much noise there is, and which domain grew most by it."""
        editor = self.session.editor
        effect = editor.noise_effect
        if effect is None:
            return ""
        told = f"{effect.noise_before / len(effect.labels):.0%} of the examples are noise"
        if effect.joined.any():
            most = int(np.argmax(effect.growth))
            told += f"; {editor.cards()[most].name} grew {effect.growth[most]:.1f} times"
        return told

    def _cliff(self) -> list[str]:
        """Say if a small change of min_cluster_size near the present one makes another cut."""
        editor = self.session.editor
        first = editor.ops[0]
        if first.get("method") != "hdbscan":
            return []
        if self._cliffs[0] != first:
            given = {name: first[name] for name in DENSITY if name in first}
            fitted = editor.clusterings.density(**given)
            around = first["min_cluster_size"] * np.geomspace(0.6, 1.6, 7)
            sizes = sorted({max(2, int(size)) for size in np.round(around)})
            self._cliffs = (first, _in_words(cliff(fitted.sweep(sizes), warn=False)))
        return self._cliffs[1]


def _in_words(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    return [
        f"near a cliff: at least {found['from_size']} examples give {found['from_k']} domains, "
        f"at least {found['to_size']} give {found['to_k']}"
    ]
