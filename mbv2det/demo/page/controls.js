// Sliders, and the classes that can be switched off.
import { css } from "./draw.js";
import { byId, el } from "./dom.js";

export const SHOWN_SCORE = 0.3; // that of `mbv2det predict`
const OPACITY = 0.55;

// Builds the sliders that the network has a use for; returns their values.
export function buildSliders(model, onChange) {
  const settings = {};
  const add = slider => byId("sliders").append(sliderOf(slider, settings, onChange));
  if (model.detection) {
    add({ key: "score", label: "Lowest score", min: 0, max: 1, value: SHOWN_SCORE });
    const overlap = model.detection.nms_iou;
    add({
      key: "overlap", label: "Largest overlap", value: overlap,
      min: 0, max: model.detection.suppressed ? overlap : 1,
      help: "Of two boxes of a class that overlap more, the one with the lower score is left out."
        + (model.detection.suppressed
          ? ` The network's file has done so at ${overlap.toFixed(2)}.` : ""),
    });
  }
  if (model.segmentation) {
    add({ key: "opacity", label: "Opacity of masks", min: 0, max: 1, value: OPACITY });
  }
  byId("sliders").hidden = Object.keys(settings).length === 0;
  return settings;
}

function sliderOf({ key, label, min, max, value, help }, settings, onChange) {
  settings[key] = value;
  const output = el("output", { for: key }, value.toFixed(2));
  const input = el("input", {
    type: "range", id: key, min, max, step: 0.01, value,
    "aria-describedby": help ? `${key}-help` : null,
    oninput: () => {
      settings[key] = Number(input.value);
      output.textContent = settings[key].toFixed(2);
      onChange();
    },
  });
  const text = help ? el("p", { id: `${key}-help` }, help) : null;
  return el("div", { class: "slider" }, el("label", { for: key }, label), output, input, text);
}

// The classes of boxes and masks by name, a class of both once.
function classesOf(model) {
  const classes = new Map();
  for (const part of [model.detection, model.segmentation]) {
    part?.classes.filter(({ background }) => !background)
      .forEach(({ name, colour }) => classes.set(name, colour));
  }
  return classes;
}

// Builds the list of classes; returns the names that are switched off, and a function that marks
// those in the picture.
export function buildClasses(model, onChange) {
  const hidden = new Set();
  const rows = new Map();
  for (const [name, colour] of classesOf(model)) {
    const box = el("input", { type: "checkbox", checked: true, onchange: () => {
      if (box.checked) hidden.delete(name);
      else hidden.add(name);
      onChange();
    } });
    const swatch = el("i", { class: "swatch", style: { background: css(colour) } });
    const label = el("label", { title: name }, box, swatch, el("span", { class: "name" }, name));
    rows.set(name, { box, label });
  }
  byId("classes").replaceChildren(...[...rows.values()].map(({ label }) => el("li", {}, label)));
  byId("classes-panel").hidden = rows.size === 0;
  const switchAll = checked => {
    rows.forEach(({ box }, name) => {
      box.checked = checked;
      if (checked) hidden.delete(name);
      else hidden.add(name);
    });
    onChange();
  };
  byId("all").onclick = () => switchAll(true);
  byId("none").onclick = () => switchAll(false);
  const mark = found => rows.forEach(
    ({ label }, name) => label.classList.toggle("found", found.has(name)),
  );
  return { hidden, mark };
}
