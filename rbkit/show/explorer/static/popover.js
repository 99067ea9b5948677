// A small panel under a button: Escape or a click elsewhere closes it.
function popover(opener, title, ...content) {
  const panel = el("div", { class: "rbx-popover", role: "group", "aria-label": title, hidden: true }, el("h3", { text: title }), ...content);
  const node = el("div", { class: "rbx-anchor" }, opener, panel);
  opener.setAttribute("aria-expanded", "false");
  opener.setAttribute("aria-haspopup", "true");
  function show(open) {
    panel.hidden = !open;
    opener.setAttribute("aria-expanded", String(open));
    if (open) {
      panel.classList.remove("rbx-left");
      const room = node.closest(".rbx").getBoundingClientRect(), box = panel.getBoundingClientRect();
      panel.classList.toggle("rbx-left", box.right > room.right - 4);
      (panel.querySelector("input, select, button") || panel).focus();
    }
  }
  opener.addEventListener("click", () => show(panel.hidden));
  node.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || panel.hidden) return;
    show(false);
    opener.focus();
    event.stopPropagation();
  });
  node.addEventListener("focusout", (event) => {
    if (event.relatedTarget && !node.contains(event.relatedTarget)) show(false);
  });
  const outside = (event) => { if (!event.composedPath().includes(node)) show(false); };
  document.addEventListener("pointerdown", outside, true);
  return { node, panel, close: () => show(false), dispose: () => document.removeEventListener("pointerdown", outside, true) };
}

/** A labelled row of a form. */
function field(label, control, extra) {
  return el("label", { class: "rbx-field" }, el("span", { text: label }), control, extra);
}
