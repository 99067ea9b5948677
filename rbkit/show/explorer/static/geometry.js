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
