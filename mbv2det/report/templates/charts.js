// Line charts with a read-out under the pointer, bars, intervals and matrices, all as plain SVG.
// On a phone the drawing is narrower, so that its text stays readable.
const FRAME = { width: window.innerWidth < 700 ? 350 : 560, height: window.innerWidth < 700 ? 260
  : 330, left: 42, right: 12, top: 26, bottom: 40 };

// series: {name, colour, x, y, faint}; options: {x: [low, high, label], y: [...], marks, log}
function lineChart(series, options) {
  const scale = scales(options);
  const drawing = svg("svg", { viewBox: `0 0 ${FRAME.width} ${FRAME.height}`, role: "img",
    "aria-label": `${options.y[2]} against ${options.x[2]}` });
  drawing.append(...axes(options, scale));
  for (const line of series) {
    drawing.append(svg("path", { d: pathOf(line, scale), fill: "none", stroke: line.colour,
      "stroke-width": line.faint ? 1 : 2.2, opacity: line.faint ? 0.28 : 1,
      "stroke-dasharray": line.dashed ? "4 4" : null, "stroke-linejoin": "round" }));
    if (line.points) drawing.append(...dotsOf(line, scale));
  }
  for (const mark of options.marks ?? []) {
    drawing.append(svg("circle", { cx: scale.x(mark.x), cy: scale.y(mark.y), r: 4.5,
      fill: mark.colour, stroke: "var(--panel)", "stroke-width": 2 },
    svg("title", {}, mark.label)));
  }
  const caption = el("figcaption", { "aria-live": "off" }, options.caption ?? "");
  addReadout(drawing, series, options, scale, caption);
  return el("figure", {}, drawing, caption, legendOf(series));
}

function scales(options) {
  const { width, height, left, right, top, bottom } = FRAME;
  const [lowX, highX] = options.x, [lowY, highY] = options.y;
  return {
    x: value => left + (value - lowX) / (highX - lowX || 1) * (width - left - right),
    y: value => height - bottom - (value - lowY) / (highY - lowY || 1) * (height - top - bottom),
    valueAt: pixel => lowX + (pixel - left) / (width - left - right) * (highX - lowX),
  };
}

function axes(options, scale) {
  const { width, height, left, right, bottom } = FRAME, nodes = [];
  for (const tick of ticks(options.y[0], options.y[1])) {
    nodes.push(svg("line", { class: "rule", x1: left, x2: width - right, y1: scale.y(tick),
      y2: scale.y(tick) }));
    nodes.push(svg("text", { x: left - 7, y: scale.y(tick) + 4, "text-anchor": "end" },
      short(tick)));
  }
  for (const tick of ticks(options.x[0], options.x[1])) {
    nodes.push(svg("text", { x: scale.x(tick), y: height - bottom + 17, "text-anchor": "middle" },
      short(tick)));
  }
  nodes.push(svg("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom,
    y2: height - bottom }));
  nodes.push(svg("text", { x: (left + width - right) / 2, y: height - 5,
    "text-anchor": "middle" }, options.x[2]));
  nodes.push(svg("text", { x: 4, y: 12 }, options.y[2]));
  return nodes;
}

function ticks(low, high) {
  const rough = (high - low) / 5 || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(factor => factor * power).find(size => size >= rough * 0.999);
  const found = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-6; tick += step) {
    found.push(Math.abs(tick) < step * 1e-9 ? 0 : tick);
  }
  return found;
}

function short(value) {
  if (Math.abs(value) >= 1000) return `${+(value / 1000).toPrecision(3)} k`;
  return String(+value.toPrecision(3));
}

function pathOf(line, scale) {
  let text = "", drawing = false;
  line.x.forEach((x, n) => {
    if (line.y[n] === null) { drawing = false; return; }
    text += `${drawing ? "L" : "M"}${scale.x(x).toFixed(1)} ${scale.y(line.y[n]).toFixed(1)}`;
    drawing = true;
  });
  return text;
}

function dotsOf(line, scale) {
  return line.x.map((x, n) => line.y[n] === null ? null : svg("circle", { cx: scale.x(x),
    cy: scale.y(line.y[n]), r: 3.5, fill: line.colour })).filter(Boolean);
}

// Shows the values of all lines at the position of the pointer, and the nearest faint line's name.
function addReadout(drawing, series, options, scale, caption) {
  const rule = svg("line", { class: "axis", y1: FRAME.top, y2: FRAME.height - FRAME.bottom,
    visibility: "hidden" });
  drawing.append(rule);
  drawing.addEventListener("pointermove", event => {
    const box = drawing.getBoundingClientRect();
    const pixel = (event.clientX - box.left) / box.width * FRAME.width;
    const height = (event.clientY - box.top) / box.height * FRAME.height;
    const x = Math.min(options.x[1], Math.max(options.x[0], scale.valueAt(pixel)));
    rule.setAttribute("x1", scale.x(x));
    rule.setAttribute("x2", scale.x(x));
    rule.setAttribute("visibility", "visible");
    const values = series.map(line => ({ line, y: valueNear(line, x) })).filter(v => v.y !== null);
    const faint = values.filter(v => v.line.faint).map(v => ({ ...v,
      distance: Math.abs(scale.y(v.y) - height) })).sort((a, b) => a.distance - b.distance)[0];
    const named = values.filter(v => !v.line.faint).concat(faint ? [faint] : []);
    caption.textContent = `${options.x[2]} ${short(x)}: ` +
      named.map(v => `${v.line.name} ${v.y < 1 ? v.y.toFixed(3) : short(v.y)}`).join(", ");
  });
  drawing.addEventListener("pointerleave", () => {
    rule.setAttribute("visibility", "hidden");
    caption.textContent = options.caption ?? "";
  });
}

function valueNear(line, x) {
  let best = 0;
  line.x.forEach((value, n) => {
    if (Math.abs(value - x) < Math.abs(line.x[best] - x)) best = n;
  });
  return line.y[best] ?? null;
}

function legendOf(series) {
  const named = series.filter(line => !line.faint);
  if (named.length < 2) return null;
  return el("div", { class: "legend" }, named.map(line =>
    el("span", { style: `--own:${line.colour}` }, line.name)));
}

// rows: {label, share, text, colour, title}; a share of 1 fills the track.
function bars(rows) {
  return el("div", { class: "bars" }, rows.map(row => [
    el("span", { title: row.title }, row.label),
    el("span", { class: "track", style: row.colour ? `--own:${row.colour}` : null },
      el("i", { style: `width:${(100 * Math.min(1, row.share || 0)).toFixed(1)}%` })),
    el("span", { class: "value" }, row.text),
  ]));
}

// A value with its interval on a line from 0 to 1.
function intervalMark(row, colour) {
  const x = value => 3 + 134 * value;
  return svg("svg", { class: "dots", viewBox: "0 0 140 16", "aria-hidden": "true" },
    svg("line", { class: "rule", x1: 3, x2: 137, y1: 8, y2: 8, "stroke-width": 2 }),
    row.low === null ? null : svg("line", { x1: x(row.low), x2: x(row.high), y1: 8, y2: 8,
      stroke: colour, "stroke-width": 5, opacity: 0.35, "stroke-linecap": "round" }),
    row.value === null ? null : svg("circle", { cx: x(row.value), cy: 8, r: 4, fill: colour }));
}

// A matrix of shares with names; describe(row, column) is shown under the pointer.
function matrixChart(names, shares, describe, columnNames = names) {
  const size = names.length > 40 ? 9 : names.length > 12 ? 30 : 44;
  const longest = Math.max(...names.concat(columnNames).map(name => name.length));
  const margin = Math.min(150, 14 + 6.2 * longest);
  const width = margin + size * columnNames.length + margin * 0.6, height = margin + size * names.length + 4;
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "matrix", role: "img",
    style: `min-width:${Math.min(width, 760)}px;max-width:${Math.max(width * 1.35, 300)}px` });
  const caption = el("figcaption", {}, "Rows: what is there. Columns: what was predicted.");
  names.forEach((name, row) => {
    if (size > 9) drawing.append(svg("text", { x: margin - 6, y: margin + size * (row + 0.5) + 4,
      "text-anchor": "end" }, name));
    columnNames.forEach((_, column) => drawing.append(...cell(row, column)));
  });
  columnNames.forEach((name, column) => {
    const x = margin + size * (column + 0.5) + 4, y = margin - 6;
    if (size > 9) drawing.append(svg("text", { x, y, transform: `rotate(-55 ${x} ${y})` }, name));
  });
  function cell(row, column) {
    const share = shares[row][column], x = margin + size * column, y = margin + size * row;
    const nodes = [svg("rect", { class: "cell", x, y, width: size, height: size,
      fill: `rgba(var(--heat), ${share ? 0.06 + 0.94 * share : 0.03})`,
      onpointerenter: () => { caption.textContent = describe(row, column); } })];
    if (size > 20 && share >= 0.005) nodes.push(svg("text", { x: x + size / 2, y: y + size / 2 + 4,
      "text-anchor": "middle", style: `pointer-events:none;font-size:${size > 30 ? 12 : 9}px;` +
      `fill:${share > 0.55 ? "var(--panel)" : "var(--ink)"}` }, (100 * share).toFixed(0)));
    return nodes;
  }
  return el("figure", {}, el("div", { class: "scroll" }, drawing), caption);
}
