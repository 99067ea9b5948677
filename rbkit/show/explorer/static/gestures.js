// Pointer, wheel and keys on the map. Pointer events serve mouse, pen and fingers alike.
function bindGestures(map) {
  const { above, store, view } = map, fingers = new Map();
  let action = null, last = null, spread = 0, space = false;

  const place = (event) => {
    const box = above.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const modeOf = (event) => (event.altKey ? "remove" : event.shiftKey ? "add" : "replace");

  function hover(event) {
    const [x, y] = place(event), row = map.nearest(x, y);
    if (row < 0 && map.tips.row < 0) return;
    map.tips.hover(row, x, y);
    map.schedule();
  }

  function abort() {
    action = null;
    map.path = null;
    map.schedule();
  }

  above.addEventListener("pointerdown", (event) => {
    above.classList.add("rbx-quiet");  // a ring of focus is for keys
    above.focus({ preventScroll: true });
    const at = place(event);
    fingers.set(event.pointerId, at);
    above.setPointerCapture(event.pointerId);
    map.tips.hover(-1);
    if (fingers.size === 2) {
      const [[ax, ay], [bx, by]] = [...fingers.values()];
      spread = Math.hypot(ax - bx, ay - by);
      last = [(ax + bx) / 2, (ay + by) / 2];
      map.path = null;
      action = "pinch";
    } else if (event.button === 1 || (event.button === 0 && (space || map.tool === "pan"))) {
      event.preventDefault();
      action = "pan";
      last = at;
    } else if (event.button === 0) {
      action = "lasso";
      map.path = [at];
    }
  });

  above.addEventListener("pointermove", (event) => {
    const at = place(event);
    if (fingers.has(event.pointerId)) fingers.set(event.pointerId, at);
    if (action === "lasso") {
      const steps = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
      for (const step of steps.length ? steps : [event]) {
        const [x, y] = place(step), [px, py] = map.path[map.path.length - 1];
        if (Math.hypot(x - px, y - py) >= 2) map.path.push([x, y]);
      }
      map.schedule();
    } else if (action === "pan") {
      view.pan(at[0] - last[0], at[1] - last[1]);
      last = at;
      map.move();
    } else if (action === "pinch" && fingers.size === 2) {
      const [[ax, ay], [bx, by]] = [...fingers.values()], now = Math.hypot(ax - bx, ay - by), mid = [(ax + bx) / 2, (ay + by) / 2];
      view.pan(mid[0] - last[0], mid[1] - last[1]);
      map.zoom(now / Math.max(spread, 1), ...mid);
      spread = now;
      last = mid;
    } else if (!action && event.pointerType !== "touch") hover(event);
  });

  above.addEventListener("pointerup", (event) => {
    fingers.delete(event.pointerId);
    if (action === "lasso") {
      const { path } = map, length = path.reduce((sum, p, i) => sum + (i ? Math.hypot(p[0] - path[i - 1][0], p[1] - path[i - 1][1]) : 0), 0);
      if (length > 12 && path.length > 2) map.close(modeOf(event));
      else click(event, place(event));
    }
    if (action !== "pinch" || !fingers.size) abort();
  });

  above.addEventListener("pointercancel", (event) => {
    fingers.delete(event.pointerId);
    abort();
  });

  above.addEventListener("pointerleave", () => {
    map.tips.hover(-1);
    map.schedule();
  });

  function click(event, [x, y]) {
    map.path = null;
    const row = map.nearest(x, y), name = map.names.at(x, y);
    if (name) {
      const chosen = new Set(event.shiftKey || event.ctrlKey || event.metaKey ? store.chosen : []);
      if (store.chosen.has(name.id)) chosen.delete(name.id);
      else chosen.add(name.id);
      store.choose(chosen);
    } else if (row >= 0) map.tips.pin(row, x, y);
    else map.tips.unpin();
  }

  above.addEventListener("wheel", (event) => {
    const mine = above.getRootNode().activeElement === above || event.ctrlKey || event.metaKey;
    if (!mine) {  // the notebook scrolls under the pointer: it must not get caught in the map
      map.hint.classList.add("rbx-on");
      clearTimeout(map.hintTimer);
      map.hintTimer = setTimeout(() => map.hint.classList.remove("rbx-on"), 1200);
      return;
    }
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 18 : 1;
    map.tips.hover(-1);
    map.zoom(Math.exp(-clamp(event.deltaY * lines, -240, 240) * 0.0022), ...place(event));
  }, { passive: false });

  above.addEventListener("keydown", (event) => {
    above.classList.remove("rbx-quiet");
    if (event.key === " ") {
      space = true;
      above.classList.add("rbx-grab");
      event.preventDefault();
      return;
    }
    if (event.ctrlKey || event.metaKey) return;
    const step = 0.12 * Math.min(view.width, view.height);
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (moves[event.key]) {
      view.pan(...moves[event.key]);
      map.move();
    } else if (event.key === "+" || event.key === "=") map.zoom(1.3);
    else if (event.key === "-" || event.key === "_") map.zoom(1 / 1.3);
    else if (event.key === "0") map.fit();
    else if (event.key === "Enter") {
      const [x0, y1] = view.toData(0, 0), [x1, y0] = view.toData(view.width, view.height), { xy } = store;
      store.select(store.rows((i) => xy[2 * i] >= x0 && xy[2 * i] <= x1 && xy[2 * i + 1] >= y0 && xy[2 * i + 1] <= y1), modeOf(event));
    } else if (event.key === "Escape") {
      if (map.path) abort();
      else if (!map.tips.unpin()) store.clear();
    } else return;
    event.preventDefault();
  });

  const release = () => {
    space = false;
    above.classList.toggle("rbx-grab", map.tool === "pan");
  };
  above.addEventListener("keyup", (event) => { if (event.key === " ") release(); });
  above.addEventListener("blur", () => {
    above.classList.remove("rbx-quiet");
    release();
  });
}
