"use strict";
// The report, and what every part of the page needs: elements made of text, numbers for people, one tooltip.
const report = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

// An element; strings among the children become text, never markup.
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined).map((child) => child instanceof Node ? child : String(child)));
  return element;
}

function show(id, ...children) {
  byId(id).replaceChildren(...children.flat().filter((child) => child !== null));
}

function quantity(value, unit) {
  const prefixes = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
  const [scale, prefix] = prefixes.find(([scale]) => value >= scale) ?? [1, ""];
  const scaled = value / scale;
  const digits = scaled >= 100 || (scale === 1 && Number.isInteger(value)) ? 0 : scaled >= 10 ? 1 : 2;
  return `${scaled.toFixed(digits)} ${prefix}${unit}`.trim();
}

function time(seconds) {
  const units = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]];
  const [scale, unit] = units.find(([scale]) => seconds >= scale) ?? [1e-9, "ns"];
  const scaled = seconds / scale;
  return `${scaled.toFixed(scaled >= 100 ? 0 : scaled >= 10 ? 1 : 2)} ${unit}`;
}

const percent = (part) => `${(100 * part).toFixed(part < 0.0995 || (part > 0.99 && part < 1) ? 1 : 0)} %`;
const counted = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;
const sum = (list, of) => list.reduce((total, item) => total + of(item), 0);
const programColour = (name) => `var(--p${Math.max(0, report.programs.findIndex((program) => program.name === name)) % 7})`;

function table(columns, rows) {
  const cell = (tag, column, content, attributes) => make(tag, { class: column.kind ?? "", ...attributes }, content);
  const head = make("tr", {}, columns.map((column) => cell("th", column, column.title)));
  // On a narrow screen a row is a card, and its cells say themselves what they are.
  const body = rows.map((row) => make("tr", { class: row.class ?? "" }, columns.map((column) => cell("td", column, column.of(row), { "data-title": column.title }))));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, body));
}

// Bars with a name on the left and a value on the right; parts of a bar have colours.
function bars(id, rows) {
  const most = Math.max(...rows.map((row) => sum(row.parts, (part) => part.value)), Number.MIN_VALUE);
  show(id, rows.flatMap((row) => [
    make("div", { class: "name" }, row.name, row.remark ? make("small", {}, row.remark) : null),
    make("div", { class: "track" }, row.parts.map((part) => make("i", { style: `width:${100 * part.value / most}%;background:${part.colour}` }))),
    make("div", { class: "value" }, row.text),
  ]));
}

function options(id, entries, chosen) {
  const select = byId(id);
  select.replaceChildren(...entries.map(({ value, text }) => make("option", { value }, text)));
  if (chosen !== undefined && entries.some((entry) => String(entry.value) === String(chosen))) select.value = chosen;
  return select.value;
}

function facts(id, entries) {
  show(id, entries.map(([value, name]) => make("div", { class: "fact" }, make("b", {}, value), make("span", {}, name))));
}

// Shows text beside the pointer while it is over an element, or after a tap on it.
function tooltip(selection, text) {
  const tip = byId("tip");
  const place = (event) => {
    const left = Math.min(event.pageX + 12, window.scrollX + document.documentElement.clientWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(window.scrollX + 8, left)}px`;
    tip.style.top = `${event.pageY + 14}px`;
  };
  selection
    .on("pointerenter", (event, item) => { tip.textContent = text(item); tip.hidden = false; place(event); })
    .on("pointermove", place)
    .on("pointerleave", () => { tip.hidden = true; });
}
