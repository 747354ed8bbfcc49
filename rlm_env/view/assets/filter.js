// Which rows are shown, in which order. The state is what the address holds: text, outcome, scaffold, ...

import { wordsOf } from "./search.js";

export const OUTCOMES = ["answered", "unparsed", "refused", "timeout", "budget", "overflow", "error"];

export const SCORES = {
  "": "any score",
  one: "score 1",
  part: "between 0 and 1",
  zero: "score 0",
  low: "below 0.5",
  none: "no score",
};

export function stateOf(query) {
  const names = ["q", "outcome", "scaffold", "env", "score", "part", "sort", "view", "in"];
  return Object.fromEntries(names.map((name) => [name, query.get(name) ?? ""]));
}

// found: keys of rollouts that hold the text elsewhere.
export function chosen(rows, state, found) {
  const words = wordsOf(state.q);
  const outcomes = new Set(state.outcome.split(",").filter(Boolean));
  const kept = rows.filter(
    (row) =>
      (!outcomes.size || outcomes.has(row.outcome)) &&
      (!state.scaffold || row.scaffold === state.scaffold) &&
      (!state.env || (row.label ?? row.environment) === state.env) &&
      (!state.part || partOf(row) === state.part) &&
      scoreFits(row.score, state.score) &&
      (words.every((word) => haystack(row).includes(word)) || found.has(row.key)),
  );
  return state.sort ? sorted(kept, state.sort) : kept;
}

export function partOf(row) {
  return row.step === undefined ? "training" : "held out";
}

function haystack(row) {
  const { key, question, answer, gold, error, stop, outcome, program } = row;
  row.text ??= [key, question, answer, gold, error, stop, outcome, program].join("\n").toLowerCase();
  return row.text;
}

function scoreFits(value, wanted) {
  if (!wanted) return true;
  if (value === undefined) return wanted === "none";
  const tests = { one: value >= 1, part: value > 0 && value < 1, zero: value === 0, low: value < 0.5 };
  return tests[wanted] ?? false;
}

// "-score": highest first. Rows without a value are last either way.
function sorted(rows, sort) {
  const [name, sign] = sort.startsWith("-") ? [sort.slice(1), -1] : [sort, 1];
  const value = (row) => row[name];
  return rows
    .map((row, index) => [row, index])
    .sort(([a, i], [b, j]) => {
      const [x, y] = [value(a), value(b)];
      if (x === undefined || y === undefined) return x === y ? i - j : x === undefined ? 1 : -1;
      const order = typeof x === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
      return sign * order || i - j;
    })
    .map(([row]) => row);
}

export function tally(rows, of) {
  const found = new Map();
  for (const row of rows) {
    const name = of(row);
    if (name !== undefined) found.set(name, (found.get(name) ?? 0) + 1);
  }
  return found;
}
