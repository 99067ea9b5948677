"""The built-in corpora: ``wiki``, ``recipes``, ``code``, ``demo``, prompts, and others.

Each reader returns texts, sources and credits. ``docstrings`` needs no download: source files of
installed libraries are parsed with :mod:`ast`, and no library is imported. The source of an
example is its library, so the label is provenance and not topic.

Prompts with answers, in columns ``prompt`` and ``completion``: ``instruct`` asks for what is in
the texts above, ``reasoning`` works sums out step by step, and ``tasks`` and ``tasks-ood`` are
written by reasoning-gym, if that is installed.
"""

from __future__ import annotations

import ast
import gc
import gzip
import importlib.metadata
import importlib.util
import inspect
import json
import random
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rbkit.data import assets
from rbkit.errors import AssetError, InputError, as_count
from rbkit.files import atomic_path, cache_dir, fingerprint, inside, regular
from rbkit.text import progress_bar


@dataclass
class Texts:
    """Texts with a source each, whom to credit for them, and perhaps an image each."""

    text: list[str]
    source: list[str]
    credits: list[dict[str, str]]
    images: list[bytes] | None = None
    group: list[str] | None = None  # those of one group stay on one side of the split
    columns: dict[str, list[str]] = field(default_factory=dict)  # more of them
    held_out: frozenset[str] = frozenset()  # sources that are the eval split

    @classmethod
    def of_pairs(cls, rows: Sequence[Sequence[str]], credits: list[dict[str, str]]) -> Texts:
        """Return texts of rows (source, prompt, completion): the two, with a blank line between."""
        source, prompt, completion = (list(column) for column in zip(*rows, strict=True))
        text = [f"{p}\n\n{c}" for p, c in zip(prompt, completion, strict=True)]
        columns = {"prompt": [f"{p}\n\n" for p in prompt], "completion": completion}
        return cls(text, source, credits, columns=columns)


def wiki(*, uncategorized: bool = False, progress: bool = True) -> Texts:
    """English leads of Wikipedia's vital articles; source = the human topic.

    `uncategorized` keeps the 1,000 core articles without a topic (source ``"Uncategorized"``)
    in addition to the 9,033 that have one of 11.
    """
    rows = list(_load("wiki", "summaries_en-us.json", progress).values())
    if not uncategorized:
        rows = [row for row in rows if row["topic"] != "Uncategorized"]
    return Texts(
        [row["extract"] for row in rows], [row["topic"] for row in rows], [_credit("wiki")]
    )


def recipes(*, progress: bool = True) -> Texts:
    """Wikibooks recipes as plain text: title, ingredients, steps; one source."""
    rows = _load("recipes", "recipes_en-us.json", progress).values()
    texts = [_recipe(row) for row in rows]
    return Texts(texts, ["recipes"] * len(texts), [_credit("recipes")])


def _recipe(row: dict[str, Any]) -> str:
    ingredients = "\n".join(f"- {without_markup(item)}" for item in row["ingredients"])
    steps = "\n".join(f"{i}. {without_markup(step)}" for i, step in enumerate(row["steps"], 1))
    return f"{without_markup(row['title'])}\n\nIngredients\n{ingredients}\n\nSteps\n{steps}"


_REF = re.compile(r"<ref\b[^>]*?/>|<ref\b[^>]*>.*?</ref\s*>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"</?[a-z]+\b[^<>]*>", re.IGNORECASE)


def without_markup(text: str) -> str:
    """Remove leftover wiki markup: footnotes with their content, other tags without.

    >>> without_markup('Fold in.<ref name="b">A book</ref> <u>Stir</u> 2 tbs<nowiki/>p salt')
    'Fold in. Stir 2 tbsp salt'
    """
    return " ".join(_TAG.sub("", _REF.sub("", text)).split())


def code(*, progress: bool = True) -> Texts:
    """Small problems in words, each followed by the Python program that solves it; one source."""
    rows = _load("code", "codeio-hq.json.gz", progress)
    texts = [f"{row['task_description'].strip()}\n\n{row['code_sample'].strip()}" for row in rows]
    return Texts(texts, ["code"] * len(texts), [_credit("code")])


def demo(*, uncategorized: bool = False, progress: bool = True) -> Texts:
    """``wiki``, ``recipes`` and ``code`` together: 13 sources in three registers."""
    parts = [
        wiki(uncategorized=uncategorized, progress=progress),
        recipes(progress=progress),
        code(progress=progress),
    ]
    return Texts(
        [text for part in parts for text in part.text],
        [source for part in parts for source in part.source],
        [credit for part in parts for credit in part.credits],
    )


def _load(name: str, file: str, progress: bool) -> Any:
    path = inside(assets.get(name, progress=progress), file)
    try:
        raw = regular(path).read_bytes()
        return json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    except (OSError, EOFError, ValueError) as error:
        remedy = f"run `rbkit assets get {name} --force`"
        raise AssetError(str(path), f"damaged ({error})", remedy) from error


def _credit(name: str) -> dict[str, str]:
    return assets.asset(name).credit()


LIBRARIES = (
    "matplotlib",
    "networkx",
    "numpy",
    "pandas",
    "scipy",
    "sklearn",
    "sympy",
    "torch",
    "transformers",
)
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "reasoning_gym": "reasoning-gym"}
_MIN_WORDS = 25


def docstrings(
    *, libraries: Sequence[str] = LIBRARIES, per_library: int = 600, progress: bool = True
) -> Texts:
    """Parse unique docstrings of at least 25 words in installed libraries; source = the library.

    Libraries of the default that are not installed are left out; one that was asked for and is
    not installed is an error. The texts depend on nothing but the installed versions, and are
    cached by these.
    """
    if isinstance(libraries, str):
        libraries = [part.strip() for part in libraries.split(",")]
    if per_library < 1:
        raise InputError("per_library", f"is {per_library}", "give at least 1")
    roots = {name: root for name in libraries if (root := _package_folder(name))}
    missing = [name for name in libraries if name not in roots]
    if not roots or (missing and tuple(libraries) != LIBRARIES):
        name = (missing or ["none"])[0]
        raise InputError("libraries", f"{name!r} is not installed", f"pip install {name}")
    versions = [f"{name}=={_version(name)}@{root}" for name, root in sorted(roots.items())]
    key = fingerprint(versions, [str(per_library), str(_MIN_WORDS), "docstrings/1"])
    make = partial(_collect, roots, per_library, progress)
    table = _cached(cache_dir() / "docstrings" / f"{key}.parquet", make)
    return Texts(
        table.column("text").to_pylist(),
        table.column("source").to_pylist(),
        [_library_credit(name) for name in sorted(roots)],
    )


_TONES = {"1F3FB": "light", "1F3FC": "medium light", "1F3FD": "medium"}
_TONES |= {"1F3FE": "medium dark", "1F3FF": "dark"}


def emoji(*, side: int = 64, progress: bool = True) -> Texts:
    """OpenMoji's drawings of 1,903 emoji and of their skin tones, with names; source = category.

    A caption is a name and a kind: ``ambulance (transport ground)``. All skin tones of an emoji are
    on one side of the split. Images are `side` pixels wide; drawing them takes half a minute, once.
    """
    side = as_count("side", side, least=8, most=1024)
    rows = _load("emoji-names", "emoji.json", progress)
    drawings = inside(assets.get("openmoji", progress=progress), "svg")
    versions = [assets.asset(name).version for name in ("emoji-names", "openmoji")]
    key = fingerprint(versions, [str(side), "emoji/1"])
    rows = [each for row in rows for each in _variants(row)]
    table = _cached(
        cache_dir() / "emoji" / f"{key}.parquet", partial(_drawn, rows, drawings, side, progress)
    )
    columns = table.to_pydict()
    credits = [_credit("openmoji"), _credit("emoji-names")]
    return Texts(columns["text"], columns["source"], credits, columns["image"], columns["group"])


def _variants(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield an emoji and its skin tones: codes, caption, category, and the code of the emoji."""
    name = f"{row['name'] or row['short_name']}".lower().replace("_", " ")
    kind = f"({row['subcategory'].replace('-', ' ')})"
    more = {"source": row["category"], "group": row["unified"]}
    yield {"codes": _codes(row), "text": f"{name} {kind}", **more}
    for tones, variant in row.get("skin_variations", {}).items():
        tone = " and ".join(dict.fromkeys(_TONES[each] for each in tones.split("-")))
        yield {"codes": _codes(variant), "text": f"{name}, {tone} skin tone {kind}", **more}


def _codes(row: dict[str, Any]) -> list[str]:
    """Return the names that the drawing of an emoji may have."""
    codes = [row["unified"], row["non_qualified"], row["unified"].replace("-FE0F", "")]
    return [code for code in codes if code]


def _drawn(rows: list[dict[str, Any]], folder: Path, side: int, progress: bool) -> pa.Table:
    try:
        import resvg_py
    except ImportError as error:
        what = "its images are drawn by resvg_py, which is not installed"
        raise InputError("emoji", what, 'pip install "rbkit[images]"') from error
    kept: dict[str, list[Any]] = {name: [] for name in ("text", "source", "group", "image")}
    for row in progress_bar(rows, desc="drawing emoji", mininterval=1, disable=not progress):
        files = [inside(folder, f"{code}.svg") for code in row["codes"]]
        file = next((file for file in files if file.is_file()), None)
        if file is None:
            continue
        image = resvg_py.svg_to_bytes(
            svg_string=regular(file).read_text(encoding="utf-8"),
            width=side,
            height=side,
            skip_system_fonts=True,  # drawings have no text, and fonts take long to load
        )
        for name, value in ({**row, "image": bytes(image)}).items():
            if name in kept:
                kept[name].append(value)
    return pa.table(kept)


def instruct(*, progress: bool = True) -> Texts:
    """Instructions with answers, of eight kinds: templates over wiki, recipes, code, docstrings.

    An article is used once, by one of four templates; source = the kind. No person has written the
    instructions: real ones vary more.
    """
    articles = _load("wiki", "summaries_en-us.json", progress)
    topics = ", ".join(sorted({row["topic"] for row in articles.values()} - {"Uncategorized"}))
    rows = []
    for number, row in enumerate(articles.values()):
        title, extract, phrase = (row.get(name) for name in ("title", "extract", "description"))
        if number % 4 == 0:
            rows.append(("describe", f"Write a short encyclopaedia entry about {title}.", extract))
        elif number % 4 == 1 and phrase:
            rows.append(("define", f"What is {title}? Answer in one phrase.", phrase))
        elif number % 4 == 2 and phrase:
            rows.append(
                ("summarise", f"Say in one phrase what this is about:\n\n{extract}", phrase)
            )
        elif number % 4 == 3 and row["topic"] != "Uncategorized":
            question = f"Which topic is this text on: {topics}?\n\n{extract}"
            rows.append(("classify", question, row["topic"]))
    for number, row in enumerate(_load("recipes", "recipes_en-us.json", progress).values()):
        title, _, rest = _recipe(row).partition("\n\n")
        needed, _, steps = rest.partition("\n\n")
        if number % 2:
            rows.append(("recipe", f"Give me a recipe for {title}.", rest))
        else:
            rows.append(("cook", f"How do I make {title} of these?\n\n{needed}", steps))
    for row in _load("code", "codeio-hq.json.gz", progress):
        rows.append(("code", row["task_description"].strip(), row["code_sample"].strip()))
    documented = docstrings(per_library=300, progress=progress)
    for text, library in zip(documented.text, documented.source, strict=True):
        first, _, rest = text.partition("\n\n")
        if rest.strip():
            rows.append(("document", f"Document what is in {library} for this: {first}", rest))
    rows = [row for row in rows if row[1].strip() and row[2].strip()]
    credits = [_credit(name) for name in ("wiki", "recipes", "code")]
    return Texts.of_pairs(rows, [*credits, *documented.credits])


TASKS = (
    *("ab", "base_conversion", "binary_alternation", "caesar_cipher", "count_primes"),
    *("cryptarithm", "isomorphic_strings", "letter_counting", "letter_jumble"),
    *("palindrome_generation", "ransom_note", "sentence_reordering", "spell_backward"),
    *("word_sequence_reversal", "word_sorting", "calendar_arithmetic", "count_bits", "dice"),
    *("fraction_simplification", "gcd", "gsm_symbolic", "lcm", "leg_counting"),
    *("power_function", "prime_factorization", "products", "aiw", "knights_knaves"),
    *("propositional_logic", "self_reference", "syllogism", "emoji_mystery", "maze"),
    *("course_schedule", "family_relationships", "graph_color", "simple_geometry"),
    "color_cube_rotation",
)


def tasks(*, per_task: int = 100, progress: bool = True) -> Texts:
    """Questions with answers of 38 short tasks of reasoning-gym; source = the task.

    They are written by that package, which has to be installed. Questions of a task are alike.
    """
    if per_task < 1:
        raise InputError("per_task", f"is {per_task}", "give at least 1")
    version = _version("reasoning-gym")
    if version == "unknown":
        remedy = 'pip install "rbkit[tasks]", or pip install reasoning-gym'
        raise AssetError("tasks", "are written by reasoning-gym, which is not installed", remedy)
    key = fingerprint([version, str(per_task), "tasks/1"], list(TASKS))
    make = partial(_write_tasks, per_task, progress)
    table = _cached(cache_dir() / "tasks" / f"{key}.parquet", make)
    rows = list(zip(*(table.column(name).to_pylist() for name in _PAIR), strict=True))
    credit = _library_credit("reasoning_gym") | {"asset": f"tasks of reasoning-gym {version}"}
    return Texts.of_pairs(rows, [credit])


def tasks_ood(*, per_task: int = 100, progress: bool = True) -> Texts:
    """``tasks``, every third of which is in the eval split only: what is wanted is not trained."""
    made = tasks(per_task=per_task, progress=progress)
    made.held_out = frozenset(TASKS[::3])
    return made


_PAIR = ("source", "prompt", "completion")


def _write_tasks(per_task: int, progress: bool) -> pa.Table:
    from reasoning_gym import create_dataset

    rows = []
    for name in progress_bar(TASKS, desc="tasks", mininterval=1, disable=not progress):
        made = create_dataset(name, seed=0, size=per_task)
        items = [made[i] for i in range(per_task)]
        pairs = {item["question"].strip(): str(item["answer"]).strip() for item in items}
        rows += [(name, question, answer) for question, answer in pairs.items() if answer]
    return pa.table(dict(zip(_PAIR, map(list, zip(*rows, strict=True)), strict=True)))


def reasoning(*, per_procedure: int = 300, progress: bool = True) -> Texts:
    """Small problems worked out step by step, of ten procedures; source = the procedure.

    They are made here, from a fixed seed: correct, but without the detours of a person's or a
    large model's thoughts.
    """
    if per_procedure < 1:
        raise InputError("per_procedure", f"is {per_procedure}", "give at least 1")
    rows: dict[tuple[str, str], str] = {}
    for name, procedure in PROCEDURES.items():
        rng = random.Random(f"reasoning/1/{name}")
        for _ in range(per_procedure):
            question, steps, answer = procedure(rng)
            rows[name, question] = "\n".join([*steps, f"Answer: {answer}"])
    credit = {"asset": "reasoning", "licence": "Apache-2.0", "attribution": "rbkit", "url": ""}
    return Texts.of_pairs([(*of, answer) for of, answer in rows.items()], [credit])


Worked = tuple[str, list[str], object]  # question, steps, answer


def _addition(rng: random.Random) -> Worked:
    a, b = rng.randint(100, 99999), rng.randint(100, 99999)
    steps, carry = [], 0
    for place, (x, y) in enumerate(zip(f"{a:05}"[::-1], f"{b:05}"[::-1], strict=True)):
        total = int(x) + int(y) + carry
        carried = f" + {carry}" if carry else ""
        carry, digit = divmod(total, 10)
        steps.append(
            f"place {place + 1}: {x} + {y}{carried} = {total}, write {digit}, carry {carry}"
        )
    return f"Add {a} and {b}.", [*steps, f"the last carry is {carry}"], a + b


def _product(rng: random.Random) -> Worked:
    a, b = rng.randint(12, 999), rng.randint(12, 999)
    parts = [int(x) * 10**place for place, x in enumerate(str(b)[::-1]) if x != "0"][::-1]
    steps = [f"{b} is {' + '.join(map(str, parts))}", *(f"{a} x {x} = {a * x}" for x in parts)]
    return f"Multiply {a} by {b}.", [*steps, " + ".join(str(a * x) for x in parts)], a * b


def _divisor(rng: random.Random) -> Worked:
    a, b = (rng.randint(2, 40) * rng.randint(2, 60) for _ in range(2))
    steps, x, y = [], a, b
    while y:
        steps.append(f"{x} = {x // y} x {y} + {x % y}")
        x, y = y, x % y
    return f"Find the greatest common divisor of {a} and {b}.", steps, x


def _binary(rng: random.Random) -> Worked:
    a = left = rng.randint(9, 1023)
    steps = []
    while left:
        steps.append(f"{left} is 2 x {left // 2} and {left % 2} is left")
        left //= 2
    return f"Write {a} in binary.", [*steps, "read what is left from the last line up"], f"{a:b}"


def _factors(rng: random.Random) -> Worked:
    a = left = rng.randint(12, 5000)
    steps, found, d = [], [], 2
    while d * d <= left:
        if left % d:
            d += 1
        else:
            steps.append(f"{d} divides {left}, which leaves {left // d}")
            found.append(d)
            left //= d
    steps.append(f"{left} has no divisor up to its root, so it is prime")
    return f"Write {a} as a product of primes.", steps, " x ".join(map(str, [*found, left]))


def _sorting(rng: random.Random) -> Worked:
    given = rng.sample(range(10, 100), rng.randint(4, 8))
    steps: list[str] = []
    done: list[int] = []
    for x in given:
        done = sorted([*done, x])
        steps.append(f"put {x} in its place: {' '.join(map(str, done))}")
    return f"Sort by insertion: {' '.join(map(str, given))}", steps, " ".join(map(str, done))


def _equation(rng: random.Random) -> Worked:
    a, x, b = rng.randint(2, 19), rng.randint(-30, 30), rng.randint(1, 99)
    c = a * x + b
    steps = [f"take {b} from both sides: {a}x = {c - b}", f"divide both sides by {a}: x = {x}"]
    return f"Solve {a}x + {b} = {c} for x.", steps, x


_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _weekday(rng: random.Random) -> Worked:
    first, n = rng.randrange(7), rng.randint(8, 400)
    steps = [f"{n} is {n // 7} whole weeks and {n % 7} days"]
    steps += [f"{i} later it is {_DAYS[(first + i) % 7]}" for i in range(1, n % 7 + 1)]
    return f"It is {_DAYS[first]}. Which day is it in {n} days?", steps, _DAYS[(first + n) % 7]


def _search(rng: random.Random) -> Worked:
    low, high, wanted, steps = 1, 1024, rng.randint(1, 1024), []
    while low < high:
        middle = (low + high) // 2
        high, low = (middle, low) if wanted <= middle else (high, middle + 1)
        steps.append(f"compare with {middle}: now it is from {low} to {high}")
    return f"Find {wanted} among 1 to 1024 by halving.", steps, f"{len(steps)} comparisons"


_NAMES = ("Ada", "Ben", "Cem", "Dora", "Emil", "Fay", "Gus", "Hana", "Ida", "Jon", "Kim", "Leo")


def _order(rng: random.Random) -> Worked:
    line = rng.sample(_NAMES, rng.randint(4, 6))
    facts = [f"{a} is taller than {b}" for a, b in pairwise(line)]
    told = rng.sample(facts, len(facts))
    steps = [f"{fact}: {' > '.join(line[: i + 2])}" for i, fact in enumerate(facts)]
    return f"{'. '.join(told)}. Who is the second tallest?", steps, line[1]


PROCEDURES: dict[str, Callable[[random.Random], Worked]] = {
    "addition": _addition,
    "multiplication": _product,
    "common divisor": _divisor,
    "binary": _binary,
    "primes": _factors,
    "sorting": _sorting,
    "equation": _equation,
    "weekday": _weekday,
    "search": _search,
    "order": _order,
}


BUILTIN: dict[str, Callable[..., Texts]] = {
    "wiki": wiki,
    "recipes": recipes,
    "code": code,
    "demo": demo,
    "docstrings": docstrings,
    "emoji": emoji,
    "instruct": instruct,
    "tasks": tasks,
    "tasks-ood": tasks_ood,
    "reasoning": reasoning,
}


def _cached(path: Path, make: Callable[[], pa.Table]) -> pa.Table:
    try:
        return pq.read_table(regular(path))
    except (FileNotFoundError, pa.ArrowInvalid, OSError):  # absent or damaged: made again
        # Syntax trees are many objects and no cycles: collecting doubles the time for nothing.
        collecting = gc.isenabled()
        gc.disable()
        try:
            table = make()
        finally:
            if collecting:
                gc.enable()
        with atomic_path(path) as tmp:
            pq.write_table(table, tmp)
        return table


def _collect(roots: dict[str, Path], per_library: int, progress: bool) -> pa.Table:
    texts: list[str] = []
    sources: list[str] = []
    seen: set[str] = set()
    with progress_bar(
        total=len(roots) * per_library, desc="docstrings", mininterval=1, disable=not progress
    ) as bar:
        for name in sorted(roots):
            count = 0
            for text in _docstrings_of(roots[name]):
                if text not in seen:
                    seen.add(text)
                    texts.append(text)
                    sources.append(name)
                    count += 1
                    bar.update()
                if count == per_library:
                    break
    return pa.table({"text": texts, "source": sources})


def _docstrings_of(root: Path) -> Iterator[str]:
    files = [
        path
        for path in root.rglob("*.py")
        if not any(part.startswith("test") for part in path.relative_to(root).parts)
    ]
    # In the order of a hash of their names, so that the first few hundred docstrings come from
    # all over the library and not from the module whose name begins with "_a".
    files.sort(key=lambda path: fingerprint(path.relative_to(root).as_posix()))
    for path in files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes in other people's files
                tree = ast.parse(regular(path).read_bytes())
        except (SyntaxError, ValueError, OSError):
            continue
        for node in _documented(tree):
            text = inspect.cleandoc(ast.get_docstring(node) or "")
            if len(text.split()) >= _MIN_WORDS:
                yield text


_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _documented(tree: ast.Module) -> Iterator[_Documented]:
    # ast.walk visits every expression, which costs more than parsing does: module and class
    # level are where public docstrings are.
    stack: list[_Documented] = [tree]
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, ast.Module | ast.ClassDef):
            stack += [n for n in reversed(node.body) if isinstance(n, _Documented)]


def _package_folder(name: str) -> Path | None:
    if not name.isidentifier():
        raise InputError("libraries", f"{name!r} is not an import name", "give top-level packages")
    try:
        spec = importlib.util.find_spec(name)  # of a top-level name: finds, does not import
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(_DISTRIBUTIONS.get(name, name))
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _library_credit(name: str) -> dict[str, str]:
    try:
        facts = importlib.metadata.metadata(_DISTRIBUTIONS.get(name, name))
    except importlib.metadata.PackageNotFoundError:
        licence, url = "see the library", ""
    else:
        classifiers = [
            line.rsplit(" :: ", 1)[-1]
            for line in facts.get_all("Classifier") or []
            if line.startswith("License ::")
        ]
        # The field "License" sometimes holds the whole licence: only its first line is a name.
        named = facts["License-Expression"] or "".join(classifiers[:1]) or facts["License"] or ""
        licence = named.strip().splitlines()[0][:80] if named.strip() else "see the library"
        url = facts["Home-page"] or next(
            (u.split(",")[-1].strip() for u in facts.get_all("Project-URL") or []), ""
        )
    return {
        "asset": f"docstrings of {name} {_version(name)}",
        "licence": licence,
        "attribution": f"the {name} developers",
        "url": url,
    }
