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
