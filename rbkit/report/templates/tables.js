"use strict";
// Sorts tables by any column, and filters their rows by words and by the values of a column.
// Text of a run only ever goes to textContent and to the value of an option.
(function () {
  function key(cell) {
    return cell.dataset.value !== undefined ? cell.dataset.value : cell.textContent.trim();
  }

  function compare(x, y) {
    const a = Number(x), b = Number(y);
    if (!isNaN(a) && !isNaN(b)) return a - b;
    return x.localeCompare(y, "en", { numeric: true, sensitivity: "base" });
  }

  function sortable(table) {
    const heads = Array.from(table.tHead.rows[table.tHead.rows.length - 1].cells);
    const body = table.tBodies[0];
    heads.forEach(function (head, column) {
      if (head.classList.contains("nosort")) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", function () {
        const down = head.getAttribute("aria-sort") === "ascending";
        const order = Array.from(body.rows).sort(function (a, b) {
          const x = key(a.cells[column]), y = key(b.cells[column]);
          if (x === "" || y === "") return (x === "") - (y === "");  // unknown last, always
          return compare(x, y) * (down ? -1 : 1);
        });
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        order.forEach((row) => body.append(row));
      });
    });
  }

  function filterable(bar) {
    const table = document.getElementById(bar.dataset.table);
    const rows = Array.from(table.tBodies[0].rows);
    const words = bar.querySelector("input"), count = bar.querySelector("output"), chosen = [];
    const texts = rows.map(function (row) {
      const cells = Array.from(row.cells, (c) => c.textContent + " " + (c.dataset.key || ""));
      return cells.join(" ").toLowerCase();
    });

    function keys(row, column) {
      return row.cells[column].dataset.key || row.cells[column].textContent.trim();
    }

    Array.from(table.tHead.rows[0].cells).forEach(function (head, column) {
      if (head.dataset.filter === undefined) return;
      const values = Array.from(new Set(rows.map((row) => keys(row, column)))).sort(compare);
      if (values.length < 2 || values.length > 60) return;
      const label = document.createElement("label"), name = document.createElement("span");
      const select = document.createElement("select");
      name.textContent = head.dataset.filter;
      // Else its options are part of its name.
      select.setAttribute("aria-label", head.dataset.filter);
      select.append(new Option("all", "", true));
      // By number: a value may be empty, or be called "all".
      values.forEach(function (value, i) {
        select.append(new Option(value === "" ? "–" : value, String(i)));
      });
      label.append(name, select);
      bar.querySelector(".choices").append(label);
      chosen.push((row) => select.value === "" || keys(row, column) === values[+select.value]);
      select.addEventListener("change", apply);
    });

    function apply() {
      const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach(function (row, i) {
        const there = wanted.every((word) => texts[i].includes(word)) &&
          chosen.every((fits) => fits(row));
        row.hidden = !there;
        shown += there;
      });
      count.textContent = shown === rows.length ? rows.length + " " + count.dataset.what
        : shown + " of " + rows.length + " shown";
    }

    words.addEventListener("input", apply);
    bar.querySelector(".clear").addEventListener("click", function () {
      words.value = "";
      bar.querySelectorAll("select").forEach((select) => { select.value = ""; });
      apply();
      words.focus();
    });
    bar.hidden = false;
    apply();  // a browser may have kept what was typed before a reload
  }

  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll(".filters").forEach(filterable);
})();

// Dark or light: as the system has it, until someone chooses.
(() => {
  const button = document.querySelector(".theme"), root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const name = () => { button.textContent = dark() ? "light" : "dark"; };
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    name();
  });
  system.addEventListener("change", name);
  name();
  button.hidden = false;
})();
