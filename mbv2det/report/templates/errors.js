// Where the models fail: the error split of detections, and confusion matrices.
const KIND_TEXT = {
  class: ["class", "right place, wrong class"],
  location: ["location", "right class, overlap of only 0.1 to 0.5"],
  both: ["class and location", "wrong class, overlap of only 0.1 to 0.5"],
  duplicate: ["duplicate", "a second box on an object that is found"],
  background: ["background", "no object there"],
  missed: ["missed", "an object that nothing found"],
};

function errorsSection() {
  return el("section", { id: "errors" }, el("h2", {}, "Why AP is lost"),
    el("p", { class: "lead" }, "How much AP50 would rise if all errors of one kind were " +
      "corrected, and how many there are at the common lowest score (and at any score), after " +
      "TIDE (Bolya et al. 2020)."),
    perModel("detection", part => {
      const n = chosen(part), gain = row => gainOf(row, n);
      const total = values => n < 0 ? sum(values) : values[n];
      // One scale for all models.
      const most = Math.max(0.001, ...MODELS.filter(model => model.detection).flatMap(
        ({ detection }) => detection.errors.map(row => gainOf(row, chosen(detection)))));
      return bars(part.errors.map(row => ({
        label: [el("strong", {}, KIND_TEXT[row.kind][0]), el("br"),
          el("span", { class: "soft small" }, KIND_TEXT[row.kind][1])],
        share: gain(row) / most,
        colour: row.kind === "missed" ? "var(--missed)" : "var(--wrong)",
        text: [`+${number(gain(row))}`, el("br"), el("span", { class: "soft small" },
          `${count(total(row.accepted))} (${count(total(row.all_scores))})`)],
      })));
    }));
}

function gainOf(row, n) {
  return n < 0 ? row.gain : row.class_gains[n] ?? 0;
}

function confusionSection(task, render) {
  const options = [["row", "Shares of what is there"], ["column", "Shares of what was predicted"]];
  const key = `confusion-${task}`, unit = task === "detection" ? "" : " pixels";
  const axis = chosenOf(key, options);
  const lead = task === "detection" ? "At the common lowest score. An object counts as background " +
    "where nothing was detected, a detection where there is no object." : "By pixels.";
  return el("section", { id: key }, el("h2", {}, task === "detection" ? "Confusion of objects"
    : "Confusion of pixels"),
  el("p", { class: "lead" }, lead), choice(key, options, render),
  perModel(task, (part, index) => {
    const matrix = part.confusion;
    const names = matrix.length > part.classes.length ? [...part.classes, "background"] : part.classes;
    const shares = sharesOf(matrix, axis);
    const describe = (row, column) => `${names[row]} as ${names[column]}: ` +
      `${count(matrix[row][column])}${unit} (${(100 * shares[row][column]).toFixed(1)} %)`;
    const n = chosen(part);
    return [n >= 0 ? confusionOf(n, names, matrix) : matrixChart(names, shares, describe),
      el("h3", { style: "margin-top:1.2rem" }, "Largest confusions"),
      sortedTable(`${key}-pairs-${index}`, pairColumns(unit), pairsOf(names, matrix, n), render)];
  }));
}

function sharesOf(matrix, axis) {
  const rows = matrix.map(sum), columns = matrix[0].map((_, c) => sum(matrix.map(row => row[c])));
  return matrix.map((row, r) => row.map((value, c) => value / ((axis === "row" ? rows[r] : columns[c]) || 1)));
}

function confusionOf(n, names, matrix) {
  const list = (title, values) => {
    const total = sum(values) || 1;
    const rows = values.map((value, k) => ({ label: [swatch(names[k]), names[k]], value }))
      .filter(row => row.value).sort((a, b) => b.value - a.value).slice(0, 8);
    return el("div", { style: "margin-bottom:1.2rem" }, el("h3", {}, title), rows.length
      ? bars(rows.map(row => ({ ...row, share: row.value / total,
        text: `${count(row.value)} (${percent(row.value / total)})` }))) : el("p", { class: "soft" }, "None."));
  };
  return [list(`What ${names[n]} was taken for`, matrix[n]),
    list(`What was taken for ${names[n]}`, matrix.map(row => row[n]))];
}

function pairsOf(names, matrix, n) {
  const pairs = [];
  matrix.forEach((row, r) => row.forEach((value, c) => {
    if (r !== c && value && (n < 0 || r === n || c === n)) pairs.push({ there: names[r],
      predicted: names[c], value, share: value / sum(row) });
  }));
  return pairs.sort((a, b) => b.value - a.value).slice(0, 12);
}

function pairColumns(unit) {
  return [{ title: "what is there", value: pair => pair.there },
    { title: "predicted", value: pair => pair.predicted },
    { title: unit.trim() || "count", value: pair => pair.value, show: pair => count(pair.value) },
    { title: "share", value: pair => pair.share, show: pair => `${(100 * pair.share).toFixed(1)} %` }];
}
