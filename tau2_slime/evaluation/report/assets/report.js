// The evaluation's report: a cell of the heat map opens its conversation, and the address says which one is open.

const dialog = document.getElementById("episode");
async function follow() {
  const { hash } = location, named = /^#episode-(\d+)$/.exec(hash);
  const found = named && (await episode(Number(named[1])));
  if (hash !== location.hash) return; // the reader has gone on
  if (!found) return dialog.close();
  document.getElementById("detail").replaceChildren(conversation(found));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}
function leave() {
  history.replaceState(null, "", location.pathname + location.search);
  dialog.close();
}
async function start() {
  addEventListener("hashchange", follow);
  document.getElementById("close").addEventListener("click", leave);
  dialog.addEventListener("cancel", (event) => { event.preventDefault(); leave(); });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) leave(); });
  await follow();
  document.body.dataset.ready = "yes";
}
start();
