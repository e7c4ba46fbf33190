// Where the numbers come from: training, data, environment, command and configuration.
function trainingSection() {
  const trained = MODELS.map((model, index) => ({ model, index }))
    .filter(({ model }) => Object.keys(model.curves).length);
  if (!trained.length) return null;
  const groups = [["Loss", /(^|\/)loss$/], ["Parts of the loss", /_loss$/],
    ["Metrics on the validation images", /^val\/(AP|AP50|mIoU|boundary_IoU|score)$/],
    ["Learning rate", /^lr/]];
  return el("section", { id: "training" }, el("h2", {}, "Training"),
    el("p", { class: "lead" }, "From the run folder of the weights, against the step."),
    el("div", { class: "grid" }, groups.map(([title, pattern]) => trainingChart(title, pattern, trained))));
}

function trainingChart(title, pattern, trained) {
  const lines = [];
  for (const { model, index } of trained) {
    for (const [name, [x, y]] of Object.entries(model.curves)) {
      if (pattern.test(name)) lines.push({ x, y, points: x.length < 3,
        name: trained.length > 1 ? `${model.name} ${name}` : name,
        colour: `var(--m${(trained.length > 1 ? index : lines.length) % 6})`,
        dashed: trained.length > 1 && name.startsWith("val/") && pattern.source.includes("loss") });
    }
  }
  if (!lines.length) return null;
  const x = lines.flatMap(line => line.x), y = lines.flatMap(line => line.y);
  return panel(title, lineChart(lines, { x: [0, Math.max(...x, 1), "step"],
    y: [0, niceCeiling(quantile(y, 0.98)), title.toLowerCase()], caption: "Point at the chart to read its values." }));
}

function quantile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return Math.max(sorted[Math.floor((sorted.length - 1) * share)], sorted[sorted.length - 1] * 0.4);
}

function niceCeiling(value) {
  const all = ticks(0, value || 1), step = all[1] - all[0] || 1;
  return Math.ceil(value / step - 1e-9) * step || 1;
}

function dataSection() {
  return el("section", { id: "data-statistics" }, el("h2", {}, "Data"),
    el("div", { class: "grid" }, panel(null, list({ ...DATA.data.facts, ...dataLines() })),
      DATA.data.charts.map(chart => panel(chart.title, bars(chart.names.map((name, n) => ({
        label: name, share: chart.counts[n] / Math.max(1, ...chart.counts),
        text: count(chart.counts[n]) })))))));
}

function dataLines() {
  return Object.fromEntries(MODELS.flatMap(model => Object.entries(model.facts)
    .filter(([name]) => name.endsWith(" data"))
    .map(([name, text]) => [MODELS.length > 1 ? `${name}, ${model.name}` : name, text])));
}

function originSection() {
  return el("section", { id: "origin" }, el("h2", {}, "How this was measured"),
    el("div", { class: "grid" },
      MODELS.map((model, index) => panel(chip(index),
        list(Object.fromEntries(Object.entries(model.facts)
          .filter(([name, text]) => text && !name.endsWith(" data")))),
        el("details", {}, el("summary", {}, "Configuration"), el("pre", {}, model.config)))),
      panel("Environment", list(DATA.environment))));
}

function list(facts) {
  return el("dl", {}, Object.entries(facts).map(([name, text]) => [el("dt", {}, name),
    el("dd", {}, text)]));
}
