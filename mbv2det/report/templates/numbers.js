// How good the models are: sentences, metrics with intervals, classes, curves, calibration.
const HELP = {
  AP: "Mean precision over recalls and over IoU thresholds 0.50 to 0.95 (COCO)",
  AP50: "Average precision where a box must overlap its object by 0.5",
  AP75: "Average precision where a box must overlap its object by 0.75",
  APs: "AP of objects below 32 x 32 pixels", APm: "AP of objects from 32 x 32 to 96 x 96 pixels",
  APl: "AP of objects above 96 x 96 pixels",
  AR1: "Share of objects found with one detection per class and image, over all IoU thresholds",
  AR10: "The same with ten detections", AR100: "The same with a hundred detections",
  ARs: "AR100 of small objects", ARm: "AR100 of medium objects", ARl: "AR100 of large objects",
  VOC07: "Average precision of PASCAL VOC 2007", VOC10: "Average precision of PASCAL VOC 2010",
  mIoU: "Mean over the classes of right / (annotated + predicted - right) pixels",
  pixel_accuracy: "Share of the pixels that are right",
  boundary_IoU: "IoU of the pixels near a contour",
};

function headerSection() {
  const images = DATA.data.facts.images;
  return [el("h1", {}, DATA.title),
    el("p", { class: "soft" }, `${images} images. Measured ${DATA.made}.`)];
}

function summarySection() {
  return el("section", { id: "summary" }, TASKS.map(cards), el("div", { class: "grid" },
    MODELS.map((model, index) => panel(MODELS.length > 1 ? chip(index) : null,
      el("ul", { class: "sentences" }, model.sentences.map(text => el("li", {}, text)))))));
}

function cardsOf(task, index) {
  const part = MODELS[index][task], n = chosen(part), row = part.per_class[n];
  if (task === "segmentation") {
    return row ? [["IoU", row.iou, row], ["Precision of pixels", row.precision], ["Recall of pixels", row.recall]]
      : part.metrics.map(metric => [metric.name.replace("_", " "), metric.value, metric]);
  }
  if (row) return [["AP", row.ap, row], ["AP50", row.ap50], ["Best F1", row.best_f1],
    ["at a lowest score of", number(row.best_score, 2)], ["Objects", row.objects]];
  const metric = name => part.metrics.find(m => m.name === name);
  return [["AP", metric("AP").value, metric("AP")], ["AP50", metric("AP50").value, metric("AP50")],
    ["Mean F1", mean(part.curves.f1.map(curve => curve[Math.round(part.min_score * 100)]))],
    ["at a lowest score of", number(part.min_score, 2)]];
}

// One card for each number; several models share it, each with its colour.
function cards(task) {
  const shown = MODELS.map((model, index) => index)
    .filter(index => MODELS[index][task] && !(STATE.cls && chosen(MODELS[index][task]) < 0));
  if (!shown.length) return null;
  const columns = shown.map(index => cardsOf(task, index));
  return el("div", { class: "cards" }, columns[0].map(([name], n) =>
    el("div", { class: "panel card" }, el("div", { class: "name" }, name),
      shown.map((index, k) => cardValue(columns[k][n], index)))));
}

function cardValue([, value, row], index) {
  const text = typeof value === "string" ? value
    : Number.isInteger(value) && value > 1 ? count(value) : number(value);
  return el("div", { style: `--own:${MODEL_COLOURS[index]}` },
    el("div", { class: MODELS.length > 1 ? "value several" : "value",
      title: MODELS.length > 1 ? MODELS[index].name : null }, text),
    row && row.low !== null && row.low !== undefined ? el("div", { class: "range" },
      `95 % interval ${number(row.low)} to ${number(row.high)}`) : null);
}

function metricsSection(task, render) {
  const title = task === "detection" ? "Detection" : "Segmentation";
  return el("section", { id: task }, el("h2", {}, title),
    el("p", { class: "lead" }, "The intervals hold 95 % of what other images of the same kind would give " +
      "(bootstrap over the images)."),
    STATE.cls ? null : [panel("All metrics", metricsTable(task, render)),
      el("div", { style: "height:1rem" })], panel("Classes", classTable(task, render)));
}

function metricsTable(task, render) {
  const shown = MODELS.map((model, index) => ({ part: model[task], index })).filter(m => m.part);
  const names = shown[0].part.metrics.map(metric => metric.name);
  const find = (part, name) => part.metrics.find(metric => metric.name === name);
  const columns = [{ title: "metric", value: name => name,
    show: name => el("span", { title: HELP[name] }, name.replace("_", " ")) }];
  for (const { part, index } of shown) {
    columns.push({ title: MODELS.length > 1 ? MODELS[index].name : "value",
      value: name => find(part, name).value,
      show: name => withRange(find(part, name).value, find(part, name)) });
    columns.push({ title: "0 to 1", plain: true, value: name => find(part, name).value,
      show: name => intervalMark(find(part, name), MODEL_COLOURS[index]) });
  }
  if (shown.length === 1) columns.push({ title: "meaning", plain: true, text: true, value: name => HELP[name], show: name => el("span",
    { class: "soft small" }, HELP[name]) });
  return sortedTable(`${task}-metrics`, columns, names, render);
}

function classTable(task, render) {
  const main = task === "detection" ? "ap" : "iou", title = main === "ap" ? "AP" : "IoU";
  const shown = MODELS.map((model, index) => ({ part: model[task], index })).filter(m => m.part);
  const names = [...new Set(shown.flatMap(m => m.part.classes))]
    .filter(name => !STATE.cls || name === STATE.cls);
  const of = (part, name) => part.per_class[part.classes.indexOf(name)] ?? {};
  const several = shown.length > 1;
  const columns = [{ title: "class", value: name => name, show: name => [swatch(name), name] }];
  for (const { part, index } of shown) {
    const suffix = several ? `, ${MODELS[index].name}` : "";
    const column = (label, key, show, help) => columns.push({ title: label + suffix, help,
      value: name => of(part, name)[key] ?? null, show: name => show(of(part, name)) });
    column(title, main, row => withRange(row[main], row));
    if (!several) columns.push({ title: "0 to 1", plain: true, value: () => null,
      show: name => intervalMark({ ...of(part, name), value: of(part, name)[main] ?? null,
        low: of(part, name).low ?? null }, MODEL_COLOURS[index]) });
    if (task === "detection") {
      if (!several) column("AP50", "ap50", row => number(row.ap50));
      column("best F1", "best_f1", row => number(row.best_f1));
      column("at score", "best_score", row => number(row.best_score, 2),
        "The lowest accepted score at which F1 of this class is best");
    }
    if (!several) for (const name of ["precision", "recall"]) column(name, name,
      row => number(row[name]), task === "detection" ? `At a score of ${part.min_score}` : null);
    if (!several && task === "segmentation") column("of all pixels", "share",
      row => row.share === undefined ? "–" : `${(100 * row.share).toFixed(1)} %`);
  }
  if (task === "detection") for (const key of ["objects", "images"]) columns.push({ title: key,
    value: name => of(shown[0].part, name)[key] ?? null,
    show: name => count(of(shown[0].part, name)[key] ?? 0) });
  return sortedTable(`${task}-classes`, columns, names, render);
}

const GRID = Array.from({ length: 101 }, (_, n) => n / 100);

// Lines of a curve: the mean of all classes with the classes behind it, or the chosen class.
function curveLines(name, { faint = true } = {}) {
  const lines = [];
  MODELS.forEach((model, index) => {
    const part = model.detection;
    if (!part) return;
    const curves = part.curves[name], n = chosen(part), colour = MODEL_COLOURS[index];
    const label = MODELS.length > 1 ? model.name : (STATE.cls || "mean of all classes");
    if (STATE.cls) {
      if (n >= 0) lines.push({ name: label, colour, x: GRID, y: curves[n] });
      return;
    }
    if (faint && MODELS.length === 1) part.classes.forEach((cls, k) => lines.push({ name: cls,
      colour, x: GRID, y: curves[k], faint: true }));
    lines.push({ name: label, colour, x: GRID, y: GRID.map((_, i) => mean(curves.map(c => c[i]))) });
  });
  return lines;
}

function bestMarks() {
  return MODELS.map((model, index) => {
    const part = model.detection;
    if (!part) return null;
    const row = part.per_class[chosen(part)];
    const x = row ? row.best_score : STATE.cls ? null : part.min_score;
    const y = row ? row.best_f1 : mean(part.curves.f1.map(c => c[Math.round(part.min_score * 100)]));
    return x === null || x === undefined ? null : { x, y, colour: MODEL_COLOURS[index],
      label: `best F1 ${number(y)} at a score of ${number(x, 2)}` };
  }).filter(Boolean);
}

function curvesSection() {
  const hint = "Point at a chart to read its values.";
  const marks = bestMarks();
  const best = marks.map(mark => mark.label).join("; ");
  return el("section", { id: "curves" }, el("h2", {}, "Which score to accept"),
    el("p", { class: "lead" }, "A higher lowest score makes detections more often right " +
      "(precision) and finds fewer objects (recall). F1 is high where both are; the dot marks " +
      "its best value. A box is right from an overlap (IoU) of 0.5."),
    el("div", { class: "grid" },
      panel("Precision against recall", lineChart(curveLines("precision_at_recalls"),
        { x: [0, 1, "recall"], y: [0, 1, "precision"], caption: hint })),
      panel("F1 against the lowest score", lineChart(curveLines("f1"),
        { x: [0, 1, "lowest score"], y: [0, 1, "F1"], marks, caption: best })),
      panel("Precision against the lowest score", lineChart(curveLines("precision"),
        { x: [0, 1, "lowest score"], y: [0, 1, "precision"], caption: hint })),
      panel("Recall against the lowest score", lineChart(curveLines("recall"),
        { x: [0, 1, "lowest score"], y: [0, 1, "recall"], caption: hint }))));
}

function groupsSection() {
  return el("section", { id: "groups" }, el("h2", {}, "Size and crowding"),
    el("p", { class: "lead" }, "The share of objects that are found, at the common lowest score, " +
      "by their size, by the number of objects in their image, and by their overlap with others."),
    perModel("detection", part => part.groups.map(group => {
      const n = chosen(part);
      const total = (rows, g) => n < 0 ? sum(rows.map(row => row[g])) : rows[n][g];
      const rows = group.names.map((name, g) => {
        const found = total(group.found, g), all = total(group.all, g);
        const ap = group.ap && n < 0 && group.ap[g] !== null ? `, AP ${number(group.ap[g])}` : "";
        return { label: name, share: all ? found / all : 0, title: SIZE_HELP[name],
          text: all ? `${percent(found / all)} of ${count(all)}${ap}` : "none" };
      });
      return el("div", { style: "margin-bottom:1.3rem" }, el("h3", {}, `By ${group.title}`), bars(rows));
    })));
}

const SIZE_HELP = { tiny: "up to 16 x 16 pixels", small: "up to 32 x 32 pixels",
  medium: "up to 96 x 96 pixels", large: "up to 256 x 256 pixels",
  "very large": "above 256 x 256 pixels" };

function calibrationSection() {
  const lines = [{ name: "a score that is a probability", colour: "var(--soft)", dashed: true,
    x: [0, 1], y: [0, 1] }];
  const texts = [];
  MODELS.forEach((model, index) => {
    const part = model.detection;
    if (!part || (STATE.cls && chosen(part) < 0)) return;
    const values = STATE.cls ? part.calibration.by_class[chosen(part)] : part.calibration;
    const kept = values.counts.map((number, n) => n).filter(n => values.counts[n]);
    lines.push({ name: model.name, colour: MODEL_COLOURS[index], points: true,
      x: kept.map(n => values.scores[n]), y: kept.map(n => values.right[n]) });
    texts.push(el("p", {}, MODELS.length > 1 ? [chip(index), " "] : null,
      `Expected calibration error ${number(values.error)}: the mean distance of a score from the ` +
      `share of right detections. Scores are ${number(Math.abs(values.bias ?? 0))} too ` +
      `${(values.bias ?? 0) > 0 ? "high" : "low"} on average.`),
    bars(values.counts.map((n, bin) => ({ label: `${bin / 10}–${(bin + 1) / 10}`,
      share: n / Math.max(1, ...values.counts), text: `${count(n)}`, colour: MODEL_COLOURS[index] }))));
  });
  return el("section", { id: "calibration" }, el("h2", {}, "Calibration"),
    el("p", { class: "lead" }, "Whether 0.7 means that 70 of 100 such detections are right."),
    el("div", { class: "grid" },
      panel("Share of right detections against the score", lineChart(lines,
        { x: [0, 1, "score"], y: [0, 1, "share of right detections"],
          caption: "Each dot is a tenth of the range of scores." })),
      panel("Detections by score", texts)));
}

function runsSection(render) {
  return el("section", { id: "runs" }, el("h2", {}, "Runs with other seeds"),
    el("p", { class: "lead" }, "Mean over the runs, with the 95 % interval of the mean " +
      "(Student's distribution): how far training again with other seeds would move it."),
    Object.entries(DATA.runs).map(([task, rows]) => panel(task, sortedTable(`runs-${task}`, [
      { title: "metric", value: row => row.name }, { title: "mean", value: row => row.mean,
        show: row => withRange(row.mean, row) },
      ...MODELS.map((model, n) => ({ title: model.name, value: row => row.values[n],
        show: row => number(row.values[n]) }))], rows, render))));
}

function comparisonSection(render) {
  return el("section", { id: "comparison" }, el("h2", {}, "What changed"),
    el("p", { class: "lead" }, `${MODELS[1].name} minus ${MODELS[0].name}, on the same images. ` +
      "An interval that leaves out 0 is a clear difference; it is coloured."),
    Object.entries(DATA.comparison).map(([task, compared]) => [
      panel(`${task}: averages and classes`, differences(`${task}-differences`,
        STATE.cls ? compared.classes : compared.metrics.concat(compared.classes), render)),
      el("div", { style: "height:1rem" }),
      STATE.cls ? null : panel(`${task}: images that changed most`,
        changedImages(task, compared.images, render))]));
}

function differences(key, rows, render) {
  const shown = rows.filter(row => !STATE.cls || row.name === STATE.cls);
  return sortedTable(key, [
    { title: "name", value: row => row.name },
    { title: MODELS[0].name, value: row => row.first, show: row => number(row.first) },
    { title: MODELS[1].name, value: row => row.second, show: row => number(row.second) },
    { title: "difference", value: row => row.difference,
      mark: row => row.clear ? (row.difference > 0 ? "better" : "worse") : null,
      show: row => row.difference === null ? "–" : [signed(row.difference),
        el("span", { class: "range" }, `${signed(row.low)} to ${signed(row.high)}`)] },
  ], shown, render);
}

function changedImages(task, rows, render) {
  const unit = task === "detection" ? "errors" : "wrong pixels";
  const text = value => task === "detection" ? String(value) : `${(100 * value).toFixed(1)} %`;
  return sortedTable(`${task}-images`, [
    { title: "image", value: row => row.name },
    { title: `${unit}, ${MODELS[0].name}`, value: row => row.first, show: row => text(row.first) },
    { title: `${unit}, ${MODELS[1].name}`, value: row => row.second, show: row => text(row.second) },
    { title: "change", value: row => row.second - row.first,
      mark: row => row.second < row.first ? "better" : "worse",
      show: row => `${row.second > row.first ? "+" : "−"}${text(Math.abs(row.second - row.first))}` },
  ], rows, render);
}
