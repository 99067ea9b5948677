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
