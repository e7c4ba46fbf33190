// What the settings leave of the prediction of an image.
import { select } from "./detections.js";
import { tintOf } from "./draw.js";

// output: answer of the engine; hidden: names of the classes that are switched off.
export function shownOf(output, model, settings, hidden) {
  const visible = ({ name }) => !hidden.has(name);
  return {
    detections: model.detection ? detectionsOf(output, model.detection, settings, visible) : [],
    regions: model.segmentation ? regionsOf(output, model.segmentation, visible) : [],
    tint: model.segmentation ? tintOfOutput(output, model.segmentation, visible) : null,
    top: (output.top ?? []).map(row => ({ ...row, ...model.classification.classes[row.label] })),
  };
}

function detectionsOf(output, part, { score, overlap }, visible) {
  return select(output.found, part, score, overlap)
    .map(row => ({ ...row, ...part.classes[row.label] }))
    .filter(visible)
    .map(row => ({ ...row, tag: `${row.name} ${row.score.toFixed(2)}` }));
}

function regionsOf(output, part, visible) {
  output.pixels ??= countPixels(output.mask, part.classes.length);
  return part.classes
    .map((row, label) => ({ ...row, pixels: output.pixels[label] }))
    .filter(row => row.pixels > 0 && !row.background && visible(row))
    .map(row => ({ ...row, share: row.pixels / output.mask.length }))
    .sort((a, b) => b.pixels - a.pixels);
}

function countPixels(mask, numLabels) {
  const counts = new Array(numLabels).fill(0);
  for (const label of mask) counts[label]++;
  return counts;
}

// A tint is kept until other classes are switched off: it takes long for large photographs.
function tintOfOutput(output, part, visible) {
  const colours = part.classes.map(row => (row.background || !visible(row) ? null : row.colour));
  const key = colours.map(colour => Number(colour !== null)).join("");
  if (output.tintKey !== key) {
    output.tint = tintOf(output.mask, output.width, output.height, colours);
    output.tintKey = key;
  }
  return output.tint;
}
