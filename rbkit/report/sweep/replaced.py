"""Which runs of a folder others replace: the same was asked for, of older code or data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rbkit.errors import InputError
from rbkit.report.sweep.jobfile import read_job

if TYPE_CHECKING:
    from rbkit.report.sweep.plan import Job, Plan


def replaced(plan: Plan, info: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the ids of earlier runs that planned ones replace, with what has changed since.

    With the same code, the same parameters make the same run. With other code the cell of
    parameters may have changed: then it is those that were set, or those that both versions
    know, while the new ones have their defaults.

    Parameters
    ----------
    plan : Plan
    info : dict
        ``sweep.json`` of the folder.
    """
    planned = _Planned(plan)
    ids = {job.id for job in plan.jobs}
    found = {}
    for id in info["jobs"]:
        if id in ids:
            continue
        try:
            before = read_job(plan.out / "runs" / id)
        except InputError:
            continue  # nothing of it is there
        before["content"] = {"template_sha": info["template_sha"], **before["content"]}
        job = planned.instead_of(before)
        if job is not None:
            found[id] = _changes(before["content"], job.content)
    return found


class _Planned:
    """The runs of a plan, found by parameters."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._by_all = {_key(job.parameters): job for job in plan.jobs}
        self._by_given = {_key(job.given): job for job in plan.jobs}
        self._by_common: dict[frozenset[str], dict[str, Job]] = {}

    def instead_of(self, before: Mapping[str, Any]) -> Job | None:
        all_, given = before["parameters"], before["given"]
        same = self._by_all.get(_key(all_))
        if same is not None or before["content"]["template_sha"] == self._plan.template_sha:
            return same
        # Files of the first versions do not say what was given.
        same = self._by_given.get(_key(given)) if given or not all_ else None
        if same is not None:
            return same
        names = frozenset(all_)
        if names not in self._by_common:
            self._by_common[names] = self._common(names)
        common = {name: value for name, value in all_.items() if name in self._plan.known}
        return self._by_common[names].get(_key(common))

    def _common(self, names: frozenset[str]) -> dict[str, Job]:
        defaults = self._plan.known.defaults
        found = {}
        for job in self._plan.jobs:
            new = {n: value for n, value in job.parameters.items() if n not in names}
            if all(name in defaults and value == defaults[name] for name, value in new.items()):
                old = {n: value for n, value in job.parameters.items() if n in names}
                found[_key(old)] = job
        return found


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found = []
    if before.get("template_sha") != now.get("template_sha"):
        found.append("the notebook's code")
    if before.get("rbkit", now.get("rbkit")) != now.get("rbkit"):
        found.append("rbkit's version")
    was, is_ = before.get("data"), now.get("data", {})
    if isinstance(was, dict):
        found += [f"the data of {n}" for n in sorted({*was, *is_}) if was.get(n) != is_.get(n)]
    return found


def _key(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)
