"use strict";
// Draws the Gram matrix of the chosen round next to the proportions it led to.
// Text of a corpus only ever goes to textContent and fillText.
(function () {
  const RAMP = [
    "053061", "2166ac", "4393c3", "92c5de", "d1e5f0", "f7f7f7",
    "fddbc7", "f4a582", "d6604d", "b2182b", "67001f",
  ].map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));

  const FONT = 'px -apple-system, "Segoe UI", Inter, "Helvetica Neue", Arial, ' +
    '"Liberation Sans", sans-serif';

  function colour(value, scale) {
    const x = (Math.max(-1, Math.min(1, value / scale)) + 1) / 2 * (RAMP.length - 1);
    const i = Math.min(Math.floor(x), RAMP.length - 2);
    const mixed = RAMP[i].map((low, c) => Math.round(low + (x - i) * (RAMP[i + 1][c] - low)));
    return "rgb(" + mixed + ")";
  }

  function show(value) {
    const fixed = Math.abs(value) >= 0.01 || value === 0;
    return (fixed ? value.toFixed(2) : value.toExponential(1)).replace("-", "−");
  }

  function gram(data) {
    const canvas = document.getElementById("matrix"), pen = canvas.getContext("2d");
    const slider = document.getElementById("round"), when = document.getElementById("when");
    const pair = document.getElementById("pair"), play = document.getElementById("play");
    const m = data.names.length;
    const top = Math.max(0.01, ...data.frames.flatMap((f) => f.next), ...(data.q || []));
    let kind = "cosine", at = null, box = null, timer = null;
    slider.max = data.frames.length - 1;
    slider.value = slider.max;

    function value(frame, i, j) {
      const g = (a, b) => {
        const row = Math.max(a, b);
        return frame.g[row * (row + 1) / 2 + Math.min(a, b)];
      };
      const raw = g(i, j);
      if (kind === "raw" || raw === null) return raw;
      const norm = Math.sqrt(g(i, i) * g(j, j));
      return norm > 0 ? Math.max(-1, Math.min(1, raw / norm)) : null;
    }

    function fit(text, room) {
      if (pen.measureText(text).width <= room) return text;
      const fits = () => pen.measureText(text + "…").width <= room;
      while (text.length > 1 && !fits()) text = text.slice(0, -1);
      return text + "…";
    }

    function draw() {
      const frame = data.frames[+slider.value], scale = data.scale[kind];
      const width = canvas.clientWidth, narrow = width < 560;
      const left = Math.min(210, width * (narrow ? 0.3 : 0.24));
      const right = narrow ? 64 : Math.min(260, width * 0.27);
      const cell = Math.max(6, Math.min(Math.max(30, 330 / m), (width - left - right) / m));
      const height = cell * m + 26;
      const ratio = window.devicePixelRatio || 1;
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.height = height + "px";
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      pen.clearRect(0, 0, width, height);
      pen.textBaseline = "middle";
      const font = Math.max(7, Math.min(13, cell * 0.72));
      box = { left: left, top: 22, cell: cell };
      for (let i = 0; i < m; i++) {
        const y = box.top + i * cell;
        pen.font = (at && (at[0] === i || at[1] === i) ? "600 " : "") + font + FONT;
        pen.fillStyle = "#1b2530";
        pen.textAlign = "right";
        pen.fillText(fit(data.names[i], left - 10), left - 6, y + cell / 2);
        for (let j = 0; j < m; j++) {
          const v = value(frame, i, j), x = left + j * cell;
          pen.fillStyle = v === null ? "#e3e7eb" : colour(v, scale);
          pen.fillRect(x, y, cell - 1, cell - 1);
          if (v === null) {
            pen.strokeStyle = "#a9b3bd";
            pen.beginPath();
            pen.moveTo(x, y + cell - 1);
            pen.lineTo(x + cell - 1, y);
            pen.stroke();
          }
        }
        const x0 = left + m * cell + 12, room = width - x0 - (narrow ? 2 : 54);
        pen.fillStyle = "#0072b2";
        pen.fillRect(x0, y + cell * 0.22, room * frame.next[i] / top, cell * 0.52);
        if (data.q) {
          pen.fillStyle = "#d55e00";
          pen.fillRect(x0 + room * data.q[i] / top - 1, y + cell * 0.08, 2.5, cell * 0.8);
        }
        if (!narrow) {
          pen.fillStyle = "#566270";
          pen.textAlign = "left";
          pen.font = font + FONT;
          pen.fillText((100 * frame.next[i]).toFixed(1) + " %", x0 + room + 4, y + cell / 2);
        }
      }
      pen.font = "600 12" + FONT;
      pen.textAlign = "left";
      pen.fillStyle = "#0072b2";
      const x0 = left + m * cell + 12, head = narrow ? "next p" : "p of the next round";
      pen.fillText(head, x0, 9);
      if (data.q && !narrow) {
        const after = x0 + pen.measureText(head).width + 10;
        pen.fillStyle = "#d55e00";
        pen.fillText("❙ q", after, 9);
      }
      if (at) {
        pen.strokeStyle = "#1b2530";
        pen.lineWidth = 2;
        pen.strokeRect(left + at[1] * cell - 0.5, box.top + at[0] * cell - 0.5, cell, cell);
        pen.lineWidth = 1;
        const v = value(frame, at[0], at[1]);
        const what = kind === "raw" ? "inner product " : "cosine ";
        pair.textContent = data.names[at[0]] + " / " + data.names[at[1]] + ": " +
          (v === null ? "not observed in this round" : what + show(v));
      }
      when.textContent = "round " + frame.round + " of " + data.rounds + ", step " +
        frame.step.toLocaleString("en");
      document.getElementById("low").textContent = "−" + show(scale);
      document.getElementById("high").textContent = "+" + show(scale);
    }

    function stop() {
      clearInterval(timer);
      timer = null;
      play.textContent = "▶ play";
    }

    play.addEventListener("click", function () {
      if (timer) return stop();
      if (+slider.value === +slider.max) slider.value = 0;
      play.textContent = "❚❚ pause";
      draw();
      timer = setInterval(function () {
        if (+slider.value >= +slider.max) return stop();
        slider.value = +slider.value + 1;
        draw();
      }, 450);
    });
    slider.addEventListener("input", function () { if (timer) stop(); draw(); });
    document.querySelectorAll("input[name=kind]").forEach(function (radio) {
      radio.addEventListener("change", function () {
        kind = radio.value;
        draw();
      });
    });
    canvas.addEventListener("pointermove", function (event) {
      const place = canvas.getBoundingClientRect();
      const i = Math.floor((event.clientY - place.top - box.top) / box.cell);
      const j = Math.floor((event.clientX - place.left - box.left) / box.cell);
      if (i < 0 || j < 0 || i >= m || j >= m) return;
      at = [i, j];
      draw();
    });
    canvas.addEventListener("keydown", function (event) {
      const steps = {
        ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
      };
      const step = steps[event.key];
      if (!step) return;
      event.preventDefault();
      const from = at || [0, -1];
      at = [0, 1].map((k) => Math.max(0, Math.min(m - 1, from[k] + step[k])));
      draw();
    });
    window.addEventListener("resize", draw);
    draw();
  }

  const frames = document.getElementById("frames");
  if (frames) gram(JSON.parse(frames.textContent));
})();
