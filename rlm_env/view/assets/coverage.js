// Which parts of the context were read: two tracks over its whole length, and the text at any place of it.

import { add, el, replace, svg } from "./dom.js";
import { loadOnce } from "./data.js";
import { openDrawer } from "./drawer.js";
import { count, percent, plural } from "./format.js";

const PAGE = 6000;
const WIDTH = 1000;

export function coverageBar(coverage, openContext, { small = false, label = "" } = {}) {
  const tracks = small ? coverage : { root: coverage.tracks.root.spans, sub: coverage.tracks.sub.spans };
  const chars = small ? label.chars : coverage.chars;
  const x = (at) => (at / Math.max(chars, 1)) * WIDTH;
  const spans = (name, y, height) =>
    tracks[name].map(([start, end]) =>
      svg("rect", {
        class: `read-${name}`,
        x: x(start).toFixed(2),
        width: Math.max(x(end) - x(start), 1.2).toFixed(2),
        y,
        height,
      }),
    );
  const drawing = svg(
    "svg",
    {
      class: "coverage",
      viewBox: `0 0 ${WIDTH} ${small ? 6 : 22}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": small ? label.text : summaryOf(coverage),
    },
    svg("rect", { class: "unread", x: 0, width: WIDTH, y: 0, height: small ? 6 : 22 }),
    spans("sub", small ? 0 : 12, small ? 6 : 10),
    spans("root", 0, small ? 6 : 10),
  );
  if (!small) {
    drawing.addEventListener("click", (event) => {
      const box = drawing.getBoundingClientRect();
      const at = Math.floor(((event.clientX - box.left) / box.width) * chars);
      openContext(at, at + 1);
    });
  }
  return drawing;
}

function summaryOf(coverage) {
  const share = (chars) => percent(chars / Math.max(coverage.chars, 1));
  return `${share(coverage.read)} of ${count(coverage.chars)} characters were read: ${share(coverage.tracks.root.read)} by the root LLM, ${share(coverage.tracks.sub.read)} by sub-LLMs`;
}

export function coveragePanel(coverage, problem, openContext) {
  if (!coverage) return el("p", { class: "dim" }, "No stored prompt quotes 64 characters or more of the context.");
  const share = (chars) => percent(chars / Math.max(coverage.chars, 1));
  return el(
    "div",
    {},
    el(
      "p",
      { class: "coverage-sum" },
      el("strong", {}, share(coverage.read)),
      ` of ${count(coverage.chars)} characters were read`,
    ),
    coverageBar(coverage, openContext),
    el(
      "div",
      { class: "legend" },
      el("span", { class: "key k-root" }, `root LLM ${share(coverage.tracks.root.read)}`),
      el("span", { class: "key k-sub" }, `sub-LLMs ${share(coverage.tracks.sub.read)}`),
    ),
    problem
      ? el("p", { class: "warning" }, problem)
      : el("button", { type: "button", class: "quiet", on: { click: () => openContext(0, 1) } }, "Open the context"),
  );
}

// Opens the drawer at a place of the context; `jump` shows a turn.
export function contextOpener(base, coverage, jump) {
  return function openContext(start, end) {
    const page = Math.floor(start / PAGE);
    showPage(base, coverage, page, [start, end], jump, openContext);
  };
}

async function showPage(base, coverage, page, [start, end], jump, openContext) {
  const last = Math.max(Math.ceil(coverage.chars / PAGE) - 1, 0);
  const body = el("div", {}, el("p", { class: "dim" }, "Loading …"));
  const step = (by) => openContext(Math.min(Math.max(page + by, 0), last) * PAGE, 0);
  openDrawer(
    `Context · characters ${count(page * PAGE)} to ${count(Math.min((page + 1) * PAGE, coverage.chars))} of ${count(coverage.chars)}`,
    body,
    {
      buttons: [
        el(
          "button",
          { type: "button", class: "quiet", disabled: page === 0, on: { click: () => step(-1) } },
          "← before",
        ),
        el(
          "button",
          { type: "button", class: "quiet", disabled: page >= last, on: { click: () => step(1) } },
          "after →",
        ),
      ],
      keys: (event) => {
        if (event.key === "ArrowRight") step(1);
        if (event.key === "ArrowLeft") step(-1);
      },
    },
  );
  try {
    const answer = await loadOnce([...base, "context", String(page)]);
    replace(body, readersOf(answer.readers, jump), pageText(answer, start, end));
    body.querySelector("mark.target")?.scrollIntoView({ block: "center" });
  } catch (error) {
    replace(body, el("p", { class: "warning" }, error.message));
  }
}

function readersOf(readers, jump) {
  if (!readers.count) return el("p", { class: "dim" }, "Nobody read this part in a stretch of 64 characters or more.");
  return el(
    "p",
    { class: "readers" },
    `Read ${plural(readers.count, "time")} here, ${count(readers.sub_count)} by sub-LLMs, in `,
    readers.turns.map((turn, index) => [
      index ? ", " : "",
      el("button", { type: "button", class: "quiet", on: { click: () => jump(turn) } }, `turn ${turn + 1}`),
    ]),
    ".",
  );
}

// The text of a page with what was read in it marked.
function pageText({ start, text, readers }, from, to) {
  const letters = [...text];
  const marks = new Uint8Array(letters.length);
  for (const [first, end] of readers.spans.sub) marks.fill(1, first - start, end - start);
  for (const [first, end] of readers.spans.root) marks.fill(2, first - start, end - start);
  const aim = (at) => to > from && at + start >= from && at + start < to;
  const node = el("pre", { class: "text context-text" });
  let at = 0;
  while (at < letters.length) {
    let end = at + 1;
    while (end < letters.length && marks[end] === marks[at] && aim(end) === aim(at)) end += 1;
    const piece = letters.slice(at, end).join("");
    const cls = [marks[at] === 2 ? "by-root" : marks[at] === 1 ? "by-sub" : "", aim(at) ? "target" : ""]
      .filter(Boolean)
      .join(" ");
    add(node, cls ? el("mark", { class: cls }, piece) : piece);
    at = end;
  }
  return node;
}
