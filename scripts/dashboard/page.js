// What happens when.

const warn = (text, danger) => byId("warning").append(el("p", { textContent: text, className: danger ? "danger" : "" }));

function redraw() {
  const rows = shownRows();
  drawComparison(rows);
  drawGrids(rows);
  drawTable(rows);
  drawPlots(rows);
}

function start() {
  byId("made").textContent = `${runsText(data.rows.length)} · ${data.made}`;
  if (!data.rows.length) {
    byId("content").hidden = true;
    byId("empty").hidden = false;
    byId("places").textContent = data.places.join(", ");
    return;
  }
  if (data.private) warn("This page may hold pictures of private images: it must not be shared.", true);
  if (data.private_metrics) warn("This page holds numbers measured on real data (accuracy, distances, times). It must not be shared as a release may.");
  for (const key of ["method", "dataset", "status"]) options(byId(key), unique(data.rows.map((row) => row[key]).filter(known)).sort(), "", "any");
  drawHead();
  redraw();
  let waiting;
  byId("filters").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(redraw, 100);
  });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("epsilon").addEventListener("change", () => drawGrids(shownRows()));
  byId("more").addEventListener("click", () => {
    showAll = !showAll;
    drawGrids(shownRows());
  });
  byId("details").addEventListener("click", (event) => event.target === byId("details") && byId("details").close());
  dark.addEventListener("change", redraw);
}

start();
