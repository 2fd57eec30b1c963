// Makes elements. Text becomes text nodes, never markup; styles are set as properties, which the page's policy allows.

const SVG = "http://www.w3.org/2000/svg";

export const at = (id) => document.getElementById(id);

// `style` is a record of CSS properties, `on` a record of listeners; what is null or false is left out.
export function element(tag, attributes = {}, ...children) {
  return furnish(document.createElement(tag), attributes, children);
}

export function drawn(tag, attributes = {}, ...children) {
  return furnish(document.createElementNS(SVG, tag), attributes, children);
}

function furnish(made, { style = {}, on = {}, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === false || value === undefined) continue;
    made.setAttribute(name, value === true ? "" : value);
  }
  for (const [name, value] of Object.entries(style)) made.style.setProperty(name, value);
  for (const [name, listener] of Object.entries(on)) made.addEventListener(name, listener);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function button(text, action, attributes = {}) {
  return element("button", { type: "button", ...attributes, on: { click: action } }, text);
}

// Hides or shows; where what goes has the focus, `refuge` takes it, else a keyboard would begin again at the top of the page.
export function hide(node, hidden, refuge) {
  if (hidden && node.contains(document.activeElement)) refuge.focus();
  node.hidden = hidden;
}

// Said to screen readers, once for each different text.
export function say(text) {
  if (at("status").textContent !== text) at("status").textContent = text;
}
