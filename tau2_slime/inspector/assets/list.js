// The list of episodes: filters, orders, and as many rows in the page as fit on the screen.

const ROW = 50; // pixels; page.css has the same
const list = document.getElementById("list");
const inner = el("div", "inner");
list.append(inner);

const drawn = new Map(); // place in the list -> its element
let items = []; // what the list shows: numbers of episodes, and headings of groups

function drawList() {
  const top = Math.max(0, Math.floor(list.scrollTop / ROW) - 6);
  const end = Math.min(items.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 6);
  for (const [place, node] of drawn) if (place < top || place >= end) { node.remove(); drawn.delete(place); }
  for (let place = top; place < end; place++) {
    if (drawn.has(place)) continue;
    const node = typeof items[place] === "number" ? rowOf(items[place]) : el("div", "group small", items[place].text);
    node.style.setProperty("top", `${place * ROW}px`);
    drawn.set(place, node);
    inner.append(node);
  }
}
let drawing = false;
function drawSoon() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => { drawing = false; drawList(); });
}
list.addEventListener("scroll", drawSoon, { passive: true });
addEventListener("resize", drawSoon);

function setItems(next) {
  items = next;
  for (const node of drawn.values()) node.remove();
  drawn.clear();
  inner.style.setProperty("height", `${items.length * ROW}px`);
  drawList();
}
function showPlace(place) {
  if (place < 0) return; // the filters hide it
  const top = place * ROW;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  drawList();
}

const kindOf = (row) => row.reward === null ? "none" : row.reward >= success ? "1" : row.reward < 1 - success ? "0" : "part";
const causeOf = (row) => row.who && row.who !== "none" ? `${row.who}: ${row.what}` : "";
const isFailed = (row) => !(row.reward !== null && row.reward >= success);
const labelOf = (row) => `${row.domain} task ${row.task}`;

function rowOf(number) {
  const row = rows[number], label = labelOf(row), node = el("button", "episode");
  node.type = "button";
  node.title = clean(`${row.name} · ${label}`);
  node.dataset.number = number;
  if (number === chosen) node.setAttribute("aria-current", "true");
  // The end of a long name is never cut: there the names of telecom's tasks differ.
  const task = el("span", "task", el("span", "soft name", `${clean(row.name)} `), el("span", "first", clean(label.slice(0, -26))), el("span", "last", clean(label.slice(-26))));
  const more = [
    causeOf(row), row.user, row.ended + (row.blame ? ` (${row.blame})` : ""), row.sampled ? `${row.sampled} tokens` : "",
    row.errors ? `${row.errors} tool error${row.errors > 1 ? "s" : ""}` : "", row.talk ? "" : "no conversation",
  ];
  node.append(task, el("span", `reward ${rewardTone(row.reward)}`, rewardText(row.reward)), el("span", "more", clean(more.filter(Boolean).join(" · "))));
  node.addEventListener("click", () => openEpisode(number));
  return node;
}

// ---- what is shown, and in which order -------------------------------------------------------------------------------

const ORDERS = [["", "as written"], ["divided", "groups, most divided first"], ["worst", "groups, worst first"]];
const filterNodes = [...document.querySelectorAll("select[data-filter]")];
const facts = {
  domain: (row) => row.domain, user: (row) => row.user, blame: (row) => row.blame, run: (row) => row.run,
  reward: kindOf, errors: (row) => (row.errors ? "with" : "without"), cause: causeOf,
};
const NAMES = { reward: { 1: "1", 0: "0", part: "between", none: "excluded or none" } };
const nameFilter = document.getElementById("filter-task"), failedOnly = document.getElementById("failed");
const order = document.getElementById("order");
for (const [value, text] of ORDERS) order.append(new Option(text, value));

function fillFilters() {
  for (const node of filterNodes) {
    const name = node.dataset.filter, counts = new Map();
    for (const row of rows) { const value = facts[name](row); if (value) counts.set(value, (counts.get(value) ?? 0) + 1); }
    const values = [...counts.keys()].sort((a, b) => (name === "cause" ? counts.get(b) - counts.get(a) : a < b ? -1 : 1));
    const wanted = [["", "any"], ...values.map((value) => [value, `${clean(NAMES[name]?.[value] ?? value)} (${counts.get(value)})`])];
    const before = node.value;
    node.replaceChildren(...wanted.map(([value, text]) => new Option(text, value)));
    if (counts.has(before)) node.value = before;
    node.parentNode.hidden = name === "run" ? values.length < 2 : false;
  }
}

let visible = []; // numbers of the episodes that pass the filters, in the order of the list
function filter() {
  const wanted = nameFilter.value.trim().toLowerCase(), rewards = [];
  const active = filterNodes.filter((node) => node.value).map((node) => [facts[node.dataset.filter], node.value]);
  visible = [];
  rows.forEach((row, number) => {
    if (active.some(([fact, value]) => fact(row) !== value)) return;
    if (failedOnly.checked && !isFailed(row)) return;
    if (point && !point.holds(row)) return;
    if (matches && !matches.has(number)) return;
    if (wanted && !`${row.task} ${row.name}`.toLowerCase().includes(wanted)) return;
    visible.push(number);
    if (row.reward !== null) rewards.push(row.reward);
  });
  setItems(order.value ? grouped() : visible);
  const mean = rewards.reduce((sum, value) => sum + value, 0) / rewards.length;
  document.getElementById("count").textContent = `${visible.length} of ${rows.length} episodes`
    + (rewards.length ? ` · mean reward ${mean.toFixed(3)} over ${rewards.length}` : "");
}
function grouped() {
  const groups = new Map();
  for (const number of visible) {
    const row = rows[number], key = JSON.stringify([row.run, row.series, row.step, row.group || row.task_key]);
    groups.get(key)?.push(number) ?? groups.set(key, [number]);
  }
  const heads = [...groups.values()].map((numbers) => {
    const known = numbers.map((number) => rows[number].reward).filter((reward) => reward !== null);
    const mean = known.reduce((sum, value) => sum + value, 0) / known.length;
    const spread = known.reduce((sum, value) => sum + (value - mean) ** 2, 0) / known.length;
    return { numbers, mean, spread: known.length ? spread : -1, solved: known.filter((reward) => reward >= success).length, known };
  });
  const worst = (head) => (head.known.length ? head.mean : 2);
  heads.sort((a, b) => order.value === "divided" ? b.spread - a.spread || worst(a) - worst(b) : worst(a) - worst(b) || b.spread - a.spread);
  const out = [];
  visible = [];
  for (const { numbers, solved, known } of heads) {
    const row = rows[numbers[0]];
    const text = `${row.group ? `group ${row.group} · ` : ""}${labelOf(row)}${row.stepless ? "" : ` · step ${row.step}`}`;
    out.push({ text: `${clean(text)} · ${solved} of ${known.length} solved` }, ...numbers);
    visible.push(...numbers);
  }
  return out;
}
