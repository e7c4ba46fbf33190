// What is found, as a sentence, as a table, and as files.
import { canvasOf } from "./images.js";
import { css } from "./draw.js";
import { el } from "./dom.js";

export function sentence(model, shown) {
  const parts = [];
  if (model.detection) {
    const counts = new Map();
    shown.detections.forEach(({ name }) => counts.set(name, (counts.get(name) ?? 0) + 1));
    const names = [...counts].map(([name, count]) => `${count} × ${name}`).join(", ");
    const number = shown.detections.length;
    parts.push(number ? `${number} object${number === 1 ? "" : "s"}: ${names}.`
      : "No object at this score.");
  }
  if (model.segmentation) {
    const names = shown.regions.map(({ name, share }) => `${name} ${percent(share)}`).join(", ");
    parts.push(names ? `Pixels: ${names}.` : "All pixels are background.");
  }
  if (model.classification && shown.top.length) {
    parts.push(`${shown.top[0].name}, ${percent(shown.top[0].score)}.`);
  }
  return parts.join(" ");
}

export function fillTable(table, shown) {
  table.replaceChildren(
    ...group("box", "score", shown.detections, row => row.score.toFixed(3)),
    ...group("mask", "share of pixels", shown.regions, row => percent(row.share)),
    ...group("class", "score", shown.top, row => row.score.toFixed(3)),
  );
}

// The content of the JSON file; boxes as `mbv2det predict` writes them.
export function resultsJson(model, item, shown, settings) {
  const { width, height, milliseconds } = item.output;
  return JSON.stringify({
    file_name: item.name, width, height, model: model.name, settings, milliseconds,
    ...model.detection && {
      detections: shown.detections.map(({ id, name, box, score }) => ({
        category_id: id, category_name: name,
        bbox: [box[0], box[1], box[2] - box[0], box[3] - box[1]].map(v => Number(v.toFixed(2))),
        score: Number(score.toFixed(5)),
      })),
    },
    ...model.segmentation && {
      regions: shown.regions.map(({ id, name, pixels }) => ({ value: id, class: name, pixels })),
    },
    ...model.classification && {
      classes: shown.top.map(({ name, score }) => ({ class: name, score: Number(score.toFixed(5)) })),
    },
  }, null, 1);
}

// A grey image of the data set's own values, of all classes.
export function maskImage(model, { mask, width, height }) {
  const canvas = canvasOf(width, height);
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const values = model.segmentation.classes.map(({ id }) => id);
  for (let at = 0; at < mask.length; at++) {
    pixels.data.fill(values[mask[at]], 4 * at, 4 * at + 3);
    pixels.data[4 * at + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

export function percent(share) {
  return `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
}

// Rows of one kind below their heading; nothing if there are none.
function group(kind, value, rows, format) {
  if (!rows.length) return [];
  const heading = el("tr", { class: "heading" },
    el("th", { scope: "col" }, kind), el("th", { scope: "col" }, value));
  return [el("tbody", {}, heading, ...rows.map(row => tableRow(row, format(row))))];
}

function tableRow({ name, colour }, value) {
  const swatch = colour && el("i", { class: "swatch", style: { background: css(colour) } });
  return el("tr", {}, el("th", { scope: "row" }, swatch, name), el("td", {}, value));
}
