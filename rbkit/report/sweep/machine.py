"""What a machine has for runs, cores and GPUs, and whether its memory ran out."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from rbkit.errors import InputError

CUDA_VARIABLE = "CUDA_VISIBLE_DEVICES"
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_environment(threads: int) -> dict[str, str]:
    """Return the variables that keep numerical libraries to so many threads.

    Examples
    --------
    >>> thread_environment(2)["OMP_NUM_THREADS"]
    '2'
    """
    return dict.fromkeys(_THREAD_VARIABLES, str(threads))


def gpu_slots(given: str, env: Mapping[str, str] | None = None) -> list[str]:
    """Return the ids of the GPUs that runs may have, one for each slot.

    ``auto``: those of ``CUDA_VISIBLE_DEVICES``, else those that ``nvidia-smi`` lists. ``none``:
    none. Else ids with commas, as CUDA takes them; an id given twice is shared by two runs.

    Examples
    --------
    >>> gpu_slots("auto", {"CUDA_VISIBLE_DEVICES": "2,3"})
    ['2', '3']
    >>> gpu_slots("none"), gpu_slots("0,0")
    ([], ['0', '0'])
    """
    env = os.environ if env is None else env
    given = given.strip()
    if given == "none":
        return []
    if given == "auto":
        if CUDA_VARIABLE not in env:
            # Not from torch, which would take memory on every GPU just to count them. A driver
            # that does not answer has no GPU for us.
            return re.findall(r"^GPU (\d+):", "\n".join(output_of("nvidia-smi", "-L")), re.M)
        ids = [part.strip() for part in env[CUDA_VARIABLE].split(",")]
        # CUDA stops reading at the first id that is empty or -1.
        end = next((at for at, id in enumerate(ids) if id in ("", "-1")), len(ids))
        return ids[:end]
    ids = [part.strip() for part in given.split(",")]
    # Numbers, or names as CUDA takes them: GPU-8932f937-..., MIG-GPU-.../1/0.
    if not all(re.fullmatch(r"\d+|(GPU|MIG)-[\w/-]+", id) for id in ids):
        raise InputError("gpus", f"{given!r} is not a list of GPUs", "give auto, none, or 0,1")
    return ids


def runs_at_once(jobs: int, gpus: str) -> int:
    """Return how many of `jobs` runs there are at the same time: where there are GPUs, one each.

    Examples
    --------
    >>> runs_at_once(4, "none"), runs_at_once(4, "0,1"), runs_at_once(1, "0,1")
    (4, 2, 1)
    """
    return min(jobs, len(gpu_slots(gpus)) or jobs)


def gpu_environment(given: str, id: str | None) -> dict[str, str]:
    """Return the variables by which a run sees its own GPU, or with ``none`` no GPU.

    Examples
    --------
    >>> gpu_environment("auto", "1"), gpu_environment("none", None), gpu_environment("auto", None)
    ({'CUDA_VISIBLE_DEVICES': '1'}, {'CUDA_VISIBLE_DEVICES': ''}, {})
    """
    if id is not None:
        return {CUDA_VARIABLE: id}
    return {CUDA_VARIABLE: ""} if given.strip() == "none" else {}


def describe_machine() -> dict[str, Any]:
    """Describe this machine: what a result's seconds depend on."""
    return {
        "cpus": cores(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "platform": platform.platform(),
        "gpus": output_of("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"),
    }


def output_of(*command: str, folder: Path | None = None) -> list[str]:
    """Return the lines that a command prints; none if it is not installed, or fails."""
    program = shutil.which(command[0])
    if program is None:
        return []
    try:
        done = subprocess.run(
            [program, *command[1:]], cwd=folder, capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines()] if done.returncode == 0 else []


def oom_kills(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> int | None:
    """Return how many processes of this control group died for want of memory; None if unknown.

    A process that the system kills to get memory back sees SIGKILL, like any other; only these
    counters (Linux) tell one from the other.
    """
    try:
        groups = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    counters = []
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if not controllers:  # version 2: one tree
            counters.append(root / path.lstrip("/") / "memory.events")
        elif "memory" in controllers.split(","):
            counters.append(root / "memory" / path.lstrip("/") / "memory.oom_control")
    # In a container the path is often that of the host, and the group is mounted as the root.
    for file in (*counters, root / "memory.events", root / "memory" / "memory.oom_control"):
        try:
            text = file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            continue
        if match := re.search(r"^oom_kill (\d+)$", text, re.M):
            return int(match[1])
    return None
