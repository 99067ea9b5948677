// The line below: what is being computed, how far it is, what went wrong, what should be known.
class StatusLine {
  constructor(store) {
    this.store = store;
    this.text = el("span", { class: "rbx-status-text", role: "status", "aria-live": "polite", test: "status" });
    this.progress = el("progress", { class: "rbx-progress", max: 1, test: "progress", "aria-label": "Progress", hidden: true });
    this.cancel = button("cancel", { label: "Stop this computation", text: "Cancel", kind: "rbx-small", hidden: true, on: () => store.send({ type: "cancel" }) });
    this.message = el("span", { class: "rbx-error-text" });
    this.error = el("div", { class: "rbx-error", role: "alert", test: "error", hidden: true }, this.message,
      button("error-close", { label: "Dismiss", name: "close", kind: "rbx-plain", on: () => { this.error.hidden = true; } }));
    this.notices = el("ul", { class: "rbx-notices", test: "notices", "aria-label": "Notices" });
    this.node = el("footer", { class: "rbx-foot" }, this.error, this.notices, el("div", { class: "rbx-status" }, this.text, this.progress, this.cancel));
  }

  rest() {
    const { store } = this, eval_ = store.n - store.nTrain, chosen = store.selection.length;
    return `${plural(store.nTrain, "example")}${eval_ > 0 ? ` and ${count(eval_)} of the eval set` : ""} in ${plural(store.domains.filter((d) => d.kind !== "noise").length, "domain")}`
      + (chosen ? ` · ${count(chosen)} selected` : "");
  }

  update(changed) {
    const { status } = this.store;
    if (changed.has("status")) {
      // What is done within a blink needs no progress bar.
      clearTimeout(this.soon);
      if (!status.busy) this.busy(false);
      else if (this.progress.hidden) this.soon = setTimeout(() => this.busy(true), 250);
      else this.busy(true);
    }
    if (!status.busy) setText(this.text, status.text || this.rest());
    if (changed.has("error")) {
      setText(this.message, this.store.error);
      this.error.hidden = false;
    }
    if (changed.has("notices")) {
      this.notices.replaceChildren(...this.store.notices.map((notice) => el("li", { class: notice.level === "warn" ? "rbx-warn" : "rbx-info", title: String(notice.text).slice(0, 600) },
        el("b", { class: "rbx-sr", text: notice.level === "warn" ? "Warning: " : "Note: " }), words("span", notice.text))));
    }
  }

  busy(on) {
    const { status } = this.store;
    this.progress.hidden = this.cancel.hidden = !on;
    this.node.closest(".rbx").setAttribute("aria-busy", String(on));
    if (!on) return;
    setText(this.text, status.text || "Working…");
    if (Number.isFinite(status.fraction)) this.progress.value = clamp(status.fraction, 0, 1);
    else this.progress.removeAttribute("value");
  }

  dispose() {
    clearTimeout(this.soon);
  }
}
