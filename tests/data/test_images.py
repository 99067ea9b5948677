"""Corpora of images: what is read, and what is refused by its row."""

import io
import json
import os
import tarfile
import zlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, IterableDataset
from datasets import Image as ImageFeature
from PIL import Image

from rbkit.data import about, load_corpus
from rbkit.data.images import image_keys
from rbkit.errors import InputError, RbkitWarning

N = 12


def picture(i):
    return Image.new("RGB", (8, 8), (20 * i, 255 - 20 * i, 100))


def png(i):
    file = io.BytesIO()
    picture(i).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Images in two folders, called by what they show."""
    for i in range(N):
        file = tmp_path / "shapes" / ("square", "circle")[i % 2] / f"{i}_of_{N}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(i))
    return tmp_path / "shapes"


def colours(corpus):
    """Caption -> colour of the first pixel, of all examples."""
    return {
        row["text"]: row["image"].convert("RGB").getpixel((0, 0))
        for split in corpus.values()
        for row in split
    }


WANTED = {f"shade {i}": picture(i).getpixel((0, 0)) for i in range(N)}
CAPTIONS = list(WANTED)


def rows_of(kind, folder):
    files = [str(folder / f"{i}.png") for i in range(N)]
    for i in range(N):
        (folder / f"{i}.png").write_bytes(png(i))
    values = {
        "paths": files,
        "bytes": [png(i) for i in range(N)],
        "PIL": [picture(i) for i in range(N)],
    }
    return {"image": values[kind], "text": CAPTIONS}


@pytest.mark.parametrize("kind", ["paths", "bytes", "PIL"])
@pytest.mark.parametrize(
    "holder", ["dict", "rows", "frame", "dataset", "splits", "arrow", "stream"]
)
def test_images_in_hand_are_one_column_whatever_holds_them(tmp_path, kind, holder):
    columns = rows_of(kind, tmp_path)
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    given = columns
    if holder == "rows":
        given = rows
    elif holder == "frame":
        given = pd.DataFrame(columns)
    elif holder == "dataset":
        given = Dataset.from_dict(columns).cast_column("image", ImageFeature())
    elif holder == "splits":
        data = Dataset.from_dict(columns)
        given = DatasetDict(train=data.select(range(4, N)), validation=data.select(range(4)))
    elif holder == "arrow":
        if kind == "PIL":
            pytest.skip("Arrow has no such type")
        given = pa.table(columns)
    elif holder == "stream":
        given = IterableDataset.from_generator(lambda: iter(rows))
    corpus = load_corpus(given, progress=False)
    assert colours(corpus) == WANTED
    assert isinstance(corpus["train"].features["image"], ImageFeature)
    assert "image" in corpus["eval"].column_names


def test_a_column_of_another_name_is_taken_if_it_is_asked_for_or_the_only_one_of_images(tmp_path):
    columns = rows_of("paths", tmp_path)
    files = pd.DataFrame({"file": columns["image"], "caption": CAPTIONS})
    with pytest.warns(RbkitWarning, match="images with captions"):
        assert colours(load_corpus(files, image="file", progress=False)) == WANTED
    photos = Dataset.from_dict({"photo": rows_of("PIL", tmp_path)["image"], "text": CAPTIONS})
    assert colours(load_corpus(photos, progress=False)) == WANTED
    assert "image" not in load_corpus(photos, image=None, progress=False)["train"].column_names
    with pytest.raises(InputError, match="no column 'pic'; it has 'photo', 'text'"):
        load_corpus(photos, image="pic", progress=False)
    with pytest.raises(InputError, match="holds int64, not images"):
        load_corpus(photos.add_column("n", range(N)), image="n", progress=False)


def test_texts_with_addresses_of_images_stay_texts():
    rows = {"text": CAPTIONS, "image": ["https://example.org/a.png"] * N}
    features = load_corpus(rows, progress=False)["train"].features
    assert features["image"].dtype == "string"
    with pytest.raises(InputError, match=r"row 0: .* is an address; download"):
        load_corpus({"text": CAPTIONS, "link": rows["image"]}, image="link", progress=False)


def test_a_folder_of_images_is_captioned_by_names_and_its_folders_are_sources(folder):
    with pytest.warns(RbkitWarning, match="12 of its images are captioned by their names"):
        corpus = load_corpus(folder, progress=False)
    rows = [row for split in corpus.values() for row in split]
    assert {row["text"] for row in rows} == {f"{i} of {N}" for i in range(N)}
    assert {row["source"] for row in rows} == {"square", "circle"}
    assert about(corpus)["sources"] == ["circle", "square"]
    (folder / "square" / "0_of_12.txt").write_text("a text of its own")
    with pytest.warns(RbkitWarning, match="11 of its images"):
        assert "a text of its own" in colours(load_corpus(folder, progress=False))


def test_a_list_and_a_pattern_of_images_are_read_as_a_folder(folder):
    with pytest.warns(RbkitWarning, match="captioned by their names"):
        some = load_corpus(f"{folder}/square/*.png", progress=False)
    assert sum(map(len, some.values())) == N // 2
    with pytest.warns(RbkitWarning, match="captioned by their names"):
        load_corpus(sorted(map(str, folder.glob("circle/*.png"))), progress=False)


def test_folders_of_splits_are_splits(folder, tmp_path):
    (tmp_path / "data").mkdir()
    (folder / "square").rename(tmp_path / "data" / "train")
    (folder / "circle").rename(tmp_path / "data" / "test")
    with pytest.warns(RbkitWarning, match="captioned by their names"):
        corpus = load_corpus(tmp_path / "data", progress=False)
    assert (len(corpus["train"]), len(corpus["eval"])) == (N // 2, N // 2)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_captions_and_other_columns_come_from_metadata(folder, suffix):
    files = sorted(folder.rglob("*.png"))
    rows = [
        {"file_name": str(file.relative_to(folder)), "caption": f"no. {file.stem}", "id": str(i)}
        for i, file in enumerate(files)
    ]
    frame = pd.DataFrame(rows[1:]).assign(image="a column of their own")
    if suffix == ".csv":
        frame.to_csv(folder / "metadata.csv", index=False)
    else:
        frame.to_json(folder / "metadata.jsonl", orient="records", lines=True)
    with pytest.warns(RbkitWarning) as told:
        corpus = load_corpus(folder, id="id", progress=False)
    assert any("1 of its images are not in metadata" in str(w.message) for w in told)
    found = {row["id"]: row["text"] for split in corpus.values() for row in split}
    assert found == {row["id"]: row["caption"] for row in rows[1:]}
    file = folder / f"metadata{suffix}"
    file.write_text("file_name,caption\n" if suffix == ".csv" else "\n")
    with pytest.raises(InputError, match="names no image"):
        load_corpus(folder, progress=False)


def test_a_webdataset_is_read_from_its_archive(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for i in range(N):
            for name, raw in ((f"{i:03}.png", png(i)), (f"{i:03}.txt", CAPTIONS[i].encode())):
                member = tarfile.TarInfo(name)
                member.size = len(raw)
                archive.addfile(member, io.BytesIO(raw))
    with pytest.warns(RbkitWarning, match="a WebDataset"):
        assert colours(load_corpus(tmp_path / "a.tar", progress=False)) == WANTED
    (tmp_path / "b.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:3000])
    with pytest.raises(InputError, match=r"b\.tar"):
        load_corpus(tmp_path / "b.tar", progress=False)


def test_a_table_names_images_below_its_own_folder_and_no_others(folder, tmp_path):
    files = sorted(folder.rglob("*.png"))
    names = [str(file.relative_to(folder)) for file in files]
    table = folder / "table.jsonl"

    def load(names):
        rows = [{"image": n, "text": t} for n, t in zip(names, CAPTIONS, strict=True)]
        table.write_text("\n".join(map(json.dumps, rows)))
        return load_corpus(table, progress=False)

    assert len(colours(load(names))) == N
    (tmp_path / "secret.png").write_bytes(png(1))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    for outside in ("../secret.png", str(tmp_path / "secret.png"), "link.png"):
        with pytest.raises(InputError, match=r"row 3: .*leaves the folder"):
            load([*names[:3], outside, *names[4:]])
    with pytest.raises(InputError, match=r"row 3: .*no such file"):
        load([*names[:3], "none.png", *names[4:]])
    os.mkfifo(folder / "pipe.png")
    with pytest.raises(InputError, match=r"row 3: .*not a regular file"):
        load([*names[:3], "pipe.png", *names[4:]])
    for name in ("table.jsonl", "link.png", "pipe.png"):
        (folder / name).unlink()
    line = json.dumps({"file_name": "../secret.png", "caption": "no"})
    (folder / "metadata.jsonl").write_text(line)
    with pytest.raises(InputError, match=r"line 1: .*leaves the folder"):
        load_corpus(folder, progress=False)


def test_an_image_whose_path_is_stored_in_data_lies_below_their_folder(folder, tmp_path):
    (tmp_path / "secret.png").write_bytes(png(1))
    path = {"bytes": None, "path": str(tmp_path / "secret.png")}
    rows = {"image": [path] * N, "text": CAPTIONS}
    Dataset.from_dict(rows).cast_column("image", ImageFeature()).save_to_disk(folder / "saved")
    saved = Dataset.load_from_disk(folder / "saved").cast_column(
        "image", ImageFeature(decode=False)
    )
    if saved[0]["image"]["bytes"] is None:
        with pytest.raises(InputError, match=r"row 0: the image secret.png lies outside the data"):
            load_corpus(folder / "saved", progress=False)


def a_bomb():
    """Bytes of an image of ten billion pixels."""
    file = io.BytesIO()
    Image.new("1", (1, 1)).save(file, "PNG")
    raw = bytearray(file.getvalue())
    raw[16:24] = np.array([100_000, 100_000], ">u4").tobytes()
    raw[29:33] = np.array([zlib.crc32(bytes(raw[12:29]))], ">u4").tobytes()
    return bytes(raw)


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"", "not one that can be read"),
        (b"no image at all", "not one that can be read"),
        (png(1)[:-30], "not one that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not one that can be read"),
        (a_bomb(), "too large to be decoded"),
        (None, "has no image"),
    ],
)
def test_an_image_that_cannot_be_used_is_named_by_its_row(raw, what):
    images = [*(png(i) for i in range(5)), raw, *(png(i) for i in range(6, N))]
    with pytest.raises(InputError, match=f"row 5.*{what}"):
        load_corpus({"image": images, "text": CAPTIONS}, progress=False)


def test_the_image_and_not_the_caption_decides_the_side_of_the_split():
    images, one = [picture(i) for i in range(N)], ["a square"] * N
    alike = load_corpus({"image": images, "text": one}, eval_share=0.3, seed=3, progress=False)
    other = load_corpus({"image": images, "text": CAPTIONS}, eval_share=0.3, seed=3, progress=False)
    assert len(alike["eval"]) > 0
    assert alike["eval"]["original_row"][:] == other["eval"]["original_row"][:]
    # An image with two captions is on one side.
    both = {"image": images + images, "text": CAPTIONS + [f"{c} again" for c in CAPTIONS]}
    twice = load_corpus(both, eval_share=0.3, progress=False)
    sides = [{r % N for r in twice[split]["original_row"]} for split in ("train", "eval")]
    assert sides[0].isdisjoint(sides[1])


def test_the_fingerprint_is_of_texts_and_images():
    def fingerprint(images):
        return about(load_corpus({"image": images, "text": CAPTIONS}, progress=False))[
            "fingerprint"
        ]

    images = [picture(i) for i in range(N)]
    assert fingerprint(images) == fingerprint(images)
    assert fingerprint(images) != fingerprint([*images[1:], images[0]])
    corpus = load_corpus({"image": images, "text": CAPTIONS}, progress=False)
    some = DatasetDict(train=corpus["train"].select(range(3)), eval=corpus["eval"])
    assert about(some)["fingerprint"] != about(corpus)["fingerprint"]
    assert len(image_keys([{"bytes": None, "path": None}], "x", check=False)) == 1


def test_a_folder_of_documents_with_a_few_images_stays_one_of_documents(folder):
    for i in range(2 * N):
        (folder / f"chapter {i}.txt").write_text(f"The story of chapter {i}.")
    with pytest.warns(RbkitWarning, match="24 text files is one example"):
        corpus = load_corpus(folder, progress=False)
    assert "image" not in corpus["train"].column_names
