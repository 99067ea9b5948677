// What a point says: a tip that follows the pointer, and a card that stays after a click.
class Tips {
  constructor(store, frame) {
    this.store = store;
    this.frame = frame;
    this.row = -1;
    this.reading = false;
    this.tip = el("div", { class: "rbx-tip", role: "tooltip", test: "tooltip", hidden: true });
    this.card = el("div", { class: "rbx-pinned", role: "dialog", "aria-label": "Example", test: "pinned", hidden: true });
    frame.append(this.tip, this.card);
  }

  /** Show the tip of a row at a place; its text follows when Python has sent it. */
  hover(row, x, y) {
    if (row !== this.row) {
      this.row = row;
      this.tip.hidden = row < 0;
      this.store.under = row < 0 ? undefined : this.store.labels[row];
      this.store.touch("under");
      if (row >= 0) {
        this.fill();
        this.read();
      }
    }
    this.at = [x, y];
    if (row >= 0) standAt(this.frame, this.tip, x, y, 14);
  }

  fill() {
    const item = this.store.texts.get(this.row);
    this.tip.replaceChildren(...[
      item ? picture(item.image, "rbx-large") : null,
      item ? words("div", item.text, { class: "rbx-text rbx-clipped" }) : el("div", { class: "rbx-text rbx-hint", text: "…" }),
      whereabouts(this.store, { row: this.row, ...(item || {}) }),
    ].filter(Boolean));
  }

  /** One question under way at most; when it is answered, the row hovered by then is asked for. */
  async read() {
    if (this.reading || this.row < 0 || this.store.texts.has(this.row)) return;
    this.reading = true;
    const asked = this.row;
    await Promise.race([this.store.read([asked]), new Promise((resolve) => setTimeout(resolve, PATIENCE))]);
    this.reading = false;
    if (this.row === asked) {
      this.fill();
      standAt(this.frame, this.tip, ...this.at, 14);
    } else this.read();
  }

  async pin(row, x, y) {
    this.hover(-1);
    this.pinned = row;
    const [item] = await this.store.read([row]);
    if (this.pinned !== row) return;
    const domain = this.store.domainOf(row);
    const close = button("pinned-close", { label: "Close", name: "close", kind: "rbx-plain", on: () => this.unpin() });
    this.card.replaceChildren(...[
      el("div", { class: "rbx-pinned-head" }, whereabouts(this.store, { row, ...(item || {}) }), close),
      item ? picture(item.image, "rbx-large") : null,
      words("div", item ? item.text : "", { class: "rbx-text rbx-whole", tabindex: "0" }),
      domain ? button("pinned-domain", { label: "Select this domain", text: "Select its domain", kind: "rbx-small",
        on: () => this.store.choose([domain.id]) }) : null,
    ].filter(Boolean));
    this.card.querySelector(".rbx-whole").removeAttribute("title");
    this.card.hidden = false;
    this.store.pinned = row;
    this.store.touch("marked");
    standAt(this.frame, this.card, x, y, 12);
  }

  unpin() {
    if (this.card.hidden) return false;
    if (this.card.contains(document.activeElement)) this.frame.querySelector("[tabindex]").focus();
    this.card.hidden = true;
    this.pinned = this.store.pinned = -1;
    this.store.touch("marked");
    return true;
  }
}
