// Sample grids side by side, at an ε that the reader picks.

const AT_ONCE = 12;
let showAll = false;

function drawGrids(rows) {
  const pictured = rows.filter((row) => row.picture && row.epsilon !== null);
  const select = byId("epsilon");
  const values = mostCommon(pictured.map((row) => epsilonText(row.epsilon)));
  const chosen = values.includes(select.value) ? select.value : values[0];
  options(select, unique(pictured.map((row) => row.epsilon).sort((a, b) => a - b).map(epsilonText)), chosen);
  byId("grids").hidden = !pictured.length;
  drawPictures(pictured.filter((row) => epsilonText(row.epsilon) === chosen));
}

// One of each setting, the smallest seed, as rows are in that order; never the best by a number.
function drawPictures(rows) {
  const first = new Map(rows.map((row) => [JSON.stringify([row.data, row.method, row.variant]), row]).reverse());
  const some = rows.filter((row) => [...first.values()].includes(row)).slice(0, AT_ONCE);
  byId("pictures").replaceChildren(...(showAll ? rows : some).map(picture));
  byId("more").hidden = rows.length <= some.length;
  byId("more").textContent = showAll ? "one of each setting" : `all ${rows.length}`;
}

const watched = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    watched.unobserve(target);
    target.src = runDetails(data.rows[target.dataset.row]).picture;
  }
}, { rootMargin: "300px" });

function picture(row) {
  const seen = row.private ? "Samples" : "Pictures that must not be shared";
  const image = el("img", { alt: `${seen} of ${nameOf(row)} on ${row.data}, ε = ${epsilonText(row.epsilon)}; rows are classes`, decoding: "async", width: 420, height: 220 });
  image.dataset.row = row.id;
  image.addEventListener("load", () => Object.assign(image, { width: image.naturalWidth, height: image.naturalHeight }));
  watched.observe(image);
  const open = el("button", { type: "button", className: "link", textContent: `${nameOf(row)} on ${row.data}`, onclick: () => openDetails(row) });
  const facts = `seed ${row.seed ?? "–"}`;
  return el("figure", {}, image, el("figcaption", {}, open, el("div", { className: "muted", textContent: facts, title: row.folder })));
}
