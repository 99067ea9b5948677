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
