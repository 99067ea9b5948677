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
