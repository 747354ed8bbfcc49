// The page: its frame, and which view the address asks for.

import { el, replace } from "./dom.js";
import { isExport, load } from "./data.js";
import { closeDrawer } from "./drawer.js";
import { groupPage } from "./group.js";
import { homePage } from "./home.js";
import { isTyping, showKeys } from "./keys.js";
import { RolloutPage } from "./rollout.js";
import { go, here, link } from "./route.js";
import { RunPage } from "./run.js";

const crumbs = el("nav", { class: "crumbs", "aria-label": "Where you are" });
const main = el("main", { id: "main", tabindex: "-1" });
const theme = el(
  "button",
  {
    type: "button",
    class: "quiet",
    "aria-label": "Dark or light",
    title: "Dark or light (d)",
    on: { click: switchTheme },
  },
  "◐",
);
let view = null;
let runs = null;
let asked = 0;

replace(
  document.getElementById("app"),
  el(
    "header",
    { class: "top" },
    crumbs,
    el(
      "div",
      { class: "top-tools" },
      isExport ? el("span", { class: "dim" }, "exported page") : null,
      theme,
      el(
        "button",
        { type: "button", class: "quiet", "aria-label": "Keys", title: "Keys (?)", on: { click: showKeys } },
        "?",
      ),
    ),
  ),
  main,
);

async function show() {
  const mine = ++asked;
  view?.close?.();
  view = null;
  closeDrawer();
  const { parts } = here();
  main.setAttribute("aria-busy", "true");
  try {
    runs ??= (await load(["runs"])).runs;
    if (mine !== asked) return;
    await route(parts);
  } catch (error) {
    if (mine === asked) replace(main, el("h1", {}, "Nothing to show"), el("p", { class: "warning" }, error.message));
  }
  if (mine === asked) main.removeAttribute("aria-busy");
}

async function route(parts) {
  if (!parts.length && runs.length === 1) {
    location.replace(link(["run", runs[0].name]));
    return;
  }
  if (parts[0] !== "run") {
    showCrumbs([]);
    document.title = "rlm-env";
    await homePage(main);
    return;
  }
  const run = await findRun(parts[1]);
  const [, , what, name] = parts;
  document.title = `${what ? `${name} · ` : ""}${run.name}`;
  showCrumbs([
    [run.name, link(["run", run.name])],
    ...(what ? [[what === "group" ? `group ${name}` : name, null]] : []),
  ]);
  if (what === "rollout") {
    const page = new RolloutPage(main, run, name);
    view = page;
    await page.show();
    page.follow();
  } else if (what === "group") {
    await groupPage(main, run, name);
  } else {
    view = new RunPage(main, run);
  }
}

async function findRun(name) {
  let run = runs.find((one) => one.name === name);
  if (!run) {
    runs = (await load(["runs"])).runs; // one that has begun since
    run = runs.find((one) => one.name === name);
  }
  if (!run) throw new Error(`There is no run ${name}.`);
  return run;
}

function showCrumbs(places) {
  const home = runs.length > 1 ? el("a", { href: "#/" }, "runs") : el("span", { class: "brand" }, "rlm-env");
  replace(
    crumbs,
    home,
    places.map(([text, address]) => [
      el("span", { class: "sep", "aria-hidden": "true" }, "/"),
      address ? el("a", { href: address }, text) : el("span", { class: "here", "aria-current": "page" }, text),
    ]),
  );
}

function switchTheme() {
  const dark =
    getComputedStyle(document.documentElement).colorScheme === "dark" ||
    (getComputedStyle(document.documentElement).colorScheme !== "light" &&
      matchMedia("(prefers-color-scheme: dark)").matches);
  setTheme(dark ? "light" : "dark");
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  try {
    localStorage.setItem("rlm-env-theme", name);
  } catch {
    // a page in a file may not store anything
  }
}

function storedTheme() {
  try {
    return localStorage.getItem("rlm-env-theme");
  } catch {
    return null;
  }
}

function onKey(event) {
  if (isTyping(event)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.key === "/" && document.getElementById("search")) {
    event.preventDefault();
    document.getElementById("search").focus();
  } else if (event.key === "?") showKeys();
  else if (event.key === "d") switchTheme();
  else if (event.key === "Escape" || event.key === "u") up();
  else if (view?.key?.(event)) event.preventDefault();
  else if ((event.key === "j" || event.key === "ArrowDown") && view?.view?.focus && !event.target.closest?.(".grid")) {
    event.preventDefault();
    view.view.focus();
  }
}

function up() {
  const { parts } = here();
  if (parts.length > 2) go(link(parts.slice(0, 2)));
}

if (location.search && !isExport) history.replaceState(null, "", location.pathname + location.hash); // the secret is a cookie now
const stored = storedTheme();
if (stored) setTheme(stored);
window.addEventListener("hashchange", show);
document.addEventListener("keydown", onKey);
show();
