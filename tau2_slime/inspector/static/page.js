"use strict";
// Everything that came out of a file is put into the page by textContent and nothing else.
const $ = (id) => document.getElementById(id);
function el(tag, cls, ...children) {
  const node = document.createElement(tag);
  if (cls) node.className = cls;
  for (const child of children) node.append(child instanceof Node ? child : String(child));
  return node;
}
async function unpack(id) {
  const bytes = Uint8Array.from(atob($(id).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}
const kept = new Map();
function once(id) {
  if (!kept.has(id)) {
    if (/^e/.test(id)) for (const key of kept.keys()) if (/^e/.test(key) && kept.size > 12) kept.delete(key);
    kept.set(id, unpack(id));
  }
  return kept.get(id);
}
const tokensOf = async (e) => (await once("p" + e.prompt.block)).slice(0, e.prompt.shared).concat(e.tokens);
const reward = (r) => (r === null || r === undefined ? "–" : String(Math.round(r * 1000) / 1000));
const tone = (r) => (r === null || r === undefined ? "soft" : r >= 1 - 1e-6 ? "good" : "bad");

let rows = [], buttons = [], chosen = -1, other = -1;
const filters = {};

// ---- the list ---------------------------------------------------------------------------------------------------------

const REWARDS = [["", "any"], ["1", "1"], ["0", "0"], ["part", "between"], ["none", "excluded or none"]];
const ERRORS = [["", "any"], ["yes", "with"], ["no", "without"]];
const rewardKind = (r) => (r === null ? "none" : r >= 1 - 1e-6 ? "1" : r <= 1e-6 ? "0" : "part");

function choice(name, label, options) {
  const select = el("select");
  for (const [value, text] of options) { const o = el("option", "", text); o.value = value; select.append(o); }
  select.id = "filter-" + name;
  select.addEventListener("change", apply);
  filters[name] = select;
  return el("label", "", label, select);
}
function values(key) {
  return [["", "any"], ...[...new Set(rows.map((r) => r[key]))].filter(Boolean).sort().map((v) => [v, v])];
}
function apply() {
  const f = Object.fromEntries(Object.entries(filters).map(([k, node]) => [k, node.value]));
  const wanted = f.task.trim().toLowerCase();
  let shown = 0, sum = 0, counted = 0;
  rows.forEach((r, i) => {
    const fits = (!f.domain || r.domain === f.domain) && (!f.user || r.user === f.user) && (!f.blame || r.blame === f.blame)
      && (!f.reward || rewardKind(r.reward) === f.reward) && (!f.errors || (r.errors > 0) === (f.errors === "yes"))
      && (!wanted || (r.task + " " + r.name).toLowerCase().includes(wanted));
    buttons[i].hidden = !fits;
    if (fits) { shown++; if (r.reward !== null) { sum += r.reward; counted++; } }
  });
  $("count").textContent = `${shown} of ${rows.length} episodes` + (counted ? ` · mean reward ${(sum / counted).toFixed(3)} over ${counted}` : "");
}
// A name too long for its line loses its middle: the names of telecom's tasks differ at their ends.
const TAIL = 26;
function shortened(prefix, name) {
  const cut = Math.max(0, name.length - TAIL);
  return el("span", "task", el("span", "soft first", prefix), el("span", "first", name.slice(0, cut)), el("span", "last", name.slice(cut)));
}
function row(r, i) {
  const more = [r.user, r.ended + (r.blame ? ` (${r.blame})` : ""), r.sampled ? `${r.sampled} tokens` : "", r.errors ? `${r.errors} tool error${r.errors > 1 ? "s" : ""}` : ""];
  const button = el("button", "episode", shortened(`${r.name} `, `${r.domain} ${r.task}`), el("span", "reward " + tone(r.reward), reward(r.reward)), el("span", "more", more.filter(Boolean).join(" · ")));
  button.type = "button";
  button.title = `${r.name} · ${r.domain} ${r.task}`;
  button.addEventListener("click", () => open(i));
  return button;
}

// ---- one episode ------------------------------------------------------------------------------------------------------

async function open(i, second = -1) {
  // Drawn again, it would close every message that its reader has opened.
  if (i === chosen && second === other) { document.body.classList.add("reading"); return; }
  buttons[chosen]?.removeAttribute("aria-current");
  chosen = i; other = second;
  buttons[i].setAttribute("aria-current", "true");
  const mine = [i, second].filter((n) => n >= 0);
  const episodes = await Promise.all(mine.map((n) => once("e" + n)));
  if (chosen !== i || other !== second) return;
  const detail = $("detail");
  detail.className = mine.length > 1 ? "two" : "";
  detail.replaceChildren(...episodes.map((e, k) => article(e, mine[k], k)));
  document.body.classList.add("reading");
  detail.scrollTop = 0;
  if (innerWidth < 900) scrollTo(0, 0);
  history.replaceState(null, "", "#" + mine.map((n) => encodeURIComponent(rows[n].name)).join("&"));
}
function article(e, i, column) {
  const r = rows[i], out = el("article", "");
  if (column === 0) {
    const bar = el("div", "bar"), back = el("button", "", "← episodes");
    back.id = "back";
    back.addEventListener("click", () => document.body.classList.remove("reading"));
    const compare = el("select");
    compare.id = "compare";
    const none = el("option", "", "compare with another attempt …"); none.value = "-1"; compare.append(none);
    rows.forEach((x, n) => { if (n !== i && x.same === r.same) { const o = el("option", "", `${x.name}: reward ${reward(x.reward)}, ${x.ended}`); o.value = n; compare.append(o); } });
    compare.value = String(other);
    compare.disabled = compare.options.length < 2;
    if (compare.disabled) none.textContent = "no other attempt of this task";
    compare.addEventListener("change", () => open(i, Number(compare.value)));
    bar.append(back, compare);
    out.append(bar);
  } else out.append(el("div", "bar soft", "the other attempt"));
  out.append(el("h2", "", `${r.name} · ${r.domain} · ${r.task}`));
  const facts = el("div", "facts");
  const said = { reward: reward(r.reward), ended: e.facts.termination, blame: e.facts.blame, user: e.facts.user_model, agent: e.facts.agent_type, split: e.facts.task_split, group: e.facts.group, read: e.facts.where };
  for (const [k, v] of Object.entries(said)) if (v !== "" && v !== null && v !== undefined) facts.append(el("span", k === "reward" ? tone(r.reward) : "", el("b", "", k), v));
  out.append(facts);
  if (e.facts.detail) out.append(el("div", "note", e.facts.detail));
  for (const v of e.violations) out.append(el("div", "note violation", v));
  if (e.tokens.length) out.append(legend());
  for (const b of e.blocks) out.append(message(b, e));
  out.append(...rewards(e), ...database(e), ...numbers(e));
  return out;
}
function legend() {
  const out = el("div", "legend"), select = el("select");
  for (const [v, t] of [["by-prob", "colour by log-prob"], ["by-mask", "colour by mask"]]) { const o = el("option", "", t); o.value = v; select.append(o); }
  select.value = document.body.classList.contains("by-mask") ? "by-mask" : "by-prob";
  select.className = "colours";
  select.addEventListener("change", () => {
    document.body.classList.remove("by-prob", "by-mask");
    document.body.classList.add(select.value);
    for (const each of document.querySelectorAll(".colours")) each.value = select.value;
  });
  const likely = el("span", "t in", "likely"), unlikely = el("span", "t in", "unlikely");
  likely.style.setProperty("--w", 0); unlikely.style.setProperty("--w", 1);
  out.append(select, likely, unlikely, el("span", "t", "not in the loss"), el("span", "t junction", "junction"));
  return out;
}
function message(b, e) {
  const out = el("section", "message " + b.role), head = el("div", "head", el("span", "who " + (b.error ? "bad" : ""), b.title));
  if (b.turn) head.append(el("span", "", "turn " + b.turn));
  for (const note of b.notes) head.append(el("span", "", note));
  if (b.junction) head.append(el("span", "", "junction: " + b.junction));
  out.append(head);
  if (b.text) out.append(el("div", b.text.length > 1500 ? "text long" : "text", b.text));
  for (const c of b.calls) {
    const call = el("div", "call", el("b", "", c.name), " " + pretty(c.arguments));
    if (c.rejected) call.append(el("span", "bad", "  (rejected: it never reached the environment)"));
    out.append(call);
  }
  const count = b.spans.reduce((n, s) => n + s.stop - s.start, 0);
  if (count) {
    const button = el("button", "expand", `▸ ${count} tokens`);
    button.setAttribute("aria-expanded", "false");
    let box = null;
    button.addEventListener("click", async () => {
      if (box) { box.remove(); box = null; button.textContent = `▸ ${count} tokens`; button.setAttribute("aria-expanded", "false"); return; }
      box = el("div", "tokens");
      out.append(box);
      button.textContent = `▾ ${count} tokens`; button.setAttribute("aria-expanded", "true");
      const words = await once("words"), ids = await tokensOf(e);
      for (const span of b.spans) show(box, span, ids, words, e, b);
    });
    head.append(button);
  }
  return out;
}
function pretty(text) { try { return JSON.stringify(JSON.parse(text), null, 1); } catch { return text; } }

const STEP = 1500;
function show(box, span, ids, words, e, b) {
  const many = b.spans.length > 1;
  if (many || span.weight_version) box.append(el("span", "kind", `${span.kind}, positions ${span.start} to ${span.stop - 1}` + (span.weight_version ? `, weights ${span.weight_version}` : "")));
  let at = span.start;
  const more = el("button", "", "");
  const go = () => {
    more.remove();
    const part = document.createDocumentFragment(), end = Math.min(span.stop, at + STEP);
    for (; at < end; at++) part.append(token(at, span, ids, words, e));
    box.append(part);
    if (at < span.stop) { more.textContent = `${span.stop - at} more tokens`; box.append(more); }
  };
  more.addEventListener("click", go);
  go();
}
function token(at, span, ids, words, e) {
  const id = ids[at], text = words[id], k = at - e.start, inLoss = k >= 0 && e.mask[k] === 1, lp = k >= 0 ? e.logProbs[k] : undefined;
  const node = el("span", "t", text === undefined ? `${id} ` : text.replaceAll("\n", "⏎\n").replaceAll("\t", "⇥"));
  const sampled = span.kind === "sampled";
  const said = [`id ${id}`, `position ${at}`, span.kind, k < 0 ? "prompt" : inLoss ? "mask 1" : "mask 0"];
  if (inLoss || (sampled && lp)) {
    said.push(`log-prob ${lp}`, `probability ${Math.exp(lp).toFixed(4)}`);
    node.style.setProperty("--w", Math.min(1, -lp / 4).toFixed(3));
  }
  if (inLoss) node.classList.add("in");
  if (sampled && !inLoss) node.classList.add("out");
  if (span.kind !== "prompt" && ((sampled && at === span.stop - 1) || (span.kind === "context" && at === span.start))) { node.classList.add("junction"); said.push("junction"); }
  node.title = said.join(" · ");
  return node;
}

// ---- what it earned, and what it did ----------------------------------------------------------------------------------

function table(heads, lines, mark) {
  const t = el("table", ""), first = el("tr");
  for (const h of heads) first.append(el("th", "", h));
  t.append(el("thead", "", first));
  const body = el("tbody");
  lines.forEach((line, i) => { const tr = el("tr", mark ? mark(i) : ""); for (const cell of line) tr.append(el("td", "", cell)); body.append(tr); });
  t.append(body);
  return el("div", "scroll", t);
}
function folded(title, content) {
  return el("details", "", el("summary", "", title), content instanceof Node ? content : el("pre", "", JSON.stringify(content, null, 1)));
}
function rewards(e) {
  const { reward_breakdown: parts, ...rest } = e.reward;
  if (!parts && !Object.keys(rest).length) return [];
  const out = [el("h3", "", "Reward")];
  if (parts) out.push(table(["part", "reward"], Object.entries(parts)));
  for (const [name, value] of Object.entries(rest)) if (value !== null && typeof value === "object") out.push(folded(name, value));
  return out;
}
function database(e) {
  const { note, changes } = e.database, out = [el("h3", "", "Database, beside gold's")];
  if (note) out.push(el("p", "soft", note));
  const line = (c) => [c.path, c.before, c.here, c.gold], heads = ["field", "before", "this episode", "gold"];
  const wrong = changes.filter((c) => c.here !== c.gold), right = changes.filter((c) => c.here === c.gold);
  if (wrong.length) { const t = table(heads, wrong.map(line), () => "differs"); t.id = "wrong"; out.push(t); }
  else if (!note) out.push(el("p", "soft", changes.length ? "as gold leaves it" : "unchanged, by gold too"));
  if (right.length) out.push(folded(`${right.length} fields changed as gold changes them`, table(heads, right.map(line))));
  return out;
}
function numbers(e) {
  const out = [];
  if (Object.keys(e.telemetry).length) out.push(el("h3", "", "Telemetry"), table(["name", "value"], Object.entries(e.telemetry)));
  if (Object.keys(e.stats).length) out.push(el("h3", "", "Counters"), folded("all", e.stats));
  return out;
}

// ---- start ------------------------------------------------------------------------------------------------------------

async function start() {
  const index = await unpack("index");
  rows = index.rows;
  document.body.classList.add("by-prob");
  const bar = el("div", "filters"), search = el("input");
  search.id = "filter-task"; search.type = "search"; search.placeholder = "part of a name";
  search.addEventListener("input", apply);
  filters.task = search;
  bar.append(choice("domain", "domain", values("domain")), el("label", "", "task or episode", search), choice("reward", "reward", REWARDS), choice("user", "simulator", values("user")), choice("blame", "blame", values("blame")), choice("errors", "tool errors", ERRORS));
  const count = el("div", "small soft");
  count.id = "count";
  const head = el("header", "", el("h1", "", index.title), bar, count);
  for (const line of index.unreadable.slice(0, 5)) head.append(el("div", "note small", "unreadable: " + line));
  const list = el("div"), detail = el("div", "", el("div", "empty", "Choose an episode."));
  list.id = "list"; detail.id = "detail";
  buttons = rows.map(row);
  list.append(...buttons);
  $("app").append(head, el("div", "panes", list, detail));
  const fit = () => document.documentElement.style.setProperty("--head", head.offsetHeight + "px");
  addEventListener("resize", fit);
  apply();
  fit();
  const names = location.hash.slice(1).split("&").map((n) => rows.findIndex((r) => encodeURIComponent(r.name) === n));
  if (names[0] >= 0) await open(names[0], names[1] ?? -1);
  else if (rows.length && innerWidth >= 900) await open(0);
  document.body.dataset.ready = "yes";
}
start().catch((error) => { $("app").append(el("p", "note", "this page cannot show its data: " + error)); document.body.dataset.ready = "failed"; });
