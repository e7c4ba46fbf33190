// The enlarged image: annotation and prediction on and off, lowest score, opacity of masks.
const VIEW = { list: [], at: 0, model: 0, annotation: true, prediction: true, score: null, opacity: 0.6 };
const dialog = document.getElementById("viewer");

function openViewer(list, at, model) {
  Object.assign(VIEW, { list, at, model, score: MODELS[model].detection?.min_score ?? 0 });
  drawViewer();
  if (!dialog.open) dialog.showModal();
}

dialog.addEventListener("keydown", event => {
  if (event.target.type === "range") return;
  const keys = { ArrowRight: () => move(1), ArrowLeft: () => move(-1),
    a: () => toggle("annotation"), p: () => toggle("prediction") };
  const action = keys[event.key];
  if (action) { event.preventDefault(); action(); }
});
dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });

function move(step) {
  VIEW.at = (VIEW.at + step + VIEW.list.length) % VIEW.list.length;
  drawViewer();
}

function toggle(name) {
  VIEW[name] = !VIEW[name];
  drawViewer();
}

function drawViewer() {
  const image = DATA.images[VIEW.list[VIEW.at]];
  const focused = document.activeElement?.getAttribute?.("data-control");
  dialog.replaceChildren(el("div", { class: "viewer" },
    el("div", { class: "top" }, el("h2", {}, `${image.name} `,
      el("span", { class: "soft small" }, `${VIEW.at + 1} of ${VIEW.list.length}`)),
    button("previous", "←", () => move(-1), "Previous image"),
    button("next", "→", () => move(1), "Next image"),
    button("close", "Close", () => dialog.close())),
    el("div", { class: "stage", style: `--opacity:${VIEW.opacity}` }, stage(image)),
    controls(image), keyOfColours(image)));
  dialog.querySelector(`[data-control="${focused ?? "next"}"]`)?.focus();
}

function button(name, text, onclick, label) {
  return el("button", { type: "button", class: "button", "data-control": name, onclick,
    "aria-label": label }, text);
}

// One picture with both layers; with masks, which would hide each other, one for each layer.
function stage(image) {
  const shown = image.models[VIEW.model];
  const layers = [VIEW.annotation ? annotationLayer(image, shown) : null,
    VIEW.prediction ? predictionLayer(image, shown) : null].filter(Boolean);
  if (!(shown.mask || shown.truth_mask) || layers.length < 2) return picture(image, layers);
  return layers.map(layer => el("div", {}, el("p", { class: "soft small" },
    layer.dataset.layer === "annotation" ? "Annotation" : "Prediction"), picture(image, [layer])));
}

function picture(image, layers) {
  return svg("svg", { viewBox: `0 0 ${image.width} ${image.height}`, role: "img",
    "aria-label": image.name }, svg("image", { href: image.source, width: image.width,
    height: image.height }), layers);
}

function annotationLayer(image, shown) {
  return svg("g", { "data-layer": "annotation" }, maskShape(image, shown.truth_mask),
    annotationBoxes(image, shown));
}

function predictionLayer(image, shown) {
  return svg("g", { "data-layer": "prediction" }, maskShape(image, shown.mask),
    predictionBoxes(image, shown));
}

function maskShape(image, source) {
  return source ? svg("image", { class: "mask", href: source, width: image.width,
    height: image.height, preserveAspectRatio: "none" }) : null;
}

function accepted(shown) {
  return shown.detections.filter(box => box[5] >= VIEW.score - 1e-9);
}

// Boxes first, so that no box covers the text of another.
function annotationBoxes(image, shown) {
  const found = new Set(accepted(shown).filter(box => box[6] === "right").map(box => box[7]));
  const classes = MODELS[VIEW.model].detection?.classes ?? [];
  const kinds = shown.objects.map((box, n) => box[5] ? "ignored" : found.has(n) ? "found" : "missed");
  return [shown.objects.map((box, n) => boxShape(box.slice(1, 5), `annotation ${kinds[n]}`)),
    shown.objects.map((box, n) => kinds[n] === "found" ? null
      : tag(image, box.slice(1, 5), kinds[n], `${classes[box[0]]}: ${kinds[n]}`, true))];
}

function predictionBoxes(image, shown) {
  const classes = MODELS[VIEW.model].detection?.classes ?? [];
  const boxes = accepted(shown).reverse();
  const style = kind => kind === "right" ? "right" : kind === "on a crowd" ? "ignored" : "wrong";
  return [boxes.map(box => boxShape(box.slice(1, 5), style(box[6]))),
    boxes.map(box => tag(image, box.slice(1, 5), style(box[6]), `${classes[box[0]]} ` +
      box[5].toFixed(2) + (style(box[6]) === "wrong" ? `: ${KIND_TEXT[box[6]][0]}` : ""), false))];
}

// Text above a box, or below it for annotations; always within the image.
function tag(image, box, kind, text, below) {
  const size = Math.max(image.width, image.height) / 62, width = text.length * size * 0.56;
  const x = Math.max(0, Math.min(box[0], image.width - width - size * 0.6));
  const y = below ? Math.min(box[3], image.height - size * 1.3) : Math.max(0, box[1] - size * 1.3);
  return [svg("rect", { class: `label ${kind}`, x, y, width: width + size * 0.6, height: size * 1.3 }),
    svg("text", { class: "tag", x: x + size * 0.3, y: y + size, textLength: width,
      lengthAdjust: "spacingAndGlyphs", style: `font-size:${size}px` }, text)];
}

function controls(image) {
  const shown = image.models[VIEW.model];
  const check = (name, label) => el("label", {}, el("input", { type: "checkbox",
    "data-control": name, checked: VIEW[name], onchange: () => toggle(name) }), label);
  const slider = (name, label, text) => el("label", {}, label, el("input", { type: "range",
    "data-control": name, min: 0, max: 1, step: 0.01, value: VIEW[name], oninput: event => {
      VIEW[name] = Number(event.target.value);
      dialog.querySelector(".stage").replaceChildren(...[stage(image)].flat());
      dialog.querySelector(".stage").style.setProperty("--opacity", VIEW.opacity);
      event.target.nextSibling.textContent = VIEW[name].toFixed(2);
    } }), el("span", {}, text));
  return el("div", { class: "controls" }, check("annotation", "Annotation (A)"),
    check("prediction", "Prediction (P)"),
    MODELS[VIEW.model].detection ? slider("score", "Lowest score", VIEW.score.toFixed(2)) : null,
    shown.mask || shown.truth_mask ? slider("opacity", "Masks", VIEW.opacity.toFixed(2)) : null,
    MODELS.length > 1 ? el("label", {}, "Model", el("select", { "data-control": "model",
      onchange: event => {
        VIEW.model = Number(event.target.value);
        VIEW.score = MODELS[VIEW.model].detection?.min_score ?? 0;
        drawViewer();
      } }, MODELS.map((model, n) => el("option", { value: n, selected: n === VIEW.model },
      model.name)))) : null);
}

function keyOfColours(image) {
  const entry = (colour, text, dashed) => el("span", {}, el("i", { class: dashed ? "dashed" : null,
    style: `--own:${colour}` }), text);
  const model = MODELS[VIEW.model], labels = image.models[VIEW.model].labels;
  const masks = labels.map(label => model.segmentation.classes[label])
    .filter(name => name !== "background").map(name => el("span", {}, swatch(name), name));
  const boxes = !model.detection ? [] : [entry("#35c27a", "right detection"),
    entry("#ff5d45", "wrong detection"), entry("#ffc23d", "missed object", true),
    entry("#ffffff", "found object", true),
    entry("#9aa5ab", "crowd or difficult object", true)];
  return el("div", { class: "key" }, boxes, masks);
}
