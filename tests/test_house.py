"""The house rules: rooms import only leftwards, no circles, nothing unused, nothing heavy."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import rbkit

PACKAGE = Path(rbkit.__file__).parent
ROOT = PACKAGE.parent
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


def module_of(path):
    return ".".join(("rbkit", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    )


def modules_imported(path, modules):
    """Modules of rbkit that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in modules else node.module


def test_no_files_import_each_other_in_a_circle():
    modules = {module_of(path): path for path in FILES}
    graph = {name: set(modules_imported(path, modules)) - {name} for name, path in modules.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def names_read(tree):
    """Identifiers that code reads: also as attributes, and as whole strings (getattr, tables)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def definitions(tree, classes):
    """Names that a file defines and somebody has to use: (name, node).

    Not methods that a class of another library may call, nor functions that are registered.
    """
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.decorator_list:
            yield node.name, node
        elif isinstance(node, ast.Assign):
            yield from ((t.id, node) for t in node.targets if isinstance(t, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node
        elif isinstance(node, ast.ClassDef):
            yield node.name, node
            if all(isinstance(base, ast.Name) and base.id in classes for base in node.bases):
                for method in node.body:
                    if isinstance(method, ast.FunctionDef):
                        yield method.name, method


def test_everything_is_used_or_promised():
    """A name is used by other code of rbkit, or README, CHANGELOG, notebooks, ... speak of it."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
    classes = {n.name for t in trees.values() for n in t.body if isinstance(n, ast.ClassDef)}
    used = Counter(
        name
        for path, tree in trees.items()
        if path.name != "__init__.py"  # a public name of which nobody speaks is not promised
        for name in names_read(tree)
    )
    for pattern in ("*.md", "docs/[!a]*.md", "*.toml", "notebooks/**/*.py", "examples/*.py",
                    "bench/*.py", "rbkit/**/*.j2", "rbkit/**/*.js"):  # fmt: skip
        for path in ROOT.glob(pattern):
            used.update(re.findall(r"\w+", path.read_text(encoding="utf-8")))
    by_name = re.compile(r"__\w+__|_on_\w+|_repr_\w+|_ipython_\w+|nb_\w+")  # called by their names
    unused = [
        f"{path.relative_to(PACKAGE)}: {name}"
        for path, tree in trees.items()
        for name, node in definitions(tree, classes)
        if not by_name.fullmatch(name) and used[name] <= Counter(names_read(node))[name]
    ]
    assert not unused


PUBLIC = sorted(
    {
        f"{module_of(path)}.{name}"
        for path in FILES
        if path.name == "__init__.py"
        for name in getattr(importlib.import_module(module_of(path)), "__all__", ())
        if name != "__version__"
    }
)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_a_docstring(name):
    module, _, last = name.rpartition(".")
    public = getattr(importlib.import_module(module), last)
    if not (inspect.isclass(public) or inspect.isroutine(public)):
        return
    assert inspect.getdoc(public)
    if inspect.isclass(public):
        for method, found in vars(public).items():
            if not method.startswith("_") and inspect.isfunction(found):
                assert inspect.getdoc(getattr(public, method)), method


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


@pytest.mark.parametrize("theirs", [{}, {"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}])
def test_waiting_threads_leave_their_cores_to_others_unless_the_user_says_how_they_wait(theirs):
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    code = f"import os, rbkit; print({{n: os.environ[n] for n in {names} if n in os.environ}})"
    env = {name: value for name, value in os.environ.items() if name not in names} | theirs
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env, check=True)
    found = ast.literal_eval(done.stdout.decode())
    if theirs:
        assert found == theirs
    else:
        assert 0 <= int(found["GOMP_SPINCOUNT"]) <= 100_000  # 300,000 turns if nothing is said


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


@pytest.mark.parametrize(("name", "function"), [("regroup", "pipeline"), ("train", "training")])
def test_what_jupyter_shows_of_a_callable_room_is_its_function(name, function):
    from IPython.core.oinspect import Inspector

    room = getattr(rbkit, name)
    called = getattr(importlib.import_module(f"rbkit.{name}.{function}"), name)
    assert inspect.signature(room) == inspect.signature(called)
    # IPython 9 asks for a theme.
    theme = (
        {"theme_name": "nocolor"} if "theme_name" in inspect.signature(Inspector).parameters else {}
    )
    shown = Inspector(**theme).info(room, f"rb.{name}")
    assert shown["docstring"] == inspect.getdoc(called)
    assert shown["definition"].startswith(f"rb.{name}(\n    corpus")
    assert inspect.getdoc(room) != shown["docstring"]  # the room keeps its own, for help()


def test_the_page_of_public_names_is_in_step():
    code = (ROOT / "docs" / "api.py").read_text(encoding="utf-8")
    made: dict = {"__name__": "api"}
    exec(code, made)
    assert (ROOT / "docs" / "api.md").read_text(encoding="utf-8") == made["page"](), (
        "run python docs/api.py"
    )
