// Where the page gets its data: from the server, or from the same answers in the file itself.

const held = document.getElementById("data");
const embedded = held ? JSON.parse(held.textContent) : null;
const answers = new Map();
const ANSWERS_KEPT = 60;

export const isExport = embedded !== null;

export function pathOf(parts) {
  return parts.map((part) => encodeURIComponent(part)).join("/");
}

// The answer at a path. Rejects with an Error that says why there is none.
export async function load(parts, query = "") {
  if (embedded) return unpacked(pathOf(parts));
  const response = await fetch(`/api/${pathOf(parts)}${query ? `?${query}` : ""}`, { credentials: "same-origin" });
  if (response.status === 403) throw new Error(await response.text());
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error ?? `the viewer answered ${response.status}`);
  return answer;
}

// The same for what never changes, kept for a while.
export async function loadOnce(parts) {
  const path = pathOf(parts);
  if (!answers.has(path)) {
    const promise = load(parts);
    answers.set(path, promise);
    promise.catch(() => answers.delete(path));
    if (answers.size > ANSWERS_KEPT) answers.delete(answers.keys().next().value);
  }
  return answers.get(path);
}

export function forget(prefix) {
  for (const path of [...answers.keys()]) if (path.startsWith(pathOf(prefix))) answers.delete(path);
}

async function unpacked(path) {
  const text = embedded[path];
  if (text === undefined) throw new Error("This is not part of the exported page.");
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}
