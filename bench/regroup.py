"""Regroup against BERTopic's default clustering: seconds, memory, and agreement with labels.

The same vectors go to every contender, each in a fresh process, so that whatever numba compiles
is compiled again, as in a papermill run; contenders alternate, in another order in every repeat.
Seconds run from before the first library is imported to labels for all examples, embedding
not included; memory is the peak of the process. Agreement is with the true labels: NMI, AMI and
ARI over all examples (noise counting as one more cluster), and over those that are in a cluster.

Data: ``syn``, 50,000 vectors of 60 unequal clusters with 10 % background (label 60) in 384
dimensions; ``wiki``, MiniLM vectors of the built-in corpus with its 11 topics.

Contenders: ``ward`` (WardTree, cut at the true number of labels), ``kmeans`` (KMeans, the same k),
``hdbscan`` (UmapHDBSCAN, noise to the nearest domain), ``default`` (UMAP and HDBSCAN as BERTopic
sets them up) and ``bertopic`` (BERTopic itself, given texts and vectors) where the interpreter
that ``--bertopic`` names can import it::

    python -m venv ENV && ENV/bin/pip install -c constraints.txt torch==2.13.0 bertopic
    python bench/regroup.py --bertopic ENV/bin/python

k-means is given the number of labels, which the density methods find by themselves; so the table
also cuts the same tree into as many clusters as BERTopic's default found, and into 16, the
default. Results are written run by run, and a second call does what is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "regroup.json"
OURS = ("ward", "kmeans", "hdbscan")
THEIRS = ("default", "bertopic")
CUTS = (5, 8, 11, 16, 20, 25, 30, 40, 50, 60, 70, 80, 100, 120, 150, 200)


# Contenders. They run in their own process, of an interpreter that may know nothing of rbkit.


def ward(X: Any, k: int, **_: Any) -> dict[str, Any]:
    from rbkit.regroup.ward import WardTree

    tree = WardTree(k).fit(X)
    cuts = {f"cut{at}": tree.cut(at) for at in CUTS if at <= tree.n_micro_}  # milliseconds
    return {"labels": tree.labels_, "later": cuts}


def kmeans(X: Any, k: int, **_: Any) -> dict[str, Any]:
    from rbkit.regroup.kmeans import KMeans

    return {"labels": KMeans(k).fit(X).labels_}


def hdbscan(X: Any, **_: Any) -> dict[str, Any]:
    from rbkit.regroup.hdbscan import UmapHDBSCAN
    from rbkit.regroup.noise import settle_noise

    clusters = UmapHDBSCAN(cache=False).fit(X)
    settled = settle_noise(clusters.labels_, X).labels
    return {"labels": settled, "later": {"noise": clusters.labels_, "size10": clusters.cut(10)}}


def default(X: Any, **_: Any) -> dict[str, Any]:
    import hdbscan
    import umap

    reduced = umap.UMAP(
        n_neighbors=15, n_components=5, min_dist=0.0, metric="cosine", low_memory=False
    ).fit_transform(X)
    clusters = hdbscan.HDBSCAN(
        min_cluster_size=10,
        metric="euclidean",
        cluster_selection_method="eom",
        prediction_data=True,
    ).fit(reduced)
    return {"labels": clusters.labels_}


def bertopic(X: Any, texts: list[str], began: float, **_: Any) -> dict[str, Any]:
    from bertopic import BERTopic

    model = BERTopic()
    clustering, stamps = model._cluster_embeddings, []

    def stamped(*args: Any, **options: Any) -> Any:
        done = clustering(*args, **options)
        stamps.append(time.perf_counter() - began)
        return done

    model._cluster_embeddings = stamped  # so that topics' words can be left out of the time
    labels, _ = model.fit_transform(texts, embeddings=X)
    return {"labels": np.array(labels), "seconds_clustered": stamps[0]}


def work(contender: str, folder: Path, k: int) -> None:
    """Run one contender on the vectors in `folder`; leave labels and costs there."""
    X = np.load(folder / "X.npy")
    texts = json.loads((folder / "texts.json").read_text()) if contender == "bertopic" else []
    rest = peak_mb()
    began, cpu = time.perf_counter(), cpu_seconds()
    found = globals()[contender](X, k=k, texts=texts, began=began)
    cost = {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": cpu_seconds() - cpu,
        "peak_mb": peak_mb(),
        "peak_mb_before": rest,
    }
    if "seconds_clustered" in found:
        cost["seconds_clustered"] = found["seconds_clustered"]
    np.savez(folder / "labels.npz", labels=found["labels"], **found.get("later", {}))
    (folder / "cost.json").write_text(json.dumps(cost))


def cpu_seconds() -> float:
    """Of this process and of those it started (hdbscan starts some)."""
    return sum(
        sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


def peak_mb() -> float:
    """Of this program alone: ru_maxrss would begin with the peak of the one that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# Data.


def synthetic(n: int, clusters: int = 60, d: int = 384, seed: int = 0) -> tuple[Any, Any, Any]:
    """Unequal clusters of unequal spread around random directions, and 10 % background."""
    rng = np.random.default_rng(seed)
    shares = rng.lognormal(size=clusters)
    truth = rng.choice(clusters, size=n - n // 10, p=shares / shares.sum())
    centers = rng.normal(size=(clusters, d))
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    spread = rng.uniform(0.7, 1.3, clusters) / np.sqrt(d)
    X = centers[truth] + rng.normal(size=(len(truth), d)) * spread[truth, None]
    X = np.concatenate([X, rng.normal(size=(n // 10, d))])
    truth = np.concatenate([truth, np.full(n // 10, clusters)])
    order = rng.permutation(n)
    X = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)[order]
    truth = truth[order]
    # Words of the cluster, so that BERTopic has texts to name it by.
    texts = [" ".join(f"word{label}x{at}" for at in rng.integers(0, 50, 12)) for label in truth]
    return X, truth, texts


def wiki() -> tuple[Any, Any, Any]:
    import rbkit as rb
    from rbkit.regroup import TransformerEmbedder, embed_corpus

    corpus = rb.load_corpus("wiki")
    X = embed_corpus(corpus, TransformerEmbedder())["train"]
    rows = corpus["train"]
    return X, np.unique(rows["source"], return_inverse=True)[1], list(rows["text"])


# Scores and tables.


def scores(truth: Any, labels: Any) -> dict[str, float]:
    from sklearn.metrics import (
        adjusted_mutual_info_score,
        adjusted_rand_score,
        normalized_mutual_info_score,
    )

    found = {"clusters": int(labels.max()) + 1, "noise_share": float(np.mean(labels < 0))}
    inside = labels >= 0
    for suffix, rows in (("", slice(None)), ("_in_clusters", inside)):
        pair = truth[rows], labels[rows]
        found[f"nmi{suffix}"] = float(normalized_mutual_info_score(*pair))
        found[f"ami{suffix}"] = float(adjusted_mutual_info_score(*pair))
        found[f"ari{suffix}"] = float(adjusted_rand_score(*pair))
    return found


def measure(contender: str, folder: Path, truth: Any, k: int, python: str) -> dict[str, Any]:
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as own:
        for name in ("X.npy", "texts.json"):
            (Path(own) / name).symlink_to(folder / name)
        interpreter = python if contender in THEIRS and python else sys.executable
        command = [interpreter, __file__, "--worker", contender, own, str(k)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{contender} failed: {done.stderr[-2000:]}")
        cost = json.loads((Path(own) / "cost.json").read_text())
        with np.load(Path(own) / "labels.npz") as file:
            labels = {name: file[name] for name in file.files}
    quality = {name: scores(truth, found) for name, found in labels.items()}
    return {**cost, "load_before": load, "load_after": os.getloadavg()[0], "quality": quality}


def table(data: str, runs: list[dict[str, Any]]) -> None:
    """Print medians over the repeats, and ratios within them."""
    mine = [run for run in runs if run["data"] == data]
    found = {run["contender"] for run in mine}
    base = {run["repeat"]: run for run in mine if run["contender"] == "default"}
    print(f"\n{data}: {mine[0]['n']:,} vectors, {mine[0]['k']} labels")
    head = f"{'':24}{'s':>7}{'cpu s':>7}{'x':>6}{'x cpu':>7}{'MB':>7}{'k':>5}{'noise':>7}"
    print(head + "".join(f"{name:>7}" for name in ("NMI", "AMI", "ARI")) + "   in clusters")
    for name in [*OURS, *THEIRS]:
        if name not in found:
            continue
        own = [run for run in mine if run["contender"] == name]

        def median(key: str, runs: list[dict[str, Any]] = own) -> float:
            return float(np.median([run[key] for run in runs]))

        pairs = [(base[run["repeat"]], run) for run in own if run["repeat"] in base]
        ratio, cpu = (
            float(np.median([theirs[key] / run[key] for theirs, run in pairs] or [np.nan]))
            for key in ("seconds", "cpu_seconds")
        )
        start = (
            f"{name:24}{median('seconds'):7.1f}{median('cpu_seconds'):7.1f}"
            f"{ratio:6.1f}{cpu:7.1f}{median('peak_mb'):7.0f}"
        )
        print(start + quality_columns([run["quality"]["labels"] for run in own]))
        if "seconds_clustered" in own[0]:
            print(f"{'  until clustered':24}{median('seconds_clustered'):7.1f}")
        for extra, label in extras(name, own, base):
            print(f"{label:58}"[:58] + quality_columns([run["quality"][extra] for run in own]))


def extras(name: str, own: list[dict[str, Any]], base: dict[int, Any]) -> list[tuple[str, str]]:
    """Further labels of a contender that are worth a line, and what to call them."""
    if name == "hdbscan":
        return [
            ("noise", "  noise left as noise"),
            ("size10", "  min_cluster_size=10, as BERTopic"),
        ]
    if name != "ward":
        return []
    cuts = [int(key[3:]) for key in own[0]["quality"] if key.startswith("cut")]
    shown = {16: "the default"}
    if base:
        theirs = int(np.median([run["quality"]["labels"]["clusters"] for run in base.values()]))
        shown[min(cuts, key=lambda at: abs(at - theirs))] = f"nearest to BERTopic's {theirs}"
    return [(f"cut{at}", f"  the same tree, k={at} ({why})") for at, why in shown.items()]


def quality_columns(rows: list[dict[str, float]]) -> str:
    median = {key: float(np.median([row[key] for row in rows])) for key in rows[0]}
    line = f"{median['clusters']:5.0f}{median['noise_share']:7.1%}"
    line += "".join(f"{median[key]:7.3f}" for key in ("nmi", "ami", "ari"))
    return line + "  " + "".join(f"{median[f'{key}_in_clusters']:7.3f}" for key in ("nmi", "ari"))


def main() -> None:
    parse = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parse.add_argument("--data", nargs="*", default=["syn", "wiki"])
    parse.add_argument("--contenders", nargs="*", default=[*OURS, *THEIRS])
    parse.add_argument("--n", type=int, default=50_000, help="of the synthetic vectors")
    parse.add_argument("--repeats", type=int, default=3)
    parse.add_argument("--bertopic", default="", help="interpreter that can import bertopic")
    parse.add_argument("--fresh", action="store_true", help="forget earlier results")
    parse.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    a = parse.parse_args()
    if a.worker:
        return work(a.worker[0], Path(a.worker[1]), int(a.worker[2]))
    from rbkit.files import read_json, write_json

    contenders = [name for name in a.contenders if name != "bertopic" or a.bertopic]
    runs = [] if a.fresh or not RESULTS.exists() else read_json(RESULTS)["runs"]
    for data in a.data:
        X, truth, texts = synthetic(a.n) if data == "syn" else wiki()
        k = len(np.unique(truth)) - (data == "syn")  # background is no cluster
        runs = [run for run in runs if run["data"] != data or run["n"] == len(X)]
        with tempfile.TemporaryDirectory() as folder:
            for small in (2_000, len(X)):  # a small round first fills what caches on disk there are
                np.save(Path(folder) / "X.npy", X[:small])
                (Path(folder) / "texts.json").write_text(json.dumps(texts[:small]))
                for repeat in range(a.repeats if small == len(X) else 1):
                    turn = repeat % len(contenders)
                    for contender in contenders[turn:] + contenders[:turn]:
                        key = (data, contender, repeat)
                        if key in {(r["data"], r["contender"], r["repeat"]) for r in runs}:
                            continue
                        found = measure(contender, Path(folder), truth[:small], k, a.bertopic)
                        if small != len(X):
                            continue
                        print(*key, f"{found['seconds']:.1f} s, load {found['load_before']:.1f}")
                        about = {"data": data, "contender": contender, "repeat": repeat}
                        runs.append({**about, "n": len(X), "k": k, **found})
                        write_json(RESULTS, {"threads": os.cpu_count(), "runs": runs})
    for data in a.data:
        table(data, runs)
    return None


if __name__ == "__main__":
    main()
