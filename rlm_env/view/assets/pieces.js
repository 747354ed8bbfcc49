// Small things that several views show: scores, outcomes, code, texts with quotes of the context.

import { el } from "./dom.js";
import { count, score } from "./format.js";

export function scoreChip(value) {
  const level =
    value === null || value === undefined
      ? "none"
      : value >= 1
        ? "full"
        : value <= 0
          ? "zero"
          : value >= 0.5
            ? "high"
            : "low";
  return el(
    "span",
    { class: `score ${level}`, title: value === undefined || value === null ? "no score" : `score ${value}` },
    score(value),
  );
}

export function outcomeChip(outcome) {
  return el("span", { class: `outcome o-${outcome}` }, outcome);
}

export function badge(text, kind = "", title = null) {
  return el("span", { class: `badge ${kind}`, title }, text);
}

// Code as [class, text] pairs from the highlighter.
export function codeBlock(pairs, { label = null, cls = "" } = {}) {
  const text = () => pairs.map(([, part]) => part).join("");
  const body = el(
    "code",
    {},
    pairs.map(([name, part]) => (name ? el("span", { class: `t-${name}` }, part) : part)),
  );
  return el(
    "div",
    { class: `code ${cls}` },
    el("div", { class: "code-head" }, el("span", {}, label ?? "python"), copyButton(text)),
    el("pre", { tabindex: "0" }, body),
  );
}

export function copyButton(text) {
  const node = el(
    "button",
    { type: "button", class: "quiet", "aria-label": "Copy the code", on: { click: copy } },
    "copy",
  );
  async function copy() {
    try {
      await navigator.clipboard.writeText(text());
      node.textContent = "copied";
    } catch {
      node.textContent = "not allowed here";
    }
    setTimeout(() => (node.textContent = "copy"), 1500);
  }
  return node;
}

// A prompt, an observation, an output: text, and quotes of the context that lead there.
export function textBlock(pieces, openContext, { cls = "", limit = 2400 } = {}) {
  const length = pieces.reduce((sum, piece) => sum + (typeof piece === "string" ? piece.length : piece.text.length), 0);
  const node = el(
    "pre",
    { class: `text ${cls}`, tabindex: length > 600 ? "0" : null },
    pieces.map((piece) => onePiece(piece, openContext)),
  );
  if (length <= limit) return node;
  const wrap = el("div", { class: "clamped" }, node);
  const more = el(
    "button",
    { type: "button", class: "quiet more", on: { click: () => toggle() } },
    `Show all ${count(length)} characters`,
  );
  function toggle() {
    const open = wrap.classList.toggle("open");
    more.textContent = open ? "Show less" : `Show all ${count(length)} characters`;
  }
  wrap.append(more);
  return wrap;
}

function onePiece(piece, openContext) {
  if (typeof piece === "string") return piece;
  const rest = piece.end - piece.start - [...piece.text].length;
  const title = `characters ${count(piece.start)} to ${count(piece.end)} of the context`;
  return el(
    "span",
    { class: "quote", title },
    piece.text,
    rest > 0
      ? el("span", { class: "cut" }, piece.text ? ` … ${count(rest)} more characters ` : ` ${count(rest)} characters `)
      : null,
    el(
      "button",
      {
        type: "button",
        class: "quiet locate",
        "aria-label": `Show ${title}`,
        on: { click: () => openContext(piece.start, piece.end) },
      },
      `context ${count(piece.start)}–${count(piece.end)}`,
    ),
  );
}

export function facts(pairs) {
  return el(
    "dl",
    { class: "facts" },
    pairs
      .filter(([, value]) => value !== null && value !== undefined && value !== "")
      .map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
  );
}

// A message of a chat: who says it, and what.
export function message(role, pieces, openContext) {
  return el(
    "div",
    { class: `message m-${["system", "user", "assistant", "tool"].includes(role) ? role : "user"}` },
    el("div", { class: "role" }, role),
    textBlock(pieces, openContext),
  );
}

export function toolCall(tool, openContext) {
  return el(
    "div",
    { class: `tool ${tool.error ? "failed" : ""}` },
    el(
      "div",
      { class: "tool-head" },
      el("span", { class: "mono" }, `${tool.name}(`),
      el("span", { class: "mono arguments" }, tool.arguments),
      el("span", { class: "mono" }, ")"),
      el("span", { class: "dim" }, `${tool.seconds.toFixed(2)} s`),
    ),
    tool.error ? el("pre", { class: "text error" }, tool.error) : textBlock(tool.output, openContext, { limit: 900 }),
  );
}

// Thoughts, text and code of a reply.
export function reply(shown, openContext, { open = false } = {}) {
  const nodes = [];
  if (shown.thoughts) {
    const first = shown.thoughts.trim().split("\n")[0];
    nodes.push(
      el(
        "details",
        { class: "fold thoughts", open },
        el("summary", {}, el("span", { class: "label" }, "thoughts"), el("span", { class: "peek" }, first)),
        el("div", { class: "fold-body" }, textBlock([shown.thoughts], openContext)),
      ),
    );
  }
  for (const part of shown.parts) {
    if (typeof part === "string") nodes.push(textBlock([part], openContext, { cls: "said" }));
    else
      nodes.push(
        codeBlock(part.code, {
          label: part.ran ? "code that ran" : "code that did not run",
          cls: part.ran ? "" : "idle",
        }),
      );
  }
  return nodes;
}
