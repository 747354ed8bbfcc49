// The curve of a training run: reward by step, and held-out scores with their intervals.

import { el, svg } from "./dom.js";

export function curvePlot(curves) {
  if (!curves.length) return el("p", { class: "dim" }, "No step has ended yet.");
  const main = curves.filter((one) => one.name === "reward/mean" || one.bounds);
  const others = curves.filter((one) => !main.includes(one));
  return el(
    "div",
    { class: "curves" },
    main.length ? plot("reward and held-out score", main, [0, 1], true) : null,
    el(
      "div",
      { class: "small-plots" },
      others.map((one) => plot(one.name, [one], null, false)),
    ),
  );
}

function plot(title, curves, range, large) {
  const [wide, high, left, bottom] = large ? [1160, 240, 40, 24] : [320, 130, 52, 20];
  const points = curves.flatMap((one) => one.points);
  const steps = points.map(([step]) => step);
  const values = points.map(([, value]) => value);
  const [low, top] = range ?? [Math.min(...values, 0), Math.max(...values, 1e-9)];
  const [first, last] = [Math.min(...steps, 0), Math.max(...steps, 1)];
  const x = (step) => left + ((step - first) / (last - first)) * (wide - left - 8);
  const y = (value) => 8 + (1 - (value - low) / (top - low || 1)) * (high - bottom - 8);
  const path = (one) =>
    one.points
      .map(([step, value], index) => `${index ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`)
      .join("");
  const told = curves.map((one) => `${one.name} ${brief(one.points[0][1])} → ${brief(one.points.at(-1)[1])}`);
  return el(
    "figure",
    { class: large ? "plot large" : "plot" },
    el(
      "figcaption",
      { class: "legend" },
      told.map((text, index) => el("span", { class: `key v${index}` }, text)),
    ),
    svg(
      "svg",
      { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": `${title}: ${told.join("; ")}` },
      [low, (low + top) / 2, top].map((value) => [
        svg("line", { class: "rule", x1: left, x2: wide - 8, y1: y(value), y2: y(value) }),
        svg("text", { class: "tick", x: left - 6, y: y(value) + 4, "text-anchor": "end" }, brief(value, 2)),
      ]),
      [first, last].map((step, index) =>
        svg(
          "text",
          { class: "tick", x: x(step), y: high - 4, "text-anchor": index ? "end" : "start" },
          `${index ? "step " : ""}${step}`,
        ),
      ),
      curves.map((one, index) => [
        one.bounds
          ? one.bounds.map(([a, b], at) =>
              svg("line", {
                class: `whisker v${index}`,
                x1: x(one.points[at][0]),
                x2: x(one.points[at][0]),
                y1: y(a),
                y2: y(b),
              }),
            )
          : null,
        svg("path", { class: `curve v${index}`, d: path(one) }),
        one.bounds || one.points.length === 1
          ? one.points.map(([step, value]) =>
              svg("circle", { class: `dot v${index}`, cx: x(step), cy: y(value), r: 4 }),
            )
          : null,
      ]),
    ),
  );
}

function brief(value, digits = 3) {
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(1);
  return String(Number(value.toPrecision(digits)));
}
