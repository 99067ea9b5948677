"""README's promises: scripts become adaptive with few changed lines, and they run."""

from __future__ import annotations

import difflib
import json
import re
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image, ImageDraw

import rbkit as rb
from rbkit.train import Recorder, list_runs
from rbkit.train.models import build_model, train_tokenizer

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


@pytest.fixture(scope="module")
def strangers_files(tmp_path_factory):
    """A model folder and two JSONL files, as a stranger would have them."""
    folder = tmp_path_factory.mktemp("stranger")
    rng = np.random.default_rng(0)
    words = [["ant", "bee", "fly", "moth"], ["sum", "root", "prime"], ["salt", "egg", "flour"]]
    texts = {}
    for name, n in {"train": 80, "eval": 24}.items():
        texts[name] = [" ".join(rng.choice(words[i % 3], 12)) for i in range(n)]
        lines = [json.dumps({"text": text}) for text in texts[name]]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    tokenizer = train_tokenizer(texts["train"], 270, progress=False)
    build_model("tiny", vocab_size=len(tokenizer), context=64).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["trainer_plain", "trainer_rbkit", "loop_plain", "loop_rbkit", "loop_live"]
)
def test_the_example_runs(start_script, strangers_files, tmp_path, name):
    files = [str(strangers_files / f) for f in ("model", "train.jsonl", "eval.jsonl")]
    script = (ROOT / "examples" / f"{name}.py").read_text()
    # Without the packaged embedder, which would be a download.
    script = script.replace("rb.regroup(corpus, k", 'rb.regroup(corpus, embedder="tfidf", k')
    (tmp_path / "script.py").write_text(script)
    done = start_script(tmp_path / "script.py", *files, cwd=tmp_path).wait()
    assert done.returncode == 0, done.stderr
    assert 0 < float(re.findall(r"\d+\.\d+", done.stdout)[-1]) < 5  # untrained: ln 270 = 5.6
    if name == "trainer_rbkit":
        history = np.load(tmp_path / "out" / "history.npz")
        assert history["p"].shape[0] == 5
        assert np.abs(history["p"][-1] - history["p"][0]).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", ["frame", "answers"])
def test_an_example_goes_from_data_in_hand_to_a_page(start_script, strangers_files, tmp_path, name):
    rows = [json.loads(line) for line in (strangers_files / "train.jsonl").read_text().splitlines()]
    if name == "answers":
        tell = {"instruction": "Tell.", "category": "open_qa"}
        rows = [{**tell, "context": row["text"], "response": row["text"][:40]} for row in rows]
    data, frame = tmp_path / ("data.csv" if name == "frame" else "data.jsonl"), pd.DataFrame(rows)
    frame.to_csv(data) if name == "frame" else frame.to_json(data, orient="records", lines=True)
    script = (ROOT / "examples" / f"{name}.py").read_text()
    code = [x for x in script.split('"""')[2].splitlines() if x and "import" not in x]
    assert len(code) <= 15
    # Without the packaged embedder, which would be a download; and few steps.
    script = script.replace("k=range(4, 13)", 'embedder="tfidf", k=3')
    script = script.replace('"steps": 100', '"steps": 4, "round_steps": 2, "context": 64')
    script = script.replace('"metric_examples": 40', '"metric_examples": 4')
    few = "resume=True, steps=4, round_steps=2"
    script = script.replace("resume=True", few) if name == "frame" else script
    (tmp_path / "script.py").write_text(script)
    model = [str(strangers_files / "model")] if name == "answers" else []
    done = start_script(tmp_path / "script.py", *model, data, cwd=tmp_path).wait()
    assert done.returncode == 0, done.stderr
    page = tmp_path / done.stdout.split()[-1]
    assert "ended" in page.read_text()
    assert sorted(run.name for run in list_runs(page.parent)) == ["RnB", "Stratified", "Target"]


@pytest.mark.slow
def test_the_example_of_images_goes_from_a_folder_to_a_page(start_script, tmp_path):
    """Drawn shapes, called by what they show."""
    rng, folder = np.random.default_rng(0), tmp_path / "shapes"
    folder.mkdir()
    for i in range(96):
        colour, shape = ["red", "green", "blue"][i % 3], ["ellipse", "rectangle"][i // 3 % 2]
        image, (x, y) = Image.new("RGB", (32, 32), "white"), rng.integers(4, 16, 2).tolist()
        getattr(ImageDraw.Draw(image), shape)([x, y, x + 12, y + 12], fill=colour)
        image.save(folder / f"a_{colour}_{shape}_{i}.png")
    script = (ROOT / "examples" / "images.py").read_text()
    code = [x for x in script.split('"""')[2].splitlines() if x and "import" not in x]
    assert len(code) <= 15
    script = script.replace("k=range(4, 13)", "k=3")
    script = script.replace('"steps": 300', '"steps": 4, "round_steps": 2, "batch_size": 8')
    (tmp_path / "script.py").write_text(script)
    done = start_script(tmp_path / "script.py", folder, cwd=tmp_path).wait()
    assert done.returncode == 0, done.stderr
    page = tmp_path / done.stdout.split()[-1]
    assert "ended at recall_at_5" in page.read_text()
    assert "nats per example" in page.read_text()
    assert "per token" not in re.sub(r"<(script|style).*?</\1>", "", page.read_text(), flags=re.S)
    assert sorted(run.name for run in list_runs(page.parent)) == ["RnB", "Stratified", "Target"]
    assert "PixelEmbedder" in (page.parent / "RnB" / "run.json").read_text()


def changed(before, after):
    """Lines removed and added, docstrings apart, as in the guide."""
    old, new = (
        (ROOT / "examples" / f"{n}.py").read_text().splitlines()[1:] for n in (before, after)
    )
    return [
        line
        for line in difflib.unified_diff(old, new, lineterm="", n=0)
        if line[:1] in "+-" and line[:3] not in ("+++", "---")
    ]


@pytest.mark.parametrize(("kind", "most"), [("trainer", 10), ("loop", 15)])
def test_few_lines_change_and_the_guide_shows_just_these(kind, most):
    lines = [line for line in changed(f"{kind}_plain", f"{kind}_rbkit") if line.strip("+-").strip()]
    assert len(lines) <= most  # removed and added ones
    guide = (ROOT / "docs" / "guide.md").read_text()
    blocks = re.findall(r"```diff\n(.*?)```", guide, re.S)
    shown = [[x for x in b.splitlines() if x[:1] in "+-" and x[1:].strip()] for b in blocks]
    assert lines in shown, f"the guide lacks this diff:\n{chr(10).join(lines)}"


@pytest.mark.parametrize(
    "page", [README, *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.stem
)
def test_a_page_names_files_and_commands_that_exist(page):
    text = page.read_text()
    for path in re.findall(r"\]\(((?!https?:)[^)#]+)\)", text):
        assert (page.parent / path).exists(), path
    from typer.main import get_command

    from rbkit.cli import app

    known = set(get_command(app).commands)
    used = set(re.findall(r"`rbkit ([a-z]+)", text))
    assert used <= known
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([a-z]+)", text)) <= targets


# ------------------------------------------------------------------ docs/exits.md

EXITS = re.findall(
    r"```(python|yaml)([^\n]*)\n(.*?)```", (ROOT / "docs" / "exits.md").read_text(), re.S
)


@pytest.fixture
def finished_run(tmp_path, monkeypatch):
    """A corpus of three topics, and a run on its domains: what the page begins with."""
    monkeypatch.chdir(tmp_path)
    rng, topics = np.random.default_rng(0), ["ant bee fly moth wasp", "sum root prime set map"]
    topics.append("salt egg flour milk oil")
    rows = [{"text": " ".join(rng.choice(topics[i % 3].split(), 12)) + f" {i}"} for i in range(120)]
    (tmp_path / "my_texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    corpus = rb.load_corpus("my_texts.jsonl", progress=False)
    domains = rb.regroup(corpus, embedder="tfidf", k=3, progress=False)
    recorder = Recorder("reports/first")
    recorder.start(parameters={}, domains={"names": domains.names})
    recorder.arrays["p"] = [np.full(3, 1 / 3)]
    recorder.round(step=10, p=np.array([0.2, 0.3, 0.5]), estimate=None)
    recorder.finish("ok")
    domains.save("reports/first/domains")
    tokenizer = train_tokenizer(corpus["train"]["text"][:], 270, progress=False)
    tokenizer.save_pretrained("reports/first/model")
    model = build_model("tiny", vocab_size=len(tokenizer), context=64)
    model.save_pretrained("reports/first/model")
    return corpus, domains


def test_the_exits_lead_out(finished_run, capsys):
    (corpus, domains), page = finished_run, {}
    for number, (language, needs, block) in enumerate(EXITS):
        if language == "yaml":
            assert yaml.safe_load(block)
            continue
        code = compile(block, f"docs/exits.md, block {number}", "exec")
        package = needs.strip().removeprefix("requires=")
        if not package:
            exec(code, page)
        elif find_spec(package):
            with warnings.catch_warnings(action="ignore"):  # other libraries' own
                exec(code, page)
    mixture, p = page["mixture"], [0.2, 0.3, 0.5]
    assert mixture == dict(zip(domains.names, p, strict=True))
    domain_of = dict(zip(corpus["train"]["text"], domains.train_labels, strict=True))
    # Interleaved: in the proportions, and each example at least once.
    drawn = [domain_of[text] for text in page["mixed"]["text"]]
    assert np.allclose(np.bincount(drawn) / len(drawn), p, atol=3 * np.sqrt(0.25 / len(drawn)))
    assert {*page["mixed"]["text"]} == {*corpus["train"]["text"]}
    by_row = np.bincount(domains.train_labels, page["weighted"]["weight"])
    np.testing.assert_allclose(by_row, p)
    assert sum(len(batch["text"]) for batch in page["loader"]) == 1000
    # The files of LLaMA-Factory hold all rows, and the lines for its YAML are those of the page.
    info = json.loads(Path("mixture/dataset_info.json").read_text())
    texts = [Path("mixture", each["file_name"]).read_text().splitlines() for each in info.values()]
    assert [len(lines) for lines in texts] == domains.sizes.tolist()
    lines = capsys.readouterr().out.splitlines()
    shown = yaml.safe_load(next(block for _, _, block in EXITS if "mix_strategy" in block))
    assert yaml.safe_load("\n".join(lines)).items() <= shown.items()
    assert len(Path("mixed.jsonl").read_text().splitlines()) == len(drawn)
    assert page["model"].config.vocab_size == len(page["tokenizer"])
