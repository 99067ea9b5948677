// Where things are: the viewport of the map, which points a lasso holds, which one is nearest.

/** The part of the plane that the map shows. y points up, as in the static figure. */
class Viewport {
  constructor() {
    this.width = this.height = 1;
    this.extent = [0, 0, 1, 1];
    this.fit();
  }

  /** Look at all of these points from now on. */
  embrace(xy) {
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

  get scale() {
    const [x0, y0, x1, y1] = this.extent;
    return 0.93 * Math.min(this.width / Math.max(x1 - x0, 1e-6), this.height / Math.max(y1 - y0, 1e-6)) * this.zoom;
  }

  toScreen(x, y) {
    return [(x - this.x) * this.scale + this.width / 2, (this.y - y) * this.scale + this.height / 2];
  }

  toData(sx, sy) {
    return [(sx - this.width / 2) / this.scale + this.x, this.y - (sy - this.height / 2) / this.scale];
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

/** Rows inside a polygon (winding number, as the canvas fills it); polygon is [x, y, x, y, ...] in data units. */
function insidePolygon(xy, polygon, accept) {
  const corners = polygon.length >> 1;
  let x0 = Infinity, x1 = -Infinity, y0 = Infinity, y1 = -Infinity;
  for (let i = 0; i < corners; i++) {
    x0 = Math.min(x0, polygon[2 * i]); x1 = Math.max(x1, polygon[2 * i]);
    y0 = Math.min(y0, polygon[2 * i + 1]); y1 = Math.max(y1, polygon[2 * i + 1]);
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
  const n = xy.length >> 1, found = new Uint32Array(n);
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
    if (winding) found[size++] = i;
  }
  return found.slice(0, size);
}

/** Points sorted into the cells of a grid, so that the nearest is found without visiting all. */
class Grid {
  constructor(xy, extent) {
    this.xy = xy;
    [this.x0, this.y0] = extent;
    this.span = Math.max(extent[2] - extent[0], extent[3] - extent[1], 1e-6);
    const n = xy.length >> 1, side = (this.side = clamp(Math.round(Math.sqrt(n / 2)), 1, 256));
    const cells = new Int32Array(n);
    this.start = new Int32Array(side * side + 1);
    for (let i = 0; i < n; i++) {
      cells[i] = this.line(xy[2 * i + 1] - this.y0) * side + this.line(xy[2 * i] - this.x0);
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
    let best = -1, least = radius * radius;
    const top = this.line(y + radius - this.y0), left = this.line(x - radius - this.x0), right = this.line(x + radius - this.x0);
    for (let row = this.line(y - radius - this.y0); row <= top; row++) {
      const from = this.start[row * this.side + left], to = this.start[row * this.side + right + 1];
      for (let k = from; k < to; k++) {
        const i = this.rows[k], dx = this.xy[2 * i] - x, dy = this.xy[2 * i + 1] - y, d = dx * dx + dy * dy;
        if (d <= least && accept(i)) {
          best = i;
          least = d;
        }
      }
    }
    return best;
  }
}
// The point layer: all points painted into one ImageData by hand. Per-point canvas calls take
// seconds at 200,000 points; this takes tens of milliseconds and needs no WebGL.
const HIDDEN = 0, DIM = 1, PLAIN = 2, LIT = 3;

/** Which colour each point has: a code per point and a table from codes to colours. */
function pointColours(store, unknown) {
  const mode = store.colour.mode || "domain";
  const continuous = (store.colour.modes || []).some((m) => m.id === mode && m.continuous);
  const other = pack(unknown);
  if (continuous && store.values.length) {
    const table = new Uint32Array(256).fill(other);
    for (let v = 0; v < 255; v++) table[v] = pack(rampColour(v / 254));
    return { codes: store.values, table, other };
  }
  const table = new Uint32Array(65536).fill(other);
  if (mode === "source") {
    store.sources.forEach((source, i) => { table[i] = pack(parse(source.colour)); });
    return { codes: store.sourceIds, table, other };
  }
  for (const domain of store.domains) table[domain.id] = pack(parse(domain.colour));
  return { codes: store.labels, table, other };
}

/** What stands out: the hovered domain or source, else the selection, else the chosen domains. */
function pointFlags(store, flags) {
  const { labels, sourceIds, mask, hover, chosen, n } = store;
  let lit = null, dim = DIM;
  if (hover) {
    const { domain, source } = hover;
    lit = (i) => (domain === undefined || labels[i] === domain) && (source === undefined || sourceIds[i] === source);
  } else if (store.selection.length) lit = (i) => mask[i] === 1;
  else if (chosen.size) lit = (i) => chosen.has(labels[i]);
  if (!lit) dim = PLAIN;
  for (let i = 0; i < n; i++) flags[i] = !store.shown(i) ? HIDDEN : lit && lit(i) ? LIT : dim;
  return lit !== null;
}

/** Coverage of a disc (or a ring) pixel by pixel, as [dx, dy, cover of 256, ...]. */
function discStamp(radius, hollow) {
  const reach = Math.ceil(radius), cells = [];
  for (let dy = -reach; dy <= reach; dy++) {
    for (let dx = -reach; dx <= reach; dx++) {
      const d = Math.hypot(dx, dy);
      let cover = clamp(radius + 0.5 - d, 0, 1);
      if (hollow) cover *= clamp(d - radius + 2.3, 0.12, 1);
      if (cover > 0.03) cells.push(dx, dy, Math.round(256 * cover));
    }
  }
  return { reach, cells };
}

class PointLayer {
  constructor() {
    this.canvas = document.createElement("canvas");
    this.pen = this.canvas.getContext("2d", { alpha: false });
    this.flags = new Uint8Array(0);
    this.cost = 0;
  }

  /** Radius of a point in CSS pixels: small where there are many, larger when one looks closer. */
  radius(store, view) {
    const room = Math.sqrt((view.width * view.height) / Math.max(store.n, 1));
    return clamp(clamp(0.36 * room, 0.85, 3.8) * Math.pow(view.zoom, 0.4), 0.85, 6.5);
  }

  paint(store, view, ratio, look) {
    const began = performance.now();
    const width = Math.max(1, Math.round(view.width * ratio)), height = Math.max(1, Math.round(view.height * ratio));
    if (this.canvas.width !== width || this.canvas.height !== height || !this.image) {
      this.canvas.width = width;
      this.canvas.height = height;
      this.image = this.pen.createImageData(width, height);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    if (this.flags.length !== store.n) this.flags = new Uint8Array(store.n);
    const opaque = 0xff000000, { pixels } = this;
    pixels.fill(pack(look.paper) | opaque);
    const emphasis = pointFlags(store, this.flags);
    const colours = pointColours(store, look.unknown);
    const size = this.radius(store, view) * ratio;
    const strength = store.n > 60000 && view.zoom < 2 ? 0.72 : 0.9;
    const draw = (flag, radius, alpha, flat) => this.stampAll(store, view, ratio, width, height, colours, flag, radius, alpha, flat);
    if (emphasis) {
      draw(DIM, size, store.n > 60000 ? 0.07 : 0.13, pack(look.faint));
      // The outline makes the emphasis visible without its hue.
      draw(LIT, size + (size > 2.5 * ratio ? 1 : 0.7) * ratio, 0.8, pack(look.ink));
      draw(LIT, size, 1, null);
    } else draw(PLAIN, size, strength, null);
    this.pen.putImageData(this.image, 0, 0);
    this.cost = performance.now() - began;
    this.at = { x: view.x, y: view.y, scale: view.scale };
  }

  stampAll(store, view, ratio, width, height, colours, flag, radius, alpha, flat) {
    const { xy, nTrain } = store, { flags, pixels } = this, { codes, table, other } = colours;
    const scale = view.scale * ratio;
    const ox = width / 2 - view.x * scale, oy = height / 2 + view.y * scale;
    const stampFor = (hollow) => {
      const { reach, cells } = discStamp(radius, hollow);
      const offsets = [], covers = [];
      for (let c = 0; c < cells.length; c += 3) {
        offsets.push(cells[c + 1] * width + cells[c]);
        covers.push(Math.round(cells[c + 2] * alpha));
      }
      return { reach, offsets: Int32Array.from(offsets), covers: Int32Array.from(covers) };
    };
    // Eval examples are rings where there is room for a ring to be seen.
    const full = stampFor(false), ring = radius > 2.2 && flat === null ? stampFor(true) : full;
    for (let i = 0; i < flags.length; i++) {
      if (flags[i] !== flag) continue;
      const { reach, offsets, covers } = i < nTrain ? full : ring;
      const px = Math.round(xy[2 * i] * scale + ox), py = Math.round(oy - xy[2 * i + 1] * scale);
      if (!(px >= reach && py >= reach && px < width - reach && py < height - reach)) continue;
      const colour = flat !== null ? flat : codes.length > i ? table[codes[i]] : other;
      const r = colour & 255, g = (colour >> 8) & 255, b = (colour >> 16) & 255, at = py * width + px;
      for (let c = 0; c < offsets.length; c++) {
        const where = at + offsets[c], a = covers[c], old = pixels[where];
        const or = old & 255, og = (old >> 8) & 255, ob = (old >> 16) & 255;
        pixels[where] = 0xff000000 | (ob + (((b - ob) * a) >> 8)) << 16 | (og + (((g - og) * a) >> 8)) << 8 | (or + (((r - or) * a) >> 8));
      }
    }
  }

  /** Show the layer; while a gesture moves the map, the last painting stands in, moved and scaled. */
  show(pen, view, ratio, look) {
    const { at, canvas } = this;
    const grow = view.scale / at.scale;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    if (grow === 1 && at.x === view.x && at.y === view.y) {
      pen.drawImage(canvas, 0, 0);
      return;
    }
    pen.fillStyle = `rgb(${look.paper})`;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    const left = (at.x - view.x) * view.scale * ratio, top = (view.y - at.y) * view.scale * ratio;
    pen.drawImage(canvas, left + (canvas.width * (1 - grow)) / 2, top + (canvas.height * (1 - grow)) / 2,
      canvas.width * grow, canvas.height * grow);
  }
}
// Names of domains on the map: with a halo, beside a dot of the domain's colour, never on top of each other.
const NAME_ROOM = 160, LINE = 19;
const PER_NAME = 15000;  // pixels of the map for one name: more of them would hide what they name

class Names {
  constructor() {
    this.widths = new Map();
    this.boxes = [];
  }

  /** Cut a name to the room it has; one line, whatever it contains. */
  fit(pen, name) {
    const key = pen.font + "\u0000" + name;
    if (!this.widths.has(key)) {
      if (this.widths.size > 4000) this.widths.clear();
      let text = Array.from(String(name).replace(/\s+/g, " ").slice(0, 200));
      let shown = text.join("");
      while (text.length > 1 && pen.measureText(shown).width > NAME_ROOM) {
        text = text.slice(0, Math.max(1, Math.min(text.length - 1, Math.floor(text.length * 0.93))));
        shown = text.join("").trimEnd() + "…";
      }
      this.widths.set(key, [shown, pen.measureText(shown).width]);
    }
    return this.widths.get(key);
  }

  /** Place and draw; larger domains first, what is hovered or chosen before all. */
  draw(pen, store, view, look) {
    const hovered = store.hover && store.hover.domain;
    const strong = (d) => d.id === hovered || (hovered === undefined && store.chosen.has(d.id));
    const emphasis = store.hover ? hovered !== undefined : store.chosen.size > 0 && !store.selection.length;
    const colourless = (store.colour.mode || "domain") !== "domain";
    const order = store.domains.filter((d) => Number.isFinite(d.x) && (d.kind !== "noise" || strong(d)))
      .sort((a, b) => strong(b) - strong(a) || b.size - a.size);
    this.boxes = [];
    pen.textBaseline = "middle";
    pen.textAlign = "left";
    pen.lineJoin = "round";
    const most = Math.max(6, Math.round((view.width * view.height) / PER_NAME));
    for (const domain of order) {
      if (this.boxes.length >= most && !strong(domain)) break;
      const [x, y] = view.toScreen(domain.x, domain.y);
      if (x < -20 || y < -20 || x > view.width + 20 || y > view.height + 20) continue;
      const loud = strong(domain);
      pen.font = `${domain.kind === "noise" ? "italic " : ""}${loud ? 700 : 600} 12px ${look.font}`;
      const [text, wide] = this.fit(pen, domain.name), dot = colourless ? 0 : 13, width = wide + dot;
      const box = this.place(x, y, width, view, loud);
      if (!box) continue;
      this.boxes.push(box);
      box.id = domain.id;
      pen.globalAlpha = emphasis && !loud ? 0.32 : 1;
      const middle = box.y + LINE / 2;
      pen.strokeStyle = `rgb(${look.paper})`;
      pen.lineWidth = 4;
      pen.strokeText(text, box.x + dot, middle);
      pen.fillStyle = `rgb(${look.ink})`;
      pen.fillText(text, box.x + dot, middle);
      if (dot) {
        pen.beginPath();
        pen.arc(box.x + 4.5, middle, 4.2, 0, 2 * Math.PI);
        pen.lineWidth = 3;
        pen.stroke();
        pen.fillStyle = safeColour(domain.colour);
        pen.fill();
        pen.lineWidth = 1;
        pen.strokeStyle = `rgba(${look.ink},.55)`;
        pen.stroke();
      }
      if (loud) {
        pen.fillStyle = `rgb(${look.ink})`;
        pen.fillRect(box.x + dot, box.y + LINE - 2, wide, 1.5);
      }
    }
    pen.globalAlpha = 1;
  }

  place(x, y, width, view, always) {
    const left = clamp(x - width / 2, 4, Math.max(4, view.width - width - 4));
    for (const shift of [0, -0.7, 0.7, -1.3, 1.3]) {
      const box = { x: left, y: clamp(y - LINE / 2 + shift * LINE, 2, view.height - LINE - 2), width };
      if (always || !this.boxes.some((other) => box.x < other.x + other.width + 8 && other.x < box.x + box.width + 8
        && Math.abs(box.y - other.y) < LINE)) return box;
    }
    return null;
  }

  at(x, y) {
    return this.boxes.find((b) => x >= b.x - 2 && x <= b.x + b.width + 2 && y >= b.y && y <= b.y + LINE) || null;
  }
}
// One example to read: its text, where it comes from, how far from its domain's centre.

function picture(address, size) {
  const safe = safeImage(address);
  return safe ? el("img", { class: `rbx-picture ${size}`, src: safe, alt: "", loading: "lazy" }) : null;
}

/** Domain and source of a row, as they are now (the text was read some time ago). */
function whereabouts(store, item) {
  const domain = item.row === undefined ? null : store.domainOf(item.row), source = store.sourceOf(item.row);
  const line = el("div", { class: "rbx-where" });
  if (item.row !== undefined) {
    line.append(el("span", { class: "rbx-isolate" }, swatch(domain ? domain.colour : ""),
      words("b", domain ? domain.name : "in no domain")));
  }
  const origin = source ? source.name : item.source;
  if (origin) line.append(words("span", origin, { class: "rbx-origin" }));
  if (Number.isFinite(item.distance)) {
    line.append(el("span", { class: "rbx-number", text: `distance ${item.distance.toFixed(2)}`, title: "to the centre of its domain" }));
  }
  if (item.row >= store.nTrain) line.append(el("span", { class: "rbx-tag", text: "eval", title: "An example of the eval set" }));
  return line;
}

/** A list item with the text clipped to some lines; a button shows all of it where it is longer. */
function exampleItem(store, item) {
  const text = words("div", item.text || "", { class: "rbx-text rbx-clipped" });
  text.removeAttribute("title");
  const more = el("button", { type: "button", class: "rbx-link", test: "example-more", "aria-expanded": "false", text: "show more" });
  more.addEventListener("click", () => {
    const whole = !text.classList.toggle("rbx-clipped");
    more.setAttribute("aria-expanded", String(whole));
    more.textContent = whole ? "show less" : "show more";
  });
  const long = (item.text || "").length > 260 || (item.text || "").split("\n").length > 4;
  const node = el("li", { class: "rbx-example", test: "example" },
    picture(item.image, "rbx-middle"), el("div", { class: "rbx-grow" }, text, long ? more : null,
      item.row === undefined ? null : whereabouts(store, item)));
  if (item.row !== undefined) {
    node.dataset.row = item.row;
    node.addEventListener("pointerenter", () => { store.marked = item.row; store.touch("marked"); });
    node.addEventListener("pointerleave", () => { store.marked = -1; store.touch("marked"); });
  }
  return node;
}

function exampleList(store, items, empty = "Nothing to read here.") {
  if (!items.length) return el("p", { class: "rbx-hint", text: empty });
  return el("ul", { class: "rbx-examples" }, ...items.map((item) => exampleItem(store, item)));
}
// What a point says: a tip that follows the pointer, and a card that stays after a click.
class Tips {
  constructor(store, frame) {
    this.store = store;
    this.frame = frame;
    this.row = -1;
    this.reading = false;
    this.tip = el("div", { class: "rbx-tip", role: "tooltip", test: "tooltip", hidden: true });
    this.card = el("div", { class: "rbx-pinned", role: "dialog", "aria-label": "Example", test: "pinned", hidden: true });
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
    this.tip.replaceChildren(...[
      item ? picture(item.image, "rbx-large") : null,
      item ? words("div", item.text, { class: "rbx-text rbx-clipped" }) : el("div", { class: "rbx-text rbx-hint", text: "…" }),
      whereabouts(this.store, { row: this.row, ...(item || {}) }),
    ].filter(Boolean));
  }

  /** One question under way at most; when it is answered, the row hovered by then is asked for. */
  async read() {
    if (this.reading || this.row < 0 || this.store.texts.has(this.row)) return;
    this.reading = true;
    const asked = this.row;
    await Promise.race([this.store.read([asked]), new Promise((resolve) => setTimeout(resolve, PATIENCE))]);
    this.reading = false;
    if (this.row === asked) {
      this.fill();
      standAt(this.frame, this.tip, ...this.at, 14);
    } else this.read();
  }

  async pin(row, x, y) {
    this.hover(-1);
    this.pinned = row;
    const [item] = await this.store.read([row]);
    if (this.pinned !== row) return;
    const domain = this.store.domainOf(row);
    const close = button("pinned-close", { label: "Close", name: "close", kind: "rbx-plain", on: () => this.unpin() });
    this.card.replaceChildren(...[
      el("div", { class: "rbx-pinned-head" }, whereabouts(this.store, { row, ...(item || {}) }), close),
      item ? picture(item.image, "rbx-large") : null,
      words("div", item ? item.text : "", { class: "rbx-text rbx-whole", tabindex: "0" }),
      domain ? button("pinned-domain", { label: "Select this domain", text: "Select its domain", kind: "rbx-small",
        on: () => this.store.choose([domain.id]) }) : null,
    ].filter(Boolean));
    this.card.querySelector(".rbx-whole").removeAttribute("title");
    this.card.hidden = false;
    this.store.pinned = row;
    this.store.touch("marked");
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
// Pointer, wheel and keys on the map. Pointer events serve mouse, pen and fingers alike.
function bindGestures(map) {
  const { above, store, view } = map, fingers = new Map();
  let action = null, last = null, spread = 0, space = false;

  const place = (event) => {
    const box = above.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const modeOf = (event) => (event.altKey ? "remove" : event.shiftKey ? "add" : "replace");

  function hover(event) {
    const [x, y] = place(event), row = map.nearest(x, y);
    if (row < 0 && map.tips.row < 0) return;
    map.tips.hover(row, x, y);
    map.schedule();
  }

  function abort() {
    action = null;
    map.path = null;
    map.schedule();
  }

  above.addEventListener("pointerdown", (event) => {
    above.classList.add("rbx-quiet");  // a ring of focus is for keys
    above.focus({ preventScroll: true });
    const at = place(event);
    fingers.set(event.pointerId, at);
    above.setPointerCapture(event.pointerId);
    map.tips.hover(-1);
    if (fingers.size === 2) {
      const [[ax, ay], [bx, by]] = [...fingers.values()];
      spread = Math.hypot(ax - bx, ay - by);
      last = [(ax + bx) / 2, (ay + by) / 2];
      map.path = null;
      action = "pinch";
    } else if (event.button === 1 || (event.button === 0 && (space || map.tool === "pan"))) {
      event.preventDefault();
      action = "pan";
      last = at;
    } else if (event.button === 0) {
      action = "lasso";
      map.path = [at];
    }
  });

  above.addEventListener("pointermove", (event) => {
    const at = place(event);
    if (fingers.has(event.pointerId)) fingers.set(event.pointerId, at);
    if (action === "lasso") {
      const steps = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
      for (const step of steps.length ? steps : [event]) {
        const [x, y] = place(step), [px, py] = map.path[map.path.length - 1];
        if (Math.hypot(x - px, y - py) >= 2) map.path.push([x, y]);
      }
      map.schedule();
    } else if (action === "pan") {
      view.pan(at[0] - last[0], at[1] - last[1]);
      last = at;
      map.move();
    } else if (action === "pinch" && fingers.size === 2) {
      const [[ax, ay], [bx, by]] = [...fingers.values()], now = Math.hypot(ax - bx, ay - by), mid = [(ax + bx) / 2, (ay + by) / 2];
      view.pan(mid[0] - last[0], mid[1] - last[1]);
      map.zoom(now / Math.max(spread, 1), ...mid);
      spread = now;
      last = mid;
    } else if (!action && event.pointerType !== "touch") hover(event);
  });

  above.addEventListener("pointerup", (event) => {
    fingers.delete(event.pointerId);
    if (action === "lasso") {
      const { path } = map, length = path.reduce((sum, p, i) => sum + (i ? Math.hypot(p[0] - path[i - 1][0], p[1] - path[i - 1][1]) : 0), 0);
      if (length > 12 && path.length > 2) map.close(modeOf(event));
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

  function click(event, [x, y]) {
    map.path = null;
    const row = map.nearest(x, y), name = map.names.at(x, y);
    if (name) {
      const chosen = new Set(event.shiftKey || event.ctrlKey || event.metaKey ? store.chosen : []);
      if (store.chosen.has(name.id)) chosen.delete(name.id);
      else chosen.add(name.id);
      store.choose(chosen);
    } else if (row >= 0) map.tips.pin(row, x, y);
    else map.tips.unpin();
  }

  above.addEventListener("wheel", (event) => {
    const mine = above.getRootNode().activeElement === above || event.ctrlKey || event.metaKey;
    if (!mine) {  // the notebook scrolls under the pointer: it must not get caught in the map
      map.hint.classList.add("rbx-on");
      clearTimeout(map.hintTimer);
      map.hintTimer = setTimeout(() => map.hint.classList.remove("rbx-on"), 1200);
      return;
    }
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 18 : 1;
    map.tips.hover(-1);
    map.zoom(Math.exp(-clamp(event.deltaY * lines, -240, 240) * 0.0022), ...place(event));
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
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (moves[event.key]) {
      view.pan(...moves[event.key]);
      map.move();
    } else if (event.key === "+" || event.key === "=") map.zoom(1.3);
    else if (event.key === "-" || event.key === "_") map.zoom(1 / 1.3);
    else if (event.key === "0") map.fit();
    else if (event.key === "Enter") {
      const [x0, y1] = view.toData(0, 0), [x1, y0] = view.toData(view.width, view.height), { xy } = store;
      store.select(store.rows((i) => xy[2 * i] >= x0 && xy[2 * i] <= x1 && xy[2 * i + 1] >= y0 && xy[2 * i + 1] <= y1), modeOf(event));
    } else if (event.key === "Escape") {
      if (map.path) abort();
      else if (!map.tips.unpin()) store.clear();
    } else return;
    event.preventDefault();
  });

  const release = () => {
    space = false;
    above.classList.toggle("rbx-grab", map.tool === "pan");
  };
  above.addEventListener("keyup", (event) => { if (event.key === " ") release(); });
  above.addEventListener("blur", () => {
    above.classList.remove("rbx-quiet");
    release();
  });
}
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
