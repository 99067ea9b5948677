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
    now = editor.grouping
    if now.noise is not None:
        domains.quality["noise"] = {
            "share": float(now.noise.mean()),
            "left": float(np.mean(now.noise & (now.labels < 0))),
            **noise_policy(editor),
        }
    domains.quality["dropped_share"] = float(np.mean(domains.train_labels < 0))
    if warn:
        warn_of_shape(domains.sizes)
    found = far_eval(domains)
    domains.quality["far_eval"] = plain(found.to_dict())
    domains.quality["eval_far_share"] = found.share
    if warn and far == "keep":
        found.warn(stacklevel=3)
    if far == "apart":
        domains = replace(domains, eval_labels=found.apart())
        domains.quality["far_eval"]["apart"] = True
    return domains


def noise_policy(editor: Editor) -> dict[str, Any]:
    """Return the policy in force: that of the cut, or of the last operation on noise."""
    found: dict[str, Any] = {}
    for op in editor.ops:
        if op["op"] == "cut":
            found = {"policy": op.get("noise") or "nearest", "max_noise": op.get("max_noise")}
        elif op["op"] == "noise":
            found = {"policy": op.get("policy"), "max_noise": op.get("max_noise")}
    return found
