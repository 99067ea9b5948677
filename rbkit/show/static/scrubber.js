// The scrubber: Gram matrix, proportions, losses and numbers of a round, linked by one slider.
// In order: numbers as text, the data of a run, the store, plots, panels, the bar, the whole.

const TRAITS = [
  "title", "domains", "runs", "stops", "scale", "menu", "notices", "replay", "at", "kind",
  "selected",
];
const SAVE_AFTER = 180;  // ms at rest before Python hears where the slider is
const MOST_UNFOLDED = 48;  // matrices kept as full squares
const MOST_NAMES = 46;  // domains that have room for a name next to their row
// On dark paper the middle is dark: what is near 0 recedes, as it does on white.
const DIVERGING_DARK = hexes(
  "b3dcff 7fbcf0 4393c3 2f6f9f 23506f 2b2b2b 6e332b 9d4a3a d6604d f0907a ffd0c2",
);

// ---------------------------------------------------------------- numbers as text

/** A number for people: a true minus sign, as many digits as it deserves. */
function figure(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  const exponential = size > 0 && (size < 0.5 * 10 ** -digits || size >= 1e5);
  const text = exponential ? value.toExponential(1) : value.toFixed(digits);
  return text.replace("-", "−").replace("e+", "e").replace("e-", "e−");
}

const signed = (value, digits = 3) => (value > 0 ? "+" : "") + figure(value, digits);
const share = (value) => (Number.isFinite(value) ? `${(100 * value).toFixed(1)} %` : "–");
const shareOnly = (value) => (Number.isFinite(value) ? (100 * value).toFixed(1) : "–");
const points = (value) =>
  Number.isFinite(value) ? (value > 0 ? "+" : "") + shareOnly(value).replace("-", "−") : "–";
/** Decimals that an inner product of this size deserves. */
const decimals = (value) => (Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 1 ? 2 : 4);

const touched = (changed, ...names) => names.some((name) => changed.has(name));

// ------------------------------------------------------------------ data of a run

/** Value of each half-precision number: not every browser has a Float16Array. */
const HALF = (() => {
  const table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const exponent = (bits >> 10) & 31, fraction = bits & 1023, sign = bits >> 15 ? -1 : 1;
    if (exponent === 31) table[bits] = fraction ? NaN : sign * Infinity;
    else if (exponent) table[bits] = sign * 2 ** (exponent - 15) * (1 + fraction / 1024);
    else table[bits] = sign * 2 ** -14 * (fraction / 1024);
  }
  return table;
})();

const normOf = (squared) => (squared > 0 ? Math.sqrt(squared) : 1);

// One run as Python sent it: arrays by round, and Gram matrices, unfolded when they are needed.
class RunData {
  constructor(run, index) {
    const floats = (name) => typed(run[name], Float32Array);
    this.index = index;
    this.label = String(run.label);
    this.unit = String(run.unit || "nats per token");
    this.ids = run.ids || [];
    this.m = this.ids.length;
    this.total = run.total;
    this.others = this.total - this.m;
    this.worst = run.worst;
    this.hasGram = Boolean(run.gram);
    this.places = run.places || [];
    this.effectiveTarget = run.effective_target;
    this.edges = floats("edges");
    this.rounds = this.edges.length - 1;
    for (const name of ["p", "q", "score", "noise", "effective"]) this[name] = floats(name);
    const train = floats("train"), n = train.length / 3;
    this.train = [0, 1, 2].map((i) => train.subarray(i * n, (i + 1) * n));
    const evaluation = floats("evaluation"), e = evaluation.length / 2;
    this.evaluation = { steps: evaluation.subarray(0, e), values: evaluation.subarray(e) };
    this.byDomain = floats("by_domain");
    this.place = new Map(this.ids.map((id, i) => [id, i]));
    this.packed = new Map();
    this.unfolded = new Map();
    this.wanted = new Set();
    const { m } = this, triangle = (m * (m + 1)) / 2;
    const cosines = typed(run.grams, Uint16Array), diagonals = floats("diagonals");
    (run.sent || []).forEach((round, i) => this.packed.set(round, {
      cosines: cosines.subarray(i * triangle, (i + 1) * triangle),
      diagonal: diagonals.subarray(i * m, (i + 1) * m),
    }));
  }

  placeOf(domain) {
    return this.place.has(domain) ? this.place.get(domain) : -1;
  }

  /** The round that a step belongs to; the last one beyond the end. */
  roundAt(step) {
    for (let t = 0; t < this.rounds; t++) if (this.edges[t + 1] >= step) return t;
    return Math.max(0, this.rounds - 1);
  }

  /** Number of a round for people, counting those that are not shown. */
  numberOf(round) {
    return (this.places[round] ?? round) + 1;
  }

  ended(step) {
    return step > this.edges[this.rounds];
  }

  receive(round, buffers) {
    const cosines = typed(buffers[0], Uint16Array), diagonal = typed(buffers[1], Float32Array);
    this.packed.set(round, { cosines, diagonal });
  }

  /** Gram matrix of a round, or of the nearest earlier one that is here; null if there is none. */
  gram(round) {
    let have = round;
    while (have > 0 && !this.packed.has(have)) have--;
    if (!this.packed.has(have)) return null;
    if (!this.unfolded.has(have)) {
      const { unfolded, m } = this, { cosines, diagonal } = this.packed.get(have);
      if (unfolded.size >= MOST_UNFOLDED) unfolded.delete(unfolded.keys().next().value);
      const cosine = new Float32Array(m * m);
      for (let i = 0, k = 0; i < m; i++) {
        for (let j = i; j < m; j++, k++) cosine[i * m + j] = cosine[j * m + i] = HALF[cosines[k]];
      }
      unfolded.set(have, { round: have, cosine, diagonal });
    }
    return this.unfolded.get(have);
  }

  /** One cell of a matrix from `gram`: NaN where the round did not see the pair. */
  cell({ cosine, diagonal }, i, j, kind) {
    return this.valueOf(cosine[i * this.m + j], diagonal[i], diagonal[j], kind);
  }

  /** One pair in a round whose matrix is here, without unfolding it. */
  pair(round, i, j, kind) {
    const { cosines, diagonal } = this.packed.get(round), [a, b] = i < j ? [i, j] : [j, i];
    const cosine = HALF[cosines[a * this.m - (a * (a - 1)) / 2 + b - a]];
    return this.valueOf(cosine, diagonal[a], diagonal[b], kind);
  }

  valueOf(cosine, first, second, kind) {
    if (!Number.isFinite(cosine)) return NaN;
    if (kind === "raw") return cosine * normOf(first) * normOf(second);
    return first > 0 && second > 0 ? clamp(cosine, -1, 1) : NaN;
  }

  /** Share of a domain in a round; NaN if the run does not have it. */
  shareOf(domain, round, p = this.p) {
    const place = this.placeOf(domain);
    return place < 0 ? NaN : p[round * this.m + place];
  }

  /** Share of the first n domains together. */
  sharesBefore(n, round, p = this.p) {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += p[round * this.m + i];
    return sum;
  }

  /** Index of the last evaluation up to a step, or -1. */
  evaluationAt(step) {
    const { steps } = this.evaluation;
    let last = -1;
    for (let i = 0; i < steps.length && steps[i] <= step; i++) last = i;
    return last;
  }

  lossOf(place, evaluation) {
    return place >= 0 && evaluation >= 0 ? this.byDomain[evaluation * this.m + place] : NaN;
  }
}

/** Losses of two runs compare only if both were last evaluated at the same step. */
function evaluatedTogether(a, b, step) {
  const e = a.evaluationAt(step), f = b.evaluationAt(step);
  return e >= 0 && f >= 0 && a.evaluation.steps[e] === b.evaluation.steps[f];
}

/** Mixtures compare only while both runs train: one that has ended is compared no further. */
const bothTraining = (a, b, step) => !a.ended(step) && !b.ended(step);

// ---------------------------------------------------------------------- the store

// The state of one view: the runs decoded, where the slider is, what is hovered.
class Store extends Conversation {
  constructor(model) {
    super(model);
    this.hover = null;  // {domain} or {domain, other}: places in `domains`
    this.theme = {};
    this.save = debounced(SAVE_AFTER, () => model.save_changes());
    this.fetch = debounced(SAVE_AFTER, (run, round) => this.askGram(run, round));
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
    if (name === "runs") this.runs = (value || []).map((run, i) => new RunData(run, i));
    else if (name === "replay") this.replay = value?.p ? this.decodeReplay(value) : null;
    else if (["domains", "stops", "menu", "notices"].includes(name)) this[name] = value || [];
    else if (name === "at") this.at = value || 0;
    else if (name === "selected") this.selected = Number.isInteger(value) ? value : -1;
    else this[name] = value;
  }

  decodeReplay(value) {
    const floats = (name) => typed(value[name], Float32Array);
    return {
      label: String(value.label), p: floats("p"), distance: floats("distance"),
      effective: floats("effective"),
    };
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
    const ends = this.runs.flatMap((run) => [
      run.edges.at(-1), run.evaluation.steps.at(-1), run.train[0].at(-1),
    ]);
    return Math.max(1, ...ends.filter(Number.isFinite));
  }

  moveTo(stop) {
    this.put("at", clamp(Math.round(stop), 0, Math.max(0, this.stops.length - 1)));
  }

  /** Move to the round that is in force at a step. */
  moveToStep(step) {
    const stop = this.stops.findIndex((each) => each >= step);
    this.moveTo(stop < 0 ? this.stops.length - 1 : stop);
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
    if (reply.type === "gram") run.receive(round, reply.buffers);
    this.touch("gram");
  }
}

// -------------------------------------------------------------------------- plots

// A canvas as sharp as the screen, with an axis of steps and a tip next to the pointer.
class Plot {
  constructor(store, { test, label, height, margin, on }) {
    this.store = store;
    this.margin = { left: 52, right: 42, top: 12, bottom: 24, ...margin };
    this.canvas = el("canvas", { class: "rbs-canvas", test, role: "img", "aria-label": label });
    this.tip = el("div", {
      class: "rbx-tip", role: "tooltip", test: `${test}-tip`, hidden: true,
    });
    const style = { height: `${height}px` };
    this.box = el("div", { class: "rbs-plot", style }, this.canvas, this.tip);
    const listen = (name, fn) => this.canvas.addEventListener(name, fn);
    listen("pointermove", (event) => on.move(...this.placeOf(event)));
    listen("pointerleave", () => {
      this.tip.hidden = true;
      on.leave?.();
    });
    listen("pointerdown", (event) => {
      if (event.button !== 0) return;
      this.canvas.setPointerCapture(event.pointerId);
      this.dragging = true;
      on.press(...this.placeOf(event));
    });
    listen("pointermove", (event) => {
      if (this.dragging) on.drag?.(...this.placeOf(event));
    });
    for (const name of ["pointerup", "pointercancel"]) listen(name, () => (this.dragging = false));
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
    const { box, canvas, margin } = this, dense = window.devicePixelRatio || 1;
    const width = box.clientWidth, height = box.clientHeight;
    if (!width || !height) return null;
    const wide = Math.round(width * dense), high = Math.round(height * dense);
    if (canvas.width !== wide || canvas.height !== high) {
      canvas.width = wide;
      canvas.height = high;
    }
    this.x0 = margin.left;
    this.x1 = width - margin.right;
    this.y0 = margin.top;
    this.y1 = height - margin.bottom;
    const pen = canvas.getContext("2d");
    pen.setTransform(dense, 0, 0, dense, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = `11px ${this.store.theme.font}`;
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
    const { theme, lastStep } = this.store;
    pen.fillStyle = theme.muted;
    pen.textAlign = "center";
    for (const step of ticks(0, lastStep, Math.max(2, Math.floor((this.x1 - this.x0) / 90)))) {
      const text = count(step), half = pen.measureText(text).width / 2;
      const x = clamp(this.x(step), this.x0 + (step ? half : 0), this.x1 - half);
      pen.fillText(text, x, this.y1 + 13);
    }
  }

  /** Ticks of values at the left, with faint lines across. */
  values(pen, low, high, y, text) {
    const { theme } = this.store;
    pen.textAlign = "right";
    for (const value of ticks(low, high, Math.max(2, Math.floor((this.y1 - this.y0) / 34)))) {
      pen.globalAlpha = 0.13;
      pen.fillStyle = theme.ink;
      pen.fillRect(this.x0, Math.round(y(value)), this.x1 - this.x0, 1);
      pen.globalAlpha = 1;
      pen.fillStyle = theme.muted;
      pen.fillText(text(value), this.x0 - 6, y(value));
    }
  }

  /** The line at the step of the slider. */
  cursor(pen) {
    const x = clamp(this.x(this.store.step), this.x0, this.x1);
    pen.fillStyle = this.store.theme.ink;
    pen.fillRect(x - 0.75, this.y0 - 5, 1.5, this.y1 - this.y0 + 5);
    pen.beginPath();
    pen.moveTo(x - 4.5, this.y0 - 7);
    pen.lineTo(x + 4.5, this.y0 - 7);
    pen.lineTo(x, this.y0 - 1);
    pen.fill();
  }

  /** Say in the middle of the plot why it is empty. */
  nothing(pen, text) {
    pen.fillStyle = this.store.theme.muted;
    pen.textAlign = "center";
    pen.font = `12px ${this.store.theme.font}`;
    pen.fillText(text, (this.x0 + this.x1) / 2, (this.y0 + this.y1) / 2);
  }

  /** Show the tip next to a point. */
  explain(x, y, ...lines) {
    this.tip.replaceChildren(...lines);
    this.tip.hidden = false;
    standAt(this.box, this.tip, x, y, 14);
  }
}

/** Round numbers from low to high, about n of them. */
function ticks(low, high, n) {
  const span = high - low;
  if (!(span > 0) || !Number.isFinite(span)) return [low];
  const rough = span / n, power = 10 ** Math.floor(Math.log10(rough)), marks = [];
  const unit = [1, 2, 2.5, 5, 10].map((k) => k * power).find((k) => k >= rough * 0.8);
  const first = Math.ceil(low / unit - 1e-9) * unit;
  for (let value = first; value <= high + unit * 1e-9; value += unit) {
    marks.push(Math.abs(value) < unit * 1e-6 ? 0 : value);
  }
  return marks;
}

/** A line through values by step; gaps where they are not known. */
function trace(pen, xs, ys) {
  let drawing = false;
  pen.beginPath();
  xs.forEach((x, i) => {
    const known = Number.isFinite(ys[i]);
    if (known && drawing) pen.lineTo(x, ys[i]);
    else if (known) pen.moveTo(x, ys[i]);
    drawing = known;
  });
  pen.stroke();
}

/** A name on a canvas: one line, cut to its room, and never reordered by what it contains. */
function nameFor(pen, name, room) {
  const invisible = /[\s\u202a-\u202e\u2066-\u2069\u200e\u200f]+/g;
  let text = Array.from(String(name).replace(invisible, " ").slice(0, 120));
  if (pen.measureText(text.join("")).width <= room) return text.join("");
  while (text.length > 1 && pen.measureText(text.join("") + "…").width > room) {
    text = text.slice(0, Math.max(1, Math.floor(text.length * 0.92)));
  }
  return text.join("").trimEnd() + "…";
}

const panelOf = (head, ...children) =>
  el("section", { class: "rbs-panel" }, el("header", {}, ...head), ...children);

// A panel with a plot by step: a click or a drag in it moves the slider.
class StepPanel {
  constructor(store, { test, title, height }) {
    this.store = store;
    this.head = words("h3", title);
    this.when = el("span", { class: "rbs-when", test: `${test}-when` });
    const go = (x) => store.moveToStep(this.plot.stepAt(x));
    this.plot = new Plot(store, {
      test, label: title, height,
      on: { move: (x, y) => this.move(x, y), leave: () => this.leave(), press: go, drag: go },
    });
    this.node = panelOf([this.head, this.when], this.plot.box);
  }

  move() {}

  leave() {}

  dispose() {
    this.plot.dispose();
  }
}

// -------------------------------------------------------------------- Gram matrix

// The Gram matrix of a round: a fixed scale around 0, unseen rows hatched, cells that explain
// themselves.
class GramView {
  constructor(store, run) {
    Object.assign(this, { store, run, cursor: null });
    this.when = el("span", { class: "rbs-when", test: `gram-when-${run.index}` });
    this.ramp = el("i", { class: "rbx-ramp", "aria-hidden": "true" });
    this.low = el("span", { class: "rbx-number" });
    this.high = el("span", { class: "rbx-number" });
    this.scale = el("span", { class: "rbs-scale" }, this.low, this.ramp, this.high);
    this.status = el("span", { class: "rbx-sr", role: "status", "aria-live": "polite" });
    this.plot = new Plot(store, {
      test: `gram-${run.index}`, label: "Gram matrix", height: 300,
      margin: { left: 0, right: 0, top: 0, bottom: 0 },
      on: {
        move: (x, y) => this.move(x, y), leave: () => store.setHover(null),
        press: (x, y) => this.press(x, y),
      },
    });
    const { canvas } = this.plot, how = "arrow keys go from cell to cell, Enter selects the row";
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-roledescription", `matrix: ${how}`);
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => this.leaveCell());
    const head = words("h3", store.runs.length > 1 ? run.label : "Gram matrix");
    this.node = panelOf([head, this.when, this.scale], this.plot.box, this.status);
    this.small = document.createElement("canvas");
  }

  update(changed) {
    const names = ["runs", "at", "kind", "selected", "hover", "theme", "size", "gram", "scale"];
    if (!touched(changed, ...names)) return;
    this.draw();
    if (changed.has("at") && !this.plot.tip.hidden && this.last) this.explain(...this.last);
  }

  dispose() {
    this.plot.dispose();
  }

  get round() {
    return this.run.roundAt(this.store.step);
  }

  numberOf(round) {
    return count(this.run.numberOf(round));
  }

  draw() {
    const { store, run, plot, round } = this, { m } = run, { clientWidth } = plot.box;
    const gutter = m && m <= MOST_NAMES ? Math.min(180, clientWidth * 0.38) : 0;
    const side = Math.max(120, Math.min(clientWidth - gutter, gutter ? 470 : 560));
    // Next to a run that has matrices the room stays: the panels below must line up.
    const room = store.runs.some((each) => each.hasGram && each.m);
    plot.box.style.height = `${room ? Math.round(side) : 90}px`;
    const pen = plot.begin();
    if (!pen) return;
    const gram = run.hasGram ? run.gram(round) : null, shown = gram ? gram.round : round;
    setText(this.when, this.describeRound(shown));
    if (gram && shown !== round) store.fetch(run, round);
    const limit = store.scale?.[store.kind] || 1;
    const digits = store.kind === "raw" ? decimals(limit) : 2;
    const ramp = store.theme.dark ? DIVERGING_DARK : DIVERGING;
    setText(this.low, figure(-limit, digits));
    setText(this.high, figure(limit, digits));
    this.ramp.style.background = rampGradient(ramp);
    this.scale.hidden = !gram;
    const what = `Gram matrix of ${run.label}`;
    if (!gram || !m) {
      plot.nothing(pen, run.hasGram ? "no Gram matrix yet" : "no Gram matrix recorded");
      plot.canvas.setAttribute("aria-label", `${what}: none recorded`);
      return;
    }
    Object.assign(this, { left: gutter, side, cell: side / m });
    this.hatch(pen);
    this.cells(pen, gram, limit, ramp);
    this.lines(pen, gram);
    if (gutter) this.names(pen);
    this.marks(pen);
    const kind = store.kind === "raw" ? "inner products" : "cosines";
    const label = `${what}, ${kind}, ${m} domains, round ${this.numberOf(shown)}`;
    plot.canvas.setAttribute("aria-label", label);
  }

  describeRound(shown) {
    const { run, round } = this;
    if (!run.rounds) return "no round has ended";
    const text = `round ${this.numberOf(shown)}, ended at step ${count(run.edges[shown + 1])}`;
    if (shown !== round) return `${text} (round ${this.numberOf(round)} is on its way)`;
    return run.ended(this.store.step) ? `${text} · the run's last` : text;
  }

  /** Hatch the whole square: it shows where a round saw no pair. */
  hatch(pen) {
    const { left, side } = this, { ink } = this.store.theme;
    pen.save();
    pen.beginPath();
    pen.rect(left, 0, side, side);
    pen.clip();
    pen.globalAlpha = 0.07;
    pen.fillStyle = ink;
    pen.fillRect(left, 0, side, side);
    pen.globalAlpha = 0.4;
    pen.strokeStyle = ink;
    pen.lineWidth = 0.8;
    pen.beginPath();
    for (let d = 0; d < 2 * side; d += 6) {
      pen.moveTo(left + d, 0);
      pen.lineTo(left + d - side, side);
    }
    pen.stroke();
    pen.restore();
  }

  cells(pen, gram, limit, ramp) {
    const { run, small } = this, { m } = run, { kind } = this.store;
    small.width = small.height = m;
    const brush = small.getContext("2d"), image = brush.createImageData(m, m);
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < m; j++) {
        const value = run.cell(gram, i, j, kind);
        if (Number.isNaN(value)) continue;  // stays clear: the hatch shows through
        image.data.set([...rampColour((value / limit + 1) / 2, ramp), 255], 4 * (i * m + j));
      }
    }
    brush.putImageData(image, 0, 0);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(small, this.left, 0, this.side, this.side);
  }

  lines(pen, gram) {
    const { cell, left, side } = this, { m } = this.run, { paper, ink } = this.store.theme;
    if (cell >= 9) {
      pen.fillStyle = paper;
      for (let i = 1; i < m; i++) {
        pen.fillRect(left + i * cell - 0.5, 0, 1, side);
        pen.fillRect(left, i * cell - 0.5, side, 1);
      }
    }
    // The diagonal is a squared norm: another quantity than its neighbours.
    pen.strokeStyle = ink;
    pen.globalAlpha = 0.75;
    pen.lineWidth = cell >= 6 ? 1 : 0.5;
    const size = Math.max(cell - 1, 0.5);
    for (let i = 0; i < m; i++) {
      if (!Number.isFinite(gram.cosine[i * m + i])) continue;
      pen.strokeRect(left + i * cell + 0.5, i * cell + 0.5, size, size);
    }
    pen.globalAlpha = 1;
  }

  names(pen) {
    const { run, cell, left, store } = this, { theme, hover, selected } = store;
    const size = clamp(cell * 0.82, 7, 12);
    pen.textAlign = "right";
    run.ids.forEach((id, i) => {
      const strong = id === selected || hover?.domain === id || hover?.other === id;
      const y = (i + 0.5) * cell;
      pen.font = `${strong ? 700 : 400} ${size}px ${theme.font}`;
      pen.fillStyle = strong ? theme.ink : theme.muted;
      pen.fillText(nameFor(pen, store.nameOf(id), left - 22), left - 18, y);
      pen.fillStyle = store.colourOf(id);
      pen.beginPath();
      pen.arc(left - 9, y, clamp(cell * 0.3, 2, 4.5), 0, 2 * Math.PI);
      pen.fill();
    });
  }

  /** Frames around the rows and columns of the selected and the hovered domain. */
  marks(pen) {
    const { run, cell, left, side } = this, { hover, selected, theme } = this.store;
    const frame = (place, colour, width) => {
      if (place < 0) return;
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      const thick = Math.max(cell, 2);
      pen.strokeRect(left + 1, place * cell, side - 2, thick);
      pen.strokeRect(left + place * cell, 1, thick, side - 2);
    };
    frame(run.placeOf(selected), theme.accent, 2);
    if (!hover) return;
    const i = run.placeOf(hover.domain);
    if (hover.other === undefined) {
      frame(i, theme.ink, 1.2);
      return;
    }
    const j = run.placeOf(hover.other), size = Math.max(cell, 3) + 2;
    if (i < 0 || j < 0) return;
    pen.strokeStyle = theme.ink;
    pen.lineWidth = 2;
    pen.strokeRect(left + j * cell - 1, i * cell - 1, size, size);
  }

  /** Row and column at a point; the column is negative over the names. */
  cellAt(x, y) {
    const i = Math.floor(y / this.cell), j = Math.floor((x - this.left) / this.cell);
    return i >= 0 && i < this.run.m && j < this.run.m && this.side ? [i, j] : null;
  }

  leaveCell(hover = null) {
    this.plot.tip.hidden = true;
    this.store.setHover(hover);
  }

  move(x, y) {
    const cell = this.cellAt(x, y);
    if (!cell) this.leaveCell();
    else if (cell[1] < 0) this.leaveCell({ domain: this.run.ids[cell[0]] });
    else this.pointAt(...cell, x, y);
  }

  pointAt(i, j, x, y) {
    this.store.setHover({ domain: this.run.ids[i], other: this.run.ids[j] });
    this.last = [i, j, x, y];
    this.explain(i, j, x, y);
  }

  press(x, y) {
    const cell = this.cellAt(x, y);
    if (cell) this.store.select(this.run.ids[cell[0]]);
  }

  /** The pair, its value, and how it developed. */
  explain(i, j, x, y) {
    const { run, store } = this, { kind } = store, gram = run.gram(this.round);
    if (!gram) return;
    const value = run.cell(gram, i, j, kind), digits = kind === "raw" ? decimals(value) : 2;
    const [first, second] = [i, j].map((place) => store.nameOf(run.ids[place]));
    const pair = el("div", { class: "rbs-pair" }, words("b", first));
    if (i !== j) pair.append(el("span", { text: "and" }), words("b", second));
    const norm = `squared norm ${figure(gram.diagonal[i], decimals(gram.diagonal[i]))}`;
    const product = `${kind === "raw" ? "inner product" : "cosine"} ${figure(value, digits)}`;
    const what = i === j ? norm : product;
    const text = Number.isFinite(value) ? what : "no example of one of them in this round";
    const lines = [pair, el("div", { class: "rbs-value", test: "cell-value", text })];
    const earlier = [...run.packed.keys()].sort((a, b) => a - b)
      .filter((t) => t < gram.round && Number.isFinite(run.pair(t, i, j, kind)));
    if (Number.isFinite(value) && i !== j && earlier.length) {
      const since = (t) =>
        `${signed(value - run.pair(t, i, j, kind), digits)} since round ${this.numberOf(t)}`;
      const changes = [...new Set([earlier.at(-1), earlier[0]])].map(since).join(", ");
      lines.push(el("div", { class: "rbx-hint", test: "cell-change", text: changes }));
      lines.push(this.spark(i, j));
    }
    this.plot.explain(x, y, ...lines);
    setText(this.status, `${first} and ${second}: ${what}`.slice(0, 300));
  }

  /** The value of a pair over all rounds that are here, with a line at 0. */
  spark(i, j) {
    const { run, store } = this, { kind, theme } = store, width = 180, height = 34;
    const canvas = el("canvas", { class: "rbs-spark", "aria-hidden": "true" });
    const dense = window.devicePixelRatio || 1;
    canvas.width = width * dense;
    canvas.height = height * dense;
    const every = Math.max(1, Math.ceil(run.packed.size / 60));
    const rounds = [...run.packed.keys()].sort((a, b) => a - b).filter((_, k) => k % every === 0);
    const values = rounds.map((t) => run.pair(t, i, j, kind));
    const most = Math.max(...values.filter(Number.isFinite).map(Math.abs), 1e-12);
    const x = (t) => 3 + (t / Math.max(1, run.rounds - 1)) * (width - 6);
    const y = (v) => height / 2 - (v / most) * (height / 2 - 4);
    const pen = canvas.getContext("2d");
    pen.scale(dense, dense);
    pen.fillStyle = theme.ink;
    pen.globalAlpha = 0.25;
    pen.fillRect(0, height / 2, width, 1);
    pen.globalAlpha = 1;
    pen.strokeStyle = theme.accent;
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
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const { run, cell } = this, move = moves[event.key];
    if (!run.hasGram || !run.m) return;
    if (move) {
      const from = this.cursor || move.map((d) => -d);  // the first key shows the first cell
      const [i, j] = this.cursor = from.map((at, k) => clamp(at + move[k], 0, run.m - 1));
      this.pointAt(i, j, this.left + (j + 0.5) * cell, (i + 0.5) * cell);
    } else if ((event.key === "Enter" || event.key === " ") && this.cursor) {
      this.store.select(run.ids[this.cursor[0]]);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

// -------------------------------------------------------------------- proportions

// Proportions over the rounds, stacked, with q next to them.
class MixtureView extends StepPanel {
  constructor(store, run, { test, title, p, effective, height = 210 }) {
    super(store, { test, title: title(), height });
    Object.assign(this, { run, title });
    this.values = p || (() => run.p);
    this.effective = effective || (() => run.effective);
  }

  update(changed) {
    const names = ["runs", "replay", "at", "selected", "hover", "theme", "size"];
    if (touched(changed, ...names)) this.draw();
  }

  /** Rounds as columns: before any has ended, the whole width is the first. */
  get columns() {
    return Math.max(this.run.rounds, 1);
  }

  /** Where a round begins and ends on the plot. */
  span(t) {
    const { run, store, plot } = this;
    const [from, to] = run.rounds ? [run.edges[t], run.edges[t + 1]] : [0, store.lastStep];
    return [plot.x(from), plot.x(to)];
  }

  draw() {
    const { store, run, plot } = this, pen = plot.begin(), p = this.values();
    setWords(this.head, this.title());
    if (!pen) return;
    const t = run.roundAt(store.step), effective = this.effective()[t];
    const spread = `${figure(effective, 1)} effective domains`;
    setText(this.when, Number.isFinite(effective) ? spread : "");
    if (!p.length || Number.isNaN(p[0])) {
      plot.nothing(pen, "no proportions recorded");
      return;
    }
    const y = (v) => plot.y0 + v * (plot.y1 - plot.y0), bar = plot.x1 + 10;
    this.stack(pen, p, y);
    this.targets(pen, y, bar);
    pen.globalAlpha = 1;
    this.outline(pen, p, y, bar);
    pen.fillStyle = store.theme.ink;
    pen.textAlign = "center";
    if (run.q.length) pen.fillText("q", bar + 9, plot.y1 + 13);
    pen.textAlign = "right";
    pen.fillStyle = store.theme.muted;
    for (const [v, text] of [[0, "0"], [0.5, "50"], [1, "100 %"]]) {
      pen.fillText(text, plot.x0 - 6, clamp(y(1 - v), plot.y0 + 2, plot.y1 - 2));
    }
    plot.steps(pen);
    this.current(pen, t);
    const label = `${this.title()}: ${run.m} domains over ${plural(run.rounds, "round")}`;
    plot.canvas.setAttribute("aria-label", label.slice(0, 300));
  }

  /** One layer; all others are pale while one domain is hovered or selected. */
  block(pen, id, left, right, top, bottom) {
    const { hover, selected, theme } = this.store, strong = hover ? hover.domain : selected;
    pen.globalAlpha = strong >= 0 && strong !== id && hover?.other !== id ? 0.3 : 1;
    if (id < 0) pen.globalAlpha *= 0.4;
    pen.fillStyle = id < 0 ? theme.muted : this.store.colourOf(id);
    pen.fillRect(left, top, right - left, bottom - top);
  }

  stack(pen, p, y) {
    const { run, plot } = this;
    const spaced = (plot.x1 - plot.x0) / this.columns > 14 && run.m <= 60;
    for (let round = 0; round < this.columns; round++) {
      const [left, right] = this.span(round);
      let low = 0;
      run.ids.forEach((id, i) => {
        const high = low + p[round * run.m + i];
        const gap = spaced ? Math.min(0.6 / 160, (high - low) / 3) : 0;
        this.block(pen, id, left, right, y(low), y(high - gap));
        low = high;
      });
      if (run.others) this.block(pen, -1, left, right, y(low), y(1));
    }
  }

  /** q as a bar at the right, from the top down, as the rows of the matrix. */
  targets(pen, y, bar) {
    const { run } = this;
    let low = 0;
    run.q.forEach((q, i) => {
      this.block(pen, run.ids[i], bar, bar + 18, y(low), y(low + q));
      low += q;
    });
    if (run.q.length && run.others) this.block(pen, -1, bar, bar + 18, y(low), y(1));
  }

  /** Edges of the selected and of the hovered domain. */
  outline(pen, p, y, bar) {
    const { run, store } = this;
    pen.strokeStyle = store.theme.ink;
    pen.lineWidth = 1.2;
    for (const place of [store.selected, store.hover?.domain].map((id) => run.placeOf(id))) {
      if (place < 0) continue;
      pen.beginPath();
      for (const upper of [0, 1]) {
        for (let round = 0; round < this.columns; round++) {
          const [left, right] = this.span(round);
          const at = y(run.sharesBefore(place + upper, round, p));
          if (round) pen.lineTo(left, at);
          else pen.moveTo(left, at);
          pen.lineTo(right, at);
        }
      }
      pen.stroke();
      if (!run.q.length) continue;
      const before = run.sharesBefore(place, 0, run.q);
      pen.strokeRect(bar, y(before), 18, y(before + run.q[place]) - y(before));
    }
  }

  /** A frame around the round of the slider. */
  current(pen, t) {
    const { plot, store } = this, [left, right] = this.span(t);
    for (const [colour, width] of [[store.theme.paper, 3.5], [store.theme.ink, 1.5]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      pen.strokeRect(left, plot.y0 - 1, right - left, plot.y1 - plot.y0 + 2);
    }
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
    const step = Math.max(plot.stepAt(Math.min(x, plot.x1)), 1e-9);
    const t = run.rounds ? run.roundAt(step) : 0, height = (y - plot.y0) / (plot.y1 - plot.y0);
    const [round, shares] = onBar ? [0, run.q] : [t, p];
    const upTo = (i) => run.sharesBefore(i + 1, round, shares);
    const place = run.ids.findIndex((_, i) => height <= upTo(i)), id = run.ids[place] ?? -1;
    store.setHover(id < 0 ? null : { domain: id });
    const rest = run.others ? Math.max(0, 1 - run.sharesBefore(run.m, t, p)) : 0;
    const now = share(id < 0 ? rest : p[t * run.m + place]);
    const target = run.q.length && id >= 0 ? `, q ${share(run.q[place])}` : "";
    const text = `p ${now} in round ${count(run.numberOf(t))}${target}`;
    const name = id < 0 ? plural(run.others, "other") : store.nameOf(id);
    plot.explain(x, y, words("b", name), el("div", { test: "share-value", text }));
  }

  leave() {
    this.store.setHover(null);
  }
}

// ------------------------------------------------------------------------- losses

// Losses by step: training faint and smoothed, eval with a mark at each evaluation, one domain
// dashed.
class LossView extends StepPanel {
  constructor(store, height) {
    super(store, { test: "losses", title: "Losses", height });
    this.key = el("div", { class: "rbs-key", test: "loss-key" });
    this.plot.box.before(this.key);
  }

  update(changed) {
    if (!touched(changed, "runs", "at", "selected", "theme", "size")) return;
    setText(this.when, [...new Set(this.store.runs.map((run) => run.unit))].join(" or "));
    this.legend();
    this.draw();
  }

  colour(run) {
    return run.index ? this.store.theme.want : this.store.theme.accent;
  }

  draw() {
    const { store, plot } = this, pen = plot.begin();
    if (!pen) return;
    const curves = store.runs.map((run) => {
      const place = store.lossDomain(run), { steps, values } = run.evaluation;
      return { run, place, steps, values, one: steps.map((_, e) => run.lossOf(place, e)) };
    });
    const seen = curves.flatMap(({ run, values, one }) => [...run.train[2], ...values, ...one])
      .filter(Number.isFinite);
    if (!seen.length) {
      plot.nothing(pen, "no losses recorded");
      return;
    }
    const least = Math.min(...seen), most = Math.max(...seen), pad = (most - least || 1) * 0.05;
    const low = least - pad, high = most + pad;
    const y = (v) => plot.y1 - ((v - low) / (high - low)) * (plot.y1 - plot.y0);
    plot.values(pen, low, high, y, (v) => figure(v, high - low < 0.5 ? 2 : 1));
    pen.save();
    pen.beginPath();
    pen.rect(plot.x0 - 4, plot.y0 - 4, plot.x1 - plot.x0 + 8, plot.y1 - plot.y0 + 8);
    pen.clip();
    for (const each of curves) this.curves(pen, each, y);
    pen.restore();
    plot.steps(pen);
    if (store.stops.length) plot.cursor(pen);
  }

  curves(pen, { run, place, steps, values, one }, y) {
    const { plot } = this, alone = this.store.runs.length < 2;
    const curve = (at, of, width, alpha, dash = []) => {
      pen.lineWidth = width;
      pen.globalAlpha = alpha;
      pen.setLineDash(dash);
      trace(pen, Array.from(at, (step) => plot.x(step)), Array.from(of, y));
    };
    pen.strokeStyle = pen.fillStyle = this.colour(run);
    const [at, raw, smooth] = run.train;
    curve(at, raw, 0.8, alone ? 0.25 : 0.12);
    curve(at, smooth, 1.2, 0.5);
    if (place >= 0) curve(steps, one, 1.4, 1, [5, 3]);
    curve(steps, values, 2, 1);
    const every = Math.max(1, Math.ceil(steps.length / 40));
    steps.forEach((step, e) => {
      if (e % every === 0 && Number.isFinite(values[e])) {
        this.mark(pen, run, plot.x(step), y(values[e]));
      }
    });
  }

  /** A round or a square mark: two runs differ not by colour alone. */
  mark(pen, run, x, y) {
    pen.beginPath();
    if (run.index) pen.rect(x - 3, y - 3, 6, 6);
    else pen.arc(x, y, 3.2, 0, 2 * Math.PI);
    pen.fill();
  }

  /** Values at the slider. */
  legend() {
    const { store } = this, two = store.runs.length > 1;
    const together = !two || evaluatedTogether(...store.runs, store.step);
    const entry = (run, kind, ...children) => {
      const line = el("i", { class: `rbs-line ${kind}`, style: { "--colour": this.colour(run) } });
      return el("span", { class: "rbs-entry" }, line, ...children);
    };
    this.key.replaceChildren(...store.runs.flatMap((run, r) => {
      const e = run.evaluationAt(store.step), place = store.lossDomain(run);
      const at = together || e < 0 ? "" : ` at step ${count(run.evaluation.steps[e])}`;
      const text = `eval ${figure(e < 0 ? NaN : run.evaluation.values[e])}${at}`;
      const entries = [entry(
        run, r ? "rbs-square" : "", two ? words("span", run.label) : null,
        el("span", { test: `eval-${r}`, text }),
      )];
      if (place >= 0) {
        const name = `${store.selected < 0 ? "worst: " : ""}${store.nameOf(run.ids[place])}`;
        const loss = figure(run.lossOf(place, e));
        const value = el("span", { test: `domain-loss-${r}`, text: loss });
        entries.push(entry(run, "rbs-dashed", words("span", name), value));
      }
      if (!two && run.train[0].length) {
        entries.push(entry(run, "rbs-faint", el("span", { text: "training" })));
      }
      return entries;
    }));
  }

  move(x, y) {
    const { plot, store } = this, step = plot.stepAt(x);
    const evaluated = store.runs.some((run) => run.evaluation.steps.length);
    if (x < plot.x0 || x > plot.x1 || !evaluated) {
      plot.tip.hidden = true;
      return;
    }
    const lines = store.runs.map((run) => {
      const e = run.evaluationAt(step), { steps, values } = run.evaluation;
      const loss = `eval ${figure(values[e])} at step ${count(steps[e])}`;
      const text = e < 0 ? "no evaluation yet" : loss;
      return el("div", {}, words("span", `${run.label}: `), el("span", { text }));
    });
    plot.explain(x, y, el("b", { text: `step ${count(step)}` }), ...lines);
  }
}

// ------------------------------------------------------------------- differences

// A low plot of one number by step: how far a replay is from the run, or one loss from another.
class DifferenceView extends StepPanel {
  constructor(store, { test, title, now, series, text }) {
    super(store, { test: `${test}-plot`, title, height: 92 });
    this.when.dataset.test = test;
    Object.assign(this, { now, series, text });
  }

  update(changed) {
    if (touched(changed, "runs", "replay", "at", "theme", "size")) this.draw();
  }

  draw() {
    const { plot } = this, { theme } = this.store, pen = plot.begin();
    setText(this.when, this.now());
    if (!pen) return;
    const { steps, values } = this.series(), known = values.filter(Number.isFinite);
    if (!known.length) {
      plot.nothing(pen, "nothing to compare");
      return;
    }
    const high = Math.max(0, ...known), low = Math.min(0, ...known);
    const pad = (high - low || 0.01) * 0.08;
    const top = high ? high + pad : pad, bottom = low ? low - pad : 0;
    const y = (v) => plot.y1 - ((v - bottom) / (top - bottom)) * (plot.y1 - plot.y0);
    plot.values(pen, bottom, top, y, this.text);
    pen.fillStyle = theme.ink;
    pen.fillRect(plot.x0, Math.round(y(0)) - 0.5, plot.x1 - plot.x0, 1);
    pen.strokeStyle = theme.accent;
    pen.lineWidth = 1.8;
    trace(pen, steps.map((step) => plot.x(step)), values.map(y));
    plot.steps(pen);
    plot.cursor(pen);
  }
}

/** Total variation distance of the replay to the run's p, constant within a round. */
function distanceView(store, run) {
  const rounds = Array.from({ length: run.rounds }, (_, t) => t);
  const distance = (t) => store.replay?.distance[t];
  return new DifferenceView(store, {
    test: "distance", title: "Drawn from other domains under the replay",
    text: (v) => `${figure(100 * v, 1)} %`,
    now: () => {
      const now = share(distance(run.roundAt(store.step)));
      return store.replay ? `${now} of the examples, in this round` : "";
    },
    series: () => ({
      steps: rounds.flatMap((t) => [run.edges[t], run.edges[t + 1]]),
      values: rounds.flatMap((t) => [distance(t), distance(t)]),
    }),
  });
}

/** Eval loss of the second run minus that of the first, where both were evaluated. */
function lossGapView(store, [first, second]) {
  const { steps: at, values: losses } = first.evaluation;
  const ofFirst = new Map(Array.from(at, (step, e) => [step, losses[e]]));
  const pairs = Array.from(second.evaluation.steps, (step, e) => [step, e])
    .filter(([step]) => ofFirst.has(step));
  const steps = pairs.map(([step]) => step);
  const values = pairs.map(([step, e]) => second.evaluation.values[e] - ofFirst.get(step));
  return new DifferenceView(store, {
    test: "gap", title: "Eval loss, second − first", text: (v) => figure(v, 3),
    series: () => ({ steps, values }),
    now: () => {
      const last = steps.filter((step) => step <= store.step).length - 1;
      if (last < 0) return "not yet evaluated together";
      const gap = `${signed(values[last], 4)} at step ${count(steps[last])}`;
      return `${gap}: below 0 the second is better`;
    },
  });
}

// -------------------------------------------------------------- numbers of a round

// The numbers of the round, and of each domain in it. The arrow keys go from row to row.
class NumbersView {
  constructor(store) {
    this.store = store;
    this.rows = [];
    this.list = el("dl", { class: "rbs-numbers", test: "numbers" });
    this.table = el("table", {
      class: "rbs-table", test: "domains", "aria-label": "Domains in this round",
      on: {
        click: (event) => this.click(event), keydown: (event) => this.key(event),
        pointerover: (event) => this.over(event), pointerleave: () => store.setHover(null),
      },
    });
    const scroll = el("div", { class: "rbs-scroll" }, this.table);
    this.node = panelOf([el("h3", { text: "This round" })], this.list, scroll);
    this.node.classList.add("rbs-numbers-panel");
  }

  update(changed) {
    const rebuilt = touched(changed, "runs", "replay", "domains"), { selected } = this.store;
    if (rebuilt) this.build();
    if (rebuilt || changed.has("at")) this.fill();
    if (rebuilt || touched(changed, "selected", "hover")) this.mark();
    if (changed.has("selected") && selected >= 0) {
      this.rows[selected]?.node.scrollIntoView({ block: "nearest" });
    }
  }

  columns() {
    const { runs, replay, step } = this.store, [a, b] = runs;
    if (!a) return [];
    const p = (run) => (id) => run.shareOf(id, run.roundAt(step));
    const replayed = (id) => (replay ? a.shareOf(id, a.roundAt(step), replay.p) : NaN);
    const score = (id) => (a.score.length ? a.shareOf(id, a.roundAt(step), a.score) : NaN);
    const loss = (run) => (id) => run.lossOf(run.placeOf(id), run.evaluationAt(step));
    const q = (id) => {
      const run = a.placeOf(id) >= 0 ? a : b;
      return run?.q.length ? run.shareOf(id, 0, run.q) : NaN;
    };
    const bar = (head, title, value) => ({ head, title, value, show: shareOnly, bar: true });
    const number = (head, title, value, show = figure) => ({ head, title, value, show });
    const minus = (head, title, f, g, show, comparable = true) => ({
      head, title, value: (id) => (comparable ? f(id) - g(id) : NaN), show, signed: true,
    });
    const columns = [bar("p %", `Share in ${b ? a.label : "training, in this round"}`, p(a))];
    if (b) {
      const title = "Share in the second run minus that in the first, in points";
      columns.push(bar("p₂ %", `Share in ${b.label}`, p(b)));
      columns.push(minus("Δp", title, p(b), p(a), points, bothTraining(a, b, step)));
    }
    if (replay) {
      const title = "Replayed share minus the recorded one, in points";
      columns.push(bar("replay %", `Share under ${replay.label}`, replayed));
      columns.push(minus("Δ", title, replayed, p(a), points));
    }
    columns.push(number("q %", "Share in the eval set", q, shareOnly));
    if (b) {
      const title = "Eval loss of the second run minus that of the first: "
        + "below 0 the second is better";
      const comparable = evaluatedTogether(a, b, step);
      columns.push(number("loss", `Eval loss in ${a.label}`, loss(a)));
      columns.push(minus("Δ loss", title, loss(b), loss(a), (v) => signed(v), comparable));
    } else {
      const aligned = "Score: alignment with the eval set, Gq divided by its norm";
      columns.push(number("Gq", aligned, score));
      columns.push(number("loss", `Eval loss at the last evaluation, ${a.unit}`, loss(a)));
    }
    return columns;
  }

  build() {
    const { store } = this, columns = this.columns();
    const heads = columns.map(({ head, title }) =>
      el("th", { scope: "col", text: head, title: title.slice(0, 300) }));
    this.rows = store.domains.map(({ colour, name }, id) => {
      const cells = columns.map(() => el("td"));
      const label = words("span", name, { test: "domain-name" });
      const options = {
        test: "domain", "data-domain": id, tabindex: id ? "-1" : "0", "aria-selected": "false",
      };
      const isolated = el("div", { class: "rbx-isolate" }, swatch(colour), label);
      const node = el("tr", options, el("th", { scope: "row" }, isolated), ...cells);
      return { node, cells };
    });
    const head = el("tr", {}, el("th", { scope: "col", text: "domain" }), ...heads);
    const body = el("tbody", {}, ...this.rows.map((row) => row.node));
    this.table.replaceChildren(el("thead", {}, head), body);
  }

  fill() {
    const { store } = this, columns = this.columns();
    const bars = columns.filter((column) => column.bar);
    const shares = this.rows.flatMap((_, id) => bars.map((column) => column.value(id)));
    const most = Math.max(1e-9, ...shares.filter(Number.isFinite));
    this.rows.forEach(({ cells }, id) => columns.forEach((column, c) => {
      const value = column.value(id), sign = column.signed ? Math.sign(value) : 0;
      setText(cells[c], column.show(value));
      if (column.bar) cells[c].style.setProperty("--part", `${(100 * (value || 0)) / most}%`);
      cells[c].className = column.bar ? "rbs-bar" : sign ? (sign > 0 ? "rbs-up" : "rbs-down") : "";
    }));
    const numbers = store.runs.flatMap((run) => this.numbersOf(run));
    this.list.replaceChildren(...numbers, ...this.distance());
  }

  numbersOf(run) {
    const { runs, step } = this.store, t = run.roundAt(step);
    const prefix = runs.length > 1 ? `${run.label}: ` : "";
    const number = (head, text, test, title) => el(
      "div", { title }, words("dt", `${prefix}${head}`, { title: undefined }),
      el("dd", { text, test: `${test}-${run.index}` }),
    );
    let effective = "–", noise = "not recorded";
    if (Number.isFinite(run.effective[t])) {
      const target = run.effectiveTarget ? `, of q ${figure(run.effectiveTarget, 1)}` : "";
      effective = `${figure(run.effective[t], 1)} of ${count(run.total)}${target}`;
    }
    if (Number.isFinite(run.noise[t])) noise = `${share(run.noise[t])} of the diagonal`;
    const entropy = "exp of the entropy of p: how many domains the mixture is spread over";
    const floor = "Part of the squared gradient norms that is sampling noise";
    const numbers = [
      number("effective domains", effective, "effective", entropy),
      number("noise floor", noise, "noise", floor),
    ];
    if (run.ended(step) && run.rounds) {
      const text = `at step ${count(run.edges[run.rounds])}`;
      numbers.push(number("ended", text, "ended", "Its last round is shown"));
    }
    return numbers;
  }

  /** Distance between the mixtures of two runs: only where all domains are shown. */
  distance() {
    const { runs: [a, b], domains, step } = this.store;
    if (!b || !bothTraining(a, b, step) || a.others || b.others) return [];
    if (!a.p.length || !b.p.length) return [];
    const of = (run, id) => (run.placeOf(id) < 0 ? 0 : run.shareOf(id, run.roundAt(step)));
    const sum = domains.reduce((total, _, id) => total + Math.abs(of(a, id) - of(b, id)), 0);
    const value = el("dd", { test: "mixture-distance", text: share(sum / 2) });
    const name = el("dt", { text: "drawn from other domains" });
    return [el("div", { title: "Total variation distance of p" }, name, value)];
  }

  mark() {
    const { hover, selected } = this.store;
    this.rows.forEach(({ node }, id) => {
      const hovered = Boolean(hover) && (hover.domain === id || hover.other === id);
      node.setAttribute("aria-selected", String(id === selected));
      node.classList.toggle("rbs-hovered", hovered);
    });
  }

  idOf(event) {
    const row = event.target.closest?.("tr[data-domain]");
    return row ? +row.dataset.domain : -1;
  }

  over(event) {
    const id = this.idOf(event);
    this.store.setHover(id < 0 ? null : { domain: id });
  }

  click(event) {
    const id = this.idOf(event);
    if (id >= 0) this.store.select(id);
  }

  key(event) {
    const id = this.idOf(event), move = { ArrowUp: -1, ArrowDown: 1 }[event.key];
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

// ------------------------------------------------------------------- the bar above

// Which run, the slider over its rounds, play, and the quantity that the matrix shows.
class Player {
  constructor(store) {
    this.store = store;
    this.title = words("span", "", { class: "rbx-title", test: "title" });
    this.slider = el("input", {
      type: "range", class: "rbs-slider", test: "slider", min: "0", step: "1",
      "aria-label": "Round", on: { input: () => this.goTo(+this.slider.value) },
    });
    const action = (test, label, name, on) => button(test, { label, name, on });
    const toggle = () => (this.timer ? this.stop() : this.start());
    this.play = action("play", "Play", "play", toggle);
    const back = action("previous", "Previous round", "previous", () => this.goTo(store.at - 1));
    const next = action("next", "Next round", "chevron", () => this.goTo(store.at + 1));
    this.buttons = [back, this.play, next];
    this.place = el("span", { class: "rbs-place", test: "place" });
    const kind = (id, text, title) => el("button", {
      type: "button", class: "rbx-segment", test: `kind-${id}`, text, title,
      on: { click: () => store.put("kind", id) },
    });
    this.kinds = el(
      "div", { class: "rbx-segments", role: "group", "aria-label": "Gram matrix as" },
      kind("cosine", "cosine", "Cosines: directions alone"),
      kind("raw", "raw", "Inner products, as the mixer saw them"),
    );
    this.actions = el("div", { class: "rbx-actions" }, this.kinds);
    const cells = Array.from({ length: 9 }, () => el("i"));
    const logo = el("span", { class: "rbx-logo", "aria-hidden": "true" }, ...cells);
    this.node = el(
      "div", { class: "rbx-bar" },
      el("div", { class: "rbx-brand" }, logo, this.title),
      el("div", { class: "rbs-player" }, ...this.buttons, this.slider, this.place),
      this.actions,
    );
  }

  goTo(stop) {
    this.stop();
    this.store.moveTo(stop);
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
    this.showState();
  }

  stop() {
    clearInterval(this.timer);
    this.timer = 0;
    this.showState();
  }

  showState() {
    const label = this.timer ? "Pause" : "Play", { play } = this;
    if (play.title === label) return;
    play.replaceChildren(icon(label.toLowerCase()));
    play.title = label;
    play.setAttribute("aria-label", label);
  }

  update(changed) {
    const { store, slider } = this, n = store.stops.length;
    if (changed.has("title")) setWords(this.title, store.title);
    if (touched(changed, "stops", "runs")) this.stop();
    slider.max = String(Math.max(n - 1, 0));
    slider.disabled = n < 2;
    for (const node of this.buttons) node.setAttribute("aria-disabled", String(n < 2));
    if (+slider.value !== store.at) slider.value = String(store.at);
    const text = this.describePlace();
    setText(this.place, text);
    slider.setAttribute("aria-valuetext", text);
    for (const node of this.kinds.children) {
      node.setAttribute("aria-pressed", String(node.dataset.test === `kind-${store.kind}`));
    }
    this.kinds.hidden = !store.runs.some((each) => each.hasGram);
  }

  describePlace() {
    const { runs, stops, step } = this.store, [run] = runs;
    if (!run || !stops.length) return "no round yet";
    if (runs.length > 1) return `step ${count(step)} of ${count(stops.at(-1))}`;
    const round = count(run.numberOf(run.roundAt(step))), last = run.numberOf(run.rounds - 1);
    return `round ${round} of ${count(Math.max(last, run.rounds))} · step ${count(step)}`;
  }

  dispose() {
    clearInterval(this.timer);
  }
}

// Another mixer on the same Gram matrices: a menu of the possible ones, and their options.
class ReplayForm {
  constructor(store) {
    this.store = store;
    this.inputs = new Map();
    const changed = () => this.showFields();
    this.mixer = el("select", { class: "rbx-select", test: "mixer", on: { change: changed } });
    this.options = el("div", { class: "rbs-options", test: "options" });
    const kind = "rbx-button rbx-primary rbx-small";
    this.run = el("button", { type: "submit", class: kind, test: "replay-run", text: "Replay" });
    this.clear = button("replay-clear", {
      label: "Remove the replay", text: "Clear", kind: "rbx-small", hidden: true,
      on: () => {
        this.say("");
        store.send({ type: "forget" });
      },
    });
    this.status = el("p", {
      class: "rbs-status", role: "status", "aria-live": "polite", test: "replay-said",
    });
    this.error = el("p", {
      class: "rbx-error", role: "alert", test: "replay-error", hidden: true,
    });
    this.reasons = el("ul", { class: "rbs-reasons", test: "reasons" });
    const summary = el("summary", { text: "Mixers that need more than this run recorded" });
    this.others = el("details", { class: "rbs-others" }, summary, this.reasons);
    const text = "What another mixer would have chosen from the same Gram matrices. Model and "
      + "gradients stay those of the run, so this shows how rules read the same evidence, not "
      + "which would have won.";
    const submit = (event) => {
      event.preventDefault();
      this.ask();
    };
    this.form = el(
      "form", {
        class: "rbs-form", "aria-label": "Replay another mixer", hidden: true, on: { submit },
      },
      el("p", { class: "rbx-hint", text }),
      el(
        "div", { class: "rbs-fields" },
        el("label", { class: "rbs-field" }, el("span", { text: "mixer" }), this.mixer),
        this.options, el("span", { class: "rbs-field rbs-buttons" }, this.run, this.clear),
      ),
      this.status, this.error, this.others,
    );
    this.opener = button("replay-open", {
      label: "Replay another mixer on this run", text: "Replay another mixer", kind: "rbx-small",
      on: () => this.open(this.form.hidden), "aria-expanded": "false",
    });
  }

  open(on) {
    this.form.hidden = !on;
    this.opener.setAttribute("aria-expanded", String(on));
    this.opener.setAttribute("aria-pressed", String(on));
    if (on) this.mixer.focus();
    if (on && !this.store.menu.length) {
      this.say("Asking which mixers can be replayed… (the kernel answers when it is free)");
      this.store.send({ type: "menu" });
    }
  }

  get busy() {
    return this.run.getAttribute("aria-busy") === "true";
  }

  update(changed) {
    if (changed.has("menu")) this.showMenu();
    if (changed.has("replay")) this.clear.hidden = !this.store.replay;
  }

  showMenu() {
    const { menu } = this.store, possible = menu.filter((entry) => !entry.reason);
    if (menu.length) this.say("");
    else if (!this.form.hidden) this.open(true);  // other runs: ask again
    this.mixer.replaceChildren(...menu.map(({ name, reason }) => el("option", {
      value: name, text: name, disabled: Boolean(reason), title: String(reason).slice(0, 400),
    })));
    this.reasons.replaceChildren(...menu.filter((entry) => entry.reason).map((entry) =>
      el("li", {}, el("b", { text: entry.name }), " ", words("span", entry.reason))));
    this.others.hidden = !this.reasons.childElementCount;
    const first = possible.find((entry) => entry.options.length) || possible[0];
    this.run.disabled = !first;
    if (first) this.mixer.value = first.name;
    else this.mixer.selectedIndex = -1;
    this.showFields();
  }

  /** One simple field for each option of the chosen mixer. */
  showFields() {
    const entry = this.store.menu.find((each) => each.name === this.mixer.value);
    this.inputs.clear();
    this.options.replaceChildren(...(entry?.options || []).map((option) => {
      const input = this.inputFor(option);
      this.inputs.set(option.name, { input, option });
      return el("label", { class: "rbs-field" }, el("span", { text: option.name }), input);
    }));
  }

  inputFor({ name, kind, choices, optional, value }) {
    const test = `option-${name}`;
    if (kind === "flag") {
      const input = el("input", { type: "checkbox", test });
      input.checked = Boolean(value);
      return input;
    }
    const input = kind === "choice"
      ? el("select", { class: "rbx-select", test },
        ...choices.map((choice) => el("option", { value: choice, text: choice })))
      : el("input", {
        class: "rbx-input", type: "text", inputmode: "decimal", size: "7", test,
        placeholder: optional ? "none" : "",
      });
    input.value = value ?? "";
    return input;
  }

  values() {
    return Object.fromEntries([...this.inputs].map(([name, { input, option }]) => {
      if (option.kind === "flag") return [name, input.checked];
      if (option.kind === "choice") return [name, input.value];
      const text = input.value.trim(), number = Number(text.replace(",", "."));
      // Python explains what is wrong with a text that is not a number.
      return [name, text === "" || !Number.isFinite(number) ? text : number];
    }));
  }

  say(text, error = false) {
    setText(this.status, error ? "" : text);
    setText(this.error, error ? text : "");
    this.error.hidden = !error;
  }

  async ask() {
    if (this.run.disabled || this.busy) return;
    this.run.setAttribute("aria-busy", "true");
    const busy = "Replaying… (the kernel answers when it is free)";
    const slow = setTimeout(() => this.say(busy), 300);
    const question = { type: "replay", mixer: this.mixer.value, fields: this.values() };
    const reply = await this.store.ask(question);
    clearTimeout(slow);
    this.run.removeAttribute("aria-busy");
    if (reply.type === "error") this.say(String(reply.text), true);
    else this.say(`Replayed in ${figure(reply.seconds, 2)} s.`);
  }
}

// ------------------------------------------------------------------------ the whole

// The scrubber: panels side by side, keys, theme.
class Scrubber {
  constructor(store, root) {
    Object.assign(this, { store, root, panels: [] });
    this.player = new Player(store);
    this.replay = new ReplayForm(store);
    this.player.actions.prepend(this.replay.opener);
    this.message = el("span");
    const dismiss = () => (this.error.hidden = true);
    const close = { label: "Dismiss", name: "close", kind: "rbx-plain", on: dismiss };
    const options = { class: "rbx-error", role: "alert", test: "error", hidden: true };
    this.error = el("div", options, this.message, button("error-close", close));
    this.notices = el("ul", { class: "rbx-notices", test: "notices", "aria-label": "Notices" });
    this.body = el("div", { class: "rbs-body" });
    root.append(this.player.node, this.replay.form, this.error, this.body, this.notices);
    store.parts = [this];
    const own = ["a", "c", "x", "v", "z"];
    this.leave = [
      watchTheme(root, () => this.readTheme()), keepKeys(root, (event) => this.key(event), own),
    ];
    store.touch(...TRAITS);
  }

  /** Panels of the runs: one run fills both columns, two stand side by side. */
  build() {
    const { store } = this, { runs, replay } = store, [a, b] = runs;
    for (const panel of this.panels) panel.dispose?.();
    this.panels = [];
    this.body.classList.toggle("rbs-two", Boolean(b));
    if (!a) return;
    const tall = !b && !replay;  // one run leaves the room that a replay would take
    // Rules without gradients have no matrices: then there is no panel for them.
    const any = runs.some((run) => run.hasGram);
    const grams = any ? runs.map((run) => new GramView(store, run)) : [];
    const mixtures = runs.map((run) => new MixtureView(store, run, {
      height: tall ? 310 : 210, test: `mixture-${run.index}`,
      title: () => (b ? `Proportions, ${run.label}` : "Proportions"),
    }));
    const numbers = new NumbersView(store), losses = new LossView(store, tall ? 330 : 230);
    const replayed = replay ? [this.replayedMixture(a, b), distanceView(store, a)] : [];
    const sides = b
      ? [
        [...grams.slice(0, 1), mixtures[0], ...replayed, losses, lossGapView(store, runs)],
        [...grams.slice(1), mixtures[1], numbers],
      ]
      : grams.length
        ? [[grams[0], numbers], [mixtures[0], ...replayed, losses]]
        : [[mixtures[0], ...replayed, losses], [numbers]];
    this.panels = sides.flat();
    this.body.replaceChildren(...sides.map((side) =>
      el("div", { class: "rbs-side" }, ...side.map((panel) => panel.node))));
  }

  replayedMixture(run, other) {
    const { store } = this, prefix = other ? `${run.label}, replayed: ` : "Replayed: ";
    return new MixtureView(store, run, {
      test: "mixture-replay", title: () => `${prefix}${store.replay?.label}`,
      p: () => store.replay?.p || [], effective: () => store.replay?.effective || [],
    });
  }

  update(changed) {
    const { store, replay } = this, replayed = Boolean(store.replay);
    const rebuilt = changed.has("runs") || (changed.has("replay") && replayed !== this.replayed);
    if (rebuilt) {
      this.replayed = replayed;
      this.build();
    }
    if (changed.has("error")) {
      setText(this.message, store.error);
      this.error.hidden = !replay.form.hidden && replay.busy;  // the form shows it
    }
    if (changed.has("notices")) {
      this.notices.replaceChildren(...store.notices.map((text) =>
        el("li", { class: "rbx-info" }, words("span", text))));
    }
    this.player.update(changed);
    replay.update(changed);
    const news = rebuilt ? new Set([...changed, ...TRAITS]) : changed;
    for (const panel of this.panels) panel.update(news);
  }

  readTheme() {
    const style = getComputedStyle(this.root), of = (name) => style.getPropertyValue(name).trim();
    this.store.theme = {
      ink: of("--ink") || "#1b2530", muted: of("--muted") || "#566270",
      paper: of("--paper") || "#fff", accent: of("--accent"), want: of("--want"),
      font: style.fontFamily, dark: this.root.classList.contains("rbx-dark"),
    };
    this.store.touch("theme");
  }

  /** Arrow keys, Home and End move the rounds wherever they mean nothing else. */
  key(event) {
    const { ctrlKey, metaKey, altKey, defaultPrevented } = event;
    const field = event.target.matches("input, select, textarea, summary");
    if (field || ctrlKey || metaKey || altKey || defaultPrevented) return;
    const { at, stops } = this.store;
    const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: stops.length - 1 };
    if (event.key in moves) this.player.goTo(moves[event.key]);
    else if (event.key === "Escape") this.store.put("selected", -1);
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
  const options = { class: "rbx rbs", "aria-label": "Rounds of a run", test: "scrubber" };
  const root = el("section", options);
  host.append(root);
  const store = new Store(model), scrubber = new Scrubber(store, root);
  root.scrubber = { store, scrubber };  // for tests
  return () => {
    scrubber.dispose();
    root.remove();
  };
}

export default { render };
