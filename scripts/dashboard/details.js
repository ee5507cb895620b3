// One run: certificate, cost, what was measured, curves, configuration, files.

const NAMES = { delta: "δ", epsilon: "ε spent", epsilon_target: "ε asked for", neighbouring: "neighbouring datasets", public_by_assumption: "public by assumption", public_model: "public model", num_samples: "samples",
  trainable_parameters: "trainable parameters" };

const MEMORY = "memory/peak_gib";

function openDetails(row) {
  const run = runDetails(row), dialog = byId("details");
  const close = el("button", { type: "button", className: "plain", textContent: "Close", onclick: () => dialog.close() });
  const title = el("h2", { id: "details-title", textContent: row.method ? `${nameOf(row)} on ${row.data}` : row.folder });
  const state = [row.status, row.private === null ? null : row.private ? "private" : "not private", row.folder].filter(Boolean).join(" · ");
  const curves = Object.entries(run.curves);
  const costs = Object.entries(run.metrics).filter(([name]) => name.startsWith("time/"));
  const memory = run.metrics[MEMORY] === undefined ? [] : [["memory", `${significant(run.metrics[MEMORY], 2)} GiB`]];
  const measured = Object.entries(run.metrics).filter(([name]) => !name.startsWith("time/") && !name.startsWith("privacy/") && name !== MEMORY);
  const cost = [...costs.map(([name, value]) => [timeName(name), durationText(Number(value))]), ...memory, ...trained(run)];
  dialog.replaceChildren(
    el("div", { className: "top" }, title, close),
    el("p", { className: "muted", textContent: state }),
    row.problem ? el("p", { className: "problem", textContent: row.problem }) : null ?? "",
    el("div", { className: "columns" },
      el("div", {}, ...certificate(run.certificate), ...section("Cost", cost)),
      el("div", {}, ...drawn(row, run), ...section("Measured on real data", measured), ...files(run))),
    ...(curves.length ? [el("h3", { textContent: "Curves" }), el("div", { id: "curves" })] : []),
    el("details", {}, el("summary", { textContent: "Configuration" }), el("pre", { textContent: run.config || "–" })),
  );
  dialog.showModal();
  dialog.scrollTop = 0;
  if (curves.length) drawCurves(curves);
}

function timeName(name) {
  const [whole, part] = name.replace("time/", "").replace("_seconds", "").replace("cpu", "CPU").replaceAll("_", " ").split("/part=");
  return part ? `${whole}: ${part}` : `${whole} time`;
}

const trained = (run) => (run.certificate?.trainable_parameters === undefined ? [] : [["trainable_parameters", run.certificate.trainable_parameters]]);

function section(title, entries) {
  if (!entries.length) return [];
  const rows = entries.map(([name, value]) => el("tr", {}, el("th", { scope: "row", textContent: NAMES[name] ?? name }), el("td", { textContent: valueText(value) })));
  return [el("h3", { textContent: title }), el("table", {}, el("tbody", {}, ...rows))];
}

function certificate(document) {
  if (!document) return [el("h3", { textContent: "Certificate" }), el("p", { className: "muted", textContent: "none in this page" })];
  const { mechanisms, ...rest } = document;
  const spent = (Array.isArray(mechanisms) ? mechanisms : []).filter((spend) => spend instanceof Object).map(({ purpose, count, ...mechanism }) => [
    `${purpose} × ${count}`, Object.entries(mechanism).map(([name, value]) => (name === "mechanism" ? value : `${name.replaceAll("_", " ")} ${valueText(value)}`)).join(", "),
  ]);
  return [...section("Certificate", Object.entries(rest)), ...section("Spent", spent)];
}

function drawn(row, run) {
  if (!run.picture) return [];
  const alt = `${row.private ? "Samples" : "Pictures that must not be shared"} of ${row.method}; rows are classes`;
  return [el("h3", { textContent: row.private ? "Samples" : "Must not be shared" }), el("img", { src: run.picture, alt })];
}

function files(run) {
  const list = (title, links) => (links.length ? [el("h3", { textContent: title }), el("ul", {}, ...links.map(([name, href]) => el("li", {}, el("a", { href, textContent: name }))))] : []);
  return [...list("Files that may be shared", run.shareable), ...list("Files that must not be shared", run.internal)];
}

function drawCurves(curves) {
  loadPlotly();
  const panel = (i) => (i ? i + 1 : "");
  const traces = curves.map(([, curve], i) => ({
    x: curve.points.map(([step]) => step), y: curve.points.map(([, value]) => value), xaxis: `x${panel(i)}`, yaxis: `y${panel(i)}`,
    mode: curve.points.length > 30 ? "lines" : "lines+markers", line: { color: COLOURS[0] }, hovertemplate: "step %{x}: %{y}<extra></extra>",
  }));
  const made = layout({ showlegend: false, grid: { rows: curves.length, columns: 1, pattern: "independent", ygap: 0.45 }, height: 60 + 170 * curves.length });
  made.margin.t = 30;
  made.annotations = curves.map(([name, curve], i) => ({
    text: plain(name) + (curve.internal ? " (on real data)" : ""), showarrow: false, x: 0, xanchor: "left", y: 1, yanchor: "bottom",
    xref: `x${panel(i)} domain`, yref: `y${panel(i)} domain`,
  }));
  curves.forEach((_, i) => {
    made[`xaxis${panel(i)}`] = { ...made.xaxis };
    made[`yaxis${panel(i)}`] = { ...made.yaxis };
  });
  made[`xaxis${panel(curves.length - 1)}`].title = { text: "step" };
  Plotly.newPlot(byId("curves"), traces, made, PLOT);
}
