"use strict";
// The conversations are one gzipped JSON: unpacked at the first click, nothing is ever fetched.
let unpacked = null;
async function conversations() {
  if (unpacked === null) {
    const packed = document.getElementById("conversations").textContent.trim();
    const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    unpacked = JSON.parse(await new Response(stream).text());
  }
  return unpacked;
}
function add(parent, tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = text;
  if (className) element.className = className;
  parent.append(element);
  return element;
}
function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 1);
  } catch {
    return text;
  }
}
async function show() {
  const dialog = document.getElementById("episode");
  const match = /^#episode-(\d+)$/.exec(location.hash);
  if (!match) {
    if (dialog.open) dialog.close();
    return;
  }
  const { strings, episodes } = await conversations();
  const episode = episodes[Number(match[1])];
  if (!episode) return;
  dialog.querySelector("h2").textContent = episode.title;
  const talk = dialog.querySelector(".talk");
  talk.replaceChildren();
  const facts = add(talk, "dl");
  for (const [name, value] of episode.facts) {
    add(facts, "dt", name);
    add(facts, "dd", value);
  }
  for (const [role, content, calls, error] of episode.messages) {
    const box = add(talk, "div", null, `say ${role}${error ? " error" : ""}`);
    add(box, "header", error ? `${role}: error` : role);
    if (content >= 0) {
      const text = strings[content];
      if (role === "tool") add(box, "pre", pretty(text));
      else add(box, "p", text);
    }
    for (const [name, given] of calls) add(box, "pre", `${name}(${strings[given]})`);
  }
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}
function leave() {
  history.replaceState(null, "", location.pathname + location.search);
  show();
}
addEventListener("hashchange", show);
addEventListener("DOMContentLoaded", () => {
  const dialog = document.getElementById("episode");
  dialog.querySelector("button").addEventListener("click", leave);
  dialog.addEventListener("cancel", (event) => { event.preventDefault(); leave(); });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) leave(); });
  show();
});
