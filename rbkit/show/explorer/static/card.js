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
