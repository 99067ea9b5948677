// One view's side of the talk with Python: traits and messages in, questions out. Changes are
// collected and told to the parts together, once per frame.
class Conversation {
  constructor(model) {
    this.model = model;
    this.parts = [];
    this.leave = [];
    this.changed = new Set();
    this.asked = new Map();
    this.prefix = Math.random().toString(36).slice(2, 8);
    this.serial = 0;
    this.frame = 0;
  }

  listen(event, fn) {
    this.model.on(event, fn);
    this.leave.push(() => this.model.off(event, fn));
  }

  dispose() {
    cancelAnimationFrame(this.frame);
    for (const leave of this.leave) leave();
    this.parts = [];
  }

  /** Say that something changed; the parts hear of it together before the next frame. */
  touch(...names) {
    for (const name of names) this.changed.add(name);
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      const changed = this.changed;
      this.changed = new Set();
      for (const part of this.parts) part.update(changed);
    });
  }

  setHover(hover) {
    if (JSON.stringify(hover) === JSON.stringify(this.hover)) return;
    this.hover = hover;
    this.touch("hover");
  }

  send(message) {
    this.model.send(message);
  }

  /** Ask Python something; the promise gives the reply with the same token. */
  ask(message) {
    const token = `${this.prefix}-${++this.serial}`;
    return new Promise((resolve) => {
      this.asked.set(token, resolve);
      this.send({ ...message, token });
    });
  }

  hear(message, buffers) {
    if (!message) return;
    if (message.token && this.asked.has(message.token)) {
      this.asked.get(message.token)({ ...message, buffers });
      this.asked.delete(message.token);
    }
    if (message.type === "error") {
      this.error = String(message.text || "Something went wrong.");
      this.touch("error");
    }
  }
}
