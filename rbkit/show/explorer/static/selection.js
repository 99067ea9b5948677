// What is selected: where it lies, its texts to read, and another domain to move it to.
const PAGE = 12;

class SelectionPanel {
  constructor(store) {
    this.store = store;
    this.shown = 0;
    this.visible = false;
    this.heading = el("h3", { class: "rbx-heading", test: "selection-count" });
    this.clear = button("selection-clear", { label: "Clear the selection (Esc)", text: "Clear", kind: "rbx-small", on: () => store.select(new Uint32Array(0)) });
    this.where = el("ul", { class: "rbx-spread", "aria-label": "Domains of the selection", test: "selection-domains" });
    this.target = el("select", { class: "rbx-select rbx-grow", test: "move-target", "aria-label": "Move to", on: { change: () => this.wanted() } });
    this.name = el("input", { type: "text", class: "rbx-input rbx-grow", test: "move-name", placeholder: "name of the new domain", dir: "auto", maxlength: 120, "aria-label": "Name of the new domain",
      on: { keydown: (event) => { if (event.key === "Enter") this.move(); } } });
    this.go = button("move", { label: "Move the selected examples", text: "Move", kind: "rbx-small rbx-primary", on: () => this.move() });
    this.tools = el("div", { class: "rbx-move", role: "group", "aria-label": "Move the selection" }, el("span", { class: "rbx-caption", text: "Move to" }), this.target, this.name, this.go);
    this.list = el("div", { class: "rbx-scroll rbx-reading", tabindex: "0", role: "region", "aria-label": "Selected examples", test: "selection-list" });
    this.more = button("selection-more", { label: "Read more of the selection", text: "Read more", kind: "rbx-small", on: () => this.load(false) });
    this.empty = el("div", { class: "rbx-empty", test: "selection-empty" }, icon("lasso"), el("b", { text: "Nothing selected" }),
      el("p", { text: "Draw a loop around examples on the map, search for a word, or press Enter on a domain. Shift adds, Alt takes away." }));
    this.full = el("div", { class: "rbx-filled" }, el("div", { class: "rbx-panel-head" }, this.heading, this.clear), this.where, this.tools, this.list);
    this.node = el("div", { class: "rbx-panel" }, this.empty, this.full);
    this.loadSoon = debounced(120, () => this.load(true));
  }

  wanted() {
    const fresh = this.target.value === "new";
    this.name.hidden = !fresh;
    if (fresh && this.node.contains(document.activeElement)) this.name.focus();
  }

  move() {
    const value = this.target.value, op = { op: "move", to: value === "new" ? null : +value };
    const name = this.name.value.trim();
    if (value === "new" && name) op.name = name;
    this.name.value = "";
    this.store.operate(op);
  }

  /** A page of the selection, spread over all of it: the first rows of a corpus are rarely typical. */
  page(from) {
    const { selection } = this.store, n = selection.length, rows = [];
    let step = Math.max(1, Math.round(n * 0.618));
    const divides = (a, b) => (b ? divides(b, a % b) : a);
    while (divides(n, step) !== 1) step++;
    for (let i = from; i < Math.min(n, from + PAGE); i++) rows.push(selection[(i * step) % n]);
    return rows;
  }

  async load(fresh) {
    const { selection } = this.store;
    if (!this.visible || !selection.length) return;
    this.stale = false;
    if (fresh) this.shown = 0;
    const items = await this.store.read(this.page(this.shown));
    if (selection !== this.store.selection) return;
    if (fresh) {
      this.ul = el("ul", { class: "rbx-examples" });
      this.list.replaceChildren(this.ul, this.more);
      this.list.scrollTop = 0;
    }
    this.ul.append(...items.map((item) => exampleItem(this.store, item)));
    this.shown = Math.min(selection.length, this.shown + PAGE);
    this.more.hidden = this.shown >= selection.length;
  }

  setVisible(on) {
    this.visible = on;
    if (on && this.stale) this.loadSoon();  // one load, whether the selection or the tab came first
  }

  update(changed) {
    const { store } = this, n = store.selection.length;
    if (changed.has("selection") || changed.has("xy")) {
      this.stale = true;
      this.loadSoon();
    }
    if (["selection", "labels", "domains", "xy"].some((name) => changed.has(name))) {
      this.empty.hidden = n > 0;
      this.full.hidden = n === 0;
      setText(this.heading, `${plural(n, "example")} selected`);
      const spread = [...store.tally().domains].sort((a, b) => b[1] - a[1]);
      const rest = spread.slice(6).reduce((sum, [, size]) => sum + size, 0);
      this.where.replaceChildren(...spread.slice(0, 6).map(([id, size]) => {
        const domain = store.byId.get(id);
        return el("li", { style: { "--part": `${(100 * size) / n}%` } }, swatch(domain ? domain.colour : ""), words("span", domain ? domain.name : "in no domain"),
          el("span", { class: "rbx-number", text: `${count(size)} · ${percent(size / n)}` }));
      }), ...(rest ? [el("li", { style: { "--part": `${(100 * rest) / n}%` } }, el("span", { class: "rbx-words", text: `${spread.length - 6} more domains` }), el("span", { class: "rbx-number", text: `${count(rest)} · ${percent(rest / n)}` }))] : []));
    }
    if (changed.has("domains")) {
      const before = this.target.value;
      this.target.replaceChildren(el("option", { value: "new", text: "a new domain" }),
        ...store.domains.filter((d) => d.kind !== "noise").map((d) => el("option", { value: d.id, text: d.name, dir: "auto" })));
      this.target.value = [...this.target.options].some((o) => o.value === before) ? before : "new";
      this.wanted();
    }
  }

  dispose() {
    this.loadSoon.cancel();
  }
}
