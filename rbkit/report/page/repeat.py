"""How to get the same numbers again: commands, and the machine that they came from."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from rbkit.errors import InputError
from rbkit.report.page.kept import Kept
from rbkit.report.page.text import value
from rbkit.report.units import amount

# Arguments of rbkit.train that its record holds under the same name.
_TRAIN = ("model", "steps", "round_steps", "accumulate", "context", "learning_rate",
          "estimator", "fraction", "seed")  # fmt: skip


def command_of(run: Kept) -> str:
    """Return what repeats a run: a command line, or Python if it was trained from Python.

    Of a run of a sweep it is the command that the launcher wrote down. A run that was made
    by hand is repeated from its recorded parameters, into a folder of its own.
    """
    if run.job and run.job.get("command"):
        return str(run.job["command"])
    return _command_line(run) or _python(run)


def sweep_commands(sweeps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the commands that made the sweeps, each once and in their order."""
    calls = [call for sweep in sweeps for call in (*(sweep.get("calls") or []), sweep)]
    said = [
        str(call["command"]) for call in calls if isinstance(call, dict) and call.get("command")
    ]
    return list(dict.fromkeys(said))


def environment_rows(runs: Sequence[Kept], sweeps: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return (name, value) of all that a result may depend on beside its parameters."""
    sweep: Mapping[str, Any] = sweeps[0] if sweeps else {}
    info = next((run.info for run in runs if run.info.get("versions")), {})
    versions = {**(sweep.get("versions") or {}), **(info.get("versions") or {})}
    if sweep.get("rbkit"):
        versions.setdefault("rbkit", sweep["rbkit"])
    machine = sweep.get("machine") if isinstance(sweep.get("machine"), dict) else {}
    git = sweep.get("git") or info.get("git")
    if isinstance(git, dict):
        git = f"{git.get('commit')}{', with changes' if git.get('changed') else ''}"
    found = list(versions.items())
    found += [(name.replace("_", " "), value(v)) for name, v in (machine or {}).items() if v]
    hosts = sorted({str(run.info["host"]) for run in runs if run.info.get("host")})
    devices = sorted({str(run.info["device"]) for run in runs if run.info.get("device")})
    started = sorted(str(run.info["started"]) for run in runs if run.info.get("started"))
    corpus = info.get("corpus") or {}
    model = info.get("model") if isinstance(info.get("model"), dict) else {}
    found += [
        ("git commit", value(git) if git else None),
        ("template", value(sweep["template"]) if sweep.get("template") else None),
        ("device" if len(devices) == 1 else "devices", ", ".join(devices)),
        ("machines", f"{len(hosts)}" if len(hosts) > 1 else None),
        ("model parameters", amount((model or {}).get("parameters"))),
        ("first run started", started[0][:19].replace("T", " ") if started else None),
        ("corpus fingerprint", corpus.get("fingerprint")),
        ("duplicates across train and eval", corpus.get("duplicates")),
    ]
    return [(name, v) for name, v in found if v not in (None, "", "–")]


def _command_line(run: Kept) -> str | None:
    from rbkit.report.parameters import RunParameters

    recorded = run.info.get("parameters") or {}
    if not {"corpus", "embedder", "mixer"} <= recorded.keys():
        return None
    default = RunParameters().to_dict()
    names = [f.name for f in fields(RunParameters) if f.name not in ("run_dir", "resume")]
    given = {name: recorded[name] for name in names if name in recorded}
    if recorded.get("micro_batch_size"):
        given["batch_size"] = recorded["micro_batch_size"]
    try:
        RunParameters.from_mapping(given)
    except InputError:
        return None  # made by another version, or by somebody else
    changed = {k: v for k, v in given.items() if v != default[k] or k in ("mixer", "seed")}
    parts = ["rbkit", "run", "--out", f"{run.path.name}-again"]
    for name, what in changed.items():
        parts += ["-p", f"{name}={what if isinstance(what, str) else json.dumps(what)}"]
    return shlex.join(parts)


def _python(run: Kept) -> str:
    recorded = run.info.get("parameters") or {}
    corpus = (run.info.get("corpus") or {}).get("name")
    if "mixer" not in recorded or "steps" not in recorded:
        return "parameters = " + json.dumps(recorded, ensure_ascii=True, sort_keys=True)
    given = {name: recorded[name] for name in _TRAIN if recorded.get(name) is not None}
    if recorded.get("micro_batch_size") or recorded.get("batch_size"):
        given["batch_size"] = recorded.get("micro_batch_size") or recorded["batch_size"]
    given["mixer"] = _Source(
        f"mixer_by_name({recorded['mixer']!a}, {recorded.get('mixer_options') or {}!a})"
    )
    given["run_dir"] = f"{run.path.name}-again"
    saved = str(run.path / "domains")
    lines = [
        "import rbkit as rb",
        "from rbkit.balance.mixers import mixer_by_name",
        f"corpus = rb.load_corpus({corpus!a})",
        f"domains = rb.Domains.load({saved!a})",
        f"rb.train(corpus, domains, {', '.join(f'{k}={v!a}' for k, v in given.items())})",
    ]
    return "\n".join(lines)


class _Source(str):
    """Python source among values: written as it is."""

    def __repr__(self) -> str:
        return str(self)
