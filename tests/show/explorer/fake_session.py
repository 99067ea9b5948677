"""Stands in for the Python side of the explorer: synthetic domains, every message answered.

It knows no widget. ``state`` holds the traits; ``handle(message)`` changes them and returns
the replies. A browser test wires it to a page, a notebook test to an ``ExplorerWidget``.
"""

from __future__ import annotations

import base64
import colorsys

import numpy as np

FINE = 64
HOSTILE = "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 2'>"
RTL = "\u202egnp.exe\u202c مرحبا بالعالم 🦜🔥"
TOPICS = [
    "bread and dough",
    "tax law",
    "volcanoes",
    "chess openings",
    "jazz records",
    "beekeeping",
    "sorting algorithms",
    "marathon training",
    "roman history",
    "knitting",
    "black holes",
    "houseplants",
    "contract clauses",
    "sailing",
    "soup recipes",
    "sleep research",
    "trains",
    "statistics homework",
    "bird song",
    "car repair",
    "poetry",
    "vaccines",
    "city planning",
    "cheese",
    "compilers",
    "glaciers",
    "football reports",
    "opera",
    "mushrooms",
    "banking",
]
SOURCES = ["wiki", "forum", "news", "code", "recipes", "papers"]
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
BINARY = {"xy": "<f4", "labels": "<u2", "values": "u1", "source_ids": "<u2", "selection": "<u4"}


class FakeSession:
    """Blobs on a plane in 64 fine groups; a cut into k joins neighbouring ones."""

    def __init__(self, n_train=2000, n_eval=200, k=12, seed=0, hostile=False, images=False):
        rng = np.random.default_rng(seed)
        n = n_train + n_eval
        angle = np.arange(FINE) * 2.39996
        centres = 0.5 + 0.43 * np.sqrt((np.arange(FINE) + 0.5) / FINE)[:, None] * np.stack(
            [np.cos(angle), np.sin(angle)], 1
        )
        order = np.lexsort((centres[:, 1], np.round(centres[:, 0] * 5)))
        self.centres = centres[order]
        self.fine = rng.choice(FINE, n, p=rng.dirichlet(np.full(FINE, 4.0)))
        spread = rng.uniform(0.012, 0.028, FINE)[self.fine][:, None]
        xy = self.centres[self.fine] + rng.normal(size=(n, 2)) * spread
        self.xy = np.clip(xy, 0, 1).astype("f4")
        self.n_train, self.n, self.hostile, self.images = n_train, n, hostile, images
        self.source_ids = (self.fine * 7 // 11 + rng.integers(0, 3, n)) % len(SOURCES)
        self.selection = np.zeros(0, int)
        self.past, self.future, self.sent = [], [], []
        self.colour_mode, self.method = "domain", "ward"
        self.cut(k)
        self.state = {
            "xy": self.xy,
            "n_train": n_train,
            "source_ids": self.source_ids,
            "values": np.zeros(0, "u1"),
            "selection": self.selection,
            "selected_domains": [],
            "title": "A corpus of " + ("<b>tricks</b>" if hostile else "everything"),
            "images": images,
            "status": {"busy": False, "text": "", "fraction": None},
            "notices": [],
            "sources": [
                {"name": s, "colour": c}
                for s, c in zip(
                    [*SOURCES[:-1], HOSTILE] if hostile else SOURCES,
                    ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"],
                    strict=True,
                )
            ],
        }
        self.refresh()

    def cut(self, k):
        self.k = k
        self.labels = (self.fine * k // FINE).astype(int)
        self.names = {i: TOPICS[(i * 60 // k) % len(TOPICS)] for i in range(k)}
        if self.hostile:
            self.names[0], self.names[1], self.names[2] = HOSTILE, RTL, "a very long name " * 20

    def refresh(self):
        """Rebuild the traits that follow from labels and names."""
        train = self.labels[: self.n_train]
        domains = []
        for place, i in enumerate(sorted(self.names)):
            mine = self.labels == i
            size, evals = int((train == i).sum()), int(mine[self.n_train :].sum())
            counts = np.bincount(self.source_ids[: self.n_train][train == i], minlength=6)
            hue = (place * 0.381966) % 1
            rgb = colorsys.hls_to_rgb(hue, 0.42 + 0.2 * (place % 2), 0.6)
            x, y = np.median(self.xy[mine], 0) if mine.any() else (0.5, 0.5)
            domains.append(
                {
                    "id": i,
                    "name": self.names[i],
                    "size": size,
                    "eval_size": evals,
                    "colour": "#" + "".join(f"{round(255 * c):02x}" for c in rgb),
                    "share": size / self.n_train,
                    "q": evals / max(self.n - self.n_train, 1),
                    "tokens": size * 130,
                    "order": place,
                    "kind": "domain",
                    "terms": [*self.names[i].split()[:3], "sentence", "about", "example"],
                    "sources": sorted(
                        ([SOURCES[s], c / max(size, 1)] for s, c in enumerate(counts)),
                        key=lambda pair: -pair[1],
                    )[:4],
                    "nearest": [self.text(r) for r in np.flatnonzero(mine)[:3]],
                    "x": float(x),
                    "y": float(y),
                    "thumbs": [PIXEL] * 3 if self.images else [],
                }
            )
        log = [text for text, *_ in self.past]
        self.state |= {
            "labels": np.where(self.labels < 0, 65535, self.labels),
            "domains": domains,
            "colour": {
                "mode": self.colour_mode,
                "title": "distance to the centre",
                "low": "0.1",
                "high": "0.9",
                "modes": [
                    {"id": "domain", "label": "domain", "continuous": False},
                    {"id": "source", "label": "source", "continuous": False},
                    {"id": "distance", "label": "distance", "continuous": True},
                    {"id": "length", "label": "length", "continuous": True},
                ],
            },
            "controls": {
                "method": self.method,
                "methods": ["ward", "kmeans", "hdbscan", "sources"],
                "k": len(self.names),
                "k_max": 40,
                "min_cluster_size": 25,
                "size_max": 500,
                "noise": "nearest",
                "max_noise": None,
                "n_neighbors": 15,
                "min_dist": 0.1,
                "recommended": {"k": 18, "text": "stability 0.81, smallest domain 40"},
                "noise_share": 0.0,
                "noise_text": "",
            },
            "history": {
                "undo": log[-1] if log else "",
                "log": log,
                "redo": self.future[-1][0] if self.future else "",
            },
        }

    def text(self, row):
        row = int(row)
        if self.hostile and row % 3 == 0:
            return f"{HOSTILE} in example {row}"
        if self.hostile and row % 3 == 1:
            return f"{RTL} {row} " + "a long document " * 120
        topic = self.names.get(int(self.labels[row]), "something")
        return (
            f"Example {row} says a sentence about {topic}, and then another one which goes "
            "into the details that a reader would want to know before deciding."
        )

    def item(self, row):
        item = {"row": int(row), "text": self.text(row)[:2000], "distance": (row % 97) / 97}
        return item | ({"image": PIXEL} if self.images else {})

    def remember(self, text):
        self.past.append((text, self.labels.copy(), dict(self.names), self.method))
        self.future.clear()

    def step(self, source, target):
        if not source:
            return
        text, labels, names, method = source.pop()
        target.append((text, self.labels, self.names, self.method))
        self.labels, self.names, self.method = labels, names, method
        self.refresh()

    def handle(self, message):
        """Answer one message; the traits in ``state`` may have changed after it."""
        self.sent.append(message)
        reply = getattr(self, "on_" + message["type"])(message)
        return [reply] if reply else []

    def on_preview(self, message):
        self.cut(message["k"])
        self.refresh()
        return {"type": "previewed", "k": message["k"]}

    def on_op(self, message):
        op = message["op"]
        names = self.names
        if op["op"] == "cut":
            self.remember(f"cut into {op.get('k', 9)} domains by {op['method']}")
            self.method = op["method"]
            self.cut(op.get("k", 9))
        elif op["op"] == "rename":
            self.remember(f"rename {names[op['domain']]} to {op['name']}")
            names[op["domain"]] = op["name"]
        elif op["op"] == "merge":
            first, *rest = op["domains"]
            self.remember("merge " + " + ".join(names[i] for i in op["domains"]))
            self.labels = np.where(np.isin(self.labels, rest), first, self.labels)
            self.names = {i: n for i, n in names.items() if i not in rest}
            self.names[first] = op.get("name", names[first])
        elif op["op"] == "split":
            self.remember(f"split {names[op['domain']]} into {op['parts']}")
            mine = np.flatnonzero(self.labels == op["domain"])
            self.labels = self.labels.copy()
            for part in range(1, op["parts"]):
                new = max(self.names) + 1
                self.labels[mine[self.xy[mine, 0].argsort()][part :: op["parts"]]] = new
                self.names[new] = f"{names[op['domain']]} {part + 1}"
        elif op["op"] == "move":
            self.remember(f"move {len(self.selection)} examples")
            self.labels = self.labels.copy()
            new = op["to"] if op["to"] is not None else max(self.names) + 1
            self.names.setdefault(new, op.get("name", "new domain"))
            self.labels[self.selection] = new
        elif op["op"] == "drop":
            self.remember(f"drop {names[op['domain']]}")
            self.labels = np.where(self.labels == op["domain"], -1, self.labels)
            self.names = {i: n for i, n in names.items() if i != op["domain"]}
        else:
            return {"type": "error", "text": f"{op['op']}: not in this fake"}
        self.refresh()
        return None

    def on_undo(self, message):
        self.step(self.past, self.future)

    def on_redo(self, message):
        self.step(self.future, self.past)

    def on_colour(self, message):
        self.colour_mode = message["mode"]
        continuous = self.colour_mode in ("distance", "length")
        wave = (127 + 127 * np.sin(9 * self.xy[:, 0]) * np.cos(7 * self.xy[:, 1])).astype("u1")
        self.state["values"] = wave if continuous else np.zeros(0, "u1")
        self.refresh()

    def on_map(self, message):
        self.state["status"] = {"busy": True, "text": "UMAP: epoch 120 of 200", "fraction": 0.6}

    def on_cancel(self, message):
        self.state["status"] = {"busy": False, "text": "", "fraction": None}

    def on_read(self, message):
        items = [self.item(r) for r in message["rows"]]
        return {"type": "texts", "token": message["token"], "items": items}

    def on_more(self, message):
        rows = np.flatnonzero(self.labels == message["domain"])
        rows = rows[:5] if message["kind"] == "nearest" else rows[-5:]
        return {"type": "texts", "token": message["token"], "items": [self.item(r) for r in rows]}

    def on_search(self, message):
        hits = [r for r in range(0, self.n, 3) if message["query"].lower() in self.text(r).lower()]
        self.state["selection"] = self.selection = np.array(hits, int)
        return {"type": "found", "token": message["token"], "count": len(hits)}

    def on_export(self, message):
        if message["folder"].startswith("/"):
            return {
                "type": "error",
                "text": "folder: outside the notebook's folder",
                "token": message["token"],
            }
        files = ["domains.json", "assignments.parquet", "weights.json", "edits.json"]
        return {
            "type": "exported",
            "token": message["token"],
            "folder": message["folder"],
            "files": files,
            "next": f"rb.train(corpus, rb.Domains.load({message['folder']!r}), run_dir='...')",
        }

    # The two ways to a browser

    def wire(self):
        """Traits as JSON; arrays as {"base64": ...}."""
        return {
            name: {"base64": base64.b64encode(value.astype(BINARY[name]).tobytes()).decode()}
            if name in BINARY
            else value
            for name, value in self.state.items()
        }

    def traits(self):
        """Traits as an ``ExplorerWidget`` takes them."""
        return {
            name: value.astype(BINARY[name]).tobytes() if name in BINARY else value
            for name, value in self.state.items()
        }

    def bind(self, widget):
        """Answer a widget in a kernel."""

        def hear(_widget, message, _buffers):
            self.selection = widget.selected_rows
            before = {name: id(value) for name, value in self.state.items()}
            replies = self.handle(message)
            fresh = self.traits()
            with widget.hold_sync():
                for name, value in self.state.items():
                    if before.get(name) != id(value):
                        setattr(widget, name, fresh[name])
            for reply in replies:
                widget.send(reply)

        for name, value in self.traits().items():
            setattr(widget, name, value)
        widget.on_msg(hear)
        return widget
