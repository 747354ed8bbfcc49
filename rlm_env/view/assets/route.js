// Addresses: what is shown is in the fragment, so that every view can be linked to, in a file too.

// #/run/NAME/rollout/KEY?turn=2 -> { parts: ["run", NAME, "rollout", KEY], query }
export function here() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decoded);
  return { parts, query: new URLSearchParams(query ?? "") };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export function link(parts, query) {
  const path = parts.map((part) => encodeURIComponent(part)).join("/");
  const text = query ? new URLSearchParams(Object.entries(query).filter(([, value]) => value)).toString() : "";
  return `#/${path}${text ? `?${text}` : ""}`;
}

export function go(address) {
  location.hash = address;
}

// Changes the query of the address without a new entry in the history and without showing the page anew.
export function note(query) {
  const { parts } = here();
  history.replaceState(null, "", link(parts, query));
}
