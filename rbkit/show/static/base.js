// Small things that all parts of the widgets share.
// Text of a corpus only ever goes to textContent, title and fillText: it is data, never markup.
const SVG = "http://www.w3.org/2000/svg";

const ICONS = {
  undo: "M5.5 3 2.5 6l3 3M3 6h6.5a4 4 0 0 1 0 8H7",
  redo: "M10.5 3l3 3-3 3M13 6H6.5a4 4 0 0 0 0 8H9",
  search: "M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10ZM10.7 10.7 14 14",
  save: "M8 2v8M4.8 7 8 10.2 11.2 7M2.5 11v2.5h11V11",
  plus: "M8 3v10M3 8h10",
  minus: "M3 8h10",
  fit: "M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10",
  lasso: "M8 2.5c3.5 0 6 1.7 6 4s-2.5 4-6 4-6-1.7-6-4 2.5-4 6-4ZM5 10c-1.2.8-1.5 2-.5 2.8.8.7.5 1.5-.5 1.7",
  hand: "M8 1.8v12.4M1.8 8h12.4M8 1.8 6.3 3.5M8 1.8l1.7 1.7M8 14.2l-1.7-1.7M8 14.2l1.7-1.7M1.8 8l1.7-1.7M1.8 8l1.7 1.7M14.2 8l-1.7-1.7M14.2 8l-1.7 1.7",
  chevron: "M6 3.5 10.5 8 6 12.5",
  close: "M4 4l8 8M12 4l-8 8",
  pencil: "M3 13l.7-3L11 2.7l2.3 2.3L6 12.3 3 13Z",
  merge: "M3 3v2.5C3 8 8 8 8 10.5V14M13 3v2.5C13 8 8 8 8 10.5",
  split: "M8 2v3.5C8 8 3 8 3 10.5V13M8 5.5C8 8 13 8 13 10.5V13",
  trash: "M3 4.5h10M6.5 4V2.5h3V4M4.3 4.5l.6 9h6.2l.6-9M6.7 7v4M9.3 7v4",
  sliders: "M2.5 4.5h6M12 4.5h1.5M2.5 11.5H4M7.5 11.5h6M10.2 6.3a1.8 1.8 0 1 0 0-3.6 1.8 1.8 0 0 0 0 3.6ZM5.8 13.3a1.8 1.8 0 1 0 0-3.6 1.8 1.8 0 0 0 0 3.6Z",
  play: "M5 3v10l8-5Z",
  pause: "M5 3v10M11 3v10",
  previous: "M10.5 3.5 6 8l4.5 4.5",
  points: "M4 5.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3ZM11.5 7a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3ZM7 13.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3Z",
};

/** Make an element: el("button", {class, text, test, on: {click}, ...attributes}, ...children). */
function el(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(options)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "text") node.textContent = value;
    else if (key === "test") node.dataset.test = value;
    else if (key === "on") for (const [name, fn] of Object.entries(value)) node.addEventListener(name, fn);
    else if (key === "style") for (const [name, v] of Object.entries(value)) node.style.setProperty(name, v);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function icon(name) {
  const svg = document.createElementNS(SVG, "svg"), path = document.createElementNS(SVG, "path");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", "rbx-icon");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** A button with an icon, a text, or both; an icon alone is named by its label. */
function button(test, { label, text, name, kind = "", on, ...rest }) {
  return el("button", {
    type: "button", class: `rbx-button ${kind}${text ? "" : " rbx-only-icon"}`, test, "aria-label": text ? undefined : label,
    title: label, on: { click: on }, ...rest,
  }, name ? icon(name) : null, text ? el("span", { text }) : null);
}

/** Words that came with the corpus: isolated, so that right-to-left marks cannot reorder what stands around. */
function words(tag, text, options = {}) {
  const node = el(tag, { dir: "auto", ...options, class: `rbx-words ${options.class || ""}` });
  setWords(node, text);
  return node;
}

function setWords(node, text, title = true) {
  const value = String(text ?? "");
  if (node.textContent !== value) node.textContent = value;
  if (title) node.title = value.slice(0, 600);
}

/** Set text only where it differs: nothing is announced or laid out again for no change. */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function swatch(colour, options = {}) {
  return el("i", { class: "rbx-swatch", "aria-hidden": "true", style: { "--colour": safeColour(colour) }, ...options });
}

/** A colour only if it is one: what comes from Python may come from a stranger's run folder. */
function safeColour(colour) {
  return /^#[0-9a-f]{6}$/i.test(colour) ? colour : "#8c959f";
}

function safeImage(address) {
  return typeof address === "string" && address.startsWith("data:image/png;base64,") ? address : null;
}

const count = (n) => Math.round(n || 0).toLocaleString("en");
const clamp = (x, low, high) => Math.max(low, Math.min(high, x));
const plural = (n, one, many = one + "s") => `${count(n)} ${n === 1 ? one : many}`;

function percent(x) {
  if (x === null || x === undefined || !Number.isFinite(x)) return "–";
  if (x > 0 && x < 0.001) return "<0.1 %";
  return `${(100 * x).toFixed(x < 0.0995 ? 1 : 0)} %`;
}

/** Bytes of a synced trait, as the wire or this page gave them. */
function bytesOf(value) {
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  return new Uint8Array(0);
}

function typed(value, Kind) {
  const bytes = bytesOf(value), length = Math.floor(bytes.byteLength / Kind.BYTES_PER_ELEMENT);
  // A view into a websocket frame starts where it likes; typed arrays want alignment.
  if (bytes.byteOffset % Kind.BYTES_PER_ELEMENT) return new Kind(bytes.slice().buffer, 0, length);
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

/** Stand beside a place in a frame, on the side where there is room. */
function standAt(frame, node, x, y, away) {
  const { clientWidth: width, clientHeight: height } = frame;
  const left = x + away + node.offsetWidth > width ? x - away - node.offsetWidth : x + away;
  const top = y + away + node.offsetHeight > height ? y - away - node.offsetHeight : y + away;
  node.style.left = `${clamp(left, 4, Math.max(4, width - node.offsetWidth - 4))}px`;
  node.style.top = `${clamp(top, 4, Math.max(4, height - node.offsetHeight - 4))}px`;
}
