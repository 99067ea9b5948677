// One example to read: its text, where it comes from, how far from its domain's centre.

function picture(address, size) {
  const safe = safeImage(address);
  return safe ? el("img", { class: `rbx-picture ${size}`, src: safe, alt: "", loading: "lazy" }) : null;
}

/** Domain and source of a row, as they are now (the text was read some time ago). */
function whereabouts(store, item) {
  const domain = item.row === undefined ? null : store.domainOf(item.row), source = store.sourceOf(item.row);
  const line = el("div", { class: "rbx-where" });
  if (item.row !== undefined) {
    line.append(el("span", { class: "rbx-isolate" }, swatch(domain ? domain.colour : ""),
      words("b", domain ? domain.name : "in no domain")));
  }
  const origin = source ? source.name : item.source;
  if (origin) line.append(words("span", origin, { class: "rbx-origin" }));
  if (Number.isFinite(item.distance)) {
    line.append(el("span", { class: "rbx-number", text: `distance ${item.distance.toFixed(2)}`, title: "to the centre of its domain" }));
  }
  if (item.row >= store.nTrain) line.append(el("span", { class: "rbx-tag", text: "eval", title: "An example of the eval set" }));
  return line;
}

/** A list item with the text clipped to some lines; a button shows all of it where it is longer. */
function exampleItem(store, item) {
  const text = words("div", item.text || "", { class: "rbx-text rbx-clipped" });
  text.removeAttribute("title");
  const more = el("button", { type: "button", class: "rbx-link", test: "example-more", "aria-expanded": "false", text: "show more" });
  more.addEventListener("click", () => {
    const whole = !text.classList.toggle("rbx-clipped");
    more.setAttribute("aria-expanded", String(whole));
    more.textContent = whole ? "show less" : "show more";
  });
  const long = (item.text || "").length > 260 || (item.text || "").split("\n").length > 4;
  const node = el("li", { class: "rbx-example", test: "example" },
    picture(item.image, "rbx-middle"), el("div", { class: "rbx-grow" }, text, long ? more : null,
      item.row === undefined ? null : whereabouts(store, item)));
  if (item.row !== undefined) {
    node.dataset.row = item.row;
    node.addEventListener("pointerenter", () => { store.marked = item.row; store.touch("marked"); });
    node.addEventListener("pointerleave", () => { store.marked = -1; store.touch("marked"); });
  }
  return node;
}

function exampleList(store, items, empty = "Nothing to read here.") {
  if (!items.length) return el("p", { class: "rbx-hint", text: empty });
  return el("ul", { class: "rbx-examples" }, ...items.map((item) => exampleItem(store, item)));
}
