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
