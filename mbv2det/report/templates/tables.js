// Tables that sort by any column, by mouse or keyboard.

// columns: {title, value(row), show(row), mark(row), help, plain: does not sort, text: to the left}
function sortedTable(key, columns, rows, render) {
  const order = STATE.sort[key];
  const sorted = [...rows];
  if (order) {
    const value = columns[order.column].value, sign = order.descending ? -1 : 1;
    sorted.sort((a, b) => sign * compareValues(value(a), value(b), sign));
  }
  const heading = (column, n) => el("th", { scope: "col", title: column.help,
    class: column.text ? "text" : null, "aria-sort": order?.column !== n ? null
      : order.descending ? "descending" : "ascending" }, column.plain ? column.title
    : el("button", { type: "button", "data-sort": `${key}:${n}`,
      onclick: () => sortBy(key, n, columns, render) }, column.title));
  return el("div", { class: `scroll ${rows.length > 30 ? "tall" : ""}`,
    tabindex: rows.length > 30 ? "0" : null },
  el("table", { "data-table": key },
    el("thead", {}, el("tr", {}, columns.map(heading))),
    el("tbody", {}, sorted.map(row => el("tr", {}, columns.map((column, n) =>
      cellOf(column, row, n)))))));
}

function cellOf(column, row, n) {
  const content = column.show ? column.show(row) : column.value(row) ?? "–";
  const attributes = { class: column.mark ? column.mark(row) : column.text ? "text" : null };
  return n ? el("td", attributes, content)
    : el("th", { ...attributes, scope: "row", style: "text-align:left;font-weight:500" }, content);
}

// Nothing to measure comes last in either direction.
function compareValues(a, b, sign) {
  const noA = a === null || a === undefined, noB = b === null || b === undefined;
  if (noA || noB) return noA === noB ? 0 : (noA ? sign : -sign);
  return typeof a === "string" ? a.localeCompare(b) : a - b;
}

// The first click sorts names upwards and numbers downwards, the next one the other way.
function sortBy(key, column, columns, render) {
  const order = STATE.sort[key];
  const descending = order?.column === column ? !order.descending : column > 0;
  STATE.sort[key] = { column, descending };
  render();
  focusOn(`[data-sort="${key}:${column}"]`);
}

function withRange(value, row) {
  if (row.low === null || row.low === undefined) return number(value);
  return [number(value), el("span", { class: "range" }, `${number(row.low)}–${number(row.high)}`)];
}

function signed(value) {
  return value === null ? "–" : `${value > 0 ? "+" : value < 0 ? "−" : ""}${Math.abs(value).toFixed(3)}`;
}
