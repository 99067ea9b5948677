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
