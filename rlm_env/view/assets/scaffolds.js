// A card for each scaffold: its score with the interval, how its rollouts ended, what they cost.

import { el, svg } from "./dom.js";
import { count, fixed, money, seconds, short, signed } from "./format.js";
import { OUTCOMES } from "./filter.js";

// `numbers`: the summary, and the tables of the console, whose words are taken where they have them.
export function scaffoldCards({ summary, tables }, pick) {
  const compared = new Map(summary.comparisons.map((one) => [one.scaffold, one]));
  const scores = tables[0].rows.find(([name]) => name.startsWith("score ")) ?? [];
  return el(
    "div",
    { class: "cards" },
    summary.scaffolds.map((one, index) => card(one, scores[index + 1] ?? "", compared.get(one.scaffold), pick)),
  );
}

function card(one, told, comparison, pick) {
  const [mean, ...bounds] = told.split(" ");
  const cost = [
    [`to ${comparison?.baseline}`, comparison ? signed(comparison.difference.mean) : null],
    ["turns", one.ran ? fixed(one.turns, 1) : null],
    ["root tokens", one.ran ? short(one.root_prompt_tokens + one.root_completion_tokens) : null],
    ["sub-calls", one.sub_calls ? fixed(one.sub_calls, 1) : null],
    ["sub tokens", one.sub_calls ? short(one.sub_prompt_tokens + one.sub_completion_tokens) : null],
    ["time", one.ran ? seconds(one.seconds.total) : null],
    ["cost", one.cost === null ? null : money(one.cost)],
  ].filter(([, value]) => value !== null);
  return el(
    "section",
    { class: "card", "aria-label": `scaffold ${one.scaffold}` },
    el(
      "h2",
      {},
      el(
        "button",
        {
          type: "button",
          class: "plain",
          title: "Show the rollouts of this scaffold",
          on: { click: () => pick(one.scaffold) },
        },
        one.scaffold,
      ),
    ),
    el(
      "div",
      { class: "big" },
      el("span", { class: "value" }, one.score ? mean : "–"),
      el("span", { class: "dim" }, one.score ? bounds.join(" ") : "no score yet"),
    ),
    one.score ? interval(one.score) : null,
    outcomeBar(one.outcomes, one.rollouts),
    el(
      "dl",
      { class: "strip" },
      cost.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
    ),
  );
}

function interval(score) {
  const x = (value) => 4 + 192 * value;
  return svg(
    "svg",
    {
      class: "interval",
      viewBox: "0 0 200 14",
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": `score ${fixed(score.mean, 3)}, 95 % interval ${fixed(score.low, 3)} to ${fixed(score.high, 3)}`,
    },
    svg("line", { class: "axis", x1: 4, x2: 196, y1: 7, y2: 7 }),
    svg("line", { class: "range", x1: x(score.low), x2: Math.max(x(score.high), x(score.low) + 1), y1: 7, y2: 7 }),
    svg("line", { class: "mean", x1: x(score.mean), x2: x(score.mean), y1: 1, y2: 13 }),
  );
}

export function outcomeBar(outcomes, total) {
  const there = OUTCOMES.filter((name) => outcomes[name]);
  return el(
    "div",
    { class: "outcomes" },
    el(
      "div",
      { class: "bar", "aria-hidden": "true" },
      there.map((name) =>
        el("span", { class: `o-${name}`, style: { "flex-grow": String(outcomes[name] / Math.max(total, 1)) } }),
      ),
    ),
    el(
      "div",
      { class: "legend" },
      there.map((name) => el("span", { class: `key o-${name}` }, `${count(outcomes[name])} ${name}`)),
    ),
  );
}
