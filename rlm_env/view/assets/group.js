// The rollouts of a group beside each other: same task, same weights or nearly so, different rewards.

import { el, replace } from "./dom.js";
import { load, loadOnce } from "./data.js";
import { count, fixed, plural } from "./format.js";
import { advantage } from "./grid.js";
import { codeBlock, facts, outcomeChip, scoreChip } from "./pieces.js";
import { link } from "./route.js";

export async function groupPage(main, run, number) {
  const { group, before, after } = await load(["runs", run.name, "groups", number]);
  const pages = await Promise.all(group.members.map((one) => loadOnce(["runs", run.name, "rollouts", one.key])));
  const fate = group.step
    ? `trained in step ${group.step}`
    : group.dropped
      ? `dropped: ${group.dropped.replaceAll("_", " ")}`
      : "not trained yet";
  const step = (to, text) =>
    to === null
      ? el("span", { class: "step dim" }, text)
      : el("a", { class: "step", href: link(["run", run.name, "group", String(to)]) }, text);
  replace(
    main,
    el(
      "div",
      { class: "title-line" },
      el("h1", {}, `Group ${group.group}`),
      el("span", { class: "dim" }, `${plural(group.members.length, "member")} of ${group.size}, ${fate}`),
      el("nav", { class: "steps", "aria-label": "Groups" }, step(before, "← previous"), step(after, "next →")),
    ),
    el("p", { class: "question" }, pages[0]?.question),
    el("p", {}, el("span", { class: "role" }, "right answer "), el("span", { class: "mono" }, pages[0]?.gold)),
    el(
      "div",
      { class: "members" },
      group.members.map((member, index) => memberCard(run, member, pages[index])),
    ),
  );
  window.scrollTo(0, 0);
}

function memberCard(run, member, page) {
  return el(
    "section",
    { class: "member", "aria-label": `member ${member.member}` },
    el("h2", {}, el("a", { href: link(["run", run.name, "rollout", member.key]) }, `Member ${member.member}`)),
    el("p", { class: "verdict-score" }, scoreChip(page.score?.value), outcomeChip(page.outcome)),
    facts([
      ["reward", member.reward === null ? "none" : fixed(member.reward, 3)],
      ["advantage", advantage(member.advantage)],
      ["off-policy steps", member.off_policy],
      ["turns", page.turns.length],
      ["sub-calls", count(page.batches.reduce((sum, batch) => sum + batch.calls, 0))],
      ["answer", el("span", { class: "mono" }, page.answer.slice(0, 200) || "(none)")],
    ]),
    page.turns.slice(0, 6).map((turn, index) => [
      el("div", { class: "role" }, `turn ${index + 1}`),
      turn.parts
        .filter((part) => typeof part === "string")
        .slice(0, 1)
        .map((text) => el("p", { class: "said-short" }, text.slice(0, 240))),
      turn.parts
        .filter((part) => part.code)
        .map((part) => codeBlock(part.code, { label: part.ran ? "ran" : "did not run" })),
    ]),
  );
}
