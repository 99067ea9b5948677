"""Files of strangers, changed at random: every view of them survives, or says in a line why not.

Five hundred mutations of each kind of file, from fixed seeds: `make fuzz`. `make test` takes the
first hundred, of which fifty are quick and the rest marked slow. Whatever a user does with the
folder then either works or raises one of rbkit's own errors: no hang, no raw traceback, nothing
that commands a terminal or a browser, no file outside the folder, no foreign module. A failure
names its mutation: ``RBKIT_FUZZ=kind:number`` runs that one alone and keeps its folder,
``RBKIT_FUZZ=5000`` runs that many.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import struct
import sys
import traceback
import warnings
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict
from nbformat.v4 import new_code_cell, new_notebook
from rich.console import Console

import rbkit as rb
from rbkit.data.corpus import load_corpus
from rbkit.errors import InputError, RbkitError, RbkitWarning
from rbkit.regroup.domains import Domains
from rbkit.regroup.editor import Editor
from rbkit.regroup.embedders import TfidfEmbedder
from rbkit.regroup.operations import EditLog
from rbkit.regroup.preparation import prepare
from rbkit.report import write_report
from rbkit.report.collect import collect_runs
from rbkit.report.compare import compare
from rbkit.report.compare.words import findings
from rbkit.report.sweep.folder import read_job, write_job
from rbkit.report.sweep.plan import make_plan
from rbkit.report.sweep.status import print_status
from rbkit.show.live.panel import attach
from rbkit.show.live.terminal import TerminalView
from rbkit.train.recorder import Recorder
from rbkit.train.run import Run, list_runs

GIVEN = os.environ.get("RBKIT_FUZZ", "100")
QUICK = 50
BUDGET = pytest.mark.parametrize(
    "numbers",
    [
        pytest.param(range(QUICK), id="quick"),
        pytest.param(
            range(QUICK, 1 << 30 if ":" in GIVEN else int(GIVEN)), id="rest", marks=pytest.mark.slow
        ),
    ],
)
SECONDS = 60  # that one mutation may take, on a machine that is busy with something else
SECRET = "what-only-the-owner-knows"

# ------------------------------------------------------------------------------ what is hostile

TEXTS = [
    "\x1b[31mred\x1b]0;title\x07\x1bc",
    "\x9b2J\x90q\x9c",
    "\u202egpj.exe\u2066",
    "a\a\b\rb\n\nc\u2028d",
    "<img src=x onerror=fuzz()><script>fuzz()</script>",
    "</script><script>fuzz()</script>\"' onload='fuzz()' x='",
    "]]>--></style></svg></title><iframe src='javascript:fuzz()'>",
    "[red]markup[/red] [link=http://evil]x[/link] :bomb: [/]",
    "{{ 7*7 }} ${7*7} %s %(a)s {0.__class__}",
    "",
    " ",
    "x" * 100_000,
    "half \ud800",
    "nul \0",
    "../../outside/secret",
    "OUTSIDE/secret",
    "OUTSIDE",
    "evil_module.Evil",
    "somebody/evil-model",
    "file:///etc/passwd",
    "http://evil.invalid/x",
    "nan",
    "-1",
]
NUMBERS = [0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 1e308, -1e308, 5e-324, 0.5]
NUMBERS += [float("nan"), float("inf"), float("-inf"), True, False, None]
MODEL = {"name": "TransformerEmbedder", "model": "OUTSIDE", "trust_remote_code": True}
OTHERS = [[], {}, [[]], [None], {"": None}, [1, "a", None, [2]], {"name": {"a": [1]}}, MODEL]


def hostile(rng):
    """Return a value that does not belong there."""
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(TEXTS)
    if kind < 0.75:
        return rng.choice(NUMBERS)
    if kind < 0.95:
        return rng.choice(OTHERS)
    value = hostile(rng)
    for _ in range(rng.choice([3, 50, 300])):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def change_bytes(raw, rng):
    """Flip, cut, repeat or insert bytes."""
    raw, at = bytearray(raw), rng.randrange(len(raw) + 1)
    match rng.randrange(6):
        case 0:
            for _ in range(rng.choice([1, 1, 5, 50])):
                raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        case 1:
            del raw[at:]
        case 2:
            raw[at:at] = rng.choice(TEXTS).encode("utf-8", "surrogatepass")
        case 3:
            raw[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice([1, 9, 999])))
        case 4:
            del raw[at : at + rng.choice([1, 2, 30, 300])]
        case 5:
            raw[at:at] = raw[max(0, at - 200) : at]
    return bytes(raw)


def change_json(value, rng):
    """Put something else at one place, or several, of a JSON value."""
    for _ in range(rng.choice([1, 1, 2, 6])):
        value = _changed_at(value, rng)
    return value


def _changed_at(value, rng):
    if not isinstance(value, list | dict) or not value or rng.random() < 0.15:
        return hostile(rng)
    value = value.copy()
    key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    match rng.randrange(8):
        case 0:
            del value[key]
        case 1 if isinstance(value, dict):
            value[rng.choice(TEXTS)] = value.pop(key)
        case 1:
            value += value[: rng.randrange(9)]
        case 2 if isinstance(value, dict):
            value[key] = value[rng.choice(list(value))]
        case _:
            value[key] = _changed_at(value[key], rng)
    return value


def json_bytes(value, rng):
    """Write a JSON value as Python does, NaN included, and now and then a key twice."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.1 and text.startswith("{") and len(text) > 2:
        text = "{" + text[1:-1] + ", " + text[1:]
    if rng.random() < 0.03:
        text = text.replace(": ", ": " + "[" * 100_000, 1)
    return text.encode("utf-8", "surrogatepass")


class Mutant:
    """A file changed at random; `others` are of its folder, and `how` says what was done."""

    def __init__(self, path, rng, outside):
        self.path, self.rng, self.outside = Path(path), rng, str(outside)

    def change(self):
        """Change the file in its own format, as bytes, or in kind; return what was done."""
        chance, suffix = self.rng.random(), self.path.suffix
        if chance < 0.06:
            return self._replace()
        own = {".json": self._json, ".jsonl": self._lines, ".npz": self._arrays}
        own |= {".parquet": self._table, ".csv": self._bytes, ".txt": self._bytes}
        if chance < 0.35:
            return self._bytes()
        return own[suffix]()

    def _write(self, raw):
        self.path.write_bytes(raw.replace(b"OUTSIDE", self.outside.encode()))

    def _bytes(self):
        raw = self.path.read_bytes()
        for _ in range(self.rng.choice([1, 1, 1, 4])):
            raw = change_bytes(raw, self.rng) or b"?"
        self._write(raw)
        return "bytes"

    def _json(self):
        value = json.loads(self.path.read_bytes())
        self._write(json_bytes(change_json(value, self.rng), self.rng))
        return "values"

    def _lines(self):
        lines = self.path.read_bytes().splitlines()
        for _ in range(self.rng.choice([1, 1, 3, 10])):
            at = self.rng.randrange(len(lines))
            with contextlib.suppress(ValueError, RecursionError):
                lines[at] = json_bytes(change_json(json.loads(lines[at]), self.rng), self.rng)
        self._write(b"\n".join(lines) + b"\n")
        return "rows"

    def _replace(self):
        self.path.unlink()
        match self.rng.randrange(8):
            case 7:
                parent = self.path.parent
                if parent.name == "mutant":
                    self.path.symlink_to(Path(self.outside) / "evil_module.py")
                    return "link out"
                shutil.rmtree(parent)
                parent.symlink_to(self.outside)
                return "folder that leads out"
            case 0:
                self.path.symlink_to(Path(self.outside) / f"secret{self.path.suffix}")
                return "link out"
            case 1:
                self.path.symlink_to(self.path)
                return "link to itself"
            case 2:
                os.mkfifo(self.path)
                return "pipe"
            case 3:
                self.path.mkdir()
                return "folder"
            case 4:
                self.path.symlink_to("/dev/zero")
                return "device"
            case 5:
                self.path.write_bytes(b"")
                return "empty"
        return "gone"

    def _arrays(self):
        rng = self.rng
        with np.load(self.path) as file:
            arrays = {name: file[name] for name in file.files}
        name = rng.choice(list(arrays))
        match rng.randrange(10):
            case 0:
                return self._bomb(name)
            case 1:
                arrays[name] = np.array([{"a": 1}, None], dtype=object)
            case 2:
                arrays[name] = np.array(TEXTS[:5])
            case 3:
                kind = rng.choice(["c16", "f2", "i1", "?", "S3", "M8[s]"])
                with warnings.catch_warnings(action="ignore"):
                    arrays[name] = arrays[name].astype(kind)
            case 4:
                arrays[name] = arrays[name][: rng.randrange(3)]
            case 5:
                shape = [rng.choice([0, 1, 2, 3, 4, 7]) for _ in range(rng.randrange(5))]
                arrays[name] = np.ones(shape)
            case 6:
                arrays[rng.choice(["../../outside/new", "/OUTSIDE/new", "p", ""])] = arrays.pop(
                    name
                )
            case 7:
                arrays[name] = np.zeros(
                    3, dtype=[("a", "f8"), ("b", "O" if rng.random() < 0.3 else "i4")]
                )
            case _:
                worse = np.array(arrays[name], dtype=np.float64)
                if worse.size:
                    values = [1e308, -1e308, 5e-324, np.nan, np.inf, -np.inf, -1.0, 0.5, 2**63, 0.0]
                    worse.flat[rng.randrange(worse.size)] = rng.choice(values)
                    if rng.random() < 0.3:
                        worse[...] = rng.choice([np.nan, 0.0, 1e308, -1.0])
                arrays[name] = worse
        np.savez(self.path, **arrays)
        return f"arrays, {name}"

    def _bomb(self, name):
        with zipfile.ZipFile(self.path, "w", zipfile.ZIP_DEFLATED) as file:
            shape = self.rng.choice([(10**15,), (10**6, 10**6, 10**6), (3,), (2**62, 4)])
            header = str({"descr": "<f8", "fortran_order": False, "shape": shape}).ljust(117)
            body = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header.encode() + b"\n"
            file.writestr(f"{name}.npy", body + bytes(10**7))
        return "bomb"

    def _table(self):
        rng, table = self.rng, pq.read_table(self.path)
        at, n = rng.randrange(table.num_columns), table.num_rows
        name = table.column_names[at]
        match rng.randrange(6):
            case 0:
                table = table.drop_columns([name])
            case 1:
                table = table.rename_columns({name: rng.choice(TEXTS).replace("\ud800", "")})
            case 2:
                table = table.slice(0, rng.randrange(3))
            case 3:
                table = table.append_column(name, table[name])
            case _:
                column = pa.nulls(n)
                with contextlib.suppress(pa.ArrowException, OverflowError, UnicodeEncodeError):
                    column = pa.array([hostile(rng)] * n)
                table = table.set_column(at, name, column)
        with contextlib.suppress(pa.ArrowException):  # Parquet cannot hold it
            pq.write_table(table, self.path)
        return f"table, {name}"


# ---------------------------------------------------------------------------- what is forbidden

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Guard:
    """Notes every file that Python opens or changes outside of some folders, while it is on."""

    def __init__(self):
        self.folders, self.seen = (), None
        sys.addaudithook(self)

    def __call__(self, event, args):
        if self.seen is None:
            return
        if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"):
            self.seen.append(f"{event} {args[0]!r}")
        elif event in ("socket.connect", "socket.getaddrinfo", "pickle.find_class"):
            self.seen.append(f"{event} {args!r}"[:200])
        elif event == "import" and "evil" in str(args[0]):
            self.seen.append(f"import {args[0]}")
        elif event == "open" or event.startswith(("os.", "shutil.")):
            writes = event != "open" or (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            relative = (
                event != "open" and isinstance(args[-1], int) and args[-1] >= 0
            )  # to a dir_fd
            for path in () if relative else args[: 1 if event == "open" else 2]:
                if isinstance(path, str | bytes) and event not in _HARMLESS:
                    self._check(event, os.fsdecode(path), bool(writes))

    def _check(self, event, path, writes):
        if event == "open" and not ("/" in path or path == os.path.basename(path)):
            return
        try:
            folder, name = os.path.split(path)
            follows = event == "open"  # all else acts on a link, not on where it leads
            real = os.path.realpath(path if follows else folder or ".")
            real = real if follows else os.path.join(real, name)
        except (OSError, ValueError):
            return
        own = self.folders[: 2 if writes else None]
        if not any(real == each or real.startswith(each + "/") for each in own):
            self.seen.append(f"{event} {path!r}")

    @contextlib.contextmanager
    def on(self, folder, cache):
        installed = (sys.prefix, sys.base_prefix, "/proc", "/sys", "/dev/null", "/dev/urandom")
        more = (str(Path(rb.__file__).parents[1]), "/usr/share", "/usr/lib", "/etc/mime.types")
        self.folders = tuple(os.path.realpath(p) for p in (folder, cache, *installed, *more))
        self.seen = []
        try:
            yield self.seen
        finally:
            self.seen = None


_HARMLESS = ("os.putenv", "os.unsetenv", "os.listdir", "os.scandir", "os.walk", "os.fwalk")
GUARD = Guard()


class Active(HTMLParser):
    """Finds what a browser would run."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.script = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag in ("iframe", "object", "embed", "base", "form"):
            self.found.append(tag)
        for name, value in attrs:
            if name.startswith("on") or "javascript:" in (value or "").split("#")[0][:20].lower():
                self.found.append(f"{tag} {name}={value}"[:100])
            if name == "src" and not (value or "").startswith("data:"):
                self.found.append(f"{tag} {name}={value}"[:100])
        self.script = tag == "script" and dict(attrs).get("type") != "application/json"

    def handle_data(self, data):
        if self.script and "fuzz()" in data:
            self.found.append(f"script {data}"[:100])


class Late(BaseException):
    """A mutation took too long."""


class Visit:
    """What a user does with a mutant, step by step, and what went wrong."""

    def __init__(self, rng, name):
        self.name, self.stem = name, Path(name).stem
        self.rng, self.wrong, self.texts, self.pages = rng, [], [], []

    @contextlib.contextmanager
    def step(self):
        """Take one step; rbkit's own errors end it, and all others are wrong."""
        try:
            yield
        except RbkitError as error:
            self.texts.append(("raised", str(error)))
            if "\n" in str(error):
                self.wrong.append(f"more than one line: {error}")
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            mine = [f for f in frames if "/rbkit/" in f.filename] or frames
            places = (f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(mine[-4:]))
            what = f"{type(error).__name__}: {str(error)[:160]!r}"
            self.wrong.append(f"{what} at {' < '.join(places)}")

    def run(self, use, folder, cache):
        """Let `use` take its steps; return all that is wrong."""

        def late(*_):
            raise Late

        printed, before = io.StringIO(), signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            with (
                warnings.catch_warnings(record=True) as caught,
                contextlib.redirect_stdout(printed),
                contextlib.redirect_stderr(printed),
                GUARD.on(folder, cache) as seen,
            ):
                warnings.simplefilter("always")
                use(folder, self)
        except (Late, SystemExit, KeyboardInterrupt) as error:
            self.wrong.append(f"{type(error).__name__}, of {SECONDS} s")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        self.texts.append(("printed", printed.getvalue()))
        told = (w.message for w in caught if issubclass(w.category, RbkitWarning))
        self.texts += [("warned", str(message)) for message in told]
        for what, text in self.texts:
            if found := _UNSAFE.search(text):
                near = text[max(0, found.start() - 80) :][:200]
                self.wrong.append(f"{what} {found[0]!r} in {near!r}")
        for what, text in [*self.texts, *(("a page of", page) for page in self.pages)]:
            if SECRET in text:
                self.wrong.append(f"{what} a secret")
        self.wrong += [f"a page with {found[:3]}" for p in self.pages if (found := Active(p).found)]
        return self.wrong + ([f"touched {sorted(set(seen))[:3]}"] if seen else [])


# ------------------------------------------------------------------------------- the kinds


class Place:
    """Folders of one kind of fuzzing: what is whole, what lies outside, and the mutant's copy."""

    def __init__(self, root, write_run):
        self.whole, self.outside, self.cache = root / "whole", root / "outside", root / "cache"
        self.root = root
        self.outside.mkdir()
        for suffix in (".json", ".jsonl", ".npz", ".parquet", ".csv", ".txt", ""):
            (self.outside / f"secret{suffix}").write_text(json.dumps({"text": SECRET}) + "\n")
        (self.outside / "evil_module.py").write_text("raise SystemExit('imported')")
        (self.outside / "config.json").write_text('{"auto_map": {"AutoModel": "evil_module.Evil"}}')


def check(kind, numbers, place, files, use, monkeypatch):
    """Let `use` loose on mutants of some files, and report all that failed."""
    only = GIVEN.partition(":")[2] if GIVEN.startswith(f"{kind}:") else None
    if ":" in GIVEN:
        if only is None or int(only) not in numbers:
            pytest.skip("another mutation was asked for")
        numbers = [int(only)]
    monkeypatch.setenv("RBKIT_CACHE", str(place.cache))
    monkeypatch.setattr("rbkit.data.assets.model_folder", _no_model)
    failures = []
    for number in numbers:
        rng = random.Random(f"{kind}:{number}")
        folder = place.root / "mutants" / "mutant"
        shutil.copytree(place.whole, folder, symlinks=True)
        before = _listing(place.outside)
        name = rng.choice(files)
        mutant = Mutant(folder / name, rng, place.outside)
        how = mutant.change()
        if name.startswith("domains/") and name.endswith(".parquet") and rng.random() < 0.7:
            _sign(folder / "domains")
        problems = Visit(rng, name).run(use, folder, place.cache)
        if _listing(place.outside) != before:
            problems.append("changed something outside of its folder")
        if problems:
            failures.append(f"RBKIT_FUZZ={kind}:{number}  {name}, {how}: {' | '.join(problems)}")
            if only is not None:
                print(f"the mutant: {shutil.copytree(folder, place.root / 'kept', symlinks=True)}")
        shutil.rmtree(folder)
    if failures:
        pytest.fail("\n".join([f"{len(failures)} of {len(numbers)} mutants:", *failures]), False)


def _no_model(name):
    raise InputError(name, "is not cached", "fetch it")


def _listing(folder):
    return sorted((p.name, p.stat().st_mtime_ns, p.stat().st_size) for p in folder.iterdir())


def _sign(folder):
    """Write the checksums of a stranger who made these files on purpose."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        facts = json.loads((folder / "domains.json").read_bytes())
        for name in facts["sha256"]:
            if (folder / name).is_file():
                facts["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        (folder / "domains.json").write_text(json.dumps(facts))


@pytest.fixture
def place(tmp_path, write_run):
    return Place(tmp_path, write_run)


RUN_FILES = ["run.json", "metrics.jsonl", "timings.jsonl", "history.npz"]


def look_at_run(folder, visit):
    """Do what a user does with the folder of a run: open it, and some of the rest."""
    with visit.step():
        run = Run.open(folder)
        print(run, run.name, run.status, len(run.metrics("train")), len(run.timings()))
        print(len(run.history), len(run.job))
    for look in visit.rng.sample([_listed, _watched, _attached, _compared, _resumed], 3):
        with visit.step():
            look(folder, visit)


def _listed(folder, visit):
    print(list_runs(folder.parent))


def _watched(folder, visit):
    console = Console(file=(out := io.StringIO()), width=80, markup=False, emoji=False)
    TerminalView(folder, console).follow(once=True)
    print(out.getvalue())


def _attached(folder, visit):
    view = attach(folder, display="off", wait=0.0)
    frame = view._view.frame().data
    visit.pages.append(frame["text/html"])
    print(view, frame["text/plain"])


def _compared(folder, visit):
    comparison = compare(collect_runs(folder))
    print(*(finding.text for finding in findings(comparison)))


def _resumed(folder, visit):
    recorder = Recorder(folder, resume=True)
    try:
        recorder.start(parameters={})
    finally:
        recorder.finish("failed")


@BUDGET
@pytest.mark.parametrize("kind", ["run.json", "metrics.jsonl", "history.npz"])
def test_a_run(kind, numbers, place, write_run, monkeypatch):
    monkeypatch.setattr("rbkit.train.recorder.versions", dict)
    write_run(place.whole, names=["a", "b", "c"], rounds=3)
    metrics = place.whole / "metrics.jsonl"
    metrics.write_bytes(b"\n".join(metrics.read_bytes().splitlines()[-14:]) + b"\n")
    rows = [{"kind": "train", "step": s, "seconds": s / 10} for s in range(1, 9)]
    (place.whole / "timings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    check(kind, numbers, place, [kind], look_at_run, monkeypatch)


@pytest.fixture
def corpus():
    words = ["oak elm tree leaf", "car engine wheel", "soup salt pepper"]
    texts = [f"{words[i % 3]} {i}" for i in range(24)]
    rows = Dataset.from_dict({"text": texts, "source": ["web"] * 24})
    return DatasetDict({"train": rows, "eval": rows.select(range(6))})


@BUDGET
def test_domains(numbers, place, corpus, monkeypatch):
    domains = rb.regroup(corpus, embedder="tfidf", k=3, progress=False)
    domains.save(place.whole / "domains")
    names = ("domains.json", "assignments.parquet", "centroids.parquet")

    def look_at_domains(folder, visit):
        with visit.step():
            loaded = Domains.load(folder / "domains")
            print(repr(loaded), loaded.q.tolist())
            visit.pages.append(loaded._repr_html_())
            if visit.rng.random() < 0.2:
                print(repr(loaded.attach(corpus, progress=False)))
        if visit.rng.random() < 0.3:
            with visit.step():
                print(rb.regroup(corpus, edits=folder / "domains", progress=False))

    check(
        "domains",
        numbers,
        place,
        [f"domains/{name}" for name in names],
        look_at_domains,
        monkeypatch,
    )


@BUDGET
def test_edits(numbers, place, corpus, monkeypatch):
    vectors = TfidfEmbedder(dim=4).fit(corpus["train"]["text"])
    vectors = {split: vectors.transform(corpus[split]["text"]) for split in corpus}
    material, _ = prepare(corpus, vectors=vectors, progress=False)
    cuts = [("ward", {"k": 4}), ("sources", {}), ("kmeans", {"k": 4})]
    place.whole.mkdir()
    for at, (method, params) in enumerate(cuts):
        editor = Editor(material).cut(method, **params)
        if method != "sources":
            editor.merge([0, 1], "both").split(0, 2).move([1, 2, 3], name="new").rename(0, "first")
            editor.drop(1).refine()
        log = editor.log
        log.embedder = {"name": "TfidfEmbedder", "dim": 4}
        log.save(place.whole / f"{at}.json")
    labels = Editor(material).cut("kmeans", k=2).domains()
    Editor(material, labels).log.save(place.whole / "3.json")

    def look_at_edits(folder, visit):
        for path in sorted(folder.iterdir()):
            if path.stem != visit.stem or path.is_symlink():  # a link may be followed if named
                continue
            with visit.step():
                log = EditLog.load(path)
                print(log)
                Editor(material).replay(log)
                print(log.by_hand)
            if visit.rng.random() < 0.1:
                with visit.step():
                    print(rb.regroup(corpus, edits=path, progress=False))

    files = [f"{at}.json" for at in range(len(cuts) + 1)]
    check("edits", numbers, place, files, look_at_edits, monkeypatch)


@BUDGET
def test_a_sweep(numbers, place, write_run, monkeypatch):
    template = place.cache / "t.ipynb"
    place.cache.mkdir()
    monkeypatch.setattr("rbkit.report.sweep.plan._git", lambda folder: None)
    cell = new_code_cell("seed: int = 0\nrun_dir: str = ''", metadata={"tags": ["parameters"]})
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(new_notebook(cells=[cell], metadata={"kernelspec": kernel}), template)
    plan = make_plan(template, "seed=0..2", place.whole)
    plan.write()
    plan.release()
    for job, status in zip(plan.jobs[:2], ("ok", "failed"), strict=True):
        write_run(place.root / job.id, names=["a", "b"], rounds=2)
        for name in ("run.json", "metrics.jsonl", "history.npz"):
            shutil.move(place.root / job.id / name, job.run_dir)
        facts = read_job(job.run_dir) | {"status": status, "attempts": 1, "seconds": 2.5}
        write_job(job.run_dir, facts)
    files = ["sweep.json", *(f"runs/{job.id}/job.json" for job in plan.jobs)]
    files += [f"runs/{plan.jobs[0].id}/run.json"]

    def look_at_sweep(folder, visit):
        with visit.step():
            print_status(folder)
        with visit.step():
            print([(str(run), run.status) for run in collect_runs(folder)])
        if visit.rng.random() < 0.4:
            with visit.step():
                comparison = compare(collect_runs(folder))
                print(*(finding.text for finding in findings(comparison)))
        if visit.rng.random() < 0.4:
            with visit.step():
                again = make_plan(template, "seed=0..2", folder)
                again.write()
                print(again.statuses(), again.superseded())
                again.release()

    check("sweep", numbers, place, files, look_at_sweep, monkeypatch)


@BUDGET
def test_a_corpus(numbers, place, monkeypatch):
    for name in "abcde":
        (place.whole / name).mkdir(parents=True)
    rows = [{"text": f"the text é {i}", "source": "ab"[i % 2]} for i in range(12)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (place.whole / "a/a.jsonl").write_text(lines)
    (place.whole / "b/b.json").write_text(json.dumps(rows))
    (place.whole / "c/c.csv").write_text(
        "text,source\n" + "".join(f'"{r["text"]}",a\n' for r in rows)
    )
    pq.write_table(pa.Table.from_pylist(rows), place.whole / "d/d.parquet")
    (place.whole / "e/e.txt").write_text("\n".join(row["text"] for row in rows))

    def look_at_corpus(folder, visit):
        with visit.step():
            where = folder / visit.name
            if where.is_symlink() or visit.rng.random() < 0.2:  # a link may be followed if named
                where = where.parent
            corpus = load_corpus(where, eval_size=3, progress=False)
            assert all(isinstance(row["text"], str) for row in corpus["train"])
            assert SECRET not in str(corpus["train"]["text"])

    files = ["a/a.jsonl", "b/b.json", "c/c.csv", "d/d.parquet", "e/e.txt"]
    check("corpus", numbers, place, files, look_at_corpus, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(5))
def test_a_page_of_twenty_mutants(number, place, write_run, monkeypatch):
    monkeypatch.setenv("RBKIT_CACHE", str(place.cache))
    rng, runs = random.Random(f"page:{number}"), place.root / "runs"
    for seed in range(20):
        folder = runs / f"run-{seed}"
        mixer = rng.choice(["RnB", "Target"])
        write_run(folder, mixer, seed, names=["a", "b", "c"], rounds=3)
        name = rng.choice(["run.json", "metrics.jsonl", "history.npz", "domains/domains.json"])
        Mutant(folder / name, rng, place.outside).change()

    def report(folder, visit):
        with visit.step():
            page = write_report(folder, folder / "index.html", progress=False)
            visit.pages.append(page.read_text())

    assert Visit(rng, "page").run(report, runs, place.cache) == []
