// Accuracy and distance against ε: a curve for each method and variant, of the lines of the comparison that the filter lets through.

const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#b5a000"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x", "star", "cross", "triangle-down"];
const PANELS = {
  accuracy: { of: "classifier", times: 100, unit: "accuracy, %" },
  distance: { of: "space", times: 1, unit: "distance" },
};
const names = unique(data.comparison.map(nameOf)).sort();
const dark = matchMedia("(prefers-color-scheme: dark)");

function loadPlotly() {
  if (!window.Plotly) document.head.append(el("script", { textContent: byId("plotly").textContent }));
}

function layout(extra) {
  const style = getComputedStyle(document.body);
  const [text, grid] = ["--text", "--line"].map((name) => style.getPropertyValue(name).trim());
  const axis = { gridcolor: grid, linecolor: grid, zeroline: false, automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: text, family: style.fontFamily, size: 12 },
    margin: { l: 50, r: 12, t: 12, b: 40 }, legend: { orientation: "h", x: 0, y: 1.03, yanchor: "bottom" }, hoverlabel: { namelength: -1 },
    ...extra, xaxis: { ...axis, ...extra.xaxis }, yaxis: { ...axis, ...extra.yaxis },
  };
}

const PLOT = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

function curves(lines, name, panel, published) {
  const point = (line) => ({ epsilon: Number(line.epsilon.toPrecision(3)), over: line.seeds, y: panel.times * line[name].mean, bar: panel.times * (line[name].spread ?? 0) });
  const byName = names.map((one) => [one, lines.filter((line) => nameOf(line) === one).map(point)]).filter(([, found]) => found.length);
  const all = [...byName.flatMap(([, found]) => found.map((point) => point.epsilon)), ...published.map((point) => point.x)];
  const finite = all.filter((epsilon) => epsilon > 0 && Number.isFinite(epsilon));
  const [low, high] = finite.length ? [Math.min(...finite) / 1.3, Math.max(...finite) * 1.3] : [0.5, 20];
  const traces = byName.flatMap(([name, found]) => {
    const colour = COLOURS[names.indexOf(name) % COLOURS.length];
    const symbol = SYMBOLS[names.indexOf(name) % SYMBOLS.length];
    const on = found.filter((point) => point.epsilon > 0 && Number.isFinite(point.epsilon));
    const level = found.filter((point) => !on.includes(point)); // a floor or a ceiling: no place on a logarithmic axis
    const levels = level.map((point) => ({
      name: `${plain(name)} (ε = ${epsilonText(point.epsilon)})`, x: [low, high], y: [point.y, point.y], mode: "lines",
      line: { color: colour, dash: "dash", width: 1.5 }, hovertemplate: `%{y:.1f}, ${point.over}`,
    }));
    if (!on.length) return levels;
    return [{
      name: plain(name), x: on.map((point) => point.epsilon), y: on.map((point) => point.y), mode: "lines+markers",
      error_y: { array: on.map((point) => point.bar), visible: on.some((point) => point.bar > 0), thickness: 1.2, width: 4 },
      line: { color: colour, width: 2 }, marker: { symbol, size: 8 }, customdata: on.map((point) => point.over),
      hovertemplate: "ε = %{x}: %{y:.1f}, %{customdata}",
    }, ...levels];
  });
  unique(published.map((point) => point.name)).forEach((name, number) => {
    const told = published.filter((point) => point.name === name);
    traces.push({
      name: plain(name), x: told.map((point) => point.x), y: told.map((point) => point.y), mode: "markers",
      marker: { symbol: `${SYMBOLS[number % SYMBOLS.length]}-open`, size: 9, line: { width: 2 }, color: "#888" },
      customdata: told.map((point) => plain(point.source)), hovertemplate: "ε = %{x}: %{y}, published<br>%{customdata}",
    });
  });
  return { traces, range: [Math.log10(low), Math.log10(high)], ticks: unique(finite).sort((a, b) => a - b) };
}

// Plotly reads some tags, and fields in %{braces}, in names: ours are text.
const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/%\{/g, "%&#123;");

function mostCommon(values) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a) || a.localeCompare(b));
}

function choice(name, title, values) {
  const select = byId(`plot-${name}`) ?? el("select", { id: `plot-${name}`, onchange: () => drawPlots(shownRows()) });
  if (!select.isConnected) byId("plot-choices").append(el("label", {}, title, select));
  options(select, values, select.value);
  select.parentElement.hidden = values.length < 2;
  return select.value;
}

// Plotly takes longest to start: not before the page stands, and the plots come into sight.
let seen = false;
const sight = new IntersectionObserver((entries) => {
  if (!entries.some((entry) => entry.isIntersecting)) return;
  sight.disconnect();
  seen = true;
  drawPlots(shownRows());
});
addEventListener("load", () => setTimeout(() => sight.observe(byId("accuracy")), 100));

function drawPlots(rows) {
  byId("plots").hidden = !data.private_metrics && !data.published.length;
  if (!seen) return;
  const measured = shownLines(rows).filter((line) => line.accuracy || line.distance);
  const chosen = choice("dataset", "Dataset", mostCommon([...measured.map((line) => line.data), ...(measured.length ? [] : data.published.map((p) => p.dataset))]));
  const here = measured.filter((line) => line.data === chosen);
  const dataset = here.length ? here[0].dataset : chosen;
  loadPlotly();
  for (const [name, panel] of Object.entries(PANELS)) {
    const valued = here.filter((line) => line[name]);
    const of = choice(panel.of, name === "accuracy" ? "Classifier" : "Distance in", mostCommon(valued.map((line) => line[panel.of])));
    const fits = (point) => point.panel === name && (!point.dataset || point.dataset === dataset) && (!of || of.startsWith(point.of));
    const published = data.published.filter(fits);
    const { traces, range, ticks } = curves(valued.filter((line) => line[panel.of] === of), name, panel, published);
    byId(`${name}-title`).textContent = [name === "accuracy" ? "Accuracy ↑" : "Distance ↓", chosen ? ` on ${chosen}` : "", of ? `, ${of}` : ""].join("");
    const xaxis = { type: "log", range, title: { text: "ε spent" } };
    if (ticks.length && ticks.length <= 8) Object.assign(xaxis, { tickvals: ticks, ticktext: ticks.map(String) });
    const annotations = traces.length ? [] : [{ text: "nothing measured", showarrow: false, x: 0.5, y: 0.5, xref: "paper", yref: "paper" }];
    Plotly.react(byId(name), traces, layout({ xaxis, yaxis: { title: { text: panel.unit } }, annotations, showlegend: true }), PLOT);
  }
}
