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
