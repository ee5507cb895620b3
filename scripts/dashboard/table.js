// The single runs: what their table shows, in which order, and which of them the filter lets through.

const COLUMNS = [
  { key: "method", title: "Method", minor: false },
  { key: "data", title: "Dataset", minor: false },
  { key: "epsilon", title: "ε spent", show: epsilonText, minor: false },
  { key: "delta", title: "δ", show: deltaText },
  { key: "accuracy", title: "Accuracy %", show: accuracyText, minor: false, hint: "± over the classifiers trained on its samples" },
  { key: "distance", title: "Distance", show: fixed, minor: false },
  { key: "classifier", title: "Classifier" },
  { key: "space", title: "Distance in", varies: true },
  { key: "method_seconds", title: "Time", show: durationText, hint: "Time of the method" },
  { key: "evaluation_seconds", title: "Evaluation", show: durationText, hint: "Time of the evaluation" },
  { key: "num_samples", title: "Samples", show: countText },
  { key: "seed", title: "Seed", show: String },
  { key: "isPrivate", title: "Private" },
  { key: "status", title: "Status" },
  { key: "folder", title: "Folder" },
];
// A column that says nothing is left out; where runs differ in `varies` it is needed to tell their numbers apart.
const columns = COLUMNS.filter(({ key, varies }) => unique(data.rows.map((row) => row[key]).filter(known)).length > (varies ? 1 : 0));
const sorting = { key: null, direction: 1 };

function compare(a, b) {
  const x = a[sorting.key], y = b[sorting.key];
  if (!known(x) || !known(y)) return known(y) - known(x); // what is not known comes last, either way
  const order = typeof x === "number" ? (x === y ? 0 : x < y ? -1 : 1) : String(x).localeCompare(String(y), "en", { numeric: true });
  return sorting.direction * order || a.id - b.id;
}

function cell(row, column) {
  const value = row[column.key];
  const text = !known(value) ? "–" : column.show ? column.show(value, row) : value;
  const classes = [column.show ? "number" : column.key, column.minor === false ? "" : "minor"];
  if (column.key === "isPrivate" || column.key === "status") classes.push(value);
  const made = el("td", { className: classes.join(" ") });
  if (column === columns[0]) {
    const open = el("button", { type: "button", className: "link", textContent: known(value) ? value : shortFolder(row) });
    made.append(open, row.variant ? el("div", { className: "muted", textContent: row.variant, title: row.others }) : "", flag(row));
  } else if (column.key === "folder") made.append(folderLink(row));
  else made.textContent = text;
  if (column.key === "status") made.title = row.problem;
  return made;
}

const shortFolder = (row) => row.folder.split("/").at(-1);

function folderLink(row) {
  const href = `./${row.folder.split("/").map(encodeURIComponent).join("/")}/`;
  return el("a", { href, textContent: shortFolder(row), title: row.folder, onclick: (event) => event.stopPropagation() });
}

// On a narrow screen, where the columns that say so are not shown.
const flag = (row) => el("div", { className: "flag", textContent: row.status !== "finished" ? row.status : row.private ? "" : "not private" });

function line(row) {
  if (!row.line) {
    row.line = el("tr", {}, ...columns.map((column) => cell(row, column)));
    row.line.addEventListener("click", () => openDetails(row));
  }
  return row.line;
}

function drawHead() {
  byId("table").tHead.rows[0].replaceChildren(
    ...columns.map((column) => {
      const button = el("button", { type: "button", textContent: column.title, title: column.hint ?? "" });
      const head = el("th", { scope: "col", className: `${column.show ? "number" : ""} ${column.minor === false ? "" : "minor"}` }, button);
      head.dataset.key = column.key;
      button.addEventListener("click", () => {
        sorting.direction = sorting.key === column.key ? -sorting.direction : 1;
        sorting.key = column.key;
        drawTable(shownRows());
      });
      return head;
    }),
  );
}

function drawTable(rows) {
  for (const head of byId("table").tHead.rows[0].cells) {
    head.setAttribute("aria-sort", head.dataset.key !== sorting.key ? "none" : sorting.direction > 0 ? "ascending" : "descending");
  }
  const sorted = sorting.key ? [...rows].sort(compare) : rows;
  byId("table").tBodies[0].replaceChildren(...sorted.map(line));
  byId("none").hidden = rows.length > 0;
  byId("count").textContent = rows.length === data.rows.length ? runsText(rows.length) : `${rows.length} of ${runsText(data.rows.length)}`;
}

function shownRows() {
  const words = byId("search").value.toLowerCase().split(/\s+/);
  const equal = { method: byId("method").value, dataset: byId("dataset").value, isPrivate: byId("private").value, status: byId("status").value };
  const keys = Object.keys(equal).filter((key) => equal[key]);
  return data.rows.filter((row) => keys.every((key) => row[key] === equal[key]) && words.every((word) => row.words.includes(word)));
}
