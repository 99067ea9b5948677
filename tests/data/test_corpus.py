import bz2
import gc
import gzip
import json
import lzma
import os
import shutil
import threading
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from rbkit.data import about, load_corpus
from rbkit.errors import InputError, RbkitWarning

pytestmark = pytest.mark.usefixtures("cache")

ROWS = [{"text": f"example number {i}, with a few words", "source": "ab"[i % 2]} for i in range(60)]


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows_of(corpus):
    return sorted(row["text"] for split in corpus.values() for row in split)


def as_file(folder: Path, kind: str) -> Path:
    text = jsonl(ROWS)
    csv = "text,source\n" + "".join(f'"{row["text"]}",{row["source"]}\n' for row in ROWS)
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), folder / "rows.parquet")
        return folder / "rows.parquet"
    content = {
        "jsonl": text.encode(),
        "json": json.dumps(ROWS).encode(),
        "jsonl.gz": gzip.compress(text.encode()),
        "jsonl.xz": lzma.compress(text.encode()),
        "csv": csv.encode(),
        "csv.bz2": bz2.compress(csv.encode()),
        "tsv": csv.replace(",a", "\ta").replace(",b", "\tb").replace(",s", "\ts").encode(),
    }
    return write(folder / f"rows.{kind}", content[kind])


@pytest.mark.parametrize(
    "kind", ["jsonl", "json", "jsonl.gz", "jsonl.xz", "csv", "csv.bz2", "tsv", "parquet"]
)
def test_every_kind_of_file_gives_the_same_corpus(tmp_path, kind):
    corpus = load_corpus(as_file(tmp_path, kind), eval_size=10)
    assert rows_of(corpus) == sorted(row["text"] for row in ROWS)
    assert corpus["train"].column_names == corpus["eval"].column_names
    assert corpus["train"].column_names == ["text", "source", "original_row"]
    assert corpus["train"].num_rows == 50
    assert set(corpus["train"]["source"]) == {"a", "b"}
    # the split does not depend on the kind of file
    reference = load_corpus(datasets.Dataset.from_list(ROWS), eval_size=10)
    assert corpus["eval"]["text"][:] == reference["eval"]["text"][:]
    assert about(corpus)["fingerprint"] == about(reference)["fingerprint"]


def test_texts_from_files_stay_memory_mapped(tmp_path):
    corpus = load_corpus(as_file(tmp_path, "jsonl"))
    assert corpus["train"].cache_files


def test_the_cache_of_datasets_is_in_the_cache_of_rbkit(tmp_path, cache):
    corpus = load_corpus(as_file(tmp_path, "jsonl"))
    assert Path(corpus["train"].cache_files[0]["filename"]).is_relative_to(cache / "datasets")


def test_a_file_that_changed_is_read_again(tmp_path):
    file = write(tmp_path / "rows.jsonl", jsonl(ROWS))
    before = load_corpus(file)
    write(file, jsonl(ROWS[:30]))
    os.utime(file, (1, 1))
    assert len(rows_of(before)) == 60
    assert len(rows_of(load_corpus(file))) == 30


def test_a_damaged_copy_in_the_cache_is_made_again(tmp_path, cache):
    file = as_file(tmp_path, "jsonl")
    load_corpus(file)
    copy = next((cache / "datasets").rglob("*.arrow"))
    copy.write_bytes(copy.read_bytes()[:200])
    assert len(rows_of(load_corpus(file))) == 60


def test_globs_and_lists_and_names_that_look_like_patterns(tmp_path):
    write(tmp_path / "part[1].jsonl", jsonl(ROWS[:30]))
    write(tmp_path / "part 2.jsonl", jsonl(ROWS[30:]))
    both = load_corpus(f"{tmp_path}/part*.jsonl")
    assert rows_of(both) == sorted(row["text"] for row in ROWS)
    listed = load_corpus([tmp_path / "part[1].jsonl", tmp_path / "part 2.jsonl"])
    assert rows_of(listed) == rows_of(both)
    assert len(rows_of(load_corpus(str(tmp_path / "part[1].jsonl")))) == 30


def test_a_mapping_gives_the_files_of_each_split(tmp_path):
    write(tmp_path / "a.jsonl", jsonl(ROWS[:40]))
    write(tmp_path / "b.jsonl", jsonl(ROWS[40:]))
    corpus = load_corpus({"train": tmp_path / "a.jsonl", "eval": [tmp_path / "b.jsonl"]})
    assert (corpus["train"].num_rows, corpus["eval"].num_rows) == (40, 20)


def test_a_folder_in_hub_layout_keeps_its_own_splits(tmp_path):
    for name, part in (("train", ROWS[:40]), ("test", ROWS[40:50]), ("validation", ROWS[50:])):
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(part), folder / f"{name}-00000-of-00001.parquet")
    write(tmp_path / "README.md", "---\nlicense: mit\n---\n# A data set\n")
    corpus = load_corpus(tmp_path)
    assert corpus["train"].num_rows == 40
    assert corpus["eval"]["text"][:] == [row["text"] for row in ROWS[50:]]
    one = load_corpus(tmp_path, split="test")
    assert sum(one.num_rows.values()) == 10


def test_a_saved_data_set_loads_from_its_folder(tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    assert len(rows_of(load_corpus(tmp_path / "saved", progress=False))) == 60


def test_what_is_known_about_a_corpus_survives_saving(tmp_path):
    corpus = load_corpus(datasets.Dataset.from_list(ROWS))
    corpus.save_to_disk(str(tmp_path / "saved"))
    assert about(datasets.load_from_disk(str(tmp_path / "saved"))) == about(corpus)


def test_columns_can_be_mapped_and_joined():
    rows = [
        {"instruction": f"Do {i}.", "context": "" if i % 2 else None, "response": f"Done {i}."}
        for i in range(20)
    ]
    data = datasets.Dataset.from_list([{**row, "category": "qa"} for row in rows])
    corpus = load_corpus(data, text=["instruction", "context", "response"], source="category")
    assert "Do 3.\n\nDone 3." in rows_of(corpus)
    assert set(corpus["train"]["source"]) == {"qa"}


def test_a_column_may_be_text_and_source_as_well():
    corpus = load_corpus(datasets.Dataset.from_list(ROWS), text=["source", "text"])
    assert rows_of(corpus)[0] == f"a\n\n{ROWS[0]['text']}"
    assert set(corpus["train"]["source"]) == {"a", "b"}
    same = load_corpus(
        datasets.Dataset.from_dict({"text": ["x", "y", "z"]}), text="text", source="text"
    )
    assert same["train"]["text"][:] == same["train"]["source"][:]


@pytest.mark.parametrize("text", [{"text": "source", "source": "text"}, {"text": "text"}])
def test_columns_may_change_their_names(text):
    corpus = load_corpus(datasets.Dataset.from_list(ROWS), **text)
    assert ("a" in rows_of(corpus)) == (text["text"] == "source")


def test_sources_may_be_labels_numbers_missing_or_blank():
    features = datasets.Features(
        {"text": datasets.Value("string"), "source": datasets.ClassLabel(names=["x", "y"])}
    )
    table = {"text": [str(i) for i in range(20)], "source": [0, 1] * 10}
    labelled = load_corpus(datasets.Dataset.from_dict(table, features=features))
    assert set(labelled["train"]["source"]) == {"x", "y"}
    numbered = load_corpus(datasets.Dataset.from_dict(table))
    assert set(numbered["train"]["source"]) == {"0", "1"}
    blank = load_corpus(datasets.Dataset.from_dict({**table, "source": ["x", " "] * 10}))
    assert set(blank["train"]["source"]) == {"x", "unknown"}
    without = load_corpus(datasets.Dataset.from_dict({"text": table["text"]}))
    assert set(without["train"]["source"]) == {"unknown"}


def test_rows_without_text_are_left_out_and_counted():
    data = datasets.Dataset.from_dict({"text": ["a", "", None, " \n", "b", "c"]})
    with pytest.warns(RbkitWarning, match="3 of 6 rows have no text"):
        corpus = load_corpus(data)
    assert rows_of(corpus) == ["a", "b", "c"]
    assert about(corpus)["dropped"] == 3


def test_a_csv_is_text_throughout(tmp_path):
    # "NA" is a word, and numbers that turn into words after the first chunk do not fail
    lines = ["text", *("7" for _ in range(10_001)), "NA", "a word"]
    corpus = load_corpus(write(tmp_path / "n.csv", "\n".join(lines) + "\n"))
    assert {"7", "NA", "a word"} == set(rows_of(corpus))


def test_splits_are_disjoint_deterministic_and_follow_the_seed():
    data = datasets.Dataset.from_list(ROWS)
    one, two, other = load_corpus(data), load_corpus(data), load_corpus(data, seed=1)
    assert not set(one["train"]["text"]) & set(one["eval"]["text"])
    assert one["eval"]["text"][:] == two["eval"]["text"][:]
    assert one["eval"]["text"][:] != other["eval"]["text"][:]


def test_copies_between_own_splits_are_found_reported_and_left_out_of_train():
    parts = {
        "train": datasets.Dataset.from_dict({"text": ["same  text", "a", "b"]}),
        "test": datasets.Dataset.from_dict({"text": ["same text", "c"]}),
    }
    with pytest.warns(RbkitWarning, match="1 training examples are also in the split 'test'"):
        corpus = load_corpus(datasets.DatasetDict(parts))
    assert corpus["train"]["text"][:] == ["a", "b"]
    assert about(corpus)["duplicates"] == 1
    with pytest.warns(RbkitWarning, match="kept in both"):
        kept = load_corpus(datasets.DatasetDict(parts), drop_duplicates=False)
    assert kept["train"].num_rows == 3


def skewed(**options):
    sources = ["a"] * 300 + ["b"] * 150 + ["c"] * 50
    data = datasets.Dataset.from_dict({"text": [f"t{i}" for i in range(500)], "source": sources})
    return load_corpus(data, **options)


@pytest.mark.parametrize("size", [None, 40])
def test_the_eval_split_can_have_shares_of_its_own(size):
    corpus = skewed(eval_sources={"a": 0.25, "b": 0.75}, eval_share=0.2, eval_size=size)
    counts = Counter(corpus["eval"]["source"])
    assert counts["b"] / counts.total() == pytest.approx(0.75, abs=0.02)
    assert "c" not in counts
    assert size in (None, counts.total())


def test_training_data_do_not_depend_on_the_target():
    one = skewed(eval_sources={"a": 1}, eval_share=0.2)
    two = skewed(eval_sources={"b": 1, "c": 2}, eval_share=0.2)
    assert one["train"]["text"][:] == two["train"]["text"][:]
    assert about(one)["held_back"] > 0


def test_a_target_with_too_few_examples_is_refused():
    with pytest.raises(InputError, match="40 of the 50 examples of source 'c' would be held out"):
        skewed(eval_sources={"c": 1}, eval_size=40)
    with pytest.raises(InputError, match="no source 'd'; the sources are 'a', 'b', 'c'"):
        skewed(eval_sources={"d": 1})


def test_own_eval_splits_can_be_drawn_from():
    own = datasets.DatasetDict(
        train=datasets.Dataset.from_list(ROWS[:40]), test=datasets.Dataset.from_list(ROWS[40:])
    )
    corpus = load_corpus(own, eval_sources={"b": 1.0}, eval_size=5)
    assert corpus["eval"]["source"][:] == ["b"] * 5
    with pytest.raises(InputError, match="eval_size: 30 of 20 examples"):
        load_corpus(own, eval_size=30)


def test_max_examples_keeps_the_mix():
    corpus = skewed(max_examples=50)
    counts = Counter(corpus["train"]["source"])
    assert counts.total() == 50
    assert abs(counts["a"] - 30) <= 2
    assert corpus["eval"]["text"][:] == skewed()["eval"]["text"][:]


def test_the_fingerprint_survives_saving_where_sources_were_dropped(tmp_path):
    rows = [{"text": text, "source": f"s{i}"} for i, text in enumerate(TEXTS)]
    corpus = load_corpus(rows, eval_size=3, max_examples=5)
    assert len(about(corpus)["sources"]) == 5
    corpus.save_to_disk(str(tmp_path / "saved"))
    for again in (
        datasets.load_from_disk(str(tmp_path / "saved")),
        load_corpus(tmp_path / "saved"),
        datasets.DatasetDict({name: Dataset.from_list(list(corpus[name])) for name in corpus}),
    ):
        assert about(again)["fingerprint"] == about(corpus)["fingerprint"]


def test_about_a_foreign_or_changed_corpus_is_counted_anew():
    corpus = skewed()
    changed = datasets.DatasetDict(train=corpus["train"].select(range(10)), eval=corpus["eval"])
    assert about(changed)["n_train"] == 10
    assert about(changed)["name"] == about(corpus)["name"]
    assert about(changed)["fingerprint"] != about(corpus)["fingerprint"]
    foreign = datasets.Dataset.from_list(ROWS)
    facts = about(datasets.DatasetDict(train=foreign, eval=foreign))
    assert (facts["name"], facts["duplicates"]) == ("unnamed", 60)


def test_the_fingerprint_is_of_the_very_texts():
    data = datasets.Dataset.from_list(ROWS)
    spaced = data.map(lambda row: {"text": f"{row['text']} "})
    one, two = load_corpus(data), load_corpus(spaced)
    assert about(one)["n_train"] == about(two)["n_train"]  # the split is blind to whitespace
    assert about(one)["fingerprint"] != about(two)["fingerprint"]


# --- what must give one clear line -----------------------------------------------------------


def broken_parquet(folder):
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "rows.parquet")
    whole = (folder / "rows.parquet").read_bytes()
    return write(folder / "rows.parquet", whole[: len(whole) // 2])


def damaged_pages(folder):
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "rows.parquet", compression="zstd")
    raw = bytearray((folder / "rows.parquet").read_bytes())
    raw[8:200] = b"\xff" * 192
    return write(folder / "rows.parquet", bytes(raw))


FAULTS = {
    "truncated parquet": (broken_parquet, r"rows\.parquet: truncated, or not Parquet"),
    "damaged parquet": (damaged_pages, r"rows\.parquet: (truncated|could not be read)"),
    "empty file": (lambda d: write(d / "rows.csv", ""), r"rows\.csv: is empty"),
    "no rows": (lambda d: write(d / "rows.csv", "text\n"), r"rows\.csv: has no rows"),
    "only blank rows": (
        lambda d: write(d / "rows.jsonl", '{"text": ""}\n'),
        "no example with a text in it",
    ),
    "bad line": (
        lambda d: write(d / "rows.jsonl", jsonl(ROWS) + '{"text": "cut of\n'),
        r"rows\.jsonl: line 61 is not valid JSON",
    ),
    "not an object": (
        lambda d: write(d / "rows.jsonl", jsonl(ROWS) + "[1]\n"),
        r"rows\.jsonl: line 61 is not a JSON object",
    ),
    "cut gzip": (
        lambda d: write(d / "rows.jsonl.gz", gzip.compress(jsonl(ROWS).encode())[:-20]),
        r"rows\.jsonl\.gz: could not be read",
    ),
    "wrong encoding": (
        lambda d: write(d / "rows.csv", b"text\n\xff\xfe\xfa\nx\n"),
        r"rows\.csv: line 2 is not UTF-8",
    ),
    "ragged csv": (
        lambda d: write(d / "rows.csv", "text,source\na,b\nc,d,e,f\n"),
        r"rows\.csv: could not be read \(ParserError.*line 3",
    ),
    "missing column": (
        lambda d: write(d / "rows.csv", "body,source\na,b\n"),
        r"rows\.csv: no column 'text'; it has 'body', 'source'; name the column by text=",
    ),
    "numbers for texts": (
        lambda d: write(d / "rows.jsonl", '{"text": 1}\n{"text": 2}\n'),
        r"rows\.jsonl: column 'text' holds integer, not a text",
    ),
    "unknown kind": (lambda d: write(d / "rows.doc", "x"), r"rows\.doc: unknown kind of file"),
    "one text": (lambda d: write(d / "rows.csv", "text\na\na\n"), "two different texts"),
    "no such file": (lambda d: d / "rows.jsonl", r"rows\.jsonl: no such file"),
    "no match": (lambda d: d / "*.jsonl", r"\*\.jsonl: no file matches"),
    "empty folder": (lambda d: d, "no data file in it"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.filterwarnings("ignore::rbkit.errors.RbkitWarning")
def test_a_fault_gives_one_line_that_names_it_and_leaves_nothing(tmp_path, cache, fault, capfd):
    make, said = FAULTS[fault]
    where = make(tmp_path / "in") if (tmp_path / "in").mkdir() is None else None
    with pytest.raises(InputError, match=said) as caught:
        load_corpus(where, progress=False)
    assert "\n" not in str(caught.value)
    half_written = [p for p in cache.rglob("*") if "incomplete" in p.name and p.is_dir()]
    assert half_written == []
    assert capfd.readouterr().err == ""


def test_a_file_that_cannot_be_read_is_not_left_open(tmp_path):
    write(tmp_path / "c.csv", "text,source\na,b\n")
    write(tmp_path / "d.csv", "text\na\n")
    gc.collect()
    gc.disable()  # it comes when it comes: here never
    try:
        with pytest.raises(InputError):
            load_corpus(f"{tmp_path}/*.csv")
        opened = [file.path for file in psutil.Process().open_files()]
    finally:
        gc.enable()
    assert not [path for path in opened if path.startswith(str(tmp_path))]


def test_the_faulty_file_among_many_is_named(tmp_path):
    write(tmp_path / "a.jsonl", jsonl(ROWS))
    write(tmp_path / "b.jsonl", "{not json}\n")
    with pytest.raises(InputError, match=r"b\.jsonl: line 1 is not valid JSON"):
        load_corpus(f"{tmp_path}/*.jsonl")
    write(tmp_path / "c.csv", "text,source\na,b\n")
    write(tmp_path / "d.csv", "text\na\n")
    with pytest.raises(InputError, match=r"d\.csv: has no column 'source', which c\.csv has"):
        load_corpus(f"{tmp_path}/*.csv")
    with pytest.raises(InputError, match=r"mixes \.csv and \.jsonl"):
        load_corpus([tmp_path / "a.jsonl", tmp_path / "c.csv"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"eval_share": 0.0}, "eval_share: is 0.0"),
        ({"eval_size": 60}, "eval_size: 60 of 60"),
        ({"max_examples": 0}, "max_examples: is 0"),
        ({"text": []}, "text: no column"),
        ({"source": "topic"}, "no column 'topic'.*name the column by source="),
        ({"streaming": True}, "streaming: a corpus is counted and split"),
        ({"trust_remote_code": True}, "no code that comes with data is run"),
    ],
)
def test_bad_parameters_are_named(options, said):
    with pytest.raises(InputError, match=said):
        load_corpus(datasets.Dataset.from_list(ROWS), **options)


@pytest.mark.parametrize("where", ["wikki", "a b c", "../nothing/here"])
def test_what_is_neither_file_nor_hub_id_is_refused_without_asking_the_network(where):
    with pytest.raises(InputError, match="no such file"):
        load_corpus(where)


def test_a_hub_that_cannot_be_reached_gives_one_line(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach the Hub\nand a page more")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(InputError, match=r"owner/name: .*Couldn't reach the Hub\); give a file"):
        load_corpus("owner/name")


def test_a_hub_id_goes_to_load_dataset_and_its_licence_is_kept(monkeypatch):
    asked = {}

    def load_dataset(path, name, **options):
        asked.update(path=path, name=name, **options)
        data = datasets.Dataset.from_list(ROWS)
        data.info.license = "cc-by-sa-3.0"
        return datasets.DatasetDict(train=data)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    corpus = load_corpus("owner/name", config="en", revision="main")
    assert (asked["path"], asked["name"], asked["revision"]) == ("owner/name", "en", "main")
    assert "trust_remote_code" not in asked
    assert about(corpus)["licences"][0]["licence"] == "cc-by-sa-3.0"
    assert about(corpus)["name"] == "owner/name"
    assert "in_memory" not in about(corpus)


def test_the_users_logging_and_bars_are_left_as_they_were(tmp_path):
    before = datasets.utils.logging.get_verbosity()
    with pytest.raises(InputError):
        load_corpus(write(tmp_path / "a.jsonl", "{"))
    assert datasets.utils.logging.get_verbosity() == before
    assert not datasets.utils.are_progress_bars_disabled()


def test_rows_keep_their_order():
    corpus = load_corpus(datasets.Dataset.from_list(ROWS))
    numbers = [int(text.split()[2].rstrip(",")) for text in corpus["train"]["text"]]
    assert np.all(np.diff(numbers) > 0)


class TestHostileFiles:
    """What comes from a stranger is read as data, or refused in one line that names the place."""

    def lines(self, path, *rows):
        path.write_bytes(b"".join(row + b"\n" for row in rows))
        return path

    @pytest.mark.timeout(60)  # it would take until the end of the universe
    @pytest.mark.parametrize("end", ["a" * 500, '\\"' * 500, "\\"])
    def test_a_string_that_does_not_end_takes_no_time(self, tmp_path, end):
        (tmp_path / "a.json").write_text('[{"text": "one"}, {"text": "' + end)
        with pytest.raises(InputError, match=r"a\.json: not valid JSON"):
            load_corpus(tmp_path / "a.json", progress=False)

    def test_json_nested_too_deep_is_refused_before_it_ends_the_process(self, tmp_path):
        deep = b"[" * 100_000 + b"]" * 100_000
        path = self.lines(tmp_path / "a.jsonl", b'{"text": "a"}', b'{"text": ' + deep + b"}")
        with pytest.raises(InputError, match=r"a\.jsonl: line 2 is nested more than 100 deep"):
            load_corpus(path)
        spread = [b'{"text": ', *[b"["] * 50_000, *[b"]"] * 50_000, b"}"]
        with pytest.raises(InputError, match="nested more than 100 deep"):
            load_corpus(self.lines(tmp_path / "b.jsonl", *spread))
        smileys = [b'{"text": "no. %d :[ {{{ %s"}' % (i, b"[" * 200) for i in range(300)]
        facts = about(load_corpus(self.lines(tmp_path / "c.jsonl", *smileys)))
        assert facts["n_train"] + facts["n_eval"] == 300

    @pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt", "a.json"])
    def test_text_that_is_not_utf8_is_refused_with_its_line(self, tmp_path, name):
        path = self.lines(tmp_path / name, b'{"text": "a"}', b'{"text": "caf\xe9"}')
        with pytest.raises(InputError, match=rf"{name}: line 2 is not UTF-8 .*byte 13"):
            load_corpus(path)

    def test_parquet_that_is_not_utf8_is_refused_with_its_row(self, tmp_path):
        raw = pa.array([b"good", b"also good", b"caf\xe9"] * 5, pa.binary())
        text = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
        pq.write_table(pa.table({"text": text}), tmp_path / "a.parquet")
        with pytest.raises(InputError, match=r"a\.parquet: row 2 is not UTF-8"):
            load_corpus(tmp_path / "a.parquet")

    def test_a_value_of_another_type_is_named_with_its_line(self, tmp_path):
        rows = [b'{"text": "a %d"}' % i for i in range(20)]
        path = self.lines(tmp_path / "a.jsonl", *rows, b'{"text": 5}', *rows)
        # Older releases of datasets refuse themselves what newer ones hand over as it is.
        named = "row 20 of column 'text' holds int, not a text|line 21 has a number in 'text'"
        with pytest.raises(InputError, match=named):
            load_corpus(path)

    def test_paths_that_the_system_cannot_take_are_refused(self):
        for bad in ("x" * 5000, "a/" * 5000 + "b.jsonl", "caf\udce9.jsonl", "a\0b.jsonl", "", "  "):
            for where in (bad, [bad], {"train": bad}):
                with pytest.raises(InputError) as error:
                    load_corpus(where)
                str(error.value).encode()
        for bad in (None, 5, b"a.jsonl", [None], {"train": 5}, "~nobody-of-that-name/a.csv"):
            with pytest.raises(InputError):
                load_corpus(bad)

    def test_a_folder_is_its_data_files_whatever_its_readme_says(self, tmp_path):
        folder = tmp_path / "data"
        folder.mkdir()
        secret = self.lines(
            tmp_path / "secret.jsonl", *[b'{"text": "secret %d"}' % i for i in range(9)]
        )
        self.lines(folder / "train.jsonl", *[b'{"text": "open %d"}' % i for i in range(9)])
        self.lines(folder / "test.jsonl", *[b'{"text": "held %d"}' % i for i in range(3)])
        for target in ("../secret.jsonl", str(secret), "http://127.0.0.1:9/a.jsonl"):
            (folder / "README.md").write_text(
                f"---\nconfigs:\n- config_name: default\n  data_files: {target}\n---\n"
            )
            corpus = load_corpus(folder)
            assert all("open" in text for text in corpus["train"]["text"])
            assert all("held" in text for text in corpus["eval"]["text"])
        (folder / "more.jsonl").symlink_to(secret)
        with pytest.raises(InputError, match="leaves the folder"):
            load_corpus(folder)

    def test_a_saved_data_set_reads_no_file_outside_its_folder(self, tmp_path):
        Dataset.from_dict({"text": [f"secret {i}" for i in range(9)]}).save_to_disk(tmp_path / "b")
        mine = tmp_path / "a"
        Dataset.from_dict({"text": [f"open {i}" for i in range(9)]}).save_to_disk(mine)
        state = json.loads((mine / "state.json").read_text())
        state["_data_files"] = [{"filename": "../b/data-00000-of-00001.arrow"}]
        (mine / "state.json").write_text(json.dumps(state))
        with pytest.raises(InputError, match="leaves the folder"):
            load_corpus(mine)

    def test_a_link_to_itself_is_followed_no_further_and_each_file_read_once(self, tmp_path):
        tmp_path = tmp_path / "data"
        tmp_path.mkdir()
        for name in ("one", "two"):
            (tmp_path / name).symlink_to(tmp_path)
        (tmp_path / "sub").mkdir()
        self.lines(tmp_path / "a.jsonl", *[b'{"text": "a %d"}' % i for i in range(9)])
        self.lines(tmp_path / "sub" / "b.jsonl", *[b'{"text": "b %d"}' % i for i in range(9)])
        for where in (tmp_path / "**" / "*.jsonl", tmp_path, tmp_path / "**"):
            facts = about(load_corpus(where))
            assert facts["n_train"] + facts["n_eval"] == 18

    def test_pipes_and_devices_are_not_opened(self, tmp_path):
        os.mkfifo(tmp_path / "a.jsonl")
        for where in (tmp_path / "a.jsonl", [tmp_path / "a.jsonl"], "/dev/zero"):
            with pytest.raises(InputError, match="not a regular file"):
                load_corpus(where)
        for where in (tmp_path, tmp_path / "*.jsonl"):
            with pytest.raises(InputError, match=r"no data file|no file matches"):
                load_corpus(where)

    def test_an_option_that_cannot_be_obeyed_is_refused(self, tmp_path):
        path = self.lines(tmp_path / "a.jsonl", *[b'{"text": "a %d"}' % i for i in range(9)])
        for bad in ({"config": "x"}, {"split": "test"}, {"data_files": "b.jsonl"}, {"seed": "1"},
                    {"seed": 1.5}, {"eval_size": True}, {"max_examples": "5"}):  # fmt: skip
            with pytest.raises(InputError, match=next(iter(bad))):
                load_corpus(path, **bad)
        with pytest.raises(InputError, match="sep"):
            load_corpus(Dataset.from_dict({"text": ["a", "b"]}), sep=";")
        assert about(load_corpus(path, split="train", eval_size=2.0))["n_eval"] == 2


TEXTS = [f"note {i} about sailing knots" for i in range(30)]
NOTES = [{"text": text, "source": "ab"[i % 2]} for i, text in enumerate(TEXTS)]


def contents(corpus):
    return {name: corpus[name][:] for name in corpus}


@pytest.mark.parametrize(
    "given",
    [
        TEXTS,
        tuple(TEXTS),
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        pd.Series(TEXTS, index=range(5, 35)),
        pd.Series(TEXTS, dtype="category"),
        pd.Index(TEXTS),
        pa.array(TEXTS),
        pa.chunked_array([TEXTS[:20], TEXTS[20:]]),
        dict.fromkeys(TEXTS).keys(),
    ],
    ids=lambda given: type(given).__name__,
)
def test_texts_in_hand_are_a_corpus(given):
    expected = load_corpus(Dataset.from_dict({"text": TEXTS}), eval_size=4)
    corpus = load_corpus(given, eval_size=4)
    assert contents(corpus) == contents(expected)
    assert about(corpus)["name"].startswith(f"{type(given).__name__} of 30 ")
    assert about(corpus)["in_memory"] is True


def frame_of(rows):
    return pd.DataFrame(rows, index=range(7, 7 + len(rows)))


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        frame_of,
        lambda rows: frame_of(rows).astype({"source": "category"}),
        lambda rows: {name: [row[name] for row in rows] for name in rows[0]},
        lambda rows: {name: np.array([row[name] for row in rows]) for name in rows[0]},
        pa.Table.from_pylist,
        pa.RecordBatch.from_pylist,
        lambda rows: pa.Table.from_pandas(frame_of(rows).astype("category")),
        lambda rows: pa.Table.from_pylist(rows).to_reader(),
        iter,
        lambda rows: (dict(row) for row in rows),
        lambda rows: Dataset.from_list(rows).to_iterable_dataset(),
        lambda rows: datasets.DatasetDict(train=Dataset.from_list(rows)),
    ],
)
def test_rows_in_hand_are_a_corpus_with_the_same_options(make):
    expected = load_corpus(Dataset.from_list(NOTES), eval_size=4)
    assert contents(load_corpus(make(NOTES), eval_size=4)) == contents(expected)
    swapped = load_corpus(make(NOTES), text=["source", "text"], source="text", max_examples=9)
    assert swapped["train"].num_rows == 9
    assert swapped["train"][0]["text"] == f"{NOTES[0]['source']}\n\n{swapped['train'][0]['source']}"
    with pytest.raises(InputError, match=r"no column 'topic'; it has 'text', 'source'"):
        load_corpus(make(NOTES), source="topic")
    with pytest.raises(InputError, match="sep: is an option for reading files"):
        load_corpus(make(NOTES), sep=";")
    with pytest.raises(InputError, match="config: only data sets of the hub"):
        load_corpus(make(NOTES), config="en")


@pytest.mark.parametrize("name", ["eval", "validation", "test"])
@pytest.mark.parametrize(
    "make",
    [
        Dataset.from_list,
        lambda rows: Dataset.from_list(rows).to_iterable_dataset(),
        pd.DataFrame,
        lambda rows: rows,
        lambda rows: [row["text"] for row in rows],
    ],
)
def test_splits_in_hand_are_kept(make, name):
    corpus = load_corpus({"train": make(NOTES[:20]), name: make(NOTES[20:])})
    assert corpus["train"]["text"][:] == TEXTS[:20]
    assert corpus["eval"]["text"][:] == TEXTS[20:]
    one = load_corpus({"train": make(NOTES[:20]), name: make(NOTES[20:])}, split=name)
    assert sorted(rows_of(one)) == sorted(TEXTS[20:])


def test_a_stream_longer_than_a_chunk_is_read_whole(monkeypatch):
    monkeypatch.setattr("rbkit.data.memory._CHUNK", 7)
    # the first chunk lacks what the later ones have
    rows = [{"text": text} if i < 9 else {**NOTES[i], "n": i} for i, text in enumerate(TEXTS)]
    corpus = load_corpus(iter(rows), eval_size=4)
    assert rows_of(corpus) == sorted(TEXTS)
    assert set(corpus["train"]["source"]) == {"a", "b", "unknown"}
    labels = datasets.Features(
        {"text": datasets.Value("string"), "source": datasets.ClassLabel(names=["x", "y"])}
    )
    table = {"text": TEXTS, "source": [0, 1] * 15}
    streamed = Dataset.from_dict(table, features=labels).to_iterable_dataset()
    assert set(load_corpus(streamed)["train"]["source"]) == {"x", "y"}


def test_missing_texts_in_hand_are_left_out():
    texts = [*TEXTS, None, float("nan"), "  "]
    rows = [{"text": text} for text in texts]
    lacking = [*NOTES, *[{"source": "a"}] * 3]
    for given in (texts, pd.Series(texts), pd.DataFrame(rows), {"text": texts}, rows, lacking):
        with pytest.warns(RbkitWarning, match="3 of 33 rows have no text"):
            assert rows_of(load_corpus(given)) == sorted(TEXTS)


def test_strings_in_a_list_are_files_or_texts_and_never_both(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a b.jsonl", jsonl(ROWS[:30]))
    write(tmp_path / "deep" / "part1.jsonl", jsonl(ROWS[30:]))
    everything = sorted(row["text"] for row in ROWS)
    for files in (["a b.jsonl", "deep/part1.jsonl"], ("a b.jsonl", "deep/*"),
                  ["*.jsonl", "deep/part?.jsonl"], iter(["a b.jsonl", "deep/part1.jsonl"]),
                  tmp_path.rglob("*.jsonl")):  # fmt: skip
        assert rows_of(load_corpus(files)) == everything
    with pytest.raises(InputError, match=r"c\.jsonl: no such file"):
        load_corpus(["a b.jsonl", "c.jsonl"])
    words = [
        "[deleted]",
        "why?",
        "and/or",
        "...",
        "",
        "**",
        "a.b",
        "x" * 5000,
        "What is a.csv for?",
    ]
    with pytest.warns(RbkitWarning, match="1 of 9 rows have no text"):
        assert rows_of(load_corpus(words)) == sorted(filter(None, words))
    with pytest.raises(InputError) as caught:
        load_corpus([*TEXTS, "a b.jsonl"])
    assert str(caught.value) == (
        "list of 31 strings: a b.jsonl looks like a file and note 0 about sailing knots does not; "
        'give texts as a column, {"text": [...]}, and files as Path objects'
    )
    assert rows_of(load_corpus({"text": [*TEXTS, "a b.jsonl"]})) == sorted([*TEXTS, "a b.jsonl"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["a", 5, "b"], "list of 3 texts: row 1 of column 'text' holds int, not a text"),
        (pd.Series(["a", 5, "b"]), "Series of 3 texts: row 1 of column 'text' holds int, not a"),
        (pd.DataFrame({"text": ["a", 5]}), "DataFrame of 2 rows: row 1 of column 'text' holds int"),
        (np.array([[1, 2], [3, 4]]), r"ndarray: is an array of shape \(2, 2\)"),
        (np.arange(3), "ndarray of 3 texts: column 'text' holds integer, not a text"),
        (pd.DataFrame([["a", "b"]], columns=["x", "x"]), "DataFrame: has two columns 'x'"),
        ({"text": TEXTS, "source": ["a"]}, "dict: 30 values in 'text', 1 in 'source'"),
        ([{"text": "a"}, "b"], "list: item 1 is str, not a dict as others are"),
        (iter([{"text": "a"}, 5]), "list_iterator: item 1 is int, not a dict as others are"),
        (iter([]), "list_iterator: gives no rows"),
        ([], "where: is an empty list"),
        ({"train": NOTES, "eval": "a.jsonl"}, "dict: 'train' is rows in memory, 'eval' is not"),
        ([None, 5], "where: None is not a place to load from"),
        ([["a"], ["b"]], r"where: \['a'\] is not a place to load from; give texts, rows, a path"),
        (5, "where: 5 is not a place to load from"),
        (
            {"n": [1, 2], "text": ["x", "half \ud800"], "odd": [1, "half \ud800"]},
            "dict, column 'text': could not be read .*, row 1; make it of one type",
        ),
        (["same", "same"], "needs at least two different texts"),
        (["", " "], "list of 2 texts: no example with a text in it"),
        (["a\ud800", "b"], "list: could not be read"),
    ],
)
def test_an_error_about_what_is_in_hand_names_it(given, said):
    with pytest.raises(InputError, match=said):
        load_corpus(given)


# --- which columns -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Text", " text", "TEXT ", "te_xt", "\ufefftext"])
def test_a_column_that_differs_by_case_or_blanks_is_proposed(name):
    frame = pd.DataFrame({name: TEXTS, "n": range(30)})
    with pytest.raises(InputError) as caught:
        load_corpus(frame)
    meant = repr(name)
    assert f"no column 'text'; it has {meant}, 'n'; did you mean {meant}? name" in str(caught.value)
    for option in ({"text": "N"}, {"text": "x", "source": "n"}, {"source": " N", "text": name}):
        said = "did you mean" if "x" not in option.values() else "it has"
        with pytest.raises(InputError, match=said):
            load_corpus(frame, **option)
    with pytest.raises(InputError, match=r"did you mean 'doc\.body'\? name the column by text="):
        load_corpus([{"doc": {"body": text}} for text in TEXTS], text="Body")


def test_the_first_row_is_shown_where_a_column_is_missing(tmp_path):
    path = write(tmp_path / "a.csv", "titel;inhalt\nKnoten;" + "lang " * 99 + "\nB;c\n")
    with pytest.raises(InputError) as caught:
        load_corpus(path)
    assert "no column 'text'; it has 'titel;inhalt'; give sep=';', or name" in str(caught.value)
    assert "(first row: titel;inhalt = Knoten;lang lang" in str(caught.value)
    assert len(str(caught.value)) < 250
    corpus = load_corpus(path, sep=";", text="inhalt", source="titel")
    assert set(rows_of(corpus)) == {"c", "lang " * 99}
    row = {"a": "\x1b[31mred\n\u202e<b>", "b": b"\x00" * 5000, "c": {"d": ["x", None]}, "e": None}
    with pytest.raises(InputError) as caught:
        load_corpus([row, row])
    assert str(caught.value).endswith(
        "(first row: a = red <b>, b = 5,000 bytes, c = d: x, none, e = none)"
    )
    wide = {f"column {i}": "word " * 1000 for i in range(500)}
    with pytest.raises(InputError, match="and 470 more; name") as caught:
        load_corpus([wide, wide])
    assert len(str(caught.value)) < 1300


def test_another_encoding_is_read_when_it_is_given(tmp_path):
    path = write(tmp_path / "a.csv", "text\ncaf\xe9\nna\xefve\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"line 2 is not UTF-8 .* or give its encoding="):
        load_corpus(path)
    assert rows_of(load_corpus(path, encoding="latin-1")) == ["caf\xe9", "na\xefve"]


def nested(i):
    return {"doc": {"body": TEXTS[i], "meta": {"topic": "ab"[i % 2]}}, "a.b": f"dotted {i}"}


@pytest.mark.parametrize("make", [list, pd.DataFrame, iter, Dataset.from_list, jsonl])
def test_text_and_source_may_be_fields_of_columns(make, tmp_path):
    given = make([nested(i) for i in range(30)])
    given = write(tmp_path / "a.jsonl", given) if isinstance(given, str) else given
    options = {"text": ("doc.body", "a.b"), "source": "doc.meta.topic", "keep": ()}
    corpus = load_corpus(given, **options, eval_size=4)
    expected = load_corpus([{"text": f"{t}\n\ndotted {i}", "source": "ab"[i % 2]}
                            for i, t in enumerate(TEXTS)], eval_size=4)  # fmt: skip
    assert contents(corpus) == contents(expected)


def test_a_row_without_the_field_has_no_text():
    rows = [*[{"doc": {"body": text}} for text in TEXTS], {"doc": None}, {"doc": {"body": None}}]
    with pytest.warns(RbkitWarning, match="2 of 32 rows have no text"):
        assert rows_of(load_corpus(rows, text="doc.body")) == sorted(TEXTS)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"text": "doc"}, "column 'doc' holds fields 'body', 'meta', not a text; name one, as in "
                          "text='doc.body'"),
        ({"text": "doc.meta.none"}, r"no column 'doc\.meta\.none'; it has 'doc', 'a\.b'"),
        ({"text": 5}, "text: 5 is not a column's name"),
        ({"text": "a.b", "source": ["doc"]}, r"source: \['doc'\] is not a column's name"),
        ({"messages": "a.b"}, r"column 'a\.b' holds string, not a chat"),
        ({"messages": "c"}, "no column 'c'.*name the column by messages="),
        ({"messages": "c", "text": "a.b"}, "messages: is given beside text"),
        ({"text": lambda row: row["none"]}, "no text can be made of row 0 \\(KeyError: 'none'\\)"),
        ({"text": lambda row: 5}, "of row 0 .TypeError: it gives int, not a text"),
        ({"text": lambda row: "half \ud800"}, "no text can be made of row 0 .UnicodeEncodeError"),
    ],
)  # fmt: skip
def test_columns_that_cannot_be_read_are_named(options, said):
    with pytest.raises(InputError, match=said):
        load_corpus([nested(i) for i in range(30)], **options)


def test_a_function_of_the_row_may_make_the_text(tmp_path):
    rows = [{**note, "n": i, "tags": ["x", {"y": i}]} for i, note in enumerate(NOTES)]
    path = write(tmp_path / "a.jsonl", jsonl([{**row, "tags": ["x"]} for row in rows]))
    for given in (rows, path, Dataset.from_list([{**row, "tags": [1]} for row in rows])):
        for times in (1, 2):  # another function is not taken for the one before

            def make(row, times=times):
                assert list(row) == ["text", "source", "n", "tags"]
                return row["text"] * times if row["n"] else None

            with pytest.warns(RbkitWarning, match="1 of 30 rows have no text"):
                corpus = load_corpus(given, text=make)
            assert rows_of(corpus) == sorted(text * times for text in TEXTS[1:])
            assert set(corpus["train"]["source"]) == {"a", "b"}
    # not even a function that cannot be hashed
    lock = threading.Lock()
    assert rows_of(load_corpus(path, text=lambda row: row["text"] + str(lock)[:0])) == sorted(TEXTS)


SAID = "User: Why 3?\n\nAssistant: Because of 3."
CHAT = [("user", "Why {}?"), ("assistant", "Because of {}.")]
SHAPES = {
    "Dolly": (
        lambda i: {"instruction": f"Do {i}.", "context": "" if i % 2 else "Here.",
                   "response": f"Done {i}.", "category": "qa" if i % 3 else "brainstorming"},
        "Do 3.\n\nDone 3.", {"qa", "brainstorming"},
        {"text": ["instruction", "context", "response"], "source": "category"},
        r"text=\('instruction', 'context', 'response'\), source='category'",
    ),
    "Alpaca": (
        lambda i: {"instruction": f"Do {i}.", "input": "", "output": f"Done {i}."},
        "Do 3.\n\nDone 3.", {"unknown"}, {"text": ["instruction", "input", "output"]},
        r"text=\('instruction', 'input', 'output'\)",
    ),
    "prompts and completions": (
        lambda i: {"prompt": f"Do {i}.", "completion": f"Done {i}.", "source": "x"},
        "Do 3.\n\nDone 3.", {"x"}, {"text": ["prompt", "completion"]}, "text=",
    ),
    "questions and answers": (
        lambda i: {"question": f"Do {i}.", "answer": f"Done {i}."},
        "Do 3.\n\nDone 3.", {"unknown"}, {"text": ["question", "answer"]}, "text=",
    ),
    "OpenAI's chats": (
        lambda i: {"messages": [{"role": r, "content": c.format(i)} for r, c in CHAT]},
        SAID, {"unknown"}, {"messages": "messages"}, "messages='messages'",
    ),
    "Super-NaturalInstructions": (
        lambda i: {"task_name": f"task{i % 2}", "id": f"x-{i}", "definition": "Do it.",
                   "inputs": f"Do {i}.", "targets": f"Done {i}."},
        "Do it.\n\nDo 3.\n\nDone 3.", {"task0", "task1"},
        {"text": ["definition", "inputs", "targets"], "source": "task_name"},
        "source='task_name'",
    ),
    "S1": (
        lambda i: {"solution": "7", "question": f"Do {i}.", "cot_type": "math", "cot": None,
                   "source_type": f"of {i % 2}", "metadata": "{}", "attempt": f"Done {i}.",
                   "thinking_trajectories": [f"First {i}.", "Then."]},
        "Do 3.\n\nFirst 3.\n\nThen.\n\nDone 3.", {"of 0", "of 1"},
        {"text": ["question", "thinking_trajectories", "attempt"], "source": "source_type"},
        r"text=\('question', 'thinking_trajectories', 'attempt'\), source='source_type'",
    ),
    "ShareGPT": (
        lambda i: {"id": str(i), "conversations": [
            {"from": {"user": "human", "assistant": "gpt"}[r], "value": c.format(i)}
            for r, c in CHAT]},
        SAID, {"unknown"}, {"messages": "conversations"}, "messages='conversations'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["json", "jsonl", "parquet", "frame"])
def test_usual_shapes_are_recognised_and_said(tmp_path, shape, kind):
    row, text, sources, options, said = SHAPES[shape]
    rows = [row(i) for i in range(30)]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), given := tmp_path / "a.parquet")
    elif kind == "frame":
        given = pd.DataFrame(rows)
    else:
        given = write(tmp_path / f"a.{kind}", jsonl(rows) if kind == "jsonl" else json.dumps(rows))
    with pytest.warns(RbkitWarning, match=f"no column 'text', but those of {shape}: .*{said}"):
        corpus = load_corpus(given, eval_size=4)
    assert text in rows_of(corpus)
    assert set(corpus["train"]["source"]) == sources
    assert contents(load_corpus(given, eval_size=4, **options)) == contents(corpus)
    for data in corpus.values():
        for at, example in enumerate(data):
            if "messages" in options:
                assert [turn["role"] for turn in example["prompt"]] == ["user"]
                assert example["completion"] == [
                    {"role": "assistant", "content": f"Because of {example['original_row']}."}
                ]
            elif shape != "prompts and completions":  # which has its own
                assert example["prompt"] + example["completion"] == data[at]["text"]
                assert example["completion"].endswith(f"Done {example['original_row']}.")
    without = load_corpus(given, eval_size=4, keep=(), **options)
    assert without["train"].column_names == ["text", "source", "original_row"]
    with_pairs = load_corpus(given, eval_size=4, keep=["completion"], **options)
    assert with_pairs["train"].column_names == [*without["train"].column_names, "completion"]


def task(number, *, definition=True):
    said = f"Do number {number}."
    return {
        "Contributors": ["A B"], "Source": ["x", "y"], "URL": ["http"],
        "Categories": ["Question Generation"], "Domains": ["News", f"Wiki {number % 2}"],
        **({"Definition": [said] if number % 2 else said} if definition else {}),
        "Input_language": ["English"],
        "Positive Examples": [{"input": "p", "output": "q", "explanation": "so"}] * 3,
        "Negative Examples": [],
        "Instances": [
            {"id": f"task{number}-{i}", "input": f"Input {number} {i}", "output": [f"Out {i}", "o"]}
            for i in range(9)
        ],
    }  # fmt: skip


def tasks(root, numbers=(1, 2, 3)):
    for number in numbers:  # a name of which `datasets` would make an eval split
        write(root / f"task{number:03}_test_evaluation.json", json.dumps(task(number), indent=1))
    return root


def test_task_files_of_natural_instructions_are_read_as_instances(tmp_path):
    folder = tasks(tmp_path / "tasks")
    write(folder / "README.md", "about the tasks")
    for given in (folder, str(folder / "*.json"), sorted(folder.glob("*.json"))):
        with pytest.warns(RbkitWarning, match="those of Super-NaturalInstructions: .*'task'"):
            corpus = load_corpus(given, eval_size=4)
        assert sum(map(len, corpus.values())) == 27
    assert set(corpus["train"]["source"]) == {f"task00{i}_test_evaluation" for i in (1, 2, 3)}
    row = next(row for data in corpus.values() for row in data if row["id"] == "task2-5")
    assert row["text"] == "Do number 2.\n\nInput 2 5\n\nOut 5"
    assert (row["prompt"], row["completion"]) == ("Do number 2.\n\nInput 2 5\n\n", "Out 5")
    assert row["outputs"] == ["Out 5", "o"]
    assert row["Domains"] == "News, Wiki 0"
    options = {"source": "Domains", "positive_examples": 1}
    with pytest.warns(RbkitWarning, match="Natural"):
        corpus = load_corpus(folder, eval_size=4, **options)
    assert set(corpus["train"]["source"]) == {"News, Wiki 0", "News, Wiki 1"}
    assert "\n\nInput: p\nOutput: q\n\nInput 2 5\n\nOut 5" in "".join(corpus["train"]["text"])
    own = {split: tasks(tmp_path / split, n) for split, n in (("train", (1, 2)), ("test", (7,)))}
    own = {split: sorted(root.glob("*.json")) for split, root in own.items()}
    for given in (own, tmp_path):
        if given is tmp_path:
            shutil.rmtree(folder)
        with pytest.warns(RbkitWarning, match="Natural"):
            corpus = load_corpus(given)
        assert set(corpus["eval"]["source"]) == {"task007_test_evaluation"}


def test_task_files_that_cannot_be_read_are_named(tmp_path):
    folder = tasks(tmp_path / "tasks")
    with pytest.raises(InputError, match="sep: is not an option for tasks; they take positive"):
        load_corpus(folder, sep=";")
    with pytest.raises(InputError, match="positive_examples: -1"):
        load_corpus(folder, positive_examples=-1)
    write(folder / "task004.json", json.dumps(task(4, definition=False)))
    with pytest.raises(InputError, match=r"task004\.json: is not a task file, as others are"):
        load_corpus(folder)
    bad = task(4)
    del bad["Instances"][3]["output"]
    write(folder / "task004.json", json.dumps(bad))
    with pytest.raises(InputError, match=r"task004\.json: .*lacks .*KeyError: 'output'"):
        load_corpus(folder)


def test_a_prompt_of_the_datas_own_is_left_as_it_is():
    rows = [{**SHAPES["Dolly"][0](i), "prompt": "mine"} for i in range(30)]
    with pytest.warns(RbkitWarning, match="Dolly") as told:
        corpus = load_corpus(rows, eval_size=4)
    assert "has a column 'prompt' of its own: none are made of Dolly" in str(told[-1].message)
    assert set(corpus["train"]["prompt"]) == {"mine"}
    assert "completion" not in corpus["train"].column_names


def test_a_chat_is_written_so_that_it_can_be_read():
    picture = {"type": "image_url", "image_url": {"url": "x"}, "text": None}
    chats = [
        [{"role": "system", "content": " Be kind. "}, {"role": "user", "content": "Hi"}],
        [{"role": "user", "content": [{"type": "text", "text": "Look"}, picture]},
         {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]},
         {"role": "tool", "content": "7"}],
        [], None,
    ]  # fmt: skip
    expected = ["System: Be kind.\n\nUser: Hi", "User: Look\n\nTool: 7"]
    with pytest.warns(RbkitWarning, match="2 of 4 rows have no text"):
        corpus = load_corpus([{"data": {"chat": chat}} for chat in chats], messages="data.chat")
    assert rows_of(corpus) == expected
    # turns as a dict of lists, which is how older releases of datasets keep them
    turns = [{"from": ["human", "gpt"], "value": [f"Why {i}?", "So."]} for i in range(9)]
    corpus = load_corpus({"chat": turns}, messages="chat")
    assert "User: Why 3?\n\nAssistant: So." in rows_of(corpus)
    with pytest.raises(InputError, match="column 'chat' holds dict, not a text; give messages="):
        load_corpus({"chat": turns}, text="chat")
    with pytest.raises(InputError, match="column 'messages' holds List, not a text; give messages"):
        load_corpus([SHAPES["OpenAI's chats"][0](i) for i in range(9)], text="messages")


# --- folders of documents ----------------------------------------------------------------------


def documents(root):
    for i, text in enumerate(TEXTS):
        name = f"{['sport', 'sea/north'][i % 2]}/test {i}.{['txt', 'md'][i % 3 == 0]}"
        write(root / name, f"# {text}\r\n\r\nSecond paragraph.\r\n")
    write(root / "README.md", "about this folder")
    return root


DOCUMENTS = sorted(f"# {text}\n\nSecond paragraph.\n" for text in TEXTS)


def test_in_a_folder_of_documents_each_file_is_one_example_and_subfolders_are_sources(tmp_path):
    folder = documents(tmp_path / "notes")
    with pytest.warns(RbkitWarning, match="each of its 30 text files is one example .sample_by="):
        corpus = load_corpus(folder, eval_size=4)
    assert rows_of(corpus) == DOCUMENTS
    sources = {row["text"]: row["source"] for split in corpus.values() for row in split}
    assert sources == {f"# {text}\n\nSecond paragraph.\n": ["sport", "sea"][i % 2]
                       for i, text in enumerate(TEXTS)}  # fmt: skip
    assert about(corpus)["name"] == "notes"
    asked = load_corpus(folder, sample_by="document", eval_size=4)
    assert contents(asked) == contents(corpus)
    everywhere = load_corpus(f"{folder}/*/**", sample_by="document", eval_size=4)
    assert contents(everywhere) == contents(corpus)
    with pytest.warns(RbkitWarning, match="30 of 90 rows have no text"):
        lines = load_corpus(folder, sample_by="line")
    assert "Second paragraph." in rows_of(lines)
    named = load_corpus(folder, sample_by="document", text=["file", "text"])
    assert rows_of(named)[0].startswith("sea/north/test 1.txt\n\n# note 1 ")


def test_documents_in_folders_of_splits_keep_these(tmp_path):
    for split, rows in (("train", range(20)), ("test", range(20, 30))):
        for i in rows:
            write(tmp_path / split / "ab"[i % 2] / f"{i}.txt", TEXTS[i])
    corpus = load_corpus(tmp_path, sample_by="document")
    assert sorted(corpus["train"]["text"]) == sorted(TEXTS[:20])
    assert sorted(corpus["eval"]["text"]) == sorted(TEXTS[20:])
    assert set(corpus["train"]["source"]) == set(corpus["eval"]["source"]) == {"a", "b"}


def test_text_files_named_as_splits_or_given_as_files_are_read_by_line(tmp_path):
    write(tmp_path / "train.txt", "\n".join(TEXTS[:20]))
    write(tmp_path / "valid.txt", "\n".join(TEXTS[20:]))
    corpus = load_corpus(tmp_path)
    assert (corpus["train"].num_rows, corpus["eval"].num_rows) == (20, 10)
    assert rows_of(load_corpus(tmp_path / "train.txt")) == sorted(TEXTS[:20])
    both = load_corpus([tmp_path / "train.txt", tmp_path / "valid.txt"])
    assert rows_of(both) == sorted(TEXTS)


def test_documents_beside_data_are_about_them(tmp_path):
    write(tmp_path / "a.jsonl", jsonl(ROWS))
    for name in ("LICENSE.txt", "notes.md", "more.md"):
        write(tmp_path / name, "a licence")
    assert len(rows_of(load_corpus(tmp_path))) == 60


def test_a_document_that_cannot_be_read_is_named(tmp_path):
    documents(tmp_path)
    bad = write(tmp_path / "sport" / "bad.txt", b"one\ncaf\xe9\n")
    for options in ({"sample_by": "document"}, {"sample_by": "document", "encoding": "ascii"}):
        with pytest.raises(InputError, match=r"bad\.txt: (line 2 is not UTF-8|could not be read)"):
            load_corpus(tmp_path, **options)
    texts = rows_of(load_corpus(tmp_path, sample_by="document", encoding="latin-1"))
    assert "one\ncaf\xe9\n" in texts
    bad.write_bytes(b"")
    with pytest.warns(RbkitWarning, match="1 of 31 rows have no text"):
        load_corpus(tmp_path, sample_by="document")
    with pytest.raises(InputError, match="sep: is not an option for documents; they take"):
        load_corpus(tmp_path, sample_by="document", sep=";")


# --- back to the rows as given -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["frame", "shuffled", "jsonl", "function", "joined", "label"])
def test_every_example_knows_its_original_row_and_id(tmp_path, kind):
    rows = [{"text": text, "source": "ab"[i % 2], "key": f"k{i}", "n": 1000 + i}
            for i, text in enumerate(TEXTS)]  # fmt: skip
    rows[3]["text"], rows[7]["text"] = "", None
    given, options = pd.DataFrame(rows, index=range(5, 35)), {"id": "n"}
    if kind == "shuffled":
        order = np.random.default_rng(0).permutation(30)
        given, rows = Dataset.from_list(rows).select(order), [rows[at] for at in order]
    elif kind == "jsonl":
        given, options = write(tmp_path / "a.jsonl", jsonl(rows)), {"id": "key"}
    elif kind == "function":
        options = {"text": lambda row: row["text"], "id": "key"}
    elif kind == "joined":
        given = write(tmp_path / "a.jsonl", jsonl([{"of": row} for row in rows]))
        options = {"text": ["of.text"], "source": "of.source", "id": "of.n"}
    elif kind == "label":
        options = {"source": "n", "keep": ["key"]}
    for more in ({"eval_size": 4}, {"max_examples": 10}, {"eval_sources": {"a": 1}}):
        if kind == "label" and "eval_sources" in more:
            continue
        with pytest.warns(RbkitWarning, match="2 of 30 rows have no text"):
            corpus = load_corpus(given, **options, **more)
        assert ("id" in corpus["train"].column_names) == ("id" in options)
        for split in corpus.values():
            for row in split:
                origin = rows[row["original_row"]]
                assert row["text"] == origin["text"]
                if "id" in options:
                    assert row["id"] == origin[options["id"].removeprefix("of.")]
        saved = tmp_path / f"saved {next(iter(more))}"
        corpus.save_to_disk(str(saved))
        assert contents(datasets.load_from_disk(str(saved))) == contents(corpus)
        assert about(datasets.load_from_disk(str(saved)))["n_train"] == about(corpus)["n_train"]


def test_ids_that_are_asked_for_later_are_not_missed_in_the_cache(tmp_path):
    rows = [{"a": text, "b": "more", "n": i} for i, text in enumerate(TEXTS)]
    path = write(tmp_path / "a.jsonl", jsonl(rows))
    load_corpus(path, text=["a", "b"])
    corpus = load_corpus(path, text=["a", "b"], id="n")
    assert corpus["train"]["id"][:] == corpus["train"]["original_row"][:]
    own = datasets.DatasetDict(
        train=Dataset.from_list(rows[:20]), test=Dataset.from_list(rows[20:])
    )
    corpus = load_corpus(own, text="a", id="n")
    assert corpus["eval"]["original_row"][:] == list(range(10))
    assert corpus["eval"]["id"][:] == list(range(20, 30))
    with pytest.raises(InputError, match=r"no column 'key'.*name the column by id="):
        load_corpus(own, text="a", id="key")
    with pytest.raises(InputError, match="column 'l' holds List, not an id; choose"):
        load_corpus([{"text": text, "l": [1]} for text in TEXTS], id="l")


def further(i):
    picture = {"bytes": b"\x89PNG", "path": f"{i}.png"}
    return {"text": TEXTS[i], "n": i, "messages": [{"role": "user", "content": str(i)}],
            "picture": picture, "meta": {"tags": ["x"] * (i % 3)}}  # fmt: skip


@pytest.mark.parametrize("made", [False, True], ids=["as it is", "made"])
@pytest.mark.parametrize("kind", ["list", "frame", "parquet", "stream", "hub"])
def test_no_column_is_lost(tmp_path, monkeypatch, kind, made):
    rows = [further(i) for i in range(30)]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), given := tmp_path / "a.parquet")
    elif kind == "hub":
        hub = datasets.DatasetDict(train=Dataset.from_list(rows))
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: hub)
        given = "owner/name"
    else:
        given = {"list": list, "frame": pd.DataFrame, "stream": iter}[kind](rows)
    options = {"text": lambda row: row["text"].upper()} if made else {}
    corpus = load_corpus(given, eval_size=4, **options)
    saved = str(tmp_path / "saved")
    corpus.save_to_disk(saved)
    for data in (corpus, datasets.load_from_disk(saved)):
        for row in (row for split in data.values() for row in split):
            given_row = rows[row["original_row"]]
            assert {n: row[n] for n in given_row if n != "text"} == {
                n: given_row[n] for n in given_row if n != "text"
            }
            assert row["text"] == (given_row["text"].upper() if made else given_row["text"])
            assert row.get("given_text", given_row["text"]) == given_row["text"]
    if kind == "parquet":  # an iterator is read once
        assert load_corpus(given, eval_size=4, keep=(), **options)["eval"].column_names == [
            "text", "source", "original_row"
        ]  # fmt: skip


def test_columns_with_the_names_of_a_corpuss_own_are_renamed_and_told():
    rows = [{"body": f"b {i}", "text": f"t {i}", "topic": "x", "source": f"s {i}",
             "original_row": -i, "id": i, "key": f"k{i}", "given_id": 0, "labels": [i],
             "input_ids": [i]} for i in range(30)]  # fmt: skip
    with pytest.warns(RbkitWarning) as told:
        corpus = load_corpus(rows, text="body", source="topic", id="key", eval_size=4)
    said = [str(each.message) for each in told]
    assert len(said) == 4
    assert any("'original_row' is kept as 'given_original_row', for a" in each for each in said)
    for row in corpus["train"]:
        i = row["original_row"]
        own = {"text": f"b {i}", "source": "x", "original_row": i, "id": f"k{i}", "labels": [i]}
        given = {"given_text": f"t {i}", "given_source": f"s {i}", "given_original_row": -i,
                 "given_id": 0, "given_given_id": i, "input_ids": [i]}  # fmt: skip
        assert {**row, **own, **given} == row
    # a corpus that is loaded again knows the rows of the data that it was made from
    again = load_corpus(corpus)
    assert again["train"]["original_row"][:] == corpus["train"]["original_row"][:]


ODD = {
    "numbers and texts": (5, "five"),
    "lists": ([1], {"a": 1}),
    "half": (5, "half \ud800"),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("kind", ["list", "frame", "columns", "stream", "jsonl", "json"])
def test_an_idle_column_of_several_types_fails_no_load(tmp_path, monkeypatch, kind, odd):
    monkeypatch.setattr("rbkit.data.memory._CHUNK", 12)  # those of files are of 10 MB
    one, other = ODD[odd]
    rows = [{"text": text, "odd": other if i == 20 else one} for i, text in enumerate(TEXTS)]
    if "json" in kind:
        if odd == "half":  # Arrow's reader of JSON takes it for another character
            return
        whole = datasets.load_dataset
        monkeypatch.setattr(  # as if the rows were far apart
            datasets, "load_dataset", lambda *a, **k: whole(*a, **k).cast_column("odd", None)
        )
        text = jsonl(rows) if kind == "jsonl" else json.dumps(rows)
        given = write(tmp_path / f"a.{kind}", text)
    elif kind == "columns":
        given = {name: [row[name] for row in rows] for name in rows[0]}
    else:
        given = {"list": list, "frame": pd.DataFrame, "stream": iter}[kind](rows)
    held = kind in ("list", "frame", "columns") and odd != "half"
    with (
        nullcontext()
        if held
        else pytest.warns(RbkitWarning, match=r"(?=.*(row 20|line 21)\b).*'odd'")
    ):
        corpus = load_corpus(given, eval_size=4)
    assert rows_of(corpus) == sorted(TEXTS)
    assert ("odd" in corpus["train"].column_names) == held
    if kind in ("columns", "json", "jsonl"):
        for option in ({"source": "odd"}, {"id": "odd"}, {"text": "odd"}, {"keep": ["odd"]}):
            with (
                pytest.raises(InputError, match="odd")
                if not (held and "keep" in option)
                else nullcontext()
            ):
                load_corpus(given, **option)
        assert rows_of(load_corpus(given, keep=())) == sorted(TEXTS)


def test_further_columns_are_kept_row_by_row():
    rows = [{"prompt": f"say {i}", "completion": f" it is {i}", "n": i} for i in range(60)]
    with pytest.warns(RbkitWarning, match="prompt"):
        corpus = load_corpus(rows, eval_size=9, keep=["n", "completion"], progress=False)
    for split in ("train", "eval"):
        assert corpus[split].column_names[-2:] == ["n", "completion"]
        for row in corpus[split]:
            assert row["n"] == row["original_row"]
            assert row["completion"] == f" it is {row['n']}"
    with pytest.warns(RbkitWarning, match="prompt"):
        everything = load_corpus(rows, eval_size=9, keep=True, progress=False)
    assert {"prompt", "completion", "n"} < set(everything["train"].column_names)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ("n", r"keep: 'n' is one name; give a list, \['n'\]"),
        (["N"], "no column 'N'; .* did you mean 'n'"),
        (["source"], "keep: 'source' is a column of every corpus"),
        (["text"], "keep: 'text' is a column of every corpus; leave it out"),
    ],
)
def test_columns_that_cannot_be_kept_are_named(keep, message):
    rows = [{"text": f"text {i}", "n": i} for i in range(60)]
    with pytest.raises(InputError, match=message):
        load_corpus(rows, eval_size=9, keep=keep, progress=False)
