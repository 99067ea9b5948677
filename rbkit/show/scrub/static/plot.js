// A canvas that is as sharp as the screen, with an axis of steps and a tip beside the pointer.
class Plot {
  constructor(store, { test, label, height, margin, on }) {
    this.store = store;
    this.margin = { left: 40, right: 10, top: 8, bottom: 24, ...margin };
    this.canvas = el("canvas", { class: "rbs-canvas", test, role: "img", "aria-label": label });
    this.tip = el("div", { class: "rbx-tip", role: "tooltip", test: `${test}-tip`, hidden: true });
    this.box = el("div", { class: "rbs-plot", style: { height: `${height}px` } }, this.canvas, this.tip);
    this.canvas.addEventListener("pointermove", (event) => on.move(...this.placeOf(event)));
    this.canvas.addEventListener("pointerleave", () => { this.tip.hidden = true; on.leave(); });
    this.canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      this.canvas.setPointerCapture(event.pointerId);
      this.dragging = true;
      on.press(...this.placeOf(event));
    });
    this.canvas.addEventListener("pointermove", (event) => { if (this.dragging) on.drag?.(...this.placeOf(event)); });
    this.canvas.addEventListener("pointerup", () => { this.dragging = false; });
    this.canvas.addEventListener("pointercancel", () => { this.dragging = false; });
    this.watch = new ResizeObserver(() => store.touch("size"));
    this.watch.observe(this.box);
  }

  dispose() {
    this.watch.disconnect();
  }

  placeOf(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  /** Clear and measure; null while there is nothing to draw on. */
  begin() {
    const width = this.box.clientWidth, height = this.box.clientHeight, dense = window.devicePixelRatio || 1;
    if (!width || !height) return null;
    if (this.canvas.width !== Math.round(width * dense) || this.canvas.height !== Math.round(height * dense)) {
      this.canvas.width = Math.round(width * dense);
      this.canvas.height = Math.round(height * dense);
    }
    const { left, right, top, bottom } = this.margin;
    this.x0 = left;
    this.x1 = width - right;
    this.y0 = top;
    this.y1 = height - bottom;
    const pen = this.canvas.getContext("2d");
    pen.setTransform(dense, 0, 0, dense, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = `11px ${this.store.look.font}`;
    pen.textBaseline = "middle";
    return pen;
  }

  x(step) {
    return this.x0 + (step / this.store.lastStep) * (this.x1 - this.x0);
  }

  stepAt(x) {
    return clamp((x - this.x0) / (this.x1 - this.x0), 0, 1) * this.store.lastStep;
  }

  /** Ticks of steps along the lower edge. */
  steps(pen) {
    const { look, lastStep } = this.store;
    pen.fillStyle = look.muted;
    pen.textAlign = "center";
    const marks = ticks(0, lastStep, Math.max(2, Math.floor((this.x1 - this.x0) / 90)));
    for (const step of marks) {
      const text = count(step), half = pen.measureText(text).width / 2;
      pen.fillText(text, clamp(this.x(step), this.x0 + (step ? half : 0), this.x1 - half), this.y1 + 13);
    }
  }

  /** Ticks of values at the left, with faint lines across. */
  values(pen, low, high, y, text) {
    const { look } = this.store;
    pen.textAlign = "right";
    for (const value of ticks(low, high, Math.max(2, Math.floor((this.y1 - this.y0) / 34)))) {
      pen.globalAlpha = 0.13;
      pen.fillStyle = look.ink;
      pen.fillRect(this.x0, Math.round(y(value)), this.x1 - this.x0, 1);
      pen.globalAlpha = 1;
      pen.fillStyle = look.muted;
      pen.fillText(text(value), this.x0 - 6, y(value));
    }
  }

  /** The line at the step of the slider. */
  cursor(pen) {
    const x = clamp(this.x(this.store.step), this.x0, this.x1);
    pen.fillStyle = this.store.look.ink;
    pen.fillRect(x - 0.75, this.y0 - 5, 1.5, this.y1 - this.y0 + 5);
    pen.beginPath();
    pen.moveTo(x - 4.5, this.y0 - 7);
    pen.lineTo(x + 4.5, this.y0 - 7);
    pen.lineTo(x, this.y0 - 1);
    pen.fill();
  }

  nothing(pen, text) {
    pen.fillStyle = this.store.look.muted;
    pen.textAlign = "center";
    pen.font = `12px ${this.store.look.font}`;
    pen.fillText(text, (this.x0 + this.x1) / 2, (this.y0 + this.y1) / 2);
  }

  /** Show the tip beside a place. */
  say(x, y, ...lines) {
    this.tip.replaceChildren(...lines);
    this.tip.hidden = false;
    standAt(this.box, this.tip, x, y, 14);
  }
}

/** Round numbers from low to high, about n of them. */
function ticks(low, high, n) {
  const span = high - low;
  if (!(span > 0) || !Number.isFinite(span)) return [low];
  const rough = span / n, power = 10 ** Math.floor(Math.log10(rough));
  const unit = [1, 2, 2.5, 5, 10].map((k) => k * power).find((k) => k >= rough * 0.8);
  const found = [];
  for (let value = Math.ceil(low / unit - 1e-9) * unit; value <= high + unit * 1e-9; value += unit) found.push(Math.abs(value) < unit * 1e-6 ? 0 : value);
  return found;
}

/** A line through values by step; gaps where they are not known. */
function trace(pen, xs, ys) {
  pen.beginPath();
  let down = false;
  for (let i = 0; i < xs.length; i++) {
    if (Number.isFinite(ys[i])) {
      if (down) pen.lineTo(xs[i], ys[i]);
      else pen.moveTo(xs[i], ys[i]);
      down = true;
    } else down = false;
  }
  pen.stroke();
}

/** A name on a canvas: one line, cut to its room, and never reordered by what it contains. */
function nameFor(pen, name, room) {
  let text = Array.from(String(name).replace(/[\s\u202a-\u202e\u2066-\u2069\u200e\u200f]+/g, " ").slice(0, 120));
  if (pen.measureText(text.join("")).width <= room) return text.join("");
  while (text.length > 1 && pen.measureText(text.join("") + "…").width > room) text = text.slice(0, Math.max(1, Math.min(text.length - 1, Math.floor(text.length * 0.92))));
  return text.join("").trimEnd() + "…";
}
