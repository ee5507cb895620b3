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

// One of each method and dataset, the smallest seed; never the best by a number.
function drawPictures(rows) {
  const ordered = [...rows].sort((a, b) => a.dataset.localeCompare(b.dataset) || a.method.localeCompare(b.method) || a.seed - b.seed || a.id - b.id);
  const first = new Map(ordered.map((row) => [JSON.stringify([row.dataset, row.method]), row]).reverse());
  const some = ordered.filter((row) => [...first.values()].includes(row)).slice(0, AT_ONCE);
  byId("pictures").replaceChildren(...(showAll ? ordered : some).map(picture));
  byId("more").hidden = ordered.length <= some.length;
  byId("more").textContent = showAll ? "one of each method" : `all ${ordered.length}`;
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
  const image = el("img", { alt: `${seen} of ${row.method} on ${row.dataset}, ε = ${epsilonText(row.epsilon)}; rows are classes`, decoding: "async", width: 420, height: 220 });
  image.dataset.row = row.id;
  image.addEventListener("load", () => Object.assign(image, { width: image.naturalWidth, height: image.naturalHeight }));
  watched.observe(image);
  const open = el("button", { type: "button", className: "link", textContent: `${row.method} on ${row.dataset}`, onclick: () => openDetails(row) });
  const facts = [`seed ${row.seed ?? "–"}`, row.folder].join(" · ");
  return el("figure", {}, image, el("figcaption", {}, open, el("div", { className: "muted", textContent: facts })));
}
