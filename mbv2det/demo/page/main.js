// The page: pictures come in, the engine predicts them, settings change what is shown.
import { Camera, FrameRate } from "./camera.js";
import { buildClasses, buildSliders } from "./controls.js";
import { byId, el } from "./dom.js";
import { drawPrediction } from "./draw.js";
import { Engine, possibleThreads } from "./engine.js";
import { canvasOf, decode, pixelsOf, save, thumbnail } from "./images.js";
import { fillTable, maskImage, resultsJson, sentence } from "./results.js";
import { shownOf } from "./shown.js";

const TALLEST = 0.72; // of the window, for the picture
const SAVED_UNIT = 640; // a saved picture has the lines of one of this width on the page

const engine = new Engine();
const camera = new Camera();
const items = []; // { name, blob, button, image, output }, images of the strip
let model, settings, classes, current, rate;

// ---- what is shown

// The largest canvas that fits the page, in pixels of the screen.
function fitCanvas(canvas, image) {
  const space = byId("stage").clientWidth;
  const width = Math.min(space, TALLEST * innerHeight * image.width / image.height);
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(width * ratio * image.height / image.width));
  canvas.style.width = `${width}px`;
  return ratio;
}

function shownNow() {
  return shownOf(current.output, model, settings, classes.hidden);
}

function render() {
  if (!current?.output) return;
  const shown = shownNow();
  const canvas = byId("picture");
  const unit = fitCanvas(canvas, current.image);
  drawPrediction(canvas, current.image, shown, settings.opacity ?? 0, unit);
  const text = sentence(model, shown);
  canvas.setAttribute("aria-label", `${current.name}. ${text}`);
  // Screen readers would never end reading the frames of a camera.
  byId("summary").setAttribute("aria-live", camera.running ? "off" : "polite");
  if (byId("summary").textContent !== text) byId("summary").textContent = text;
  fillTable(byId("results"), shown);
  classes.mark(new Set([...shown.detections, ...shown.regions].map(({ name }) => name)));
  showTimes(current.output.milliseconds);
  for (const id of ["save-json", "save-picture", "save-mask"]) byId(id).disabled = false;
}

function showTimes({ network, other }) {
  const rows = [["Network", `${network.toFixed(0)} ms`], ["Before and after", `${other.toFixed(0)} ms`]];
  if (rate) rows.push(["Frames per second", rate.value ? rate.value.toFixed(1) : "–"]);
  rows.push(["Picture", `${current.image.width} × ${current.image.height}`]);
  byId("times").replaceChildren(
    ...rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
  );
}

function notice(text) {
  byId("notice").textContent = text;
}

// ---- pictures

async function predict(item) {
  byId("busy").hidden = camera.running;
  try {
    item.output = await engine.run(pixelsOf(item.image));
  } finally {
    byId("busy").hidden = true;
  }
}

async function show(item) {
  stopCamera();
  current = item;
  items.forEach(other => other.button.setAttribute("aria-pressed", String(other === item)));
  try {
    item.image ??= await decode(item.blob);
    if (!item.output) await predict(item);
  } catch (error) {
    notice(`${item.name} cannot be shown: ${error.message}`);
    return;
  }
  if (current === item) render(); // another may have been chosen meanwhile
}

function addItem(item, picture, { first }) {
  item.button = el("button", { type: "button", "aria-pressed": "false", onclick: () => show(item) },
    el("img", { src: picture, alt: "" }), el("span", {}, item.name));
  if (first) {
    items.unshift(item);
    byId("strip").prepend(item.button);
  } else {
    items.push(item);
    byId("strip").append(item.button);
  }
}

// Adds the visitor's files before the samples, and shows the first.
async function addFiles(files) {
  notice("");
  const added = [];
  for (const blob of [...files].reverse()) {
    const name = blob.name || "photograph.png";
    try {
      const image = await decode(blob);
      const item = { name, blob, image };
      addItem(item, thumbnail(image), { first: true });
      added.unshift(item);
    } catch {
      notice(`${name} is no image that this browser can read.`);
    }
  }
  if (added.length) await show(added[0]);
}

async function addSamples() {
  for (const [index, path] of model.samples.entries()) {
    const blob = await (await fetch(path)).blob();
    addItem({ name: `Sample ${index + 1}`, blob }, path, { first: false });
  }
}

// ---- camera

async function startCamera() {
  notice("");
  const frames = new FrameRate();
  try {
    await camera.start(async image => {
      const item = { name: "camera", image };
      await predict(item);
      if (!camera.running) return;
      current = item;
      rate = { value: frames.tick() };
      render();
    }, error => {
      stopCamera();
      if (error) notice(`The camera has stopped: ${error.message}`);
    });
  } catch (error) {
    stopCamera();
    notice(`The camera cannot be used: ${error.message}`);
    return;
  }
  items.forEach(item => item.button.setAttribute("aria-pressed", "false"));
  markCamera();
}

function stopCamera() {
  camera.stop();
  rate = undefined;
  markCamera();
  render();
}

function markCamera() {
  byId("camera").setAttribute("aria-pressed", String(camera.running));
  byId("camera").textContent = camera.running ? "Stop camera" : "Start camera";
}

// ---- what the visitor does

function listen() {
  byId("choose").onclick = () => byId("files").click();
  byId("files").onchange = event => addFiles(event.target.files);
  byId("camera").onclick = () => (camera.running ? stopCamera() : startCamera());
  addEventListener("dragover", event => {
    event.preventDefault();
    byId("drop").hidden = false;
  });
  addEventListener("dragleave", event => {
    if (event.relatedTarget === null) byId("drop").hidden = true;
  });
  addEventListener("drop", event => {
    event.preventDefault();
    byId("drop").hidden = true;
    addFiles(event.dataTransfer.files);
  });
  addEventListener("paste", event => {
    if (event.clipboardData.files.length) addFiles(event.clipboardData.files);
  });
  new ResizeObserver(render).observe(byId("stage"));
  byId("save-json").onclick = () => saveAs(".json", shown => (
    resultsJson(model, current, shown, { ...settings, hidden_classes: [...classes.hidden] })));
  byId("save-mask").onclick = () => saveAs("_mask.png", () => maskImage(model, current.output));
  byId("save-picture").onclick = () => saveAs("_predicted.png", shown => {
    const { image } = current;
    const canvas = canvasOf(image.width, image.height);
    drawPrediction(canvas, image, shown, settings.opacity ?? 0, Math.max(1, image.width / SAVED_UNIT));
    return canvas;
  });
}

function saveAs(ending, make) {
  save(make(shownNow()), current.name.replace(/\.\w+$/, "") + ending);
}

// ---- start

async function download(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: the server answered ${answer.status}`);
  return answer;
}

function titleOf({ detection, segmentation }) {
  if (detection && segmentation) return "Detection and segmentation";
  if (detection) return "Object detection";
  return segmentation ? "Semantic segmentation" : "Image classification";
}

function describe(threads) {
  const megabytes = (model.bytes / 1e6).toFixed(1);
  const facts = [
    model.name, model.network, `${model.size.join(" × ")} network input`, `${megabytes} MB, ${model.precision}`,
    threads === 1 ? "1 thread" : `${threads} threads`,
  ];
  byId("facts").replaceChildren(...facts.map(fact => el("span", {}, fact)));
  notice(crossOriginIsolated ? "" : "One thread: this server does not send the headers "
    + "Cross-Origin-Opener-Policy and Cross-Origin-Embedder-Policy, which threads need.");
}

async function start() {
  notice("Loading the network …");
  model = await (await download("model.json")).json();
  byId("title").textContent = document.title = titleOf(model);
  const network = await (await download(model.file)).arrayBuffer();
  const { threads } = await engine.load(model, network, possibleThreads());
  settings = buildSliders(model, render);
  classes = buildClasses(model, render);
  byId("save-mask").hidden = !model.segmentation;
  describe(threads);
  listen();
  await addSamples();
  byId("choose").disabled = byId("camera").disabled = false;
  await show(items[0]);
}

start().catch(error => notice(`The demo cannot start: ${error.message}`));
