// Names of domains on the map: with a halo, beside a dot of the domain's colour, never on top of each other.
const NAME_ROOM = 160, LINE = 19;
const PER_NAME = 15000;  // pixels of the map for one name: more of them would hide what they name

class Names {
  constructor() {
    this.widths = new Map();
    this.boxes = [];
  }

  /** Cut a name to the room it has; one line, whatever it contains. */
  fit(pen, name) {
    const key = pen.font + "\u0000" + name;
    if (!this.widths.has(key)) {
      if (this.widths.size > 4000) this.widths.clear();
      let text = Array.from(String(name).replace(/\s+/g, " ").slice(0, 200));
      let shown = text.join("");
      while (text.length > 1 && pen.measureText(shown).width > NAME_ROOM) {
        text = text.slice(0, Math.max(1, Math.min(text.length - 1, Math.floor(text.length * 0.93))));
        shown = text.join("").trimEnd() + "…";
      }
      this.widths.set(key, [shown, pen.measureText(shown).width]);
    }
    return this.widths.get(key);
  }

  /** Place and draw; larger domains first, what is hovered or chosen before all. */
  draw(pen, store, view, look) {
    const hovered = store.hover && store.hover.domain;
    const strong = (d) => d.id === hovered || (hovered === undefined && store.chosen.has(d.id));
    const emphasis = store.hover ? hovered !== undefined : store.chosen.size > 0 && !store.selection.length;
    const colourless = (store.colour.mode || "domain") !== "domain";
    const order = store.domains.filter((d) => Number.isFinite(d.x) && (d.kind !== "noise" || strong(d)))
      .sort((a, b) => strong(b) - strong(a) || b.size - a.size);
    this.boxes = [];
    pen.textBaseline = "middle";
    pen.textAlign = "left";
    pen.lineJoin = "round";
    const most = Math.max(6, Math.round((view.width * view.height) / PER_NAME));
    for (const domain of order) {
      if (this.boxes.length >= most && !strong(domain)) break;
      const [x, y] = view.toScreen(domain.x, domain.y);
      if (x < -20 || y < -20 || x > view.width + 20 || y > view.height + 20) continue;
      const loud = strong(domain);
      pen.font = `${domain.kind === "noise" ? "italic " : ""}${loud ? 700 : 600} 12px ${look.font}`;
      const [text, wide] = this.fit(pen, domain.name), dot = colourless ? 0 : 13, width = wide + dot;
      const box = this.place(x, y, width, view, loud);
      if (!box) continue;
      this.boxes.push(box);
      box.id = domain.id;
      pen.globalAlpha = emphasis && !loud ? 0.32 : 1;
      const middle = box.y + LINE / 2;
      pen.strokeStyle = `rgb(${look.paper})`;
      pen.lineWidth = 4;
      pen.strokeText(text, box.x + dot, middle);
      pen.fillStyle = `rgb(${look.ink})`;
      pen.fillText(text, box.x + dot, middle);
      if (dot) {
        pen.beginPath();
        pen.arc(box.x + 4.5, middle, 4.2, 0, 2 * Math.PI);
        pen.lineWidth = 3;
        pen.stroke();
        pen.fillStyle = safeColour(domain.colour);
        pen.fill();
        pen.lineWidth = 1;
        pen.strokeStyle = `rgba(${look.ink},.55)`;
        pen.stroke();
      }
      if (loud) {
        pen.fillStyle = `rgb(${look.ink})`;
        pen.fillRect(box.x + dot, box.y + LINE - 2, wide, 1.5);
      }
    }
    pen.globalAlpha = 1;
  }

  place(x, y, width, view, always) {
    const left = clamp(x - width / 2, 4, Math.max(4, view.width - width - 4));
    for (const shift of [0, -0.7, 0.7, -1.3, 1.3]) {
      const box = { x: left, y: clamp(y - LINE / 2 + shift * LINE, 2, view.height - LINE - 2), width };
      if (always || !this.boxes.some((other) => box.x < other.x + other.width + 8 && other.x < box.x + box.width + 8
        && Math.abs(box.y - other.y) < LINE)) return box;
    }
    return null;
  }

  at(x, y) {
    return this.boxes.find((b) => x >= b.x - 2 && x <= b.x + b.width + 2 && y >= b.y && y <= b.y + LINE) || null;
  }
}
