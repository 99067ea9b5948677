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
