// Elements. Text is only ever put into text nodes: whatever a model wrote, it is shown and never read as HTML.

// All but tab, line feed, and carriage return before one; and what changes the direction of a text.
const HIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]|\r(?!\n)/g;

export function el(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

export function svg(tag, props, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    } else if (name === "style") {
      for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    } else {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  return add(node, ...children);
}

export function add(node, ...children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false || child === "") continue;
    node.append(child instanceof Node ? child : document.createTextNode(visible(String(child))));
  }
  return node;
}

// The text with control characters as symbols, one for one: none is overlooked, and none turns what follows around.
function visible(text) {
  return text.replace(HIDDEN, (char) => (char < " " ? String.fromCharCode(0x2400 + char.charCodeAt(0)) : "\ufffd"));
}

export function replace(node, ...children) {
  node.replaceChildren();
  return add(node, ...children);
}

export function button(label, handler, props) {
  return el("button", { type: "button", ...props, on: { click: handler } }, label);
}

// A block that can be opened; its content is made when it is opened for the first time.
export function fold(summary, make, { open = false, cls = "" } = {}) {
  const body = el("div", { class: "fold-body" });
  const node = el("details", { class: `fold ${cls}` }, el("summary", {}, summary), body);
  let made = false;
  const show = () => {
    if (node.open && !made) {
      made = true;
      add(body, make());
    }
  };
  node.addEventListener("toggle", show);
  node.open = open;
  show();
  return node;
}
