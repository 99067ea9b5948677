// What the colours of the map mean; sources can be hovered and clicked.
class Legend {
  constructor(store, map) {
    this.store = store;
    this.mode = el("select", { class: "rbx-select", test: "colour", "aria-label": "Colour by", on: { change: () => store.send({ type: "colour", mode: this.mode.value }) } });
    this.key = el("div", { class: "rbx-key", test: "legend" });
    this.node = el("div", { class: "rbx-legend" }, el("label", { class: "rbx-caption" }, "Colour by ", this.mode), this.key, map.splits);
  }

  update(changed) {
    if (!["colour", "values", "sources", "n_train", "xy", "domains"].some((name) => changed.has(name))) return;
    const { colour, sources } = this.store, modes = colour.modes || [], mode = colour.mode || "domain";
    if ([...this.mode.options].map((o) => o.value).join() !== modes.map((m) => m.id).join()) {
      this.mode.replaceChildren(...modes.map((m) => el("option", { value: m.id, text: m.label })));
    }
    this.mode.value = mode;
    const continuous = modes.some((m) => m.id === mode && m.continuous);
    this.key.classList.toggle("rbx-continuous", continuous);
    if (continuous) {
      this.key.replaceChildren(el("span", { class: "rbx-number", text: colour.low || "" }), el("i", { class: "rbx-ramp", style: { background: rampGradient(RAMP) } }),
        el("span", { class: "rbx-number", text: colour.high || "" }), words("span", colour.title || "", { class: "rbx-ramp-title" }),
        ...(this.store.values.includes(255) ? [el("span", { class: "rbx-mark" }, el("i", { class: "rbx-dot rbx-unknown" }), "unknown")] : []));
    } else if (mode === "source") {
      this.key.replaceChildren(...sources.map((source, i) => el("button", { type: "button", class: "rbx-source", test: "legend-source", title: `Select the examples of ${source.name}`.slice(0, 300),
        on: {
          click: (event) => this.store.select(this.store.rows((row) => this.store.sourceIds[row] === i), event.shiftKey ? "add" : "replace"),
          pointerenter: () => this.store.setHover({ source: i }), pointerleave: () => this.store.setHover(null),
          focus: () => this.store.setHover({ source: i }), blur: () => this.store.setHover(null),
        } }, swatch(source.colour), words("span", source.name))));
    } else {
      const ring = this.store.n > this.store.nTrain ? el("span", { class: "rbx-mark" }, el("i", { class: "rbx-dot rbx-ring" }), "eval") : null;
      this.key.replaceChildren(...[el("span", { class: "rbx-mark" }, el("i", { class: "rbx-dot" }), "train"), ring,
        el("span", { class: "rbx-mark" }, el("i", { class: "rbx-dot rbx-unknown" }), "in no domain")].filter(Boolean));
    }
  }
}
