// The explorer: what one view of it holds, its controls, and the panels next to the map.

// ------------------------------------------------------------------- state of a view

const PATIENCE = 4000;  // ms after which an unanswered preview no longer holds back the next

const asList = (value) => value || [], asObject = (value) => value || {}, asIs = (value) => value;

// Traits of the widget: where a view keeps each, and how it is decoded.
const TRAITS = {
  xy: ["xy", (bytes) => typed(bytes, Float32Array)],
  n_train: ["nTrain", (value) => value || 0],
  labels: ["labels", (bytes) => typed(bytes, Uint16Array)],
  values: ["values", (bytes) => typed(bytes, Uint8Array)],
  source_ids: ["sourceIds", (bytes) => typed(bytes, Uint16Array)],
  domains: ["domains", asList],
  sources: ["sources", asList],
  crosstab: ["crosstab", asObject],
  colour: ["colour", asObject],
  controls: ["controls", asObject],
  history: ["history", asObject],
  status: ["status", asObject],
  notices: ["notices", asList],
  selection: ["selection", (bytes) => typed(bytes, Uint32Array)],
  selected_domains: ["chosen", (ids) => new Set(ids || [])],
  title: ["title", asIs],
  images: ["images", asIs],
};

/** The state of one view: decoded traits, the hovered point, and the texts read so far. */
class Store extends Conversation {
  constructor(model) {
    super(model);
    this.texts = new Map();
    this.hover = null;  // {domain: id} or {source: index} or {domain, source}
    this.split = "all";
    this.preview = { wanted: null, sent: false, timer: 0 };
    for (const name of Object.keys(TRAITS)) {
      this.decode(name);
      this.listen(`change:${name}`, () => {
        this.decode(name);
        this.touch(name);
        if (name === "labels" || name === "domains") this.previewShown();
      });
    }
    this.listen("msg:custom", (message) => this.hear(message));
  }

  dispose() {
    clearTimeout(this.preview.timer);
    super.dispose();
  }

  decode(name) {
    const [key, decode] = TRAITS[name];
    this[key] = decode(this.model.get(name));
    if (name === "xy") {
      this.n = this.xy.length >> 1;
      this.grid = null;
      this.texts.clear();
      this.mask = new Uint8Array(this.n);
    }
    if ((name === "xy" || name === "selection") && this.selection) {
      this.mask.fill(0);
      for (const row of this.selection) if (row < this.n) this.mask[row] = 1;
    }
    if (name === "domains") this.byId = new Map(this.domains.map((d) => [d.id, d]));
    if (name === "labels" || name === "selection" || name === "xy") this.tallies = null;
    if (name === "labels") this.sizes = null;
  }

  get colourMode() {
    return this.colour.mode || "domain";
  }

  /** Whether the map is coloured by a number for each point. */
  get continuous() {
    return (this.colour.modes || []).some((m) => m.id === this.colourMode && m.continuous);
  }

  shown(row) {
    return this.split === "all" || (row < this.nTrain) === (this.split === "train");
  }

  setSplit(split) {
    this.split = split;
    this.touch("split");
  }

  mark(row) {
    this.marked = row;
    this.touch("marked");
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

  /** Selected points in each domain: a Map from id to number. */
  selectedByDomain() {
    if (!this.tallies) {
      this.tallies = new Map();
      for (const row of this.selection) {
        const id = this.labels[row];
        this.tallies.set(id, (this.tallies.get(id) || 0) + 1);
      }
    }
    return this.tallies;
  }

  /** Shown rows that pass a test. */
  rows(test, upTo = this.n) {
    const rows = new Uint32Array(upTo);
    let size = 0;
    for (let i = 0; i < upTo; i++) if (this.shown(i) && test(i)) rows[size++] = i;
    return rows.slice(0, size);
  }

  /** Replace the selection, add to it or remove from it, and tell Python. */
  select(rows, mode = "replace") {
    let selection = rows;
    if (mode !== "replace" && this.selection.length) {
      const mask = this.mask.slice();
      for (const row of rows) mask[row] = mode === "add" ? 1 : 0;
      selection = new Uint32Array(mask.reduce((size, bit) => size + bit, 0));
      for (let i = 0, size = 0; i < this.n; i++) if (mask[i]) selection[size++] = i;
    } else if (mode === "remove") return;
    const { buffer, byteOffset, byteLength } = selection;
    this.model.set("selection", new DataView(buffer, byteOffset, byteLength));
    this.model.save_changes();
  }

  selectDomains(ids) {
    const wanted = new Set(ids);
    this.select(this.rows((row) => wanted.has(this.labels[row])));
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
    this.preview.wanted = null;  // the operation settles what was wanted live
    this.send({ type: "op", op });
  }

  hear(message) {
    super.hear(message);
    if (message?.type === "previewed" || message?.type === "error") this.previewShown();
  }

  /** A live cut: one message under way at most, and only the last one wanted follows it. */
  cutLive(k) {
    this.preview.wanted = k;
    this.sendPreview();
  }

  sendPreview() {
    const { preview } = this;
    if (preview.sent || preview.wanted === null) return;
    preview.sent = true;
    this.send({ type: "preview", method: "ward", k: preview.wanted });
    preview.wanted = null;
    clearTimeout(preview.timer);
    preview.timer = setTimeout(() => this.previewShown(), PATIENCE);
  }

  previewShown() {
    if (!this.preview.sent) return;
    clearTimeout(this.preview.timer);
    this.preview.sent = false;
    this.sendPreview();
  }

  /** Examples of some rows: those read before, and the others from Python. */
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

// ------------------------------------------------------- elements of the explorer

const hasAny = (changed, ...names) => names.some((name) => changed.has(name));
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const selectMode = (event) => (event.altKey ? "remove" : event.shiftKey ? "add" : "replace");

const div = (kind, ...children) => el("div", { class: kind }, ...children);
const caption = (text) => el("span", { class: "rbx-caption", text });
const number = (text, kind = "") => el("span", { class: `rbx-number ${kind}`, text });
const hint = (text) => el("p", { class: "rbx-hint", text });
const setChildren = (node, ...children) => node.replaceChildren(...children.filter(Boolean));

/** Swatch and name of a domain or a source. */
const named = (thing, tag = "span") =>
  el("span", { class: "rbx-isolate" }, swatch(thing.colour), words(tag, thing.name));
const IN_NO_DOMAIN = { name: "in no domain", colour: "" };

/** A small button with a text, and perhaps an icon. */
const smallButton = (test, text, label, on, { kind = "", ...rest } = {}) =>
  button(test, { label, text, kind: `rbx-small ${kind}`, on, ...rest });

/** A row of buttons of which one is pressed; items are [id, text, test], `choose` gets an id. */
function segments(label, pressed, choose, items) {
  const press = (id) => nodes.forEach((node, i) =>
    node.setAttribute("aria-pressed", String(items[i][0] === id)));
  const nodes = items.map(([id, text, test]) => el("button", {
    type: "button", class: "rbx-segment", test, text,
    on: { click: () => { press(id); choose(id); } },
  }));
  press(pressed);
  return el("div", { class: "rbx-segments", role: "group", "aria-label": label }, ...nodes);
}

/** A select; `choose` gets the value. Options are [value, text] or [value, text, disabled]. */
function select(test, label, choose, options = [], kind = "") {
  const node = el("select", { class: `rbx-select ${kind}`, test, "aria-label": label });
  node.addEventListener("change", () => choose(node.value));
  setOptions(node, options);
  return node;
}

/** Set options where they differ, and keep the value if it is still among them. */
function setOptions(node, options) {
  const key = JSON.stringify(options), { value: before } = node;
  if (node.optionsKey === key) return;
  node.optionsKey = key;
  node.replaceChildren(...options.map(([value, text, disabled]) =>
    el("option", { value, text, disabled, dir: "auto" })));
  if (options.some(([value]) => String(value) === before)) node.value = before;
}

/** An input; `enter` is called for the Enter key. */
function input(type, test, label, { enter, kind = "", ...options } = {}) {
  const style = { number: "rbx-input rbx-count", text: "rbx-input", search: "rbx-input" }[type];
  const node = el("input",
    { type, class: `${style || ""} ${kind}`, test, "aria-label": label, ...options });
  if (enter) node.addEventListener("keydown", (e) => { if (e.key === "Enter") enter(); });
  return node;
}

const nameInput = (test, label, options) =>
  input("text", test, label, { dir: "auto", maxlength: 120, ...options });

/** A labelled row of a form. */
const field = (label, ...controls) =>
  el("label", { class: "rbx-field" }, el("span", { text: label }), ...controls);

/** A small panel under a button: Escape or a click elsewhere closes it. */
function popover(opener, title, ...content) {
  const panel = el("div", { class: "rbx-popover", role: "group", "aria-label": title },
    el("h3", { text: title }), ...content);
  const node = div("rbx-anchor", opener, panel);
  opener.setAttribute("aria-haspopup", "true");
  function show(open) {
    panel.hidden = !open;
    opener.setAttribute("aria-expanded", String(open));
    if (!open) return;
    panel.classList.remove("rbx-left");
    const room = node.closest(".rbx").getBoundingClientRect(), box = panel.getBoundingClientRect();
    panel.classList.toggle("rbx-left", box.right > room.right - 4);
    panel.querySelector("input, button").focus();
  }
  show(false);
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
  const dispose = () => document.removeEventListener("pointerdown", outside, true);
  return { node, close: () => show(false), dispose };
}

function picture(address, size) {
  const src = safeImage(address);
  return src && el("img", { class: `rbx-picture ${size}`, src, alt: "", loading: "lazy" });
}

/** Domain and source of an example as they are now (its text was read some time ago). */
function originLine(store, { row, source, distance }) {
  const origin = store.sourceOf(row)?.name || source, far = Number.isFinite(distance);
  const evalTag = { class: "rbx-tag", text: "eval", title: "An example of the eval set" };
  return div("rbx-where",
    row === undefined ? null : named(store.domainOf(row) || IN_NO_DOMAIN, "b"),
    origin ? words("span", origin) : null,
    far ? el("span", { class: "rbx-number", text: `distance ${distance.toFixed(2)}`,
      title: "to the centre of its domain" }) : null,
    row >= store.nTrain ? el("span", evalTag) : null);
}

/** A list item with the text clipped to some lines; a button shows all of a longer one. */
function exampleItem(store, item) {
  const { row, text = "" } = item, clipped = words("div", text, { class: "rbx-text rbx-clipped" });
  clipped.removeAttribute("title");
  const more = el("button", { type: "button", class: "rbx-link", test: "example-more",
    "aria-expanded": "false", text: "show more" });
  more.addEventListener("click", () => {
    const whole = !clipped.classList.toggle("rbx-clipped");
    more.setAttribute("aria-expanded", String(whole));
    more.textContent = whole ? "show less" : "show more";
  });
  const long = text.length > 260 || text.split("\n").length > 4;
  const known = row !== undefined;  // the nearest examples of a card come as texts alone
  const mark = (on) => () => { if (known) store.mark(on ? row : -1); };
  return el("li", { class: "rbx-example", test: "example", "data-row": row,
    on: { pointerenter: mark(true), pointerleave: mark(false) } },
  picture(item.image, "rbx-middle"),
  div("rbx-grow", clipped, long ? more : null, known ? originLine(store, item) : null));
}

function exampleList(store, items) {
  if (!items.length) return hint("Nothing to read here.");
  return el("ul", { class: "rbx-examples" }, ...items.map((item) => exampleItem(store, item)));
}

// ----------------------------------------------------------------------- the toolbar

// Every part below is a function that returns its `node`, and what is done when traits change.

/** The line above the map: title, the cut, undo and redo, search, UMAP, export. */
function toolbar(store) {
  const title = words("span", "", { class: "rbx-title" });
  const step = (type) =>
    button(type, { label: `Nothing to ${type}`, name: type, on: () => store.send({ type }) });
  const undo = step("undo"), redo = step("redo");
  const parts = [cutControls(store), searchBox(store), mapForm(store), exportForm(store)];
  const [cut, ...actions] = parts;
  const squares = Array.from({ length: 9 }, () => el("i"));
  const node = el("header", { class: "rbx-bar" },
    div("rbx-brand", el("span", { class: "rbx-logo", "aria-hidden": "true" }, ...squares), title),
    cut.node,
    div("rbx-actions", div("rbx-pair", undo, redo), ...actions.map((part) => part.node)));

  function showStep(node, what, keys, otherwise) {
    node.setAttribute("aria-disabled", String(!what));
    node.setAttribute("aria-label", what || otherwise);
    node.title = what ? `${what} (${keys})` : otherwise;
  }

  function update(changed) {
    for (const part of parts) part.update?.(changed);
    if (changed.has("title")) setWords(title, store.title || "Corpus explorer");
    if (!changed.has("history")) return;
    const { history } = store;
    showStep(undo, history.undo && `Undo: ${history.undo}`, "Ctrl+Z", "Nothing to undo");
    showStep(redo, history.redo && `Redo: ${history.redo}`, "Ctrl+Shift+Z", "Nothing to redo");
  }

  return { node, update, dispose: () => parts.forEach((part) => part.dispose()) };
}

function searchBox(store) {
  let searched, searching = false;
  const hits = el("output", { class: "rbx-found", test: "found" });
  const box = input("search", "search", "Search the texts", {
    kind: "rbx-query", placeholder: "Search texts", dir: "auto", enter: search,
    on: { input: () => searchSoon() },
  });
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !box.value) return;
    box.value = "";
    search();
    event.stopPropagation();
  });
  const searchSoon = debounced(350, search);

  async function search() {
    searchSoon.cancel();
    const query = box.value.trim();
    // The last query typed follows when the one under way is answered.
    if (query === searched || searching) return;
    searched = query;
    hits.textContent = query ? "…" : "";
    if (!query) {
      if (store.selection.length) store.select(new Uint32Array(0));
      return;
    }
    searching = true;
    const reply = await Promise.race([store.ask({ type: "search", query }), pause(20000)]);
    searching = false;
    if (box.value.trim() !== query) search();
    else hits.textContent = reply ? `${count(reply.count)} found` : "";
  }

  const node = el("div", { class: "rbx-search", role: "search" }, icon("search"), box, hits);
  return { node, dispose: () => searchSoon.cancel() };
}

/** Parameters of UMAP. */
function mapForm(store) {
  const slider = (test, label, min, max, step) =>
    input("range", test, label, { min, max, step, on: { input: showValues } });
  const sliders = [
    slider("n-neighbors", "Neighbours", 2, 100, 1),
    slider("min-dist", "Smallest distance", 0, 0.99, 0.01),
  ];
  const outputs = sliders.map(() => el("output", { class: "rbx-number" }));
  const [neighbours, distance] = sliders.map((node, i) =>
    field(node.getAttribute("aria-label"), node, outputs[i]));
  const run = () => {
    const [n_neighbors, min_dist] = sliders.map((node) => +node.value);
    store.send({ type: "map", n_neighbors, min_dist });
    form.close();
  };
  const form = popover(
    button("map-open", { label: "Parameters of the map (UMAP)", text: "Map", name: "sliders" }),
    "The map (UMAP)", neighbours, distance,
    hint("The map is for looking: domains are cut from the vectors, so they stay as they are. "
      + "Sizes and distances between groups on the map mean little."),
    button("map-run", { label: "Compute the map again with UMAP", text: "Compute the map",
      kind: "rbx-primary", on: run }));

  function showValues() {
    outputs.forEach((output, i) => { output.textContent = sliders[i].value; });
  }

  function update(changed) {
    if (!changed.has("controls") || sliders.includes(document.activeElement)) return;
    sliders[0].value = store.controls.n_neighbors ?? 15;
    sliders[1].value = store.controls.min_dist ?? 0.1;
    showValues();
  }

  return { ...form, update };
}

function exportForm(store) {
  const outcome = el("div", { class: "rbx-outcome", role: "status", test: "export-result" });
  const folder = input("text", "export-folder", "Folder",
    { value: "domains", spellcheck: "false", enter: run });

  async function run() {
    const path = folder.value.trim();
    if (!path) return folder.focus();
    outcome.replaceChildren(el("span", { class: "rbx-hint", text: "Writing…" }));
    const reply = await store.ask({ type: "export", folder: path });
    if (reply.type !== "exported") return outcome.replaceChildren(words("span", reply.text));
    const files = (reply.files || []).map((file) => el("li", {}, words("code", file)));
    outcome.replaceChildren(
      el("b", { text: "Written" }), words("code", reply.folder), el("ul", {}, ...files),
      el("div", { class: "rbx-hint", text: "To train on them:" }), words("code", reply.next));
  }

  return popover(
    button("export-open",
      { label: "Export the domains", text: "Export", name: "save", kind: "rbx-primary" }),
    "Export the domains", field("Folder", folder),
    hint("Labels, centres, names, sampling weights and the log of edits, ready to train on."),
    button("export-run", { label: "Write the domains into this folder", text: "Write",
      kind: "rbx-primary", on: run }),
    outcome);
}

const METHODS = {
  ward: "Ward hierarchy", kmeans: "k-means", hdbscan: "HDBSCAN", sources: "source labels",
  hand: "edited by hand",
};
const POLICIES = [
  ["nearest", "join the nearest domain"], ["own", "make a domain of their own"],
  ["drop", "are left out"],
];
const REST = 350;  // ms after the last key before a cut is made

/** How the corpus is cut: the method, its slider, and what happens to noise. */
function cutControls(store) {
  const method = select("method", "Method", cutBy);
  method.title = "How the corpus is cut";
  const k = kControls(store), size = sizeControls(store), noise = noiseControls(store);
  const node = el("div", { class: "rbx-cut", role: "group", "aria-label": "Cut" },
    method, k.node, size.node, noise.node);

  function cutBy(name) {
    const { k, min_cluster_size } = store.controls;
    const params = { hdbscan: { min_cluster_size }, sources: {} }[name] || { k };
    store.operate({ op: "cut", method: name, ...params });
  }

  function update(changed) {
    k.update(changed);
    if (!changed.has("controls")) return;
    const c = store.controls, dense = c.method === "hdbscan";
    const methods = [...new Set([...(c.methods || []), c.method])].filter(Boolean);
    setOptions(method, methods.map((name) => [name, METHODS[name] || name, name === "hand"]));
    method.value = c.method;
    k.node.hidden = dense || c.method === "sources";
    size.node.hidden = !dense;
    noise.node.hidden = !dense && !(c.noise_share > 0);
    node.classList.toggle("rbx-long", !noise.node.hidden);
    size.update();
    noise.update();
  }

  return { node, update, dispose: k.dispose };
}

/** The number of domains: a slider that cuts the hierarchy live, a number, the advice. */
function kControls(store) {
  let held = false, sliding = false, resting = 0, late = 0, expected = null;
  const slider = input("range", "k", "Number of domains", { min: 2, max: 30, step: 1, on: {
    input: slide, change: () => settleSoon(held ? 0 : REST), blur: settleNow,
    pointerdown: () => { held = true; }, keydown: () => { held = false; },
  } });
  const box = input("number", "k-number", "Number of domains", { min: 2, step: 1, on: {
    change: () => {
      slider.value = box.value;
      slide();
      settleSoon(REST);
    },
    blur: settleNow,
  } });
  const advice = el("button", { type: "button", class: "rbx-link rbx-advice", test: "recommended",
    on: { click: () => cutInto(store.controls.recommended.k) } });
  const tick = el("i", { class: "rbx-tick", "aria-hidden": "true" });
  const refine = smallButton("refine", "Refine", "Refine the cut with k-means from these centres",
    () => store.operate({ op: "refine" }));
  const node = div("rbx-part", caption("domains"),
    el("span", { class: "rbx-track" }, slider, tick), box, advice, refine);

  const method = () => (store.controls.method === "kmeans" ? "kmeans" : "ward");
  const cutInto = (k) => store.operate({ op: "cut", method: method(), k });

  function slide() {
    box.value = slider.value;
    slider.setAttribute("aria-valuetext", `${slider.value} domains`);
    sliding = true;
    if (method() === "ward") store.cutLive(+slider.value);
  }

  /** Keys change a slider step by step: they make one operation, once they rest. */
  function settleSoon(wait) {
    clearTimeout(resting);
    resting = setTimeout(settle, wait);
  }

  function settleNow() {
    held = false;
    if (resting) settle();
  }

  function settle() {
    clearTimeout(resting);
    clearTimeout(late);
    resting = 0;
    sliding = false;
    const k = clamp(Math.round(+slider.value) || 2, +slider.min, +slider.max);
    box.value = slider.value = k;
    expected = { k, until: Date.now() + PATIENCE };
    late = setTimeout(() => store.touch("controls"), PATIENCE + 50);
    cutInto(k);
  }

  function update(changed) {
    if (changed.has("error")) expected = null;
    if (!changed.has("controls")) return;
    const { k, k_max, recommended } = store.controls;
    refine.hidden = store.controls.method !== "ward";
    slider.max = box.max = Math.max(2, k_max || 30);
    // The answer to an earlier step must not push back the slider under the hand.
    const early = expected && k !== expected.k && Date.now() < expected.until;
    if (!sliding && !early) {
      expected = null;
      slider.value = box.value = k ?? 2;
      slider.setAttribute("aria-valuetext", `${k} domains`);
    }
    advice.hidden = tick.hidden = !recommended;
    if (!recommended) return;
    setText(advice, recommended.k === k ? "as advised" : `advised: ${recommended.k}`);
    advice.title = tick.title = recommended.text || "";
    tick.style.setProperty("--at", (recommended.k - 2) / Math.max(1, slider.max - 2));
  }

  const dispose = () => [late, resting].forEach(clearTimeout);
  return { node, update, dispose };
}

/** HDBSCAN: the smallest cluster, and how many neighbours make an example dense. */
function sizeControls(store) {
  let sliding = false;
  // The slider is logarithmic: 5 to 10 shows as much as 500 to 1,000.
  const span = () => Math.log(Math.max(3, store.controls.size_max || 500) / 2);
  const toSlider = (size) => Math.round((100 * Math.log(Math.max(size, 2) / 2)) / span());
  const cut = (min_cluster_size, more) =>
    store.operate({ op: "cut", method: "hdbscan", min_cluster_size, ...more });
  const settle = () => {
    sliding = false;
    const size = Math.max(2, Math.round(+box.value) || 2);
    slider.value = toSlider(size);
    cut(size);
  };
  const slide = () => {
    sliding = true;
    box.value = Math.round(2 * Math.exp((span() * slider.value) / 100));
    slider.setAttribute("aria-valuetext", `at least ${box.value} examples`);
  };
  const settleDensity = () => {
    const min_samples = Math.max(1, Math.round(+density.value) || 10);
    cut(store.controls.min_cluster_size, { min_samples });
  };
  const slider = input("range", "min-cluster-size", "Smallest cluster",
    { min: 0, max: 100, step: 1, on: { input: slide, change: settle } });
  const box = input("number", "min-cluster-size-number", "Smallest cluster, in examples",
    { min: 2, step: 1, on: { change: settle } });
  const density = input("number", "min-samples",
    "Neighbours that make an example dense (min_samples)", {
      min: 1, step: 1, on: { change: settleDensity },
      title: "Neighbours that make an example dense: more of them make more outliers "
        + "(min_samples)",
    });

  function update() {
    const { min_cluster_size, min_samples } = store.controls;
    if (document.activeElement !== density) density.value = min_samples ?? 10;
    if (sliding) return;
    box.value = min_cluster_size ?? "";
    slider.value = toSlider(min_cluster_size ?? 2);
  }

  const node = div("rbx-part", caption("smallest"), slider, box, caption("density"), density);
  return { node, update };
}

function noiseControls(store) {
  const settle = () => {
    const max_noise = most.value === "" ? null : clamp(+most.value, 0, 100) / 100;
    store.operate({ op: "noise", policy: policy.value, max_noise });
  };
  const policy = select("noise", "Outliers", settle, POLICIES);
  const most = input("number", "max-noise", "At most this share of outliers, in percent",
    { min: 0, max: 100, step: 1, placeholder: "any", on: { change: settle } });
  const effect = el("span", { class: "rbx-hint rbx-noise-text", test: "noise-text" });

  function update() {
    const { noise, max_noise, noise_text } = store.controls;
    policy.value = noise || "nearest";
    if (document.activeElement !== most) {
      most.value = Number.isFinite(max_noise) ? Math.round(100 * max_noise) : "";
    }
    setWords(effect, noise_text);
  }

  const node = div("rbx-part rbx-noise", caption("outliers"), policy, caption("at most"), most,
    caption("%"), effect);
  return { node, update };
}

// ---------------------------------------------------------------- the list of domains

const gapToTarget = ({ q, share }) => Math.abs((q ?? share) - share);
const ORDERS = {
  size: ["largest first", (a, b) => b.size - a.size],
  gap: ["furthest from q", (a, b) => gapToTarget(b) - gapToTarget(a)],
  order: ["by similarity", (a, b) => a.order - b.order],
  name: ["by name", (a, b) => a.name.localeCompare(b.name)],
};

/** A grid of cards that arrows walk, with what can be done to several domains at once. */
function domainList(store) {
  const cards = new Map();
  let current = null;  // the card that Tab reaches
  const grid = el("div", {
    class: "rbx-cards", role: "treegrid", test: "cards", "aria-label": "Domains",
    "aria-multiselectable": "true", on: { keydown: key, focusin: focused, focusout: (event) => {
      if (!grid.contains(event.relatedTarget)) store.setHover(null);
    } },
  });
  const order = select("sort", "Order", arrange,
    Object.entries(ORDERS).map(([value, [text]]) => [value, text]), "rbx-small");
  const barKey = el("span", { class: "rbx-caption rbx-legend-q" },
    el("i", { class: "rbx-sample-share" }), "share of train ",
    el("i", { class: "rbx-sample-want" }), "target q");
  const several = el("span", { class: "rbx-several" });
  const mergeName = nameInput("merge-name", "Name of the merged domain", { enter: merge });
  const bulk = el("div",
    { class: "rbx-bulk", test: "bulk", role: "group", "aria-label": "Chosen domains" },
    several, mergeName,
    smallButton("merge", "Merge", "Merge the chosen domains into one", merge,
      { name: "merge", kind: "rbx-primary" }),
    smallButton("bulk-select", "Select", "Select their examples",
      () => store.selectDomains(store.chosen), { name: "points" }),
    button("bulk-clear", { label: "Choose none", name: "close", kind: "rbx-small", on: () => {
      focusCurrent();
      store.choose([]);
    } }));
  const node = div("rbx-panel", div("rbx-panel-head", order, barKey), grid, bulk);

  const focus = () => grid.getRootNode().activeElement;
  const focusCurrent = () => (current?.node || grid).focus({ preventScroll: true });
  const rows = () => [...grid.children].map(cardOf);  // from top to bottom

  function cardOf(target) {
    const card = target.closest(".rbx-card");
    return card && cards.get(+card.dataset.key);
  }

  function makeCurrent(card) {
    if (current) current.node.tabIndex = -1;
    current = card;
    card.node.tabIndex = 0;
  }

  function focused(event) {
    const card = cardOf(event.target);
    if (!card) return;
    makeCurrent(card);
    const byKey = card.node.matches(":focus-visible, :has(:focus-visible)");
    if (byKey) store.setHover({ domain: card.id });
  }

  function merge() {
    const domains = rows().map((card) => card.id).filter((id) => store.chosen.has(id));
    const name = mergeName.value.trim();
    if (domains.length < 2) return;
    mergeName.value = "";
    focusCurrent();
    store.operate({ op: "merge", domains, ...(name && { name }) });
  }

  function click(card, event) {
    const chosen = new Set(store.chosen), all = rows();
    if (event.shiftKey && current) {
      const [a, b] = [all.indexOf(current), all.indexOf(card)].sort((x, y) => x - y);
      all.slice(a, b + 1).forEach((row) => chosen.add(row.id));
    } else if (event.ctrlKey || event.metaKey) {
      if (!chosen.delete(card.id)) chosen.add(card.id);
    } else {
      const alone = chosen.size === 1 && chosen.has(card.id);
      chosen.clear();
      if (!alone) chosen.add(card.id);
    }
    makeCurrent(card);
    card.node.focus({ preventScroll: true });
    store.choose(chosen);
  }

  function key(event) {
    const card = cardOf(event.target), command = event.ctrlKey || event.metaKey;
    if (!card) return;
    if (event.target !== card.node) {  // in its details
      if (event.key !== "Escape") return;
      card.node.focus();
    } else {
      if (event.altKey || (command && event.key !== "a")) return;
      const all = rows(), at = all.indexOf(card), last = all.length - 1;
      const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: last }[event.key];
      if (to !== undefined) all[clamp(to, 0, last)].node.focus();
      else if (event.key === "ArrowRight") card.open(true);
      else if (event.key === "ArrowLeft") card.open(false);
      else if (event.key === " ") click(card, { ctrlKey: true });
      else if (event.key === "a" && command) store.choose(all.map((row) => row.id));
      else if (event.key === "Enter") {
        store.selectDomains(store.chosen.has(card.id) ? store.chosen : [card.id]);
      } else if (event.key === "F2") card.rename();
      else if (event.key === "Delete") store.operate({ op: "drop", domain: card.id });
      else return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  function update(changed) {
    const { domains, chosen, hover, under } = store;
    if (hasAny(changed, "domains", "selection", "selected_domains", "labels", "n_train")) {
      if (changed.has("domains")) arrange();
      const top = Math.max(1e-9, ...domains.map((d) => Math.max(d.share || 0, d.q || 0)));
      for (const domain of domains) cards.get(domain.id)?.update(domain, top);
      const [largest, ...others] = domains.filter((d) => chosen.has(d.id))
        .sort((a, b) => b.size - a.size);
      bulk.hidden = !others.length;
      setText(several, `${others.length + 1} chosen`);
      mergeName.placeholder = largest?.name.slice(0, 60) || "";
    }
    if (hasAny(changed, "hover", "under")) {
      const id = hover ? hover.domain : under;
      cards.forEach((card) => card.node.classList.toggle("rbx-hovered", card.id === id));
    }
    if (changed.has("selected_domains") && !grid.contains(focus())) reveal();
  }

  /** Chosen on the map: its card comes into view, without moving the notebook. */
  function reveal() {
    const card = rows().find((row) => store.chosen.has(row.id));
    if (!card || !grid.clientHeight) return;
    const top = card.node.offsetTop - grid.offsetTop;
    const least = top + card.head.offsetHeight - grid.clientHeight;
    if (top < grid.scrollTop) grid.scrollTop = top;
    else if (grid.scrollTop < least) grid.scrollTop = least;
  }

  function arrange() {
    const compare = ORDERS[order.value][1], before = focus(), inside = grid.contains(before);
    const sorted = [...store.domains]
      .sort((a, b) => (a.kind === "noise") - (b.kind === "noise") || compare(a, b));
    const at = Math.max(0, rows().indexOf(current));
    for (const [id, card] of cards) {
      if (store.byId.has(id)) continue;
      if (card === current) current = null;
      card.node.remove();
      cards.delete(id);
    }
    sorted.forEach(({ id }, i) => {
      if (!cards.has(id)) cards.set(id, domainCard(store, id, click));
      const card = cards.get(id).node;
      if (grid.children[i] !== card) grid.insertBefore(card, grid.children[i] || null);
    });
    const all = rows();
    if (!current && all.length) makeCurrent(all[clamp(at, 0, all.length - 1)]);
    // A card that goes away must not take the focus along: the next keys would reach the notebook.
    if (inside && focus() !== before) {
      (before.isConnected ? before : current?.node)?.focus({ preventScroll: true });
    }
  }

  return { node, update };
}

/** One domain in the list: a line about it, and behind it examples and operations. */
function domainCard(store, id, onClick) {
  let examplesKind = "nearest", examples = null, renaming = false, shown = "";
  const name = words("span", "", { class: "rbx-name", test: "card-name" });
  const size = number("", "rbx-size"), share = number("", "rbx-share"), q = number("", "rbx-q");
  const bar = (kind) => el("i", { class: `rbx-bar-${kind}` });
  const shareBar = bar("share"), partBar = bar("part"), targetBar = bar("want");
  const terms = words("div", "", { class: "rbx-terms" });
  const picked = el("div", { class: "rbx-picked", test: "card-selected", hidden: true });
  const dot = swatch("");
  const toggle = el("button", {
    type: "button", class: "rbx-toggle", test: "card-toggle", tabindex: "-1",
    "aria-label": "Details", title: "Details (arrow right, arrow left)",
  }, icon("chevron"));
  const head = el("div", { class: "rbx-card-head", role: "gridcell" },
    dot,
    div("rbx-grow",
      div("rbx-line", name, size, share),
      el("div", { class: "rbx-bar-box", "aria-hidden": "true" }, shareBar, partBar, targetBar),
      div("rbx-line", terms, q), picked),
    toggle);
  const details = el("div", { class: "rbx-details", role: "gridcell", hidden: true });
  const node = el("div", {
    class: "rbx-card", role: "row", tabindex: "-1", test: "card", "data-key": id, on: {
      pointerenter: () => store.setHover({ domain: id }), pointerleave: () => store.setHover(null),
    },
  }, head, details);
  toggle.addEventListener("click", (event) => {
    event.stopPropagation();
    open(details.hidden);
  });
  name.addEventListener("dblclick", (event) => {
    event.stopPropagation();
    rename();
  });
  head.addEventListener("click", (event) => { if (!renaming) onClick(card, event); });

  /** Show the domain; `top` is the share at which a bar is full. */
  function update(domain, top) {
    const along = (value) => `${100 * clamp(value / top, 0, 1)}%`;
    const hasTarget = Number.isFinite(domain.q), noise = domain.kind === "noise";
    node.dataset.domain = id;
    node.classList.toggle("rbx-noise-card", noise);
    dot.style.setProperty("--colour", safeColour(domain.colour));
    setWords(name, domain.name);
    setText(size, count(domain.size));
    setText(share, percent(domain.share));
    shareBar.style.inlineSize = along(domain.share);
    targetBar.hidden = !hasTarget;
    if (hasTarget) targetBar.style.insetInlineStart = along(domain.q);
    setText(q, hasTarget ? `q ${percent(domain.q)}` : "");
    q.title = hasTarget ? "Share of this domain in the eval set" : "";
    setWords(terms, (domain.terms || []).join(" · "));
    node.setAttribute("aria-selected", String(store.chosen.has(id)));
    node.setAttribute("aria-expanded", String(!details.hidden));
    node.setAttribute("aria-label", (`${domain.name}, ${plural(domain.size, "example")}, `
      + percent(domain.share) + (hasTarget ? `, target ${percent(domain.q)}` : "")).slice(0, 300));
    const inside = store.selectedByDomain().get(id) || 0;
    const part = inside / Math.max(1, store.pointsIn(id));
    picked.hidden = !inside;
    setText(picked, `${count(inside)} selected, ${percent(part)} of this domain`);
    const width = 100 * clamp((domain.share / top) * part, 0.004, 1);
    partBar.style.inlineSize = inside ? `${width}%` : "0";
    const { sources, nearest, tokens, eval_size } = domain;
    const now = JSON.stringify([sources, nearest, tokens, eval_size, noise]);
    if (!details.hidden && now !== shown) fillDetails();
    shown = now;
  }

  function open(wide) {
    details.hidden = !wide;
    node.classList.toggle("rbx-open", wide);
    node.setAttribute("aria-expanded", String(wide));
    if (wide) fillDetails();
    else details.replaceChildren();
  }

  function fillDetails() {
    const domain = store.byId.get(id);
    const facts = [
      plural(domain.size, "example"),
      domain.eval_size && `${count(domain.eval_size)} in the eval set`,
      domain.tokens && `${count(domain.tokens)} tokens`,
    ].filter(Boolean).join(" · ");
    const thumbs = (domain.thumbs || []).slice(0, 8)
      .map((image) => picture(image, "rbx-small-picture")).filter(Boolean);
    const sourceBar = (part) => el("span", { "aria-hidden": "true" },
      el("i", { style: { "inline-size": `${100 * clamp(part, 0, 1)}%` } }));
    const sources = (domain.sources || []).slice(0, 6).map(([source, part]) =>
      el("li", {}, words("span", source), sourceBar(part), number(percent(part))));
    const kinds = ["nearest", "strangest", "random"];
    examples = div("rbx-card-examples");
    setChildren(details,
      el("p", { class: "rbx-facts", text: facts }),
      thumbs.length && div("rbx-thumbs", ...thumbs),
      sources.length && el("ul", { class: "rbx-sources", "aria-label": "Sources" }, ...sources),
      actions(domain.kind === "noise"),
      segments("Which examples", examplesKind, showExamples,
        kinds.map((kind) => [kind, kind, `examples-${kind}`])),
      examples);
    if (examplesKind !== "nearest") return showExamples(examplesKind);
    examples.append(exampleList(store, (domain.nearest || []).map((text) => ({ text }))));
  }

  function actions(noise) {
    const split = () => {
      const n = clamp(Math.round(+parts.value) || 2, 2, 20);
      store.operate({ op: "split", domain: id, parts: n });
    };
    const parts = input("number", "split-parts", "Number of parts",
      { value: 2, min: 2, max: 20, enter: split });
    return div("rbx-row",
      noise ? null : smallButton("rename", "Rename", "Rename (F2)", rename, { name: "pencil" }),
      smallButton("select-points", "Select", "Select its examples (Enter)",
        () => store.selectDomains([id]), { name: "points" }),
      el("span", { class: "rbx-pair" },
        smallButton("split-run", "Split into", "Split this domain", split, { name: "split" }),
        parts),
      noise ? null : smallButton("drop", "Drop",
        "Drop: its examples are in no domain and are not trained on",
        () => store.operate({ op: "drop", domain: id }), { name: "trash" }));
  }

  async function showExamples(kind) {
    examplesKind = kind;
    const target = examples, reply = await store.ask({ type: "more", domain: id, kind });
    if (examplesKind !== kind || target !== examples) return;
    target.replaceChildren(exampleList(store, reply.items || []));
  }

  function rename() {
    const before = store.byId.get(id);
    if (renaming || before.kind === "noise") return;
    const box = nameInput("rename-input", "New name", { kind: "rbx-rename", value: before.name });
    const done = (keep) => {
      if (!renaming) return;
      renaming = false;
      const wanted = box.value.trim(), focused = box.getRootNode().activeElement === box;
      box.replaceWith(name);
      if (keep && wanted && wanted !== store.byId.get(id)?.name) {
        setWords(name, wanted);  // at once; Python's answer follows
        store.operate({ op: "rename", domain: id, name: wanted });
      }
      if (focused) node.focus({ preventScroll: true });
    };
    box.addEventListener("keydown", (event) => {
      if (event.key !== "Tab") event.stopPropagation();
      if (event.key !== "Enter" && event.key !== "Escape") return;
      done(event.key === "Enter");
      event.preventDefault();
    });
    box.addEventListener("blur", () => done(true));
    renaming = true;
    name.replaceWith(box);
    box.focus();
    box.select();
  }

  const card = { id, node, head, update, open, rename };
  return card;
}

// --------------------------------------------------------------------- the selection

const PAGE = 12;  // examples read at once

/** The selection: where it lies, its texts to read, and another domain to move it to. */
function selectionPanel(store) {
  let read = 0, visible = false, stale = false;
  const heading = el("h3", { class: "rbx-heading", test: "selection-count" });
  const spread = el("ul",
    { class: "rbx-spread", "aria-label": "Domains of the selection", test: "selection-domains" });
  const target = select("move-target", "Move to", askName, [], "rbx-grow");
  const name = nameInput("move-name", "Name of the new domain",
    { kind: "rbx-grow", placeholder: "name of the new domain", enter: move });
  const examples = el("ul", { class: "rbx-examples" });
  const more = smallButton("selection-more", "Read more", "Read more of the selection",
    () => load(false));
  const list = el("div", { class: "rbx-scroll rbx-reading", tabindex: "0", role: "region",
    "aria-label": "Selected examples", test: "selection-list" }, examples, more);
  more.hidden = true;
  const empty = el("div", { class: "rbx-empty", test: "selection-empty" },
    icon("lasso"), el("b", { text: "Nothing selected" }),
    el("p", { text: "Draw a loop around examples on the map, search for a word, or press Enter "
      + "on a domain. Shift adds, Alt takes away." }));
  const filled = div("rbx-filled",
    div("rbx-panel-head", heading, smallButton("selection-clear", "Clear",
      "Clear the selection (Esc)", () => store.select(new Uint32Array(0)))),
    spread,
    el("div", { class: "rbx-move", role: "group", "aria-label": "Move the selection" },
      caption("Move to"), target, name,
      smallButton("move", "Move", "Move the selected examples", move, { kind: "rbx-primary" })),
    list);
  const node = div("rbx-panel", empty, filled);
  const loadSoon = debounced(120, () => load(true));

  function askName() {
    name.hidden = target.value !== "new";
    if (!name.hidden && node.contains(document.activeElement)) name.focus();
  }

  function move() {
    const fresh = target.value === "new", wanted = name.value.trim();
    name.value = "";
    const to = fresh ? null : +target.value;
    store.operate({ op: "move", to, ...(fresh && wanted && { name: wanted }) });
  }

  /** A page of rows spread over the selection: the first rows of a corpus are rarely typical. */
  function page(from) {
    const { selection } = store, n = selection.length;
    const divisor = (a, b) => (b ? divisor(b, a % b) : a);
    let step = Math.max(1, Math.round(n * 0.618));
    while (divisor(n, step) !== 1) step++;
    const length = Math.max(0, Math.min(PAGE, n - from));
    return Array.from({ length }, (_, i) => selection[((from + i) * step) % n]);
  }

  async function load(fresh) {
    const { selection } = store;
    if (!visible || !selection.length) return;
    stale = false;
    if (fresh) read = 0;
    const items = await store.read(page(read));
    if (selection !== store.selection) return;
    if (fresh) {
      examples.replaceChildren();
      list.scrollTop = 0;
    }
    examples.append(...items.map((item) => exampleItem(store, item)));
    read = Math.min(selection.length, read + PAGE);
    more.hidden = read >= selection.length;
  }

  function setVisible(on) {
    visible = on;
    if (on && stale) loadSoon();  // one load, whether selection or tab came first
  }

  function update(changed) {
    if (hasAny(changed, "selection", "xy")) {
      stale = true;
      loadSoon();
    }
    if (hasAny(changed, "selection", "labels", "domains", "xy")) showSpread();
    if (!changed.has("domains")) return;
    const domains = store.domains.filter((d) => d.kind !== "noise");
    setOptions(target, [["new", "a new domain"], ...domains.map((d) => [d.id, d.name])]);
    askName();
  }

  function showSpread() {
    const n = store.selection.length;
    empty.hidden = n > 0;
    filled.hidden = n === 0;
    setText(heading, `${plural(n, "example")} selected`);
    const sizes = [...store.selectedByDomain()].sort((a, b) => b[1] - a[1]);
    const line = (size, ...title) => el("li", { style: { "--part": `${(100 * size) / n}%` } },
      ...title, number(`${count(size)} · ${percent(size / n)}`));
    const lines = sizes.slice(0, 6).map(([id, size]) => {
      const domain = store.byId.get(id) || IN_NO_DOMAIN;
      return line(size, swatch(domain.colour), words("span", domain.name));
    });
    const rest = sizes.slice(6).reduce((sum, [, size]) => sum + size, 0);
    setChildren(spread, ...lines,
      rest && line(rest, words("span", `${sizes.length - 6} more domains`)));
  }

  return { node, update, setVisible, dispose: () => loadSoon.cancel() };
}

// ----------------------------------------------------------------------- the crosstab

/** Sources against domains: how the human labels lie across the cut, in train examples. */
function crosstabPanel(store) {
  let basis = "domain", visible = false, flip = false;
  let current = [0, 0];  // row and column that Tab reaches; -1 for headings
  const bases = segments("Numbers", basis, (id) => {
    basis = id;
    build();
  }, [["domain", "% of domain", "basis-domain"], ["source", "% of source", "basis-source"],
    ["count", "examples", "basis-count"]]);
  const only = el("input",
    { type: "checkbox", test: "crosstab-selection", on: { change: build } });
  const leave = () => store.setHover(null);
  const table = el("table", {
    class: "rbx-crosstab", role: "grid", test: "crosstab", "aria-label": "Sources by domains",
    on: {
      keydown: key, click, focusout: leave, pointerleave: leave,
      pointerover: (event) => hover(event.target),
      focusin: ({ target }) => { if (target.matches(":focus-visible")) hover(target); },
    },
  });
  const node = div("rbx-panel",
    div("rbx-panel-head", bases, el("label", { class: "rbx-caption" }, only, " selection only")),
    div("rbx-scroll", table),
    el("p", { class: "rbx-hint rbx-pad", text: "Click a cell to select its examples, a name to "
      + "select all of its row or column." }));

  function setVisible(on) {
    visible = on;
    if (on) build();
  }

  function update(changed) {
    const hadSelection = only.checked;
    if (changed.has("selection")) {
      only.disabled = !store.selection.length;
      if (only.disabled) only.checked = false;
    }
    if (!visible) return;
    if (hasAny(changed, "under", "hover")) markHovered();
    const counted = hasAny(changed, "domains", "labels", "sources", "source_ids", "n_train");
    if (counted || (changed.has("selection") && hadSelection)) build();
  }

  /** Mark the row (or column) of the domain under the pointer, here or on the map. */
  function markHovered() {
    const { under, hover, domains } = store, id = hover ? hover.domain : under;
    table.querySelectorAll("th[data-r]").forEach((heading) => {
      const domain = domains[flip ? heading.dataset.c : heading.dataset.r];
      heading.classList.toggle("rbx-under", domain !== undefined && domain.id === id);
    });
  }

  /** Number of train examples by source and domain, flat: sources first. */
  function counts() {
    const { domains, sources, crosstab, nTrain, labels, sourceIds, mask } = store;
    const given = crosstab.counts || [], wide = domains.length;
    // A map that shows a sample cannot count the corpus; Python's own counts can.
    const sampled = domains.reduce((sum, d) => sum + d.size, 0) > nTrain;
    const fits = given.length === sources.length && given.every((row) => row.length === wide);
    if (sampled && !only.checked && fits) return Float64Array.from(given.flat());
    const place = new Map(domains.map((d, j) => [d.id, j]));
    const table = new Float64Array(sources.length * wide);
    for (let i = 0; i < nTrain; i++) {
      const j = place.get(labels[i]), s = sourceIds[i];
      if (j === undefined || s >= sources.length || (only.checked && !mask[i])) continue;
      table[s * wide + j]++;
    }
    return table;
  }

  function build() {
    if (!visible) return;
    const { domains, sources } = store, flat = counts(), most = Math.max(1, ...flat);
    const bySource = new Float64Array(sources.length), byDomain = new Float64Array(domains.length);
    flat.forEach((n, i) => {
      bySource[Math.floor(i / domains.length)] += n;
      byDomain[i % domains.length] += n;
    });
    // The longer of the two runs down the page, where names can be read.
    flip = sources.length > domains.length;
    const [rows, columns] = flip ? [sources, domains] : [domains, sources];

    const cell = (r, c) => {
      const [s, d] = flip ? [r, c] : [c, r], n = flat[s * domains.length + d];
      const whole = { count: most, source: bySource[s], domain: byDomain[d] }[basis];
      const share = n / Math.max(1, whole);
      const rounded = share < 0.005 ? "<1" : String(Math.round(100 * share));
      const title = `${sources[s].name} in ${domains[d].name}: ${plural(n, "example")}`;
      return el("td", {
        role: "gridcell", tabindex: "-1", class: share > 0.5 ? "rbx-deep" : "", test: "cell",
        "data-r": r, "data-c": c, "data-source": s, "data-domain": domains[d].id,
        text: !n ? "" : basis === "count" ? count(n) : rounded,
        title: title.slice(0, 400), style: { "--part": share.toFixed(3) },
      });
    };
    const rowHeading = (row, r) => el("th", {
      scope: "row", role: "rowheader", tabindex: "-1", "data-r": r, "data-c": "-1",
    }, named(row));
    const columnHeading = (column, c) => el("th", {
      scope: "col", role: "columnheader", tabindex: "-1", "data-r": "-1", "data-c": c,
      title: String(column.name).slice(0, 300),
    }, div("rbx-upright", swatch(column.colour), words("span", column.name)));
    const corner = el("th", { class: "rbx-corner", scope: "col" },
      el("span", { class: "rbx-sr", text: flip ? "source" : "domain" }));
    const line = (...cells) => el("tr", { role: "row" }, ...cells);

    const focused = table.contains(document.activeElement);
    table.classList.toggle("rbx-flat", columns.length < 8);
    table.replaceChildren(
      el("thead", {}, line(corner, ...columns.map(columnHeading))),
      el("tbody", {}, ...rows.map((row, r) =>
        line(rowHeading(row, r), ...columns.map((_, c) => cell(r, c))))));
    const [r, c] = current;
    moveTo(clamp(r, 0, rows.length - 1), clamp(c, 0, columns.length - 1), focused);
  }

  const cellAt = (r, c) => table.querySelector(`[data-r="${r}"][data-c="${c}"]`);

  function moveTo(r, c, focus = true) {
    current = [r, c];
    table.querySelectorAll("[tabindex='0']").forEach((other) => { other.tabIndex = -1; });
    const next = cellAt(r, c);
    if (!next) return;
    next.tabIndex = 0;
    if (focus) next.focus();
  }

  function key(event) {
    const [r, c] = current;
    const next = {
      ArrowUp: [r - 1, c], ArrowDown: [r + 1, c], ArrowLeft: [r, c - 1], ArrowRight: [r, c + 1],
    }[event.key];
    if (next) {
      if (cellAt(...next)) moveTo(...next);
    } else if (event.key === "Enter" || event.key === " ") click(event);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Place of a cell or a heading, and the domain or source that it stands for, or both. */
  function meaning(target) {
    const cell = target.closest("[data-r]");
    if (!cell) return null;
    const r = +cell.dataset.r, c = +cell.dataset.c, [s, d] = flip ? [r, c] : [c, r];
    return { r, c, domain: store.domains[d]?.id, source: s >= 0 ? s : undefined };
  }

  function hover(target) {
    const { domain, source } = meaning(target) || {};
    if (domain === undefined && source === undefined) return;
    store.setHover({
      ...(domain !== undefined && { domain }), ...(source !== undefined && { source }),
    });
  }

  function click(event) {
    const place = meaning(event.target), { labels, sourceIds, nTrain } = store;
    if (!place) return;
    const { domain, source } = place;
    moveTo(place.r, place.c);
    const rows = store.rows((i) => (domain === undefined || labels[i] === domain)
      && (source === undefined || sourceIds[i] === source), nTrain);
    store.select(rows, event.shiftKey ? "add" : event.altKey ? "remove" : "replace");
  }

  return { node, update, setVisible };
}

// ------------------------------------------------------------------ log and status

/** Every edit, the latest first. */
function logPanel(store) {
  const list = el("ol", { class: "rbx-log", test: "log", reversed: true });
  const undoLast = smallButton("log-undo", "Undo last", "Undo the last edit",
    () => store.send({ type: "undo" }), { name: "undo" });
  const node = div("rbx-panel",
    div("rbx-panel-head", caption("Every edit is recorded and can be replayed."), undoLast),
    el("div", { class: "rbx-scroll", tabindex: "0", role: "region", "aria-label": "Edits" },
      list));

  function update(changed) {
    if (!changed.has("history")) return;
    const { log = [], redo, undo } = store.history;
    const lines = log.map((line) =>
      el("li", {}, words("span", String(line).replace(/^\d+\. /, "")))).reverse();
    const undone = redo && el("li", { class: "rbx-undone" }, words("span", redo),
      el("span", { class: "rbx-tag", text: "undone" }));
    const none = el("li", { class: "rbx-hint rbx-none", text: "No edits yet." });
    list.start = log.length + (redo ? 1 : 0);
    setChildren(list, undone, ...lines, !redo && !lines.length && none);
    undoLast.setAttribute("aria-disabled", String(!undo));
  }

  return { node, update };
}

/** The line below: progress of computations, errors, and notices. */
function statusLine(store) {
  let soon = 0;
  const text = el("span",
    { class: "rbx-status-text", role: "status", "aria-live": "polite", test: "status" });
  const progress = el("progress",
    { class: "rbx-progress", max: 1, test: "progress", "aria-label": "Progress", hidden: true });
  const cancel = smallButton("cancel", "Cancel", "Stop this computation",
    () => store.send({ type: "cancel" }), { hidden: true });
  const message = el("span");
  const error = el("div", { class: "rbx-error", role: "alert", test: "error", hidden: true },
    message, button("error-close", { label: "Dismiss", name: "close", kind: "rbx-plain",
      on: () => { error.hidden = true; } }));
  const notices = el("ul", { class: "rbx-notices", test: "notices", "aria-label": "Notices" });
  const node = el("footer", { class: "rbx-foot" },
    error, notices, div("rbx-status", text, progress, cancel));

  function update(changed) {
    const { status } = store;
    if (changed.has("status")) {
      // Work that ends within a blink needs no progress bar.
      clearTimeout(soon);
      if (status.busy && progress.hidden) soon = setTimeout(() => showBusy(true), 250);
      else showBusy(status.busy);
    }
    if (!status.busy) setText(text, status.text || summary());
    if (changed.has("error")) {
      setText(message, store.error);
      error.hidden = false;
    }
    if (changed.has("notices")) notices.replaceChildren(...store.notices.map(notice));
  }

  function notice({ level, text: what }) {
    const [kind, prefix] = level === "warn" ? ["rbx-warn", "Warning: "] : ["rbx-info", "Note: "];
    return el("li", { class: kind, title: String(what).slice(0, 600) },
      el("b", { class: "rbx-sr", text: prefix }), words("span", what));
  }

  function summary() {
    const { n, nTrain, selection, domains } = store;
    const evals = n > nTrain ? ` and ${count(n - nTrain)} of the eval set` : "";
    const m = domains.filter((d) => d.kind !== "noise").length;
    const selected = selection.length ? ` · ${count(selection.length)} selected` : "";
    return `${plural(nTrain, "example")}${evals} in ${plural(m, "domain")}${selected}`;
  }

  function showBusy(on) {
    const { status } = store;
    progress.hidden = cancel.hidden = !on;
    node.closest(".rbx").setAttribute("aria-busy", String(Boolean(on)));
    if (!on) return;
    setText(text, status.text || "Working…");
    if (Number.isFinite(status.fraction)) progress.value = clamp(status.fraction, 0, 1);
    else progress.removeAttribute("value");
  }

  return { node, update, dispose: () => clearTimeout(soon) };
}

// ------------------------------------------------------------------ the whole widget

const VIEWS = { domains: "Domains", selection: "Selection", crosstab: "Sources", log: "Log" };

/** Panels of which one is shown, under a row of tabs. */
function tabbedPanels(store, panels) {
  let shown = "domains", hadSelection = false;
  const ids = Object.keys(VIEWS);
  const tabs = Object.fromEntries(ids.map((id) => {
    const { node } = panels[id], tabId = `rbx-tab-${id}-${store.prefix}`;
    node.id = `rbx-panel-${id}-${store.prefix}`;
    node.dataset.test = `panel-${id}`;
    node.setAttribute("role", "tabpanel");
    node.setAttribute("aria-labelledby", tabId);
    return [id, el("button", {
      type: "button", role: "tab", class: "rbx-tab", id: tabId, test: `tab-${id}`,
      "aria-controls": node.id, on: { click: () => open(id) },
    }, el("span", { text: VIEWS[id] }), el("span", { class: "rbx-count-badge" }))];
  }));
  const node = div("rbx-side",
    el("div", { class: "rbx-tabs", role: "tablist", "aria-label": "Views", on: { keydown: key } },
      ...Object.values(tabs)),
    ...ids.map((id) => panels[id].node));

  function open(id) {
    shown = id;
    for (const name of ids) {
      tabs[name].setAttribute("aria-selected", String(name === id));
      tabs[name].tabIndex = name === id ? 0 : -1;
      panels[name].node.hidden = name !== id;
      panels[name].setVisible?.(name === id);
    }
    store.setHover(null);
  }

  function key(event) {
    const at = ids.indexOf(shown), last = ids.length - 1;
    const to = { ArrowRight: at + 1, ArrowLeft: at + last, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    open(ids[to % ids.length]);
    tabs[shown].focus();
    event.preventDefault();
  }

  function update(changed) {
    const { domains, selection, history } = store;
    const badge = (id, text) => setText(tabs[id].lastChild, text);
    if (changed.has("domains")) badge("domains", count(domains.length));
    if (changed.has("history")) badge("log", history.log?.length ? count(history.log.length) : "");
    if (!changed.has("selection")) return;
    badge("selection", selection.length ? count(selection.length) : "");
    const inList = panels.domains.node.contains(document.activeElement);
    if (selection.length && !hadSelection && shown === "domains" && !inList) open("selection");
    hadSelection = selection.length > 0;
  }

  open(shown);
  return { node, update };
}

function render({ model, el: host }) {
  const root = el("section", { class: "rbx", "aria-label": "Corpus explorer", test: "explorer" });
  host.append(root);
  const store = new Store(model), map = new CorpusMap(store), legend = new Legend(store);
  const bar = toolbar(store), status = statusLine(store);
  const panels = {
    domains: domainList(store), selection: selectionPanel(store), crosstab: crosstabPanel(store),
    log: logPanel(store),
  };
  const side = tabbedPanels(store, panels);
  root.append(bar.node,
    div("rbx-body", div("rbx-left-side", legend.node, map.node), side.node), status.node);
  const parts = [bar, legend, map, status, ...Object.values(panels), side];
  store.parts = parts;

  function key(event) {
    const letter = event.key.toLowerCase();
    if (event.target.matches("input:not([type=range]):not([type=checkbox]), textarea")) return;
    if ((event.ctrlKey || event.metaKey) && (letter === "z" || letter === "y")) {
      store.send({ type: letter === "y" || event.shiftKey ? "redo" : "undo" });
      event.preventDefault();
    } else if (event.key === "Escape" && !event.defaultPrevented) store.clear();
  }

  // Jupyter's widgets report so that their kernel was restarted, or has ended.
  store.listen("comm_live_update", () => {
    root.classList.add("rbx-gone");
    for (const part of [bar.node, side.node]) part.inert = true;
    store.error = "No longer connected: the kernel was restarted or has ended. "
      + "Run the cell again.";
    store.touch("error");
  });

  const stopWatching = watchTheme(root, () => map.readTheme());
  const releaseKeys = keepKeys(root, key, ["z", "y", "a", "c", "x", "v", "enter"]);
  store.touch(...Object.keys(TRAITS));
  // For tests: where a row is on the map's canvas, and what painting and a lasso cost.
  root.explorer = {
    screen: (row) => map.view.toScreen(store.xy[2 * row], store.xy[2 * row + 1]),
    get cost() { return { paint: map.layer.cost, lasso: map.lassoCost }; },
    store,
  };
  return () => {
    stopWatching();
    releaseKeys();
    for (const part of parts) part.dispose?.();
    store.dispose();
    root.remove();
  };
}

export default { render };
