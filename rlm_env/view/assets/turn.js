// One turn of the time line: what the root LLM wrote, what ran, whom it asked, what it got back.

import { el, fold } from "./dom.js";
import { batchFold } from "./calls.js";
import { coverageBar } from "./coverage.js";
import { count, plural, seconds, short } from "./format.js";
import { badge, message, reply, textBlock, toolCall } from "./pieces.js";

export function turnArticle(turn, index, page, base, openContext) {
  const batches = page.batches.filter((batch) => batch.turn === index);
  const read = page.coverage?.turns[String(index)];
  return el(
    "article",
    { class: "turn", id: `turn-${index + 1}`, tabindex: "-1", "aria-label": `Turn ${index + 1}` },
    el(
      "header",
      { class: "turn-head" },
      el("h2", {}, `Turn ${index + 1}`),
      flags(turn),
      el("span", { class: "dim turn-facts" }, timesOf(turn)),
    ),
    read && page.coverage.chars
      ? coverageBar(read, openContext, {
          small: true,
          label: { chars: page.coverage.chars, text: `parts of the context that turn ${index + 1} read` },
        })
      : null,
    turn.prompt.length
      ? fold(
          [
            el("span", { class: "label" }, "prompt"),
            el("span", { class: "dim" }, plural(turn.prompt.length, "message")),
          ],
          () => turn.prompt.map((one) => message(one.role, one.content, openContext)),
        )
      : null,
    reply(turn, openContext),
    turn.tools.map((tool) => toolCall(tool, openContext)),
    batches.map((batch) => batchFold(base, batch, openContext)),
    turn.observation.length && turn.observation.join?.("") !== ""
      ? el(
          "div",
          { class: `observation${turn.error ? " failed" : ""}` },
          el("div", { class: "role" }, "what it saw"),
          textBlock(turn.observation, openContext),
        )
      : null,
    turn.answer === null
      ? null
      : el(
          "div",
          { class: "answer-change" },
          el("div", { class: "role" }, "answer is now"),
          textBlock([turn.answer || "(empty)"], openContext, { limit: 800 }),
        ),
  );
}

function flags(turn) {
  return [
    turn.error ? badge("error", "bad", turn.error) : null,
    turn.timed_out ? badge("code timed out", "bad") : null,
    turn.state_lost ? badge("state lost", "bad") : null,
    ["stop", "tool_calls", null, ""].includes(turn.finish_reason)
      ? null
      : badge(`finish: ${turn.finish_reason}`, "warn"),
  ];
}

function timesOf(turn) {
  const { usage } = turn;
  const parts = [
    `${short(usage.prompt_tokens)} → ${count(usage.completion_tokens)} tokens`,
    `LLM ${seconds(turn.seconds.root)}`,
    turn.seconds.code ? `code ${seconds(turn.seconds.code)}` : null,
    turn.seconds.sub ? `sub-LLMs ${seconds(turn.seconds.sub)}` : null,
    turn.weight_versions ? weightsOf(turn.weight_versions) : null,
  ];
  return parts.filter(Boolean).join(" · ");
}

// Which weights sampled it, where those of a rollout changed on the way; the first token is token 1.
function weightsOf(stretches) {
  const parts = stretches.map(([first, version]) => (first ? `from token ${count(first + 1)} on ${version}` : version));
  return `weights after updates: ${parts.join(", ")}`;
}
