"use strict";
// The conversation viewer, shared by the inspector's page and the evaluation's report.
// Everything that came out of a file is put into the page as text, and nothing as markup.

function el(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return node;
}
function select(options, chosen, change) {
  const node = el("select");
  for (const [value, text] of options) node.append(new Option(text, value));
  node.value = chosen;
  node.addEventListener("change", () => change(node.value));
  return node;
}

// ---- packed episodes --------------------------------------------------------------------------------------------------

const KEPT = 6; // unpacked chunks that stay in memory
const unpacked = new Map();
function unpack(id) {
  if (!unpacked.has(id)) {
    const oldest = [...unpacked.keys()].filter((key) => key !== "vocabulary");
    if (oldest.length >= KEPT) unpacked.delete(oldest[0]);
    unpacked.set(id, inflate(document.getElementById(id).textContent));
  }
  return unpacked.get(id);
}
async function inflate(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}
async function episode(number) {
  const firsts = [...document.querySelectorAll("script[id^=episodes-]")].map((chunk) => Number(chunk.id.slice(9)));
  const first = firsts.findLast((candidate) => candidate <= number);
  return (await unpack(`episodes-${first}`))[number - first];
}

// ---- one conversation -------------------------------------------------------------------------------------------------

const rewardText = (reward) => (typeof reward === "number" ? String(Math.round(reward * 1000) / 1000) : reward ?? "–");
const rewardTone = (reward) => (reward === null ? "soft" : reward >= 1 - 1e-6 ? "good" : "bad");

function conversation(e) {
  const out = el("article", "conversation", el("h2", "", e.title)), facts = el("dl", "facts");
  facts.append(el("div", "", el("dt", "", "reward"), el("dd", rewardTone(e.reward), rewardText(e.reward))));
  for (const [name, value] of e.facts) facts.append(el("div", "", el("dt", "", name), el("dd", "", value)));
  out.append(facts, ...e.warnings.map((text) => el("div", "warning", text)));
  if (e.tokens) out.append(legend());
  out.append(...e.entries.map((entry) => message(entry, e.tokens)), ...rewards(e.reward_info), ...database(e.database));
  const telemetry = Object.entries(e.telemetry);
  if (telemetry.length) out.append(el("h3", "", "Telemetry"), table(["name", "value"], telemetry));
  if (Object.keys(e.stats).length) out.append(el("h3", "", "Counters"), folded("all", json(e.stats)));
  return out;
}

function message(entry, tokens) {
  const head = el("div", "head", el("span", entry.error ? "who bad" : "who", entry.title));
  for (const note of [entry.turn && `turn ${entry.turn}`, ...entry.notes]) if (note) head.append(el("span", "", note));
  const out = el("section", `message ${entry.role}`, head);
  if (entry.text) out.append(el("div", "text", entry.role === "tool" ? pretty(entry.text) : entry.text));
  for (const call of entry.calls) {
    const short = call.arguments.length <= 90;
    const line = el("div", "call", el("b", "", call.name), short ? ` ${call.arguments}` : ` ${pretty(call.arguments)}`);
    if (call.rejected) line.append(el("span", "bad", "  rejected: it never reached the environment"));
    out.append(line);
  }
  const count = tokens ? entry.spans.reduce((sum, span) => sum + span.stop - span.start, 0) : 0;
  if (count) head.append(expander(out, count, (box) => showTokens(box, entry.spans, tokens)));
  return out;
}
function expander(section, count, fill) {
  const button = el("button", "expand");
  let box = null;
  const label = () => {
    button.textContent = `${box ? "▾" : "▸"} ${count} token${count > 1 ? "s" : ""}`;
    button.setAttribute("aria-expanded", String(box !== null));
  };
  button.type = "button";
  button.addEventListener("click", () => {
    if (box) { box.remove(); box = null; } else { section.append(box = el("div", "tokens")); fill(box); }
    label();
  });
  label();
  return button;
}
function json(value) { return JSON.stringify(value, null, 1); }
function pretty(text) { try { return json(JSON.parse(text)); } catch { return text; } }

// ---- tokens -----------------------------------------------------------------------------------------------------------

const STEP = 1500; // tokens that are drawn at once
function legend() {
  const scale = [el("span", "t in", "likely"), el("span", "t in", "unlikely")];
  scale.forEach((sample, i) => sample.style.setProperty("--w", i));
  const recolour = (value) => {
    document.body.classList.remove("by-prob", "by-mask");
    document.body.classList.add(value);
    for (const other of document.querySelectorAll(".legend select")) other.value = value;
  };
  const choice = select([["by-prob", "colour by log-prob"], ["by-mask", "colour by mask"]], document.body.classList[0], recolour);
  return el("div", "legend", choice, ...scale, el("span", "t", "not in the loss"), el("span", "t junction", "junction"));
}
async function showTokens(box, spans, tokens) {
  const { prompts, texts } = await unpack("vocabulary");
  const id = (at) => (at < tokens.shared ? prompts[tokens.prompt][at] : tokens.ids[at - tokens.shared]);
  for (const span of spans) {
    const weights = span.weight_version ? `, weights ${span.weight_version}` : "";
    box.append(el("div", "kind", `${span.kind}, positions ${span.start} to ${span.stop - 1}${weights}`));
    const more = el("button", "");
    let at = span.start;
    const draw = () => {
      more.remove();
      for (const end = Math.min(span.stop, at + STEP); at < end; at++) box.append(token(id(at), at, span, texts, tokens));
      if (at < span.stop) { more.textContent = `${span.stop - at} more tokens`; box.append(more); }
    };
    more.addEventListener("click", draw);
    draw();
  }
}
function token(id, at, span, texts, tokens) {
  const text = texts[id], k = at - tokens.start, logProb = tokens.log_probs[k];
  const sampled = span.kind === "sampled", inLoss = k >= 0 && tokens.mask[k] === 1;
  const node = el("span", "t", text === undefined ? `${id} ` : text.replaceAll("\n", "⏎\n").replaceAll("\t", "⇥"));
  const facts = [`id ${id}`, `position ${at}`, span.kind, k < 0 ? "prompt" : `mask ${tokens.mask[k]}`];
  if (k >= 0 && (inLoss || (sampled && logProb))) {
    facts.push(`log-prob ${logProb}`, `probability ${Math.exp(logProb).toFixed(4)}`);
    node.style.setProperty("--w", Math.min(1, -logProb / 4).toFixed(3));
  }
  if (inLoss) node.classList.add("in");
  else if (sampled) node.classList.add("out");
  if (sampled ? at === span.stop - 1 : span.kind === "context" && at === span.start) { node.classList.add("junction"); facts.push("junction"); }
  node.title = facts.join(" · ");
  return node;
}

// ---- what the episode earned and did ----------------------------------------------------------------------------------

function table(heads, lines, className = "") {
  const row = (tag, cells) => el("tr", "", ...cells.map((cell) => el(tag, "", cell)));
  const body = el("tbody", "", ...lines.map((line) => row("td", line)));
  return el("div", "scroll", el("table", className, el("thead", "", row("th", heads)), body));
}
function folded(title, content) {
  return el("details", "", el("summary", "", title), content instanceof Node ? content : el("pre", "", content));
}
function rewards({ reward_breakdown: parts, ...rest }) {
  const details = Object.entries(rest).filter(([, value]) => value !== null && typeof value === "object");
  if (!parts && !details.length) return [];
  const out = [el("h3", "", "Reward")];
  if (parts) out.push(table(["part", "reward"], Object.entries(parts)));
  const label = (name) => name === "action_checks" ? "action_checks: which calls were made, also those that failed" : name;
  return [...out, ...details.map(([name, value]) => folded(label(name), json(value)))];
}
function database({ note, changes }) {
  const out = [el("h3", "", "Database, beside gold's")], heads = ["field", "before", "this episode", "gold"];
  const lines = (same) => changes.filter((c) => (c.here === c.gold) === same).map((c) => [c.path, c.before, c.here, c.gold]);
  const wrong = lines(false), right = lines(true);
  if (note) out.push(el("p", "soft", note));
  if (wrong.length) out.push(table(heads, wrong, "wrong"));
  else if (!note) out.push(el("p", "soft", right.length ? "as gold leaves it" : "unchanged, by gold too"));
  if (right.length) out.push(folded(`${right.length} fields changed as gold changes them`, table(heads, right)));
  return out;
}
