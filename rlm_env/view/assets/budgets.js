// What a rollout spent of each budget, turn by turn.

import { el } from "./dom.js";
import { count, percent, seconds, short } from "./format.js";

export function budgetBars(budgets) {
  return el("div", { class: "budgets" }, budgets.map(oneBudget));
}

function oneBudget({ name, unit, limit, spent }) {
  const total = spent.at(-1) ?? 0;
  const of = limit ?? (total || 1);
  const text = (value) => (unit === "s" ? seconds(value) : short(value));
  const parts = spent.map((value, index) => {
    const more = value - (index ? spent[index - 1] : 0);
    return el("span", {
      class: `spent p${index % 2}`,
      title: `turn ${index + 1}: ${unit === "s" ? seconds(more) : count(more)}`,
      style: { width: `${Math.min(100, (100 * more) / of)}%` },
    });
  });
  const used = limit ? ` (${percent(total / limit)})` : "";
  return el(
    "div",
    { class: "budget" },
    el(
      "div",
      { class: "budget-head" },
      el("span", {}, name),
      el("span", { class: "dim" }, limit ? `${text(total)} of ${text(limit)}${used}` : `${text(total)}, no limit`),
    ),
    el(
      "div",
      { class: `budget-bar${limit && total >= limit ? " full" : ""}${limit ? "" : " open"}`, "aria-hidden": "true" },
      parts,
    ),
  );
}

const PARTS = [
  ["root", "root LLM"],
  ["sub", "sub-LLMs"],
  ["code", "code"],
  ["setup", "REPL set-up"],
];

export function timeSplit(timing) {
  const known = PARTS.map(([key, name]) => [key, name, timing[key]]).filter(([, , value]) => value > 0);
  const rest = timing.total - known.reduce((sum, [, , value]) => sum + value, 0);
  if (rest > 0.005 * timing.total) known.push(["rest", "host", rest]);
  return el(
    "div",
    { class: "times" },
    el(
      "div",
      { class: "bar", "aria-hidden": "true" },
      known.map(([key, , value]) =>
        el("span", { class: `w-${key}`, style: { "flex-grow": String(value / Math.max(timing.total, 1e-9)) } }),
      ),
    ),
    el(
      "div",
      { class: "legend" },
      known.map(([key, name, value]) => el("span", { class: `key w-${key}` }, `${name} ${seconds(value)}`)),
    ),
  );
}
