"""Write run folders in the format of the record, with plausible made-up numbers."""

import json
import platform
import zlib
from pathlib import Path

import numpy as np

from rbkit.regroup.domains import Card, Domains
from rbkit.train import Run

NAMES = [
    "00 species, genus, bird",
    "01 recipe, butter, oven",
    "02 def, return, self",
    "03 river, lake, basin",
    "04 album, band, song",
    "05 election, party, minister",
    "06 battle, army, regiment",
    "07 protein, gene, cell",
    "08 football, club, league",
    "09 import, class, kwargs",
    "10 sauce, onion, garlic",
    "11 film, directed, actress",
    "12 railway, station, line",
    "13 theorem, algebra, space",
]
GROUPS = [0, 1, 2, 3, 4, 5, 6, 0, 8, 2, 1, 4, 3, 7]
LIBRARY = {
    "asset": "wiki",
    "licence": "CC BY-SA 4.0",
    "attribution": "Wikipedia authors",
    "url": "https://en.wikipedia.org",
}


def write_run(
    folder,
    mixer="RnB",
    seed=0,
    status="ok",
    names=None,
    rounds=12,
    error=None,
    parameters=None,
    metrics=None,
):
    """Write one run folder and return it as a Run; `parameters` are recorded beside the usual.

    `metrics` are values that a run ends with, by name.
    """
    folder = Path(folder)
    folder.mkdir(parents=True)
    names = list(NAMES if names is None else names)
    m = len(names)
    extra = [zlib.crc32(json.dumps(parameters).encode())] if parameters else []
    rng = np.random.default_rng([seed, sum(map(ord, mixer)), *extra])
    shared = np.random.default_rng(7)
    sizes = shared.integers(300, 1400, m)
    q = np.round(0.5 / m + 0.5 * shared.dirichlet(np.full(m, 2.0)), 4)
    q /= q.sum()
    steps = 25 * np.arange(1, rounds + 1)
    grams = _grams(m, rounds, shared)
    grams[rounds // 3, m // 2, :] = grams[rounds // 3, :, m // 2] = np.nan
    p = _proportions(mixer, grams, q, m)
    easy = {"RnB": 0.05, "Target": 0.03}.get(mixer, 0.0) + 0.01 * rng.normal()
    hard = shared.normal(0, 0.45, m)
    gain = 0.12 * (p.mean(axis=0) - 1 / m) * m + 0.02 * rng.normal(size=m)

    def loss_at(step):
        return 4.4 + 4.7 * np.exp(-step / 70) - easy * (1 - np.exp(-step / 90))

    lines = [
        {
            "kind": "train",
            "step": s,
            "loss": loss_at(s) + 0.14 * rng.normal(),
            "examples": 16,
            "tokens": 1400,
            "lr": 3e-3,
        }
        for s in range(1, 25 * rounds + 1)
    ]
    for t, s in enumerate([0, *steps.tolist()]):
        by_domain = (loss_at(s) + (1 - np.exp(-s / 60)) * (hard - gain)).tolist()
        lines.append(
            {
                "kind": "eval",
                "step": s,
                "round": t,
                "loss_token": float(q @ by_domain),
                "loss_example": float(q @ by_domain) + 0.11,
                "by_domain_token": by_domain,
                "by_domain_example": by_domain,
            }
        )
        for name, end in (metrics or {}).items():
            value = end * (1 - np.exp(-s / 60)) / (1 - np.exp(-25 * rounds / 60))
            row = {"kind": "metric", "step": s, "round": t, "name": name, "value": value}
            row |= {"by_domain": (value * (1 - 0.3 * hard)).tolist(), "examples": 1115}
            lines.append({**row, "rows": 1115, "higher_is_better": "error" not in name})
    last = next(row for row in reversed(lines) if row["kind"] == "eval")
    final = {
        k: last[k] for k in ("loss_token", "loss_example", "by_domain_token", "by_domain_example")
    }
    final["proportions"] = p[-1].tolist()
    if metrics:
        final["metrics"] = {row["name"]: row for row in lines[-len(metrics) :]}
    if status != "ok":
        lines, final = lines[: len(lines) // 3], None
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines))
    history = {"step": steps, "p": p, "q": q, "counts": np.full((rounds, m), 16)}
    if mixer == "RnB":
        diagonal = np.diagonal(grams, axis1=1, axis2=2)
        history |= {
            "gram": grams,
            "noise_floor": 0.2 * diagonal,
            "diagonal_debiased": 0.8 * diagonal,
        }
    np.savez(folder / "history.npz", **history)
    sizes_q = {"names": names, "sizes": sizes.tolist(), "q": q.tolist()}
    info = {
        "format": "rbkit-run/1",
        "status": "running" if status == "killed" else status,
        "error": error,
        "pid": 2**30,
        "host": platform.node(),
        "started": "2026-03-01T10:00:00+00:00",
        "heartbeat": "2026-03-01T10:01:00+00:00",
        "ended": "2026-03-01T10:01:30+00:00",
        "device": "cpu",
        "parameters": {
            "corpus": "demo",
            "mixer": mixer,
            "seed": seed,
            "model": "tiny",
            "steps": 25 * rounds,
            "round_steps": 25,
            "embedder": "minilm",
            "batch_size": 16,
            "k": [8, 12, 14, 16],
            "mixer_options": {},
            **(parameters or {}),
        },
        "versions": {"rbkit": "0.1.0", "torch": "2.9.0", "python": "3.11.2"},
        "domains": sizes_q,
        "final": final,
        "corpus": {
            "name": "demo",
            "n_train": int(sizes.sum()),
            "n_eval": 1115,
            "duplicates": 3,
            "fingerprint": "0123456789abcdef",
            "licences": [LIBRARY],
        },
        "ledger": {"note": "FLOPs counted with torch's counter.", "entries": _ledger(mixer, rng)},
    }
    (folder / "run.json").write_text(json.dumps(info))
    cards = [_card(name, int(size), shared) for name, size in zip(names, sizes, strict=True)]
    grid = [
        {
            "k": k,
            "silhouette": 0.05 + 0.01 * np.sin(k / 4),
            "stability_ari": 0.9 - 0.012 * k,
            "smallest_domain": 900 // k,
        }
        for k in (8, 12, 14, 16, 20)
    ]
    quality = {"silhouette": 0.06, "grid": grid}
    eval_sizes = np.maximum(np.round(q * 1000).astype(int), 1)
    method = {"name": "KMeans", "params": {"k": m}, "embedder": {}, "seed": seed}
    Domains(
        names,
        np.repeat(np.arange(m), sizes),
        np.repeat(np.arange(m), eval_sizes),
        method=method,
        quality=quality,
        cards=cards,
    ).save(folder / "domains")
    return Run.open(folder)


def _grams(m, rounds, rng):
    group = np.resize(GROUPS, m)
    centre = rng.normal(size=(group.max() + 1, 40))
    own = rng.normal(size=(m, 40))
    common = rng.normal(size=40) * 0.7
    grams = []
    for t in range(rounds):
        g = common * (1 - 0.7 * t / rounds) + centre[group] * 0.8 + own * (0.4 + 0.6 * t / rounds)
        g = (g + 0.3 * rng.normal(size=g.shape)) * 0.02 * np.exp(-t / rounds)
        grams.append(g @ g.T)
    return np.array(grams)


def _proportions(mixer, grams, q, m):
    if mixer == "Target":
        return np.tile(q, (len(grams) + 1, 1))
    p = np.full((len(grams) + 1, m), 1 / m)
    if mixer == "RnB":
        for t, G in enumerate(np.nan_to_num(grams)):
            v = G @ q
            z = np.exp(3.0 * v / np.linalg.norm(v))
            p[t + 1] = z / z.sum()
    return p


def _ledger(mixer, rng):
    rows = [
        ("step", 41.0, 2_400_000_000_000, None, 300),
        ("eval", 9.0, 310_000_000_000, None, 13),
        ("record", 0.12, 0, 20_000, 12),
    ]
    if mixer == "RnB":
        rows += [
            ("track", 0.81, 1_100_000_000, 4_000_000, 300),
            ("gram", 0.014, 21_000_000, None, 12),
            ("mixer", 0.0011, 2_000, None, 12),
        ]
    return [
        {
            "name": n,
            "seconds": s * float(rng.uniform(0.95, 1.05)),
            "flops_counted": f,
            "flops_modelled": f,
            "bytes": b,
            "calls": c,
        }
        for n, s, f, b, c in rows
    ]


def _card(name, size, rng):
    terms = [t.strip() for t in name.split(" ", 1)[-1].split(",")]
    words = [*terms, "northern", "known", "early", "small", "used"]
    share = float(rng.uniform(0.6, 0.97))
    return Card(
        name,
        size,
        size // 10,
        words,
        nearest=[
            f"A text about {', '.join(words)} number {i}, which goes on for a while to "
            "look like the first sentences of an article."
            for i in range(3)
        ],
        sources={terms[0]: share, "other": 1 - share},
    )
