import gzip
import json
from collections import Counter

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
