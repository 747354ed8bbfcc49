// The sub-calls of a turn: a line per batch, a list of its calls, one call in the drawer.

import { el, fold } from "./dom.js";
import { loadOnce } from "./data.js";
import { openDrawer } from "./drawer.js";
import { count, plural, seconds, short } from "./format.js";
import { badge, facts, message, reply, textBlock, toolCall } from "./pieces.js";
import { VirtualList } from "./vlist.js";

const BLOCK = 32;
const LINE = 30;
const OPEN_UP_TO = 6;

export function batchFold(base, batch, openContext) {
  const tokens = batch.prompt_tokens + batch.completion_tokens;
  const summary = [
    el("span", { class: "label" }, `llm_batch ${batch.batch + 1}`),
    el("span", {}, plural(batch.calls, "sub-call")),
    batch.failed ? badge(`${count(batch.failed)} failed`, "bad") : null,
    batch.tools ? el("span", { class: "dim" }, plural(batch.tools, "tool call")) : null,
    el("span", { class: "dim" }, `${short(tokens)} tokens`),
    el("span", { class: "dim" }, `up to ${seconds(batch.seconds)}`),
  ];
  return fold(summary, () => callList(base, batch, openContext), { open: batch.calls <= OPEN_UP_TO, cls: "batch" });
}

function callList(base, batch, openContext) {
  const box = el(
    "div",
    { class: "calls", role: "listbox", "aria-label": `Sub-calls of batch ${batch.batch + 1}` },
    el("p", { class: "dim" }, "Loading …"),
  );
  loadOnce([...base, "calls", String(batch.batch)]).then(
    ({ calls }) => fillCalls(box, base, batch, calls, openContext),
    (error) => box.replaceChildren(el("p", { class: "warning" }, error.message)),
  );
  return box;
}

function fillCalls(box, base, batch, calls, openContext) {
  box.replaceChildren();
  const open = (index) => openCall(base, batch, calls, index, openContext);
  const list = new VirtualList({
    height: LINE,
    scroller: box,
    role: "presentation",
    render: (index) => callLine(calls[index], index, calls.length, list, open),
  });
  box.append(list.node);
  box.style.height = `${Math.min(calls.length, 12) * LINE + 2}px`;
  box.addEventListener("keydown", (event) => {
    if (event.key === "Enter") open(Math.max(list.active, 0));
    else if (list.key(event)) event.stopPropagation();
  });
  list.set(calls.length);
}

function callLine([id, prompt, answer, error, asked, sampled, tools, time], index, total, list, open) {
  return el(
    "div",
    {
      class: `call ${error ? "failed" : ""}`,
      role: "option",
      "aria-selected": "false",
      "aria-setsize": String(total),
      "aria-posinset": String(index + 1),
      tabindex: index === Math.max(list.active, 0) ? "0" : "-1",
      on: { click: () => open(index), focus: () => (list.active = index) },
    },
    el("span", { class: "call-id dim" }, String(id + 1)),
    el("span", { class: "call-prompt" }, prompt),
    el("span", { class: "call-arrow dim", "aria-hidden": "true" }, "→"),
    el("span", { class: `call-answer ${error ? "bad" : ""}` }, error ?? answer),
    el(
      "span",
      { class: "call-facts dim" },
      tools ? `${tools} tools · ` : "",
      `${short(asked + sampled)} tok · ${seconds(time)}`,
    ),
  );
}

async function openCall(base, batch, calls, index, openContext) {
  const block = Math.floor(index / BLOCK);
  const step = (by) => {
    if (index + by >= 0 && index + by < calls.length) openCall(base, batch, calls, index + by, openContext);
  };
  const buttons = [
    el(
      "button",
      { type: "button", class: "quiet", disabled: index === 0, on: { click: () => step(-1) } },
      "← previous",
    ),
    el(
      "button",
      { type: "button", class: "quiet", disabled: index === calls.length - 1, on: { click: () => step(1) } },
      "next →",
    ),
  ];
  const keys = (event) => {
    if (event.key === "ArrowRight" || event.key === "j") step(1);
    if (event.key === "ArrowLeft" || event.key === "k") step(-1);
  };
  let nodes;
  try {
    const answer = await loadOnce([...base, "calls", String(batch.batch), String(block)]);
    nodes = callView(answer.calls[index % BLOCK], openContext);
  } catch (error) {
    nodes = [el("p", { class: "warning" }, error.message)];
  }
  openDrawer(
    `Sub-call ${count(calls[index][0] + 1)} · ${count(index + 1)} of ${count(calls.length)} in batch ${batch.batch + 1}`,
    nodes,
    { buttons, keys },
  );
}

function callView(call, openContext) {
  return [
    facts([
      ["turn", call.turn + 1],
      ["prompt tokens", count(call.usage.prompt_tokens)],
      ["completion tokens", count(call.usage.completion_tokens)],
      ["time", seconds(call.seconds)],
      ["finish reason", call.finish_reason],
    ]),
    call.messages.map((one) => message(one.role, one.content, openContext)),
    call.replies.map((one) =>
      el(
        "div",
        { class: "message m-assistant" },
        el("div", { class: "role" }, "sub-LLM"),
        reply(one, openContext),
        one.tools.map((tool) => toolCall(tool, openContext)),
      ),
    ),
    call.error
      ? el(
          "div",
          { class: "message failed" },
          el("div", { class: "role" }, "no answer"),
          textBlock([call.error], openContext, { cls: "error" }),
        )
      : el(
          "div",
          { class: "message m-assistant" },
          el("div", { class: "role" }, "answer"),
          reply(call.answer, openContext),
        ),
  ];
}
