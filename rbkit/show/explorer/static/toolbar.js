// The line above the map: title, the cut, undo and redo, search, the map's parameters, export.
class Toolbar {
  constructor(store) {
    this.store = store;
    this.cut = new CutControls(store);
    this.title = words("span", "", { class: "rbx-title" });
    this.undo = button("undo", { label: "Nothing to undo", name: "undo", on: () => store.send({ type: "undo" }) });
    this.redo = button("redo", { label: "Nothing to redo", name: "redo", on: () => store.send({ type: "redo" }) });
    this.buildSearch();
    this.buildMap();
    this.buildExport();
    this.node = el("header", { class: "rbx-bar" },
      el("div", { class: "rbx-brand" }, el("span", { class: "rbx-logo", "aria-hidden": "true" }, ...Array.from({ length: 9 }, () => el("i"))), this.title),
      this.cut.node,
      el("div", { class: "rbx-actions" }, el("div", { class: "rbx-pair" }, this.undo, this.redo), this.searchBox, this.mapForm.node, this.exportForm.node));
  }

  buildSearch() {
    this.query = el("input", { type: "search", class: "rbx-input rbx-query", test: "search", placeholder: "Search texts", "aria-label": "Search the texts", dir: "auto",
      on: { input: () => this.searchSoon(), keydown: (event) => {
        if (event.key === "Enter") this.search();
        if (event.key === "Escape" && this.query.value) { this.query.value = ""; this.search(); event.stopPropagation(); }
      } } });
    this.found = el("output", { class: "rbx-found", test: "found" });
    this.searchBox = el("div", { class: "rbx-search", role: "search" }, icon("search"), this.query, this.found);
    this.searchSoon = debounced(350, () => this.search());
  }

  async search() {
    this.searchSoon.cancel();
    const query = this.query.value.trim();
    if (query === this.searched) return;
    if (this.searching) return;  // the last query typed follows when this one is answered
    this.searched = query;
    if (!query) {
      this.found.textContent = "";
      if (this.store.selection.length) this.store.select(new Uint32Array(0));
      return;
    }
    this.searching = true;
    this.found.textContent = "…";
    const reply = await Promise.race([this.store.ask({ type: "search", query }), new Promise((resolve) => setTimeout(() => resolve(null), 20000))]);
    this.searching = false;
    if (this.query.value.trim() !== query) this.search();
    else this.found.textContent = reply ? `${count(reply.count)} found` : "";
  }

  buildMap() {
    const { store } = this;
    const range = (test, label, min, max, step) => el("input", { type: "range", test, "aria-label": label, min, max, step });
    this.neighbours = range("n-neighbors", "Neighbours", 2, 100, 1);
    this.distance = range("min-dist", "Smallest distance", 0, 0.99, 0.01);
    const shown = [this.neighbours, this.distance].map((input) => {
      const out = el("output", { class: "rbx-number" });
      input.addEventListener("input", () => { out.textContent = input.value; });
      return out;
    });
    this.mapShown = shown;
    const draw = button("map-run", { label: "Compute the map anew with UMAP", text: "Compute the map", kind: "rbx-primary",
      on: () => { store.send({ type: "map", n_neighbors: +this.neighbours.value, min_dist: +this.distance.value }); this.mapForm.close(); } });
    this.mapForm = popover(button("map-open", { label: "Parameters of the map (UMAP)", text: "Map", name: "sliders" }), "The map (UMAP)",
      field("Neighbours", this.neighbours, shown[0]), field("Smallest distance", this.distance, shown[1]),
      el("p", { class: "rbx-hint", text: "The map is for looking: domains are cut from the vectors, so they stay as they are. Sizes and distances between groups on the map mean little." }), draw);
  }

  buildExport() {
    const { store } = this;
    this.folder = el("input", { type: "text", class: "rbx-input", test: "export-folder", value: "domains", spellcheck: "false",
      on: { keydown: (event) => { if (event.key === "Enter") run(); } } });
    this.outcome = el("div", { class: "rbx-outcome", role: "status", test: "export-result" });
    const run = async () => {
      const folder = this.folder.value.trim();
      if (!folder) return this.folder.focus();
      this.outcome.replaceChildren(el("span", { class: "rbx-hint", text: "Writing…" }));
      const reply = await store.ask({ type: "export", folder });
      this.outcome.replaceChildren();
      if (reply.type === "exported") {
        this.outcome.append(el("b", { text: "Written" }), words("code", reply.folder),
          el("ul", {}, ...(reply.files || []).map((file) => el("li", {}, words("code", file)))));
      } else this.outcome.append(el("span", { text: String(reply.text || "") }));
    };
    this.exportForm = popover(button("export-open", { label: "Export the domains", text: "Export", name: "save", kind: "rbx-primary" }), "Export the domains",
      field("Folder", this.folder), el("p", { class: "rbx-hint", text: "Labels, centres, names, sampling weights and the log of edits, ready to train on." }),
      button("export-run", { label: "Write the domains into this folder", text: "Write", kind: "rbx-primary", on: run }), this.outcome);
  }

  update(changed) {
    if (changed.has("error")) this.cut.expected = null;
    this.cut.update(changed);
    if (changed.has("title")) setWords(this.title, this.store.title || "Corpus explorer");
    if (changed.has("history")) {
      for (const [kind, node, keys] of [["undo", this.undo, "Ctrl+Z"], ["redo", this.redo, "Ctrl+Shift+Z"]]) {
        const what = this.store.history[kind], label = what ? `${kind === "undo" ? "Undo" : "Redo"}: ${what}` : `Nothing to ${kind}`;
        node.setAttribute("aria-disabled", String(!what));
        node.setAttribute("aria-label", label);
        node.title = what ? `${label} (${keys})` : label;
      }
    }
    if (changed.has("controls") && document.activeElement !== this.neighbours && document.activeElement !== this.distance) {
      const { n_neighbors: near, min_dist: gap } = this.store.controls;
      this.neighbours.value = near ?? 15;
      this.distance.value = gap ?? 0.1;
      this.mapShown[0].textContent = this.neighbours.value;
      this.mapShown[1].textContent = this.distance.value;
    }
    if (changed.has("error") && this.outcome.textContent === "Writing…") this.outcome.replaceChildren();
  }

  dispose() {
    this.searchSoon.cancel();
    this.cut.dispose();
    this.mapForm.dispose();
    this.exportForm.dispose();
  }
}
