// One rollout: question and verdict, the time line of its turns, and beside it what it used and read.

import { el, fold, replace } from "./dom.js";
import { isExport, load, loadOnce, pathOf } from "./data.js";
import { budgetBars, timeSplit } from "./budgets.js";
import { contextOpener, coveragePanel } from "./coverage.js";
import { closeDrawer } from "./drawer.js";
import { count, fixed, money, plural, seconds, signed } from "./format.js";
import { facts, message, outcomeChip, scoreChip, textBlock } from "./pieces.js";
import { go, here, link, note } from "./route.js";
import { orderOf } from "./run.js";
import { rowsOf } from "./rows.js";
import { tokenPanel } from "./tokens.js";
import { turnArticle } from "./turn.js";

export class RolloutPage {
  constructor(main, run, key) {
    this.main = main;
    this.run = run;
    this.rollout = key;
    this.turn = 0;
    this.base = ["runs", run.name, "rollouts", key];
  }

  async show() {
    this.page = await loadOnce(this.base);
    this.member = await this.findMember();
    const { page } = this;
    const jump = (turn) => {
      closeDrawer();
      this.goTo(turn);
    };
    this.openContext = page.coverage ? contextOpener(this.base, page.coverage, jump) : () => {};
    const aside = el("aside", { class: "side", "aria-label": "About this rollout" }, this.side());
    replace(
      this.main,
      this.head(),
      el(
        "div",
        { class: "rollout" },
        el(
          "div",
          { class: "timeline" },
          this.beginning(),
          page.turns.map((turn, index) => turnArticle(turn, index, page, this.base, this.openContext)),
          this.ending(),
          this.tokens(),
        ),
        aside,
      ),
    );
    const turn = Number(here().query.get("turn"));
    if (turn) this.goTo(turn - 1);
    else window.scrollTo(0, 0);
  }

  async findMember() {
    const { group } = this.page;
    if (!group || group.group === null) return null;
    this.group = (await load(["runs", this.run.name, "groups", String(group.group)])).group;
    return this.group.members.find((one) => one.key === this.rollout) ?? null;
  }

  head() {
    const { page } = this;
    const order = orderOf(this.run.name);
    const at = order.indexOf(this.rollout);
    const step = (by, text, name) => {
      const key = at < 0 ? undefined : order[at + by];
      return key === undefined
        ? el("span", { class: "step dim", "aria-hidden": "true" }, text)
        : el(
            "a",
            { class: "step", href: link(["run", this.run.name, "rollout", key]), "aria-label": `${name} rollout` },
            text,
          );
    };
    const verdict = page.score;
    return el(
      "div",
      { class: "rollout-head" },
      el(
        "div",
        { class: "title-line" },
        el("h1", {}, page.task_id || page.id),
        el("span", { class: "dim" }, page.scaffold),
        el(
          "nav",
          { class: "steps", "aria-label": "Rollouts" },
          step(-1, "← previous", "previous"),
          at >= 0 ? el("span", { class: "dim" }, `${count(at + 1)} of ${count(order.length)}`) : null,
          step(1, "next →", "next"),
        ),
      ),
      el("p", { class: "question" }, page.question),
      el(
        "div",
        { class: "verdict" },
        el(
          "div",
          { class: "verdict-score" },
          scoreChip(verdict?.value),
          outcomeChip(page.outcome),
          el("span", { class: "dim" }, stopText(page)),
          page.program.length ? el("span", { class: "dim" }, page.program.join(" · ")) : null,
        ),
        el(
          "div",
          { class: "pair" },
          el(
            "div",
            {},
            el("div", { class: "role" }, "answer"),
            textBlock([page.answer || "(no answer)"], this.openContext, { limit: 1200, cls: "answer" }),
          ),
          el(
            "div",
            {},
            el("div", { class: "role" }, "right answer"),
            textBlock([page.gold || "(not recorded)"], this.openContext, { limit: 1200, cls: "gold" }),
          ),
        ),
        verdict?.explanation
          ? el("p", { class: "why" }, el("span", { class: "role" }, "why"), ` ${verdict.explanation}`)
          : null,
        verdict && Object.keys(verdict.metrics).length
          ? el(
              "p",
              { class: "dim" },
              Object.entries(verdict.metrics)
                .map(([name, value]) => `${name} ${fixed(value, Number.isInteger(value) ? 0 : 3)}`)
                .join(" · "),
            )
          : null,
        page.error ? el("p", { class: "warning" }, page.error) : null,
      ),
    );
  }

  beginning() {
    const { page } = this;
    if (!page.prompt.length) return null;
    return fold(
      [el("span", { class: "label" }, "prompt"), el("span", { class: "dim" }, plural(page.prompt.length, "message"))],
      () => page.prompt.map((one) => message(one.role, one.content, this.openContext)),
      { cls: "prompt" },
    );
  }

  ending() {
    const { page } = this;
    return el(
      "div",
      { class: "ending" },
      el(
        "span",
        { class: "dim" },
        page.turns.length
          ? `${stopText(page)} after ${plural(page.turns.length, "turn")}, ${seconds(page.timing.total)}`
          : `${stopText(page)}: it has no turn`,
      ),
    );
  }

  tokens() {
    if (!this.page.has_tokens) return null;
    return fold(
      [el("span", { class: "label" }, "tokens"), el("span", { class: "dim" }, "samples, log-probabilities, mask")],
      () => tokenPanel(this.base, this.member),
      { cls: "tokens-fold" },
    );
  }

  side() {
    const { page } = this;
    const section = (title, ...nodes) => el("section", {}, el("h2", {}, title), nodes);
    const changes = page.turns.map((turn, index) => [turn.answer, index]).filter(([answer]) => answer !== null);
    return [
      page.group ? section("Training", this.training()) : null,
      section("What was read", coveragePanel(page.coverage, page.context_problem, this.openContext)),
      page.budgets.length ? section("Budgets", budgetBars(page.budgets)) : null,
      section("Time", timeSplit(page.timing)),
      changes.length
        ? section(
            "The answer as it changed",
            el(
              "ol",
              { class: "changes" },
              changes.map(([answer, index]) =>
                el(
                  "li",
                  {},
                  el(
                    "button",
                    { type: "button", class: "quiet", on: { click: () => this.goTo(index) } },
                    `turn ${index + 1}`,
                  ),
                  " ",
                  el("span", { class: "mono" }, answer.slice(0, 160) || "(empty)"),
                ),
              ),
            ),
          )
        : null,
      section("Facts", this.facts()),
    ];
  }

  training() {
    const { group, weight_versions: versions } = this.page;
    const member = this.member;
    const weights =
      versions.length > 1
        ? `${versions[0]} to ${plural(versions.at(-1), "update")}`
        : plural(group.policy_version, "update");
    const fate = this.group?.step
      ? `trained in step ${this.group.step}`
      : this.group?.dropped
        ? `dropped: ${this.group.dropped.replaceAll("_", " ")}`
        : "not trained yet";
    return [
      facts([
        ["environment", group.label],
        ["weights after", weights],
        ["held out", group.step === null ? null : `after ${plural(group.step, "update")}`],
        ["reward", member && member.reward !== null ? fixed(member.reward, 3) : null],
        ["advantage", member ? signed(member.advantage) : null],
        ["off-policy steps", member?.off_policy],
        ["group", group.group === null ? null : `${group.group}, member ${group.member}: ${fate}`],
      ]),
      group.group === null
        ? null
        : el("a", { href: link(["run", this.run.name, "group", String(group.group)]) }, "All members of the group"),
    ];
  }

  facts() {
    const { page } = this;
    const { info, usage } = page;
    const sandbox = info.sandbox?.level;
    const tokens = (one) =>
      `${count(one.prompt_tokens)} in, ${count(one.completion_tokens)} out${one.cached_tokens ? `, ${count(one.cached_tokens)} cached` : ""}`;
    return [
      facts([
        ["environment", page.environment],
        ["root LLM", info.root],
        ["sub-LLM", info.sub],
        ["root tokens", tokens(usage.root)],
        ["sub tokens", usage.sub.calls ? tokens(usage.sub) : null],
        ["cost", page.cost === null ? null : money(page.cost)],
        ["REPL sandbox", sandbox],
        ["id", el("span", { class: "mono" }, page.id)],
      ]),
      fold([el("span", {}, "Everything that was measured")], () =>
        el("pre", { class: "text", tabindex: "0" }, JSON.stringify({ metrics: page.metrics, info }, null, 1)),
      ),
      isExport
        ? null
        : el(
            "a",
            { href: `/raw/${pathOf([this.run.name, this.rollout])}`, download: "rollout.json" },
            "The record as it is stored",
          ),
    ];
  }

  // Shows a turn: its address is noted, so that a link leads there.
  goTo(turn) {
    const { length } = this.page.turns;
    if (!length) return;
    this.turn = Math.max(0, Math.min(turn, length - 1));
    const article = document.getElementById(`turn-${this.turn + 1}`);
    article.scrollIntoView({ block: "start" });
    article.focus({ preventScroll: true });
    note({ turn: String(this.turn + 1) });
  }

  key(event) {
    const focused = document.activeElement?.closest?.("article.turn");
    if (focused) this.turn = Number(focused.id.slice(5)) - 1;
    const actions = {
      j: () => this.goTo(focused ? this.turn + 1 : this.turn),
      k: () => this.goTo(this.turn - 1),
      n: () => this.step(1),
      p: () => this.step(-1),
      c: () => this.openContext(0, 1),
      u: () => go(link(["run", this.run.name])),
    };
    actions[event.key]?.();
    return event.key in actions;
  }

  step(by) {
    const order = orderOf(this.run.name);
    const at = order.indexOf(this.rollout);
    if (at >= 0 && order[at + by] !== undefined) go(link(["run", this.run.name, "rollout", order[at + by]]));
  }

  // So that "next" is known after a deep link, the rows are read too.
  follow() {
    this.stop = rowsOf(this.run.name).watch(() => {
      const order = orderOf(this.run.name);
      if (order.includes(this.rollout) && this.main.querySelector(".rollout-head")) {
        this.main.querySelector(".rollout-head").replaceWith(this.head());
        this.stop();
      }
    });
  }

  close() {
    this.stop?.();
    closeDrawer();
  }
}

function stopText(page) {
  const words = {
    ready: "the answer was ready",
    max_turns: "its turns were used up",
    root_tokens: "its root tokens were used up",
    sub_tokens: "its sub tokens were used up",
    sub_calls: "its sub-calls were used up",
    wall_time: "its time was used up",
    context_overflow: "the prompt did not fit the window",
    length: "the reply was cut off",
    error: "engine or REPL failed",
    cancelled: "it was cancelled",
  };
  return words[page.stop_reason] ?? page.stop_reason;
}
