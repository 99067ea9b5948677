// Another mixer on the same Gram matrices: a menu of those that the record can serve, and their options.
class ReplayForm {
  constructor(store) {
    this.store = store;
    this.mixer = el("select", { class: "rbx-select", test: "mixer", on: { change: () => this.fields() } });
    this.inputs = new Map();
    this.options = el("div", { class: "rbs-options", test: "options" });
    this.run = el("button", { type: "submit", class: "rbx-button rbx-primary rbx-small", test: "replay-run", text: "Replay" });
    this.clear = button("replay-clear", { label: "Take the replay away", text: "Clear", kind: "rbx-small", hidden: true, on: () => { this.say(""); store.send({ type: "forget" }); } });
    this.said = el("p", { class: "rbs-said", role: "status", "aria-live": "polite", test: "replay-said" });
    this.error = el("p", { class: "rbx-error", role: "alert", test: "replay-error", hidden: true });
    this.reasons = el("ul", { class: "rbs-reasons", test: "reasons" });
    this.others = el("details", { class: "rbs-others" }, el("summary", { text: "Mixers that this record cannot serve" }), this.reasons);
    this.form = el("form", { class: "rbs-form", "aria-label": "Replay another mixer", hidden: true, on: { submit: (event) => { event.preventDefault(); this.ask(); } } },
      el("p", { class: "rbx-hint", text: "What another mixer would have chosen from the same Gram matrices. Model and gradients stay those of the run, so this shows how rules read the same evidence, not which would have won." }),
      el("div", { class: "rbs-fields" }, el("label", { class: "rbs-field" }, el("span", { text: "mixer" }), this.mixer), this.options, el("span", { class: "rbs-field rbs-buttons" }, this.run, this.clear)),
      this.said, this.error, this.others);
    this.opener = button("replay-open", { label: "Replay another mixer on this run", text: "Replay another mixer", kind: "rbx-small", on: () => this.open(this.form.hidden), "aria-expanded": "false" });
    this.node = this.form;
  }

  open(on) {
    this.form.hidden = !on;
    this.opener.setAttribute("aria-expanded", String(on));
    this.opener.setAttribute("aria-pressed", String(on));
    if (on) this.mixer.focus();
    if (on && !this.store.menu.length) {
      this.say("Asking which mixers this record can serve… (the kernel answers when it is free)");
      this.store.send({ type: "menu" });
    }
  }

  update(changed) {
    const { menu, replay } = this.store;
    if (changed.has("menu")) {
      if (menu.length) this.say("");
      else if (!this.form.hidden) this.open(true);  // other runs
      this.mixer.replaceChildren(...menu.map((entry) => el("option", { value: entry.name, text: entry.name, disabled: Boolean(entry.reason), title: String(entry.reason).slice(0, 400) })));
      this.reasons.replaceChildren(...menu.filter((entry) => entry.reason).map((entry) => el("li", {}, el("b", { text: entry.name }), " ", words("span", entry.reason))));
      this.others.hidden = !this.reasons.childElementCount;
      const can = menu.find((entry) => !entry.reason && entry.options.length) || menu.find((entry) => !entry.reason);
      this.run.disabled = !can;
      if (can) this.mixer.value = can.name;
      else this.mixer.selectedIndex = -1;
      this.fields();
    }
    if (changed.has("replay")) this.clear.hidden = !replay;
  }

  /** One simple field for each option of the chosen mixer. */
  fields() {
    const entry = this.store.menu.find((each) => each.name === this.mixer.value);
    this.inputs.clear();
    this.options.replaceChildren(...(entry ? entry.options : []).map((option) => {
      const test = `option-${option.name}`;
      let input;
      if (option.kind === "choice") input = el("select", { class: "rbx-select", test }, ...option.choices.map((choice) => el("option", { value: choice, text: choice })));
      else if (option.kind === "flag") input = el("input", { type: "checkbox", test });
      else input = el("input", { class: "rbx-input", type: "text", inputmode: "decimal", size: "7", test, placeholder: option.optional ? "none" : "" });
      if (option.kind === "flag") input.checked = Boolean(option.value);
      else input.value = option.value ?? "";
      this.inputs.set(option.name, { input, option });
      return el("label", { class: "rbs-field" }, el("span", { text: option.name }), input);
    }));
  }

  values() {
    const found = {};
    for (const [name, { input, option }] of this.inputs) {
      const text = input.value.trim().replace(",", ".");
      if (option.kind === "flag") found[name] = input.checked;
      else if (option.kind === "choice") found[name] = input.value;
      else found[name] = text === "" || !Number.isFinite(Number(text)) ? input.value.trim() : Number(text);  // Python says what is wrong
    }
    return found;
  }

  say(text, error = false) {
    setText(this.said, error ? "" : text);
    setText(this.error, error ? text : "");
    this.error.hidden = !error;
  }

  async ask() {
    if (this.run.disabled || this.run.getAttribute("aria-busy") === "true") return;
    this.run.setAttribute("aria-busy", "true");
    const slow = setTimeout(() => this.say("Replaying… (the kernel answers when it is free)"), 300);
    const reply = await this.store.ask({ type: "replay", mixer: this.mixer.value, fields: this.values() });
    clearTimeout(slow);
    this.run.removeAttribute("aria-busy");
    if (reply.type === "error") this.say(String(reply.text), true);
    else this.say(`Replayed in ${figure(reply.seconds, 2)} s.`);
  }
}
