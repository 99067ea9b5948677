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
