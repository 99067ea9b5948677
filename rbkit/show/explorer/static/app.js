// The explorer as a whole: parts side by side, tabs, and keys that stay inside.
class LogPanel {
  constructor(store) {
    this.store = store;
    this.list = el("ol", { class: "rbx-log", test: "log", reversed: true });
    this.undo = button("log-undo", { label: "Undo the last edit", text: "Undo last", name: "undo", kind: "rbx-small", on: () => store.send({ type: "undo" }) });
    this.node = el("div", { class: "rbx-panel" }, el("div", { class: "rbx-panel-head" },
      el("span", { class: "rbx-caption", text: "Every edit is recorded and can be replayed." }), this.undo), el("div", { class: "rbx-scroll", tabindex: "0", role: "region", "aria-label": "Edits" }, this.list));
  }

  update(changed) {
    if (!changed.has("history")) return;
    const { log = [], redo, undo } = this.store.history;
    const lines = log.map((line) => el("li", {}, words("span", String(line).replace(/^\d+\. /, "")))).reverse();
    if (redo) lines.unshift(el("li", { class: "rbx-undone" }, words("span", redo), el("span", { class: "rbx-tag", text: "undone" })));
    this.list.start = log.length + (redo ? 1 : 0);
    this.list.replaceChildren(...lines);
    if (!lines.length) this.list.append(el("li", { class: "rbx-hint rbx-none", text: "No edits yet." }));
    this.undo.setAttribute("aria-disabled", String(!undo));
  }
}

class Explorer {
  constructor(store, root) {
    this.store = store;
    this.root = root;
    this.map = new CorpusMap(store);
    this.toolbar = new Toolbar(store);
    this.legend = new Legend(store, this.map);
    this.status = new StatusLine(store);
    this.panels = { domains: new DomainList(store), selection: new SelectionPanel(store), crosstab: new Crosstab(store), log: new LogPanel(store) };
    const titles = { domains: "Domains", selection: "Selection", crosstab: "Sources", log: "Log" };
    this.serial = store.prefix;
    this.tabs = Object.fromEntries(Object.entries(titles).map(([id, text]) => [id, el("button", {
      type: "button", role: "tab", class: "rbx-tab", id: `rbx-tab-${id}-${this.serial}`, test: `tab-${id}`, "aria-controls": `rbx-panel-${id}-${this.serial}`, on: { click: () => this.open(id) },
    }, el("span", { text }), el("span", { class: "rbx-count-badge" }))]));
    for (const [id, panel] of Object.entries(this.panels)) {
      for (const [name, value] of Object.entries({ role: "tabpanel", id: `rbx-panel-${id}-${this.serial}`, "aria-labelledby": `rbx-tab-${id}-${this.serial}` })) panel.node.setAttribute(name, value);
      panel.node.dataset.test = `panel-${id}`;
    }
    this.tablist = el("div", { class: "rbx-tabs", role: "tablist", "aria-label": "Views", on: { keydown: (event) => this.walk(event) } }, ...Object.values(this.tabs));
    root.append(this.toolbar.node,
      el("div", { class: "rbx-body" },
        el("div", { class: "rbx-left-side" }, this.legend.node, this.map.node),
        el("div", { class: "rbx-side" }, this.tablist, ...Object.values(this.panels).map((panel) => panel.node))),
      this.status.node);
    this.parts = [this.toolbar, this.legend, this.map, this.status, ...Object.values(this.panels), this];
    store.parts = this.parts;
    this.open("domains");
    this.leave = [watchTheme(root, () => this.map.theme()), keepKeys(root, (event) => this.key(event), ["z", "y", "a", "c", "x", "v", "enter"])];
    store.touch(...TRAITS);
  }

  open(id) {
    this.shown = id;
    for (const [name, tab] of Object.entries(this.tabs)) {
      tab.setAttribute("aria-selected", String(name === id));
      tab.tabIndex = name === id ? 0 : -1;
      this.panels[name].node.hidden = name !== id;
      this.panels[name].setVisible?.(name === id);
    }
    this.store.setHover(null);
  }

  walk(event) {
    const ids = Object.keys(this.tabs), at = ids.indexOf(this.shown);
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: ids.length - 1 }[event.key];
    if (next === undefined) return;
    this.open(ids[(next + ids.length) % ids.length]);
    this.tabs[this.shown].focus();
    event.preventDefault();
  }

  /** Undo, redo and Escape. */
  key(event) {
    const command = event.ctrlKey || event.metaKey, typing = event.target.matches("input:not([type=range]):not([type=checkbox]), textarea");
    const letter = event.key.toLowerCase();
    if (command && !typing && (letter === "z" || letter === "y")) {
      this.store.send({ type: letter === "y" || event.shiftKey ? "redo" : "undo" });
      event.preventDefault();
    } else if (event.key === "Escape" && !typing && !event.defaultPrevented) this.store.clear();
  }

  update(changed) {
    const { store, tabs } = this, badge = (id, text) => setText(tabs[id].lastChild, text);
    if (changed.has("domains")) badge("domains", count(store.domains.length));
    if (changed.has("selection")) {
      badge("selection", store.selection.length ? count(store.selection.length) : "");
      if (store.selection.length && !this.hadSelection && this.shown === "domains" && !this.panels.domains.node.contains(document.activeElement)) this.open("selection");
      this.hadSelection = store.selection.length > 0;
    }
    if (changed.has("history")) badge("log", store.history.log?.length ? count(store.history.log.length) : "");
  }

  dispose() {
    for (const leave of this.leave) leave();
    for (const part of this.parts) if (part !== this) part.dispose?.();
    this.store.dispose();
    this.root.replaceChildren();
  }
}

function render({ model, el: host }) {
  const root = el("section", { class: "rbx", "aria-label": "Corpus explorer", test: "explorer" });
  host.append(root);
  const store = new Store(model), explorer = new Explorer(store, root);
  // For tests: where a row is on the map's canvas, and what a lasso cost.
  root.explorer = {
    screen: (row) => explorer.map.view.toScreen(store.xy[2 * row], store.xy[2 * row + 1]),
    get cost() { return { paint: explorer.map.layer.cost, lasso: explorer.map.lassoCost }; },
    store,
  };
  return () => {
    explorer.dispose();
    root.remove();
  };
}

export default { render };
