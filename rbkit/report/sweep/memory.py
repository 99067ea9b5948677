"""Whether the kernel of the system killed something for want of memory.

A process that the system kills to get memory back sees SIGKILL, like any other. Only the
counters of its control group (Linux) tell one from the other.
"""

from __future__ import annotations

from pathlib import Path

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
