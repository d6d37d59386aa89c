// The curves of a run: small charts side by side. A point of a curve chooses the episodes behind it.

const SVG = "http://www.w3.org/2000/svg", WIDE = 400, HIGH = 170, LEFT = 40, RIGHT = 8, TOP = 8, BOTTOM = 22;
function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
const share = (value) => `${(value * 100).toFixed(value && value < 0.1 ? 1 : 0)} %`;
const plain = (value) => (Math.abs(value) >= 100 ? Math.round(value).toLocaleString("en") : value.toFixed(Math.abs(value) >= 10 ? 1 : 2));
const CHARTS = [
  { title: "pass rate, with 95 % interval", name: "pass", low: "low", high: "high", top: 1, say: (v) => v.toFixed(3) },
  { title: "mean reward", name: "reward", top: 1, say: (v) => v.toFixed(3) },
  { title: "turns of the agent", name: "turns", say: plain },
  { title: "sampled tokens of an episode", name: "tokens", say: plain },
  { title: "excluded episodes", name: "excluded", top: 1, say: share },
  { title: "simulator faults: episodes with a flaw or a failed call", name: "faulty", top: 1, say: share },
  { title: "off-policy: tokens of older weights than the newest", name: "stale", top: 1, say: share },
  { title: "lag: weight versions behind the newest", name: "lag", say: plain },
  { title: "how they ended", keys: "ended", top: 1, say: share },
  { title: "blame", keys: "blame", top: 1, say: share },
  { title: "diagnosis", keys: "failed_by", top: 1, say: share },
];
const LINES = 8;
let split = "all";

// What the curves of a chart are: a name, points of x and value, and what a click on one chooses.
function linesOf(chart) {
  const every = curves[chart.keys ? "all" : split] ?? [];
  const name = (curve, key) => [key, curve.part, every.some((other) => other.series !== every[0].series) ? curve.series : ""].filter(Boolean).join(" · ");
  if (!chart.keys) {
    return every.map((curve) => ({
      name: name(curve) || curve.series || "all episodes", curve,
      points: curve.points.filter((p) => p[chart.name] !== null).map((p) => ({ x: p.step, y: p[chart.name], low: p[chart.low], high: p[chart.high], p })),
    })).filter((line) => line.points.length);
  }
  const lines = [];
  for (const curve of every) {
    const keys = new Map();
    for (const p of curve.points) for (const [key, value] of Object.entries(p[chart.keys])) keys.set(key, (keys.get(key) ?? 0) + value);
    const known = curve.points.filter((p) => Object.keys(p[chart.keys]).length);
    for (const [key, weight] of keys) {
      if (key === "solved") continue;
      lines.push({ name: name(curve, key), curve, weight, key, points: known.map((p) => ({ x: p.step, y: p[chart.keys][key] ?? 0, p })) });
    }
  }
  return lines.sort((a, b) => b.weight - a.weight).slice(0, LINES);
}

function drawChart(chart) {
  const lines = linesOf(chart);
  if (!lines.length) return null;
  if (!chart.keys && chart.name !== "pass" && lines.every((line) => line.points.every((p) => p.y === 0))) return null;
  const every = lines.flatMap((line) => line.points), xs = [...new Set(every.map((p) => p.x))].sort((a, b) => a - b);
  const x0 = xs[0], x1 = xs.at(-1), most = Math.max(...every.map((p) => p.high ?? p.y));
  const top = chart.top && most > 0.5 ? chart.top : niceTop(most);
  const X = (x) => (x1 === x0 ? (LEFT + WIDE - RIGHT) / 2 : LEFT + ((x - x0) / (x1 - x0)) * (WIDE - LEFT - RIGHT));
  const Y = (y) => TOP + (1 - y / top) * (HIGH - TOP - BOTTOM);
  const picture = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", tabindex: "0", "aria-label": chart.title });
  for (const part of [0, 0.5, 1]) {
    picture.append(svg("path", { class: "grid", d: `M${LEFT} ${Y(top * part)}H${WIDE - RIGHT}` }), svg("text", { x: LEFT - 5, y: Y(top * part) + 4, "text-anchor": "end" }, chart.say === share ? share(top * part) : String(Number((top * part).toPrecision(3)))));
  }
  const named = runsOf(xs);
  for (const [i, x] of ticks(xs).entries()) {
    const anchor = x1 === x0 ? "middle" : x === x0 ? "start" : x === x1 ? "end" : "middle";
    picture.append(svg("text", { x: X(x), y: HIGH - 6, "text-anchor": anchor }, named ? shorten(named.get(x), i) : String(x)));
  }
  lines.forEach((line, i) => {
    const group = svg("g", { class: `colour-${i % 8}` });
    if (chart.low && line.points.length > 1) {
      const up = line.points.map((p) => `${X(p.x)},${Y(p.high)}`), down = line.points.map((p) => `${X(p.x)},${Y(p.low)}`).reverse();
      group.append(svg("polygon", { points: [...up, ...down].join(" ") }));
    }
    group.append(svg("polyline", { points: line.points.map((p) => `${X(p.x)},${Y(p.y)}`).join(" ") }));
    if (line.points.length <= 60) {
      for (const p of line.points) {
        if (chart.low && line.points.length === 1) group.append(svg("path", { d: `M${X(p.x)} ${Y(p.low)}V${Y(p.high)}` }));
        group.append(svg("circle", { cx: X(p.x), cy: Y(p.y), r: 2.6 }));
      }
    }
    picture.append(group);
  });
  const cursor = svg("circle", { class: "cursor", r: 5, visibility: "hidden" });
  picture.append(cursor);
  const said = el("figcaption", "small soft", " ");
  let at = null;
  const point = (line, p) => {
    at = [line, p];
    cursor.setAttribute("cx", X(p.x));
    cursor.setAttribute("cy", Y(p.y));
    cursor.setAttribute("visibility", "visible");
    const range = p.low === undefined || p.low === null || !chart.low ? "" : ` (${chart.say(p.low)} to ${chart.say(p.high)})`;
    const where = named ? named.get(p.x) : `step ${p.x}`;
    said.textContent = clean(`${line.name} · ${where}: ${chart.say(p.y)}${range}, ${p.p.episodes} episodes`);
  };
  const nearest = (event) => {
    const box = picture.getBoundingClientRect(), scale = WIDE / box.width;
    const x = (event.clientX - box.x) * scale, y = (event.clientY - box.y) * scale;
    let best = null, least = Infinity;
    for (const line of lines) for (const p of line.points) {
      const far = Math.abs(X(p.x) - x) * 4 + Math.abs(Y(p.y) - y);
      if (far < least) [best, least] = [[line, p], far];
    }
    point(...best);
  };
  const choose = () => at && choosePoint(at[0], at[1].p);
  picture.addEventListener("pointermove", nearest);
  picture.addEventListener("click", (event) => { nearest(event); choose(); });
  picture.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Enter") return choose();
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const line = at?.[0] ?? lines[0], place = line.points.indexOf(at?.[1]);
    point(line, line.points[Math.min(line.points.length - 1, Math.max(0, place + step))]);
  });
  const legendNode = el("ul", "lines small", ...(lines.length > 1 || chart.keys ? lines : []).map((line, i) => el("li", "", el("span", `swatch colour-${i % 8}`), clean(line.name))));
  return el("figure", "", el("h3", "", chart.title), picture, said, legendNode);
}
// One step alone has no curve: the shares of what happened, as bars.
function drawBars(chart) {
  const lines = linesOf(chart).filter((line) => line.points.length);
  if (!lines.length) return null;
  const bars = lines.map((line, i) => {
    const { y, p } = line.points[0], fill = el("span", `fill colour-${i % 8}`);
    fill.style.setProperty("width", `${y * 100}%`);
    const button = el("button", "share", el("span", "", clean(line.name)), el("span", "track", fill), el("span", "", share(y)));
    button.type = "button";
    button.addEventListener("click", () => choosePoint(line, p));
    return button;
  });
  return el("figure", "", el("h3", "", chart.title), ...bars);
}
function niceTop(most) {
  if (most <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= most * 1.0001) ?? most;
}
function ticks(xs) { return xs.length <= 5 ? xs : [0, 0.25, 0.5, 0.75, 1].map((part) => xs[Math.round(part * (xs.length - 1))]); }
function shorten(name, place) { return name.length > 14 ? `${place || name.length < 18 ? "…" : ""}${name.slice(-13)}` : name; }
// Names in the place of steps, where every step is a run of its own.
function runsOf(xs) {
  const named = new Map(), runs = new Set();
  for (const curve of curves.all) for (const p of curve.points) { if (named.has(p.step) && named.get(p.step) !== p.run) return null; named.set(p.step, p.run); runs.add(p.run); }
  return runs.size === named.size && (runs.size > 1 || xs.length === 1) ? named : null;
}

function latest() {
  const named = runsOf(curves.all.flatMap((curve) => curve.points.map((p) => p.step)));
  const heads = ["", named ? "run" : "step", "episodes", "pass rate", "95 %", "reward", "turns", "tokens", "excluded", "faults", "off-policy", "lag"];
  const body = el("tbody", "");
  const cell = (value, say) => el("td", "", value === null ? "–" : say(value));
  for (const curve of curves[split]) {
    const p = curve.points.at(-1), name = [curve.part, curve.series].filter(Boolean).join(" · ") || "all episodes";
    const button = el("button", "to-message", clean(name));
    button.addEventListener("click", () => choosePoint({ curve }, p));
    body.append(el("tr", "", el("td", "", button), el("td", "", named ? clean(named.get(p.step)) : String(p.step)), el("td", "", String(p.episodes)), cell(p.pass, (v) => v.toFixed(3)),
      el("td", "", p.low === null ? "–" : `${p.low.toFixed(2)} to ${p.high.toFixed(2)}`), cell(p.reward, (v) => v.toFixed(3)), cell(p.turns, plain), cell(p.tokens, plain),
      cell(p.excluded, share), cell(p.faulty, share), cell(p.stale, share), cell(p.lag, plain)));
  }
  return el("div", "scroll", el("table", "latest", el("thead", "", el("tr", "", ...heads.map((head) => el("th", "", head)))), body));
}

function showCurves() {
  const choice = select([["all", "all episodes"], ["domain", "by domain"], ["simulator", "by simulator"]], split, (value) => { split = value; showCurves(); });
  choice.id = "split";
  const single = new Set(curves.all.flatMap((curve) => curve.points.map((p) => p.step))).size < 2;
  const hint = single ? "A line opens its episodes." : "A point opens its groups. The table is the newest step.";
  const bar = el("div", "bar", backButton(), choice, el("span", "small soft", hint));
  const charts = el("div", "charts", ...(single ? CHARTS.filter((chart) => chart.keys).map(drawBars) : CHARTS.map(drawChart)).filter(Boolean));
  detail.className = "overview";
  detail.replaceChildren(bar, latest(), charts);
}
