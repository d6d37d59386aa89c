// Two attempts of one task, message beside message.

const callsOf = (entry) => entry.calls.map((call) => `${call.name}${call.arguments}`).join("\n");
const equal = (a, b) => a.role === b.role && a.text === b.text && callsOf(a) === callsOf(b);
function likeness(a, b) {
  if (a.role !== b.role) return -1;
  if (equal(a, b)) return 8;
  const [mine, other] = [a, b].map((entry) => entry.calls.map((call) => call.name).join());
  if (mine !== other) return -1;
  return mine ? 4 : 2;
}
// Pairs of entries, in the order of both, that are worth most together; what stands alone has null beside it.
function aligned(one, other) {
  const best = Array.from({ length: one.length + 1 }, () => new Float64Array(other.length + 1));
  for (let i = one.length - 1; i >= 0; i--) for (let j = other.length - 1; j >= 0; j--) {
    const alike = likeness(one[i], other[j]);
    best[i][j] = Math.max(best[i + 1][j], best[i][j + 1], alike > 0 ? alike + best[i + 1][j + 1] : 0);
  }
  const out = [];
  let i = 0, j = 0;
  while (i < one.length || j < other.length) {
    const alike = i < one.length && j < other.length ? likeness(one[i], other[j]) : -1;
    if (alike > 0 && best[i][j] === alike + best[i + 1][j + 1]) out.push([one[i++], other[j++]]);
    else if (j >= other.length || (i < one.length && best[i][j] === best[i + 1][j])) out.push([one[i++], null]);
    else out.push([null, other[j++]]);
  }
  return out;
}
function compared(episodes) {
  const [one, other] = episodes, out = el("div", "pairs"), grid = el("div", "messages");
  const columns = episodes.map((e) => el("article", "conversation", ...headOf(e)));
  const tails = episodes.map((e) => el("section", "conversation tail", ...tailOf(e)));
  let first = true;
  for (const [a, b] of aligned(one.entries, other.entries)) {
    const same = a && b && equal(a, b);
    const pair = [[a, one], [b, other]].map(([entry, e]) => (entry ? message(entry, e) : el("div", "gap")));
    if (!same) {
      pair.forEach((node) => node.classList.add("differs"));
      if (first) grid.append(el("div", "first-difference small", "from here on the two attempts differ"));
      first = false;
    }
    grid.append(...pair);
  }
  if (first) grid.append(el("div", "first-difference small", "the two attempts say the same"));
  out.append(el("div", "columns", ...columns), legend(), grid, el("div", "columns", ...tails));
  return out;
}
