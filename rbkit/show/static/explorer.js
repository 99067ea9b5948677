// What one view of the explorer knows: the model's traits decoded, and what is hovered.
const NO_DOMAIN = 65535;
const TRAITS = ["xy", "n_train", "labels", "values", "source_ids", "domains", "sources", "crosstab", "colour", "controls",
  "history", "status", "notices", "selection", "selected_domains", "title", "images"];
const PATIENCE = 4000;  // ms after which an unanswered preview no longer holds back the next

class Store extends Conversation {
  constructor(model) {
    super(model);
    this.texts = new Map();
    this.hover = null;  // {domain: id} or {source: index} or {domain, source}
    this.split = "all";
    this.preview = { wanted: null, flying: false, timer: 0 };
    for (const name of TRAITS) {
      this.decode(name);
      this.listen(`change:${name}`, () => {
        this.decode(name);
        this.touch(name);
        if (name === "labels" || name === "domains") this.landed();
      });
    }
    this.listen("msg:custom", (message) => this.hear(message));
  }

  dispose() {
    clearTimeout(this.preview.timer);
    super.dispose();
  }

  decode(name) {
    const value = this.model.get(name);
    if (name === "xy") {
      this.xy = typed(value, Float32Array);
      this.n = this.xy.length >> 1;
      this.index = null;
      this.texts.clear();
      this.mask = new Uint8Array(this.n);
      if (this.selection) this.fillMask();
    } else if (name === "labels") this.labels = typed(value, Uint16Array);
    else if (name === "source_ids") this.sourceIds = typed(value, Uint16Array);
    else if (name === "values") this.values = typed(value, Uint8Array);
    else if (name === "selection") {
      this.selection = typed(value, Uint32Array);
      if (this.mask) this.fillMask();
    } else if (name === "n_train") this.nTrain = value || 0;
    else if (name === "selected_domains") this.chosen = new Set(value || []);
    else if (name === "domains") {
      this.domains = value || [];
      this.byId = new Map(this.domains.map((domain) => [domain.id, domain]));
    } else if (name === "sources" || name === "notices") this[name] = value || [];
    else if (name === "title" || name === "images") this[name] = value;
    else this[name] = value || {};
    if (name === "labels" || name === "selection" || name === "xy") this.tallies = null;
    if (name === "labels") this.sizes = null;
  }

  fillMask() {
    this.mask.fill(0);
    for (const row of this.selection) if (row < this.n) this.mask[row] = 1;
  }

  shown(i) {
    return this.split === "all" || (i < this.nTrain) === (this.split === "train");
  }

  domainOf(row) {
    return this.byId.get(this.labels[row]) || null;
  }

  sourceOf(row) {
    return this.sources[this.sourceIds[row]] || null;
  }

  /** Points of the map in each domain: all examples, or those of the sample that is shown. */
  pointsIn(id) {
    if (!this.sizes) {
      this.sizes = new Uint32Array(65536);
      for (const label of this.labels) this.sizes[label]++;
    }
    return this.sizes[id];
  }

  /** How much of the selection lies in each domain and each source. */
  tally() {
    if (this.tallies) return this.tallies;
    const domains = new Map(), sources = new Map();
    for (const row of this.selection) {
      const d = this.labels[row], s = this.sourceIds[row];
      domains.set(d, (domains.get(d) || 0) + 1);
      sources.set(s, (sources.get(s) || 0) + 1);
    }
    return (this.tallies = { domains, sources });
  }

  setSplit(split) {
    this.split = split;
    this.touch("split");
  }

  /** Rows that pass a test, of the shown ones. */
  rows(test, upTo = this.n) {
    const found = new Uint32Array(upTo);
    let size = 0;
    for (let i = 0; i < upTo; i++) if (this.shown(i) && test(i)) found[size++] = i;
    return found.slice(0, size);
  }

  /** Replace the selection, add to it or take from it, and tell Python. */
  select(rows, mode = "replace") {
    let chosen = rows;
    if (mode !== "replace" && this.selection.length) {
      const mask = this.mask.slice();
      for (const row of rows) mask[row] = mode === "add" ? 1 : 0;
      chosen = new Uint32Array(this.n);
      let size = 0;
      for (let i = 0; i < this.n; i++) if (mask[i]) chosen[size++] = i;
      chosen = chosen.slice(0, size);
    } else if (mode === "remove") return;
    this.model.set("selection", new DataView(chosen.buffer, chosen.byteOffset, chosen.byteLength));
    this.model.save_changes();
  }

  choose(ids) {
    this.model.set("selected_domains", [...ids]);
    this.model.save_changes();
  }

  clear() {
    if (this.selection.length) this.select(new Uint32Array(0));
    if (this.chosen.size) this.choose([]);
  }

  operate(op) {
    this.preview.wanted = null;  // what was wanted live is settled by the operation
    this.send({ type: "op", op });
  }

  hear(message, buffers) {
    super.hear(message, buffers);
    if (message?.type === "previewed" || message?.type === "error") this.landed();
  }

  /** A live cut: one message under way at most, and only the last one wanted follows it. */
  cutLive(k) {
    this.preview.wanted = k;
    this.fly();
  }

  fly() {
    const preview = this.preview;
    if (preview.flying || preview.wanted === null) return;
    preview.flying = true;
    this.send({ type: "preview", method: "ward", k: preview.wanted });
    preview.wanted = null;
    clearTimeout(preview.timer);
    preview.timer = setTimeout(() => this.landed(), PATIENCE);
  }

  landed() {
    if (!this.preview.flying) return;
    clearTimeout(this.preview.timer);
    this.preview.flying = false;
    this.fly();
  }

  /** The text of one example, from what was read before or from Python. */
  async read(rows) {
    const missing = rows.filter((row) => !this.texts.has(row));
    if (missing.length) {
      const reply = await this.ask({ type: "read", rows: missing });
      if (this.texts.size > 3000) this.texts.clear();
      for (const item of reply.items || []) this.texts.set(item.row, item);
    }
    return rows.map((row) => this.texts.get(row)).filter(Boolean);
  }
}
// A small panel under a button: Escape or a click elsewhere closes it.
function popover(opener, title, ...content) {
  const panel = el("div", { class: "rbx-popover", role: "group", "aria-label": title, hidden: true }, el("h3", { text: title }), ...content);
  const node = el("div", { class: "rbx-anchor" }, opener, panel);
  opener.setAttribute("aria-expanded", "false");
  opener.setAttribute("aria-haspopup", "true");
  function show(open) {
    panel.hidden = !open;
    opener.setAttribute("aria-expanded", String(open));
    if (open) {
      panel.classList.remove("rbx-left");
      const room = node.closest(".rbx").getBoundingClientRect(), box = panel.getBoundingClientRect();
      panel.classList.toggle("rbx-left", box.right > room.right - 4);
      (panel.querySelector("input, select, button") || panel).focus();
    }
  }
  opener.addEventListener("click", () => show(panel.hidden));
  node.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || panel.hidden) return;
    show(false);
    opener.focus();
    event.stopPropagation();
  });
  node.addEventListener("focusout", (event) => {
    if (event.relatedTarget && !node.contains(event.relatedTarget)) show(false);
  });
  const outside = (event) => { if (!event.composedPath().includes(node)) show(false); };
  document.addEventListener("pointerdown", outside, true);
  return { node, panel, close: () => show(false), dispose: () => document.removeEventListener("pointerdown", outside, true) };
}

/** A labelled row of a form. */
function field(label, control, extra) {
  return el("label", { class: "rbx-field" }, el("span", { text: label }), control, extra);
}
// How the corpus is cut: the method, its slider, and what happens to noise.
const METHODS = { ward: "Ward hierarchy", kmeans: "k-means", hdbscan: "HDBSCAN", sources: "source labels", hand: "edited by hand" };
const PAUSE = 350;  // ms after the last key before a cut is made
const POLICIES = { nearest: "join the nearest domain", own: "make a domain of their own", drop: "are left out" };

class CutControls {
  constructor(store) {
    this.store = store;
    this.method = el("select", { class: "rbx-select", test: "method", "aria-label": "Method", title: "How the corpus is cut", on: { change: () => this.choose() } });
    this.slider = el("input", { type: "range", test: "k", min: 2, max: 30, step: 1, "aria-label": "Number of domains",
      on: { input: () => this.slide(), change: () => this.settleSoon(this.held ? 0 : PAUSE),
        pointerdown: () => { this.held = true; }, keydown: () => { this.held = false; }, blur: () => this.settleNow() } });
    this.number = el("input", { type: "number", class: "rbx-input rbx-count", test: "k-number", min: 2, step: 1, "aria-label": "Number of domains",
      on: { change: () => { this.slider.value = this.number.value; this.slide(); this.settleSoon(PAUSE); }, blur: () => this.settleNow() } });
    this.advice = el("button", { type: "button", class: "rbx-link rbx-advice", test: "recommended", on: { click: () => this.store.operate({ op: "cut", method: this.cutMethod(), k: this.store.controls.recommended.k }) } });
    this.tick = el("i", { class: "rbx-tick", "aria-hidden": "true" });
    this.refine = button("refine", { label: "Refine the cut with k-means from these centres", text: "Refine", kind: "rbx-small", on: () => store.operate({ op: "refine" }) });
    this.kPart = el("div", { class: "rbx-part" }, el("span", { class: "rbx-caption", text: "domains" }),
      el("span", { class: "rbx-track" }, this.slider, this.tick), this.number, this.advice, this.refine);

    this.sizes = el("input", { type: "range", test: "min-cluster-size", min: 0, max: 100, step: 1, "aria-label": "Smallest cluster",
      on: { input: () => this.slideSize(), change: () => this.settleSize() } });
    this.size = el("input", { type: "number", class: "rbx-input rbx-count", test: "min-cluster-size-number", min: 2, step: 1, "aria-label": "Smallest cluster, in examples",
      on: { change: () => this.settleSize() } });
    this.dense = el("input", { type: "number", class: "rbx-input rbx-count", test: "min-samples", min: 1, step: 1, "aria-label": "Neighbours that make an example dense (min_samples)",
      title: "Neighbours that make an example dense: more of them make more outliers (min_samples)", on: { change: () => this.settleDense() } });
    this.policy = el("select", { class: "rbx-select", test: "noise", "aria-label": "Outliers", on: { change: () => this.settleNoise() } },
      ...Object.entries(POLICIES).map(([value, text]) => el("option", { value, text })));
    this.most = el("input", { type: "number", class: "rbx-input rbx-count", test: "max-noise", min: 0, max: 100, step: 1, placeholder: "any", "aria-label": "At most this share of outliers, in percent",
      on: { change: () => this.settleNoise() } });
    this.noiseText = el("span", { class: "rbx-hint rbx-noise-text", test: "noise-text" });
    this.sizePart = el("div", { class: "rbx-part" }, el("span", { class: "rbx-caption", text: "smallest" }), this.sizes, this.size,
      el("span", { class: "rbx-caption", text: "density" }), this.dense);
    this.noisePart = el("div", { class: "rbx-part rbx-noise" }, el("span", { class: "rbx-caption", text: "outliers" }), this.policy,
      el("span", { class: "rbx-caption", text: "at most" }), this.most, el("span", { class: "rbx-caption", text: "%" }), this.noiseText);
    this.node = el("div", { class: "rbx-cut", role: "group", "aria-label": "Cut" }, this.method, this.kPart, this.sizePart, this.noisePart);
  }

  cutMethod() {
    return this.store.controls.method === "kmeans" ? "kmeans" : "ward";
  }

  choose() {
    const method = this.method.value, { k, min_cluster_size: size } = this.store.controls;
    const op = { op: "cut", method };
    if (method === "hdbscan") op.min_cluster_size = size;
    else if (method !== "sources") op.k = k;
    this.store.operate(op);
  }

  slide() {
    this.number.value = this.slider.value;
    this.slider.setAttribute("aria-valuetext", `${this.slider.value} domains`);
    this.sliding = true;
    if (this.cutMethod() === "ward") this.later(+this.slider.value);
  }

  later(k) {
    this.wanted = k;
    if (this.waiting) return;
    this.waiting = setTimeout(() => { this.waiting = 0; if (this.sliding) this.store.cutLive(this.wanted); }, 30);
  }

  /** Keys change a slider step by step: they make one operation, once they rest. */
  settleSoon(wait) {
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.settle(), wait);
  }

  settleNow() {
    this.held = false;
    if (this.resting) this.settle();
  }

  settle() {
    clearTimeout(this.resting);
    this.resting = 0;
    this.sliding = false;
    clearTimeout(this.waiting);
    this.waiting = 0;
    const k = clamp(Math.round(+this.slider.value) || 2, +this.slider.min, +this.slider.max);
    this.number.value = this.slider.value = k;
    this.expected = { k, until: Date.now() + PATIENCE };
    clearTimeout(this.truth);
    this.truth = setTimeout(() => this.store.touch("controls"), PATIENCE + 50);
    this.store.operate({ op: "cut", method: this.cutMethod(), k });
  }

  // The slider of sizes is logarithmic: between 5 and 10 there is as much to see as between 500 and 1,000.
  toSize(t) {
    const most = Math.max(3, this.store.controls.size_max || 500);
    return Math.round(2 * Math.pow(most / 2, t / 100));
  }

  toSlider(size) {
    const most = Math.max(3, this.store.controls.size_max || 500);
    return Math.round((100 * Math.log(Math.max(size, 2) / 2)) / Math.log(most / 2));
  }

  slideSize() {
    this.size.value = this.toSize(+this.sizes.value);
    this.sizes.setAttribute("aria-valuetext", `at least ${this.size.value} examples`);
    this.sliding = true;
  }

  settleSize() {
    this.sliding = false;
    const size = Math.max(2, Math.round(+this.size.value) || 2);
    this.sizes.value = this.toSlider(size);
    this.store.operate({ op: "cut", method: "hdbscan", min_cluster_size: size });
  }

  settleDense() {
    const samples = Math.max(1, Math.round(+this.dense.value) || 10);
    this.store.operate({ op: "cut", method: "hdbscan", min_cluster_size: this.store.controls.min_cluster_size, min_samples: samples });
  }

  settleNoise() {
    const most = this.most.value === "" ? null : clamp(+this.most.value, 0, 100) / 100;
    this.store.operate({ op: "noise", policy: this.policy.value, max_noise: most });
  }

  update(changed) {
    if (!changed.has("controls")) return;
    const c = this.store.controls, methods = [...(c.methods || [])];
    if (c.method && !methods.includes(c.method)) methods.push(c.method);
    const known = [...this.method.options].map((o) => o.value);
    if (known.join() !== methods.join()) {
      this.method.replaceChildren(...methods.map((value) => el("option", { value, text: METHODS[value] || value, disabled: value === "hand" })));
    }
    this.method.value = c.method;
    const dense = c.method === "hdbscan";
    this.kPart.hidden = dense || c.method === "sources";
    this.sizePart.hidden = !dense;
    this.noisePart.hidden = !dense && !(c.noise_share > 0);
    this.node.classList.toggle("rbx-long", !this.noisePart.hidden);
    this.refine.hidden = c.method !== "ward";
    this.slider.max = this.number.max = Math.max(2, c.k_max || 30);
    // The answer to an earlier step must not push back the slider under the hand.
    const late = this.expected && c.k !== this.expected.k && Date.now() < this.expected.until;
    if (!this.sliding && !late) {
      this.expected = null;
      this.slider.value = this.number.value = c.k ?? 2;
      this.slider.setAttribute("aria-valuetext", `${c.k} domains`);
      this.size.value = c.min_cluster_size ?? "";
      this.sizes.value = this.toSlider(c.min_cluster_size ?? 2);
    }
    if (document.activeElement !== this.dense) this.dense.value = c.min_samples ?? 10;
    this.policy.value = c.noise || "nearest";
    if (document.activeElement !== this.most) this.most.value = c.max_noise === null || c.max_noise === undefined ? "" : Math.round(100 * c.max_noise);
    setText(this.noiseText, c.noise_text || "");
    this.noiseText.title = c.noise_text || "";
    const tip = c.recommended;
    this.advice.hidden = this.tick.hidden = !tip;
    if (tip) {
      setText(this.advice, tip.k === c.k ? "as advised" : `advised: ${tip.k}`);
      this.advice.title = tip.text || "";
      this.tick.title = tip.text || "";
      this.tick.style.setProperty("--at", (tip.k - 2) / Math.max(1, this.slider.max - 2));
    }
  }

  dispose() {
    clearTimeout(this.truth);
    clearTimeout(this.waiting);
    clearTimeout(this.resting);
  }
}
// The line above the map: title, the cut, undo and redo, search, the map's parameters, export.
class Toolbar {
  constructor(store) {
    this.store = store;
    this.cut = new CutControls(store);
    this.title = words("span", "", { class: "rbx-title" });
    this.undo = button("undo", { label: "Nothing to undo", name: "undo", on: () => store.send({ type: "undo" }) });
    this.redo = button("redo", { label: "Nothing to redo", name: "redo", on: () => store.send({ type: "redo" }) });
    this.buildSearch();
    this.buildMap();
    this.buildExport();
    this.node = el("header", { class: "rbx-bar" },
      el("div", { class: "rbx-brand" }, el("span", { class: "rbx-logo", "aria-hidden": "true" }, ...Array.from({ length: 9 }, () => el("i"))), this.title),
      this.cut.node,
      el("div", { class: "rbx-actions" }, el("div", { class: "rbx-pair" }, this.undo, this.redo), this.searchBox, this.mapForm.node, this.exportForm.node));
  }

  buildSearch() {
    this.query = el("input", { type: "search", class: "rbx-input rbx-query", test: "search", placeholder: "Search texts", "aria-label": "Search the texts", dir: "auto",
      on: { input: () => this.searchSoon(), keydown: (event) => {
        if (event.key === "Enter") this.search();
        if (event.key === "Escape" && this.query.value) { this.query.value = ""; this.search(); event.stopPropagation(); }
      } } });
    this.found = el("output", { class: "rbx-found", test: "found" });
    this.searchBox = el("div", { class: "rbx-search", role: "search" }, icon("search"), this.query, this.found);
    this.searchSoon = debounced(350, () => this.search());
  }

  async search() {
    this.searchSoon.cancel();
    const query = this.query.value.trim();
    if (query === this.searched) return;
    if (this.searching) return;  // the last query typed follows when this one is answered
    this.searched = query;
    if (!query) {
      this.found.textContent = "";
      if (this.store.selection.length) this.store.select(new Uint32Array(0));
      return;
    }
    this.searching = true;
    this.found.textContent = "…";
    const reply = await Promise.race([this.store.ask({ type: "search", query }), new Promise((resolve) => setTimeout(() => resolve(null), 20000))]);
    this.searching = false;
    if (this.query.value.trim() !== query) this.search();
    else this.found.textContent = reply ? `${count(reply.count)} found` : "";
  }

  buildMap() {
    const { store } = this;
    const range = (test, label, min, max, step) => el("input", { type: "range", test, "aria-label": label, min, max, step });
    this.neighbours = range("n-neighbors", "Neighbours", 2, 100, 1);
    this.distance = range("min-dist", "Smallest distance", 0, 0.99, 0.01);
    const shown = [this.neighbours, this.distance].map((input) => {
      const out = el("output", { class: "rbx-number" });
      input.addEventListener("input", () => { out.textContent = input.value; });
      return out;
    });
    this.mapShown = shown;
    const draw = button("map-run", { label: "Compute the map anew with UMAP", text: "Compute the map", kind: "rbx-primary",
      on: () => { store.send({ type: "map", n_neighbors: +this.neighbours.value, min_dist: +this.distance.value }); this.mapForm.close(); } });
    this.mapForm = popover(button("map-open", { label: "Parameters of the map (UMAP)", text: "Map", name: "sliders" }), "The map (UMAP)",
      field("Neighbours", this.neighbours, shown[0]), field("Smallest distance", this.distance, shown[1]),
      el("p", { class: "rbx-hint", text: "The map is for looking: domains are cut from the vectors, so they stay as they are. Sizes and distances between groups on the map mean little." }), draw);
  }

  buildExport() {
    const { store } = this;
    this.folder = el("input", { type: "text", class: "rbx-input", test: "export-folder", value: "domains", spellcheck: "false",
      on: { keydown: (event) => { if (event.key === "Enter") run(); } } });
    this.outcome = el("div", { class: "rbx-outcome", role: "status", test: "export-result" });
    const run = async () => {
      const folder = this.folder.value.trim();
      if (!folder) return this.folder.focus();
      this.outcome.replaceChildren(el("span", { class: "rbx-hint", text: "Writing…" }));
      const reply = await store.ask({ type: "export", folder });
      this.outcome.replaceChildren();
      if (reply.type === "exported") {
        this.outcome.append(el("b", { text: "Written" }), words("code", reply.folder),
          el("ul", {}, ...(reply.files || []).map((file) => el("li", {}, words("code", file)))));
      } else this.outcome.append(el("span", { text: String(reply.text || "") }));
    };
    this.exportForm = popover(button("export-open", { label: "Export the domains", text: "Export", name: "save", kind: "rbx-primary" }), "Export the domains",
      field("Folder", this.folder), el("p", { class: "rbx-hint", text: "Labels, centres, names, sampling weights and the log of edits, ready to train on." }),
      button("export-run", { label: "Write the domains into this folder", text: "Write", kind: "rbx-primary", on: run }), this.outcome);
  }

  update(changed) {
    if (changed.has("error")) this.cut.expected = null;
    this.cut.update(changed);
    if (changed.has("title")) setWords(this.title, this.store.title || "Corpus explorer");
    if (changed.has("history")) {
      for (const [kind, node, keys] of [["undo", this.undo, "Ctrl+Z"], ["redo", this.redo, "Ctrl+Shift+Z"]]) {
        const what = this.store.history[kind], label = what ? `${kind === "undo" ? "Undo" : "Redo"}: ${what}` : `Nothing to ${kind}`;
        node.setAttribute("aria-disabled", String(!what));
        node.setAttribute("aria-label", label);
        node.title = what ? `${label} (${keys})` : label;
      }
    }
    if (changed.has("controls") && document.activeElement !== this.neighbours && document.activeElement !== this.distance) {
      const { n_neighbors: near, min_dist: gap } = this.store.controls;
      this.neighbours.value = near ?? 15;
      this.distance.value = gap ?? 0.1;
      this.mapShown[0].textContent = this.neighbours.value;
      this.mapShown[1].textContent = this.distance.value;
    }
    if (changed.has("error") && this.outcome.textContent === "Writing…") this.outcome.replaceChildren();
  }

  dispose() {
    this.searchSoon.cancel();
    this.cut.dispose();
    this.mapForm.dispose();
    this.exportForm.dispose();
  }
}
// The line below: what is being computed, how far it is, what went wrong, what should be known.
class StatusLine {
  constructor(store) {
    this.store = store;
    this.text = el("span", { class: "rbx-status-text", role: "status", "aria-live": "polite", test: "status" });
    this.progress = el("progress", { class: "rbx-progress", max: 1, test: "progress", "aria-label": "Progress", hidden: true });
    this.cancel = button("cancel", { label: "Stop this computation", text: "Cancel", kind: "rbx-small", hidden: true, on: () => store.send({ type: "cancel" }) });
    this.message = el("span", { class: "rbx-error-text" });
    this.error = el("div", { class: "rbx-error", role: "alert", test: "error", hidden: true }, this.message,
      button("error-close", { label: "Dismiss", name: "close", kind: "rbx-plain", on: () => { this.error.hidden = true; } }));
    this.notices = el("ul", { class: "rbx-notices", test: "notices", "aria-label": "Notices" });
    this.node = el("footer", { class: "rbx-foot" }, this.error, this.notices, el("div", { class: "rbx-status" }, this.text, this.progress, this.cancel));
  }

  rest() {
    const { store } = this, eval_ = store.n - store.nTrain, chosen = store.selection.length;
    return `${plural(store.nTrain, "example")}${eval_ > 0 ? ` and ${count(eval_)} of the eval set` : ""} in ${plural(store.domains.filter((d) => d.kind !== "noise").length, "domain")}`
      + (chosen ? ` · ${count(chosen)} selected` : "");
  }

  update(changed) {
    const { status } = this.store;
    if (changed.has("status")) {
      // What is done within a blink needs no progress bar.
      clearTimeout(this.soon);
      if (!status.busy) this.busy(false);
      else if (this.progress.hidden) this.soon = setTimeout(() => this.busy(true), 250);
      else this.busy(true);
    }
    if (!status.busy) setText(this.text, status.text || this.rest());
    if (changed.has("error")) {
      setText(this.message, this.store.error);
      this.error.hidden = false;
    }
    if (changed.has("notices")) {
      this.notices.replaceChildren(...this.store.notices.map((notice) => el("li", { class: notice.level === "warn" ? "rbx-warn" : "rbx-info", title: String(notice.text).slice(0, 600) },
        el("b", { class: "rbx-sr", text: notice.level === "warn" ? "Warning: " : "Note: " }), words("span", notice.text))));
    }
  }

  busy(on) {
    const { status } = this.store;
    this.progress.hidden = this.cancel.hidden = !on;
    this.node.closest(".rbx").setAttribute("aria-busy", String(on));
    if (!on) return;
    setText(this.text, status.text || "Working…");
    if (Number.isFinite(status.fraction)) this.progress.value = clamp(status.fraction, 0, 1);
    else this.progress.removeAttribute("value");
  }

  dispose() {
    clearTimeout(this.soon);
  }
}
// One domain in the list: a line that says what it is, and behind it examples and operations.
class Card {
  constructor(store, list, id) {
    this.store = store;
    this.list = list;
    this.id = id;
    this.kind = "nearest";
    this.name = words("span", "", { class: "rbx-name", test: "card-name" });
    this.size = el("span", { class: "rbx-number rbx-size" });
    this.share = el("span", { class: "rbx-number rbx-share" });
    this.bar = el("i", { class: "rbx-bar-share" });
    this.part = el("i", { class: "rbx-bar-part" });
    this.want = el("i", { class: "rbx-bar-want" });
    this.target = el("span", { class: "rbx-number rbx-q" });
    this.terms = words("div", "", { class: "rbx-terms" });
    this.picked = el("div", { class: "rbx-picked", test: "card-selected", hidden: true });
    this.dot = swatch("");
    this.toggle = el("button", { type: "button", class: "rbx-toggle", test: "card-toggle", tabindex: "-1", "aria-label": "Details", title: "Details (arrow right, arrow left)",
      on: { click: (event) => { event.stopPropagation(); this.open(this.details.hidden); } } }, icon("chevron"));
    this.head = el("div", { class: "rbx-card-head", role: "gridcell" },
      this.dot, el("div", { class: "rbx-grow" },
        el("div", { class: "rbx-line" }, this.name, this.size, this.share),
        el("div", { class: "rbx-bar-box", "aria-hidden": "true" }, this.bar, this.part, this.want),
        el("div", { class: "rbx-line rbx-second" }, this.terms, this.target), this.picked), this.toggle);
    this.details = el("div", { class: "rbx-details", role: "gridcell", hidden: true });
    this.node = el("div", { class: "rbx-card", role: "row", tabindex: "-1", test: "card" }, this.head, this.details);
    this.name.addEventListener("dblclick", (event) => { event.stopPropagation(); this.rename(); });
    this.node.addEventListener("pointerenter", () => store.setHover({ domain: this.id }));
    this.node.addEventListener("pointerleave", () => store.setHover(null));
    this.head.addEventListener("click", (event) => { if (!this.editing) list.click(this, event); });
  }

  get domain() {
    return this.store.byId.get(this.id);
  }

  update(domain, top) {
    this.node.dataset.domain = domain.id;
    this.node.classList.toggle("rbx-noise-card", domain.kind === "noise");
    this.dot.style.setProperty("--colour", safeColour(domain.colour));
    setWords(this.name, domain.name);
    setText(this.size, count(domain.size));
    setText(this.share, percent(domain.share));
    this.bar.style.inlineSize = `${100 * clamp(domain.share / top, 0, 1)}%`;
    const known = Number.isFinite(domain.q);
    this.want.hidden = !known;
    if (known) this.want.style.insetInlineStart = `${100 * clamp(domain.q / top, 0, 1)}%`;
    setText(this.target, known ? `q ${percent(domain.q)}` : "");
    this.target.title = known ? "Share of this domain in the eval set" : "";
    setWords(this.terms, (domain.terms || []).join(" · "));
    const chosen = this.store.chosen.has(domain.id);
    this.node.setAttribute("aria-selected", String(chosen));
    this.node.setAttribute("aria-expanded", String(!this.details.hidden));
    this.node.setAttribute("aria-label", `${domain.name}, ${plural(domain.size, "example")}, ${percent(domain.share)}${known ? `, target ${percent(domain.q)}` : ""}`.slice(0, 300));
    const inside = this.store.selection.length ? this.store.tally().domains.get(domain.id) || 0 : 0;
    const all = inside ? this.store.pointsIn(domain.id) : 1;
    this.picked.hidden = !inside;
    setText(this.picked, inside ? `${count(inside)} selected, ${percent(inside / Math.max(all, 1))} of this domain` : "");
    this.part.style.inlineSize = inside ? `${100 * clamp((domain.share / top) * (inside / Math.max(all, 1)), 0.004, 1)}%` : "0";
    const state = JSON.stringify([domain.sources, domain.nearest, domain.tokens, domain.eval_size, domain.kind]);
    if (!this.details.hidden && state !== this.state) this.fill();
    this.state = state;
  }

  open(wide) {
    this.details.hidden = !wide;
    this.node.classList.toggle("rbx-open", wide);
    this.node.setAttribute("aria-expanded", String(wide));
    if (wide) this.fill();
    else this.details.replaceChildren();
  }

  fill() {
    const { domain, store } = this, noise = domain.kind === "noise";
    const facts = [plural(domain.size, "example"), domain.eval_size ? `${count(domain.eval_size)} in the eval set` : null,
      domain.tokens ? `${count(domain.tokens)} tokens` : null].filter(Boolean).join(" · ");
    const sources = el("ul", { class: "rbx-sources", "aria-label": "Sources" }, ...(domain.sources || []).slice(0, 6).map(([name, share]) => el("li", {},
      words("span", name), el("span", { "aria-hidden": "true" }, el("i", { style: { "inline-size": `${100 * clamp(share, 0, 1)}%` } })), el("span", { class: "rbx-number", text: percent(share) }))));
    const parts = el("input", { type: "number", class: "rbx-input rbx-count", test: "split-parts", value: 2, min: 2, max: 20, "aria-label": "Number of parts", });
    const split = () => store.operate({ op: "split", domain: this.id, parts: clamp(Math.round(+parts.value) || 2, 2, 20) });
    parts.addEventListener("keydown", (event) => { if (event.key === "Enter") split(); });
    const actions = el("div", { class: "rbx-row" },
      noise ? null : button("rename", { label: "Rename (F2)", text: "Rename", name: "pencil", kind: "rbx-small", on: () => this.rename() }),
      button("select-points", { label: "Select its examples (Enter)", text: "Select", name: "points", kind: "rbx-small", on: () => this.list.selectPoints([this.id]) }),
      el("span", { class: "rbx-pair" }, button("split-run", { label: "Split this domain", text: "Split into", name: "split", kind: "rbx-small", on: split }), parts),
      noise ? null : button("drop", { label: "Drop: its examples are in no domain and are not trained on", text: "Drop", name: "trash", kind: "rbx-small", on: () => store.operate({ op: "drop", domain: this.id }) }));
    this.kinds = el("div", { class: "rbx-segments", role: "group", "aria-label": "Which examples" }, ...["nearest", "strangest", "random"].map((kind) => el("button", {
      type: "button", class: "rbx-segment", test: `examples-${kind}`, "aria-pressed": String(kind === this.kind), text: kind, on: { click: () => this.show(kind) },
    })));
    this.examples = el("div", { class: "rbx-card-examples" });
    const thumbs = (domain.thumbs || []).slice(0, 8).map((image) => picture(image, "rbx-small-picture")).filter(Boolean);
    this.details.replaceChildren(...[el("p", { class: "rbx-facts", text: facts }), thumbs.length ? el("div", { class: "rbx-thumbs" }, ...thumbs) : null,
      sources.children.length ? sources : null, actions, this.kinds, this.examples].filter(Boolean));
    if (this.kind === "nearest") this.examples.append(exampleList(store, (domain.nearest || []).map((text) => ({ text }))));
    else this.show(this.kind);
  }

  async show(kind) {
    this.kind = kind;
    for (const node of this.kinds.children) node.setAttribute("aria-pressed", String(node.textContent === kind));
    const target = this.examples, reply = await this.store.ask({ type: "more", domain: this.id, kind });
    if (this.kind === kind && target === this.examples) target.replaceChildren(exampleList(this.store, reply.items || []));
  }

  rename() {
    if (this.editing || this.domain.kind === "noise") return;
    const input = el("input", { type: "text", class: "rbx-input rbx-rename", test: "rename-input", value: this.domain.name, dir: "auto", maxlength: 120, "aria-label": "New name", });
    const done = (keep) => {
      if (!this.editing) return;
      this.editing = false;
      const name = input.value.trim(), focused = input.getRootNode().activeElement === input;
      input.replaceWith(this.name);
      if (keep && name && name !== this.domain?.name) {
        setWords(this.name, name);  // at once; Python's word follows
        this.store.operate({ op: "rename", domain: this.id, name });
      }
      if (focused) this.node.focus({ preventScroll: true });
    };
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") done(true);
      else if (event.key === "Escape") done(false);
      if (event.key !== "Tab") event.stopPropagation();
      if (event.key === "Enter" || event.key === "Escape") event.preventDefault();
    });
    input.addEventListener("blur", () => done(true));
    this.editing = true;
    this.name.replaceWith(input);
    input.focus();
    input.select();
  }
}
// The list of domains: a grid of rows that arrows walk, with what can be done to several at once.
class DomainList {
  constructor(store) {
    this.store = store;
    this.cards = new Map();
    this.order = "size";
    this.current = null;
    this.grid = el("div", { class: "rbx-cards", role: "treegrid", "aria-multiselectable": "true", "aria-label": "Domains", test: "cards",
      on: { keydown: (event) => this.key(event), focusin: (event) => this.focused(event), focusout: (event) => this.left(event) } });
    this.sorts = el("select", { class: "rbx-select rbx-small", test: "sort", "aria-label": "Order", on: { change: () => { this.order = this.sorts.value; this.arrange(); } } },
      ...[["size", "largest first"], ["gap", "furthest from q"], ["order", "by similarity"], ["name", "by name"]].map(([value, text]) => el("option", { value, text })));
    this.hint = el("span", { class: "rbx-caption rbx-legend-q" }, el("i", { class: "rbx-sample-share" }), "share of train ", el("i", { class: "rbx-sample-want" }), "target q");
    this.mergeName = el("input", { type: "text", class: "rbx-input", test: "merge-name", dir: "auto", maxlength: 120, "aria-label": "Name of the merged domain",
      on: { keydown: (event) => { if (event.key === "Enter") this.merge(); } } });
    this.several = el("span", { class: "rbx-several" });
    this.mergeButton = button("merge", { label: "Merge the chosen domains into one", text: "Merge", name: "merge", kind: "rbx-small rbx-primary", on: () => this.merge() });
    this.bulk = el("div", { class: "rbx-bulk", test: "bulk", role: "group", "aria-label": "Chosen domains", hidden: true }, this.several, this.mergeName, this.mergeButton,
      button("bulk-select", { label: "Select their examples", text: "Select", name: "points", kind: "rbx-small", on: () => this.selectPoints([...store.chosen]) }),
      button("bulk-clear", { label: "Choose none", name: "close", kind: "rbx-small", on: () => { this.focusCurrent(); store.choose([]); } }));
    this.node = el("div", { class: "rbx-panel" }, el("div", { class: "rbx-panel-head" }, this.sorts, this.hint), this.grid, this.bulk);
  }

  merge() {
    const ids = this.rows().map((card) => card.id).filter((id) => this.store.chosen.has(id));
    if (ids.length < 2) return;
    const op = { op: "merge", domains: ids }, name = this.mergeName.value.trim();
    if (name) op.name = name;
    this.mergeName.value = "";
    this.focusCurrent();
    this.store.operate(op);
  }

  selectPoints(ids) {
    const wanted = new Set(ids);
    this.store.select(this.store.rows((i) => wanted.has(this.store.labels[i])));
  }

  rows() {
    return [...this.grid.children].map((node) => this.cards.get(+node.dataset.key));
  }

  click(card, event) {
    const chosen = new Set(this.store.chosen), rows = this.rows();
    if (event.shiftKey && this.current) {
      const [a, b] = [rows.indexOf(this.current), rows.indexOf(card)].sort((x, y) => x - y);
      rows.slice(a, b + 1).forEach((row) => chosen.add(row.id));
    } else if (event.ctrlKey || event.metaKey) {
      if (!chosen.delete(card.id)) chosen.add(card.id);
    } else {
      const alone = chosen.size === 1 && chosen.has(card.id);
      chosen.clear();
      if (!alone) chosen.add(card.id);
    }
    this.makeCurrent(card);
    card.node.focus({ preventScroll: true });
    this.store.choose(chosen);
  }

  makeCurrent(card) {
    if (this.current) this.current.node.tabIndex = -1;
    this.current = card;
    if (card) card.node.tabIndex = 0;
  }

  focusCurrent() {
    (this.current ? this.current.node : this.grid).focus({ preventScroll: true });
  }

  focused(event) {
    const node = event.target.closest(".rbx-card"), card = node && this.cards.get(+node.dataset.key);
    if (!card) return;
    this.makeCurrent(card);
    if (node.matches(":focus-visible, :has(:focus-visible)")) this.store.setHover({ domain: card.id });
  }

  left(event) {
    if (!this.grid.contains(event.relatedTarget)) this.store.setHover(null);
  }

  key(event) {
    const node = event.target.closest(".rbx-card"), card = node && this.cards.get(+node.dataset.key);
    if (!card || event.target !== node) {
      if (card && event.key === "Escape") { card.node.focus(); event.preventDefault(); event.stopPropagation(); }
      return;
    }
    if (event.ctrlKey && event.key !== "a" || event.metaKey && event.key !== "a" || event.altKey) return;
    const rows = this.rows(), at = rows.indexOf(card);
    const go = (i) => rows[clamp(i, 0, rows.length - 1)].node.focus();
    if (event.key === "ArrowDown") go(at + 1);
    else if (event.key === "ArrowUp") go(at - 1);
    else if (event.key === "Home") go(0);
    else if (event.key === "End") go(rows.length - 1);
    else if (event.key === "ArrowRight") card.open(true);
    else if (event.key === "ArrowLeft") card.open(false);
    else if (event.key === " ") this.click(card, { ctrlKey: true });
    else if (event.key === "a" && (event.ctrlKey || event.metaKey)) this.store.choose(rows.map((row) => row.id));
    else if (event.key === "Enter") this.selectPoints(this.store.chosen.has(card.id) ? [...this.store.chosen] : [card.id]);
    else if (event.key === "F2") card.rename();
    else if (event.key === "Delete") this.store.operate({ op: "drop", domain: card.id });
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  update(changed) {
    if (["domains", "selection", "selected_domains", "labels", "n_train"].some((name) => changed.has(name))) {
      if (changed.has("domains")) this.arrange();
      const top = Math.max(1e-9, ...this.store.domains.map((d) => Math.max(d.share || 0, d.q || 0)));
      for (const domain of this.store.domains) this.cards.get(domain.id)?.update(domain, top);
      this.offer();
    }
    if (changed.has("hover") || changed.has("under")) {
      const { hover, under } = this.store, now = hover ? hover.domain : under;
      for (const [id, card] of this.cards) card.node.classList.toggle("rbx-hovered", id === now);
    }
    if (changed.has("selected_domains") && !this.grid.contains(this.grid.getRootNode().activeElement)) this.reveal();
  }

  /** Chosen on the map: its card comes into view, without moving the notebook. */
  reveal() {
    const card = this.rows().find((row) => this.store.chosen.has(row.id));
    if (!card || !this.grid.clientHeight) return;
    const top = card.node.offsetTop - this.grid.offsetTop, bottom = top + card.head.offsetHeight;
    if (top < this.grid.scrollTop) this.grid.scrollTop = top;
    else if (bottom > this.grid.scrollTop + this.grid.clientHeight) this.grid.scrollTop = bottom - this.grid.clientHeight;
  }

  offer() {
    const chosen = this.store.domains.filter((d) => this.store.chosen.has(d.id)), many = chosen.length > 1;
    this.bulk.hidden = !many;
    if (!many) return;
    setText(this.several, `${chosen.length} chosen`);
    const largest = chosen.reduce((a, b) => (b.size > a.size ? b : a));
    this.mergeName.placeholder = largest.name.slice(0, 60);
  }

  arrange() {
    const by = { size: (a, b) => b.size - a.size, order: (a, b) => a.order - b.order, name: (a, b) => a.name.localeCompare(b.name),
      gap: (a, b) => Math.abs((b.q ?? b.share) - b.share) - Math.abs((a.q ?? a.share) - a.share) }[this.order];
    const sorted = [...this.store.domains].sort((a, b) => (a.kind === "noise") - (b.kind === "noise") || by(a, b));
    const rows = this.rows(), focus = this.grid.getRootNode().activeElement, inside = this.grid.contains(focus);
    const at = Math.max(0, rows.indexOf(this.current)), ids = new Set(sorted.map((d) => d.id));
    for (const [id, card] of this.cards) {
      if (ids.has(id)) continue;
      if (card === this.current) this.current = null;
      card.node.remove();
      this.cards.delete(id);
    }
    sorted.forEach((domain, i) => {
      let card = this.cards.get(domain.id);
      if (!card) {
        card = new Card(this.store, this, domain.id);
        card.node.dataset.key = domain.id;
        this.cards.set(domain.id, card);
      }
      if (this.grid.children[i] !== card.node) this.grid.insertBefore(card.node, this.grid.children[i] || null);
    });
    const now = this.rows();
    if (!this.current && now.length) this.makeCurrent(now[clamp(at, 0, now.length - 1)]);
    // A card that went away must not take the focus with it: the next keys would reach the notebook.
    if (inside && this.grid.getRootNode().activeElement !== focus) {
      if (focus.isConnected) focus.focus({ preventScroll: true });
      else this.current?.node.focus({ preventScroll: true });
    }
  }
}
// Sources against domains: how the human labels lie across the cut. Counts are of train examples.
class Crosstab {
  constructor(store) {
    this.store = store;
    this.basis = "domain";
    this.visible = false;
    this.at = [0, 0];
    this.bases = el("div", { class: "rbx-segments", role: "group", "aria-label": "Numbers" }, ...[["domain", "% of domain"], ["source", "% of source"], ["count", "examples"]].map(([id, text]) => el("button", {
      type: "button", class: "rbx-segment", test: `basis-${id}`, "aria-pressed": String(id === this.basis), text, on: { click: () => this.choose(id) } })));
    this.only = el("input", { type: "checkbox", test: "crosstab-selection", on: { change: () => this.build() } });
    this.onlyLabel = el("label", { class: "rbx-caption" }, this.only, " selection only");
    this.table = el("table", { class: "rbx-crosstab", role: "grid", test: "crosstab", "aria-label": "Sources by domains",
      on: { keydown: (event) => this.key(event), click: (event) => this.click(event), pointerover: (event) => this.over(event.target), pointerleave: () => store.setHover(null),
        focusin: (event) => { if (event.target.matches(":focus-visible")) this.over(event.target); }, focusout: () => store.setHover(null) } });
    this.node = el("div", { class: "rbx-panel" }, el("div", { class: "rbx-panel-head" }, this.bases, this.onlyLabel),
      el("div", { class: "rbx-scroll" }, this.table), el("p", { class: "rbx-hint rbx-pad", text: "Click a cell to select its examples, a name to select all of its row or column." }));
  }

  choose(basis) {
    this.basis = basis;
    for (const node of this.bases.children) node.setAttribute("aria-pressed", String(node.dataset.test === `basis-${basis}`));
    this.build();
  }

  setVisible(on) {
    this.visible = on;
    if (on) this.build();
  }

  update(changed) {
    if (changed.has("selection")) {
      this.only.disabled = !this.store.selection.length;
      if (this.only.disabled) this.only.checked = false;
    }
    if (this.visible && (changed.has("under") || changed.has("hover"))) this.underline();
    const matter = ["domains", "labels", "sources", "source_ids", "n_train"].some((name) => changed.has(name));
    if (this.visible && (matter || (changed.has("selection") && this.tracksSelection()))) this.build();
  }

  /** The row (or column) of the domain that the pointer is over on the map. */
  underline() {
    const { under, hover, domains } = this.store, id = hover ? hover.domain : under;
    this.table.querySelectorAll("th[data-r]").forEach((node) => {
      const place = this.flip ? +node.dataset.c : +node.dataset.r;
      node.classList.toggle("rbx-under", id !== undefined && place >= 0 && domains[place]?.id === id);
    });
  }

  tracksSelection() {
    const was = this.hadSelection;
    this.hadSelection = this.only.checked;
    return was || this.hadSelection;
  }

  count() {
    const { store } = this, given = store.crosstab.counts || [];
    // A map that shows a sample cannot count the corpus; Python's own counts can.
    const sampled = store.domains.reduce((sum, d) => sum + d.size, 0) > store.nTrain;
    if (sampled && !this.only.checked && given.length === store.sources.length && given.every((row) => row.length === store.domains.length)) {
      return Float64Array.from(given.flat());
    }
    const place = new Map(store.domains.map((d, j) => [d.id, j])), wide = store.domains.length;
    const counts = new Float64Array(store.sources.length * wide), mask = this.only.checked ? store.mask : null;
    for (let i = 0; i < store.nTrain; i++) {
      const j = place.get(store.labels[i]), s = store.sourceIds[i];
      if (j !== undefined && s < store.sources.length && (!mask || mask[i])) counts[s * wide + j]++;
    }
    return counts;
  }

  build() {
    if (!this.visible) return;
    const { domains, sources } = this.store, counts = this.count(), wide = domains.length, value = (s, d) => counts[s * wide + d];
    const bySource = sources.map((_, s) => domains.reduce((sum, _d, d) => sum + value(s, d), 0));
    const byDomain = domains.map((_, d) => sources.reduce((sum, _s, s) => sum + value(s, d), 0));
    const most = Math.max(1, ...counts);
    const share = (s, d) => {
      if (this.basis === "count") return value(s, d) / most;
      return value(s, d) / Math.max(1, this.basis === "source" ? bySource[s] : byDomain[d]);
    };
    // The longer of the two runs down the page, where names can be read.
    const flip = (this.flip = sources.length > domains.length);
    const [rows, columns] = flip ? [sources, domains] : [domains, sources];
    const refs = (r, c) => (flip ? [r, c] : [c, r]);
    const head = el("tr", { role: "row" }, el("th", { class: "rbx-corner", scope: "col" }, el("span", { class: "rbx-sr", text: flip ? "source" : "domain" })),
      ...columns.map((column, c) => el("th", { scope: "col", role: "columnheader", tabindex: "-1", title: String(column.name).slice(0, 300), "data-r": "-1", "data-c": c },
        el("div", { class: "rbx-upright" }, swatch(column.colour), words("span", column.name)))));
    const body = rows.map((row, r) => el("tr", { role: "row" },
      el("th", { scope: "row", role: "rowheader", tabindex: "-1", "data-r": r, "data-c": "-1" }, el("div", { class: "rbx-isolate" }, swatch(row.colour), words("span", row.name))),
      ...columns.map((column, c) => {
        const [s, d] = refs(r, c), v = value(s, d), part = share(s, d);
        const text = !v ? "" : this.basis === "count" ? count(v) : part < 0.005 ? "<1" : String(Math.round(100 * part));
        return el("td", { role: "gridcell", tabindex: "-1", class: part > 0.5 ? "rbx-deep" : "", "data-r": r, "data-c": c, test: "cell", "data-source": s, "data-domain": domains[d].id, text,
          title: `${sources[s].name} in ${domains[d].name}: ${plural(v, "example")}`.slice(0, 400), style: { "--part": part.toFixed(3) } });
      })));
    const focused = this.table.contains(document.activeElement);
    this.table.classList.toggle("rbx-flat", columns.length < 8);
    this.table.replaceChildren(el("thead", {}, head), el("tbody", {}, ...body));
    this.at = [clamp(this.at[0], 0, rows.length - 1), clamp(this.at[1], 0, columns.length - 1)];
    this.rove(focused);
  }

  cell(r, c) {
    return this.table.querySelector(`[data-r="${r}"][data-c="${c}"]`);
  }

  rove(focus) {
    this.table.querySelectorAll("[tabindex='0']").forEach((node) => { node.tabIndex = -1; });
    const node = this.cell(...this.at);
    if (!node) return;
    node.tabIndex = 0;
    if (focus) node.focus({ preventScroll: false });
  }

  key(event) {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (move) {
      const next = [this.at[0] + move[0], this.at[1] + move[1]];
      if (this.cell(...next)) {
        this.at = next;
        this.rove(true);
      }
    } else if (event.key === "Enter" || event.key === " ") this.click(event);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Domain and source that a cell or a heading stands for. */
  meaning(target) {
    const node = target.closest("[data-r]");
    if (!node) return null;
    const r = +node.dataset.r, c = +node.dataset.c, [s, d] = this.flip ? [r, c] : [c, r];
    return { node, source: s >= 0 ? s : undefined, domain: d >= 0 ? this.store.domains[d]?.id : undefined };
  }

  over(target) {
    const meant = this.meaning(target);
    if (!meant) return;
    const hover = {};
    if (meant.domain !== undefined) hover.domain = meant.domain;
    if (meant.source !== undefined) hover.source = meant.source;
    this.store.setHover(hover);
  }

  click(event) {
    const meant = this.meaning(event.target), { labels, sourceIds, nTrain } = this.store;
    if (!meant) return;
    this.at = [+meant.node.dataset.r, +meant.node.dataset.c];
    this.rove(true);
    const rows = this.store.rows((i) => (meant.domain === undefined || labels[i] === meant.domain) && (meant.source === undefined || sourceIds[i] === meant.source), nTrain);
    this.store.select(rows, event.shiftKey ? "add" : event.altKey ? "remove" : "replace");
  }
}
// The explorer as a whole: parts side by side, tabs, and keys that stay inside.
class LogPanel {
  constructor(store) {
    this.store = store;
    this.list = el("ol", { class: "rbx-log", test: "log", reversed: true });
    this.undo = button("log-undo", { label: "Undo the last edit", text: "Undo last", name: "undo", kind: "rbx-small", on: () => store.send({ type: "undo" }) });
    this.node = el("div", { class: "rbx-panel" }, el("div", { class: "rbx-panel-head" },
      el("span", { class: "rbx-caption", text: "Every edit is recorded and can be replayed." }), this.undo), el("div", { class: "rbx-scroll", tabindex: "0", role: "region", "aria-label": "Edits" }, this.list));
  }

  update(changed) {
    if (!changed.has("history")) return;
    const { log = [], redo, undo } = this.store.history;
    const lines = log.map((line) => el("li", {}, words("span", String(line).replace(/^\d+\. /, "")))).reverse();
    if (redo) lines.unshift(el("li", { class: "rbx-undone" }, words("span", redo), el("span", { class: "rbx-tag", text: "undone" })));
    this.list.start = log.length + (redo ? 1 : 0);
    this.list.replaceChildren(...lines);
    if (!lines.length) this.list.append(el("li", { class: "rbx-hint rbx-none", text: "No edits yet." }));
    this.undo.setAttribute("aria-disabled", String(!undo));
  }
}

class Explorer {
  constructor(store, root) {
    this.store = store;
    this.root = root;
    this.map = new CorpusMap(store);
    this.toolbar = new Toolbar(store);
    this.legend = new Legend(store, this.map);
    this.status = new StatusLine(store);
    this.panels = { domains: new DomainList(store), selection: new SelectionPanel(store), crosstab: new Crosstab(store), log: new LogPanel(store) };
    const titles = { domains: "Domains", selection: "Selection", crosstab: "Sources", log: "Log" };
    this.serial = store.prefix;
    this.tabs = Object.fromEntries(Object.entries(titles).map(([id, text]) => [id, el("button", {
      type: "button", role: "tab", class: "rbx-tab", id: `rbx-tab-${id}-${this.serial}`, test: `tab-${id}`, "aria-controls": `rbx-panel-${id}-${this.serial}`, on: { click: () => this.open(id) },
    }, el("span", { text }), el("span", { class: "rbx-count-badge" }))]));
    for (const [id, panel] of Object.entries(this.panels)) {
      for (const [name, value] of Object.entries({ role: "tabpanel", id: `rbx-panel-${id}-${this.serial}`, "aria-labelledby": `rbx-tab-${id}-${this.serial}` })) panel.node.setAttribute(name, value);
      panel.node.dataset.test = `panel-${id}`;
    }
    this.tablist = el("div", { class: "rbx-tabs", role: "tablist", "aria-label": "Views", on: { keydown: (event) => this.walk(event) } }, ...Object.values(this.tabs));
    root.append(this.toolbar.node,
      el("div", { class: "rbx-body" },
        el("div", { class: "rbx-left-side" }, this.legend.node, this.map.node),
        el("div", { class: "rbx-side" }, this.tablist, ...Object.values(this.panels).map((panel) => panel.node))),
      this.status.node);
    this.parts = [this.toolbar, this.legend, this.map, this.status, ...Object.values(this.panels), this];
    store.parts = this.parts;
    this.open("domains");
    this.leave = [watchTheme(root, () => this.map.theme()), keepKeys(root, (event) => this.key(event), ["z", "y", "a", "c", "x", "v", "enter"])];
    store.touch(...TRAITS);
  }

  open(id) {
    this.shown = id;
    for (const [name, tab] of Object.entries(this.tabs)) {
      tab.setAttribute("aria-selected", String(name === id));
      tab.tabIndex = name === id ? 0 : -1;
      this.panels[name].node.hidden = name !== id;
      this.panels[name].setVisible?.(name === id);
    }
    this.store.setHover(null);
  }

  walk(event) {
    const ids = Object.keys(this.tabs), at = ids.indexOf(this.shown);
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: ids.length - 1 }[event.key];
    if (next === undefined) return;
    this.open(ids[(next + ids.length) % ids.length]);
    this.tabs[this.shown].focus();
    event.preventDefault();
  }

  /** Undo, redo and Escape. */
  key(event) {
    const command = event.ctrlKey || event.metaKey, typing = event.target.matches("input:not([type=range]):not([type=checkbox]), textarea");
    const letter = event.key.toLowerCase();
    if (command && !typing && (letter === "z" || letter === "y")) {
      this.store.send({ type: letter === "y" || event.shiftKey ? "redo" : "undo" });
      event.preventDefault();
    } else if (event.key === "Escape" && !typing && !event.defaultPrevented) this.store.clear();
  }

  update(changed) {
    const { store, tabs } = this, badge = (id, text) => setText(tabs[id].lastChild, text);
    if (changed.has("domains")) badge("domains", count(store.domains.length));
    if (changed.has("selection")) {
      badge("selection", store.selection.length ? count(store.selection.length) : "");
      if (store.selection.length && !this.hadSelection && this.shown === "domains" && !this.panels.domains.node.contains(document.activeElement)) this.open("selection");
      this.hadSelection = store.selection.length > 0;
    }
    if (changed.has("history")) badge("log", store.history.log?.length ? count(store.history.log.length) : "");
  }

  dispose() {
    for (const leave of this.leave) leave();
    for (const part of this.parts) if (part !== this) part.dispose?.();
    this.store.dispose();
    this.root.replaceChildren();
  }
}

function render({ model, el: host }) {
  const root = el("section", { class: "rbx", "aria-label": "Corpus explorer", test: "explorer" });
  host.append(root);
  const store = new Store(model), explorer = new Explorer(store, root);
  // For tests: where a row is on the map's canvas, and what a lasso cost.
  root.explorer = {
    screen: (row) => explorer.map.view.toScreen(store.xy[2 * row], store.xy[2 * row + 1]),
    get cost() { return { paint: explorer.map.layer.cost, lasso: explorer.map.lassoCost }; },
    store,
  };
  return () => {
    explorer.dispose();
    root.remove();
  };
}

export default { render };
