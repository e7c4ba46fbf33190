// Elements of the page.

// Styles are set as properties: the page's own policy refuses them as text.
export function el(tag, { style, ...attributes } = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  Object.assign(node.style, style);
  node.append(...children.flat().filter(child => child !== null && child !== undefined));
  return node;
}

export const byId = id => document.getElementById(id);
