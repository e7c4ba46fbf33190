// Images with errors as tiles that open in the viewer.
const GALLERIES = [
  ["worst", "Most errors", "detection"], ["wrong", "Wrong detections, by score", "detection"],
  ["missed", "Missed objects, by size", "detection"],
  ["worst_masks", "Most wrong pixels", "segmentation"],
];
const IMAGE_AT = new Map(DATA.images.map((image, position) => [image.index, position]));

function imagesSection(render) {
  const options = GALLERIES.filter(([name]) => MODELS.some(model => model.galleries[name]))
    .map(([name, title]) => [name, title]);
  if (!options.length || !DATA.images.length) return null;
  const models = MODELS.map((model, index) => [String(index), model.name]);
  const name = chosenOf("gallery", options), index = Number(chosenOf("gallery-model", models));
  const task = GALLERIES.find(gallery => gallery[0] === name)[2];
  const entries = entriesOf(index, name, task);
  const key = `${name}-${index}-${STATE.cls}`, most = STATE.more[key] ?? 12;
  return el("section", { id: "images" }, el("h2", {}, "Images"),
    el("p", { class: "lead" }, "Choose an image to enlarge it and to switch annotation and " +
      "prediction on and off."),
    el("div", {}, choice("gallery", options, render), " ",
      MODELS.length > 1 ? choice("gallery-model", models, render) : null),
    entries.length ? el("div", { class: "gallery" },
      entries.slice(0, most).map((entry, n) => tile(entry, n, entries, index, name)))
      : el("p", { class: "soft" }, "No such errors among the images shown."),
    entries.length > most ? el("button", { type: "button", class: "button more", onclick: () => {
      STATE.more[key] = most + 24;
      render();
    } }, `Show more (${entries.length - most})`) : null);
}

function entriesOf(index, name, task) {
  const model = MODELS[index], entries = model.galleries[name] ?? [];
  const part = model[task], n = part ? chosen(part) : -1;
  if (!STATE.cls) return entries.filter((entry, k) => name !== "worst_masks" || entry.label === null);
  if (n < 0) return [];
  if (name !== "worst") return entries.filter(entry => entry.label === n);
  return entries.filter(entry => {
    const shown = DATA.images[IMAGE_AT.get(entry.image)].models[index];
    return shown.objects.concat(shown.detections).some(box => box[0] === n);
  });
}

function captionOf(entry, index, name) {
  const part = MODELS[index].detection, cls = part?.classes[entry.label];
  if (name === "worst") return `${entry.errors} error${entry.errors === 1 ? "" : "s"}`;
  if (name === "wrong") return `${cls} ${number(entry.score, 2)}: ${KIND_TEXT[entry.kind]?.[0] ?? entry.kind}`;
  if (name === "missed") return `${cls}, ${Math.round(Math.sqrt(entry.area))} pixels wide and high`;
  return `${(100 * entry.wrong).toFixed(1)} % of the pixels wrong`;
}

function tile(entry, n, entries, index, name) {
  const image = DATA.images[IMAGE_AT.get(entry.image)];
  const caption = captionOf(entry, index, name);
  const drawing = svg("svg", { viewBox: `0 0 ${image.width} ${image.height}`,
    preserveAspectRatio: "xMidYMid meet", "aria-hidden": "true" },
  svg("image", { href: image.source, width: image.width, height: image.height }),
  name === "worst_masks" && image.models[index].mask ? svg("image", { class: "mask",
    href: image.models[index].mask, width: image.width, height: image.height,
    preserveAspectRatio: "none" }) : null,
  entry.box ? boxShape(entry.box, name === "wrong" ? "wrong" : "missed annotation") : null);
  return el("button", { type: "button", class: "tile", "data-tile": n,
    "aria-label": `${image.name}: ${caption}`,
    onclick: () => openViewer(entries.map(e => IMAGE_AT.get(e.image)), n, index) },
  el("div", { class: "frame" }, drawing),
  el("div", { class: "caption" }, el("strong", {}, caption), el("br"),
    el("span", { class: "soft" }, image.name)));
}

function boxShape([left, top, right, bottom], kind) {
  return svg("rect", { class: `box ${kind}`, x: left, y: top, width: Math.max(0, right - left),
    height: Math.max(0, bottom - top) });
}
