// The tokens of a rollout as training sees them: what was sampled and how likely it was, what is context only.

import { el, fold, replace } from "./dom.js";
import { loadOnce } from "./data.js";
import { count, fixed, plural, signed } from "./format.js";

export function tokenPanel(base, member) {
  const node = el("div", { class: "token-panel" }, el("p", { class: "dim" }, "Loading …"));
  loadOnce([...base, "samples"]).then(
    ({ samples }) =>
      replace(
        node,
        legend(),
        samples.slice(0, 200).map((sample, index) => sampleFold(base, sample, index, member)),
        samples.length > 200 ? el("p", { class: "dim" }, `and ${count(samples.length - 200)} more samples`) : null,
      ),
    (error) => replace(node, el("p", { class: "warning" }, error.message)),
  );
  return node;
}

function legend() {
  const steps = [0, -0.1, -0.5, -1, -2, -4];
  return el(
    "p",
    { class: "token-legend dim" },
    "log-probability ",
    steps.map((value) => el("span", { class: `tok l${level(value)}` }, String(value))),
    " · not trained: ",
    el("span", { class: "tok given" }, "given"),
  );
}

function sampleFold(base, sample, index, member) {
  const facts = [
    plural(sample.tokens, "token"),
    `${count(sample.trained)} trained`,
    `mean logprob ${fixed(sample.logprob, 3)}`,
    member && member.advantage !== null ? `advantage ${signed(member.advantage)}` : null,
    member && member.off_policy !== null ? plural(member.off_policy, "off-policy step") : null,
    `weights after ${plural(sample.version, "update")}`,
    sample.temperature === 1 ? null : `temperature ${sample.temperature}`,
    sample.weight === 1 ? null : `weight ${sample.weight}`,
  ];
  return fold(
    [
      el("span", { class: "label" }, `${sample.kind} sample ${index + 1}`),
      el("span", { class: "dim" }, facts.filter(Boolean).join(" · ")),
    ],
    () => tokenText(base, index),
    { open: index === 0, cls: "sample" },
  );
}

function tokenText(base, index) {
  const body = el("div", {
    class: "tokens",
    tabindex: "0",
    role: "group",
    "aria-label": `Tokens of sample ${index + 1}`,
  });
  const more = el("div");
  const wrap = el("div", {}, body, more);
  const get = async (start) => {
    replace(more, el("p", { class: "dim" }, "Loading …"));
    try {
      const page = await loadOnce([...base, "samples", String(index), String(start)]);
      body.append(...page.ids.map((id, at) => oneToken(id, page.texts?.[at], page.logprobs[at])));
      const end = page.start + page.ids.length;
      replace(
        more,
        end < page.total
          ? el(
              "button",
              { type: "button", class: "quiet", on: { click: () => get(end) } },
              `Show more of ${count(page.total)} tokens`,
            )
          : null,
        page.texts
          ? null
          : el(
              "p",
              { class: "dim" },
              "Ids only: the model's folder, or the package tokenizers, is not on this machine.",
            ),
      );
    } catch (error) {
      replace(more, el("p", { class: "warning" }, error.message));
    }
  };
  get(0);
  return wrap;
}

function oneToken(id, text, logprob) {
  const shown = text === undefined || text === null ? String(id) : text === "" ? "∅" : text.replaceAll("\n", "⏎\n");
  const title =
    logprob === null
      ? `id ${id}, given`
      : `id ${id}, log-probability ${logprob}, probability ${Math.exp(logprob).toPrecision(3)}`;
  return el(
    "span",
    {
      class: `tok ${logprob === null ? "given" : `l${level(logprob)}`}${text === undefined || text === null ? " id" : ""}`,
      title,
    },
    shown,
  );
}

function level(logprob) {
  return [-0.05, -0.3, -0.75, -1.5, -3].filter((edge) => logprob < edge).length;
}
