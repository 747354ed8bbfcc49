// Scaffolds item by item: one row per task, one column per scaffold, a score for each rollout.

import { el } from "./dom.js";
import { scoreChip } from "./pieces.js";
import { VirtualList } from "./vlist.js";

export class TaskGrid {
  constructor({ scaffolds, open }) {
    this.scaffolds = scaffolds;
    this.open = open;
    this.tasks = [];
    this.list = new VirtualList({ render: (index) => this.row(index), height: 56 });
    this.node = el(
      "div",
      { class: "grid tasks", role: "table", "aria-label": "Tasks, scaffold by scaffold" },
      el(
        "div",
        { role: "rowgroup", class: "heads" },
        el(
          "div",
          { class: "row head", role: "row" },
          el("div", { class: "cell wide", role: "columnheader" }, "task"),
          scaffolds.map((name) => el("div", { class: "cell s", role: "columnheader" }, name)),
        ),
      ),
      this.list.node,
    );
  }

  close() {
    this.list.close();
  }

  set(rows) {
    const tasks = new Map();
    for (const row of rows) {
      if (!tasks.has(row.task)) tasks.set(row.task, { row, by: new Map() });
      const by = tasks.get(row.task).by;
      if (!by.has(row.scaffold)) by.set(row.scaffold, []);
      by.get(row.scaffold).push(row);
    }
    this.tasks = [...tasks.values()];
    this.node.setAttribute("aria-rowcount", String(this.tasks.length + 1));
    this.list.set(this.tasks.length);
  }

  row(index) {
    const { row, by } = this.tasks[index];
    return el(
      "div",
      { class: "row", role: "row", "aria-rowindex": String(index + 2) },
      el(
        "div",
        { class: "cell wide", role: "rowheader", title: row.question ?? null },
        el("div", { class: "q" }, row.question ?? row.task),
        el("div", { class: "dim a" }, `${row.task}${row.gold ? ` · right: ${row.gold}` : ""}`),
      ),
      this.scaffolds.map((name) =>
        el(
          "div",
          { class: "cell s", role: "cell" },
          (by.get(name) ?? []).map((one) =>
            el(
              "a",
              {
                href: this.open(one),
                class: "score-link",
                title: `${one.outcome}: ${one.answer ?? one.error ?? "no answer"}`,
                "aria-label": `${name}, ${one.outcome}, score ${one.score ?? "none"}`,
              },
              scoreChip(one.score),
            ),
          ),
        ),
      ),
    );
  }

  focus() {}
}
