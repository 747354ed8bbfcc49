// The keyboard: what each key does, and the page that says so.

import { el } from "./dom.js";
import { openDrawer } from "./drawer.js";

const KEYS = [
  [
    "In the table",
    [
      ["↑ ↓ or j k", "move"],
      ["Enter", "open the rollout"],
      ["/", "filter by text"],
      ["Page Up, Page Down, Home, End", "move far"],
    ],
  ],
  [
    "In a rollout",
    [
      ["j k", "next and previous turn"],
      ["n p", "next and previous rollout, in the order of the table"],
      ["c", "the context, with what was read of it"],
      ["u", "back to the run"],
    ],
  ],
  [
    "In a list of sub-calls",
    [
      ["↑ ↓", "move"],
      ["Enter", "open"],
      ["← →", "previous and next, once it is open"],
    ],
  ],
  [
    "Everywhere",
    [
      ["d", "dark or light"],
      ["?", "this page"],
      ["Escape", "close"],
    ],
  ],
];

export function showKeys() {
  openDrawer(
    "Keys",
    KEYS.map(([title, keys]) => [
      el("h3", {}, title),
      el(
        "dl",
        { class: "keys" },
        keys.map(([key, what]) => el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, what))),
      ),
    ]),
  );
}

// True where a letter is typed into something.
export function isTyping(event) {
  return (
    event.target.closest?.("input, select, textarea, [contenteditable]") ||
    event.ctrlKey ||
    event.metaKey ||
    event.altKey
  );
}
