// The inspector's page: a list with filters, and one episode or two attempts of one task beside it.

const list = document.getElementById("list"), detail = document.getElementById("detail");
const search = document.getElementById("filter-task");
const filters = [...document.querySelectorAll("select[data-filter]")];
const buttons = [...list.children];
let chosen = -1, other = -1;

function filter() {
  const wanted = search.value.trim().toLowerCase(), rewards = [];
  let shown = 0;
  for (const button of buttons) {
    const facts = button.dataset;
    button.hidden = filters.some((each) => each.value && each.value !== facts[each.dataset.filter])
      || !`${facts.task} ${facts.name}`.toLowerCase().includes(wanted);
    if (button.hidden) continue;
    shown++;
    if (facts.value) rewards.push(Number(facts.value));
  }
  const mean = rewards.reduce((sum, value) => sum + value, 0) / rewards.length;
  document.getElementById("count").textContent = `${shown} of ${buttons.length} episodes`
    + (rewards.length ? ` · mean reward ${mean.toFixed(3)} over ${rewards.length}` : "");
}

async function openEpisode(number, second = -1) {
  document.body.classList.add("reading");
  // Drawing the open episode again would close every message that its reader has opened.
  if (number === chosen && second === other) return;
  buttons[chosen]?.removeAttribute("aria-current");
  buttons[number].setAttribute("aria-current", "true");
  [chosen, other] = [number, second];
  const numbers = second < 0 ? [number] : [number, second];
  const episodes = await Promise.all(numbers.map(episode));
  if (chosen !== number || other !== second) return; // the reader has gone on
  const columns = episodes.map(conversation);
  columns[0].prepend(bar(number, second));
  columns[1]?.prepend(el("div", "bar soft", "the other attempt"));
  detail.className = numbers.length > 1 ? "two" : "";
  detail.replaceChildren(...columns);
  detail.scrollTop = 0;
  if (innerWidth < 900) scrollTo(0, 0);
  history.replaceState(null, "", "#" + numbers.map((n) => encodeURIComponent(buttons[n].dataset.name)).join("&"));
}
function bar(number, second) {
  const back = el("button", "", "← episodes"), options = [];
  back.id = "back";
  back.addEventListener("click", () => document.body.classList.remove("reading"));
  buttons.forEach((button, n) => {
    if (n === number || button.dataset.attemptOf !== buttons[number].dataset.attemptOf) return;
    options.push([n, `${button.dataset.name}: reward ${button.dataset.value || "–"}, ${button.dataset.blame}`]);
  });
  const first = options.length ? "compare with another attempt …" : "no other attempt of this task";
  const compare = select([[-1, first], ...options], second, (value) => openEpisode(number, Number(value)));
  compare.id = "compare";
  compare.disabled = !options.length;
  return el("div", "bar", back, compare);
}

async function start() {
  for (const each of filters) each.addEventListener("change", filter);
  search.addEventListener("input", filter);
  buttons.forEach((button, number) => button.addEventListener("click", () => openEpisode(number)));
  filter();
  const named = location.hash.slice(1).split("&").map((name) => buttons.findIndex((b) => encodeURIComponent(b.dataset.name) === name));
  if (named[0] >= 0) await openEpisode(...named);
  else if (buttons.length && innerWidth >= 900) await openEpisode(0);
  document.body.dataset.ready = "yes";
}
start().catch((error) => {
  detail.append(el("p", "warning", `this page cannot show its data: ${error}`));
  document.body.dataset.ready = "failed";
});
