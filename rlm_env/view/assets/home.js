// All runs that the viewer was started with.

import { el, replace } from "./dom.js";
import { load } from "./data.js";
import { moment } from "./format.js";
import { link } from "./route.js";

export async function homePage(main) {
  const { runs, matrices } = await load(["runs"]);
  const inMatrix = new Map(matrices.flatMap((one) => one.runs.map((name) => [name, one])));
  const alone = runs.filter((run) => !inMatrix.has(run.name));
  replace(
    main,
    el("h1", {}, "Runs"),
    matrices.map((one) => [
      el("h2", { class: "group-title" }, one.title),
      runList(runs.filter((run) => inMatrix.get(run.name) === one)),
    ]),
    alone.length ? runList(alone) : null,
  );
}

function runList(runs) {
  return el("ul", { class: "run-list" }, runs.map(runItem));
}

function runItem(run) {
  const facts = [
    run.environments?.join(", "),
    run.scores?.length ? null : run.scaffolds?.join(", "),
    run.started ? moment(run.started) : null,
  ].filter(Boolean);
  return el(
    "li",
    {},
    el(
      "a",
      { href: link(["run", run.name]), class: "run-item" },
      el("span", { class: "run-title" }, run.title),
      statusPill(run.status),
      el("span", { class: "dim run-facts" }, facts.join(" · ")),
      el("span", { class: "dim mono run-path" }, run.name),
      run.scores?.length
        ? el(
            "span",
            { class: "run-scores" },
            run.scores.map(([name, score]) => el("span", {}, el("span", { class: "dim" }, `${name} `), score)),
          )
        : null,
    ),
  );
}

export function statusPill(status) {
  if (!status) return null;
  const kind = status === "complete" || status === "decided" ? "good" : status === "running" ? "live" : "warn";
  return el("span", { class: `pill ${kind}` }, status);
}
