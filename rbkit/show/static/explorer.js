// The explorer: what one view of it holds, its controls, and the panels beside the map.

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

/** What one view knows: the decoded traits, what is hovered, and the texts read so far. */
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

const setChildren = (node, ...children) => node.replaceChildren(...children.filter(Boolean));
const caption = (text) => el("span", { class: "rbx-caption", text });
const number = (text, kind = "") => el("span", { class: `rbx-number ${kind}`, text });
const hint = (text) => el("p", { class: "rbx-hint", text });

/** A small button with a text, and perhaps an icon. */
const smallButton = (test, text, label, on, { kind = "", ...rest } = {}) =>
  button(test, { label, text, kind: `rbx-small ${kind}`, on, ...rest });

/** A row of buttons of which one is pressed; `choose` gets its id. */
function segments(label, pressed, choose, items) {
  const press = (id) => nodes.forEach((node, i) =>
    node.setAttribute("aria-pressed", String(items[i].id === id)));
  const nodes = items.map(({ id, text, test }) => el("button", {
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

const INPUT_CLASSES = { number: "rbx-input rbx-count", text: "rbx-input" };

/** An input; `enter` is called for the Enter key. */
function input(type, test, label, { enter, kind = "", ...options } = {}) {
  const style = `${INPUT_CLASSES[type] || ""} ${kind}`;
  const node = el("input", { type, class: style, test, "aria-label": label, ...options });
  if (enter) onEnter(node, enter);
  return node;
}

const nameInput = (test, label, options) =>
  input("text", test, label, { dir: "auto", maxlength: 120, ...options });

function onEnter(node, enter) {
  node.addEventListener("keydown", (event) => { if (event.key === "Enter") enter(); });
}

/** A labelled row of a form. */
const field = (label, ...controls) =>
  el("label", { class: "rbx-field" }, el("span", { text: label }), ...controls);

/** Swatch and name of a domain or a source. */
const named = (thing, tag = "span") =>
  el("span", { class: "rbx-isolate" }, swatch(thing.colour), words(tag, thing.name));
const IN_NO_DOMAIN = { name: "in no domain", colour: "" };

/** A small panel under a button: Escape or a click elsewhere closes it. */
function popover(opener, title, ...content) {
  const panel = el("div", { class: "rbx-popover", role: "group", "aria-label": title },
    el("h3", { text: title }), ...content);
  panel.hidden = true;
  const node = el("div", { class: "rbx-anchor" }, opener, panel);
  opener.setAttribute("aria-expanded", "false");
  opener.setAttribute("aria-haspopup", "true");
  function show(open) {
    panel.hidden = !open;
    opener.setAttribute("aria-expanded", String(open));
    if (!open) return;
    panel.classList.remove("rbx-left");
    const room = node.closest(".rbx").getBoundingClientRect(), box = panel.getBoundingClientRect();
    panel.classList.toggle("rbx-left", box.right > room.right - 4);
    (panel.querySelector("input, select, button") || panel).focus();
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
  const dispose = () => document.removeEventListener("pointerdown", outside, true);
  return { node, close: () => show(false), dispose };
}

function picture(address, size) {
  const src = safeImage(address);
  return src && el("img", { class: `rbx-picture ${size}`, src, alt: "", loading: "lazy" });
}

/** Domain and source of an example as they are now (its text was read some time ago). */
function originLine(store, { row, source, distance }) {
  const line = el("div", { class: "rbx-where" });
  if (row !== undefined) line.append(named(store.domainOf(row) || IN_NO_DOMAIN, "b"));
  const origin = store.sourceOf(row)?.name || source;
  if (origin) line.append(words("span", origin, { class: "rbx-origin" }));
  if (Number.isFinite(distance)) {
    const text = number(`distance ${distance.toFixed(2)}`);
    text.title = "to the centre of its domain";
    line.append(text);
  }
  if (row >= store.nTrain) {
    line.append(el("span",
      { class: "rbx-tag", text: "eval", title: "An example of the eval set" }));
  }
  return line;
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
  const node = el("li", { class: "rbx-example", test: "example", "data-row": row },
    picture(item.image, "rbx-middle"),
    el("div", { class: "rbx-grow" }, clipped, long ? more : null,
      row === undefined ? null : originLine(store, item)));
  if (row !== undefined) {
    node.addEventListener("pointerenter", () => store.mark(row));
    node.addEventListener("pointerleave", () => store.mark(-1));
  }
  return node;
}

function exampleList(store, items) {
  if (!items.length) return hint("Nothing to read here.");
  return el("ul", { class: "rbx-examples" }, ...items.map((item) => exampleItem(store, item)));
}

// ------------------------------------------------------------------ the whole widget

/** Parts side by side, tabs, and keys that stay inside. */
class Explorer {
  constructor(store, root) {
    this.store = store;
    this.root = root;
    this.map = new CorpusMap(store);
    this.panels = {
      domains: new DomainList(store), selection: new SelectionPanel(store),
      crosstab: new Crosstab(store), log: new LogPanel(store),
    };
    const toolbar = new Toolbar(store), legend = new Legend(store), status = new StatusLine(store);
    root.append(toolbar.node,
      el("div", { class: "rbx-body" },
        el("div", { class: "rbx-left-side" }, legend.node, this.map.node),
        el("div", { class: "rbx-side" }, this.buildTabs(),
          ...Object.values(this.panels).map((panel) => panel.node))),
      status.node);
    store.parts = [toolbar, legend, this.map, status, ...Object.values(this.panels), this];
    this.parts = store.parts.slice(0, -1);
    this.open("domains");
    this.leave = [
      watchTheme(root, () => this.map.readTheme()),
      keepKeys(root, (event) => this.key(event), ["z", "y", "a", "c", "x", "v", "enter"]),
    ];
    store.touch(...Object.keys(TRAITS));
  }

  buildTabs() {
    const titles = {
      domains: "Domains", selection: "Selection", crosstab: "Sources", log: "Log",
    };
    this.tabs = {};
    for (const [id, panel] of Object.entries(this.panels)) {
      const tabId = `rbx-tab-${id}-${this.store.prefix}`;
      const panelId = `rbx-panel-${id}-${this.store.prefix}`;
      this.tabs[id] = el("button", {
        type: "button", role: "tab", class: "rbx-tab", id: tabId, test: `tab-${id}`,
        "aria-controls": panelId, on: { click: () => this.open(id) },
      }, el("span", { text: titles[id] }), el("span", { class: "rbx-count-badge" }));
      panel.node.id = panelId;
      panel.node.dataset.test = `panel-${id}`;
      panel.node.setAttribute("role", "tabpanel");
      panel.node.setAttribute("aria-labelledby", tabId);
    }
    const on = { keydown: (event) => this.moveTab(event) };
    return el("div", { class: "rbx-tabs", role: "tablist", "aria-label": "Views", on },
      ...Object.values(this.tabs));
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

  moveTab(event) {
    const ids = Object.keys(this.tabs), at = ids.indexOf(this.shown);
    const moves = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: ids.length - 1 };
    const next = moves[event.key];
    if (next === undefined) return;
    this.open(ids[(next + ids.length) % ids.length]);
    this.tabs[this.shown].focus();
    event.preventDefault();
  }

  /** Undo, redo and Escape. */
  key(event) {
    const letter = event.key.toLowerCase();
    if (event.target.matches("input:not([type=range]):not([type=checkbox]), textarea")) return;
    if ((event.ctrlKey || event.metaKey) && (letter === "z" || letter === "y")) {
      this.store.send({ type: letter === "y" || event.shiftKey ? "redo" : "undo" });
      event.preventDefault();
    } else if (event.key === "Escape" && !event.defaultPrevented) this.store.clear();
  }

  update(changed) {
    const { domains, selection, history } = this.store;
    const badge = (id, n) => setText(this.tabs[id].lastChild, n ? count(n) : "");
    if (changed.has("domains")) setText(this.tabs.domains.lastChild, count(domains.length));
    if (changed.has("history")) badge("log", history.log?.length);
    if (changed.has("selection")) {
      badge("selection", selection.length);
      const first = selection.length && !this.hadSelection && this.shown === "domains";
      const inList = this.panels.domains.node.contains(document.activeElement);
      if (first && !inList) this.open("selection");
      this.hadSelection = selection.length > 0;
    }
  }

  dispose() {
    for (const leave of this.leave) leave();
    for (const part of this.parts) part.dispose?.();
    this.store.dispose();
    this.root.replaceChildren();
  }
}

// ----------------------------------------------------------------------- the toolbar

/** The line above the map: title, the cut, undo and redo, search, UMAP, export. */
class Toolbar {
  constructor(store) {
    this.store = store;
    this.cut = new CutControls(store);
    this.title = words("span", "", { class: "rbx-title" });
    this.steps = Object.fromEntries(["undo", "redo"].map((type) => [type,
      button(type, { label: `Nothing to ${type}`, name: type, on: () => store.send({ type }) })]));
    const squares = Array.from({ length: 9 }, () => el("i"));
    this.node = el("header", { class: "rbx-bar" },
      el("div", { class: "rbx-brand" },
        el("span", { class: "rbx-logo", "aria-hidden": "true" }, ...squares), this.title),
      this.cut.node,
      el("div", { class: "rbx-actions" },
        el("div", { class: "rbx-pair" }, ...Object.values(this.steps)),
        this.buildSearch(), this.buildMapForm(), this.buildExport()));
  }

  buildSearch() {
    this.searchSoon = debounced(350, () => this.search());
    this.query = input("search", "search", "Search the texts", {
      kind: "rbx-input rbx-query", placeholder: "Search texts", dir: "auto",
      enter: () => this.search(), on: { input: () => this.searchSoon() },
    });
    this.query.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.query.value) return;
      this.query.value = "";
      this.search();
      event.stopPropagation();
    });
    this.hits = el("output", { class: "rbx-found", test: "found" });
    return el("div", { class: "rbx-search", role: "search" },
      icon("search"), this.query, this.hits);
  }

  async search() {
    this.searchSoon.cancel();
    const query = this.query.value.trim();
    // The last query typed follows when the one under way is answered.
    if (query === this.searched || this.searching) return;
    this.searched = query;
    if (!query) {
      this.hits.textContent = "";
      if (this.store.selection.length) this.store.select(new Uint32Array(0));
      return;
    }
    this.searching = true;
    this.hits.textContent = "…";
    const reply = await Promise.race([this.store.ask({ type: "search", query }), pause(20000)]);
    this.searching = false;
    if (this.query.value.trim() !== query) this.search();
    else this.hits.textContent = reply ? `${count(reply.count)} found` : "";
  }

  buildMapForm() {
    const { store } = this;
    const slider = (test, label, min, max, step) => {
      const shown = el("output", { class: "rbx-number" });
      const node = input("range", test, label, { min, max, step });
      node.addEventListener("input", () => { shown.textContent = node.value; });
      const set = (value) => { shown.textContent = node.value = value; };
      return { node, set, row: field(label, node, shown) };
    };
    this.neighbours = slider("n-neighbors", "Neighbours", 2, 100, 1);
    this.distance = slider("min-dist", "Smallest distance", 0, 0.99, 0.01);
    const run = () => {
      const n_neighbors = +this.neighbours.node.value, min_dist = +this.distance.node.value;
      store.send({ type: "map", n_neighbors, min_dist });
      this.mapForm.close();
    };
    this.mapForm = popover(
      button("map-open", { label: "Parameters of the map (UMAP)", text: "Map", name: "sliders" }),
      "The map (UMAP)", this.neighbours.row, this.distance.row,
      hint("The map is for looking: domains are cut from the vectors, so they stay as they are. "
        + "Sizes and distances between groups on the map mean little."),
      button("map-run", { label: "Compute the map again with UMAP", text: "Compute the map",
        kind: "rbx-primary", on: run }));
    return this.mapForm.node;
  }

  buildExport() {
    const outcome = el("div", { class: "rbx-outcome", role: "status", test: "export-result" });
    const run = async () => {
      const path = folder.value.trim();
      if (!path) return folder.focus();
      outcome.replaceChildren(el("span", { class: "rbx-hint", text: "Writing…" }));
      const reply = await this.store.ask({ type: "export", folder: path });
      if (reply.type !== "exported") return setChildren(outcome, words("span", reply.text));
      const files = (reply.files || []).map((file) => el("li", {}, words("code", file)));
      setChildren(outcome,
        el("b", { text: "Written" }), words("code", reply.folder), el("ul", {}, ...files));
    };
    const folder = el("input", { type: "text", class: "rbx-input", test: "export-folder",
      value: "domains", spellcheck: "false" });
    onEnter(folder, run);
    this.exportForm = popover(
      button("export-open",
        { label: "Export the domains", text: "Export", name: "save", kind: "rbx-primary" }),
      "Export the domains", field("Folder", folder),
      hint("Labels, centres, names, sampling weights and the log of edits, ready to train on."),
      button("export-run", { label: "Write the domains into this folder", text: "Write",
        kind: "rbx-primary", on: run }),
      outcome);
    return this.exportForm.node;
  }

  update(changed) {
    const { store } = this;
    this.cut.update(changed);
    if (changed.has("title")) setWords(this.title, store.title || "Corpus explorer");
    if (changed.has("history")) {
      this.showStep("undo", "Undo", "Ctrl+Z");
      this.showStep("redo", "Redo", "Ctrl+Shift+Z");
    }
    const sliders = [this.neighbours.node, this.distance.node];
    if (changed.has("controls") && !sliders.includes(document.activeElement)) {
      this.neighbours.set(store.controls.n_neighbors ?? 15);
      this.distance.set(store.controls.min_dist ?? 0.1);
    }
  }

  showStep(type, verb, keys) {
    const step = this.store.history[type], node = this.steps[type];
    const label = step ? `${verb}: ${step}` : `Nothing to ${type}`;
    node.setAttribute("aria-disabled", String(!step));
    node.setAttribute("aria-label", label);
    node.title = step ? `${label} (${keys})` : label;
  }

  dispose() {
    this.searchSoon.cancel();
    this.cut.dispose();
    this.mapForm.dispose();
    this.exportForm.dispose();
  }
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
class CutControls {
  constructor(store) {
    this.store = store;
    this.method = select("method", "Method", (method) => this.cutBy(method));
    this.method.title = "How the corpus is cut";
    this.kPart = this.buildK();
    this.sizePart = this.buildSize();
    this.noisePart = this.buildNoise();
    this.node = el("div", { class: "rbx-cut", role: "group", "aria-label": "Cut" },
      this.method, this.kPart, this.sizePart, this.noisePart);
  }

  buildK() {
    const { store } = this;
    this.slider = input("range", "k", "Number of domains", { min: 2, max: 30, step: 1, on: {
      input: () => this.slide(), change: () => this.settleSoon(this.held ? 0 : REST),
      pointerdown: () => { this.held = true; }, keydown: () => { this.held = false; },
      blur: () => this.settleNow(),
    } });
    const change = () => {
      this.slider.value = this.number.value;
      this.slide();
      this.settleSoon(REST);
    };
    this.number = input("number", "k-number", "Number of domains",
      { min: 2, step: 1, on: { change, blur: () => this.settleNow() } });
    this.advice = el("button", { type: "button", class: "rbx-link rbx-advice", test: "recommended",
      on: { click: () => this.cutInto(store.controls.recommended.k) } });
    this.tick = el("i", { class: "rbx-tick", "aria-hidden": "true" });
    this.refine = smallButton("refine", "Refine", "Refine the cut with k-means from these centres",
      () => store.operate({ op: "refine" }));
    return el("div", { class: "rbx-part" }, caption("domains"),
      el("span", { class: "rbx-track" }, this.slider, this.tick),
      this.number, this.advice, this.refine);
  }

  buildSize() {
    const change = () => this.settleSize();
    this.sizes = input("range", "min-cluster-size", "Smallest cluster",
      { min: 0, max: 100, step: 1, on: { input: () => this.slideSize(), change } });
    this.size = input("number", "min-cluster-size-number", "Smallest cluster, in examples",
      { min: 2, step: 1, on: { change } });
    this.dense = input("number", "min-samples",
      "Neighbours that make an example dense (min_samples)", {
        min: 1, step: 1, on: { change: () => this.settleDensity() },
        title: "Neighbours that make an example dense: more of them make more outliers "
          + "(min_samples)",
      });
    return el("div", { class: "rbx-part" },
      caption("smallest"), this.sizes, this.size, caption("density"), this.dense);
  }

  buildNoise() {
    const settle = () => {
      const { value } = this.most, max_noise = value === "" ? null : clamp(+value, 0, 100) / 100;
      this.store.operate({ op: "noise", policy: this.policy.value, max_noise });
    };
    this.policy = select("noise", "Outliers", settle, POLICIES);
    this.most = input("number", "max-noise", "At most this share of outliers, in percent",
      { min: 0, max: 100, step: 1, placeholder: "any", on: { change: settle } });
    this.noiseText = el("span", { class: "rbx-hint rbx-noise-text", test: "noise-text" });
    return el("div", { class: "rbx-part rbx-noise" }, caption("outliers"), this.policy,
      caption("at most"), this.most, caption("%"), this.noiseText);
  }

  get kMethod() {
    return this.store.controls.method === "kmeans" ? "kmeans" : "ward";
  }

  cutInto(k) {
    this.store.operate({ op: "cut", method: this.kMethod, k });
  }

  cutBy(method) {
    const { k, min_cluster_size } = this.store.controls;
    const params = { hdbscan: { min_cluster_size }, sources: {} }[method] || { k };
    this.store.operate({ op: "cut", method, ...params });
  }

  /** The slider moves: the hierarchy is cut live. */
  slide() {
    this.number.value = this.slider.value;
    this.slider.setAttribute("aria-valuetext", `${this.slider.value} domains`);
    this.sliding = true;
    if (this.kMethod !== "ward") return;
    this.live ||= setTimeout(() => {
      this.live = 0;
      if (this.sliding) this.store.cutLive(+this.slider.value);
    }, 30);
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
    clearTimeout(this.live);
    this.resting = this.live = 0;
    this.sliding = false;
    const k = clamp(Math.round(+this.slider.value) || 2, +this.slider.min, +this.slider.max);
    this.number.value = this.slider.value = k;
    this.expected = { k, until: Date.now() + PATIENCE };
    clearTimeout(this.late);
    this.late = setTimeout(() => this.store.touch("controls"), PATIENCE + 50);
    this.cutInto(k);
  }

  // The slider of sizes is logarithmic: 5 to 10 shows as much as 500 to 1,000.
  get mostSize() {
    return Math.max(3, this.store.controls.size_max || 500);
  }

  toSlider(size) {
    return Math.round((100 * Math.log(Math.max(size, 2) / 2)) / Math.log(this.mostSize / 2));
  }

  slideSize() {
    this.size.value = Math.round(2 * Math.pow(this.mostSize / 2, +this.sizes.value / 100));
    this.sizes.setAttribute("aria-valuetext", `at least ${this.size.value} examples`);
    this.sliding = true;
  }

  settleSize() {
    this.sliding = false;
    const min_cluster_size = Math.max(2, Math.round(+this.size.value) || 2);
    this.sizes.value = this.toSlider(min_cluster_size);
    this.store.operate({ op: "cut", method: "hdbscan", min_cluster_size });
  }

  settleDensity() {
    const { min_cluster_size } = this.store.controls;
    const min_samples = Math.max(1, Math.round(+this.dense.value) || 10);
    this.store.operate({ op: "cut", method: "hdbscan", min_cluster_size, min_samples });
  }

  update(changed) {
    if (changed.has("error")) this.expected = null;
    if (!changed.has("controls")) return;
    const c = this.store.controls, methods = new Set([...(c.methods || []), c.method]);
    setOptions(this.method, [...methods].filter(Boolean)
      .map((value) => [value, METHODS[value] || value, value === "hand"]));
    this.method.value = c.method;
    const dense = c.method === "hdbscan";
    this.kPart.hidden = dense || c.method === "sources";
    this.sizePart.hidden = !dense;
    this.noisePart.hidden = !dense && !(c.noise_share > 0);
    this.node.classList.toggle("rbx-long", !this.noisePart.hidden);
    this.refine.hidden = c.method !== "ward";
    this.slider.max = this.number.max = Math.max(2, c.k_max || 30);
    // The answer to an earlier step must not push back the slider under the hand.
    const early = this.expected && c.k !== this.expected.k && Date.now() < this.expected.until;
    if (!this.sliding && !early) {
      this.expected = null;
      this.slider.value = this.number.value = c.k ?? 2;
      this.slider.setAttribute("aria-valuetext", `${c.k} domains`);
      this.size.value = c.min_cluster_size ?? "";
      this.sizes.value = this.toSlider(c.min_cluster_size ?? 2);
    }
    if (document.activeElement !== this.dense) this.dense.value = c.min_samples ?? 10;
    this.policy.value = c.noise || "nearest";
    if (document.activeElement !== this.most) {
      this.most.value = Number.isFinite(c.max_noise) ? Math.round(100 * c.max_noise) : "";
    }
    setWords(this.noiseText, c.noise_text);
    const tip = c.recommended;
    this.advice.hidden = this.tick.hidden = !tip;
    if (!tip) return;
    setText(this.advice, tip.k === c.k ? "as advised" : `advised: ${tip.k}`);
    this.advice.title = this.tick.title = tip.text || "";
    this.tick.style.setProperty("--at", (tip.k - 2) / Math.max(1, this.slider.max - 2));
  }

  dispose() {
    clearTimeout(this.late);
    clearTimeout(this.live);
    clearTimeout(this.resting);
  }
}

// ---------------------------------------------------------------- the list of domains

const ORDERS = {
  size: ["largest first", (a, b) => b.size - a.size],
  gap: ["furthest from q", (a, b) => gapToTarget(b) - gapToTarget(a)],
  order: ["by similarity", (a, b) => a.order - b.order],
  name: ["by name", (a, b) => a.name.localeCompare(b.name)],
};
const gapToTarget = ({ q, share }) => Math.abs((q ?? share) - share);

/** A grid of cards that arrows walk, with what can be done to several domains at once. */
class DomainList {
  constructor(store) {
    this.store = store;
    this.cards = new Map();
    this.current = null;
    this.grid = el("div", {
      class: "rbx-cards", role: "treegrid", test: "cards", "aria-label": "Domains",
      "aria-multiselectable": "true", on: {
        keydown: (event) => this.key(event), focusin: (event) => this.focused(event),
        focusout: (event) => {
          if (!this.grid.contains(event.relatedTarget)) store.setHover(null);
        },
      },
    });
    this.order = select("sort", "Order", () => this.arrange(),
      Object.entries(ORDERS).map(([value, [text]]) => [value, text]), "rbx-small");
    const key = el("span", { class: "rbx-caption rbx-legend-q" },
      el("i", { class: "rbx-sample-share" }), "share of train ",
      el("i", { class: "rbx-sample-want" }), "target q");
    this.node = el("div", { class: "rbx-panel" },
      el("div", { class: "rbx-panel-head" }, this.order, key), this.grid, this.buildBulk());
  }

  buildBulk() {
    const { store } = this, merge = () => this.merge();
    this.several = el("span", { class: "rbx-several" });
    this.mergeName = nameInput("merge-name", "Name of the merged domain", { enter: merge });
    const clear = () => {
      this.focusCurrent();
      store.choose([]);
    };
    this.bulk = el("div",
      { class: "rbx-bulk", test: "bulk", role: "group", "aria-label": "Chosen domains" },
      this.several, this.mergeName,
      smallButton("merge", "Merge", "Merge the chosen domains into one", merge,
        { name: "merge", kind: "rbx-primary" }),
      smallButton("bulk-select", "Select", "Select their examples",
        () => store.selectDomains(store.chosen), { name: "points" }),
      button("bulk-clear", { label: "Choose none", name: "close", kind: "rbx-small", on: clear }));
    this.bulk.hidden = true;
    return this.bulk;
  }

  merge() {
    const { chosen } = this.store, name = this.mergeName.value.trim();
    const domains = this.rows().map((card) => card.id).filter((id) => chosen.has(id));
    if (domains.length < 2) return;
    this.mergeName.value = "";
    this.focusCurrent();
    this.store.operate({ op: "merge", domains, ...(name && { name }) });
  }

  /** Cards from top to bottom. */
  rows() {
    return [...this.grid.children].map((node) => this.cardOf(node));
  }

  cardOf(target) {
    const node = target.closest(".rbx-card");
    return node && this.cards.get(+node.dataset.key);
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
    card.node.tabIndex = 0;
  }

  focusCurrent() {
    (this.current?.node || this.grid).focus({ preventScroll: true });
  }

  focused(event) {
    const card = this.cardOf(event.target);
    if (!card) return;
    this.makeCurrent(card);
    const byKey = card.node.matches(":focus-visible, :has(:focus-visible)");
    if (byKey) this.store.setHover({ domain: card.id });
  }

  key(event) {
    const card = this.cardOf(event.target), { store } = this;
    if (!card) return;
    const command = event.ctrlKey || event.metaKey;
    if (event.target !== card.node) {  // in its details
      if (event.key !== "Escape") return;
      card.node.focus();
    } else {
      if (event.altKey || (command && event.key !== "a")) return;
      const rows = this.rows(), at = rows.indexOf(card);
      const last = rows.length - 1;
      const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: last }[event.key];
      if (to !== undefined) rows[clamp(to, 0, last)].node.focus();
      else if (event.key === "ArrowRight") card.open(true);
      else if (event.key === "ArrowLeft") card.open(false);
      else if (event.key === " ") this.click(card, { ctrlKey: true });
      else if (event.key === "a" && command) store.choose(rows.map((row) => row.id));
      else if (event.key === "Enter") {
        store.selectDomains(store.chosen.has(card.id) ? store.chosen : [card.id]);
      } else if (event.key === "F2") card.rename();
      else if (event.key === "Delete") store.operate({ op: "drop", domain: card.id });
      else return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  update(changed) {
    const { domains, hover, under } = this.store;
    if (hasAny(changed, "domains", "selection", "selected_domains", "labels", "n_train")) {
      if (changed.has("domains")) this.arrange();
      const top = Math.max(1e-9, ...domains.map((d) => Math.max(d.share || 0, d.q || 0)));
      for (const domain of domains) this.cards.get(domain.id)?.update(domain, top);
      this.offerMerge();
    }
    if (hasAny(changed, "hover", "under")) {
      const id = hover ? hover.domain : under;
      for (const card of this.cards.values()) {
        card.node.classList.toggle("rbx-hovered", card.id === id);
      }
    }
    const inside = this.grid.contains(this.grid.getRootNode().activeElement);
    if (changed.has("selected_domains") && !inside) this.reveal();
  }

  /** Chosen on the map: its card comes into view, without moving the notebook. */
  reveal() {
    const { grid } = this, card = this.rows().find((row) => this.store.chosen.has(row.id));
    if (!card || !grid.clientHeight) return;
    const top = card.node.offsetTop - grid.offsetTop;
    const least = top + card.head.offsetHeight - grid.clientHeight;
    if (top < grid.scrollTop) grid.scrollTop = top;
    else if (grid.scrollTop < least) grid.scrollTop = least;
  }

  offerMerge() {
    const chosen = this.store.domains.filter((d) => this.store.chosen.has(d.id));
    this.bulk.hidden = chosen.length < 2;
    if (this.bulk.hidden) return;
    setText(this.several, `${chosen.length} chosen`);
    const largest = chosen.reduce((a, b) => (b.size > a.size ? b : a));
    this.mergeName.placeholder = largest.name.slice(0, 60);
  }

  arrange() {
    const { grid, store } = this, compare = ORDERS[this.order.value][1];
    const sorted = [...store.domains]
      .sort((a, b) => (a.kind === "noise") - (b.kind === "noise") || compare(a, b));
    const focus = grid.getRootNode().activeElement, inside = grid.contains(focus);
    const at = Math.max(0, this.rows().indexOf(this.current));
    for (const [id, card] of this.cards) {
      if (store.byId.has(id)) continue;
      if (card === this.current) this.current = null;
      card.node.remove();
      this.cards.delete(id);
    }
    sorted.forEach(({ id }, i) => {
      if (!this.cards.has(id)) this.cards.set(id, new Card(store, this, id));
      const { node } = this.cards.get(id);
      if (grid.children[i] !== node) grid.insertBefore(node, grid.children[i] || null);
    });
    const rows = this.rows();
    if (!this.current && rows.length) this.makeCurrent(rows[clamp(at, 0, rows.length - 1)]);
    // A card that goes away must not take the focus along: the next keys would reach the notebook.
    if (inside && grid.getRootNode().activeElement !== focus) {
      (focus.isConnected ? focus : this.current?.node)?.focus({ preventScroll: true });
    }
  }
}

/** One domain in the list: a line about it, and behind it examples and operations. */
class Card {
  constructor(store, list, id) {
    this.store = store;
    this.list = list;
    this.id = id;
    this.examplesKind = "nearest";
    this.name = words("span", "", { class: "rbx-name", test: "card-name" });
    this.size = number("", "rbx-size");
    this.share = number("", "rbx-share");
    this.target = number("", "rbx-q");
    this.bars = Object.fromEntries(
      ["share", "part", "want"].map((kind) => [kind, el("i", { class: `rbx-bar-${kind}` })]));
    this.terms = words("div", "", { class: "rbx-terms" });
    this.picked = el("div", { class: "rbx-picked", test: "card-selected", hidden: true });
    this.dot = swatch("");
    const toggle = el("button", {
      type: "button", class: "rbx-toggle", test: "card-toggle", tabindex: "-1",
      "aria-label": "Details", title: "Details (arrow right, arrow left)",
    }, icon("chevron"));
    this.head = el("div", { class: "rbx-card-head", role: "gridcell" },
      this.dot,
      el("div", { class: "rbx-grow" },
        el("div", { class: "rbx-line" }, this.name, this.size, this.share),
        el("div", { class: "rbx-bar-box", "aria-hidden": "true" }, ...Object.values(this.bars)),
        el("div", { class: "rbx-line rbx-second" }, this.terms, this.target), this.picked),
      toggle);
    this.details = el("div", { class: "rbx-details", role: "gridcell", hidden: true });
    this.node = el("div",
      { class: "rbx-card", role: "row", tabindex: "-1", test: "card", "data-key": id },
      this.head, this.details);
    toggle.addEventListener("click", (event) => {
      event.stopPropagation();
      this.open(this.details.hidden);
    });
    this.name.addEventListener("dblclick", (event) => {
      event.stopPropagation();
      this.rename();
    });
    this.head.addEventListener("click", (event) => {
      if (!this.renaming) list.click(this, event);
    });
    this.node.addEventListener("pointerenter", () => store.setHover({ domain: id }));
    this.node.addEventListener("pointerleave", () => store.setHover(null));
  }

  get domain() {
    return this.store.byId.get(this.id);
  }

  /** Show the domain; `top` is the share at which a bar is full. */
  update(domain, top) {
    const { store, bars } = this, along = (share) => `${100 * clamp(share / top, 0, 1)}%`;
    this.node.dataset.domain = domain.id;
    this.node.classList.toggle("rbx-noise-card", domain.kind === "noise");
    this.dot.style.setProperty("--colour", safeColour(domain.colour));
    setWords(this.name, domain.name);
    setText(this.size, count(domain.size));
    setText(this.share, percent(domain.share));
    bars.share.style.inlineSize = along(domain.share);
    const hasTarget = Number.isFinite(domain.q);
    bars.want.hidden = !hasTarget;
    if (hasTarget) bars.want.style.insetInlineStart = along(domain.q);
    setText(this.target, hasTarget ? `q ${percent(domain.q)}` : "");
    this.target.title = hasTarget ? "Share of this domain in the eval set" : "";
    setWords(this.terms, (domain.terms || []).join(" · "));
    this.node.setAttribute("aria-selected", String(store.chosen.has(domain.id)));
    this.node.setAttribute("aria-expanded", String(!this.details.hidden));
    const label = `${domain.name}, ${plural(domain.size, "example")}, ${percent(domain.share)}`;
    this.node.setAttribute("aria-label",
      `${label}${hasTarget ? `, target ${percent(domain.q)}` : ""}`.slice(0, 300));
    const inside = store.selectedByDomain().get(domain.id) || 0;
    const part = inside && inside / Math.max(1, store.pointsIn(domain.id));
    this.picked.hidden = !inside;
    setText(this.picked, `${count(inside)} selected, ${percent(part)} of this domain`);
    const partWidth = 100 * clamp((domain.share / top) * part, 0.004, 1);
    bars.part.style.inlineSize = inside ? `${partWidth}%` : "0";
    const { sources, nearest, tokens, eval_size, kind } = domain;
    const state = JSON.stringify([sources, nearest, tokens, eval_size, kind]);
    if (!this.details.hidden && state !== this.state) this.fillDetails();
    this.state = state;
  }

  open(wide) {
    this.details.hidden = !wide;
    this.node.classList.toggle("rbx-open", wide);
    this.node.setAttribute("aria-expanded", String(wide));
    if (wide) this.fillDetails();
    else this.details.replaceChildren();
  }

  fillDetails() {
    const { domain } = this;
    const facts = [
      plural(domain.size, "example"),
      domain.eval_size && `${count(domain.eval_size)} in the eval set`,
      domain.tokens && `${count(domain.tokens)} tokens`,
    ];
    const thumbs = (domain.thumbs || []).slice(0, 8)
      .map((image) => picture(image, "rbx-small-picture")).filter(Boolean);
    const sources = (domain.sources || []).slice(0, 6).map(([name, share]) => el("li", {},
      words("span", name),
      el("span", { "aria-hidden": "true" },
        el("i", { style: { "inline-size": `${100 * clamp(share, 0, 1)}%` } })),
      number(percent(share))));
    const kinds = segments("Which examples", this.examplesKind, (kind) => this.showExamples(kind),
      ["nearest", "strangest", "random"].map((kind) =>
        ({ id: kind, text: kind, test: `examples-${kind}` })));
    this.examples = el("div", { class: "rbx-card-examples" });
    setChildren(this.details,
      el("p", { class: "rbx-facts", text: facts.filter(Boolean).join(" · ") }),
      thumbs.length && el("div", { class: "rbx-thumbs" }, ...thumbs),
      sources.length && el("ul", { class: "rbx-sources", "aria-label": "Sources" }, ...sources),
      this.buildActions(domain), kinds, this.examples);
    if (this.examplesKind !== "nearest") return this.showExamples(this.examplesKind);
    const nearest = (domain.nearest || []).map((text) => ({ text }));
    this.examples.append(exampleList(this.store, nearest));
  }

  buildActions({ kind }) {
    const { store, id } = this, noise = kind === "noise";
    const split = () => {
      const size = clamp(Math.round(+parts.value) || 2, 2, 20);
      store.operate({ op: "split", domain: id, parts: size });
    };
    const parts = input("number", "split-parts", "Number of parts",
      { value: 2, min: 2, max: 20, enter: split });
    return el("div", { class: "rbx-row" },
      noise ? null : smallButton("rename", "Rename", "Rename (F2)", () => this.rename(),
        { name: "pencil" }),
      smallButton("select-points", "Select", "Select its examples (Enter)",
        () => store.selectDomains([id]), { name: "points" }),
      el("span", { class: "rbx-pair" },
        smallButton("split-run", "Split into", "Split this domain", split, { name: "split" }),
        parts),
      noise ? null : smallButton("drop", "Drop",
        "Drop: its examples are in no domain and are not trained on",
        () => store.operate({ op: "drop", domain: id }), { name: "trash" }));
  }

  async showExamples(kind) {
    this.examplesKind = kind;
    const target = this.examples, { store } = this;
    const reply = await store.ask({ type: "more", domain: this.id, kind });
    if (this.examplesKind !== kind || target !== this.examples) return;
    setChildren(target, exampleList(store, reply.items || []));
  }

  rename() {
    if (this.renaming || this.domain.kind === "noise") return;
    const box = nameInput("rename-input", "New name",
      { kind: "rbx-rename", value: this.domain.name });
    const done = (keep) => {
      if (!this.renaming) return;
      this.renaming = false;
      const name = box.value.trim(), focused = box.getRootNode().activeElement === box;
      box.replaceWith(this.name);
      if (keep && name && name !== this.domain?.name) {
        setWords(this.name, name);  // at once; Python's answer follows
        this.store.operate({ op: "rename", domain: this.id, name });
      }
      if (focused) this.node.focus({ preventScroll: true });
    };
    box.addEventListener("keydown", (event) => {
      if (event.key !== "Tab") event.stopPropagation();
      if (event.key !== "Enter" && event.key !== "Escape") return;
      done(event.key === "Enter");
      event.preventDefault();
    });
    box.addEventListener("blur", () => done(true));
    this.renaming = true;
    this.name.replaceWith(box);
    box.focus();
    box.select();
  }
}

// --------------------------------------------------------------------- the selection

const PAGE = 12;  // examples read at once

/** What is selected: where it lies, its texts to read, and another domain to move it to. */
class SelectionPanel {
  constructor(store) {
    this.store = store;
    this.read = 0;
    this.visible = false;
    this.loadSoon = debounced(120, () => this.load(true));
    const move = () => this.move();
    this.heading = el("h3", { class: "rbx-heading", test: "selection-count" });
    this.spread = el("ul", { class: "rbx-spread", "aria-label": "Domains of the selection",
      test: "selection-domains" });
    this.target = select("move-target", "Move to", () => this.askName(), [], "rbx-grow");
    this.name = nameInput("move-name", "Name of the new domain",
      { kind: "rbx-grow", placeholder: "name of the new domain", enter: move });
    this.list = el("div", { class: "rbx-scroll rbx-reading", tabindex: "0", role: "region",
      "aria-label": "Selected examples", test: "selection-list" });
    this.more = smallButton("selection-more", "Read more", "Read more of the selection",
      () => this.load(false));
    this.empty = el("div", { class: "rbx-empty", test: "selection-empty" },
      icon("lasso"), el("b", { text: "Nothing selected" }),
      el("p", { text: "Draw a loop around examples on the map, search for a word, or press Enter "
        + "on a domain. Shift adds, Alt takes away." }));
    this.filled = el("div", { class: "rbx-filled" },
      el("div", { class: "rbx-panel-head" }, this.heading,
        smallButton("selection-clear", "Clear", "Clear the selection (Esc)",
          () => store.select(new Uint32Array(0)))),
      this.spread,
      el("div", { class: "rbx-move", role: "group", "aria-label": "Move the selection" },
        caption("Move to"), this.target, this.name,
        smallButton("move", "Move", "Move the selected examples", move, { kind: "rbx-primary" })),
      this.list);
    this.node = el("div", { class: "rbx-panel" }, this.empty, this.filled);
  }

  askName() {
    this.name.hidden = this.target.value !== "new";
    const inside = this.node.contains(document.activeElement);
    if (!this.name.hidden && inside) this.name.focus();
  }

  move() {
    const fresh = this.target.value === "new", name = this.name.value.trim();
    this.name.value = "";
    const to = fresh ? null : +this.target.value;
    this.store.operate({ op: "move", to, ...(fresh && name && { name }) });
  }

  /** A page of rows spread over the selection: the first rows of a corpus are rarely typical. */
  page(from) {
    const { selection } = this.store, n = selection.length;
    const divisor = (a, b) => (b ? divisor(b, a % b) : a);
    let step = Math.max(1, Math.round(n * 0.618));
    while (divisor(n, step) !== 1) step++;
    const size = Math.max(0, Math.min(PAGE, n - from));
    return Array.from({ length: size }, (_, i) => selection[((from + i) * step) % n]);
  }

  async load(fresh) {
    const { selection } = this.store;
    if (!this.visible || !selection.length) return;
    this.stale = false;
    if (fresh) this.read = 0;
    const items = await this.store.read(this.page(this.read));
    if (selection !== this.store.selection) return;
    if (fresh) {
      this.examples = el("ul", { class: "rbx-examples" });
      this.list.replaceChildren(this.examples, this.more);
      this.list.scrollTop = 0;
    }
    this.examples.append(...items.map((item) => exampleItem(this.store, item)));
    this.read = Math.min(selection.length, this.read + PAGE);
    this.more.hidden = this.read >= selection.length;
  }

  setVisible(on) {
    this.visible = on;
    if (on && this.stale) this.loadSoon();  // one load, whether selection or tab came first
  }

  update(changed) {
    const { store } = this;
    if (hasAny(changed, "selection", "xy")) {
      this.stale = true;
      this.loadSoon();
    }
    if (hasAny(changed, "selection", "labels", "domains", "xy")) this.showSpread();
    if (changed.has("domains")) {
      const domains = store.domains.filter((d) => d.kind !== "noise");
      setOptions(this.target, [["new", "a new domain"], ...domains.map((d) => [d.id, d.name])]);
      this.askName();
    }
  }

  showSpread() {
    const { store } = this, n = store.selection.length;
    this.empty.hidden = n > 0;
    this.filled.hidden = n === 0;
    setText(this.heading, `${plural(n, "example")} selected`);
    const sizes = [...store.selectedByDomain()].sort((a, b) => b[1] - a[1]);
    const line = (size, ...name) => el("li", { style: { "--part": `${(100 * size) / n}%` } },
      ...name, number(`${count(size)} · ${percent(size / n)}`));
    const lines = sizes.slice(0, 6).map(([id, size]) => {
      const { colour, name } = store.byId.get(id) || IN_NO_DOMAIN;
      return line(size, swatch(colour), words("span", name));
    });
    const rest = sizes.slice(6).reduce((sum, [, size]) => sum + size, 0);
    const more = rest && line(rest,
      el("span", { class: "rbx-words", text: `${sizes.length - 6} more domains` }));
    setChildren(this.spread, ...lines, more);
  }

  dispose() {
    this.loadSoon.cancel();
  }
}

// ----------------------------------------------------------------------- the crosstab

/** Sources against domains: how the human labels lie across the cut, in train examples. */
class Crosstab {
  constructor(store) {
    this.store = store;
    this.basis = "domain";
    this.visible = false;
    this.at = [0, 0];
    const bases = segments("Numbers", this.basis, (basis) => {
      this.basis = basis;
      this.build();
    }, [
      { id: "domain", text: "% of domain", test: "basis-domain" },
      { id: "source", text: "% of source", test: "basis-source" },
      { id: "count", text: "examples", test: "basis-count" },
    ]);
    this.only = el("input", { type: "checkbox", test: "crosstab-selection",
      on: { change: () => this.build() } });
    const leave = () => store.setHover(null);
    this.table = el("table", {
      class: "rbx-crosstab", role: "grid", test: "crosstab", "aria-label": "Sources by domains",
      on: {
        keydown: (event) => this.key(event), click: (event) => this.click(event),
        pointerover: (event) => this.over(event.target), pointerleave: leave,
        focusin: ({ target }) => { if (target.matches(":focus-visible")) this.over(target); },
        focusout: leave,
      },
    });
    this.node = el("div", { class: "rbx-panel" },
      el("div", { class: "rbx-panel-head" }, bases,
        el("label", { class: "rbx-caption" }, this.only, " selection only")),
      el("div", { class: "rbx-scroll" }, this.table),
      el("p", { class: "rbx-hint rbx-pad", text: "Click a cell to select its examples, a name to "
        + "select all of its row or column." }));
  }

  setVisible(on) {
    this.visible = on;
    if (on) this.build();
  }

  update(changed) {
    const hadSelection = this.only.checked;
    if (changed.has("selection")) {
      this.only.disabled = !this.store.selection.length;
      if (this.only.disabled) this.only.checked = false;
    }
    if (!this.visible) return;
    if (hasAny(changed, "under", "hover")) this.markHovered();
    const counted = hasAny(changed, "domains", "labels", "sources", "source_ids", "n_train");
    if (counted || (changed.has("selection") && hadSelection)) this.build();
  }

  /** Mark the row (or column) of the domain under the pointer, here or on the map. */
  markHovered() {
    const { under, hover, domains } = this.store, id = hover ? hover.domain : under;
    this.table.querySelectorAll("th[data-r]").forEach((node) => {
      const place = this.flip ? +node.dataset.c : +node.dataset.r;
      const marked = id !== undefined && place >= 0 && domains[place]?.id === id;
      node.classList.toggle("rbx-under", marked);
    });
  }

  /** Number of train examples by source and domain, flat: sources first. */
  counts() {
    const { domains, sources, crosstab, nTrain, labels, sourceIds, mask } = this.store;
    const given = crosstab.counts || [], wide = domains.length;
    // A map that shows a sample cannot count the corpus; Python's own counts can.
    const sampled = domains.reduce((sum, d) => sum + d.size, 0) > nTrain;
    const fits = given.length === sources.length && given.every((row) => row.length === wide);
    if (sampled && !this.only.checked && fits) return Float64Array.from(given.flat());
    const place = new Map(domains.map((d, j) => [d.id, j]));
    const counts = new Float64Array(sources.length * wide);
    for (let i = 0; i < nTrain; i++) {
      const j = place.get(labels[i]), s = sourceIds[i];
      if (j === undefined || s >= sources.length || (this.only.checked && !mask[i])) continue;
      counts[s * wide + j]++;
    }
    return counts;
  }

  build() {
    if (!this.visible) return;
    const { domains, sources } = this.store, counts = this.counts();
    const bySource = new Float64Array(sources.length), byDomain = new Float64Array(domains.length);
    counts.forEach((n, i) => {
      bySource[Math.floor(i / domains.length)] += n;
      byDomain[i % domains.length] += n;
    });
    const most = Math.max(1, ...counts);
    const cellOf = (s, d) => {
      const n = counts[s * domains.length + d];
      const whole = { count: most, source: bySource[s], domain: byDomain[d] }[this.basis];
      return { n, share: n / Math.max(1, whole) };
    };
    // The longer of the two runs down the page, where names can be read.
    this.flip = sources.length > domains.length;
    const [rows, columns] = this.flip ? [sources, domains] : [domains, sources];
    const head = columns.map((column, c) => el("th", {
      scope: "col", role: "columnheader", tabindex: "-1", "data-r": "-1", "data-c": c,
      title: String(column.name).slice(0, 300),
    }, el("div", { class: "rbx-upright" }, swatch(column.colour), words("span", column.name))));
    const corner = el("th", { class: "rbx-corner", scope: "col" },
      el("span", { class: "rbx-sr", text: this.flip ? "source" : "domain" }));
    const body = rows.map((row, r) => el("tr", { role: "row" },
      el("th", { scope: "row", role: "rowheader", tabindex: "-1", "data-r": r, "data-c": "-1" },
        named(row)),
      ...columns.map((_, c) => {
        const [s, d] = this.flip ? [r, c] : [c, r];
        return this.buildCell(r, c, sources[s], domains[d], s, cellOf(s, d));
      })));
    const focused = this.table.contains(document.activeElement);
    this.table.classList.toggle("rbx-flat", columns.length < 8);
    this.table.replaceChildren(
      el("thead", {}, el("tr", { role: "row" }, corner, ...head)), el("tbody", {}, ...body));
    const [r, c] = this.at;
    this.moveTo(clamp(r, 0, rows.length - 1), clamp(c, 0, columns.length - 1), focused);
  }

  buildCell(r, c, source, domain, s, { n, share }) {
    const rounded = share < 0.005 ? "<1" : String(Math.round(100 * share));
    return el("td", {
      role: "gridcell", tabindex: "-1", class: share > 0.5 ? "rbx-deep" : "", test: "cell",
      "data-r": r, "data-c": c, "data-source": s, "data-domain": domain.id,
      text: !n ? "" : this.basis === "count" ? count(n) : rounded,
      title: `${source.name} in ${domain.name}: ${plural(n, "example")}`.slice(0, 400),
      style: { "--part": share.toFixed(3) },
    });
  }

  cell(r, c) {
    return this.table.querySelector(`[data-r="${r}"][data-c="${c}"]`);
  }

  /** Make one cell (or heading) the one that Tab reaches. */
  moveTo(r, c, focus = true) {
    const node = this.cell(r, c);
    this.at = [r, c];
    this.table.querySelectorAll("[tabindex='0']").forEach((other) => { other.tabIndex = -1; });
    if (!node) return;
    node.tabIndex = 0;
    if (focus) node.focus();
  }

  key(event) {
    const move = {
      ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
    }[event.key];
    if (move) {
      const [r, c] = [this.at[0] + move[0], this.at[1] + move[1]];
      if (this.cell(r, c)) this.moveTo(r, c);
    } else if (event.key === "Enter" || event.key === " ") this.click(event);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Place of a cell or a heading, and the domain or source that it stands for, or both. */
  meaning(target) {
    const node = target.closest("[data-r]");
    if (!node) return null;
    const r = +node.dataset.r, c = +node.dataset.c, [s, d] = this.flip ? [r, c] : [c, r];
    const domain = d >= 0 ? this.store.domains[d]?.id : undefined;
    return { r, c, domain, source: s >= 0 ? s : undefined };
  }

  over(target) {
    const meaning = this.meaning(target);
    if (!meaning) return;
    const { domain, source } = meaning;
    this.store.setHover({
      ...(domain !== undefined && { domain }), ...(source !== undefined && { source }),
    });
  }

  click(event) {
    const meaning = this.meaning(event.target), { labels, sourceIds, nTrain } = this.store;
    if (!meaning) return;
    const { r, c, domain, source } = meaning;
    this.moveTo(r, c);
    const rows = this.store.rows((i) => (domain === undefined || labels[i] === domain)
      && (source === undefined || sourceIds[i] === source), nTrain);
    this.store.select(rows, event.shiftKey ? "add" : event.altKey ? "remove" : "replace");
  }
}

// ------------------------------------------------------------------ log and status

/** Every edit, the latest first. */
class LogPanel {
  constructor(store) {
    this.store = store;
    this.list = el("ol", { class: "rbx-log", test: "log", reversed: true });
    this.undo = smallButton("log-undo", "Undo last", "Undo the last edit",
      () => store.send({ type: "undo" }), { name: "undo" });
    this.node = el("div", { class: "rbx-panel" },
      el("div", { class: "rbx-panel-head" },
        caption("Every edit is recorded and can be replayed."), this.undo),
      el("div", { class: "rbx-scroll", tabindex: "0", role: "region", "aria-label": "Edits" },
        this.list));
  }

  update(changed) {
    if (!changed.has("history")) return;
    const { log = [], redo, undo } = this.store.history;
    const lines = log.map((line) =>
      el("li", {}, words("span", String(line).replace(/^\d+\. /, "")))).reverse();
    const undone = redo && el("li", { class: "rbx-undone" }, words("span", redo),
      el("span", { class: "rbx-tag", text: "undone" }));
    const none = !redo && !lines.length
      && el("li", { class: "rbx-hint rbx-none", text: "No edits yet." });
    this.list.start = log.length + (redo ? 1 : 0);
    setChildren(this.list, undone, ...lines, none);
    this.undo.setAttribute("aria-disabled", String(!undo));
  }
}

/** The line below: progress of what is being computed, errors, and notices. */
class StatusLine {
  constructor(store) {
    this.store = store;
    this.text = el("span",
      { class: "rbx-status-text", role: "status", "aria-live": "polite", test: "status" });
    this.progress = el("progress",
      { class: "rbx-progress", max: 1, test: "progress", "aria-label": "Progress", hidden: true });
    this.cancel = smallButton("cancel", "Cancel", "Stop this computation",
      () => store.send({ type: "cancel" }), { hidden: true });
    this.message = el("span", { class: "rbx-error-text" });
    this.error = el("div", { class: "rbx-error", role: "alert", test: "error", hidden: true },
      this.message,
      button("error-close", { label: "Dismiss", name: "close", kind: "rbx-plain",
        on: () => { this.error.hidden = true; } }));
    this.notices = el("ul", { class: "rbx-notices", test: "notices", "aria-label": "Notices" });
    this.node = el("footer", { class: "rbx-foot" }, this.error, this.notices,
      el("div", { class: "rbx-status" }, this.text, this.progress, this.cancel));
  }

  update(changed) {
    const { status, error, notices } = this.store;
    if (changed.has("status")) {
      // What is done within a blink needs no progress bar.
      clearTimeout(this.soon);
      if (status.busy && this.progress.hidden) {
        this.soon = setTimeout(() => this.showBusy(true), 250);
      } else this.showBusy(status.busy);
    }
    if (!status.busy) setText(this.text, status.text || this.summary());
    if (changed.has("error")) {
      setText(this.message, error);
      this.error.hidden = false;
    }
    if (changed.has("notices")) setChildren(this.notices, ...notices.map(noticeItem));
  }

  summary() {
    const { n, nTrain, selection, domains } = this.store;
    const evals = n > nTrain ? ` and ${count(n - nTrain)} of the eval set` : "";
    const m = domains.filter((d) => d.kind !== "noise").length;
    const selected = selection.length ? ` · ${count(selection.length)} selected` : "";
    return `${plural(nTrain, "example")}${evals} in ${plural(m, "domain")}${selected}`;
  }

  showBusy(on) {
    const { status } = this.store;
    this.progress.hidden = this.cancel.hidden = !on;
    this.node.closest(".rbx").setAttribute("aria-busy", String(Boolean(on)));
    if (!on) return;
    setText(this.text, status.text || "Working…");
    if (Number.isFinite(status.fraction)) this.progress.value = clamp(status.fraction, 0, 1);
    else this.progress.removeAttribute("value");
  }

  dispose() {
    clearTimeout(this.soon);
  }
}

function noticeItem({ level, text }) {
  const warning = level === "warn";
  return el("li",
    { class: warning ? "rbx-warn" : "rbx-info", title: String(text).slice(0, 600) },
    el("b", { class: "rbx-sr", text: warning ? "Warning: " : "Note: " }), words("span", text));
}

function render({ model, el: host }) {
  const root = el("section", { class: "rbx", "aria-label": "Corpus explorer", test: "explorer" });
  host.append(root);
  const store = new Store(model), explorer = new Explorer(store, root), { map } = explorer;
  // For tests: where a row is on the map's canvas, and what a lasso cost.
  root.explorer = {
    screen: (row) => map.view.toScreen(store.xy[2 * row], store.xy[2 * row + 1]),
    get cost() { return { paint: map.layer.cost, lasso: map.lassoCost }; },
    store,
  };
  return () => {
    explorer.dispose();
    root.remove();
  };
}

export default { render };
