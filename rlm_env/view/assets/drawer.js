// A panel over the page, for one thing at a time: a sub-call, a piece of the context, the keys. Escape closes it.

import { el, replace } from "./dom.js";

const panel = el("dialog", { class: "drawer", "aria-labelledby": "drawer-title" });
const heading = el("h2", { id: "drawer-title" });
const tools = el("div", { class: "drawer-tools" });
const content = el("div", { class: "drawer-body", tabindex: "0" });
let onKeys = null;

panel.append(
  el(
    "div",
    { class: "drawer-head" },
    heading,
    tools,
    el(
      "button",
      { type: "button", class: "quiet", "aria-label": "Close", on: { click: () => panel.close() } },
      "close ✕",
    ),
  ),
  content,
);
panel.addEventListener("click", (event) => {
  if (event.target === panel) panel.close();
});
panel.addEventListener("keydown", (event) => {
  event.stopPropagation();
  onKeys?.(event);
});

// Shows `nodes` under a title; `keys` gets the keys that are pressed in it.
export function openDrawer(title, nodes, { buttons = [], keys = null } = {}) {
  replace(heading, title);
  replace(tools, buttons);
  replace(content, nodes);
  onKeys = keys;
  if (!panel.isConnected) document.body.append(panel);
  if (!panel.open) panel.showModal();
  content.scrollTop = 0;
  content.focus();
}

export function closeDrawer() {
  if (panel.open) panel.close();
}
