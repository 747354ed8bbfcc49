// The table of rollouts: as long as it may be, only the rows in sight exist. Arrow keys move, Enter opens.

import { el, replace } from "./dom.js";
import { count, fixed, seconds, short, signed } from "./format.js";
import { outcomeChip, scoreChip } from "./pieces.js";
import { go } from "./route.js";
import { VirtualList } from "./vlist.js";

const NARROW = "(max-width: 760px)";

const COLUMNS = {
  score: { title: "score", cell: (row) => scoreChip(row.score) },
  outcome: { title: "outcome", cell: (row) => outcomeChip(row.outcome) },
  scaffold: { title: "scaffold", cell: (row) => row.scaffold },
  label: { title: "environment", cell: (row) => row.label ?? row.environment },
  step: { title: "trained", cell: (row) => fate(row), sort: "trained" },
  group: { title: "group", cell: (row) => (row.group === undefined ? "–" : `${row.group}·${row.member}`), num: true },
  advantage: { title: "advantage", cell: (row) => advantage(row.advantage), num: true },
  question: { title: "question", cell: (row) => row.question ?? row.task, wide: true },
  answer: {
    title: "answer",
    cell: (row) =>
      row.error && !row.answer
        ? el("span", { class: "bad" }, row.error)
        : (row.answer ?? el("span", { class: "dim" }, "no answer")),
    wide: true,
  },
  gold: { title: "right answer", cell: (row) => row.gold ?? "", wide: true },
  turns: { title: "turns", cell: (row) => count(row.turns), num: true },
  sub_calls: {
    title: "sub-calls",
    cell: (row) =>
      row.sub_calls
        ? el(
            "span",
            {},
            count(row.sub_calls),
            row.failed ? el("span", { class: "bad", title: `${row.failed} failed` }, ` ${row.failed}✕`) : null,
          )
        : "–",
    num: true,
  },
  tokens: { title: "tokens", cell: (row) => el("span", { title: count(row.tokens) }, short(row.tokens)), num: true },
  seconds: { title: "time", cell: (row) => seconds(row.seconds), num: true },
};

const EVAL = ["score", "outcome", "scaffold", "question", "answer", "gold", "turns", "sub_calls", "tokens", "seconds"];
const TRAIN = [
  "score",
  "outcome",
  "step",
  "group",
  "advantage",
  "question",
  "answer",
  "gold",
  "turns",
  "sub_calls",
  "tokens",
];

function fate(row) {
  if (row.trained !== undefined) return `step ${row.trained}`;
  if (row.dropped)
    return el("span", { class: "dim", title: `dropped: ${row.dropped.replaceAll("_", " ")}` }, "dropped");
  return row.step === undefined ? "–" : el("span", { class: "dim" }, `held out ${row.step}`);
}

export function advantage(value) {
  if (value === undefined || value === null) return "–";
  return el(
    "span",
    { class: value > 0 ? "good" : value < 0 ? "bad" : "dim", title: fixed(value, 6) },
    signed(value, 2),
  );
}

export class Grid {
  // open(row) is the address of a rollout; sortBy(name) is called when a heading is chosen.
  constructor({ kind, several, open, sortBy }) {
    this.open = open;
    this.sortBy = sortBy;
    this.names =
      kind === "train" ? TRAIN : several ? ["score", "outcome", "scaffold", "label", ...EVAL.slice(3)] : EVAL;
    this.rows = [];
    this.narrow = matchMedia(NARROW);
    this.list = new VirtualList({ render: (index) => this.row(index), height: this.height() });
    this.heads = el("div", { class: "row head", role: "row", "aria-rowindex": "1" });
    this.empty = el("p", { class: "empty", hidden: true });
    const grid = el(
      "div",
      {
        class: `grid g-${kind === "train" ? "train" : several ? "several" : "eval"}`,
        role: "grid",
        "aria-label": "Rollouts",
        on: { keydown: (event) => this.key(event) },
      },
      el("div", { role: "rowgroup", class: "heads" }, this.heads),
      this.list.node,
    );
    this.grid = grid;
    this.node = el("div", {}, grid, this.empty);
    this.narrow.addEventListener(
      "change",
      (this.onNarrow = () => {
        this.list.height = this.height();
        this.list.set(this.rows.length);
      }),
    );
  }

  height() {
    return this.narrow.matches ? 92 : 40;
  }

  close() {
    this.list.close();
    this.narrow.removeEventListener("change", this.onNarrow);
  }

  set(rows, sort) {
    const active = this.rows[this.list.active]?.key;
    this.rows = rows;
    this.list.active = active === undefined ? -1 : rows.findIndex((row) => row.key === active);
    this.grid.setAttribute("aria-rowcount", String(rows.length + 1));
    this.empty.hidden = rows.length > 0;
    replace(
      this.heads,
      this.names.map((name) => this.head(name, sort)),
    );
    this.list.set(rows.length);
  }

  head(name, sort) {
    const column = COLUMNS[name];
    const by = column.sort ?? name;
    const now = sort === by ? "ascending" : sort === `-${by}` ? "descending" : "none";
    const next =
      now === "none"
        ? column.num || name === "score"
          ? `-${by}`
          : by
        : now === (column.num || name === "score" ? "descending" : "ascending")
          ? sort.startsWith("-")
            ? by
            : `-${by}`
          : "";
    const mark = { ascending: " ↑", descending: " ↓", none: "" }[now];
    return el(
      "div",
      { class: `cell c-${name}${column.num ? " num" : ""}`, role: "columnheader", "aria-sort": now },
      el(
        "button",
        { type: "button", class: "plain", title: `Sort by ${column.title}`, on: { click: () => this.sortBy(next) } },
        column.title,
        mark,
      ),
    );
  }

  row(index) {
    const row = this.rows[index];
    const node = el(
      "div",
      {
        class: "row",
        role: "row",
        "aria-rowindex": String(index + 2),
        tabindex: index === Math.max(this.list.active, 0) ? "0" : "-1",
        on: { click: (event) => this.click(event, row), focus: () => (this.list.active = index) },
      },
      this.names.map((name) => {
        const column = COLUMNS[name];
        const content = column.cell(row);
        const cell = el("div", {
          class: `cell c-${name}${column.num ? " num" : ""}${column.wide ? " wide" : ""}`,
          role: "gridcell",
          title: column.wide && typeof content === "string" ? content : null,
        });
        cell.append(name === "question" ? el("a", { href: this.open(row), tabindex: "-1" }, content) : content);
        return cell;
      }),
    );
    return node;
  }

  click(event, row) {
    if (event.target.closest("a, button") || String(getSelection())) return;
    go(this.open(row));
  }

  key(event) {
    if (event.target.closest(".heads")) return;
    if (event.key === "Enter" && this.rows[this.list.active]) go(this.open(this.rows[this.list.active]));
    else this.list.key(event);
  }

  focus() {
    this.list.activate(Math.max(this.list.active, 0));
  }
}
