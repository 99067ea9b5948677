"""The scripts of the widgets: lines that can be read, modules that parse, no undefined names."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import rbkit
from rbkit.show.widgets import joined

SCRIPTS = sorted(Path(rbkit.__file__).parent.rglob("*.js"))
WIDGETS = {"explorer": ("map", "explorer"), "scrubber": ("scrubber",)}
OXLINT = "oxlint@1.94.0"  # from npm, 18 MB; a run takes 50 ms
RULES = {
    "env": {"browser": True, "es2024": True},
    "rules": {"no-undef": "error", "no-unused-vars": "error"},
}


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """Each widget's module, as the browser gets it."""
    folder = tmp_path_factory.mktemp("modules")
    for name, scripts in WIDGETS.items():
        (folder / f"{name}.mjs").write_text(joined("js", *scripts), encoding="utf-8")
    return folder


def test_every_script_belongs_to_a_widget():
    names = {"shared"}.union(*WIDGETS.values())
    assert {path.stem for path in SCRIPTS if path.parent.name == "static"} == names


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_lines_have_less_than_100_characters(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [n for n, line in enumerate(lines, 1) if len(line) >= 100] == []


@pytest.mark.parametrize("name", WIDGETS)
def test_modules_parse(modules, name):
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node")
    subprocess.run([node, "--check", modules / f"{name}.mjs"], check=True)


def test_no_name_is_undefined_or_unused(modules):
    npx = shutil.which("npx")
    if npx is None:
        pytest.skip("no npx")
    (modules / "rules.json").write_text(json.dumps(RULES), encoding="utf-8")
    command = [npx, "--yes", "--prefer-offline", OXLINT, "-c", "rules.json", "-f", "json"]
    names = [f"{name}.mjs" for name in WIDGETS]
    ran = subprocess.run([*command, *names], cwd=modules, capture_output=True, text=True)
    if not ran.stdout.startswith("{"):
        pytest.skip(f"{OXLINT} cannot be had from npm")
    unused, wrong = {name: set() for name in names}, []
    for problem in json.loads(ran.stdout)["diagnostics"]:
        if "no-unused-vars" in problem["code"]:
            unused[problem["filename"]].add(problem["message"])
        else:
            wrong.append(f"{problem['filename']}: {problem['message']}")
    assert wrong == []
    # A shared name may be of use to one widget only.
    shared = joined("js")
    of_one = {
        message
        for messages in unused.values()
        for message in messages
        if not re.search(rf"\b{re.escape(message.split(chr(39))[1])}\b", shared)
    }
    assert of_one | set.intersection(*unused.values()) == set()
