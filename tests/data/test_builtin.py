import gzip
import json
import math
import re
import sys
from collections import Counter
from importlib.util import find_spec

import pytest

from rbkit.data import about, assets, builtin, load_corpus
from rbkit.errors import AssetError, InputError


def planted(cache, name, file, content):
    """Puts a made-up asset into the cache, so that no test needs the network."""
    asset = assets.asset(name)
    asset.folder.mkdir(parents=True)
    raw = json.dumps(content).encode()
    raw = gzip.compress(raw) if file.endswith(".gz") else raw
    (asset.folder / file).write_bytes(raw)
    manifest = {"wheel_sha256": asset.sha256, "files": {file: {"size": len(raw), "sha256": ""}}}
    (asset.folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def planted_cache(cache):
    topics = ["Arts", "History", "Uncategorized"]
    wiki = {
        str(i): {"title": str(i), "extract": f"Article {i}.", "topic": topics[i % 3]}
        for i in range(30)
    }
    recipe = {
        "title": "Toast<ref/>",
        "ingredients": ["1 slice<ref>A book</ref>"],
        "steps": ["Toast it.", "Eat<br /> it."],
    }
    recipes = {str(i): {**recipe, "title": f"Toast<ref/> {i}"} for i in range(10)}
    code = [{"task_description": f"Add {i}?\n", "code_sample": f"x + {i}"} for i in range(10)]
    planted(cache, "wiki", "summaries_en-us.json", wiki)
    planted(cache, "recipes", "recipes_en-us.json", recipes)
    planted(cache, "code", "codeio-hq.json.gz", code)
    return cache


@pytest.mark.usefixtures("planted_cache")
def test_wiki_leaves_out_what_has_no_topic_unless_asked():
    assert Counter(builtin.wiki().source) == {"Arts": 10, "History": 10}
    assert Counter(builtin.wiki(uncategorized=True).source)["Uncategorized"] == 10


@pytest.mark.usefixtures("planted_cache")
def test_recipes_are_plain_text_without_markup():
    assert builtin.recipes().text[0] == (
        "Toast 0\n\nIngredients\n- 1 slice\n\nSteps\n1. Toast it.\n2. Eat it."
    )


@pytest.mark.usefixtures("planted_cache")
def test_code_is_a_task_and_its_program():
    assert builtin.code().text[3] == "Add 3?\n\nx + 3"


@pytest.mark.usefixtures("planted_cache")
def test_the_demo_is_the_mix_of_three_and_credits_all():
    corpus = load_corpus("demo", progress=False)
    facts = about(corpus)
    assert set(facts["sources"]) == {"Arts", "History", "recipes", "code"}
    assert [credit["asset"] for credit in facts["licences"]] == ["wiki", "recipes", "code"]
    assert facts["name"] == "demo"


@pytest.mark.usefixtures("planted_cache")
def test_options_go_to_the_built_in_corpus_and_unknown_ones_are_refused():
    assert "Uncategorized" in about(load_corpus("wiki", uncategorized=True))["sources"]
    with pytest.raises(InputError, match="language: not an option of the corpus 'wiki'; it takes"):
        load_corpus("wiki", language="fr")
    with pytest.raises(InputError, match="it takes no options"):
        load_corpus("code", uncategorized=True)


def test_a_damaged_corpus_file_names_the_command(planted_cache):
    file = next(planted_cache.rglob("summaries_en-us.json"))
    file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(AssetError, match=r"summaries_en-us\.json: damaged .* get wiki --force`"):
        load_corpus("wiki")


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ('cream.<ref name="b" />', "cream."),
        ("salt<nowiki/>h", "salth"),
        ("a <ref>note with <b>tags</b></ref>b", "a b"),
        ("<u>Stop</u> at <7 flakes (< 40°F)", "Stop at <7 flakes (< 40°F)"),
    ],
)
def test_markup_is_removed_and_the_rest_kept(marked, plain):
    assert builtin.without_markup(marked) == plain


@pytest.mark.usefixtures("cache")
def test_docstrings_are_deterministic_unique_and_long_enough():
    one = builtin.docstrings(libraries=["networkx", "numpy"], per_library=40, progress=False)
    two = builtin.docstrings(libraries=["networkx", "numpy"], per_library=40, progress=False)
    assert one == two
    assert Counter(one.source) == {"networkx": 40, "numpy": 40}
    assert len(set(one.text)) == 80
    assert min(len(text.split()) for text in one.text) >= 25
    assert one.credits[0]["licence"].startswith("BSD")


def test_docstrings_are_cached_and_a_damaged_cache_is_made_again(cache):
    options = {"libraries": ["networkx"], "per_library": 10, "progress": False}
    one = builtin.docstrings(**options)
    file = next((cache / "docstrings").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:100])
    assert builtin.docstrings(**options) == one
    assert file.stat().st_size > 100


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", ["no_such_library_here", "../etc", "os.path"])
def test_a_library_that_is_not_installed_is_named(name):
    with pytest.raises(InputError, match="libraries: "):
        builtin.docstrings(libraries=[name])


@pytest.fixture
def drawn(cache, monkeypatch):
    """A cache with three emoji, one of them in two skin tones, and what draws them."""
    kind = {"category": "People & Body", "subcategory": "hand-fingers", "short_name": "wave"}
    tones = {
        code: {"unified": f"1F44B-{code}", "non_qualified": None} for code in ("1F3FB", "1F3FF")
    }
    wave = {"name": "WAVING HAND SIGN", "unified": "1F44B", "non_qualified": None, **kind}
    flag = {"name": None, "unified": "26F3", "non_qualified": "26F3", "short_name": "golf_flag"}
    flag |= {"category": "Activities", "subcategory": "sport"}
    heart = {"name": "RED HEART", "unified": "2764-FE0F", "non_qualified": None, **kind}
    lost = {"name": "NOT DRAWN", "unified": "1F999", "non_qualified": None, **kind}
    rows = [{**wave, "skin_variations": tones}, flag, heart, lost]
    planted(cache, "emoji-names", "emoji.json", rows)
    folder = assets.asset("openmoji").folder / "svg"
    folder.mkdir(parents=True)
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="%d"/></svg>'
    files = {}
    for i, code in enumerate(["1F44B", "1F44B-1F3FB", "1F44B-1F3FF", "26F3", "2764"], 1):
        (folder / f"{code}.svg").write_text(svg % i)
        files[f"svg/{code}.svg"] = {"size": len(svg % i), "sha256": ""}
    manifest = {"wheel_sha256": assets.asset("openmoji").sha256, "files": files}
    (folder.parent / "manifest.json").write_text(json.dumps(manifest))
    return cache


def test_emoji_are_images_with_names_and_skin_tones_stay_together(drawn, monkeypatch):
    from io import BytesIO
    from types import SimpleNamespace

    from PIL import Image

    def draw(svg_string, width, height, **_):
        file = BytesIO()
        shade = int(svg_string.split('height="')[1].split('"')[0])
        Image.new("RGB", (width, height), (shade, 0, 0)).save(file, "PNG")
        return file.getvalue()

    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(InputError, match=r"rbkit\[images\]"):
        builtin.emoji(progress=False)
    monkeypatch.setitem(sys.modules, "resvg_py", SimpleNamespace(svg_to_bytes=draw))
    texts = builtin.emoji(progress=False)
    assert texts.text == [
        "waving hand sign (hand fingers)",
        "waving hand sign, light skin tone (hand fingers)",
        "waving hand sign, dark skin tone (hand fingers)",
        "golf flag (sport)",
        "red heart (hand fingers)",
    ]
    assert texts.group == ["1F44B"] * 3 + ["26F3", "2764-FE0F"]
    assert [credit["licence"] for credit in texts.credits] == ["CC BY-SA 4.0", "MIT"]
    monkeypatch.setitem(sys.modules, "resvg_py", None)  # what is drawn is kept
    sides = []
    for seed in range(20):
        corpus = load_corpus("emoji", eval_share=0.4, seed=seed, progress=False)
        waving = ["waving" in text for text in corpus["eval"]["text"]]
        sides.append(sum(waving))
        assert corpus["train"][0]["image"].size == (64, 64)
    assert set(sides) == {0, 3}


@pytest.mark.assets
def test_the_real_emoji_are_all_there(real_asset):
    pytest.importorskip("resvg_py")
    real_asset("openmoji"), real_asset("emoji-names")
    corpus = load_corpus("emoji", progress=False)
    assert sum(map(len, corpus.values())) == 3778
    assert len(about(corpus)["sources"]) == 10
    sides = [
        {re.sub(r", [\w ]+ skin tone", "", text) for text in corpus[split]["text"]}
        for split in ("train", "eval")
    ]
    assert len(sides[0] & sides[1]) < 5  # a few emoji have one name


@pytest.mark.assets
def test_the_real_corpora_have_the_sizes_that_the_documentation_says(real_asset):
    for name in ("wiki", "recipes", "code"):
        real_asset(name)
    assert len(builtin.wiki().text) == 9033
    assert len(set(builtin.wiki().source)) == 11
    assert len(builtin.wiki(uncategorized=True).text) == 10_033
    assert len(builtin.recipes().text) == 3129
    assert not any("<ref" in text for text in builtin.recipes().text)
    assert len(builtin.code().text) == 2750
    facts = about(load_corpus("demo", progress=False))
    assert len(facts["sources"]) == 13
    assert facts["n_train"] + facts["n_eval"] + facts["duplicates"] == 14_912


@pytest.mark.usefixtures("planted_cache")
def test_instructions_are_made_of_each_article_once(monkeypatch):
    texts = ["Add two numbers.\n\nBoth are integers.", "Only a first line."]
    documented = builtin.Texts(texts, ["numpy"] * 2, [])
    monkeypatch.setattr(builtin, "docstrings", lambda **_: documented)
    corpus = load_corpus("instruct", eval_size=5, progress=False, keep=["prompt", "completion"])
    rows = [row for split in corpus.values() for row in split]
    assert all(row["text"] == row["prompt"] + row["completion"] for row in rows)
    asked = {row["prompt"].strip(): row for row in rows}
    assert asked["Give me a recipe for Toast 1."]["completion"].startswith("Ingredients\n- 1 slice")
    cooked = asked["How do I make Toast 2 of these?\n\nIngredients\n- 1 slice"]
    assert cooked["completion"] == "Steps\n1. Toast it.\n2. Eat it."
    assert asked["Add 3?"]["completion"] == "x + 3"
    assert asked["Write a short encyclopaedia entry about 4."]["completion"] == "Article 4."
    document = asked["Document what is in numpy for this: Add two numbers."]
    assert (document["completion"], document["source"]) == ("Both are integers.", "document")
    kinds = Counter(row["source"] for row in rows)  # the planted articles have no descriptions
    assert kinds == {
        "describe": 8,
        "classify": 5,
        "recipe": 5,
        "cook": 5,
        "code": 10,
        "document": 1,
    }


DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
RIGHT = {  # of the numbers in the question, and the question
    "addition": lambda n, _: sum(n),
    "multiplication": lambda n, _: n[0] * n[1],
    "common divisor": lambda n, _: math.gcd(*n),
    "binary": lambda n, _: f"{n[0]:b}",
    "sorting": lambda n, _: " ".join(map(str, sorted(n))),
    "equation": lambda n, _: (n[2] - n[1]) // n[0],
    "weekday": lambda n, text: DAYS[(DAYS.index(text.split()[2].strip(".")) + n[0]) % 7],
}


def test_what_is_worked_out_is_right():
    made, again = (builtin.reasoning(per_procedure=40) for _ in range(2))
    assert (made.text, made.source) == (again.text, again.source)
    assert set(made.source) == set(builtin.PROCEDURES)
    for source, prompt, worked in zip(made.source, *made.columns.values(), strict=True):
        answer = worked.rpartition("Answer: ")[2]
        numbers = [int(x) for x in re.findall(r"-?\d+", prompt)]
        if source in RIGHT:
            assert answer == str(RIGHT[source](numbers, prompt)), prompt
        elif source == "order":
            taller = dict(re.findall(r"(\w+) is taller than (\w+)", prompt))
            assert answer == taller[(taller.keys() - {*taller.values()}).pop()]
        elif source == "primes":
            parts = [int(x) for x in answer.split(" x ")]
            assert math.prod(parts) == numbers[0]
            assert all(x % d for x in parts for d in range(2, math.isqrt(x) + 1))
        else:
            assert f"from {numbers[0]} to {numbers[0]}\nAnswer" in worked
            assert answer == f"{worked.count('compare')} comparisons"


@pytest.mark.skipif(find_spec("reasoning_gym") is not None, reason="it is installed")
def test_tasks_name_the_package_that_writes_them():
    with pytest.raises(AssetError, match=r"tasks: are written by reasoning-gym.* pip install"):
        load_corpus("tasks-ood")


@pytest.mark.usefixtures("cache")
def test_tasks_have_answers_that_their_writer_accepts():
    gym = pytest.importorskip("reasoning_gym")
    made = builtin.tasks(per_task=3, progress=False)
    assert sorted(set(made.source)) == sorted(builtin.TASKS)
    assert made.credits[0]["asset"].startswith("tasks of reasoning-gym ")
    assert made.credits[0]["licence"] == "Apache-2.0"
    for name in ("gcd", "word_sorting"):
        items = gym.create_dataset(name, seed=0, size=3)
        answers = [
            c for s, c in zip(made.source, made.columns["completion"], strict=True) if s == name
        ]
        assert [items.score_answer(a, items[i]) for i, a in enumerate(answers)] == [1.0] * 3
    ood = load_corpus("tasks-ood", per_task=3, progress=False)
    held, trained = (set(ood[split]["source"]) for split in ("eval", "train"))
    assert (len(held), len(trained), held & trained) == (13, 25, set())
