// Puts the sections together, and draws them again when the class or a switch changes.
function sections() {
  const detection = MODELS.some(model => model.detection);
  return [
    ["summary", "Summary", summarySection],
    MODELS.length === 2 && Object.keys(DATA.comparison).length
      ? ["comparison", "What changed", comparisonSection] : null,
    Object.keys(DATA.runs).length ? ["runs", "Runs", runsSection] : null,
    ...TASKS.map(task => [task, task === "detection" ? "Detection" : "Segmentation",
      render => metricsSection(task, render)]),
    detection ? ["errors", "Errors", errorsSection] : null,
    detection ? ["curves", "Scores", curvesSection] : null,
    ...TASKS.map(task => [`confusion-${task}`, task === "detection" ? "Confusion" : "Pixels",
      render => confusionSection(task, render)]),
    detection ? ["groups", "Size", groupsSection] : null,
    detection ? ["calibration", "Calibration", calibrationSection] : null,
    ["images", "Images", imagesSection],
    ["training", "Training", trainingSection],
    ["data-statistics", "Data", dataSection],
    ["origin", "Origin", originSection],
  ].filter(Boolean);
}

function render() {
  const content = document.getElementById("content"), y = window.scrollY;
  const made = sections().map(([id, title, make]) => [id, title, make(render)]).filter(([, , node]) => node);
  content.replaceChildren(...made.map(([, , node]) => node),
    el("footer", {}, "Made by mbv2det. Everything on this page is in this file."));
  document.querySelector("#bar nav").replaceChildren(...made.map(([id, title]) =>
    el("a", { href: `#${id}` }, title)));
  window.scrollTo({ top: y, behavior: "instant" });
}

function classFilter() {
  const names = [...new Set(MODELS.flatMap(model => TASKS.flatMap(task => model[task]?.classes ?? [])))];
  const select = el("select", { id: "class", onchange: event => {
    STATE.cls = event.target.value;
    event.target.parentNode.classList.toggle("filtered", Boolean(STATE.cls));
    render();
  } }, el("option", { value: "" }, "All classes"),
  names.sort((a, b) => a.localeCompare(b)).map(name => el("option", { value: name }, name)));
  return el("label", { class: "filter" }, "Class", select);
}

document.getElementById("top").append(...headerSection());
document.getElementById("bar").append(el("div", {}, el("nav", { "aria-label": "Sections" }), classFilter()));
render();
