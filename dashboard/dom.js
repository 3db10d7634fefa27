// Elements from data. Text is always text: names come from clients and configurations, and are never read as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** The element of this id, which the page has. */
export const byId = (id) => document.getElementById(id);

/** Makes an element: `make("td", { class: "number", scope: "row" }, "text", child)`. */
export function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for drawings. */
export function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets a text, and only if it is another: what does not change need not be drawn, nor read out again. */
export function write(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/** Sets or takes away an attribute, only if it is to be another. */
export function mark(element, name, value) {
  if (value === null || value === undefined || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) {
    element.setAttribute(name, value);
  }
}

/** A state as a sign and a word, so that neither has to be told by its colour. */
export function badge(kind, text) {
  const signs = { good: "●", warning: "▲", bad: "✕", idle: "○" };
  const sign = make("span", { "aria-hidden": "true", class: "sign" }, signs[kind]);
  return make("span", { class: `badge ${kind}` }, sign, ` ${text}`);
}
