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
