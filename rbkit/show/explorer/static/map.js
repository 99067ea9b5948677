// The map: a cached layer of points below, and above it the names, the lasso and the marks.
class CorpusMap {
  constructor(store) {
    this.store = store;
    this.view = new Viewport();
    this.layer = new PointLayer();
    this.names = new Names();
    this.path = null;
    this.tool = "lasso";
    this.below = el("canvas", { class: "rbx-points", "aria-hidden": "true" });
    this.above = el("canvas", {
      class: "rbx-overlay", tabindex: "0", role: "application", test: "map", "aria-roledescription": "map",
      "aria-label": "Map of the corpus",
    });
    this.help = el("p", { class: "rbx-sr", text: "Arrow keys move the map, plus and minus zoom, 0 shows all. Enter selects the "
      + "examples in view, Shift Enter adds them. Escape clears. With a pointer, draw a loop around examples to select them." });
    this.hint = el("div", { class: "rbx-zoom-hint", "aria-hidden": "true", text: "Click the map or hold Ctrl to zoom with the wheel" });
    this.frame = el("div", { class: "rbx-map" }, this.below, this.above, this.tools(), this.hint, this.help);
    this.tips = new Tips(store, this.frame);
    this.node = this.frame;
    this.watch = new ResizeObserver(() => this.resize());
    this.watch.observe(this.frame);
    bindGestures(this);
  }

  tools() {
    const { store } = this;
    this.lassoButton = button("tool-lasso", { label: "Select with a lasso (drag)", name: "lasso", "aria-pressed": "true", on: () => this.take("lasso") });
    this.panButton = button("tool-pan", { label: "Move the map (or hold the space bar)", name: "hand", "aria-pressed": "false", on: () => this.take("pan") });
    this.splits = el("select", { class: "rbx-select rbx-small", test: "split", "aria-label": "Show examples of", title: "Show examples of",
      on: { change: () => store.setSplit(this.splits.value) } },
    ...[["all", "train + eval"], ["train", "train only"], ["eval", "eval only"]].map(([value, text]) => el("option", { value, text })));
    return el("div", { class: "rbx-tools", role: "toolbar", "aria-label": "Map" },
      el("div", { class: "rbx-stack" }, this.lassoButton, this.panButton),
      el("div", { class: "rbx-stack" },
        button("zoom-in", { label: "Zoom in (+)", name: "plus", on: () => this.zoom(1.5) }),
        button("zoom-out", { label: "Zoom out (−)", name: "minus", on: () => this.zoom(1 / 1.5) }),
        button("zoom-fit", { label: "Show all (0)", name: "fit", on: () => this.fit() })));
  }

  take(tool) {
    this.tool = tool;
    this.lassoButton.setAttribute("aria-pressed", String(tool === "lasso"));
    this.panButton.setAttribute("aria-pressed", String(tool === "pan"));
    this.above.classList.toggle("rbx-grab", tool === "pan");
  }

  zoom(factor, x, y) {
    this.view.zoomAt(factor, x, y);
    this.move();
  }

  fit() {
    this.view.fit();
    this.move();
  }

  /** The map moved: show it at once, and paint it sharply when painting is cheap or the gesture pauses. */
  move() {
    clearTimeout(this.later);
    if (this.layer.cost < 20) this.dirty = true;
    else this.later = setTimeout(() => { this.dirty = true; this.schedule(); }, 90);
    this.moved = true;
    this.schedule();
  }

  schedule() {
    if (this.frameId) return;
    this.frameId = requestAnimationFrame(() => {
      this.frameId = 0;
      this.draw();
    });
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.frame;
    if (!width || !height) return;  // detached: JupyterLab takes cells out of the page when they scroll away
    this.view.resize(width, height);
    this.dirty = true;
    this.schedule();
  }

  /** Colours of the theme as plain numbers: the painter mixes them itself. */
  theme() {
    const numbers = (name) => {
      this.help.style.color = `var(${name})`;
      const colour = getComputedStyle(this.help).color, unit = colour.startsWith("color(") ? 255 : 1;
      const [r, g, b, a = 1] = (colour.match(/[\d.]+/g) || [0, 0, 0]).map(Number);
      return [r * unit, g * unit, b * unit, a];
    };
    const paper = numbers("--paper");
    const probe = (name) => numbers(name).slice(0, 3).map((v, i, c) => Math.round(paper[i] + (v - paper[i]) * numbers(name)[3]));
    this.look = { paper: probe("--paper"), ink: probe("--ink"), faint: probe("--faint"), unknown: probe("--unknown"),
      accent: probe("--accent"), font: getComputedStyle(this.frame).fontFamily };
    this.help.style.color = "";
    this.dirty = true;
    this.schedule();
  }

  update(changed) {
    const has = (...names) => names.some((name) => changed.has(name));
    if (has("xy")) this.view.embrace(this.store.xy);
    if (has("xy", "labels", "values", "source_ids", "domains", "sources", "colour", "selection", "selected_domains", "hover", "split", "n_train")) {
      this.dirty = true;
    }
    if (changed.has("labels") && this.tips.row >= 0) this.tips.fill();
    if (has("xy", "n_train", "domains")) this.describe();
    this.schedule();
  }

  describe() {
    const { store } = this;
    const biggest = [...store.domains].sort((a, b) => b.size - a.size).slice(0, 5).map((d) => d.name).join(", ");
    this.above.setAttribute("aria-label", `Map of ${plural(store.n, "example")} in ${plural(store.domains.length, "domain")}; largest: ${biggest}`);
  }

  draw() {
    const { view, store } = this, ratio = window.devicePixelRatio || 1;
    if (view.width < 2 || !this.look) return;
    const width = Math.round(view.width * ratio), height = Math.round(view.height * ratio);
    for (const canvas of [this.below, this.above]) {
      if (canvas.width !== width || canvas.height !== height) {
        canvas.width = width;
        canvas.height = height;
        this.dirty = true;
      }
    }
    if (this.dirty) this.layer.paint(store, view, ratio, this.look);
    if (this.dirty || this.moved) this.layer.show(this.below.getContext("2d"), view, ratio, this.look);
    this.dirty = this.moved = false;
    const pen = this.above.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, view.width, view.height);
    if (store.n) this.names.draw(pen, store, view, this.look);
    for (const row of new Set([this.tips.row, store.marked, store.pinned])) this.mark(pen, row);
    if (this.path) this.loop(pen);
  }

  mark(pen, row) {
    if (!(row >= 0 && row < this.store.n)) return;
    const [x, y] = this.view.toScreen(this.store.xy[2 * row], this.store.xy[2 * row + 1]);
    for (const [colour, width] of [[this.look.paper, 5], [this.look.ink, 2]]) {
      pen.strokeStyle = `rgb(${colour})`;
      pen.lineWidth = width;
      pen.beginPath();
      pen.arc(x, y, this.layer.radius(this.store, this.view) + 4, 0, 2 * Math.PI);
      pen.stroke();
    }
  }

  loop(pen) {
    pen.beginPath();
    this.path.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.closePath();
    pen.fillStyle = `rgba(${this.look.accent},.10)`;
    pen.fill();
    pen.lineWidth = 3.5;
    pen.strokeStyle = `rgba(${this.look.paper},.9)`;
    pen.stroke();
    pen.lineWidth = 1.5;
    pen.strokeStyle = `rgb(${this.look.accent})`;
    pen.setLineDash([5, 3]);
    pen.stroke();
    pen.setLineDash([]);
  }

  nearest(x, y) {
    const { store, view } = this;
    if (!store.n) return -1;
    store.index ||= new Grid(store.xy, view.extent);
    const [dx, dy] = view.toData(x, y);
    return store.index.nearest(dx, dy, 8 / view.scale, (i) => store.shown(i));
  }

  /** Select what the drawn loop holds. */
  close(mode) {
    const began = performance.now(), polygon = this.path.flatMap(([x, y]) => this.view.toData(x, y));
    this.path = null;
    this.store.select(insidePolygon(this.store.xy, polygon, (i) => this.store.shown(i)), mode);
    this.lassoCost = performance.now() - began;
  }

  dispose() {
    this.watch.disconnect();
    cancelAnimationFrame(this.frameId);
    clearTimeout(this.later);
    clearTimeout(this.hintTimer);
  }
}
