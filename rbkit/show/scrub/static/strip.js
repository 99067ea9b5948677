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
