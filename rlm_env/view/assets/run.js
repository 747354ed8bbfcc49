// One run: what it is, its scaffolds, and the table of its rollouts with filters.

import { el, replace } from "./dom.js";
import { load } from "./data.js";
import { count, money, moment, percent, plural } from "./format.js";
import { chosen, OUTCOMES, partOf, SCORES, stateOf, tally } from "./filter.js";
import { Grid } from "./grid.js";
import { statusPill } from "./home.js";
import { outcomeChip } from "./pieces.js";
import { here, link, note } from "./route.js";
import { rowsOf } from "./rows.js";
import { scaffoldCards } from "./scaffolds.js";
import { Search, wordsOf } from "./search.js";
import { curvePlot } from "./curve.js";
import { numbersView } from "./tables.js";
import { TaskGrid } from "./tasks.js";

const NUMBERS_MS = 5000;
const TYPING_MS = 250;
const shownOrder = new Map();

// The keys of the rollouts of a run in the order in which they were last shown: where "next" leads.
export function orderOf(run) {
  return shownOrder.get(run) ?? rowsOf(run).list.map((row) => row.key);
}

export class RunPage {
  constructor(main, run) {
    this.run = run;
    this.name = run.name;
    this.rows = rowsOf(run.name);
    this.state = stateOf(here().query);
    this.numbersAt = -1;
    this.everywhere = new Search(run.name, this.rows, (problem) => this.show(problem));
    this.open = (row) => {
      const turn = this.everywhere.found.get(row.key) ?? null;
      return link(["run", this.name, "rollout", row.key], turn === null ? null : { turn: String(turn + 1) });
    };
    this.head = el("div", { class: "run-head" });
    this.summary = el("div", { class: "summary" }, el("p", { class: "dim" }, "Counting …"));
    this.filters = el("div", { class: "filters", role: "search" });
    this.body = el("div", { class: "run-body" });
    this.status = el("p", { class: "status-line", role: "status" });
    replace(main, this.head, this.summary, this.filters, this.status, this.body);
    this.makeFilters();
    this.makeBody();
    this.stop = this.rows.watch((event) => this.update(event));
    this.timer = setInterval(() => this.countNumbers(), NUMBERS_MS);
    this.update({});
  }

  close() {
    this.stop();
    clearInterval(this.timer);
    clearTimeout(this.typing);
    this.everywhere.look("");
    this.view?.close();
  }

  update(event) {
    if (event.error) {
      this.status.textContent = `The viewer does not answer: ${event.error}`;
      return;
    }
    this.showHead();
    this.show();
    if (this.rows.complete) this.countNumbers();
  }

  showHead() {
    const { run, rows } = this;
    const status = rows.status || run.status;
    const done = run.planned
      ? `${count(rows.byKey.size)} of ${count(run.planned)} rollouts`
      : plural(rows.byKey.size, "rollout");
    const facts = [
      run.model,
      run.steps && plural(run.steps, "step"),
      run.environments?.join(", "),
      run.started && moment(run.started),
      run.spent_usd && money(run.spent_usd),
    ];
    replace(
      this.head,
      el(
        "div",
        { class: "title-line" },
        el("h1", {}, run.title),
        statusPill(status),
        el("span", { class: "dim" }, done),
      ),
      el("p", { class: "dim" }, facts.filter(Boolean).join(" · ")),
      run.problem ? el("p", { class: "warning" }, run.problem) : null,
      rows.problems.map((text) => el("p", { class: "warning" }, text)),
    );
    if (this.rows.share < 1) this.status.textContent = `Reading the rollouts: ${percent(rows.share)} …`;
  }

  async countNumbers() {
    if (!this.rows.complete || this.counting || this.numbersAt === this.rows.version) return;
    this.counting = true;
    const version = this.rows.version;
    try {
      if (!this.numbers && this.run.kind !== "train") {
        this.numbers = await load(["runs", this.name, "scores"]); // what needs no look at code, first
        this.showNumbers();
      }
      const numbers = await load(["runs", this.name, "numbers"]);
      // counted a moment ago, or before the run ended: asked for again by the timer
      const fresh = numbers.rollouts === this.rows.byKey.size && numbers.status === this.rows.status;
      this.numbersAt = fresh ? version : -1;
      this.numbers = numbers;
      if (this.run.kind === "train") await this.joinGroups();
      this.showNumbers();
      await this.joinPrograms();
    } catch (error) {
      replace(this.summary, el("p", { class: "warning" }, error.message));
    }
    this.counting = false;
  }

  // So that the text filter finds them.
  async joinPrograms() {
    const { programs } = await load(["runs", this.name, "programs"]);
    for (const [program, keys] of Object.entries(programs)) {
      for (const key of keys) {
        const row = this.rows.byKey.get(key);
        if (row && row.program !== program) Object.assign(row, { program, text: undefined });
      }
    }
    if (this.state.q) this.show();
  }

  async joinGroups() {
    const { groups } = await load(["runs", this.name, "groups"]);
    for (const group of groups) {
      for (const member of group.members) {
        const row = this.rows.byKey.get(member.key);
        if (row)
          Object.assign(row, {
            advantage: member.advantage,
            trained: group.step ?? undefined,
            dropped: group.dropped ?? undefined,
          });
      }
    }
    this.show();
  }

  showNumbers() {
    const { summary } = this.numbers;
    if (this.state.view === "numbers") {
      replace(this.body, this.run.kind === "train" ? curvePlot(this.numbers.curves) : null, numbersView(this.numbers));
    }
    replace(
      this.summary,
      this.numbers.warnings.map((text) => el("p", { class: "warning" }, text)),
      summary
        ? scaffoldCards(this.numbers, (scaffold) =>
            this.set({ scaffold: this.state.scaffold === scaffold ? "" : scaffold }),
          )
        : null,
      this.run.kind === "train" && this.state.view !== "numbers"
        ? curvePlot(this.numbers.curves.filter((one) => one.name === "reward/mean" || one.bounds))
        : null,
    );
  }

  makeFilters() {
    const views = [
      ["", "Rollouts"],
      ...(this.run.kind === "eval" ? [["tasks", "By task"]] : []),
      ["numbers", "All numbers"],
    ];
    this.tabs = views.map(([name, title]) =>
      el(
        "button",
        {
          type: "button",
          class: "tab",
          "aria-pressed": String(this.state.view === name),
          "data-view": name,
          on: { click: () => this.setView(name) },
        },
        title,
      ),
    );
    this.search = el("input", {
      type: "search",
      id: "search",
      placeholder: "question, answer, id …",
      "aria-label": "Filter by text",
      autocomplete: "off",
      spellcheck: "false",
      on: { input: () => this.set({ q: this.search.value }) },
    });
    this.search.value = this.state.q;
    this.search.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown" || event.key === "Enter") {
        event.preventDefault();
        this.view?.focus();
      }
    });
    this.wide = el(
      "button",
      {
        type: "button",
        class: "chip",
        title: "Look through code, outputs, replies and sub-calls too",
        on: { click: () => this.set({ in: this.state.in ? "" : "everything" }) },
      },
      "in everything",
    );
    this.outcomes = el("div", { class: "chips", role: "group", "aria-label": "Filter by outcome" });
    this.selects = el("div", { class: "selects" });
    replace(
      this.filters,
      el("div", { class: "tabs", role: "group", "aria-label": "View" }, this.tabs),
      this.search,
      this.wide,
      this.outcomes,
      this.selects,
    );
  }

  makeBody() {
    this.view?.close();
    const several = (this.run.environments?.length ?? 1) > 1 || this.run.kind === "rollouts";
    if (this.state.view === "numbers") {
      this.view = null;
      replace(this.body, el("p", { class: "dim" }, "Counting …"));
    } else if (this.state.view === "tasks") {
      this.view = new TaskGrid({ scaffolds: this.run.scaffolds, open: this.open });
    } else {
      this.view = new Grid({ kind: this.run.kind, several, open: this.open, sortBy: (sort) => this.set({ sort }) });
    }
    if (this.view) replace(this.body, this.view.node);
    for (const part of [this.search, this.wide, this.outcomes, this.selects]) part.hidden = this.state.view === "numbers";
  }

  setView(view) {
    this.state.view = view;
    note(this.state);
    for (const tab of this.tabs) tab.setAttribute("aria-pressed", String(tab.dataset.view === view));
    this.makeBody();
    this.show();
    if (this.numbers) this.showNumbers();
  }

  set(change) {
    Object.assign(this.state, change);
    note(this.state);
    this.show();
  }

  // Looks through everything when nothing was typed for a moment.
  lookEverywhere() {
    const text = this.state.in ? this.state.q : "";
    this.wide.setAttribute("aria-pressed", String(Boolean(this.state.in)));
    clearTimeout(this.typing);
    if (text === this.everywhere.text || !wordsOf(text).length) this.everywhere.look(text);
    else this.typing = setTimeout(() => this.everywhere.look(text), TYPING_MS);
  }

  show(problem) {
    const all = this.rows.list;
    this.showChips(all);
    this.showSelects(all);
    this.lookEverywhere();
    const rows = chosen(all, this.state, this.everywhere.found);
    shownOrder.set(
      this.name,
      rows.map((row) => row.key),
    );
    if (this.rows.share >= 1) this.status.textContent = problem ?? this.told(rows.length, all.length);
    this.view?.set(rows, this.state.sort);
    if (this.view?.empty) this.view.empty.textContent = this.nothing();
  }

  nothing() {
    const { q, in: everywhere } = this.state;
    const hint = q && !everywhere ? " “in everything” looks through code, outputs and sub-calls too." : "";
    return `No rollout fits these filters.${hint}`;
  }

  told(shown, all) {
    const parts = shown === all ? [] : [`${count(shown)} of ${plural(all, "rollout")}`];
    const wanted = this.state.in ? this.state.q : "";
    const share = this.everywhere.text === wanted ? this.everywhere.share : 0;
    if (wordsOf(wanted).length && share < 1) parts.push(`looked through ${percent(share)} so far`);
    return parts.join(", ");
  }

  showChips(rows) {
    const found = tally(rows, (row) => row.outcome);
    const on = new Set(this.state.outcome.split(",").filter(Boolean));
    const signature = JSON.stringify([[...found], [...on]]);
    if (signature === this.chipsAre) return;
    this.chipsAre = signature;
    const focused = this.outcomes.contains(document.activeElement) ? document.activeElement.dataset.outcome : null;
    const toggle = (name) => {
      if (!on.delete(name)) on.add(name);
      this.set({ outcome: [...on].join(",") });
    };
    replace(
      this.outcomes,
      OUTCOMES.filter((name) => found.get(name)).map((name) =>
        el(
          "button",
          {
            type: "button",
            class: "chip",
            "aria-pressed": String(on.has(name)),
            "data-outcome": name,
            on: { click: () => toggle(name) },
          },
          outcomeChip(name),
          ` ${count(found.get(name))}`,
        ),
      ),
    );
    if (focused) this.outcomes.querySelector(`[data-outcome="${focused}"]`)?.focus();
  }

  showSelects(rows) {
    const options = {
      scaffold: ["any scaffold", [...tally(rows, (row) => row.scaffold).keys()].sort()],
      env: ["any environment", [...tally(rows, (row) => row.label ?? row.environment).keys()].sort()],
      part: ["training and held out", this.run.kind === "train" ? [...tally(rows, partOf).keys()].sort() : []],
      score: ["any score", Object.keys(SCORES).filter(Boolean)],
    };
    const signature = JSON.stringify([options, this.state.scaffold, this.state.env, this.state.part, this.state.score]);
    if (signature === this.selectsAre) return;
    this.selectsAre = signature;
    const focused = document.activeElement?.dataset?.select;
    replace(
      this.selects,
      Object.entries(options)
        .filter(([, [, values]]) => values.length > 1)
        .map(([name, [any, values]]) => {
          const select = el(
            "select",
            {
              "aria-label": `Filter by ${name === "env" ? "environment" : name}`,
              "data-select": name,
              on: { change: () => this.set({ [name]: select.value }) },
            },
            el("option", { value: "" }, any),
            values.map((value) => el("option", { value }, name === "score" ? SCORES[value] : value)),
          );
          select.value = this.state[name];
          return select;
        }),
    );
    if (focused) this.selects.querySelector(`[data-select="${focused}"]`)?.focus();
  }
}
