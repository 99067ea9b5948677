// How the corpus is cut: the method, its slider, and what happens to noise.
const METHODS = { ward: "Ward hierarchy", kmeans: "k-means", hdbscan: "HDBSCAN", sources: "source labels", hand: "edited by hand" };
const PAUSE = 350;  // ms after the last key before a cut is made
const POLICIES = { nearest: "join the nearest domain", own: "make a domain of their own", drop: "are left out" };

class CutControls {
  constructor(store) {
    this.store = store;
    this.method = el("select", { class: "rbx-select", test: "method", "aria-label": "Method", title: "How the corpus is cut", on: { change: () => this.choose() } });
    this.slider = el("input", { type: "range", test: "k", min: 2, max: 30, step: 1, "aria-label": "Number of domains",
      on: { input: () => this.slide(), change: () => this.settleSoon(this.held ? 0 : PAUSE),
        pointerdown: () => { this.held = true; }, keydown: () => { this.held = false; }, blur: () => this.settleNow() } });
    this.number = el("input", { type: "number", class: "rbx-input rbx-count", test: "k-number", min: 2, step: 1, "aria-label": "Number of domains",
      on: { change: () => { this.slider.value = this.number.value; this.slide(); this.settleSoon(PAUSE); }, blur: () => this.settleNow() } });
    this.advice = el("button", { type: "button", class: "rbx-link rbx-advice", test: "recommended", on: { click: () => this.store.operate({ op: "cut", method: this.cutMethod(), k: this.store.controls.recommended.k }) } });
    this.tick = el("i", { class: "rbx-tick", "aria-hidden": "true" });
    this.refine = button("refine", { label: "Refine the cut with k-means from these centres", text: "Refine", kind: "rbx-small", on: () => store.operate({ op: "refine" }) });
    this.kPart = el("div", { class: "rbx-part" }, el("span", { class: "rbx-caption", text: "domains" }),
      el("span", { class: "rbx-track" }, this.slider, this.tick), this.number, this.advice, this.refine);

    this.sizes = el("input", { type: "range", test: "min-cluster-size", min: 0, max: 100, step: 1, "aria-label": "Smallest cluster",
      on: { input: () => this.slideSize(), change: () => this.settleSize() } });
    this.size = el("input", { type: "number", class: "rbx-input rbx-count", test: "min-cluster-size-number", min: 2, step: 1, "aria-label": "Smallest cluster, in examples",
      on: { change: () => this.settleSize() } });
    this.dense = el("input", { type: "number", class: "rbx-input rbx-count", test: "min-samples", min: 1, step: 1, "aria-label": "Neighbours that make an example dense (min_samples)",
      title: "Neighbours that make an example dense: more of them make more outliers (min_samples)", on: { change: () => this.settleDense() } });
    this.policy = el("select", { class: "rbx-select", test: "noise", "aria-label": "Outliers", on: { change: () => this.settleNoise() } },
      ...Object.entries(POLICIES).map(([value, text]) => el("option", { value, text })));
    this.most = el("input", { type: "number", class: "rbx-input rbx-count", test: "max-noise", min: 0, max: 100, step: 1, placeholder: "any", "aria-label": "At most this share of outliers, in percent",
      on: { change: () => this.settleNoise() } });
    this.noiseText = el("span", { class: "rbx-hint rbx-noise-text", test: "noise-text" });
    this.sizePart = el("div", { class: "rbx-part" }, el("span", { class: "rbx-caption", text: "smallest" }), this.sizes, this.size,
      el("span", { class: "rbx-caption", text: "density" }), this.dense);
    this.noisePart = el("div", { class: "rbx-part rbx-noise" }, el("span", { class: "rbx-caption", text: "outliers" }), this.policy,
      el("span", { class: "rbx-caption", text: "at most" }), this.most, el("span", { class: "rbx-caption", text: "%" }), this.noiseText);
    this.node = el("div", { class: "rbx-cut", role: "group", "aria-label": "Cut" }, this.method, this.kPart, this.sizePart, this.noisePart);
  }

  cutMethod() {
    return this.store.controls.method === "kmeans" ? "kmeans" : "ward";
  }

  choose() {
    const method = this.method.value, { k, min_cluster_size: size } = this.store.controls;
    const op = { op: "cut", method };
    if (method === "hdbscan") op.min_cluster_size = size;
    else if (method !== "sources") op.k = k;
    this.store.operate(op);
  }

  slide() {
    this.number.value = this.slider.value;
    this.slider.setAttribute("aria-valuetext", `${this.slider.value} domains`);
    this.sliding = true;
    if (this.cutMethod() === "ward") this.later(+this.slider.value);
  }

  later(k) {
    this.wanted = k;
    if (this.waiting) return;
    this.waiting = setTimeout(() => { this.waiting = 0; if (this.sliding) this.store.cutLive(this.wanted); }, 30);
  }

  /** Keys change a slider step by step: they make one operation, once they rest. */
  settleSoon(wait) {
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.settle(), wait);
  }

  settleNow() {
    this.held = false;
    if (this.resting) this.settle();
  }

  settle() {
    clearTimeout(this.resting);
    this.resting = 0;
    this.sliding = false;
    clearTimeout(this.waiting);
    this.waiting = 0;
    const k = clamp(Math.round(+this.slider.value) || 2, +this.slider.min, +this.slider.max);
    this.number.value = this.slider.value = k;
    this.expected = { k, until: Date.now() + PATIENCE };
    clearTimeout(this.truth);
    this.truth = setTimeout(() => this.store.touch("controls"), PATIENCE + 50);
    this.store.operate({ op: "cut", method: this.cutMethod(), k });
  }

  // The slider of sizes is logarithmic: between 5 and 10 there is as much to see as between 500 and 1,000.
  toSize(t) {
    const most = Math.max(3, this.store.controls.size_max || 500);
    return Math.round(2 * Math.pow(most / 2, t / 100));
  }

  toSlider(size) {
    const most = Math.max(3, this.store.controls.size_max || 500);
    return Math.round((100 * Math.log(Math.max(size, 2) / 2)) / Math.log(most / 2));
  }

  slideSize() {
    this.size.value = this.toSize(+this.sizes.value);
    this.sizes.setAttribute("aria-valuetext", `at least ${this.size.value} examples`);
    this.sliding = true;
  }

  settleSize() {
    this.sliding = false;
    const size = Math.max(2, Math.round(+this.size.value) || 2);
    this.sizes.value = this.toSlider(size);
    this.store.operate({ op: "cut", method: "hdbscan", min_cluster_size: size });
  }

  settleDense() {
    const samples = Math.max(1, Math.round(+this.dense.value) || 10);
    this.store.operate({ op: "cut", method: "hdbscan", min_cluster_size: this.store.controls.min_cluster_size, min_samples: samples });
  }

  settleNoise() {
    const most = this.most.value === "" ? null : clamp(+this.most.value, 0, 100) / 100;
    this.store.operate({ op: "noise", policy: this.policy.value, max_noise: most });
  }

  update(changed) {
    if (!changed.has("controls")) return;
    const c = this.store.controls, methods = [...(c.methods || [])];
    if (c.method && !methods.includes(c.method)) methods.push(c.method);
    const known = [...this.method.options].map((o) => o.value);
    if (known.join() !== methods.join()) {
      this.method.replaceChildren(...methods.map((value) => el("option", { value, text: METHODS[value] || value, disabled: value === "hand" })));
    }
    this.method.value = c.method;
    const dense = c.method === "hdbscan";
    this.kPart.hidden = dense || c.method === "sources";
    this.sizePart.hidden = !dense;
    this.noisePart.hidden = !dense && !(c.noise_share > 0);
    this.node.classList.toggle("rbx-long", !this.noisePart.hidden);
    this.refine.hidden = c.method !== "ward";
    this.slider.max = this.number.max = Math.max(2, c.k_max || 30);
    // The answer to an earlier step must not push back the slider under the hand.
    const late = this.expected && c.k !== this.expected.k && Date.now() < this.expected.until;
    if (!this.sliding && !late) {
      this.expected = null;
      this.slider.value = this.number.value = c.k ?? 2;
      this.slider.setAttribute("aria-valuetext", `${c.k} domains`);
      this.size.value = c.min_cluster_size ?? "";
      this.sizes.value = this.toSlider(c.min_cluster_size ?? 2);
    }
    if (document.activeElement !== this.dense) this.dense.value = c.min_samples ?? 10;
    this.policy.value = c.noise || "nearest";
    if (document.activeElement !== this.most) this.most.value = c.max_noise === null || c.max_noise === undefined ? "" : Math.round(100 * c.max_noise);
    setText(this.noiseText, c.noise_text || "");
    this.noiseText.title = c.noise_text || "";
    const tip = c.recommended;
    this.advice.hidden = this.tick.hidden = !tip;
    if (tip) {
      setText(this.advice, tip.k === c.k ? "as advised" : `advised: ${tip.k}`);
      this.advice.title = tip.text || "";
      this.tick.title = tip.text || "";
      this.tick.style.setProperty("--at", (tip.k - 2) / Math.max(1, this.slider.max - 2));
    }
  }

  dispose() {
    clearTimeout(this.truth);
    clearTimeout(this.waiting);
    clearTimeout(this.resting);
  }
}
