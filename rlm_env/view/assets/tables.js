// The tables of the console, cell by cell.

import { el } from "./dom.js";

const WORDS = new Set(["", "context", "scaffold", "outcomes", "environment", "policy", "program"]);

export function tableOf(cells) {
  const left = cells.header.map((name) => WORDS.has(name));
  const cell = (text, index) => {
    const indent = index === 0 && text.startsWith("  ");
    const props = { class: `${left[index] ? "l" : "r"}${indent ? " indent" : ""}` };
    return index < cells.keys && text
      ? el("th", { ...props, scope: "row" }, text.trim())
      : el("td", props, text.trim());
  };
  return el(
    "div",
    { class: "table-wrap", tabindex: "0", role: "region", "aria-label": cells.title },
    el(
      "table",
      {},
      el("caption", {}, cells.title),
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          cells.header.map((name, index) =>
            name ? el("th", { scope: "col", class: left[index] ? "l" : "r" }, name) : el("td", {}),
          ),
        ),
      ),
      el(
        "tbody",
        {},
        cells.rows.map((row) => el("tr", {}, row.map(cell))),
      ),
    ),
  );
}

export function numbersView(numbers) {
  return el(
    "div",
    { class: "numbers" },
    numbers.warnings.map((text) => el("p", { class: "warning" }, text)),
    numbers.tables.map(tableOf),
    el(
      "ul",
      { class: "notes" },
      numbers.notes.map((text) => el("li", {}, text)),
    ),
  );
}
