"use strict";
// One conversation, with its tokens.
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
// The blocks of the episodes stand behind this script, so that the page can be used before it is there as a whole.
const whole = new Promise((done) => {
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", done);
  else done();
});
async function packedEpisode(number) {
  await whole;
  const firsts = [...document.querySelectorAll("script[id^=episodes-]")].map((chunk) => Number(chunk.id.slice(9)));
  const first = firsts.findLast((candidate) => candidate <= number);
  return (await unpack(`episodes-${first}`))[number - first];
}
let episode = packedEpisode; // a page with a server asks that instead

// Marks that turn the direction of writing, or that nobody can see, are written out: nothing looks like what it is not.
function clean(text) {
  return String(text).replace(/[\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]/g, (mark) => `\\u${mark.charCodeAt(0).toString(16)}`);
}
const LONG = 20000; // characters that are drawn at once
function longText(className, text) {
  text = clean(text);
  const words = document.createTextNode(text.slice(0, LONG)), node = el("div", className, words);
  if (text.length <= LONG) return node;
  const more = el("button", "", `show all ${text.length.toLocaleString("en")} characters`);
  more.type = "button";
  more.addEventListener("click", () => { words.data = text; more.remove(); });
  node.append(" … ", more);
  return node;
}

// ---- one conversation -------------------------------------------------------------------------------------------------

const rewardText = (reward) => (typeof reward === "number" ? String(Math.round(reward * 1000) / 1000) : reward ?? "–");
const rewardTone = (reward) => (reward === null ? "soft" : reward >= 1 - 1e-6 ? "good" : "bad");

function conversation(e) {
  const out = el("article", "conversation", ...headOf(e));
  if (e.tokens) out.append(legend());
  out.append(...e.entries.map((entry) => message(entry, e)), ...tailOf(e));
  return out;
}
function headOf(e) {
  const out = [el("h2", "", clean(e.title))], facts = el("dl", "facts");
  facts.append(el("div", "", el("dt", "", "reward"), el("dd", rewardTone(e.reward), rewardText(e.reward))));
  for (const [name, value] of e.facts) facts.append(el("div", "", el("dt", "", name), el("dd", "", clean(value))));
  out.push(facts, ...e.warnings.map((text) => el("div", "warning", clean(text))));
  if (e.diagnosis) out.push(diagnosis(e.diagnosis));
  if (e.scenario?.length) out.push(folded("what the customer was told, and what is wanted", definitions(e.scenario)));
  if (e.gold?.length) {
    const wrong = e.gold.some((row) => row.first);
    const box = folded(`gold's ${e.gold.filter((row) => row.gold).length} actions beside the calls that were made`, goldTable(e.gold));
    box.open = wrong;
    out.push(box);
  }
  return out;
}
function tailOf(e) {
  const out = [...rewards(e.reward_info), ...database(e.database)], telemetry = Object.entries(e.telemetry);
  if (telemetry.length) out.push(el("h3", "", "Telemetry"), table(["name", "value"], telemetry));
  if (Object.keys(e.stats).length) out.push(el("h3", "", "Counters"), folded("all", json(e.stats)));
  return out;
}

function message(entry, e) {
  const head = el("div", "head", el("span", entry.error ? "who bad" : "who", entry.title)), tokens = e.tokens;
  for (const note of [entry.turn && `turn ${entry.turn}`, ...entry.notes]) if (note) head.append(el("span", "", clean(note)));
  const out = el("section", `message ${entry.role}`, head);
  if (entry.message !== null && entry.message !== undefined) {
    out.dataset.message = entry.message;
    head.append(el("span", "soft", `#${entry.message}`));
    if (e.diagnosis && e.diagnosis.turn === entry.message) {
      out.classList.add("decisive");
      head.append(el("span", "bad", `${e.diagnosis.who}: ${e.diagnosis.what}`));
    }
  }
  if (entry.text) out.append(longText("text", entry.role === "tool" ? pretty(entry.text) : entry.text));
  for (const call of entry.calls) {
    const short = call.arguments.length <= 90;
    const line = longText("call", short ? ` ${call.arguments}` : ` ${pretty(call.arguments)}`);
    line.prepend(el("b", "", clean(call.name)));
    if (call.rejected) line.append(el("span", "bad", "  rejected: it never reached the environment"));
    out.append(line);
  }
  const count = tokens ? entry.spans.reduce((sum, span) => sum + span.stop - span.start, 0) : 0;
  if (count) head.append(expander(out, count, (box) => showTokens(box, entry.spans, e)));
  return out;
}

// ---- why it failed, and what gold does --------------------------------------------------------------------------------

function toMessage(turn, text = `#${turn}`) {
  const link = el("button", "to-message", text);
  link.type = "button";
  link.addEventListener("click", () => {
    const within = link.closest(".column, .conversation, #detail") ?? document;
    const target = within.querySelector(`[data-message="${Number(turn)}"]`) ?? document.querySelector(`[data-message="${Number(turn)}"]`);
    target?.scrollIntoView({ block: "center" });
  });
  return link;
}
function diagnosis(found) {
  const what = found.detail ? `${found.what} (${found.detail})` : found.what;
  const head = el("div", "", el("b", "bad", `${found.who}: ${what}`), ` · ${Math.round(found.sure * 100)} % sure `);
  if (found.turn !== null) head.append(toMessage(found.turn, `message #${found.turn}`));
  const out = el("div", "diagnosis", head);
  if (found.clause) out.append(el("blockquote", "", clean(found.clause)));
  for (const piece of found.evidence) {
    const place = piece.turn === null ? [] : [toMessage(piece.turn), " "];
    const words = piece.text !== undefined ? [el("q", "", clean(piece.text))]
      : [`${clean(piece.field ?? "")}: `, el("span", "bad", clean(piece.here ?? "–")), ...(piece.gold === undefined ? [] : [", gold ", el("span", "good", clean(piece.gold))])];
    out.append(el("div", "small", ...place, ...words));
  }
  if (found.judge) {
    const { model, agrees, who, what: said, turn } = found.judge;
    out.append(el("div", "small", `${clean(model ?? "a model")} ${agrees ? "agrees" : `says ${clean(who)}: ${clean(said)}`} `, ...(Number.isInteger(turn) ? [toMessage(turn)] : [])));
  }
  if (found.also.length) {
    const also = el("div", "small soft", "also: ");
    found.also.forEach((one, i) => also.append(i ? ", " : "", clean(one.what), ...(one.turn === null || one.turn === undefined ? [] : [" ", toMessage(one.turn)])));
    out.append(also);
  }
  return out;
}
function definitions(pairs) {
  const out = el("dl", "scenario");
  for (const [name, text] of pairs) out.append(el("dt", "", name), el("dd", "", clean(text)));
  return out;
}
function goldTable(lines) {
  const body = el("tbody", "");
  const cell = (call) => {
    const out = el("td", call ? "" : "soft", call ? el("b", "", clean(call.name)) : "–");
    if (!call) return out;
    if (call.by === "user") out.append(el("span", "soft", " by the customer"));
    if (call.arguments !== "{}") out.append(el("div", "", clean(call.arguments)));
    if (call.error) out.append(el("span", "bad", " an error"));
    if (call.reached === false) out.append(el("span", "bad", " never reached the environment"));
    return out;
  };
  for (const { gold, call, same, first } of lines) {
    const mark = el("td", same ? "good" : gold ? "bad" : "soft", same ? "=" : gold ? "≠" : "+");
    const number = el("td", "", ...(call ? [toMessage(call.turn)] : []));
    const row = el("tr", same ? "same" : gold ? "other" : "extra", cell(gold), mark, cell(call), number);
    if (first) {
      row.classList.add("first");
      body.append(el("tr", "divergence", (() => { const c = el("td", "bad small", "here the episode leaves gold"); c.colSpan = 4; return c; })()));
    }
    body.append(row);
  }
  const heads = el("tr", "", ...["gold", "", "this episode", ""].map((name) => el("th", "", name)));
  return el("div", "scroll", el("table", "gold", el("thead", "", heads), body));
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
  const choice = select([["by-prob", "colour by log-prob"], ["by-mask", "colour by mask"]], document.body.classList.contains("by-mask") ? "by-mask" : "by-prob", recolour);
  return el("div", "legend", choice, ...scale, el("span", "t", "not in the loss"), el("span", "t junction", "junction"));
}
async function showTokens(box, spans, e) {
  const { prompts, texts } = e.vocabulary ?? (await unpack("vocabulary")), tokens = e.tokens;
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
  const row = (tag, cells) => el("tr", "", ...cells.map((cell) => el(tag, "", clean(cell))));
  const body = el("tbody", "", ...lines.map((line) => row("td", line)));
  return el("div", "scroll", el("table", className, el("thead", "", row("th", heads)), body));
}
function folded(title, content) {
  return el("details", "", el("summary", "", title), content instanceof Node ? content : longText("pre", content));
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
