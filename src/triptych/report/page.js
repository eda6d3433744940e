"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const H = 430, LEFT = 74, RIGHT = 28, TOP = 24, BOTTOM = 54;
  let W = 960;  // follows the page, so that text keeps its size on a narrow screen

  const make = (name, attributes = {}, text = "") => {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text) node.textContent = text;
    return node;
  };
  const press = (buttons, chosen) => buttons.forEach((b) => b.setAttribute("aria-pressed", String(b === chosen)));

  const seconds = (v) => (v >= 1 ? `${trim(v)} s` : v >= 1e-3 ? `${trim(v * 1e3)} ms` : `${trim(v * 1e6)} µs`);
  const bytes = (v) => (v >= 1e9 ? `${trim(v / 1e9)} GB` : v >= 1e6 ? `${trim(v / 1e6)} MB` : v >= 1e3 ? `${trim(v / 1e3)} kB` : `${trim(v)} B`);
  const trim = (v) => String(Number(v.toPrecision(3)));

  const nice = (low, high, wanted) => {
    const raw = (high - low) / wanted || 1;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw);
    const found = [];
    for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-6; v += step) found.push(v);
    return found;
  };
  const decades = (low, high) => {
    const found = [];
    for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p += 1)
      for (const m of [1, 2, 5]) if (m * 10 ** p >= low && m * 10 ** p <= high) found.push(m * 10 ** p);
    return found;
  };

  function scales(data, axis, points) {
    const xs = points.map((p) => p[axis.key]).concat(axis.limit ? [axis.limit] : []);
    const ys = points.flatMap((p) => [p.quality, ...(p.quality_interval || []).filter((v) => v !== null)]);
    if (data.floor !== null) ys.push(data.floor);
    let [x0, x1] = [Math.min(...xs), Math.max(...xs)];
    let [y0, y1] = [Math.min(...ys), Math.max(...ys)];
    const log = x0 > 0 && x1 / x0 > 6;
    const margin = (y1 - y0 || 0.1) * 0.1;
    [y0, y1] = [y0 - margin, y1 + margin];
    if (data.share) [y0, y1] = [Math.max(0, y0), Math.min(1.005, y1)];
    if (log) [x0, x1] = [x0 / 1.35, x1 * 1.5];
    else [x0, x1] = [Math.max(0, x0 - (x1 - x0) * 0.12), x1 + ((x1 - x0) * 0.16 || x1 * 0.2 || 1)];
    const to = log ? Math.log : (v) => v;
    const x = (v) => LEFT + ((to(v) - to(x0)) / (to(x1) - to(x0))) * (W - LEFT - RIGHT);
    const share = (v) => (v - y0) / (y1 - y0);
    const y = (v) => TOP + (data.lowerIsBetter ? share(v) : 1 - share(v)) * (H - TOP - BOTTOM);
    return { x, y, xTicks: log ? decades(x0, x1) : nice(x0, x1, Math.max(4, W / 130)), yTicks: nice(y0, y1, 6) };
  }

  function frame(svg, data, axis, s) {
    const unit = axis.key === "p50_s" ? seconds : bytes;
    const quality = data.share ? (v) => `${trim(100 * v)} %` : trim;
    if (data.floor !== null && axis.limit) {
      svg.append(make("rect", { class: "within", x: LEFT, y: TOP, width: Math.max(0, s.x(axis.limit) - LEFT), height: Math.max(0, s.y(data.floor) - TOP) }));
    }
    for (const v of s.yTicks) {
      svg.append(make("line", { class: "grid", x1: LEFT, x2: W - RIGHT, y1: s.y(v), y2: s.y(v) }));
      svg.append(make("text", { x: LEFT - 8, y: s.y(v) + 4, "text-anchor": "end" }, quality(v)));
    }
    let last = -Infinity;
    for (const v of s.xTicks) {
      if (s.x(v) - last < 58 || s.x(v) > W - RIGHT - 12) continue;
      last = s.x(v);
      svg.append(make("line", { class: "grid", x1: last, x2: last, y1: H - BOTTOM, y2: H - BOTTOM + 5 }));
      svg.append(make("text", { x: last, y: H - BOTTOM + 20, "text-anchor": "middle" }, unit(v)));
    }
    svg.append(make("text", { x: (LEFT + W - RIGHT) / 2, y: H - 10, "text-anchor": "middle" }, W > 600 ? `${axis.name}: ${axis.about}` : axis.name));
    const better = data.lowerIsBetter ? `${data.metric} (lower is better, drawn upwards)` : data.metric;
    svg.append(make("text", { x: 16, y: (TOP + H - BOTTOM) / 2, "text-anchor": "middle", transform: `rotate(-90 16 ${(TOP + H - BOTTOM) / 2})` }, better));
    if (axis.limit) {
      const x = s.x(axis.limit);
      svg.append(make("line", { class: "limit-line", x1: x, x2: x, y1: TOP, y2: H - BOTTOM }));
      const end = x > W - 160;
      svg.append(make("text", { class: "limit-name", x: x + (end ? -6 : 6), y: H - BOTTOM - 8, "text-anchor": end ? "end" : "start" }, `budget ${unit(axis.limit)}`));
    }
    if (data.floor !== null) {
      const y = s.y(data.floor);
      svg.append(make("line", { class: "limit-line", x1: LEFT, x2: W - RIGHT, y1: y, y2: y }));
      svg.append(make("text", { class: "limit-name", x: W - RIGHT, y: y + 15, "text-anchor": "end" }, `budget ${quality(data.floor)}`));
    }
  }

  function mark(point, x, y) {
    if (point.role === "rejected") return make("path", { class: "rejected", d: `M${x - 5} ${y - 5}l10 10m0-10l-10 10` });
    const radius = { reference: 7, chosen: 8, other: 6, step: 4.5 }[point.role];
    if (point.role === "reference") return make("rect", { class: point.role, x: x - 6, y: y - 6, width: 12, height: 12, rx: 2 });
    return make("circle", { class: point.role, cx: x, cy: y, r: radius });
  }

  function describe(point, data) {
    const t = point.text;
    const lines = [`${data.metric} ${t.quality}${t.interval ? ` (${t.interval})` : ""}`];
    data.axes.forEach((a) => { if (point[a.key] !== null) lines.push(`${a.name.toLowerCase()} ${t[a.key]}`); });
    if (point.reason) lines.push(`rejected: ${point.reason}`);
    return lines;
  }

  function labels(svg, placed, s, axis) {
    const boxes = placed.map(({ px, py }) => [px - 9, py - 9, px + 9, py + 9]);
    const rank = { chosen: 0, reference: 1, other: 2, step: 3, rejected: 4 };
    for (const { point, px, py } of [...placed].sort((a, b) => rank[a.point.role] - rank[b.point.role])) {
      const text = point.name.length > 26 ? `${point.name.slice(0, 25)}…` : point.name;
      const width = text.length * 7;
      const tries = [[px + 13, py + 4, "start"], [px - 13, py + 4, "end"], [px, py - 14, "middle"], [px, py + 23, "middle"]];
      for (const [x, y, anchor] of tries) {
        const left = anchor === "start" ? x : anchor === "end" ? x - width : x - width / 2;
        const box = [left, y - 12, left + width, y + 4];
        const free = box[0] > LEFT && box[2] < W - RIGHT + 10 && box[1] > 4 && box[3] < H - BOTTOM && !boxes.some((b) => box[0] < b[2] && b[0] < box[2] && box[1] < b[3] && b[1] < box[3]);
        if (!free) continue;
        boxes.push(box);
        svg.append(make("text", { class: "name", x, y, "text-anchor": anchor, "pointer-events": "none" }, text));
        break;
      }
    }
  }

  function draw(holder, data, axis) {
    holder.replaceChildren();
    W = Math.max(320, Math.min(1100, holder.clientWidth || 960));
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.hidden = true;
    const points = data.points.filter((p) => p[axis.key] !== null && p[axis.key] !== undefined);
    if (!points.length) {
      const none = document.createElement("p");
      none.textContent = `No ${axis.name.toLowerCase()} was measured.`;
      none.style.padding = "1rem";
      holder.append(none);
      return;
    }
    const svg = make("svg", { viewBox: `0 0 ${W} ${H}`, role: "group", "aria-label": `${data.metric} against ${axis.name.toLowerCase()}` });
    const s = scales(data, axis, points);
    frame(svg, data, axis, s);
    const steps = points.filter((p) => p.role === "step");
    if (steps.length > 1) svg.append(make("polyline", { class: "path", points: steps.map((p) => `${s.x(p[axis.key])},${s.y(p.quality)}`).join(" ") }));
    const order = { rejected: 0, step: 1, other: 2, reference: 3, chosen: 4 };
    const placed = [];
    for (const point of [...points].sort((a, b) => order[a.role] - order[b.role])) {
      const [px, py] = [s.x(point[axis.key]), s.y(point.quality)];
      placed.push({ point, px, py });
      const group = make("g", { class: "mark", tabindex: 0, role: "img", "aria-label": `${point.name}: ${describe(point, data).join(", ")}` });
      const ends = point.quality_interval;
      if (ends && ends[0] !== null && ends[1] !== null && point.role !== "step")
        group.append(make("line", { class: `whisker ${point.role}`, x1: px, x2: px, y1: s.y(ends[0]), y2: s.y(ends[1]) }));
      group.append(mark(point, px, py), make("circle", { cx: px, cy: py, r: 14, fill: "transparent", stroke: "none" }));
      const show = () => {
        const name = document.createElement("b");
        name.textContent = point.name;
        tip.replaceChildren(name, ...describe(point, data).map((line) => Object.assign(document.createElement("div"), { textContent: line })));
        tip.hidden = false;
        const scale = holder.clientWidth / W;
        const left = Math.min(px * scale + 14, holder.clientWidth - tip.offsetWidth - 8);
        tip.style.left = `${Math.max(4, left)}px`;
        tip.style.top = `${Math.max(4, py * scale - tip.offsetHeight - 12)}px`;
      };
      const hide = () => { tip.hidden = true; };
      group.addEventListener("pointerenter", show);
      group.addEventListener("pointerleave", hide);
      group.addEventListener("focus", show);
      group.addEventListener("blur", hide);
      svg.append(group);
    }
    labels(svg, placed, s, axis);
    holder.append(svg, tip);
  }

  const holder = document.getElementById("scatter");
  if (holder) {
    const data = JSON.parse(document.getElementById("scatter-data").textContent);
    const buttons = [...document.querySelectorAll("button[data-axis]")];
    let axis = data.axes[0];
    buttons.forEach((button) => button.addEventListener("click", () => {
      press(buttons, button);
      axis = data.axes.find((a) => a.key === button.dataset.axis);
      draw(holder, data, axis);
    }));
    let width = 0;
    new ResizeObserver(() => {
      if (holder.clientWidth === width) return;
      width = holder.clientWidth;
      requestAnimationFrame(() => draw(holder, data, axis));
    }).observe(holder);
    draw(holder, data, axis);
  }

  const choices = [...document.querySelectorAll("button[data-show]")];
  choices.forEach((button) => button.addEventListener("click", () => {
    press(choices, button);
    document.querySelectorAll(".example").forEach((card) => {
      card.hidden = button.dataset.show !== "all" && card.dataset.state !== button.dataset.show;
    });
  }));
})();
