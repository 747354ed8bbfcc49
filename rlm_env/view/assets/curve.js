// The curve of a training run: reward by step, and held-out scores with their intervals.

import { el, svg } from "./dom.js";
import { fixed } from "./format.js";

const [WIDE, HIGH, LEFT, BOTTOM] = [640, 220, 44, 24];

export function curvePlot(curves) {
  if (!curves.length) return el("p", { class: "dim" }, "No step has ended yet.");
  const main = curves.filter((one) => one.name === "reward/mean" || one.bounds);
  const others = curves.filter((one) => !main.includes(one));
  return el(
    "div",
    { class: "curves" },
    main.length ? plot("reward and held-out score", main, [0, 1], true) : null,
    el("div", { class: "small-plots" }, others.map((one) => plot(one.name, [one], null, false))),
  );
}

function plot(title, curves, range, large) {
  const points = curves.flatMap((one) => one.points);
  const steps = points.map(([step]) => step);
  const values = points.map(([, value]) => value);
  const [low, high] = range ?? [Math.min(...values, 0), Math.max(...values, 1e-9)];
  const [first, last] = [Math.min(...steps, 0), Math.max(...steps, 1)];
  const x = (step) => LEFT + ((step - first) / (last - first)) * (WIDE - LEFT - 8);
  const y = (value) => 8 + (1 - (value - low) / (high - low || 1)) * (HIGH - BOTTOM - 8);
  const path = (one) => one.points.map(([step, value], index) => `${index ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const lines = [low, (low + high) / 2, high];
  const newest = curves.map((one) => `${one.name} ${fixed(one.points[0][1], 3)} → ${fixed(one.points.at(-1)[1], 3)}`).join("; ");
  return el(
    "figure",
    { class: large ? "plot large" : "plot" },
    el("figcaption", {}, large ? newest : `${title}: ${Number(curves[0].points.at(-1)[1].toPrecision(3))}`),
    svg(
      "svg",
      { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": newest },
      lines.map((value) => [svg("line", { class: "rule", x1: LEFT, x2: WIDE - 8, y1: y(value), y2: y(value) }), svg("text", { class: "tick", x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, Number(value.toPrecision(2)))]),
      [first, last].map((step, index) => svg("text", { class: "tick", x: x(step), y: HIGH - 4, "text-anchor": index ? "end" : "start" }, `${index ? "step " : ""}${step}`)),
      curves.map((one, index) => [
        one.bounds ? one.bounds.map(([a, b], at) => svg("line", { class: `whisker v${index}`, x1: x(one.points[at][0]), x2: x(one.points[at][0]), y1: y(a), y2: y(b) })) : null,
        svg("path", { class: `curve v${index}`, d: path(one) }),
        one.bounds ? one.points.map(([step, value]) => svg("circle", { class: `dot v${index}`, cx: x(step), cy: y(value), r: 4 })) : null,
      ]),
    ),
  );
}
