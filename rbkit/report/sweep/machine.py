"""Whether the kernel of the system killed something for want of memory.

A process that the system kills to get memory back sees SIGKILL, like any other. Only the
counters of its control group (Linux) tell one from the other.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from rbkit.errors import InputError

_THREADS = (
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
    return dict.fromkeys(_THREADS, str(threads))


VARIABLE = "CUDA_VISIBLE_DEVICES"


def gpu_slots(given: str, env: Mapping[str, str] | None = None) -> list[str]:
    """Return the ids of the GPUs that runs may have, one for each slot.

    Parameters
    ----------
    given : str
        ``auto``: those of ``CUDA_VISIBLE_DEVICES``, else those that ``nvidia-smi`` lists.
        ``none``: none. Else ids with commas, as CUDA takes them; an id given twice (``0,0``)
        is shared by two runs.
    env : mapping, optional
        Environment variables; those of this process by default.

    Raises
    ------
    InputError
        `given` is none of these.

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
        return _visible(env[VARIABLE]) if VARIABLE in env else _listed()
    ids = [part.strip() for part in given.split(",")]
    # Numbers, or names as CUDA takes them: GPU-8932f937-..., MIG-GPU-.../1/0.
    if not all(re.fullmatch(r"\d+|(GPU|MIG)-[\w/-]+", id) for id in ids):
        raise InputError("gpus", f"{given!r} is no list of GPUs", "give auto, none, or 0,1")
    return ids


def slots(jobs: int, gpus: str) -> int:
    """Return how many of `jobs` runs go on at the same time: where there are GPUs, one on each.

    Examples
    --------
    >>> slots(4, "none"), slots(4, "0,1"), slots(1, "0,1")
    (4, 2, 1)
    """
    found = gpu_slots(gpus)
    return min(jobs, len(found)) if found else jobs


class GpuSlots:
    """Hand out slots, and take them back.

    Examples
    --------
    >>> slots = GpuSlots(["0", "1"])
    >>> slots.take(), slots.take()
    ('0', '1')
    >>> slots.give_back("0"); slots.take()
    '0'
    """

    def __init__(self, ids: list[str]) -> None:
        self._free = list(ids)

    def take(self) -> str:
        """Return a free GPU's id; IndexError if there is none."""
        return self._free.pop(0)

    def give_back(self, id: str) -> None:
        """Let another run have the GPU `id`."""
        self._free.append(id)


def gpu_environment(given: str, id: str | None) -> dict[str, str]:
    """Return the variables by which a run sees its own GPU, or with ``none`` no GPU.

    Examples
    --------
    >>> gpu_environment("auto", "1"), gpu_environment("none", None), gpu_environment("auto", None)
    ({'CUDA_VISIBLE_DEVICES': '1'}, {'CUDA_VISIBLE_DEVICES': ''}, {})
    """
    if id is not None:
        return {VARIABLE: id}
    return {VARIABLE: ""} if given.strip() == "none" else {}


def _visible(value: str) -> list[str]:
    ids: list[str] = []
    for part in value.split(","):
        if not part.strip() or part.strip() == "-1":  # CUDA stops reading at the first such id
            break
        ids.append(part.strip())
    return ids


def _listed() -> list[str]:
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    try:
        done = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []  # a driver that does not answer has no GPU for us
    return re.findall(r"^GPU (\d+):", done.stdout, re.M) if done.returncode == 0 else []


_ROOT = Path("/sys/fs/cgroup")


def oom_kills(root: Path = _ROOT, own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Return how often memory ran out in the control group of this process.

    Returns
    -------
    int or None
        Processes killed so far; None where the system does not count.
    """
    for file in _counters(root, own):
        try:
            rows = [line.split() for line in file.read_text(encoding="ascii").splitlines()]
        except (OSError, UnicodeDecodeError):
            continue
        for row in rows:
            if len(row) == 2 and row[0] == "oom_kill" and row[1].isdigit():
                return int(row[1])
    return None


def _counters(root: Path, own: Path) -> list[Path]:
    try:
        rows = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for row in rows:
        _, controllers, path = row.split(":", 2)
        if not controllers:  # version 2: one tree
            found.append(root / path.lstrip("/") / "memory.events")
        elif "memory" in controllers.split(","):
            found.append(root / "memory" / path.lstrip("/") / "memory.oom_control")
    # In a container the path is often that of the host, and the group is mounted as the root.
    return [*found, root / "memory.events", root / "memory" / "memory.oom_control"]
