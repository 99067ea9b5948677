// How a widget lives in a page: the theme around it, and keys that stay inside.

/** Watch the theme: dark or light is read off the page's own background, whoever made it. */
function watchTheme(root, changed) {
  const judge = () => {
    const [r, g, b, a = 1] = (getComputedStyle(root).backgroundColor.match(/[\d.]+/g) || [255, 255, 255]).map(Number);
    root.classList.toggle("rbx-dark", a > 0 && 0.299 * r + 0.587 * g + 0.114 * b < 128);
    changed();
  };
  const themes = new MutationObserver(() => setTimeout(judge, 30));
  for (const node of [document.documentElement, document.body]) {
    themes.observe(node, { attributes: true, attributeFilter: ["class", "style", "data-jp-theme-light", "data-jp-theme-name", "data-theme"] });
  }
  const scheme = window.matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", judge);
  judge();
  requestAnimationFrame(judge);  // once the style sheet and the page are there
  return () => {
    themes.disconnect();
    scheme.removeEventListener("change", judge);
  };
}

/** Hand keys to `key`; none goes on to the notebook, where two d's would delete the cell. */
function keepKeys(root, key, own) {
  const forNotebook = (event) => (event.ctrlKey || event.metaKey) && !own.includes(event.key.toLowerCase());
  // Notebook 7 looks at keys on their way down, before this element hears of them, and asks the
  // focused node itself: its shortcuts are off in here but for its own such as Ctrl+S.
  const gate = (event) => { if (root.contains(event.target)) event.target.toggleAttribute("data-lm-suppress-shortcuts", !forNotebook(event)); };
  window.addEventListener("keydown", gate, true);
  root.addEventListener("keydown", (event) => {
    key(event);
    if (!forNotebook(event)) event.stopPropagation();
  });
  root.addEventListener("keyup", (event) => event.stopPropagation());
  root.addEventListener("keypress", (event) => event.stopPropagation());
  return () => window.removeEventListener("keydown", gate, true);
}
