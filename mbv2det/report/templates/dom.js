// The data of the page, its state, and small helpers that every section uses.
const DATA = JSON.parse(document.getElementById("data").textContent);
const MODELS = DATA.models;
const TASKS = ["detection", "segmentation"].filter(task => MODELS.some(model => model[task]));
const MODEL_COLOURS = MODELS.map((_, n) => `var(--m${n % 6})`);
// What a reader has chosen: a class name (empty for all), sort orders and switches by name.
const STATE = { cls: "", sort: {}, choice: {}, more: {} };

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  fill(node, attributes, children);
  return node;
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  fill(node, attributes, children);
  return node;
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined));
}

function number(value, digits = 3) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

function percent(value) {
  return value === null || value === undefined ? "–" : `${(100 * value).toFixed(0)} %`;
}

function count(value) {
  return value.toLocaleString("en");
}

function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

function mean(values) {
  const defined = values.filter(value => value !== null);
  return defined.length ? sum(defined) / defined.length : null;
}

// Position of the chosen class in a part of a model; -1 for all classes or an unknown one.
function chosen(part) {
  return STATE.cls ? part.classes.indexOf(STATE.cls) : -1;
}

function chip(index) {
  return el("span", { class: "chip", style: `--own:${MODEL_COLOURS[index]}` }, MODELS[index].name);
}

function swatch(name) {
  return el("i", { class: "swatch", style: `background:${DATA.colours[name] || "transparent"}` });
}

function panel(title, ...content) {
  return el("div", { class: "panel" }, title ? el("h3", {}, title) : null, content);
}

// A panel for each model that has the task, side by side.
function perModel(task, make) {
  const panels = MODELS.map((model, index) => {
    const part = model[task];
    if (!part || (STATE.cls && chosen(part) < 0)) return null;
    return panel(MODELS.length > 1 ? chip(index) : null, make(part, index, model));
  });
  return el("div", { class: "grid" }, panels);
}

// Buttons of which one is pressed; the choice is kept under a key.
function choice(key, options, render) {
  const current = STATE.choice[key] ?? options[0][0];
  return el("div", { class: "switch", role: "group" }, options.map(([value, label]) => el("button", {
    type: "button", "aria-pressed": String(value === current), "data-choice": `${key}:${value}`,
    onclick: () => { STATE.choice[key] = value; render(); focusOn(`[data-choice="${key}:${value}"]`); },
  }, label)));
}

function chosenOf(key, options) {
  const value = STATE.choice[key];
  return options.some(option => option[0] === value) ? value : options[0][0];
}

function focusOn(selector) {
  document.querySelector(selector)?.focus({ preventScroll: true });
}
