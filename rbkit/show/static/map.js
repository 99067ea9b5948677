// The map of the corpus: points, names, lasso, tooltips, and the legend of its colours.
// "Screen" positions are CSS pixels of the map's frame; y points up, as in the static figure.

/** A cached layer of points below, and above it the names, the lasso and the marks. */
class CorpusMap {
  constructor(store) {
    this.store = store;
    this.view = new Viewport();
    this.layer = new PointLayer();
    this.labels = new MapLabels();
    this.lasso = null;  // screen positions, while it is drawn
    this.below = el("canvas", { class: "rbx-points", "aria-hidden": "true" });
    this.above = el("canvas", {
      class: "rbx-overlay", tabindex: "0", role: "application", test: "map",
      "aria-roledescription": "map", "aria-label": "Map of the corpus",
    });
    this.help = el("p", { class: "rbx-sr", text: "Arrow keys move the map, plus and minus zoom, "
      + "0 shows all. Enter selects the examples in view, Shift Enter adds them. Escape clears. "
      + "With a pointer, draw a loop around examples to select them." });
    this.hint = el("div", { class: "rbx-zoom-hint", "aria-hidden": "true",
      text: "Click the map or hold Ctrl to zoom with the wheel" });
    this.node = div("rbx-map",
      this.below, this.above, this.buildTools(), this.hint, this.help);
    this.take("lasso");
    this.tips = new Tips(store, this.node);
    this.resized = new ResizeObserver(() => this.resize());
    this.resized.observe(this.node);
    bindGestures(this);
  }

  buildTools() {
    const make = (test, name, label, on) => button(test, { label, name, on });
    const take = (tool) => () => this.take(tool);
    this.tools = {
      lasso: make("tool-lasso", "lasso", "Select with a lasso (drag)", take("lasso")),
      pan: make("tool-pan", "hand", "Move the map (or hold the space bar)", take("pan")),
    };
    return el("div", { class: "rbx-tools", role: "toolbar", "aria-label": "Map" },
      div("rbx-stack", this.tools.lasso, this.tools.pan),
      div("rbx-stack",
        make("zoom-in", "plus", "Zoom in (+)", () => this.zoom(1.5)),
        make("zoom-out", "minus", "Zoom out (−)", () => this.zoom(1 / 1.5)),
        make("zoom-fit", "fit", "Show all (0)", () => this.fit())));
  }

  take(tool) {
    this.tool = tool;
    for (const [name, node] of Object.entries(this.tools)) {
      node.setAttribute("aria-pressed", String(name === tool));
    }
    this.above.classList.toggle("rbx-grab", tool === "pan");
  }

  zoom(factor, x, y) {
    this.view.zoomAt(factor, x, y);
    this.moved();
  }

  fit() {
    this.view.fit();
    this.moved();
  }

  /** Show a move at once; paint it sharply when painting is cheap or the gesture pauses. */
  moved() {
    clearTimeout(this.later);
    if (this.layer.cost < 20) this.stale = true;
    else this.later = setTimeout(() => this.repaint(), 90);
    this.shifted = true;
    this.schedule();
  }

  repaint() {
    this.stale = true;
    this.schedule();
  }

  schedule() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.node;
    if (!width || !height) return;  // JupyterLab takes cells out of the page that scroll away
    this.view.resize(width, height);
    this.repaint();
  }

  /** Read the theme's colours as plain numbers: the painter mixes them itself. */
  readTheme() {
    const rgba = (name) => {
      this.help.style.color = `var(${name})`;
      const { color: colour } = getComputedStyle(this.help);
      const unit = colour.startsWith("color(") ? 255 : 1;
      const [r, g, b, a = 1] = (colour.match(/[\d.]+/g) || [0, 0, 0]).map(Number);
      return [r * unit, g * unit, b * unit, a];
    };
    const paper = rgba("--paper");
    const onPaper = (name) => {
      const [r, g, b, a] = rgba(name);
      return [r, g, b].map((v, i) => Math.round(paper[i] + (v - paper[i]) * a));
    };
    this.theme = {
      paper: onPaper("--paper"), ink: onPaper("--ink"), faint: onPaper("--faint"),
      unknown: onPaper("--unknown"), accent: onPaper("--accent"),
      font: getComputedStyle(this.node).fontFamily,
    };
    this.help.style.color = "";
    this.repaint();
  }

  update(changed) {
    const { store } = this;
    if (changed.has("xy")) this.view.show(store.xy);
    if (hasAny(changed, "xy", "labels", "values", "source_ids", "domains", "sources", "colour",
      "selection", "selected_domains", "hover", "split", "n_train")) this.stale = true;
    if (changed.has("labels") && this.tips.row >= 0) this.tips.fill();
    if (hasAny(changed, "xy", "n_train", "domains")) {
      const largest = [...store.domains].sort((a, b) => b.size - a.size).slice(0, 5);
      this.above.setAttribute("aria-label", `Map of ${plural(store.n, "example")} in `
        + `${plural(store.domains.length, "domain")}; largest: `
        + largest.map((domain) => domain.name).join(", "));
    }
    this.schedule();
  }

  draw() {
    const { view, store, theme } = this, ratio = window.devicePixelRatio || 1;
    if (view.width < 2 || !theme) return;
    const width = Math.round(view.width * ratio), height = Math.round(view.height * ratio);
    for (const canvas of [this.below, this.above]) {
      if (canvas.width === width && canvas.height === height) continue;
      canvas.width = width;
      canvas.height = height;
      this.stale = true;
    }
    if (this.stale) this.layer.paint(store, view, ratio, theme);
    if (this.stale || this.shifted) {
      this.layer.copyTo(this.below.getContext("2d"), view, ratio, theme);
    }
    this.stale = this.shifted = false;
    const pen = this.above.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, view.width, view.height);
    if (store.n) this.labels.draw(pen, store, view, theme);
    const rows = new Set([this.tips.row, store.marked, store.pinned]);
    for (const row of rows) this.drawMark(pen, row);
    if (this.lasso) this.drawLasso(pen);
  }

  drawMark(pen, row) {
    const { store, theme, view } = this;
    if (!(row >= 0 && row < store.n)) return;
    const [x, y] = view.toScreen(store.xy[2 * row], store.xy[2 * row + 1]);
    for (const [colour, width] of [[theme.paper, 5], [theme.ink, 2]]) {
      pen.strokeStyle = `rgb(${colour})`;
      pen.lineWidth = width;
      pen.beginPath();
      pen.arc(x, y, pointRadius(store, view) + 4, 0, 2 * Math.PI);
      pen.stroke();
    }
  }

  drawLasso(pen) {
    pen.beginPath();
    this.lasso.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.closePath();
    pen.fillStyle = `rgba(${this.theme.accent},.10)`;
    pen.fill();
    pen.lineWidth = 3.5;
    pen.strokeStyle = `rgba(${this.theme.paper},.9)`;
    pen.stroke();
    pen.lineWidth = 1.5;
    pen.strokeStyle = `rgb(${this.theme.accent})`;
    pen.setLineDash([5, 3]);
    pen.stroke();
    pen.setLineDash([]);
  }

  /** Row of the point nearest to a place on the screen, within 8 pixels, or -1. */
  nearest(x, y) {
    const { store, view } = this;
    if (!store.n) return -1;
    store.grid ||= new Grid(store.xy, view.extent);
    return store.grid.nearest(...view.toData(x, y), 8 / view.scale, (row) => store.shown(row));
  }

  selectLasso(mode) {
    const began = performance.now(), { store, view } = this;
    const polygon = this.lasso.flatMap(([x, y]) => view.toData(x, y));
    this.lasso = null;
    store.select(insidePolygon(store.xy, polygon, (row) => store.shown(row)), mode);
    this.lassoCost = performance.now() - began;
  }

  selectView(mode) {
    const { store: { xy }, view } = this;
    const [x0, y1] = view.toData(0, 0), [x1, y0] = view.toData(view.width, view.height);
    const inView = (i) => {
      const x = xy[2 * i], y = xy[2 * i + 1];
      return x >= x0 && x <= x1 && y >= y0 && y <= y1;
    };
    this.store.select(this.store.rows(inView), mode);
  }

  dispose() {
    this.resized.disconnect();
    cancelAnimationFrame(this.frame);
    clearTimeout(this.later);
    clearTimeout(this.hintTimer);
  }
}

/** Pointer, wheel and keys on the map. Pointer events serve mouse, pen and fingers alike. */
function bindGestures(map) {
  const { above, store, view } = map, fingers = new Map();
  let action = null, last = null, spread = 0, space = false;

  const place = (event) => {
    const box = above.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const panTo = ([x, y]) => {
    view.pan(x - last[0], y - last[1]);
    last = [x, y];
  };
  const twoFingers = () => {
    const [[ax, ay], [bx, by]] = fingers.values();
    return { distance: Math.hypot(ax - bx, ay - by), middle: [(ax + bx) / 2, (ay + by) / 2] };
  };
  const abort = () => {
    action = map.lasso = null;
    map.schedule();
  };

  function click(event, [x, y]) {
    map.lasso = null;
    const row = map.nearest(x, y), label = map.labels.at(x, y);
    if (label) {
      const more = event.shiftKey || event.ctrlKey || event.metaKey;
      const chosen = new Set(more ? store.chosen : []);
      if (store.chosen.has(label.id)) chosen.delete(label.id);
      else chosen.add(label.id);
      store.choose(chosen);
    } else if (row >= 0) map.tips.pin(row, x, y);
    else map.tips.unpin();
  }

  above.addEventListener("pointerdown", (event) => {
    above.classList.add("rbx-quiet");  // a ring of focus is for keys
    above.focus({ preventScroll: true });
    const at = place(event);
    fingers.set(event.pointerId, at);
    above.setPointerCapture(event.pointerId);
    map.tips.hover(-1);
    if (fingers.size === 2) {
      ({ distance: spread, middle: last } = twoFingers());
      map.lasso = null;
      action = "pinch";
    } else if (event.button === 1 || (event.button === 0 && (space || map.tool === "pan"))) {
      event.preventDefault();
      action = "pan";
      last = at;
    } else if (event.button === 0) {
      action = "lasso";
      map.lasso = [at];
    }
  });

  above.addEventListener("pointermove", (event) => {
    const at = place(event);
    if (fingers.has(event.pointerId)) fingers.set(event.pointerId, at);
    if (action === "lasso") {
      const steps = event.getCoalescedEvents?.() || [];
      for (const step of steps.length ? steps : [event]) {
        const [x, y] = place(step), [px, py] = map.lasso.at(-1);
        if (Math.hypot(x - px, y - py) >= 2) map.lasso.push([x, y]);
      }
      map.schedule();
    } else if (action === "pan") {
      panTo(at);
      map.moved();
    } else if (action === "pinch" && fingers.size === 2) {
      const { distance, middle } = twoFingers();
      panTo(middle);
      map.zoom(distance / Math.max(spread, 1), ...middle);
      spread = distance;
    } else if (!action && event.pointerType !== "touch") {
      const row = map.nearest(...at);
      if (row < 0 && map.tips.row < 0) return;
      map.tips.hover(row, ...at);
      map.schedule();
    }
  });

  above.addEventListener("pointerup", (event) => {
    fingers.delete(event.pointerId);
    if (action === "lasso") {
      const steps = map.lasso.slice(1).map(([x, y], i) =>
        Math.hypot(x - map.lasso[i][0], y - map.lasso[i][1]));
      const length = steps.reduce((sum, step) => sum + step, 0);
      if (length > 12 && steps.length > 1) map.selectLasso(selectMode(event));
      else click(event, place(event));
    }
    if (action !== "pinch" || !fingers.size) abort();
  });

  above.addEventListener("pointercancel", (event) => {
    fingers.delete(event.pointerId);
    abort();
  });

  above.addEventListener("pointerleave", () => {
    map.tips.hover(-1);
    map.schedule();
  });

  above.addEventListener("wheel", (event) => {
    const focused = above.getRootNode().activeElement === above;
    if (!focused && !event.ctrlKey && !event.metaKey) {  // the notebook scrolls under the pointer
      map.hint.classList.add("rbx-on");
      clearTimeout(map.hintTimer);
      map.hintTimer = setTimeout(() => map.hint.classList.remove("rbx-on"), 1200);
      return;
    }
    event.preventDefault();
    const pixels = clamp(event.deltaY * (event.deltaMode === 1 ? 18 : 1), -240, 240);
    map.tips.hover(-1);
    map.zoom(Math.exp(-0.0022 * pixels), ...place(event));
  }, { passive: false });

  above.addEventListener("keydown", (event) => {
    above.classList.remove("rbx-quiet");
    if (event.key === " ") {
      space = true;
      above.classList.add("rbx-grab");
      event.preventDefault();
      return;
    }
    if (event.ctrlKey || event.metaKey) return;
    const step = 0.12 * Math.min(view.width, view.height);
    const pan = {
      ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step],
    }[event.key];
    const zoom = { "+": 1.3, "=": 1.3, "-": 1 / 1.3, "_": 1 / 1.3 }[event.key];
    if (pan) {
      view.pan(...pan);
      map.moved();
    } else if (zoom) map.zoom(zoom);
    else if (event.key === "0") map.fit();
    else if (event.key === "Enter") map.selectView(selectMode(event));
    else if (event.key === "Escape") {
      if (map.lasso) abort();
      else if (!map.tips.unpin()) store.clear();
    } else return;
    event.preventDefault();
  });

  const releaseSpace = () => {
    space = false;
    above.classList.toggle("rbx-grab", map.tool === "pan");
  };
  above.addEventListener("keyup", (event) => { if (event.key === " ") releaseSpace(); });
  above.addEventListener("blur", () => {
    above.classList.remove("rbx-quiet");
    releaseSpace();
  });
}

/** Radius of a point in CSS pixels: small where there are many, larger when zoomed in. */
function pointRadius(store, view) {
  const room = Math.sqrt((view.width * view.height) / Math.max(store.n, 1));
  return clamp(clamp(0.36 * room, 0.85, 3.8) * Math.pow(view.zoom, 0.4), 0.85, 6.5);
}

/** Which colour each point has: a code per point and a table from codes to colours. */
function pointColours(store, unknown) {
  const other = pack(unknown), table = new Uint32Array(65536).fill(other);
  if (store.continuous && store.values.length) {
    for (let v = 0; v < 255; v++) table[v] = pack(rampColour(v / 254));
    return { codes: store.values, table, other };
  }
  if (store.colourMode === "source") {
    store.sources.forEach((source, i) => { table[i] = pack(parse(source.colour)); });
    return { codes: store.sourceIds, table, other };
  }
  for (const domain of store.domains) table[domain.id] = pack(parse(domain.colour));
  return { codes: store.labels, table, other };
}

const HIDDEN = 0, DIM = 1, PLAIN = 2, LIT = 3;

/** What stands out: the hovered domain or source, else the selection, else chosen domains. */
function pointFlags(store, flags) {
  const { labels, sourceIds, mask, hover, chosen } = store;
  let lit = null;
  if (hover) {
    const { domain, source } = hover;
    lit = (i) => (domain === undefined || labels[i] === domain)
      && (source === undefined || sourceIds[i] === source);
  } else if (store.selection.length) lit = (i) => mask[i] === 1;
  else if (chosen.size) lit = (i) => chosen.has(labels[i]);
  const rest = lit ? DIM : PLAIN;
  for (let i = 0; i < store.n; i++) flags[i] = !store.shown(i) ? HIDDEN : lit?.(i) ? LIT : rest;
  return lit !== null;
}

/** Coverage of a disc (or a ring) pixel by pixel: offsets in the image, alpha of 256. */
function discStamp(radius, hollow, alpha, width) {
  const reach = Math.ceil(radius), offsets = [], covers = [];
  for (let dy = -reach; dy <= reach; dy++) {
    for (let dx = -reach; dx <= reach; dx++) {
      const d = Math.hypot(dx, dy);
      let cover = clamp(radius + 0.5 - d, 0, 1);
      if (hollow) cover *= clamp(d - radius + 2.3, 0.12, 1);
      if (cover <= 0.03) continue;
      offsets.push(dy * width + dx);
      covers.push(Math.round(Math.round(256 * cover) * alpha));
    }
  }
  return { reach, offsets: Int32Array.from(offsets), covers: Int32Array.from(covers) };
}

/**
 * All points painted into one ImageData by hand. Per-point canvas calls take seconds at
 * 200,000 points; this takes tens of milliseconds and needs no WebGL.
 */
class PointLayer {
  constructor() {
    this.canvas = document.createElement("canvas");
    this.pen = this.canvas.getContext("2d", { alpha: false });
    this.flags = new Uint8Array(0);
    this.cost = 0;
  }

  paint(store, view, ratio, theme) {
    const began = performance.now(), { canvas } = this;
    const width = Math.max(1, Math.round(view.width * ratio));
    const height = Math.max(1, Math.round(view.height * ratio));
    if (canvas.width !== width || canvas.height !== height || !this.image) {
      canvas.width = width;
      canvas.height = height;
      this.image = this.pen.createImageData(width, height);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    if (this.flags.length !== store.n) this.flags = new Uint8Array(store.n);
    this.pixels.fill(pack(theme.paper) | 0xff000000);
    const emphasis = pointFlags(store, this.flags), many = store.n > 60000;
    const colours = pointColours(store, theme.unknown), radius = pointRadius(store, view) * ratio;
    const stamp = (flag, size, alpha, flat = null) => {
      this.stampPoints(store, view, ratio, { colours, flag, radius: size, alpha, flat });
    };
    if (emphasis) {
      stamp(DIM, radius, many ? 0.07 : 0.13, pack(theme.faint));
      // The outline makes the emphasis visible without its hue.
      stamp(LIT, radius + (radius > 2.5 * ratio ? 1 : 0.7) * ratio, 0.8, pack(theme.ink));
      stamp(LIT, radius, 1);
    } else stamp(PLAIN, radius, many && view.zoom < 2 ? 0.72 : 0.9);
    this.pen.putImageData(this.image, 0, 0);
    this.cost = performance.now() - began;
    this.painted = { x: view.x, y: view.y, scale: view.scale };
  }

  /** Stamp the points of one flag, in their own colours or all in the `flat` one. */
  stampPoints({ xy, nTrain }, view, ratio, { colours, flag, radius, alpha, flat }) {
    const { flags, pixels, canvas: { width, height } } = this, { codes, table, other } = colours;
    const scale = view.scale * ratio;
    const ox = width / 2 - view.x * scale, oy = height / 2 + view.y * scale;
    const disc = discStamp(radius, false, alpha, width);
    // Eval examples are rings where there is room for a ring to be seen.
    const rings = radius > 2.2 && flat === null;
    const ring = rings ? discStamp(radius, true, alpha, width) : disc;
    for (let i = 0; i < flags.length; i++) {
      if (flags[i] !== flag) continue;
      const { reach, offsets, covers } = i < nTrain ? disc : ring;
      const x = Math.round(xy[2 * i] * scale + ox), y = Math.round(oy - xy[2 * i + 1] * scale);
      if (!(x >= reach && y >= reach && x < width - reach && y < height - reach)) continue;
      const colour = flat !== null ? flat : codes.length > i ? table[codes[i]] : other;
      const r = colour & 255, g = (colour >> 8) & 255, b = (colour >> 16) & 255;
      const centre = y * width + x;
      for (let c = 0; c < offsets.length; c++) {
        const at = centre + offsets[c], a = covers[c], old = pixels[at];
        const or = old & 255, og = (old >> 8) & 255, ob = (old >> 16) & 255;
        pixels[at] = 0xff000000 | (ob + (((b - ob) * a) >> 8)) << 16
          | (og + (((g - og) * a) >> 8)) << 8 | (or + (((r - or) * a) >> 8));
      }
    }
  }

  /** Show the layer; while a gesture moves the map, the last painting is moved and scaled. */
  copyTo(pen, view, ratio, theme) {
    const { painted, canvas } = this, grow = view.scale / painted.scale;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    if (grow === 1 && painted.x === view.x && painted.y === view.y) {
      pen.drawImage(canvas, 0, 0);
      return;
    }
    pen.fillStyle = `rgb(${theme.paper})`;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    const left = (painted.x - view.x) * view.scale * ratio + (canvas.width * (1 - grow)) / 2;
    const top = (view.y - painted.y) * view.scale * ratio + (canvas.height * (1 - grow)) / 2;
    pen.drawImage(canvas, left, top, canvas.width * grow, canvas.height * grow);
  }
}

const LABEL_WIDTH = 160, LABEL_HEIGHT = 19;
const AREA_PER_LABEL = 15000;  // pixels of the map: more labels would hide the points they name

/** Names of domains, each next to a dot of its colour, with a halo, never on top of each other. */
class MapLabels {
  constructor() {
    this.fitted = new Map();
    this.boxes = [];
  }

  /** Cut a name to the room it has, on one line; return the text and its width. */
  fit(pen, name) {
    const key = pen.font + "\u0000" + name;
    if (!this.fitted.has(key)) {
      if (this.fitted.size > 4000) this.fitted.clear();
      let signs = Array.from(String(name).replace(/\s+/g, " ").slice(0, 200));
      let text = signs.join("");
      while (signs.length > 1 && pen.measureText(text).width > LABEL_WIDTH) {
        const fewer = Math.min(signs.length - 1, Math.floor(signs.length * 0.93));
        signs = signs.slice(0, Math.max(1, fewer));
        text = signs.join("").trimEnd() + "…";
      }
      this.fitted.set(key, [text, pen.measureText(text).width]);
    }
    return this.fitted.get(key);
  }

  /** Place and draw; larger domains first, hovered or chosen ones before all. */
  draw(pen, store, view, theme) {
    const hovered = store.hover?.domain;
    const stressed = (d) => d.id === hovered || (hovered === undefined && store.chosen.has(d.id));
    const others = store.hover ? hovered !== undefined
      : store.chosen.size > 0 && !store.selection.length;  // whether other labels fade
    const named = (d) => Number.isFinite(d.x) && (d.kind !== "noise" || stressed(d));
    const order = store.domains.filter(named)
      .sort((a, b) => stressed(b) - stressed(a) || b.size - a.size);
    const most = Math.max(6, Math.round((view.width * view.height) / AREA_PER_LABEL));
    const dot = store.colourMode === "domain" ? 13 : 0;
    this.boxes = [];
    pen.textBaseline = "middle";
    pen.textAlign = "left";
    pen.lineJoin = "round";
    for (const domain of order) {
      const strong = stressed(domain);
      if (this.boxes.length >= most && !strong) break;
      const [x, y] = view.toScreen(domain.x, domain.y);
      if (x < -20 || y < -20 || x > view.width + 20 || y > view.height + 20) continue;
      const slant = domain.kind === "noise" ? "italic " : "";
      pen.font = `${slant}${strong ? 700 : 600} 12px ${theme.font}`;
      const [text, width] = this.fit(pen, domain.name);
      const box = this.place(x, y, width + dot, view, strong);
      if (!box) continue;
      this.boxes.push({ ...box, id: domain.id });
      pen.globalAlpha = others && !strong ? 0.32 : 1;
      this.drawLabel(pen, box, text, width, dot ? safeColour(domain.colour) : null, theme);
      if (strong) pen.fillRect(box.x + dot, box.y + LABEL_HEIGHT - 2, width, 1.5);
    }
    pen.globalAlpha = 1;
  }

  drawLabel(pen, box, text, width, colour, theme) {
    const middle = box.y + LABEL_HEIGHT / 2, left = box.x + box.width - width;
    pen.strokeStyle = `rgb(${theme.paper})`;
    pen.lineWidth = 4;
    pen.strokeText(text, left, middle);
    pen.fillStyle = `rgb(${theme.ink})`;
    pen.fillText(text, left, middle);
    if (!colour) return;
    pen.beginPath();
    pen.arc(box.x + 4.5, middle, 4.2, 0, 2 * Math.PI);
    pen.lineWidth = 3;
    pen.stroke();
    pen.fillStyle = colour;
    pen.fill();
    pen.lineWidth = 1;
    pen.strokeStyle = `rgba(${theme.ink},.55)`;
    pen.stroke();
    pen.fillStyle = `rgb(${theme.ink})`;
  }

  place(x, y, width, view, always) {
    const left = clamp(x - width / 2, 4, Math.max(4, view.width - width - 4));
    for (const shift of [0, -0.7, 0.7, -1.3, 1.3]) {
      const top = y + (shift - 0.5) * LABEL_HEIGHT;
      const box = { x: left, y: clamp(top, 2, view.height - LABEL_HEIGHT - 2), width };
      const free = !this.boxes.some((other) => box.x < other.x + other.width + 8
        && other.x < box.x + box.width + 8 && Math.abs(box.y - other.y) < LABEL_HEIGHT);
      if (always || free) return box;
    }
    return null;
  }

  at(x, y) {
    return this.boxes.find((box) => x >= box.x - 2 && x <= box.x + box.width + 2
      && y >= box.y && y <= box.y + LABEL_HEIGHT) || null;
  }
}

/** The text of a point: a tip that follows the pointer, and a card that stays after a click. */
class Tips {
  constructor(store, frame) {
    this.store = store;
    this.frame = frame;
    this.row = -1;
    this.reading = false;
    this.tip = el("div", { class: "rbx-tip", role: "tooltip", test: "tooltip", hidden: true });
    this.card = el("div", {
      class: "rbx-pinned", role: "dialog", "aria-label": "Example", test: "pinned", hidden: true,
    });
    frame.append(this.tip, this.card);
  }

  /** Show the tip of a row at a place; its text follows when Python has sent it. */
  hover(row, x, y) {
    if (row !== this.row) {
      this.row = row;
      this.tip.hidden = row < 0;
      this.store.under = row < 0 ? undefined : this.store.labels[row];
      this.store.touch("under");
      if (row >= 0) {
        this.fill();
        this.read();
      }
    }
    this.at = [x, y];
    if (row >= 0) standAt(this.frame, this.tip, x, y, 14);
  }

  fill() {
    const item = this.store.texts.get(this.row);
    setChildren(this.tip, picture(item?.image, "rbx-large"),
      item ? words("div", item.text, { class: "rbx-text rbx-clipped" })
        : el("div", { class: "rbx-text rbx-hint", text: "…" }),
      originLine(this.store, { ...item, row: this.row }));
  }

  /** One question under way at most; the row hovered when it is answered is asked for next. */
  async read() {
    if (this.reading || this.row < 0 || this.store.texts.has(this.row)) return;
    this.reading = true;
    const asked = this.row;
    await Promise.race([this.store.read([asked]), pause(PATIENCE)]);
    this.reading = false;
    if (this.row === asked) {
      this.fill();
      standAt(this.frame, this.tip, ...this.at, 14);
    } else this.read();
  }

  async pin(row, x, y) {
    const { store } = this;
    this.hover(-1);
    this.pinned = row;
    const [item] = await store.read([row]);
    if (this.pinned !== row) return;
    const domain = store.domainOf(row);
    const text = words("div", item?.text, { class: "rbx-text rbx-whole", tabindex: "0" });
    text.removeAttribute("title");
    setChildren(this.card,
      div("rbx-pinned-head", originLine(store, { ...item, row }),
        button("pinned-close",
          { label: "Close", name: "close", kind: "rbx-plain", on: () => this.unpin() })),
      picture(item?.image, "rbx-large"), text,
      domain && smallButton("pinned-domain", "Select its domain", "Select this domain",
        () => store.choose([domain.id])));
    this.card.hidden = false;
    store.pinned = row;
    store.touch("marked");
    standAt(this.frame, this.card, x, y, 12);
  }

  unpin() {
    if (this.card.hidden) return false;
    if (this.card.contains(document.activeElement)) this.frame.querySelector("[tabindex]").focus();
    this.card.hidden = true;
    this.pinned = this.store.pinned = -1;
    this.store.touch("marked");
    return true;
  }
}

/** What the colours of the map mean; sources can be hovered and clicked. */
class Legend {
  constructor(store) {
    this.store = store;
    this.mode = select("colour", "Colour by", (mode) => store.send({ type: "colour", mode }));
    this.key = el("div", { class: "rbx-key", test: "legend" });
    const split = select("split", "Show examples of", (value) => store.setSplit(value),
      [["all", "train + eval"], ["train", "train only"], ["eval", "eval only"]], "rbx-small");
    split.title = "Show examples of";
    this.node = div("rbx-legend",
      el("label", { class: "rbx-caption" }, "Colour by ", this.mode), this.key, split);
  }

  update(changed) {
    if (!hasAny(changed, "colour", "values", "sources", "n_train", "xy", "domains")) return;
    const { store } = this, { colour } = store;
    const mark = (kind, text) =>
      el("span", { class: "rbx-mark" }, el("i", { class: `rbx-dot ${kind}` }), text);
    setOptions(this.mode, (colour.modes || []).map((mode) => [mode.id, mode.label]));
    this.mode.value = store.colourMode;
    this.key.classList.toggle("rbx-continuous", store.continuous);
    if (store.continuous) {
      setChildren(this.key, number(colour.low || ""),
        el("i", { class: "rbx-ramp", style: { background: rampGradient(RAMP) } }),
        number(colour.high || ""), words("span", colour.title, { class: "rbx-ramp-title" }),
        store.values.includes(255) && mark("rbx-unknown", "unknown"));
    } else if (store.colourMode === "source") {
      setChildren(this.key, ...store.sources.map((source, i) => this.sourceButton(source, i)));
    } else {
      const ring = store.n > store.nTrain && mark("rbx-ring", "eval");
      setChildren(this.key, mark("", "train"), ring, mark("rbx-unknown", "in no domain"));
    }
  }

  sourceButton(source, i) {
    const { store } = this;
    const enter = () => store.setHover({ source: i }), leave = () => store.setHover(null);
    const click = (event) => {
      const rows = store.rows((row) => store.sourceIds[row] === i);
      store.select(rows, event.shiftKey ? "add" : "replace");
    };
    return el("button", {
      type: "button", class: "rbx-source", test: "legend-source",
      title: `Select the examples of ${source.name}`.slice(0, 300),
      on: { click, pointerenter: enter, pointerleave: leave, focus: enter, blur: leave },
    }, swatch(source.colour), words("span", source.name));
  }
}

/** The part of the plane that the map shows. */
class Viewport {
  constructor() {
    this.width = this.height = 1;
    this.show([]);
  }

  /** Look at all of these points from now on. */
  show(xy) {
    const box = [Infinity, Infinity, -Infinity, -Infinity];
    for (let i = 0; i < xy.length; i += 2) {
      if (xy[i] < box[0]) box[0] = xy[i];
      if (xy[i + 1] < box[1]) box[1] = xy[i + 1];
      if (xy[i] > box[2]) box[2] = xy[i];
      if (xy[i + 1] > box[3]) box[3] = xy[i + 1];
    }
    this.extent = box.every(Number.isFinite) ? box : [0, 0, 1, 1];
    this.fit();
  }

  resize(width, height) {
    this.width = width;
    this.height = height;
  }

  fit() {
    const [x0, y0, x1, y1] = this.extent;
    this.x = (x0 + x1) / 2;
    this.y = (y0 + y1) / 2;
    this.zoom = 1;
  }

  /** Pixels of the screen per unit of the data. */
  get scale() {
    const [x0, y0, x1, y1] = this.extent;
    const fitted = Math.min(this.width / Math.max(x1 - x0, 1e-6),
      this.height / Math.max(y1 - y0, 1e-6));
    return 0.93 * fitted * this.zoom;
  }

  toScreen(x, y) {
    const { scale } = this;
    return [(x - this.x) * scale + this.width / 2, (this.y - y) * scale + this.height / 2];
  }

  toData(sx, sy) {
    const { scale } = this;
    return [(sx - this.width / 2) / scale + this.x, this.y - (sy - this.height / 2) / scale];
  }

  pan(dx, dy) {
    const [x0, y0, x1, y1] = this.extent;
    this.x = clamp(this.x - dx / this.scale, x0, x1);
    this.y = clamp(this.y + dy / this.scale, y0, y1);
  }

  /** Zoom by a factor and keep the place under (sx, sy) where it is. */
  zoomAt(factor, sx = this.width / 2, sy = this.height / 2) {
    const [x, y] = this.toData(sx, sy);
    this.zoom = clamp(this.zoom * factor, 0.6, 60);
    const [nx, ny] = this.toData(sx, sy);
    this.x += x - nx;
    this.y += y - ny;
  }
}

/** Rows inside a polygon [x, y, x, y, ...] by winding number, as the canvas fills it. */
function insidePolygon(xy, polygon, accept) {
  const corners = polygon.length >> 1;
  let x0 = Infinity, x1 = -Infinity, y0 = Infinity, y1 = -Infinity;
  for (let i = 0; i < corners; i++) {
    x0 = Math.min(x0, polygon[2 * i]);
    x1 = Math.max(x1, polygon[2 * i]);
    y0 = Math.min(y0, polygon[2 * i + 1]);
    y1 = Math.max(y1, polygon[2 * i + 1]);
  }
  // Edges by horizontal band: a point meets the few edges at its height, not all of them.
  const bands = 256, perBand = bands / Math.max(y1 - y0, 1e-12);
  const band = (y) => clamp(Math.floor((y - y0) * perBand), 0, bands - 1);
  const edges = Array.from({ length: bands }, () => []);
  for (let i = 0; i < corners; i++) {
    const j = (i + 1) % corners, ay = polygon[2 * i + 1], by = polygon[2 * j + 1];
    for (let b = band(Math.min(ay, by)); b <= band(Math.max(ay, by)); b++) {
      edges[b].push(polygon[2 * i], ay, polygon[2 * j], by);
    }
  }
  const n = xy.length >> 1, rows = new Uint32Array(n);
  let size = 0;
  for (let i = 0; i < n; i++) {
    const x = xy[2 * i], y = xy[2 * i + 1];
    if (!(x >= x0 && x <= x1 && y >= y0 && y <= y1) || !accept(i)) continue;
    const list = edges[band(y)];
    let winding = 0;
    for (let e = 0; e < list.length; e += 4) {
      const ax = list[e], ay = list[e + 1], bx = list[e + 2], by = list[e + 3];
      const side = (bx - ax) * (y - ay) - (x - ax) * (by - ay);
      if (ay <= y) {
        if (by > y && side > 0) winding++;
      } else if (by <= y && side < 0) winding--;
    }
    if (winding) rows[size++] = i;
  }
  return rows.slice(0, size);
}

/** Points sorted into the cells of a grid, so that the nearest is found without visiting all. */
class Grid {
  constructor(xy, [x0, y0, x1, y1]) {
    this.xy = xy;
    this.x0 = x0;
    this.y0 = y0;
    this.span = Math.max(x1 - x0, y1 - y0, 1e-6);
    const n = xy.length >> 1, side = (this.side = clamp(Math.round(Math.sqrt(n / 2)), 1, 256));
    const cells = new Int32Array(n);
    this.start = new Int32Array(side * side + 1);
    for (let i = 0; i < n; i++) {
      cells[i] = this.line(xy[2 * i + 1] - y0) * side + this.line(xy[2 * i] - x0);
      this.start[cells[i] + 1]++;
    }
    for (let c = 0; c < side * side; c++) this.start[c + 1] += this.start[c];
    const next = this.start.slice(0, -1);
    this.rows = new Uint32Array(n);
    for (let i = 0; i < n; i++) this.rows[next[cells[i]]++] = i;
  }

  line(value) {
    return clamp(Math.floor((value / this.span) * this.side) || 0, 0, this.side - 1);
  }

  /** Nearest accepted row within a radius, or -1. */
  nearest(x, y, radius, accept) {
    const { xy, x0, y0, side } = this;
    const bottom = this.line(y - radius - y0), top = this.line(y + radius - y0);
    const left = this.line(x - radius - x0), right = this.line(x + radius - x0);
    let best = -1, least = radius * radius;
    for (let line = bottom; line <= top; line++) {
      const to = this.start[line * side + right + 1];
      for (let k = this.start[line * side + left]; k < to; k++) {
        const i = this.rows[k], dx = xy[2 * i] - x, dy = xy[2 * i + 1] - y;
        const d = dx * dx + dy * dy;
        if (d <= least && accept(i)) {
          best = i;
          least = d;
        }
      }
    }
    return best;
  }
}
