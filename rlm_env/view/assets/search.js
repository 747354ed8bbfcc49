// Looks through everything that the rollouts of a run hold, piece by piece. Not covered: the columns of the table.

import { isExport, load } from "./data.js";

const SOUGHT = /"([^"]+)"?|([^\s"]+)/g;

// What is looked for, in lower case: words, and phrases in double quotes.
export function wordsOf(text) {
  return [...text.matchAll(SOUGHT)].map(([, phrase, word]) => (phrase ?? word).toLowerCase());
}

export class Search {
  // tell() is called whenever there is more to show.
  constructor(run, rows, tell) {
    Object.assign(this, { run, rows, tell, text: "", asked: 0, busy: false });
    this.begin("");
  }

  begin(text) {
    Object.assign(this, { text, found: new Map(), after: "", share: 0, at: 0 });
  }

  // Looks for a text, or for what is new since; none ends it.
  async look(text) {
    if (text !== this.text) {
      this.asked += 1;
      this.busy = false;
      this.begin(text);
    }
    if (!wordsOf(text).length || this.busy) return;
    this.busy = true;
    const mine = this.asked;
    try {
      for (let more = true; more && mine === this.asked; ) {
        const answer = isExport ? await this.lookHere() : await this.ask();
        if (mine !== this.asked) return;
        if (answer.reset) this.found.clear();
        for (const [key, turn] of answer.found) this.found.set(key, turn);
        Object.assign(this, { after: answer.after, share: answer.share });
        more = answer.more;
        this.tell();
      }
    } catch (error) {
      this.tell(error.message);
    }
    if (mine === this.asked) this.busy = false;
  }

  ask() {
    const query = new URLSearchParams({ text: this.text, after: this.after });
    return load(["runs", this.run, "search"], String(query));
  }

  // The same in an exported page: one rollout after the other is unpacked.
  async lookHere() {
    const list = this.rows.list;
    const row = list[this.at];
    if (!row) return { found: [], share: 1, more: false };
    const found = await findWords(["runs", this.run, "rollouts", row.key], wordsOf(this.text));
    this.at += 1;
    return { found: found ? [[row.key, found.turn]] : [], share: this.at / list.length, more: this.at < list.length };
  }
}

async function findWords(base, words) {
  const page = await load(base);
  const missing = new Set(words);
  let turn = null;
  const look = (value, at) => {
    const text = textOf(value).toLowerCase();
    const hits = [...missing].filter((word) => text.includes(word));
    for (const word of hits) missing.delete(word);
    if (hits.length) turn ??= at;
  };
  page.turns.forEach((one, index) => look(one, index));
  for (const batch of page.batches) {
    for (let block = 0; missing.size; block += 1) {
      const calls = await load([...base, "calls", String(batch.batch), String(block)]).catch(() => null);
      if (!calls) break;
      look(calls, batch.turn);
    }
  }
  look([page.id, page.question, page.answer, page.gold, page.error, page.score?.explanation], null);
  return missing.size ? null : { turn };
}

// The texts in an answer; pieces of one text, such as highlighted code and quotes, are joined.
function textOf(value) {
  if (typeof value === "string") return value;
  if (!value || typeof value !== "object") return "";
  if (isQuote(value)) return value.text;
  if (!Array.isArray(value)) return Object.values(value).map(textOf).join("\n");
  if (value.length && value.every(isToken)) return value.map(([, text]) => text).join("");
  return value.map(textOf).join(value.every((one) => typeof one === "string" || isQuote(one)) ? "" : "\n");
}

function isQuote(value) {
  return Boolean(value) && typeof value === "object" && "start" in value && "text" in value;
}

function isToken(value) {
  return Array.isArray(value) && value.length === 2 && value.every((part) => typeof part === "string");
}
