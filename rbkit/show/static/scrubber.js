// What one view of the scrubber knows: the runs decoded, where the slider is, what is hovered.
const TRAITS = ["title", "domains", "runs", "stops", "scale", "menu", "notices", "replay", "at", "kind", "selected"];
const REST = 180;  // ms after which the place of the slider is told to Python

class Store extends Conversation {
  constructor(model) {
    super(model);
    this.hover = null;  // {domain} or {domain, other}: places in `domains`
    this.look = {};
    this.save = debounced(REST, () => model.save_changes());
    this.fetch = debounced(REST, (run, round) => this.askGram(run, round));
    for (const name of TRAITS) {
      this.decode(name);
      this.listen(`change:${name}`, () => {
        this.decode(name);
        this.touch(name);
      });
    }
    this.listen("msg:custom", (message, buffers) => this.hear(message, buffers));
  }

  decode(name) {
    const value = this.model.get(name);
    if (name === "runs") this.runs = (value || []).map((run, i) => new Recorded(run, i));
    else if (name === "replay") this.replay = value && value.p ? decodeReplay(value) : null;
    else if (["domains", "stops", "menu", "notices"].includes(name)) this[name] = value || [];
    else if (name === "at") this.at = value || 0;
    else if (name === "selected") this.selected = Number.isInteger(value) ? value : -1;
    else this[name] = value;
  }

  dispose() {
    this.save.cancel();
    this.fetch.cancel();
    super.dispose();
  }

  put(name, value) {
    if (this.model.get(name) === value) return;
    this.model.set(name, value);
    this.save();
  }

  /** Step that the slider stands at; before any round has ended, 0. */
  get step() {
    return this.stops.length ? this.stops[clamp(this.at, 0, this.stops.length - 1)] : 0;
  }

  get lastStep() {
    const ends = this.runs.flatMap((run) => [run.edges[run.rounds], ...run.evaluation.steps.slice(-1), ...run.train[0].slice(-1)]);
    return Math.max(1, ...ends.filter(Number.isFinite));
  }

  moveTo(stop) {
    this.put("at", clamp(Math.round(stop), 0, Math.max(0, this.stops.length - 1)));
  }

  /** Move to the round that is in force at a step. */
  moveToStep(step) {
    const found = this.stops.findIndex((stop) => stop >= step);
    this.moveTo(found < 0 ? this.stops.length - 1 : found);
  }

  select(domain) {
    this.put("selected", domain === this.selected ? -1 : domain);
  }

  nameOf(domain) {
    return this.domains[domain] ? String(this.domains[domain].name) : "others";
  }

  colourOf(domain) {
    return safeColour(this.domains[domain]?.colour);
  }

  /** The domain whose loss is drawn: the selected one, else the run's worst. */
  lossDomain(run) {
    return this.selected >= 0 ? run.placeOf(this.selected) : run.worst;
  }

  async askGram(run, round) {
    if (run.wanted.has(round)) return;
    run.wanted.add(round);
    const reply = await this.ask({ type: "gram", run: run.index, round });
    if (reply.type === "gram") run.take(round, reply.buffers);
    this.touch("gram");
  }
}
// One run as Python sent it, decoded: arrays by round, and Gram matrices when they are looked at.
const KEPT = 48;  // matrices that stay unfolded

/** Value of each half-precision number: browsers have no Float16Array for certain. */
const HALF = (() => {
  const table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const exponent = (bits >> 10) & 31, fraction = bits & 1023, sign = bits >> 15 ? -1 : 1;
    table[bits] = exponent === 31 ? (fraction ? NaN : sign * Infinity)
      : sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
  }
  return table;
})();

class Recorded {
  constructor(run, index) {
    const floats = (name) => typed(run[name], Float32Array);
    this.index = index;
    this.label = String(run.label);
    this.status = String(run.status);
    this.ids = run.ids || [];
    this.m = this.ids.length;
    this.total = run.total;
    this.others = this.total - this.m;
    this.worst = run.worst;
    this.hasGram = Boolean(run.gram);
    this.places = run.places || [];
    this.edges = floats("edges");
    this.rounds = this.edges.length - 1;
    this.p = floats("p");
    this.q = floats("q");
    this.score = floats("score");
    this.noise = floats("noise");
    this.effective = floats("effective");
    const train = floats("train"), n = train.length / 3, evaluation = floats("evaluation"), e = evaluation.length / 2;
    this.train = [train.subarray(0, n), train.subarray(n, 2 * n), train.subarray(2 * n)];
    this.evaluation = { steps: evaluation.subarray(0, e), values: evaluation.subarray(e), byDomain: floats("by_domain") };
    this.place = new Map(this.ids.map((id, i) => [id, i]));
    this.grams = new Map();
    this.wanted = new Set();
    const triangle = (this.m * (this.m + 1)) / 2, cosines = typed(run.grams, Uint16Array), diagonals = floats("diagonals");
    this.raw = new Map((run.sent || []).map((round, i) => [round, { cosines: cosines.subarray(i * triangle, (i + 1) * triangle), diagonal: diagonals.subarray(i * this.m, (i + 1) * this.m) }]));
  }

  placeOf(domain) {
    return this.place.has(domain) ? this.place.get(domain) : -1;
  }

  /** The round that a step belongs to; the last one beyond the end. */
  roundAt(step) {
    for (let t = 0; t < this.rounds; t++) if (this.edges[t + 1] >= step) return t;
    return Math.max(0, this.rounds - 1);
  }

  ended(step) {
    return step > this.edges[this.rounds];
  }

  take(round, buffers) {
    this.raw.set(round, { cosines: typed(buffers[0], Uint16Array), diagonal: typed(buffers[1], Float32Array) });
  }

  /** The Gram matrix of a round, or of the nearest earlier one that is here: {round, cosine, norm}. */
  gram(round) {
    let have = round;
    while (have > 0 && !this.raw.has(have)) have--;
    if (!this.raw.has(have)) return null;
    if (!this.grams.has(have)) {
      if (this.grams.size >= KEPT) this.grams.delete(this.grams.keys().next().value);
      const { m } = this, { cosines, diagonal } = this.raw.get(have), cosine = new Float32Array(m * m);
      for (let i = 0, k = 0; i < m; i++) for (let j = i; j < m; j++, k++) cosine[i * m + j] = cosine[j * m + i] = HALF[cosines[k]];
      this.grams.set(have, { round: have, cosine, diagonal, norm: diagonal.map((d) => (d > 0 ? Math.sqrt(d) : 1)) });
    }
    return this.grams.get(have);
  }

  /** One pair in a round whose matrix is here, without unfolding it. */
  pair(round, i, j, kind) {
    const { cosines, diagonal } = this.raw.get(round), [a, b] = i < j ? [i, j] : [j, i];
    const value = HALF[cosines[a * this.m - (a * (a - 1)) / 2 + b - a]], norm = (k) => (diagonal[k] > 0 ? Math.sqrt(diagonal[k]) : 1);
    if (!Number.isFinite(value)) return NaN;
    if (kind === "raw") return value * norm(a) * norm(b);
    return diagonal[a] > 0 && diagonal[b] > 0 ? clamp(value, -1, 1) : NaN;
  }

  /** One cell of a matrix from `gram`: NaN where the round did not see the pair. */
  cell(gram, i, j, kind) {
    const value = gram.cosine[i * this.m + j];
    if (!Number.isFinite(value)) return NaN;
    if (kind === "raw") return value * gram.norm[i] * gram.norm[j];
    return gram.diagonal[i] > 0 && gram.diagonal[j] > 0 ? clamp(value, -1, 1) : NaN;
  }

  share(round, place) {
    return this.p[round * this.m + place];
  }

  /** Share of the domains that are not shown one by one. */
  rest(round, p = this.p) {
    let sum = 0;
    for (let i = 0; i < this.m; i++) sum += p[round * this.m + i];
    return this.others ? Math.max(0, 1 - sum) : 0;
  }

  /** Index of the last evaluation up to a step, or -1. */
  evaluationAt(step) {
    const { steps } = this.evaluation;
    let found = -1;
    for (let i = 0; i < steps.length && steps[i] <= step; i++) found = i;
    return found;
  }

  lossOf(place, evaluation) {
    return place >= 0 && evaluation >= 0 ? this.evaluation.byDomain[evaluation * this.m + place] : NaN;
  }
}

/** Whether the last evaluations of two runs up to a step were at the same step: else losses do not compare. */
function evaluatedTogether(a, b, step) {
  const [e, f] = [a.evaluationAt(step), b.evaluationAt(step)];
  return e >= 0 && f >= 0 && a.evaluation.steps[e] === b.evaluation.steps[f];
}

function decodeReplay(value) {
  return { label: String(value.label), mixer: String(value.mixer), p: typed(value.p, Float32Array),
    distance: typed(value.distance, Float32Array), effective: typed(value.effective, Float32Array) };
}

/** A number for people: a true minus sign, as many digits as it deserves. */
function figure(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  const text = size > 0 && (size < 0.5 * 10 ** -digits || size >= 1e5) ? value.toExponential(1) : value.toFixed(digits);
  return text.replace("-", "−").replace("e+", "e").replace("e-", "e−");
}

const signed = (value, digits = 3) => (value > 0 ? "+" : "") + figure(value, digits);
const share = (value) => (Number.isFinite(value) ? `${(100 * value).toFixed(1)} %` : "–");
const points = (value) => (Number.isFinite(value) ? `${value > 0 ? "+" : ""}${(100 * value).toFixed(1)}`.replace("-", "−") : "–");
// A canvas that is as sharp as the screen, with an axis of steps and a tip beside the pointer.
class Plot {
  constructor(store, { test, label, height, margin, on }) {
    this.store = store;
    this.margin = { left: 40, right: 10, top: 8, bottom: 24, ...margin };
    this.canvas = el("canvas", { class: "rbs-canvas", test, role: "img", "aria-label": label });
    this.tip = el("div", { class: "rbx-tip", role: "tooltip", test: `${test}-tip`, hidden: true });
    this.box = el("div", { class: "rbs-plot", style: { height: `${height}px` } }, this.canvas, this.tip);
    this.canvas.addEventListener("pointermove", (event) => on.move(...this.placeOf(event)));
    this.canvas.addEventListener("pointerleave", () => { this.tip.hidden = true; on.leave(); });
    this.canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      this.canvas.setPointerCapture(event.pointerId);
      this.dragging = true;
      on.press(...this.placeOf(event));
    });
    this.canvas.addEventListener("pointermove", (event) => { if (this.dragging) on.drag?.(...this.placeOf(event)); });
    this.canvas.addEventListener("pointerup", () => { this.dragging = false; });
    this.canvas.addEventListener("pointercancel", () => { this.dragging = false; });
    this.watch = new ResizeObserver(() => store.touch("size"));
    this.watch.observe(this.box);
  }

  dispose() {
    this.watch.disconnect();
  }

  placeOf(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  /** Clear and measure; null while there is nothing to draw on. */
  begin() {
    const width = this.box.clientWidth, height = this.box.clientHeight, dense = window.devicePixelRatio || 1;
    if (!width || !height) return null;
    if (this.canvas.width !== Math.round(width * dense) || this.canvas.height !== Math.round(height * dense)) {
      this.canvas.width = Math.round(width * dense);
      this.canvas.height = Math.round(height * dense);
    }
    const { left, right, top, bottom } = this.margin;
    this.x0 = left;
    this.x1 = width - right;
    this.y0 = top;
    this.y1 = height - bottom;
    const pen = this.canvas.getContext("2d");
    pen.setTransform(dense, 0, 0, dense, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = `11px ${this.store.look.font}`;
    pen.textBaseline = "middle";
    return pen;
  }

  x(step) {
    return this.x0 + (step / this.store.lastStep) * (this.x1 - this.x0);
  }

  stepAt(x) {
    return clamp((x - this.x0) / (this.x1 - this.x0), 0, 1) * this.store.lastStep;
  }

  /** Ticks of steps along the lower edge. */
  steps(pen) {
    const { look, lastStep } = this.store;
    pen.fillStyle = look.muted;
    pen.textAlign = "center";
    const marks = ticks(0, lastStep, Math.max(2, Math.floor((this.x1 - this.x0) / 90)));
    for (const step of marks) {
      const text = count(step), half = pen.measureText(text).width / 2;
      pen.fillText(text, clamp(this.x(step), this.x0 + (step ? half : 0), this.x1 - half), this.y1 + 13);
    }
  }

  /** Ticks of values at the left, with faint lines across. */
  values(pen, low, high, y, text) {
    const { look } = this.store;
    pen.textAlign = "right";
    for (const value of ticks(low, high, Math.max(2, Math.floor((this.y1 - this.y0) / 34)))) {
      pen.globalAlpha = 0.13;
      pen.fillStyle = look.ink;
      pen.fillRect(this.x0, Math.round(y(value)), this.x1 - this.x0, 1);
      pen.globalAlpha = 1;
      pen.fillStyle = look.muted;
      pen.fillText(text(value), this.x0 - 6, y(value));
    }
  }

  /** The line at the step of the slider. */
  cursor(pen) {
    const x = clamp(this.x(this.store.step), this.x0, this.x1);
    pen.fillStyle = this.store.look.ink;
    pen.fillRect(x - 0.75, this.y0 - 5, 1.5, this.y1 - this.y0 + 5);
    pen.beginPath();
    pen.moveTo(x - 4.5, this.y0 - 7);
    pen.lineTo(x + 4.5, this.y0 - 7);
    pen.lineTo(x, this.y0 - 1);
    pen.fill();
  }

  nothing(pen, text) {
    pen.fillStyle = this.store.look.muted;
    pen.textAlign = "center";
    pen.font = `12px ${this.store.look.font}`;
    pen.fillText(text, (this.x0 + this.x1) / 2, (this.y0 + this.y1) / 2);
  }

  /** Show the tip beside a place. */
  say(x, y, ...lines) {
    this.tip.replaceChildren(...lines);
    this.tip.hidden = false;
    standAt(this.box, this.tip, x, y, 14);
  }
}

/** Round numbers from low to high, about n of them. */
function ticks(low, high, n) {
  const span = high - low;
  if (!(span > 0) || !Number.isFinite(span)) return [low];
  const rough = span / n, power = 10 ** Math.floor(Math.log10(rough));
  const unit = [1, 2, 2.5, 5, 10].map((k) => k * power).find((k) => k >= rough * 0.8);
  const found = [];
  for (let value = Math.ceil(low / unit - 1e-9) * unit; value <= high + unit * 1e-9; value += unit) found.push(Math.abs(value) < unit * 1e-6 ? 0 : value);
  return found;
}

/** A line through values by step; gaps where they are not known. */
function trace(pen, xs, ys) {
  pen.beginPath();
  let down = false;
  for (let i = 0; i < xs.length; i++) {
    if (Number.isFinite(ys[i])) {
      if (down) pen.lineTo(xs[i], ys[i]);
      else pen.moveTo(xs[i], ys[i]);
      down = true;
    } else down = false;
  }
  pen.stroke();
}

/** A name on a canvas: one line, cut to its room, and never reordered by what it contains. */
function nameFor(pen, name, room) {
  let text = Array.from(String(name).replace(/[\s\u202a-\u202e\u2066-\u2069\u200e\u200f]+/g, " ").slice(0, 120));
  if (pen.measureText(text.join("")).width <= room) return text.join("");
  while (text.length > 1 && pen.measureText(text.join("") + "…").width > room) text = text.slice(0, Math.max(1, Math.min(text.length - 1, Math.floor(text.length * 0.92))));
  return text.join("").trimEnd() + "…";
}
// The Gram matrix of a round: a fixed scale around 0, unseen rows hatched, cells that explain themselves.
const MOST_NAMES = 46;  // domains that have room for a name beside their row

// On dark paper the middle is dark: what is near 0 recedes, as it does on white.
const DIVERGING_DARK = hexes("b3dcff 7fbcf0 4393c3 2f6f9f 23506f 2b2b2b 6e332b 9d4a3a d6604d f0907a ffd0c2");

/** Decimals that an inner product of this size deserves. */
const decimals = (value) => (Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 1 ? 2 : 4);

class GramView {
  constructor(store, run) {
    this.store = store;
    this.run = run;
    this.head = words("h3", store.runs.length > 1 ? run.label : "Gram matrix");
    this.when = el("span", { class: "rbs-when", test: `gram-when-${run.index}` });
    this.ramp = el("i", { class: "rbx-ramp", "aria-hidden": "true" });
    this.low = el("span", { class: "rbx-number" });
    this.high = el("span", { class: "rbx-number" });
    this.plot = new Plot(store, { test: `gram-${run.index}`, label: "Gram matrix", height: 300, margin: { left: 0, right: 0, top: 0, bottom: 0 },
      on: { move: (x, y) => this.move(x, y), leave: () => this.store.setHover(null), press: (x, y) => this.press(x, y) } });
    this.canvas = this.plot.canvas;
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-roledescription", "matrix: arrow keys go from cell to cell, Enter selects the row");
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("blur", () => { this.plot.tip.hidden = true; store.setHover(null); });
    this.said = el("span", { class: "rbx-sr", role: "status", "aria-live": "polite" });
    this.node = el("section", { class: "rbs-panel" }, el("header", {}, this.head, this.when,
      el("span", { class: "rbs-scale" }, this.low, this.ramp, this.high)), this.plot.box, this.said);
    this.cursor = null;
    this.small = document.createElement("canvas");
  }

  update(changed) {
    if (!["runs", "at", "kind", "selected", "hover", "theme", "size", "gram", "scale"].some((name) => changed.has(name))) return;
    this.draw();
    if (changed.has("at") && !this.plot.tip.hidden && this.last) this.explain(...this.last);
  }

  get round() {
    return this.run.roundAt(this.store.step);
  }

  draw() {
    const { store, run, plot } = this, { look, kind } = store, { m } = run;
    const gutter = m && m <= MOST_NAMES ? Math.min(180, plot.box.clientWidth * 0.38) : 0;
    const side = Math.max(120, Math.min(plot.box.clientWidth - gutter, gutter ? 470 : 560));
    // Beside a run that has matrices the room stays: what lies below must stand side by side.
    plot.box.style.height = `${store.runs.some((each) => each.hasGram && each.m) ? Math.round(side) : 90}px`;
    const pen = plot.begin();
    if (!pen) return;
    const round = this.round, gram = run.hasGram ? run.gram(round) : null;
    const shown = gram ? gram.round : round, ended = run.ended(store.step);
    setText(this.when, !run.rounds ? "no round has ended" : `round ${this.number(shown)}, ended at step ${count(run.edges[shown + 1])}`
      + (shown !== round ? ` (round ${this.number(round)} is on its way)` : ended ? " · the run's last" : ""));
    if (gram && shown !== round) store.fetch(run, round);
    const scale = store.scale?.[kind] || 1;
    setText(this.low, figure(-scale, kind === "raw" ? decimals(scale) : 2));
    setText(this.high, figure(scale, kind === "raw" ? decimals(scale) : 2));
    this.ramp.style.background = rampGradient(look.dark ? DIVERGING_DARK : DIVERGING);
    this.ramp.parentNode.hidden = !gram;
    if (!gram || !m) {
      plot.nothing(pen, run.hasGram ? "no Gram matrix yet" : "no Gram matrix recorded");
      this.canvas.setAttribute("aria-label", `Gram matrix of ${run.label}: none recorded`);
      return;
    }
    this.left = gutter;
    this.cell = side / m;
    this.side = side;
    this.hatch(pen);
    this.cells(pen, gram, scale);
    this.lines(pen, gram);
    if (gutter) this.names(pen);
    this.marks(pen);
    this.canvas.setAttribute("aria-label", `Gram matrix of ${run.label}, ${kind === "raw" ? "inner products" : "cosines"}, ${m} domains, round ${this.number(shown)}`);
  }

  number(round) {
    return count((this.run.places[round] ?? round) + 1);
  }

  hatch(pen) {
    const { look } = this.store;
    pen.save();
    pen.beginPath();
    pen.rect(this.left, 0, this.side, this.side);
    pen.clip();
    pen.globalAlpha = 0.07;
    pen.fillStyle = look.ink;
    pen.fillRect(this.left, 0, this.side, this.side);
    pen.globalAlpha = 0.4;
    pen.strokeStyle = look.ink;
    pen.lineWidth = 0.8;
    pen.beginPath();
    for (let d = 0; d < 2 * this.side; d += 6) {
      pen.moveTo(this.left + d, 0);
      pen.lineTo(this.left + d - this.side, this.side);
    }
    pen.stroke();
    pen.restore();
  }

  cells(pen, gram, scale) {
    const { run, small } = this, { m } = run, { kind, look } = this.store, ramp = look.dark ? DIVERGING_DARK : DIVERGING;
    small.width = small.height = m;
    const brush = small.getContext("2d"), image = brush.createImageData(m, m), pixels = image.data;
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < m; j++) {
        const value = run.cell(gram, i, j, kind);
        if (Number.isNaN(value)) continue;  // stays clear: the hatch shows through
        const [r, g, b] = rampColour((value / scale + 1) / 2, ramp), at = 4 * (i * m + j);
        pixels[at] = r;
        pixels[at + 1] = g;
        pixels[at + 2] = b;
        pixels[at + 3] = 255;
      }
    }
    brush.putImageData(image, 0, 0);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(small, this.left, 0, this.side, this.side);
  }

  lines(pen, gram) {
    const { run, cell, left, side } = this, { m } = run, { look } = this.store;
    if (cell >= 9) {
      pen.fillStyle = look.paper;
      for (let i = 1; i < m; i++) {
        pen.fillRect(left + i * cell - 0.5, 0, 1, side);
        pen.fillRect(left, i * cell - 0.5, side, 1);
      }
    }
    // A squared norm: another quantity than its neighbours.
    pen.strokeStyle = look.ink;
    pen.globalAlpha = 0.75;
    pen.lineWidth = cell >= 6 ? 1 : 0.5;
    for (let i = 0; i < m; i++) if (Number.isFinite(gram.cosine[i * m + i])) pen.strokeRect(left + i * cell + 0.5, i * cell + 0.5, Math.max(cell - 1, 0.5), Math.max(cell - 1, 0.5));
    pen.globalAlpha = 1;
  }

  names(pen) {
    const { run, cell, left } = this, { store } = this, { look, hover, selected } = store;
    const size = clamp(cell * 0.82, 7, 12);
    pen.textAlign = "right";
    for (let i = 0; i < run.m; i++) {
      const id = run.ids[i], strong = id === selected || hover?.domain === id || hover?.other === id;
      pen.font = `${strong ? 700 : 400} ${size}px ${look.font}`;
      pen.fillStyle = strong ? look.ink : look.muted;
      pen.fillText(nameFor(pen, store.nameOf(id), left - 22), left - 18, (i + 0.5) * cell);
      pen.fillStyle = store.colourOf(id);
      pen.beginPath();
      pen.arc(left - 9, (i + 0.5) * cell, clamp(cell * 0.3, 2, 4.5), 0, 2 * Math.PI);
      pen.fill();
    }
  }

  /** Frames around the rows and columns of what is selected and hovered. */
  marks(pen) {
    const { run, cell, left, side } = this, { hover, selected, look } = this.store;
    const frame = (place, colour, width) => {
      if (place < 0) return;
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      const thick = Math.max(cell, 2);
      pen.strokeRect(left + 1, place * cell, side - 2, thick);
      pen.strokeRect(left + place * cell, 1, thick, side - 2);
    };
    frame(run.placeOf(selected), look.accent, 2);
    if (hover && hover.other === undefined) frame(run.placeOf(hover.domain), look.ink, 1.2);
    if (hover && hover.other !== undefined) {
      const i = run.placeOf(hover.domain), j = run.placeOf(hover.other);
      if (i >= 0 && j >= 0) {
        pen.strokeStyle = look.ink;
        pen.lineWidth = 2;
        pen.strokeRect(left + j * cell - 1, i * cell - 1, Math.max(cell, 3) + 2, Math.max(cell, 3) + 2);
      }
    }
  }

  at(x, y) {
    const i = Math.floor(y / this.cell), j = Math.floor((x - this.left) / this.cell), { m } = this.run;
    return i >= 0 && i < m && j < m && this.side ? [i, j] : null;
  }

  move(x, y) {
    const found = this.at(x, y);
    if (!found) {
      this.plot.tip.hidden = true;
      this.store.setHover(null);
    } else if (found[1] < 0) {
      this.plot.tip.hidden = true;
      this.store.setHover({ domain: this.run.ids[found[0]] });
    } else this.point(...found, x, y);
  }

  point(i, j, x, y) {
    this.store.setHover({ domain: this.run.ids[i], other: this.run.ids[j] });
    this.last = [i, j, x, y];
    this.explain(i, j, x, y);
  }

  press(x, y) {
    const found = this.at(x, y);
    if (found) this.store.select(this.run.ids[found[0]]);
  }

  /** The pair, its value, and how it came there. */
  explain(i, j, x, y) {
    const { run, store } = this, { kind } = store, gram = run.gram(this.round);
    if (!gram) return;
    const value = run.cell(gram, i, j, kind), digits = kind === "raw" ? decimals(value) : 2;
    const history = [];
    for (let t = 0; t <= gram.round; t++) if (run.raw.has(t)) history.push(t);
    const at = (t) => run.pair(t, i, j, kind);
    const known = history.filter((t) => t < gram.round && Number.isFinite(at(t)));
    const first = known[0], before = known[known.length - 1];
    const pair = el("div", { class: "rbs-pair" }, words("b", store.nameOf(run.ids[i])), i === j ? null : el("span", { text: "and" }), i === j ? null : words("b", store.nameOf(run.ids[j])));
    const what = i === j ? `squared norm ${figure(gram.diagonal[i], decimals(gram.diagonal[i]))}` : `${kind === "raw" ? "inner product" : "cosine"} ${figure(value, digits)}`;
    const lines = [pair, el("div", { class: "rbs-value", test: "cell-value", text: Number.isFinite(value) ? what : "no example of one of them in this round" })];
    if (Number.isFinite(value) && i !== j && known.length) {
      lines.push(el("div", { class: "rbx-hint", test: "cell-change", text: `${signed(value - at(before), digits)} since round ${this.number(before)}`
        + (first < before ? `, ${signed(value - at(first), digits)} since round ${this.number(first)}` : "") }), this.spark(i, j));
    }
    this.plot.say(x, y, ...lines);
    setText(this.said, `${store.nameOf(run.ids[i])} and ${store.nameOf(run.ids[j])}: ${what}`.slice(0, 300));
  }

  /** The value of a pair over all rounds that are here, with a line at 0. */
  spark(i, j) {
    const { run, store } = this, { kind, look } = store, width = 180, height = 34;
    const canvas = el("canvas", { class: "rbs-spark", "aria-hidden": "true" }), dense = window.devicePixelRatio || 1;
    canvas.width = width * dense;
    canvas.height = height * dense;
    const pen = canvas.getContext("2d"), rounds = [...run.raw.keys()].sort((a, b) => a - b).filter((t, k, all) => all.length <= 60 || k % Math.ceil(all.length / 60) === 0);
    const values = rounds.map((t) => run.pair(t, i, j, kind)), most = Math.max(...values.filter(Number.isFinite).map(Math.abs), 1e-12);
    const x = (t) => 3 + (t / Math.max(1, run.rounds - 1)) * (width - 6), y = (v) => height / 2 - (v / most) * (height / 2 - 4);
    pen.scale(dense, dense);
    pen.fillStyle = look.ink;
    pen.globalAlpha = 0.25;
    pen.fillRect(0, height / 2, width, 1);
    pen.globalAlpha = 1;
    pen.strokeStyle = look.accent;
    pen.lineWidth = 1.5;
    trace(pen, rounds.map(x), values.map(y));
    const now = run.gram(this.round), value = run.cell(now, i, j, kind);
    if (Number.isFinite(value)) {
      pen.beginPath();
      pen.arc(x(now.round), y(value), 3, 0, 2 * Math.PI);
      pen.fill();
    }
    return canvas;
  }

  key(event) {
    const { run } = this, move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!run.hasGram || !run.m) return;
    if (move) {
      const [i, j] = this.cursor || [-move[0], -move[1]];  // the first key shows the first cell
      this.cursor = [clamp(i + move[0], 0, run.m - 1), clamp(j + move[1], 0, run.m - 1)];
      this.point(...this.cursor, this.left + (this.cursor[1] + 0.5) * this.cell, (this.cursor[0] + 0.5) * this.cell);
    } else if ((event.key === "Enter" || event.key === " ") && this.cursor) this.store.select(run.ids[this.cursor[0]]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  dispose() {
    this.plot.dispose();
  }
}
// Proportions over the rounds, stacked, with q beside them; and how far a replay is from what was sampled.
class MixtureView {
  constructor(store, run, { test, title, p, effective, height = 210 }) {
    Object.assign(this, { store, run, title });
    this.values = p || (() => run.p);
    this.effective = effective || (() => run.effective);
    this.head = words("h3", "");
    this.when = el("span", { class: "rbs-when", test: `${test}-when` });
    this.plot = new Plot(store, { test, label: title(), height, margin: { left: 52, right: 42, top: 12 },
      on: { move: (x, y) => this.move(x, y), leave: () => store.setHover(null), press: (x) => this.go(x), drag: (x) => this.go(x) } });
    this.node = el("section", { class: "rbs-panel" }, el("header", {}, this.head, this.when), this.plot.box);
  }

  update(changed) {
    if (["runs", "replay", "at", "selected", "hover", "theme", "size"].some((name) => changed.has(name))) this.draw();
  }

  go(x) {
    this.store.moveToStep(this.store.lastStep * 1e-9 + this.plot.stepAt(x));
  }

  /** Where a round begins and ends: before any has ended, the whole width is the first. */
  span(t) {
    const { run, store } = this;
    return run.rounds ? [run.edges[t], run.edges[t + 1]] : [0, store.lastStep];
  }

  draw() {
    const { store, run, plot } = this, { look, hover, selected } = store, pen = plot.begin(), p = this.values();
    setWords(this.head, this.title());
    if (!pen) return;
    const t = run.roundAt(store.step), effective = this.effective();
    setText(this.when, Number.isFinite(effective[t]) ? `${figure(effective[t], 1)} effective domains` : "");
    if (!p.length || Number.isNaN(p[0])) {
      plot.nothing(pen, "no proportions recorded");
      return;
    }
    const y = (v) => plot.y0 + v * (plot.y1 - plot.y0), columns = Math.max(run.rounds, 1), loud = hover ? hover.domain : selected;
    const block = (id, left, right, low, high) => {
      pen.globalAlpha = loud >= 0 && loud !== id && hover?.other !== id ? 0.3 : 1;
      if (id < 0) pen.globalAlpha *= 0.4;
      pen.fillStyle = id < 0 ? look.muted : store.colourOf(id);
      pen.fillRect(left, y(low), right - left, y(high) - y(low));
    };
    const gap = (plot.x1 - plot.x0) / columns > 14 && run.m <= 60 ? 0.6 : 0;
    for (let round = 0; round < columns; round++) {
      const [from, to] = this.span(round), left = plot.x(from), right = plot.x(to);
      let low = 0;
      for (let i = 0; i < run.m; i++) {
        const high = low + p[round * run.m + i];
        block(run.ids[i], left, right, low, high - Math.min(gap / 160, (high - low) / 3));
        low = high;
      }
      if (run.others) block(-1, left, right, low, 1);
    }
    // From the top down, as the rows of the matrix.
    let low = 0;
    const bar = plot.x1 + 10;
    for (let i = 0; i < run.q.length; i++) {
      block(run.ids[i], bar, bar + 18, low, low + run.q[i]);
      low += run.q[i];
    }
    if (run.q.length && run.others) block(-1, bar, bar + 18, low, 1);
    pen.globalAlpha = 1;
    this.outline(pen, y, p, bar);
    pen.fillStyle = look.ink;
    pen.textAlign = "center";
    if (run.q.length) pen.fillText("q", bar + 9, plot.y1 + 13);
    pen.textAlign = "right";
    pen.fillStyle = look.muted;
    for (const v of [0, 0.5, 1]) pen.fillText(v === 1 ? "100 %" : String(100 * v), plot.x0 - 6, clamp(y(1 - v), plot.y0 + 2, plot.y1 - 2));
    plot.steps(pen);
    this.current(pen, t);
    plot.canvas.setAttribute("aria-label", `${this.title()}: ${run.m} domains over ${plural(run.rounds, "round")}`.slice(0, 300));
  }

  /** The edge of the domain that is selected, and of the one that is hovered. */
  outline(pen, y, p, bar) {
    const { run, store, plot } = this, columns = Math.max(run.rounds, 1);
    for (const [id, colour] of [[store.selected, store.look.ink], [store.hover?.domain, store.look.ink]]) {
      const place = id === undefined ? -1 : run.placeOf(id);
      if (place < 0) continue;
      pen.strokeStyle = colour;
      pen.lineWidth = 1.2;
      pen.beginPath();
      for (const upper of [0, 1]) {
        for (let round = 0; round < columns; round++) {
          let sum = 0;
          for (let i = 0; i < place + upper; i++) sum += p[round * run.m + i];
          const [from, to] = this.span(round);
          if (round) pen.lineTo(plot.x(from), y(sum));
          else pen.moveTo(plot.x(from), y(sum));
          pen.lineTo(plot.x(to), y(sum));
        }
      }
      pen.stroke();
      if (!run.q.length) continue;
      const before = run.q.subarray(0, place).reduce((a, b) => a + b, 0);
      pen.strokeRect(bar, y(before), 18, y(before + run.q[place]) - y(before));
    }
  }

  current(pen, t) {
    const { plot, store } = this, [from, to] = this.span(t);
    pen.strokeStyle = store.look.paper;
    pen.lineWidth = 3.5;
    pen.strokeRect(plot.x(from), plot.y0 - 1, plot.x(to) - plot.x(from), plot.y1 - plot.y0 + 2);
    pen.strokeStyle = store.look.ink;
    pen.lineWidth = 1.5;
    pen.strokeRect(plot.x(from), plot.y0 - 1, plot.x(to) - plot.x(from), plot.y1 - plot.y0 + 2);
    if (store.stops.length) plot.cursor(pen);
  }

  move(x, y) {
    const { plot, run, store } = this, p = this.values();
    const inside = y >= plot.y0 && y <= plot.y1 && x >= plot.x0, onBar = x > plot.x1 + 8;
    if (!inside || !p.length || Number.isNaN(p[0]) || (onBar && !run.q.length)) {
      plot.tip.hidden = true;
      store.setHover(null);
      return;
    }
    const t = run.rounds ? run.roundAt(Math.max(plot.stepAt(Math.min(x, plot.x1)), 1e-9)) : 0, level = (y - plot.y0) / (plot.y1 - plot.y0);
    let sum = 0, place = -1;
    for (let i = 0; i < run.m && place < 0; i++) {
      sum += onBar ? run.q[i] : p[t * run.m + i];
      if (level <= sum) place = i;
    }
    const id = place < 0 ? -1 : run.ids[place];
    store.setHover(id < 0 ? null : { domain: id });
    plot.say(x, y, words("b", id < 0 ? `${plural(run.others, "other")}` : store.nameOf(id)),
      el("div", { test: "share-value", text: `p ${share(id < 0 ? run.rest(t, p) : p[t * run.m + place])} in round ${count((run.places[t] ?? t) + 1)}${run.q.length && id >= 0 ? `, q ${share(run.q[place])}` : ""}` }));
  }

  dispose() {
    this.plot.dispose();
  }
}
// Losses over the steps: training faint and smoothed, eval with a mark at each evaluation, one domain dashed.
class LossView {
  constructor(store, height) {
    this.store = store;
    this.key = el("div", { class: "rbs-key", test: "loss-key" });
    this.plot = new Plot(store, { test: "losses", label: "Losses", height, margin: { left: 52, right: 42, top: 12 },
      on: { move: (x, y) => this.move(x, y), leave: () => {}, press: (x) => this.go(x), drag: (x) => this.go(x) } });
    this.node = el("section", { class: "rbs-panel" }, el("header", {}, el("h3", { text: "Losses" }), el("span", { class: "rbs-when", text: "nats per token" })), this.key, this.plot.box);
  }

  update(changed) {
    if (["runs", "at", "selected", "theme", "size"].some((name) => changed.has(name))) this.draw();
  }

  go(x) {
    this.store.moveToStep(this.plot.stepAt(x));
  }

  colour(run) {
    return run.index ? this.store.look.want : this.store.look.accent;
  }

  curves(run) {
    const { steps, values } = run.evaluation, place = this.store.lossDomain(run);
    return { steps, values, place, one: steps.map((_, e) => run.lossOf(place, e)) };
  }

  draw() {
    const { store, plot } = this, pen = plot.begin(), runs = store.runs;
    this.legend();
    if (!pen) return;
    const found = runs.map((run) => this.curves(run));
    const seen = runs.flatMap((run, r) => [...run.train[2], ...found[r].values, ...found[r].one]).filter(Number.isFinite);
    if (!seen.length) {
      plot.nothing(pen, "no losses recorded");
      return;
    }
    const least = Math.min(...seen), most = Math.max(...seen), pad = (most - least || 1) * 0.05;
    const low = least - pad, high = most + pad, y = (v) => plot.y1 - ((v - low) / (high - low)) * (plot.y1 - plot.y0);
    plot.values(pen, low, high, y, (v) => figure(v, high - low < 0.5 ? 2 : 1));
    pen.save();
    pen.beginPath();
    pen.rect(plot.x0 - 4, plot.y0 - 4, plot.x1 - plot.x0 + 8, plot.y1 - plot.y0 + 8);
    pen.clip();
    runs.forEach((run, r) => {
      const [steps, raw, soft] = run.train, xs = Array.from(steps, (s) => plot.x(s));
      pen.strokeStyle = this.colour(run);
      pen.lineWidth = 0.8;
      pen.globalAlpha = runs.length > 1 ? 0.12 : 0.25;
      trace(pen, xs, Array.from(raw, y));
      pen.lineWidth = 1.2;
      pen.globalAlpha = 0.5;
      trace(pen, xs, Array.from(soft, y));
      pen.globalAlpha = 1;
      const { place, one, values } = found[r], at = Array.from(found[r].steps, (s) => plot.x(s));
      pen.lineWidth = 1.4;
      pen.setLineDash([5, 3]);
      if (place >= 0) trace(pen, at, Array.from(one, y));
      pen.setLineDash([]);
      pen.lineWidth = 2;
      trace(pen, at, Array.from(values, y));
      pen.fillStyle = this.colour(run);
      const every = Math.max(1, Math.ceil(at.length / 40));
      at.forEach((x, e) => { if (e % every === 0 && Number.isFinite(values[e])) this.mark(pen, run, x, y(values[e])); });
    });
    pen.restore();
    plot.steps(pen);
    if (store.stops.length) plot.cursor(pen);
  }

  /** A round or a square mark: two runs differ not by colour alone. */
  mark(pen, run, x, y) {
    pen.beginPath();
    if (run.index) pen.rect(x - 3, y - 3, 6, 6);
    else pen.arc(x, y, 3.2, 0, 2 * Math.PI);
    pen.fill();
  }

  /** Values at the slider, and their differences. */
  legend() {
    const { store } = this, entries = [], two = store.runs.length > 1, level = !two || evaluatedTogether(...store.runs, store.step);
    const shown = store.runs.map((run) => {
      const e = run.evaluationAt(store.step), place = store.lossDomain(run);
      return { eval: e < 0 ? NaN : run.evaluation.values[e], at: level || e < 0 ? "" : ` at step ${count(run.evaluation.steps[e])}`, one: run.lossOf(place, e), name: place < 0 ? null : store.nameOf(run.ids[place]) };
    });
    store.runs.forEach((run, r) => {
      const colour = { "--colour": this.colour(run) };
      entries.push(el("span", { class: "rbs-entry" }, el("i", { class: `rbs-line${r ? " rbs-square" : ""}`, style: colour }), two ? words("span", run.label) : null, el("span", { test: `eval-${r}`, text: `eval ${figure(shown[r].eval)}${shown[r].at}` })));
      if (shown[r].name !== null) entries.push(el("span", { class: "rbs-entry" }, el("i", { class: "rbs-line rbs-dashed", style: colour }), words("span", `${store.selected < 0 ? "worst: " : ""}${shown[r].name}`), el("span", { test: `domain-loss-${r}`, text: figure(shown[r].one) })));
      if (!two && run.train[0].length) entries.push(el("span", { class: "rbs-entry" }, el("i", { class: "rbs-line rbs-faint", style: colour }), el("span", { text: "training" })));
    });
    this.key.replaceChildren(...entries);
  }

  move(x, y) {
    const { plot, store } = this, step = plot.stepAt(x);
    if (x < plot.x0 || x > plot.x1 || !store.runs.some((run) => run.evaluation.steps.length)) {
      plot.tip.hidden = true;
      return;
    }
    plot.say(x, y, el("b", { text: `step ${count(step)}` }), ...store.runs.map((run) => {
      const e = run.evaluationAt(step);
      return el("div", {}, words("span", `${run.label}: `), el("span", { text: e < 0 ? "no evaluation yet" : `eval ${figure(run.evaluation.values[e])} at step ${count(run.evaluation.steps[e])}` }));
    }));
  }

  dispose() {
    this.plot.dispose();
  }
}
// A low plot of one number by step: how far a replay is from what was sampled, how far two losses are apart.
class Strip {
  constructor(store, { test, title, said, series, text }) {
    Object.assign(this, { store, said, series, text });
    this.when = el("span", { class: "rbs-when", test });
    this.plot = new Plot(store, { test: `${test}-plot`, label: title, height: 92, margin: { left: 52, right: 42, top: 10 },
      on: { move: () => {}, leave: () => {}, press: (x) => this.go(x), drag: (x) => this.go(x) } });
    this.node = el("section", { class: "rbs-panel" }, el("header", {}, el("h3", { text: title }), this.when), this.plot.box);
  }

  go(x) {
    this.store.moveToStep(this.plot.stepAt(x));
  }

  update(changed) {
    if (!["runs", "replay", "at", "theme", "size"].some((name) => changed.has(name))) return;
    const { store, plot } = this, pen = plot.begin();
    setText(this.when, this.said());
    if (!pen) return;
    const { steps, values } = this.series(), known = values.filter(Number.isFinite);
    if (!known.length) {
      plot.nothing(pen, "nothing to compare");
      return;
    }
    const high = Math.max(0, ...known), low = Math.min(0, ...known), pad = (high - low || 0.01) * 0.08;
    const top = high ? high + pad : pad, bottom = low ? low - pad : 0, y = (v) => plot.y1 - ((v - bottom) / (top - bottom)) * (plot.y1 - plot.y0);
    plot.values(pen, bottom, top, y, this.text);
    pen.fillStyle = store.look.ink;
    pen.fillRect(plot.x0, Math.round(y(0)) - 0.5, plot.x1 - plot.x0, 1);
    pen.strokeStyle = pen.fillStyle = store.look.accent;
    pen.lineWidth = 1.8;
    trace(pen, steps.map((s) => plot.x(s)), values.map(y));
    plot.steps(pen);
    plot.cursor(pen);
  }

  dispose() {
    this.plot.dispose();
  }
}

/** Total variation distance of the replay to what was sampled: level within a round. */
function distanceStrip(store, run) {
  const { edges } = run, rounds = Array.from({ length: run.rounds }, (_, t) => t);
  return new Strip(store, {
    test: "distance", title: "Drawn elsewhere under the replay", text: (v) => `${figure(100 * v, 1)} %`,
    said: () => (store.replay ? `${share(store.replay.distance[run.roundAt(store.step)])} of the examples, in this round` : ""),
    series: () => ({ steps: rounds.flatMap((t) => [edges[t], edges[t + 1]]), values: rounds.flatMap((t) => [store.replay?.distance[t], store.replay?.distance[t]]) }),
  });
}

/** Eval loss of the second run minus that of the first, at steps where both were evaluated. */
function gapStrip(store, [first, second]) {
  const at = new Map(Array.from(first.evaluation.steps, (step, e) => [step, first.evaluation.values[e]]));
  const steps = Array.from(second.evaluation.steps).filter((step) => at.has(step));
  const values = steps.map((step) => second.evaluation.values[second.evaluation.steps.indexOf(step)] - at.get(step));
  return new Strip(store, {
    test: "gap", title: "Eval loss, second − first", text: (v) => figure(v, 3), series: () => ({ steps, values }),
    said: () => {
      const now = steps.filter((step) => step <= store.step).length - 1;
      return now < 0 ? "not yet evaluated together" : `${signed(values[now], 4)} at step ${count(steps[now])}: below 0 the second is better`;
    },
  });
}
// The numbers of the round, and of each domain in it. Rows can be walked with the arrow keys.
class Numbers {
  constructor(store) {
    this.store = store;
    this.list = el("dl", { class: "rbs-numbers", test: "numbers" });
    this.table = el("table", { class: "rbs-table", test: "domains", "aria-label": "Domains in this round", on: {
      click: (event) => this.click(event), keydown: (event) => this.key(event),
      pointerover: (event) => this.over(event.target), pointerleave: () => store.setHover(null),
    } });
    this.scroll = el("div", { class: "rbs-scroll" }, this.table);
    this.node = el("section", { class: "rbs-panel rbs-numbers-panel" }, el("header", {}, el("h3", { text: "This round" })), this.list, this.scroll);
    this.rows = [];
  }

  update(changed) {
    if (changed.has("runs") || changed.has("replay") || changed.has("domains")) this.build();
    if (["runs", "replay", "domains", "at"].some((name) => changed.has(name))) this.fill();
    if (["runs", "replay", "domains", "selected", "hover"].some((name) => changed.has(name))) this.mark();
    if (changed.has("selected") && this.store.selected >= 0) this.rows[this.store.selected]?.node.scrollIntoView({ block: "nearest" });
  }

  columns() {
    const { runs, replay } = this.store, [a, b] = runs;
    if (!a) return [];
    const at = (run) => run.roundAt(this.store.step), p = (run) => (id) => (run.placeOf(id) < 0 ? NaN : run.share(at(run), run.placeOf(id)));
    const loss = (run) => (id) => run.lossOf(run.placeOf(id), run.evaluationAt(this.store.step));
    const q = (id) => { const run = a.placeOf(id) >= 0 ? a : b; return run?.q.length ? run.q[run.placeOf(id)] : NaN; };
    const score = (id) => (a.score.length && a.placeOf(id) >= 0 ? a.score[at(a) * a.m + a.placeOf(id)] : NaN);
    const minus = (f, g, fair = true) => (id) => (fair ? f(id) - g(id) : NaN);
    const again = (id) => (replay && a.placeOf(id) >= 0 ? replay.p[at(a) * a.m + a.placeOf(id)] : NaN);
    const column = (head, title, value, show, more = {}) => ({ head, title, value, show, ...more });
    const share1 = (v) => (Number.isFinite(v) ? (100 * v).toFixed(1) : "–");
    const found = [column("p %", two(b) ? `Share in ${a.label}` : "Share in training, in this round", p(a), share1, { bar: true })];
    if (b) {
      found.push(column("p₂ %", `Share in ${b.label}`, p(b), share1, { bar: true }), column("Δp", "Share in the second run minus that in the first, in points", minus(p(b), p(a), this.level(a, b)), points, { signed: true }));
    }
    if (replay) found.push(column("replay %", `Share under ${replay.label}`, again, share1, { bar: true }), column("Δ", "Replayed share minus the recorded one, in points", minus(again, p(a)), points, { signed: true }));
    found.push(column("q %", "Share in the eval set", q, share1));
    if (!b) found.push(column("Gq", "Score: alignment with the eval set, Gq divided by its norm", score, (v) => figure(v, 3)), column("loss", "Eval loss at the last evaluation, nats per token", loss(a), (v) => figure(v, 3)));
    else found.push(column("loss", `Eval loss in ${a.label}`, loss(a), (v) => figure(v, 3)), column("Δ loss", "Eval loss of the second run minus that of the first: below 0 the second is better", minus(loss(b), loss(a), evaluatedTogether(a, b, this.store.step)), (v) => signed(v, 3), { signed: true }));
    return found;
  }

  build() {
    const { store } = this;
    this.shown = this.columns();
    const head = el("tr", {}, el("th", { scope: "col", text: "domain" }), ...this.shown.map((column) => el("th", { scope: "col", text: column.head, title: column.title.slice(0, 300) })));
    this.rows = store.domains.map((domain, id) => {
      const cells = this.shown.map(() => el("td", {}));
      const node = el("tr", { test: "domain", "data-domain": id, tabindex: "-1", "aria-selected": "false" },
        el("th", { scope: "row" }, el("div", { class: "rbx-isolate" }, swatch(domain.colour), words("span", domain.name, { test: "domain-name" }))), ...cells);
      return { node, cells };
    });
    if (this.rows.length) this.rows[0].node.tabIndex = 0;
    this.table.replaceChildren(el("thead", {}, head), el("tbody", {}, ...this.rows.map((row) => row.node)));
  }

  fill() {
    const { store } = this;
    this.shown = this.columns();
    const most = Math.max(1e-9, ...this.rows.flatMap((_, id) => this.shown.filter((column) => column.bar).map((column) => column.value(id)).filter(Number.isFinite)));
    this.rows.forEach(({ cells }, id) => this.shown.forEach((column, c) => {
      const value = column.value(id);
      setText(cells[c], column.show(value));
      if (column.bar) cells[c].style.setProperty("--part", `${(100 * (value || 0)) / most}%`);
      cells[c].className = column.bar ? "rbs-bar" : column.signed && Number.isFinite(value) && value !== 0 ? (value > 0 ? "rbs-up" : "rbs-down") : "";
    }));
    this.list.replaceChildren(...store.runs.flatMap((run) => this.facts(run)), ...this.apart());
  }

  facts(run) {
    const { store } = this, t = run.roundAt(store.step), q = Array.from(run.q), name = store.runs.length > 1 ? `${run.label}: ` : "";
    const entropy = -q.reduce((sum, v) => sum + (v > 0 ? v * Math.log(v) : 0), 0);
    const fact = (head, text, test, title) => el("div", { title }, words("dt", `${name}${head}`, { title: undefined }), el("dd", { text, test: `${test}-${run.index}` }));
    const of = run.q.length && !run.others ? `, of q ${figure(Math.exp(entropy), 1)}` : "";
    return [
      fact("effective domains", Number.isFinite(run.effective[t]) ? `${figure(run.effective[t], 1)} of ${count(run.total)}${of}` : "–", "effective", "exp of the entropy of p: how many domains the mixture is spread over"),
      fact("noise floor", run.noise.length && Number.isFinite(run.noise[t]) ? `${share(run.noise[t])} of the diagonal` : "not recorded", "noise", "Part of the squared gradient norms that is sampling noise"),
      ...(run.ended(store.step) && run.rounds ? [fact("ended", `at step ${count(run.edges[run.rounds])}`, "ended", "Its last round is shown")] : []),
    ];
  }

  /** Whether both runs are at the step of the slider: a run that has ended is compared no further. */
  level(a, b) {
    return !a.ended(this.store.step) && !b.ended(this.store.step);
  }

  /** How far the mixtures of two runs are apart: only where all domains are shown. */
  apart() {
    const [a, b] = this.store.runs;
    if (!b || !this.level(a, b) || a.others || b.others || !a.p.length || !b.p.length) return [];
    const of = (run, id) => (run.placeOf(id) < 0 ? 0 : run.share(run.roundAt(this.store.step), run.placeOf(id)));
    const sum = this.store.domains.reduce((total, _, id) => total + Math.abs(of(a, id) - of(b, id)), 0);
    return [el("div", { title: "Total variation distance of p" }, el("dt", { text: "drawn from other domains" }), el("dd", { test: "apart", text: share(sum / 2) }))];
  }

  mark() {
    const { hover, selected } = this.store;
    this.rows.forEach(({ node }, id) => {
      node.setAttribute("aria-selected", String(id === selected));
      node.classList.toggle("rbs-hovered", Boolean(hover) && (hover.domain === id || hover.other === id));
    });
  }

  idOf(target) {
    const row = target.closest?.("tr[data-domain]");
    return row ? +row.dataset.domain : -1;
  }

  over(target) {
    const id = this.idOf(target);
    this.store.setHover(id < 0 ? null : { domain: id });
  }

  click(event) {
    const id = this.idOf(event.target);
    if (id >= 0) this.store.select(id);
  }

  key(event) {
    const id = this.idOf(event.target), move = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (id < 0) return;
    if (move) {
      const next = this.rows[clamp(id + move, 0, this.rows.length - 1)].node;
      this.rows[id].node.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
      this.store.setHover({ domain: +next.dataset.domain });
    } else if (event.key === "Enter" || event.key === " ") this.store.select(id);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

const two = (run) => run !== undefined;
// The bar above: which run, the slider over its rounds, play, and what the colours of the matrix mean.
class Player {
  constructor(store) {
    this.store = store;
    this.title = words("span", "", { class: "rbx-title", test: "title" });
    this.slider = el("input", { type: "range", class: "rbs-slider", test: "slider", min: "0", step: "1", "aria-label": "Round", on: { input: () => { this.stop(); store.moveTo(+this.slider.value); } } });
    this.play = button("play", { label: "Play", name: "play", on: () => (this.timer ? this.stop() : this.start()) });
    this.back = button("previous", { label: "Previous round", name: "previous", on: () => this.by(-1) });
    this.next = button("next", { label: "Next round", name: "chevron", on: () => this.by(1) });
    this.place = el("span", { class: "rbs-place", test: "place" });
    this.kinds = el("div", { class: "rbx-segments", role: "group", "aria-label": "Gram matrix as" }, ...[["cosine", "cosine", "Cosines: directions alone"], ["raw", "raw", "Inner products, as the mixer saw them"]].map(([id, text, title]) => el("button", {
      type: "button", class: "rbx-segment", test: `kind-${id}`, text, title, on: { click: () => store.put("kind", id) } })));
    this.actions = el("div", { class: "rbx-actions" }, this.kinds);
    this.node = el("div", { class: "rbx-bar" }, el("div", { class: "rbx-brand" }, el("span", { class: "rbx-logo", "aria-hidden": "true" }, ...Array.from({ length: 9 }, () => el("i"))), this.title),
      el("div", { class: "rbs-player" }, this.back, this.play, this.next, this.slider, this.place), this.actions);
  }

  by(n) {
    this.stop();
    this.store.moveTo(this.store.at + n);
  }

  /** Go through all rounds in about eight seconds. */
  start() {
    const { store } = this, n = store.stops.length;
    if (n < 2) return;
    if (store.at >= n - 1) store.moveTo(0);
    this.timer = setInterval(() => {
      store.moveTo(store.at + 1);
      if (store.at >= n - 1) this.stop();
    }, clamp(8000 / n, 60, 700));
    this.show();
  }

  stop() {
    clearInterval(this.timer);
    this.timer = 0;
    this.show();
  }

  show() {
    const on = Boolean(this.timer);
    if (this.play.dataset.on === String(on)) return;
    this.play.dataset.on = String(on);
    this.play.replaceChildren(icon(on ? "pause" : "play"));
    this.play.title = on ? "Pause" : "Play";
    this.play.setAttribute("aria-label", this.play.title);
  }

  update(changed) {
    const { store } = this, n = store.stops.length, [run] = store.runs;
    if (changed.has("title")) setWords(this.title, store.title);
    if (changed.has("stops") || changed.has("runs")) this.stop();
    this.slider.max = String(Math.max(n - 1, 0));
    this.slider.disabled = n < 2;
    for (const node of [this.play, this.back, this.next]) node.setAttribute("aria-disabled", String(n < 2));
    if (+this.slider.value !== store.at) this.slider.value = String(store.at);
    const round = run ? run.roundAt(store.step) : 0, told = run && n ? `round ${count((run.places[round] ?? round) + 1)} of ${count(Math.max((run.places[run.rounds - 1] ?? -1) + 1, run.rounds))}` : "no round yet";
    const text = !n ? told : store.runs.length > 1 ? `step ${count(store.step)} of ${count(store.stops[n - 1])}` : `${told} · step ${count(store.step)}`;
    setText(this.place, text);
    this.slider.setAttribute("aria-valuetext", text);
    for (const node of this.kinds.children) node.setAttribute("aria-pressed", String(node.dataset.test === `kind-${store.kind}`));
    this.kinds.hidden = !store.runs.some((each) => each.hasGram);
  }

  dispose() {
    clearInterval(this.timer);
  }
}
// Another mixer on the same Gram matrices: a menu of those that the record can serve, and their options.
class ReplayForm {
  constructor(store) {
    this.store = store;
    this.mixer = el("select", { class: "rbx-select", test: "mixer", on: { change: () => this.fields() } });
    this.inputs = new Map();
    this.options = el("div", { class: "rbs-options", test: "options" });
    this.run = el("button", { type: "submit", class: "rbx-button rbx-primary rbx-small", test: "replay-run", text: "Replay" });
    this.clear = button("replay-clear", { label: "Take the replay away", text: "Clear", kind: "rbx-small", hidden: true, on: () => { this.say(""); store.send({ type: "forget" }); } });
    this.said = el("p", { class: "rbs-said", role: "status", "aria-live": "polite", test: "replay-said" });
    this.error = el("p", { class: "rbx-error", role: "alert", test: "replay-error", hidden: true });
    this.reasons = el("ul", { class: "rbs-reasons", test: "reasons" });
    this.others = el("details", { class: "rbs-others" }, el("summary", { text: "Mixers that this record cannot serve" }), this.reasons);
    this.form = el("form", { class: "rbs-form", "aria-label": "Replay another mixer", hidden: true, on: { submit: (event) => { event.preventDefault(); this.ask(); } } },
      el("p", { class: "rbx-hint", text: "What another mixer would have chosen from the same Gram matrices. Model and gradients stay those of the run, so this shows how rules read the same evidence, not which would have won." }),
      el("div", { class: "rbs-fields" }, el("label", { class: "rbs-field" }, el("span", { text: "mixer" }), this.mixer), this.options, el("span", { class: "rbs-field rbs-buttons" }, this.run, this.clear)),
      this.said, this.error, this.others);
    this.opener = button("replay-open", { label: "Replay another mixer on this run", text: "Replay another mixer", kind: "rbx-small", on: () => this.open(this.form.hidden), "aria-expanded": "false" });
    this.node = this.form;
  }

  open(on) {
    this.form.hidden = !on;
    this.opener.setAttribute("aria-expanded", String(on));
    this.opener.setAttribute("aria-pressed", String(on));
    if (on) this.mixer.focus();
    if (on && !this.store.menu.length) {
      this.say("Asking which mixers this record can serve… (the kernel answers when it is free)");
      this.store.send({ type: "menu" });
    }
  }

  update(changed) {
    const { menu, replay } = this.store;
    if (changed.has("menu")) {
      if (menu.length) this.say("");
      else if (!this.form.hidden) this.open(true);  // other runs
      this.mixer.replaceChildren(...menu.map((entry) => el("option", { value: entry.name, text: entry.name, disabled: Boolean(entry.reason), title: String(entry.reason).slice(0, 400) })));
      this.reasons.replaceChildren(...menu.filter((entry) => entry.reason).map((entry) => el("li", {}, el("b", { text: entry.name }), " ", words("span", entry.reason))));
      this.others.hidden = !this.reasons.childElementCount;
      const can = menu.find((entry) => !entry.reason && entry.options.length) || menu.find((entry) => !entry.reason);
      this.run.disabled = !can;
      if (can) this.mixer.value = can.name;
      else this.mixer.selectedIndex = -1;
      this.fields();
    }
    if (changed.has("replay")) this.clear.hidden = !replay;
  }

  /** One simple field for each option of the chosen mixer. */
  fields() {
    const entry = this.store.menu.find((each) => each.name === this.mixer.value);
    this.inputs.clear();
    this.options.replaceChildren(...(entry ? entry.options : []).map((option) => {
      const test = `option-${option.name}`;
      let input;
      if (option.kind === "choice") input = el("select", { class: "rbx-select", test }, ...option.choices.map((choice) => el("option", { value: choice, text: choice })));
      else if (option.kind === "flag") input = el("input", { type: "checkbox", test });
      else input = el("input", { class: "rbx-input", type: "text", inputmode: "decimal", size: "7", test, placeholder: option.optional ? "none" : "" });
      if (option.kind === "flag") input.checked = Boolean(option.value);
      else input.value = option.value ?? "";
      this.inputs.set(option.name, { input, option });
      return el("label", { class: "rbs-field" }, el("span", { text: option.name }), input);
    }));
  }

  values() {
    const found = {};
    for (const [name, { input, option }] of this.inputs) {
      const text = input.value.trim().replace(",", ".");
      if (option.kind === "flag") found[name] = input.checked;
      else if (option.kind === "choice") found[name] = input.value;
      else found[name] = text === "" || !Number.isFinite(Number(text)) ? input.value.trim() : Number(text);  // Python says what is wrong
    }
    return found;
  }

  say(text, error = false) {
    setText(this.said, error ? "" : text);
    setText(this.error, error ? text : "");
    this.error.hidden = !error;
  }

  async ask() {
    if (this.run.disabled || this.run.getAttribute("aria-busy") === "true") return;
    this.run.setAttribute("aria-busy", "true");
    const slow = setTimeout(() => this.say("Replaying… (the kernel answers when it is free)"), 300);
    const reply = await this.store.ask({ type: "replay", mixer: this.mixer.value, fields: this.values() });
    clearTimeout(slow);
    this.run.removeAttribute("aria-busy");
    if (reply.type === "error") this.say(String(reply.text), true);
    else this.say(`Replayed in ${figure(reply.seconds, 2)} s.`);
  }
}
// The scrubber as a whole: panels side by side, keys, theme.
class Scrubber {
  constructor(store, root) {
    this.store = store;
    this.root = root;
    this.player = new Player(store);
    this.replay = new ReplayForm(store);
    this.player.actions.prepend(this.replay.opener);
    this.message = el("span");
    this.error = el("div", { class: "rbx-error", role: "alert", test: "error", hidden: true }, this.message,
      button("error-close", { label: "Dismiss", name: "close", kind: "rbx-plain", on: () => { this.error.hidden = true; } }));
    this.notices = el("ul", { class: "rbx-notices", test: "notices", "aria-label": "Notices" });
    this.body = el("div", { class: "rbs-body" });
    root.append(this.player.node, this.replay.node, this.error, this.body, this.notices);
    this.panels = [];
    store.parts = [this];
    this.leave = [watchTheme(root, () => this.look()), keepKeys(root, (event) => this.key(event), ["a", "c", "x", "v", "z"])];
    store.touch(...TRAITS);
  }

  /** Panels for the runs that there are: one run fills both columns, two stand side by side. */
  build() {
    const { store } = this, [a, b] = store.runs;
    for (const panel of this.panels) panel.dispose?.();
    this.panels = [];
    this.body.classList.toggle("rbs-two", Boolean(b));
    if (!a) return;
    const tall = !b && !store.replay;  // one run leaves room that a replay would take
    const mixture = (run) => new MixtureView(store, run, { height: tall ? 310 : 210, test: `mixture-${run.index}`, title: () => (b ? `Proportions, ${run.label}` : "Proportions") });
    const grams = store.runs.map((run) => new GramView(store, run)), mixtures = store.runs.map(mixture), numbers = new Numbers(store), losses = new LossView(store, tall ? 330 : 230);
    const again = store.replay ? [new MixtureView(store, a, { test: "mixture-replay", title: () => `${b ? `${a.label}, replayed: ` : "Replayed: "}${store.replay?.label}`, p: () => store.replay?.p || [], effective: () => store.replay?.effective || [] }), distanceStrip(store, a)] : [];
    const sides = b ? [[grams[0], mixtures[0], ...again, losses, gapStrip(store, store.runs)], [grams[1], mixtures[1], numbers]] : [[grams[0], numbers], [mixtures[0], ...again, losses]];
    this.panels = sides.flat();
    this.body.replaceChildren(...sides.map((side) => el("div", { class: "rbs-side" }, ...side.map((panel) => panel.node))));
  }

  update(changed) {
    const { store } = this;
    const fresh = changed.has("runs") || (changed.has("replay") && Boolean(store.replay) !== this.hadReplay);
    if (fresh) {
      this.hadReplay = Boolean(store.replay);
      this.build();
    }
    if (changed.has("error")) {
      setText(this.message, store.error);
      this.error.hidden = !this.replay.form.hidden && this.replay.run.getAttribute("aria-busy") === "true";  // said in the form
    }
    if (changed.has("notices")) this.notices.replaceChildren(...store.notices.map((text) => el("li", { class: "rbx-info" }, words("span", text))));
    for (const part of [this.player, this.replay]) part.update(changed);
    for (const panel of this.panels) panel.update(fresh ? new Set([...changed, ...TRAITS]) : changed);
  }

  look() {
    const style = getComputedStyle(this.root), of = (name) => style.getPropertyValue(name).trim();
    this.store.look = { ink: of("--ink") || "#1b2530", muted: of("--muted") || "#566270", paper: of("--paper") || "#fff", accent: of("--accent"), want: of("--want"),
      font: style.fontFamily, dark: this.root.classList.contains("rbx-dark") };
    this.store.touch("theme");
  }

  /** Arrow keys, Home and End move the rounds wherever they mean nothing else. */
  key(event) {
    if (event.target.matches("input, select, textarea, summary") || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const { store } = this, to = { ArrowLeft: store.at - 1, ArrowRight: store.at + 1, Home: 0, End: store.stops.length - 1 }[event.key];
    if (to !== undefined) {
      this.player.stop();
      store.moveTo(to);
    } else if (event.key === "Escape") store.put("selected", -1);
    else return;
    event.preventDefault();
  }

  dispose() {
    for (const leave of this.leave) leave();
    for (const panel of [this.player, ...this.panels]) panel.dispose?.();
    this.store.dispose();
    this.root.replaceChildren();
  }
}

function render({ model, el: host }) {
  const root = el("section", { class: "rbx rbs", "aria-label": "Rounds of a run", test: "scrubber" });
  host.append(root);
  const store = new Store(model), scrubber = new Scrubber(store, root);
  root.scrubber = { store, scrubber };  // for tests
  return () => {
    scrubber.dispose();
    root.remove();
  };
}

export default { render };
