"""The house rules: rooms import only leftwards, and importing rbkit loads nothing heavy."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import rbkit

PACKAGE = Path(rbkit.__file__).parent
ROOMS = ["data", "regroup", "balance", "train", "show", "report"]
ALONE = {"balance"}  # knows no other room
VISUAL = {"IPython", "matplotlib", "ipywidgets", "seaborn"}
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(path):
    """Absolute names of all modules that a file imports, also inside functions."""
    here = ("rbkit", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else ()
            yield ".".join([*base, *(node.module or "").split(".")]).strip(".")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_only_from_the_rooms_before_it(path):
    room = path.relative_to(PACKAGE).parts[0]
    if room not in ROOMS:
        return
    allowed = {room} if room in ALONE else set(ROOMS[: ROOMS.index(room) + 1])
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "rbkit" and len(parts) > 1 and parts[1] in ROOMS:
            assert parts[1] in allowed, f"{path} imports {name}"
        if ROOMS.index(room) < ROOMS.index("show"):
            assert parts[0] not in VISUAL, f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_unpickles_or_trusts_remote_code(path):
    source = path.read_text(encoding="utf-8")
    assert "pickle" not in set(imported(path))
    assert "allow_pickle=True" not in source
    assert "trust_remote_code=True" not in source
    assert "trust_remote_code: bool = True" not in source


def test_importing_rbkit_loads_nothing_heavy():
    code = (
        "import sys, json, rbkit; "
        "print(json.dumps([m for m in ('torch', 'transformers', 'numpy', 'datasets', 'sklearn', "
        "'matplotlib', 'IPython', 'pandas') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_every_public_name_can_be_imported():
    for name in rbkit.__all__:
        assert getattr(rbkit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        rbkit.nonsense  # noqa: B018


@pytest.mark.parametrize("first", ["rbkit.regroup.domains", "rbkit.train.recorder", "rbkit.cli"])
def test_regroup_and_train_can_be_called_whatever_was_imported_before(first):
    code = (
        f"import inspect, importlib, rbkit as rb; importlib.import_module({first!r})\n"
        "assert callable(rb.regroup) and callable(rb.train)\n"
        "assert 'run_dir' in inspect.signature(rb.train).parameters\n"
        "from rbkit.regroup import KMeans; assert rb.regroup.KMeans is KMeans\n"
        "try: rb.regroup(None, k=0)\n"
        "except TypeError as error: assert 'module' not in str(error), error\n"
        "except Exception: print('called')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
