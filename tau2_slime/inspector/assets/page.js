// The page: the list, and beside it the report, the curves, one episode, or two attempts of one task.

const detail = document.getElementById("detail"), live = document.querySelector("header").dataset.live === "yes";
let rows = [], curves = null, success = 1, chosen = -1, other = -1, reading = "", opened = null;
let point = null; // the point of a curve whose episodes the list shows
let matches = null; // numbers of the episodes that the search has found

// ---- episodes --------------------------------------------------------------------------------------------------------

async function ask(path) {
  const reply = await fetch(path, { cache: "no-store" });
  const said = await reply.json();
  if (!reply.ok) throw new Error(said.error ?? reply.statusText);
  return said;
}
if (live) episode = (number) => ask(`episode/${number}?generation=${generation}`);

function turnTo(place) {
  reading = place;
  document.body.classList.add("reading");
  document.body.classList.toggle("reporting", place === "report"); // which takes the whole width
  drawSoon();
}
async function openEpisode(number, second = -1) {
  // Drawing the open episode again would close every message that its reader has opened.
  const open = reading === "episode" && number === chosen && second === other;
  turnTo("episode");
  if (open) return;
  [chosen, other] = [number, second];
  showPlace(items.indexOf(number));
  markChosen();
  const numbers = second < 0 ? [number] : [number, second];
  let nodes;
  try {
    opened = await Promise.all(numbers.map((one) => episode(one)));
    if (chosen !== number || other !== second || reading !== "episode") return; // the reader has gone on
    nodes = opened.length > 1 ? [compared(opened)] : [conversation(opened[0])];
  } catch (error) {
    if (chosen !== number || other !== second || reading !== "episode") return;
    opened = null;
    nodes = [el("p", "warning", `this episode cannot be opened: ${clean(error.message)}`)];
  }
  detail.className = numbers.length > 1 ? "two" : "";
  detail.replaceChildren(bar(number, second), ...nodes);
  detail.scrollTop = 0;
  if (innerWidth < 900) scrollTo(0, 0);
  history.replaceState(null, "", "#" + numbers.map((n) => encodeURIComponent(rows[n].name)).join("&"));
}
function stepBack(place) {
  [chosen, other, opened] = [-1, -1, null];
  turnTo(place);
  markChosen();
  history.replaceState(null, "", location.pathname + location.search);
}
function markChosen() {
  for (const node of inner.querySelectorAll("[aria-current]")) node.removeAttribute("aria-current");
  inner.querySelector(`[data-number="${chosen}"]`)?.setAttribute("aria-current", "true");
}
function toList() {
  if (reading === "report" && innerWidth >= 900) return openCurves(); // with the list beside them
  document.body.classList.remove("reading", "reporting");
  drawList();
}
function backButton() {
  const back = el("button", "back", "← episodes");
  back.type = "button";
  back.addEventListener("click", toList);
  return back;
}
function attemptsOf(number) {
  const out = [];
  rows.forEach((row, n) => { if (n !== number && row.task_key === rows[number].task_key) out.push(n); });
  return out;
}
function bar(number, second) {
  const attempts = attemptsOf(number), row = (n) => rows[n];
  const options = attempts.slice(0, 500).map((n) => [n, clean(`${row(n).name}: reward ${rewardText(row(n).reward)}, ${row(n).blame}`)]);
  const first = options.length ? `compare with another attempt (${attempts.length}) …` : "no other attempt of this task";
  const compare = select([[-1, first], ...options], second, (value) => openEpisode(number, Number(value)));
  compare.id = "compare";
  compare.disabled = !options.length;
  return el("div", "bar", backButton(), compare);
}

// ---- the report of an evaluation -------------------------------------------------------------------------------------

let report = document.getElementById("report"), reportTop = 0;
const hasReport = Boolean(document.getElementById("report-button"));
async function openReport() {
  if (!hasReport) return;
  stepBack("report");
  try {
    if (live) report = new DOMParser().parseFromString((await ask("report")).html, "text/html").getElementById("report");
  } catch (error) {
    report = el("p", "warning", `the report cannot be made: ${clean(error.message)}`);
  }
  if (reading !== "report") return; // the reader has gone on
  detail.className = "";
  detail.replaceChildren(backButton(), report);
  detail.scrollTop = reportTop;
}
detail.addEventListener("scroll", () => { if (reading === "report") reportTop = detail.scrollTop; }, { passive: true });

// ---- curves ----------------------------------------------------------------------------------------------------------

function openCurves() {
  if (!curves) return;
  stepBack("curves");
  undrawn = false;
  showCurves();
}
const PARTS = { all: () => "", domain: (row) => row.domain, simulator: (row) => row.user };
function choosePoint({ curve, key }, p) {
  const part = PARTS[curve.part ? split : "all"];
  const cause = (row) => (row.who === "agent" ? `agent ${row.what}` : row.who);
  const holdsKey = (row) => !key || [row.ended, row.blame, cause(row)].includes(key);
  setPoint({
    text: [`step ${p.step}`, curve.series, curve.part, key].filter(Boolean).join(" · "),
    holds: (row) => row.step === p.step && row.series === curve.series && part(row) === curve.part && holdsKey(row),
  });
  order.value = "divided";
  document.body.classList.remove("reading", "reporting");
  filter();
  list.scrollTop = 0;
}
function setPoint(next) {
  point = next;
  const node = document.getElementById("point");
  node.hidden = !point;
  node.replaceChildren();
  if (!point) return;
  const clear = el("button", "", "×");
  clear.type = "button";
  clear.title = "all episodes again";
  clear.addEventListener("click", () => { setPoint(null); filter(); });
  node.append(clean(point.text), " ", clear);
}

// ---- search ----------------------------------------------------------------------------------------------------------

const search = document.getElementById("search");
let asked = 0, waiting = 0;
async function find() {
  const mine = ++asked, wanted = search.value.trim().toLowerCase();
  if (!wanted) { matches = null; search.title = ""; filter(); return; }
  try {
    const found = live ? (await ask(`search?q=${encodeURIComponent(wanted)}`)).found : await findPacked(wanted, () => mine !== asked);
    if (mine !== asked) return;
    matches = new Set(found);
  } catch (error) {
    if (mine === asked) tell([`the search failed: ${error.message}`]);
    return;
  }
  filter();
}
async function findPacked(wanted, stopped) {
  await whole;
  const found = [];
  for (const chunk of document.querySelectorAll("script[id^=episodes-]")) {
    if (stopped()) return found;
    const first = Number(chunk.id.slice(9));
    (await inflate(chunk.textContent)).forEach((e, i) => {
      const words = e.entries.map((entry) => `${entry.text}\n${entry.calls.map((call) => `${call.name} ${call.arguments}`).join("\n")}`);
      if (`${e.title}\n${e.warnings.join("\n")}\n${words.join("\n")}`.toLowerCase().includes(wanted)) found.push(first + i);
    });
  }
  return found;
}
search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(find, 200); });

// ---- what is there, and what comes -----------------------------------------------------------------------------------

let generation = -1, version = -1;
function tell(problems) {
  const shown = problems.slice(0, 5).map((line) => el("div", "warning small", clean(line)));
  if (problems.length > 5) shown.push(el("div", "warning small", `and ${problems.length - 5} more`));
  document.getElementById("problems").replaceChildren(...shown);
}
function take(news) {
  const name = chosen >= 0 ? rows[chosen]?.name : null;
  if (news.generation !== undefined && news.generation !== generation) {
    if (generation >= 0 && reading === "episode") { [chosen, other, reading] = [-1, -1, ""]; }
    [rows, generation] = [[], news.generation];
  }
  rows.push(...news.rows);
  for (const [number, who, what] of news.causes ?? []) if (rows[number]) [rows[number].who, rows[number].what] = [who, what];
  if (news.success !== undefined) success = news.success;
  if (news.curves) curves = news.curves;
  if (name && chosen < 0) chosen = rows.findIndex((row) => row.name === name);
  document.getElementById("curves-button").hidden = !curves;
  tell(news.problems.map((line) => `unreadable: ${line}`));
  fillFilters();
  const before = list.scrollTop;
  filter();
  list.scrollTop = before;
  undrawn = true;
  redraw();
  if (matches) find(); // what has come may hold the words too
}
let undrawn = false; // there are newer curves than those on the screen
function redraw() {
  if (!undrawn || reading !== "curves" || detail.querySelector("figure:hover") || detail.contains(document.activeElement)) return;
  undrawn = false;
  showCurves();
}
async function poll() {
  const light = document.getElementById("live");
  light.hidden = false;
  try {
    const news = await ask(`rows?from=${rows.length}&generation=${generation}&version=${version}`);
    version = news.version;
    if (news.rows) take(news);
    else redraw();
    light.textContent = news.state;
    light.className = news.state.startsWith("stopped") ? "small bad" : "small good";
    if (!rows.length) emptyNote(news.state);
    if (!news.final) setTimeout(poll, news.state.startsWith("reading") ? 300 : 1500);
  } catch (error) {
    light.className = "small bad";
    light.textContent = "the server does not answer";
    setTimeout(poll, 3000);
  }
}
function emptyNote(state = "") {
  if (!reading) detail.replaceChildren(el("div", "empty", rows.length ? "Choose an episode." : state.startsWith("reading") ? "Reading …" : "There is no episode to show."));
}

// ---- keys ------------------------------------------------------------------------------------------------------------

const help = document.getElementById("help");
function move(step) {
  const place = visible.indexOf(chosen), next = visible[place < 0 ? (step > 0 ? 0 : visible.length - 1) : place + step];
  if (next === undefined) return;
  openEpisode(next);
}
function toDecisive() {
  const target = document.querySelector("#detail .first-difference, #detail .message.decisive");
  target?.scrollIntoView({ block: "center" });
}
const KEYS = {
  j: () => move(1), k: () => move(-1), d: toDecisive, c: openCurves, r: openReport,
  f: () => { failedOnly.checked = !failedOnly.checked; filter(); },
  "/": () => { toList(); document.body.classList.remove("reading", "folded"); search.focus(); search.select(); },
  "?": () => help.showModal(),
  Escape: () => (report ? openReport() : curves ? openCurves() : document.body.classList.remove("reading")),
  b: () => {
    if (chosen < 0) return;
    const all = attemptsOf(chosen), next = all[all.indexOf(other) + 1] ?? -1;
    if (all.length) openEpisode(chosen, next);
  },
};
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  if (event.target.closest?.("input, select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

// ---- start -----------------------------------------------------------------------------------------------------------

function named() {
  try {
    const names = location.hash.slice(1).split("&").map(decodeURIComponent);
    return names.map((name) => rows.findIndex((row) => row.name === name));
  } catch {
    return [-1]; // not an address of this page
  }
}
async function follow() {
  const numbers = named();
  if (numbers[0] >= 0) await openEpisode(...numbers);
  else if (report) await openReport();
  else if (innerWidth < 900 || !rows.length) emptyNote(document.getElementById("live").textContent);
  else if (curves) openCurves();
  else await openEpisode(0);
}
async function start() {
  for (const each of filterNodes) each.addEventListener("change", filter);
  order.addEventListener("change", () => { filter(); list.scrollTop = 0; });
  failedOnly.addEventListener("change", filter);
  nameFilter.addEventListener("input", filter);
  document.getElementById("curves-button").addEventListener("click", openCurves);
  document.getElementById("report-button")?.addEventListener("click", openReport);
  addEventListener("hashchange", follow);
  document.getElementById("help-button").addEventListener("click", () => help.showModal());
  document.getElementById("help-close").addEventListener("click", () => help.close());
  const fold = document.getElementById("fold");
  const setFold = (folded) => { document.body.classList.toggle("folded", folded); fold.setAttribute("aria-expanded", String(!folded)); drawSoon(); };
  fold.addEventListener("click", () => setFold(!document.body.classList.contains("folded")));
  if (innerWidth < 900) setFold(true);
  if (live) await poll();
  else take(await inflate(document.getElementById("overview").textContent));
  await follow();
  document.body.dataset.ready = "yes";
}
start().catch((error) => {
  detail.append(el("p", "warning", `this page cannot show its data: ${error}`));
  document.body.dataset.ready = "failed";
});
