// What all widgets share: elements, numbers, bytes, colours, theme and keys, and the exchange
// with Python. Text of a corpus only ever goes to textContent, title and fillText: it is data,
// never markup.

// ---------------------------------------------------------------------- elements

const SVG = "http://www.w3.org/2000/svg";

const ICONS = {
  undo: ["M5.5 3 2.5 6l3 3", "M3 6h6.5a4 4 0 0 1 0 8H7"],
  redo: ["M10.5 3l3 3-3 3", "M13 6H6.5a4 4 0 0 0 0 8H9"],
  search: ["M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10Z", "M10.7 10.7 14 14"],
  save: ["M8 2v8", "M4.8 7 8 10.2 11.2 7", "M2.5 11v2.5h11V11"],
  plus: ["M8 3v10", "M3 8h10"],
  minus: ["M3 8h10"],
  fit: ["M2.5 6V2.5H6", "M10 2.5h3.5V6", "M13.5 10v3.5H10", "M6 13.5H2.5V10"],
  lasso: [
    "M8 2.5c3.5 0 6 1.7 6 4s-2.5 4-6 4-6-1.7-6-4 2.5-4 6-4Z",
    "M5 10c-1.2.8-1.5 2-.5 2.8.8.7.5 1.5-.5 1.7",
  ],
  hand: [
    "M8 1.8v12.4", "M1.8 8h12.4", "M8 1.8 6.3 3.5", "M8 1.8l1.7 1.7", "M8 14.2l-1.7-1.7",
    "M8 14.2l1.7-1.7", "M1.8 8l1.7-1.7", "M1.8 8l1.7 1.7", "M14.2 8l-1.7-1.7", "M14.2 8l-1.7 1.7",
  ],
  chevron: ["M6 3.5 10.5 8 6 12.5"],
  close: ["M4 4l8 8", "M12 4l-8 8"],
  pencil: ["M3 13l.7-3L11 2.7l2.3 2.3L6 12.3 3 13Z"],
  merge: ["M3 3v2.5C3 8 8 8 8 10.5V14", "M13 3v2.5C13 8 8 8 8 10.5"],
  split: ["M8 2v3.5C8 8 3 8 3 10.5V13", "M8 5.5C8 8 13 8 13 10.5V13"],
  trash: ["M3 4.5h10", "M6.5 4V2.5h3V4", "M4.3 4.5l.6 9h6.2l.6-9", "M6.7 7v4", "M9.3 7v4"],
  sliders: [
    "M2.5 4.5h6", "M12 4.5h1.5", "M2.5 11.5H4", "M7.5 11.5h6",
    "M10.2 6.3a1.8 1.8 0 1 0 0-3.6 1.8 1.8 0 0 0 0 3.6Z",
    "M5.8 13.3a1.8 1.8 0 1 0 0-3.6 1.8 1.8 0 0 0 0 3.6Z",
  ],
  play: ["M5 3v10l8-5Z"],
  pause: ["M5 3v10", "M11 3v10"],
  previous: ["M10.5 3.5 6 8l4.5 4.5"],
  points: [
    "M4 5.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3Z",
    "M11.5 7a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3Z",
    "M7 13.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3Z",
  ],
};

/** Make an element: el("button", {class, text, test, on: {click}, ...attributes}, ...children). */
function el(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(options)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "text") node.textContent = value;
    else if (key === "test") node.dataset.test = value;
    else if (key === "on") {
      for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    } else if (key === "style") {
      for (const [name, v] of Object.entries(value)) node.style.setProperty(name, v);
    } else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", "rbx-icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name].join(""));
  svg.append(path);
  return svg;
}

/** A button with an icon, a text, or both; an icon alone is named by its label. */
function button(test, { label, text, name, kind = "", on, ...rest }) {
  const options = {
    type: "button", class: `rbx-button ${kind}${text ? "" : " rbx-only-icon"}`, test,
    "aria-label": text ? undefined : label, title: label, on: { click: on }, ...rest,
  };
  return el("button", options, name ? icon(name) : null, text ? el("span", { text }) : null);
}

/** Text of the corpus, isolated: right-to-left marks in it cannot reorder what surrounds it. */
function words(tag, text, options = {}) {
  const node = el(tag, { dir: "auto", ...options, class: `rbx-words ${options.class || ""}` });
  setWords(node, text);
  return node;
}

function setWords(node, text, title = true) {
  const value = String(text ?? "");
  setText(node, value);
  if (title) node.title = value.slice(0, 600);
}

/** Set text only where it differs: nothing is announced or laid out again for no change. */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function swatch(colour, options = {}) {
  const style = { "--colour": safeColour(colour) };
  return el("i", { class: "rbx-swatch", "aria-hidden": "true", style, ...options });
}

/** Place a node next to a point in a frame, on the side that has room. */
function standAt(frame, node, x, y, distance) {
  const { clientWidth: width, clientHeight: height } = frame;
  const { offsetWidth: wide, offsetHeight: high } = node;
  const left = x + distance + wide > width ? x - distance - wide : x + distance;
  const top = y + distance + high > height ? y - distance - high : y + distance;
  node.style.left = `${clamp(left, 4, Math.max(4, width - wide - 4))}px`;
  node.style.top = `${clamp(top, 4, Math.max(4, height - high - 4))}px`;
}

// --------------------------------------------------------------- numbers and bytes

const count = (n) => Math.round(n || 0).toLocaleString("en");
const clamp = (x, low, high) => Math.max(low, Math.min(high, x));
const plural = (n, one, many = one + "s") => `${count(n)} ${n === 1 ? one : many}`;

function percent(x) {
  if (x === null || x === undefined || !Number.isFinite(x)) return "–";
  if (x > 0 && x < 0.001) return "<0.1 %";
  return `${(100 * x).toFixed(x < 0.0995 ? 1 : 0)} %`;
}

/** Bytes of a synced trait, whether Python or this page set it. */
function bytesOf(value) {
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  if (!ArrayBuffer.isView(value)) return new Uint8Array(0);
  return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
}

function typed(value, Kind) {
  const bytes = bytesOf(value), size = Kind.BYTES_PER_ELEMENT;
  const length = Math.floor(bytes.byteLength / size);
  // A view into a websocket frame may start anywhere; typed arrays must be aligned.
  if (bytes.byteOffset % size) return new Kind(bytes.slice().buffer, 0, length);
  return new Kind(bytes.buffer, bytes.byteOffset, length);
}

function debounced(wait, fn) {
  let timer = 0;
  const later = (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => fn(...args), wait);
  };
  later.cancel = () => clearTimeout(timer);
  return later;
}

// ------------------------------------------------------------------------ colours

const hexes = (text) => text.split(" ").map((hex) => parse(`#${hex}`));

/** A colour only if it is one: what Python sends may come from a stranger's run folder. */
const safeColour = (colour) => (/^#[0-9a-f]{6}$/i.test(colour) ? colour : "#8c959f");

function safeImage(address) {
  const safe = typeof address === "string" && address.startsWith("data:image/png;base64,");
  return safe ? address : null;
}

/** [r, g, b] of a hexadecimal colour. */
function parse(hex) {
  return [1, 3, 5].map((i) => parseInt(safeColour(hex).slice(i, i + 2), 16));
}

// Viridis up to where it gets too pale for paper: even in lightness, safe for colour-blind eyes.
const RAMP = hexes("440154 482878 3e4989 31688e 26828e 1f9e89 35b779 6ece58 b5de2b dde318");
// Red above 0, blue below, near white at it: ColorBrewer's RdBu, as in the static figures.
const DIVERGING = hexes(
  "053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f",
);

/** The colour of a scale at t in [0, 1], as [r, g, b]. */
function rampColour(t, ramp = RAMP) {
  const x = clamp(t, 0, 1) * (ramp.length - 1), i = Math.min(Math.floor(x), ramp.length - 2);
  return ramp[i].map((low, c) => Math.round(low + (x - i) * (ramp[i + 1][c] - low)));
}

function rampGradient(ramp) {
  return `linear-gradient(90deg,${ramp.map((rgb) => `rgb(${rgb})`).join(",")})`;
}

const pack = ([r, g, b]) => r | (g << 8) | (b << 16);

// ------------------------------------------------------------------ theme and keys

/** Watch the theme: the page's own background tells dark from light, whatever set it. */
function watchTheme(root, changed) {
  const update = () => {
    const numbers = getComputedStyle(root).backgroundColor.match(/[\d.]+/g) || [255, 255, 255];
    const [r, g, b, a = 1] = numbers.map(Number);
    root.classList.toggle("rbx-dark", a > 0 && 0.299 * r + 0.587 * g + 0.114 * b < 128);
    changed();
  };
  const themes = new MutationObserver(() => setTimeout(update, 30));
  const attributeFilter = [
    "class", "style", "data-jp-theme-light", "data-jp-theme-name", "data-theme",
  ];
  for (const node of [document.documentElement, document.body]) {
    themes.observe(node, { attributes: true, attributeFilter });
  }
  const scheme = window.matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", update);
  update();
  requestAnimationFrame(update);  // once the style sheet and the page are there
  return () => {
    themes.disconnect();
    scheme.removeEventListener("change", update);
  };
}

/** Hand keys to `key`; none reach the notebook, where two d's would delete the cell. */
function keepKeys(root, key, own) {
  const forNotebook = (event) =>
    (event.ctrlKey || event.metaKey) && !own.includes(event.key.toLowerCase());
  // Notebook 7 sees keys on their way down, before this element does, and asks the focused node
  // itself: in here its shortcuts are off, except its own such as Ctrl+S.
  const gate = (event) => {
    if (!root.contains(event.target)) return;
    event.target.toggleAttribute("data-lm-suppress-shortcuts", !forNotebook(event));
  };
  window.addEventListener("keydown", gate, true);
  root.addEventListener("keydown", (event) => {
    key(event);
    if (!forNotebook(event)) event.stopPropagation();
  });
  root.addEventListener("keyup", (event) => event.stopPropagation());
  root.addEventListener("keypress", (event) => event.stopPropagation());
  return () => window.removeEventListener("keydown", gate, true);
}

// ------------------------------------------------------------- exchange with Python

// One view's exchange with Python: traits and messages in, questions out. Changes are collected
// and passed to the parts together, once per frame.
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

  /** Note that something changed; the parts are updated together before the next frame. */
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

  /** Ask Python a question; the promise resolves to the reply that carries the same token. */
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
