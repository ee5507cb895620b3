// The comparison: a line for each setting at each ε, over its seeds. Means are those of the page, whatever the filter: it hides lines.

const nameOf = ({ method, variant }) => (variant ? `${method} (${variant})` : method);
const differ = (key) => unique(data.comparison.map((line) => line[key]).filter(known)).length > 1;
const COMPARED = [
  { key: "epsilon", title: "ε spent", number: true, fill: (cell, line) => cell.append(epsilonText(line.epsilon)) },
  { key: "delta", title: "δ", number: true, varies: true, fill: (cell, line) => cell.append(deltaText(line.delta)) },
  { key: "unit", title: "Protects", varies: true, fill: (cell, line) => cell.append(line.unit) },
  { key: "method", title: "Method", fill: (cell, line) => cell.append(...methodText(line)) },
  { key: "accuracy", title: "Accuracy % ↑", number: true, fill: (cell, line) => fillMeasure(cell, line, "accuracy", 100) },
  { key: "distance", title: "Distance ↓", number: true, fill: (cell, line) => fillMeasure(cell, line, "distance", 1) },
  { key: "seeds", title: "Mean over", number: true, fill: (cell, line) => cell.append(line.seeds) },
  { key: "classifier", title: "Classifier", varies: true, fill: (cell, line) => cell.append(line.classifier || "–") },
  { key: "space", title: "Distance in", varies: true, fill: (cell, line) => cell.append(line.space || "–") },
].filter(({ key, varies }) => (varies ? differ(key) : data.comparison.some((line) => known(line[key]))));

function methodText({ method, variant, others }) {
  return [el("span", { textContent: method }), variant ? el("div", { className: "muted", textContent: variant, title: others }) : null].filter(Boolean);
}

function fillMeasure(cell, line, measure, times) {
  const found = line[measure];
  if (!found) return cell.append("–");
  const spread = found.spread === null ? "" : ` ± ${(times * found.spread).toFixed(1)}`;
  const some = found.runs === line.runs.length ? "" : ` (of ${found.runs})`;
  cell.append(el(found.best ? "strong" : "span", { textContent: (times * found.mean).toFixed(1) }), spread + some);
}

function shownLines(rows) {
  const shown = new Set(rows.map((row) => row.id));
  return data.comparison.filter((line) => line.runs.some((id) => shown.has(id)));
}

function drawComparison(rows) {
  const lines = shownLines(rows);
  const table = byId("comparison");
  table.tHead.rows[0].replaceChildren(...COMPARED.map(({ title, number }) => el("th", { scope: "col", className: number ? "number" : "", textContent: title })));
  const bodies = unique(lines.map((line) => line.data)).map((name) => {
    const body = el("tbody", {}, el("tr", {}, el("th", { scope: "rowgroup", colSpan: COMPARED.length, textContent: name })));
    let before;
    for (const line of lines.filter((other) => other.data === name)) {
      const budget = epsilonText(line.epsilon);
      const made = el("tr", { className: before !== undefined && before !== budget ? "next" : "" });
      for (const { number, fill } of COMPARED) fill(made.appendChild(el("td", { className: number ? "number" : "" })), line);
      body.append(made);
      before = budget;
    }
    return body;
  });
  [...table.tBodies].forEach((body) => body.remove());
  table.append(...bodies);
  const left = rows.filter((row) => row.status === "finished" && row.private === false && row.epsilon !== Infinity && row.epsilon !== null).length;
  byId("comparison-note").textContent = (lines.length ? "Mean ± standard deviation over runs that differ in their seed alone. Bold: the best of the same data, judge and budget. " : "No finished run to compare. ")
    + (left ? `Left out, as their noise is known: ${left}.` : "");
}
