"use strict";

// Asks for this page again every second, while somebody looks at it, and takes over what has
// changed. All wording and all figures are the daemon's; only whether it answers is said here.

const INTERVAL = 1000; // Milliseconds between an answer and the next question.
const PATIENCE = 5000; // For an answer.

const build = document.documentElement.dataset.build;
const reach = document.getElementById("reach");
let asking = false;
let next; // The timer of the next question.

async function askForPage() {
  const answer = await fetch("", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  if (!answer.ok) throw new Error(`answers with ${answer.status}`);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (!page.documentElement.dataset.build) throw new Error("not Staithe any more");
  return page;
}

// Makes `shown` the same as `wanted`, and leaves alone what is the same already, so that a
// selection stays and bars move instead of being drawn anew.
function patch(shown, wanted) {
  for (const { name } of [...shown.attributes]) {
    if (!wanted.hasAttribute(name)) shown.removeAttribute(name);
  }
  for (const { name, value } of [...wanted.attributes]) {
    if (shown.getAttribute(name) !== value) shown.setAttribute(name, value);
  }
  const before = [...shown.childNodes];
  const after = [...wanted.childNodes];
  after.forEach((node, i) => {
    const old = before[i];
    if (!old) {
      shown.append(node);
    } else if (old.nodeName !== node.nodeName || old.id !== node.id) {
      old.replaceWith(node);
    } else if (node.nodeType === Node.ELEMENT_NODE) {
      patch(old, node);
    } else if (old.data !== node.data) {
      old.data = node.data;
    }
  });
  before.slice(after.length).forEach((node) => node.remove());
}

function tell(text, state) {
  if (document.body.dataset.reach === state) return;
  document.body.dataset.reach = state;
  reach.textContent = text;
}

async function look() {
  if (asking) return;
  asking = true;
  clearTimeout(next);
  try {
    const page = await askForPage();
    // After an upgrade: the new page has another script, too.
    if (page.documentElement.dataset.build !== build) location.reload();
    patch(document.querySelector("main"), page.querySelector("main"));
    document.title = page.title;
    tell("live, every second", "live");
  } catch (error) {
    const now = new Date().toTimeString().slice(0, 8);
    // Errors of other kinds are the browser's, in its words: no connection, no answer in time.
    const what = error.constructor === Error ? error.message : "not reachable";
    tell(`${what} since ${now}; these are the last figures`, "lost");
  }
  asking = false;
  if (!document.hidden) next = setTimeout(look, INTERVAL);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) look();
});
look();
