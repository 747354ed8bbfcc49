// The rollouts of a run as rows, kept up to date while the run goes on.

import { isExport, load } from "./data.js";

const LIVE_MS = 1000;
const IDLE_MS = 4000;

export class Rows {
  constructor(run) {
    this.run = run;
    this.byKey = new Map();
    this.after = "";
    this.share = 0;
    this.complete = false;
    this.status = "";
    this.problems = [];
    this.version = 0;
    this.watchers = new Set();
    this.following = false;
  }

  get list() {
    return [...this.byKey.values()];
  }

  // Calls `watcher` after every change, until the function that is returned is called.
  watch(watcher) {
    this.watchers.add(watcher);
    if (!this.following) this.follow();
    return () => this.watchers.delete(watcher);
  }

  async follow() {
    this.following = true;
    while (this.watchers.size) {
      const more = await this.update();
      if (isExport) break;
      if (!more) await pause(this.status === "running" ? LIVE_MS : IDLE_MS);
    }
    this.following = false;
  }

  // Gets what is new. True if there is more already.
  async update() {
    let answer;
    try {
      answer = await load(["runs", this.run, "rows"], this.after ? `after=${this.after}` : "");
    } catch (error) {
      this.tell({ error: error.message });
      await pause(IDLE_MS);
      return false;
    }
    if (answer.reset) this.byKey.clear();
    for (const row of answer.rows) {
      this.byKey.delete(row.key); // a rollout that was repeated moves to the end
      this.byKey.set(row.key, row);
    }
    const changed =
      answer.rows.length > 0 || answer.reset || this.status !== answer.status || this.complete === answer.more;
    Object.assign(this, { after: answer.after, share: answer.share, status: answer.status, problems: answer.problems });
    this.complete = !answer.more;
    if (changed) {
      this.version += 1;
      this.tell({});
    }
    return answer.more;
  }

  tell(event) {
    for (const watcher of [...this.watchers]) watcher(event);
  }
}

const known = new Map();

export function rowsOf(run) {
  if (!known.has(run)) known.set(run, new Rows(run));
  return known.get(run);
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
