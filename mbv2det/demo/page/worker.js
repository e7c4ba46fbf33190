// Runs the network beside the page, which stays responsive.
import * as ort from "./runtime/ort.wasm.min.mjs";
import { candidates } from "./detections.js";

const TOP_CLASSES = 5;
let session, model;

const answers = { load, run };

onmessage = async ({ data: { id, kind, ...request } }) => {
  try {
    const { answer, transfer = [] } = await answers[kind](request);
    postMessage({ id, answer }, transfer);
  } catch (error) {
    postMessage({ id, error: String(error?.message ?? error) });
  }
};

async function load({ description, network, threads }) {
  model = description;
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmPaths = new URL("runtime/", import.meta.url).href;
  session = await ort.InferenceSession.create(new Uint8Array(network), {
    executionProviders: ["wasm"],
    logSeverityLevel: 3,
  });
  return { answer: { threads: ort.env.wasm.numThreads } };
}

// pixels: RGBA of an image, row by row.
async function run({ pixels, width, height }) {
  const started = performance.now();
  const images = new ort.Tensor("uint8", planes(pixels, width * height), [1, 3, height, width]);
  const called = performance.now();
  const tensors = await session.run({ [model.input]: images });
  const returned = performance.now();
  const answer = { width, height };
  const transfer = [];
  if (model.detection) answer.found = candidates(tensors, { width, height }, model.detection);
  if (model.segmentation) {
    answer.mask = tensors.classes.data.slice();
    transfer.push(answer.mask.buffer);
  }
  if (model.classification) answer.top = topClasses(tensors.probabilities.data);
  Object.values(tensors).forEach(tensor => tensor.dispose());
  const all = performance.now() - started;
  answer.milliseconds = { network: returned - called, other: all - (returned - called) };
  return { answer, transfer };
}

// Red, green and blue apart, as the network takes them.
function planes(rgba, count) {
  const result = new Uint8Array(3 * count);
  for (let to = 0, from = 0; to < count; to++, from += 4) {
    result[to] = rgba[from];
    result[to + count] = rgba[from + 1];
    result[to + 2 * count] = rgba[from + 2];
  }
  return result;
}

function topClasses(probabilities) {
  return Array.from(probabilities, (score, label) => ({ label, score }))
    .sort((a, b) => b.score - a.score)
    .slice(0, TOP_CLASSES);
}
