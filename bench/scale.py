"""A million vectors into a thousand domains, on one machine; and how fast texts become vectors.

``vectors`` writes shards of float16: unequal clusters (log-normal sizes) that lie in topics as
sub-topics do, and 10 % background without any structure. ``kmeans`` and ``hdbscan`` regroup them,
each in a fresh process, and are scored against the true labels; ``embed`` times real texts with
one and two processes and on Ray, by turns. Every step writes one file in ``bench/results`` and is
not run again while that is there (``--again`` does); the table is made from the files.

k-means for 1,000 domains: centroids come from 256 rows each (256,000 in all), as faiss advises;
every row is assigned all the same. Ten iterations: twenty-five gained 0.0003 of AMI on 100,000 of
these rows. One start: with a thousand centroids the luck of single ones averages out (k-means++
against random starts: 0.936 and 0.935). Some domains stay tiny: a centroid that starts on a row of
the background has no neighbours to move to, since in 384 dimensions such rows lie far from all.
HDBSCAN sees 50 rows of a mean cluster in its sample, hence `min_samples` 5 and not 10.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rbkit.files import cache_dir, read_json, write_json
from rbkit.regroup.shards import ShardedVectors, ShardFolder, ShardHeader

RESULTS = Path(__file__).parent / "results"
STEPS = ("vectors", "kmeans", "hdbscan", "embed")
BACKGROUND = 0.1
TOPICS = 50  # clusters of one topic: cosine 0.6 between their centres
SPREAD = 1.0  # of a cluster: cosine 0.7 between a row and its centre
PER_CENTROID = 256


class Phases:
    """Wall seconds of named blocks."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the block."""
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 2)


def folder_of(a: argparse.Namespace) -> Path:
    return cache_dir() / "bench" / f"vectors-{a.rows}x{a.dim}-{a.domains}"


def make_vectors(a: argparse.Namespace) -> dict[str, Any]:
    """Write the vectors and their true labels (-1: background), shard by shard."""
    rng = np.random.default_rng(0)
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    noise = lambda n: rng.normal(size=(n, a.dim)).astype(np.float32) / np.sqrt(a.dim)  # noqa: E731
    topics = unit(noise(TOPICS))
    centres = unit(topics[rng.integers(TOPICS, size=a.domains)] + 0.8 * noise(a.domains))
    shares = rng.lognormal(sigma=1.0, size=a.domains)
    truth = rng.choice(a.domains, size=a.rows, p=shares / shares.sum()).astype(np.int32)
    truth[rng.random(a.rows) < BACKGROUND] = -1
    header = ShardHeader({"embedder": "synthetic"}, "scale", a.rows, 16_384)
    files = ShardFolder.claim(folder_of(a), header)
    phases = Phases()
    with phases("write"):
        for shard in range(header.shards):
            own = truth[slice(*header.span(shard))]
            rows = SPREAD * noise(len(own))
            rows[own >= 0] += centres[own[own >= 0]]
            files.write(shard, unit(rows).astype(np.float16))
    np.save(folder_of(a) / "truth.npy", truth)
    sizes = np.bincount(truth[truth >= 0], minlength=a.domains)
    return {
        "shape": [a.rows, a.dim],
        "bytes": sum(path.stat().st_size for path in folder_of(a).glob("*.npy")),
        "true_sizes": [int(sizes.min()), int(np.median(sizes)), int(sizes.max())],
        "seconds": phases.seconds,
    }


def kmeans(a: argparse.Namespace) -> dict[str, Any]:
    """Regroup by k-means on shards; the assignment of all rows is part of it, and timed again."""
    from rbkit.regroup import KMeans
    from rbkit.regroup.kmeans import assign

    vectors, phases = ShardedVectors(folder_of(a)), Phases()
    tool = KMeans(
        a.domains, n_init=a.starts, n_iter=a.iterations, max_train=PER_CENTROID * a.domains
    )
    with phases("fit and assign"):
        tool.fit(vectors)
    peak = peak_gib()
    with phases("assign again"):
        assign(vectors, tool.cluster_centers_)
    total = phases.seconds["fit and assign"]
    return {
        "params": tool.get_params(),
        "total_seconds": total,
        "peak_gib": peak,
        "seconds": phases.seconds,
        **score(a, tool.labels_),
    }


def hdbscan(a: argparse.Namespace) -> dict[str, Any]:
    """HDBSCAN on a UMAP of a sample; every row goes to the nearest mean of its clusters."""
    from rbkit.regroup.hdbscan import UmapHDBSCAN
    from rbkit.regroup.kmeans import assign

    vectors, phases = ShardedVectors(folder_of(a)), Phases()
    with phases("read the sample"):
        sample = vectors.sample(a.sample, seed=0)[1].astype(np.float32)
    tool = UmapHDBSCAN(sample=len(sample), cache=False, min_samples=a.min_samples)
    with phases("UMAP and tree"):
        tool.fit(sample)
    with phases("size for k, cut"):
        size = tool.size_for(a.domains)
        labels = np.asarray(tool.cut(size))
    kept = labels >= 0
    counts = np.bincount(labels[kept])
    means = np.zeros((len(counts), a.dim))
    np.add.at(means, labels[kept], sample[kept])
    with phases("assign"):
        placed = assign(vectors, (means / counts[:, None]).astype(np.float32))[0]
    return {
        "params": tool.get_params(),
        "min_cluster_size": int(size),
        "found": len(counts),
        "noise_of_sample": float(1 - kept.mean()),
        "total_seconds": round(sum(phases.seconds.values()), 2),
        "peak_gib": peak_gib(),
        "seconds": phases.seconds,
        **score(a, placed),
    }


def embed(a: argparse.Namespace) -> dict[str, Any]:
    """Texts per second with 1 and 2 processes and on Ray, by turns; models load in the time."""
    import datasets

    from rbkit.data import load_corpus
    from rbkit.regroup import TransformerEmbedder
    from rbkit.regroup.ray_job import embed_shards_on_ray
    from rbkit.regroup.shards import embed_shards

    rows = load_corpus("wiki", progress=False)["train"].select(range(a.texts))
    words = [len(text.split()) for text in rows["text"]]
    tokens = {"max_tokens": 128}
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as work:
        rows.save_to_disk(f"{work}/rows")
        rows = datasets.load_from_disk(f"{work}/rows")
        size = -(-a.texts // 8)
        for repeat in range(a.repeats):
            for engine in ("1 process", "2 processes", "2 workers of Ray"):
                options = {"rows_per_shard": size, "progress": False}
                folder = f"{work}/{engine}-{repeat}"
                began = time.perf_counter()
                if engine.endswith("Ray"):
                    embed_shards_on_ray(rows, TransformerEmbedder(**tokens), folder, **options)
                else:
                    number = int(engine[0])
                    embed_shards(
                        rows, TransformerEmbedder(**tokens), folder, num_proc=number, **options
                    )
                seconds = time.perf_counter() - began
                runs.append({"engine": engine, "seconds": round(seconds, 1)})
                print(runs[-1], flush=True)
    rate = {
        engine: [round(a.texts / run["seconds"], 1) for run in runs if run["engine"] == engine]
        for engine in dict.fromkeys(run["engine"] for run in runs)
    }
    return {
        "texts": a.texts,
        "mean_words": float(np.mean(words)),
        **tokens,
        "runs": runs,
        "texts_per_second": rate,
        "peak_gib": peak_gib(),
    }


def score(a: argparse.Namespace, labels: np.ndarray) -> dict[str, Any]:
    """Agreement with the true labels: of the rows of clusters, and of all (background: a label)."""
    from sklearn.metrics import (
        adjusted_mutual_info_score,
        adjusted_rand_score,
        normalized_mutual_info_score,
    )

    truth = np.load(folder_of(a) / "truth.npy")
    sizes = np.bincount(labels)
    found: dict[str, Any] = {
        "domains": len(sizes),
        "sizes": [int(sizes.min()), int(np.median(sizes)), int(sizes.max())],
        "under_100_rows": int((sizes < 100).sum()),
    }
    for name, rows in (("clusters", truth >= 0), ("all", np.ones(len(truth), bool))):
        pair = truth[rows], labels[rows]
        found[name] = {
            "nmi": round(float(normalized_mutual_info_score(*pair)), 4),
            "ari": round(float(adjusted_rand_score(*pair)), 4),
            "ami": round(float(adjusted_mutual_info_score(*pair)), 4),
        }
    return found


def peak_gib() -> float:
    """Most memory this process has held, in GiB; pages of mapped files count, too."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 2**30, 2)


def machine() -> dict[str, Any]:
    import faiss
    import sklearn

    return {
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "faiss": faiss.__version__,
        "sklearn": sklearn.__version__,
    }


def result_of(a: argparse.Namespace, step: str) -> Path:
    return RESULTS / f"scale-{a.rows}-{step}.json"


def table(a: argparse.Namespace) -> None:
    """Print what the files of results say."""
    print(f"\n{a.rows:,} x {a.dim} vectors, {a.domains:,} true clusters and 10 % background\n")
    print("path      seconds  peak GiB  domains  smallest  largest  NMI    ARI    AMI    AMI (all)")
    for step in ("kmeans", "hdbscan"):
        if not result_of(a, step).exists():
            continue
        r = read_json(result_of(a, step))
        own = r["clusters"]
        print(
            f"{step:9s} {r['total_seconds']:7.1f} {r['peak_gib']:9.2f} {r['domains']:8d} "
            f"{r['sizes'][0]:9d} {r['sizes'][2]:8d}  {own['nmi']:.3f}  {own['ari']:.3f}  "
            f"{own['ami']:.3f}  {r['all']['ami']:.3f}"
        )
        print("          " + ", ".join(f"{name} {at} s" for name, at in r["seconds"].items()))
        print(f"          {r['under_100_rows']} domains have fewer than 100 rows")
    if result_of(a, "embed").exists():
        r = read_json(result_of(a, "embed"))
        print(f"\nembedding {r['texts']:,} texts of {r['mean_words']:.0f} words, texts/s:")
        for engine, rates in r["texts_per_second"].items():
            print(f"  {engine:17s} {', '.join(map(str, rates))}")


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--rows", type=int, default=1_000_000)
    parse.add_argument("--dim", type=int, default=384)
    parse.add_argument("--domains", type=int, default=1_000)
    parse.add_argument("--sample", type=int, default=50_000)
    parse.add_argument("--starts", type=int, default=1)
    parse.add_argument("--iterations", type=int, default=10)
    parse.add_argument("--min-samples", type=int, default=5)
    parse.add_argument("--texts", type=int, default=2_000)
    parse.add_argument("--repeats", type=int, default=2)
    parse.add_argument("--only", nargs="*", choices=STEPS, default=STEPS)
    parse.add_argument("--again", action="store_true")
    parse.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    a = parse.parse_args()
    if a.step:  # in a process of its own
        before = machine()
        work = {"vectors": make_vectors, "kmeans": kmeans, "hdbscan": hdbscan, "embed": embed}
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            write_json(result_of(a, a.step), {"machine": before, **work[a.step](a)})
        return
    for step in a.only:
        if a.again or not result_of(a, step).exists():
            print(f"{step} ...", flush=True)
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--step", step], check=True)
    table(a)


if __name__ == "__main__":
    main()
