"use strict";
// Elements and text. Whatever comes from a run goes into the page as text, never as markup.

const data = JSON.parse(document.getElementById("runs").textContent);
const byId = (id) => document.getElementById(id);
const runDetails = (row) => JSON.parse(byId(`run-${row.id}`).textContent);

function el(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const NUMBERS = ["epsilon", "delta", "accuracy", "spread", "distance", "method_seconds", "evaluation_seconds", "num_samples", "seed"];
for (const line of [...data.rows, ...data.comparison]) for (const key of NUMBERS) if (line[key] === "inf") line[key] = Infinity;
data.rows.forEach((row, id) => {
  row.id = id;
  row.isPrivate = row.private === null ? "" : row.private ? "yes" : "no";
  row.words = [row.method, row.variant, row.data, row.classifier, row.space, row.folder, row.status, row.problem].join(" ").toLowerCase();
});

const significant = (value, digits) => (value === Infinity ? "∞" : String(Number(value.toPrecision(digits))));
const epsilonText = (value) => significant(value, 3);
const deltaText = (value) => (value >= 0.001 || value === 0 ? significant(value, 3) : value.toExponential(1).replace("e-", "e−"));
const grouped = new Intl.NumberFormat("en");
const countText = (value) => grouped.format(value);
const runsText = (count) => `${count} ${count === 1 ? "run" : "runs"}`;
const fixed = (value) => (Number.isFinite(value) ? value.toFixed(1) : significant(value, 3));

function accuracyText(value, row) {
  const mean = (100 * value).toFixed(1);
  return row.classifiers > 1 ? `${mean} ± ${(100 * row.spread).toFixed(1)}` : mean;
}

function durationText(seconds) {
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = seconds / 60;
  return minutes < 90 ? `${minutes.toFixed(minutes < 10 ? 1 : 0)} min` : `${(minutes / 60).toFixed(1)} h`;
}

function valueText(value) {
  if (typeof value === "number") return Number.isInteger(value) ? countText(value) : significant(value, 5);
  if (value === "inf") return "∞";
  if (Array.isArray(value) && value.every((item) => typeof item === "string")) return value.join("; ");
  return value !== null && typeof value === "object" ? JSON.stringify(value) : String(value);
}

const unique = (values) => [...new Set(values)];
const known = (value) => value !== null && value !== undefined && value !== "";

function options(select, values, chosen, any) {
  const all = any === undefined ? [] : [el("option", { value: "", textContent: any })];
  select.replaceChildren(...all, ...values.map((value) => el("option", { value, textContent: value })));
  select.value = values.includes(chosen) ? chosen : any === undefined ? values[0] : "";
}
