// Detections from the tensors of the network, as `mbv2det predict` selects them. A set of
// detections is { boxes: Float32Array of xyxy in pixels, scores, labels }, best score first.

// The boxes that may be shown at any setting of the page.
export function candidates(tensors, size, part) {
  return part.suppressed ? padded(tensors) : decoded(tensors, size, part);
}

// What is left at a score and an overlap. A box suppresses those of its class that have a lower
// score and overlap it more.
export function select(found, part, minScore, overlap) {
  const kept = [];
  const keptOfClass = new Map();
  for (let row = 0; row < found.scores.length && kept.length < part.max_detections; row++) {
    if (found.scores[row] < minScore) break;
    const label = found.labels[row];
    if (!keptOfClass.has(label)) keptOfClass.set(label, []);
    const others = keptOfClass.get(label);
    if (others.some(other => iou(found.boxes, other, row) > overlap)) continue;
    others.push(row);
    kept.push(row);
  }
  return kept.map(row => ({
    label: found.labels[row],
    score: found.scores[row],
    box: Array.from(found.boxes.subarray(4 * row, 4 * row + 4)),
  }));
}

// Output of a file that suppresses overlapping boxes itself.
function padded({ boxes, scores, labels, count }) {
  const number = Number(count.data[0]);
  return {
    boxes: boxes.data.slice(0, 4 * number),
    scores: scores.data.slice(0, number),
    labels: Int32Array.from(labels.data.subarray(0, number), Number),
  };
}

// The box of every anchor, and its score for every class.
function decoded({ boxes, scores }, size, part) {
  const [, , numClasses] = scores.dims;
  const rows = [];
  for (let label = 0; label < numClasses; label++) {
    rows.push(...bestOfClass(scores.data, numClasses, label, part));
  }
  rows.sort((a, b) => b.score - a.score);
  const kept = rows
    .map(row => ({ ...row, box: clipped(boxes.data, row.anchor, size) }))
    .filter(({ box }) => box[2] > box[0] && box[3] > box[1]);
  return {
    boxes: Float32Array.from(kept.flatMap(row => row.box)),
    scores: Float32Array.from(kept, row => row.score),
    labels: Int32Array.from(kept, row => row.label),
  };
}

function bestOfClass(scores, numClasses, label, part) {
  const rows = [];
  for (let anchor = 0, at = label; at < scores.length; anchor++, at += numClasses) {
    if (scores[at] >= part.score_threshold) rows.push({ anchor, label, score: scores[at] });
  }
  if (rows.length <= part.candidates_per_class) return rows;
  return rows.sort((a, b) => b.score - a.score).slice(0, part.candidates_per_class);
}

function clipped(boxes, anchor, { width, height }) {
  const clip = (value, side) => Math.min(Math.max(value, 0), side);
  const at = 4 * anchor;
  return [
    clip(boxes[at], width), clip(boxes[at + 1], height),
    clip(boxes[at + 2], width), clip(boxes[at + 3], height),
  ];
}

// Intersection over union of two boxes of a set.
function iou(boxes, first, second) {
  const a = 4 * first, b = 4 * second;
  const width = Math.min(boxes[a + 2], boxes[b + 2]) - Math.max(boxes[a], boxes[b]);
  const height = Math.min(boxes[a + 3], boxes[b + 3]) - Math.max(boxes[a + 1], boxes[b + 1]);
  if (width <= 0 || height <= 0) return 0;
  const common = width * height;
  return common / (area(boxes, a) + area(boxes, b) - common);
}

function area(boxes, at) {
  return (boxes[at + 2] - boxes[at]) * (boxes[at + 3] - boxes[at + 1]);
}
