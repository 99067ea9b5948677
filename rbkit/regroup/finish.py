"""From a grouping to domains that say how good they are: distances, noise, far eval examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from rbkit.regroup.distances import distance_profile
from rbkit.regroup.domains import Domains
from rbkit.regroup.domains_io import plain
from rbkit.regroup.editor import Editor
from rbkit.regroup.noise import warn_of_shape
from rbkit.regroup.outliers import far_eval


def finish(
    editor: Editor,
    quality: Mapping[str, Any] | None = None,
    *,
    seconds: Mapping[str, float] | None = None,
    far: str = "keep",
    warn: bool = True,
) -> Domains:
    """Return the editor's domains with everything measured on them.

    Parameters
    ----------
    editor : Editor
    quality : mapping, optional
        What is known already, such as the grid that k was chosen from.
    seconds : mapping, optional
        ``{"embed", "cluster"}``: what Regroup cost.
    far : {"keep", "apart"}
        Eval examples that lie far from all domains: in q, or apart (label -1).
    warn : bool
        Warn of a domain that holds half of the corpus, and of many far examples.
    """
    domains = editor.domains(quality)
    if seconds is not None:
        domains.method["seconds"] = dict(seconds)
    assert domains.centroids is not None
    domains.quality["distances"] = distance_profile(
        editor.material.train, domains.train_labels, domains.centroids,
        domains.centroid_domains, m=domains.m,
    )  # fmt: skip
    effect, noise = editor.noise_effect, editor.grouping.noise
    if effect is not None and noise is not None:
        n = len(effect.labels)
        domains.quality["noise"] = plain({
            "share": effect.noise_before / n,
            "left": float(np.mean(noise & (effect.labels < 0))),
            "policy": effect.policy, "max_noise": effect.max_noise,
            "sizes_before": effect.sizes_before, "sizes_after": effect.sizes_after,
        })  # fmt: skip
    domains.quality["dropped_share"] = float(np.mean(domains.train_labels < 0))
    if warn:
        warn_of_shape(domains.sizes)
    found = far_eval(domains)
    domains.quality["far_eval"] = plain(found.to_dict())
    domains.quality["eval_far_share"] = found.share
    if warn and far == "keep":
        found.warn(stacklevel=3)
    if far == "apart":
        labels = found.apart()
        sizes = np.bincount(labels[labels >= 0], minlength=domains.m)
        cards = [
            replace(card, eval_size=int(n)) for card, n in zip(domains.cards, sizes, strict=True)
        ]
        domains = replace(domains, eval_labels=labels, cards=cards)
        domains.quality["far_eval"]["apart"] = True
    return domains
