// The page's sections, filled from the report.
const decode = report.programs.find((program) => program.name.startsWith("decode"));
const prefill = report.programs.findLast((program) => program.name.startsWith("prefill"));
const machineOf = (program) => report.machines.find((machine) => machine.name === program.machine);

function header() {
  const { model, machines } = report;
  document.title = `${report.artifact} - llmc explain`;
  byId("title").textContent = report.artifact;
  byId("subtitle").textContent = `${model.architecture}, ${model.dtype}, ${model.layers} layers, hidden ${model.hidden}, vocabulary ${model.vocab}; priced for ${machines.map((machine) => `${machine.name} (${machine.source})`).join(" and ")}; llmc ${report.compiler_version}`;
  show("notes", report.notes.map((note) => make("li", {}, note)));
  const entries = [[quantity(model.parameters, ""), "parameters"]];
  if (report.bytes !== null) entries.push([quantity(report.bytes, "B"), "artifact"]);
  else if (report.weights.length) entries.push([quantity(sum(report.weights, (group) => group.bytes), "B"), "of weights it would have"]);
  if (decode) entries.push([time(decode.seconds), `predicted step of ${decode.name}`], [percent(decode.floor_bytes / decode.bytes), `of its traffic is unavoidable (${quantity(decode.bytes, "B")})`]);
  if (prefill) entries.push([`${quantity(prefill.sizes.tokens / prefill.seconds, "")}/s`, `tokens of ${prefill.name}, predicted`]);
  entries.push([time(report.timing.total_seconds), "all passes, verified"]);
  facts("facts", entries);
}

// ---- path

// At first the phase in which forms are chosen, and the program whose layer it changed most.
const rewritten = report.phases.findLast((phase) => phase.name === "rewritten");
const chosenNodes = (view) => report.graphs[view.graph].nodes.filter((node) => node.origin === "eqsat").length;
const mostChanged = rewritten?.views.filter((view) => view.function.startsWith("layer")).reduce((best, view) => best && chosenNodes(best) >= chosenNodes(view) ? best : view, undefined);
const path = { phase: rewritten ? "rewritten" : report.phases.at(-1).name, program: mostChanged?.program ?? decode?.name ?? "", function: mostChanged?.function ?? "layer", colour: "kind" };
const kinds = { dot: "product", attend: "attention", reduce: "reduction or rows", map: "elementwise", gather: "gather", cache: "cache write", move: "rearrangement", weight: "weight", input: "input", constant: "constant" };
const passesOf = new Map(report.phases.flatMap((phase) => phase.passes.map((pass) => [pass.name, pass])));
const origins = ["definition", ...passesOf.keys()];
const originColour = (origin) => origin === "definition" ? "var(--map)" : `var(--p${(origins.indexOf(origin) - 1) % 7})`;

function originText(origin) {
  const pass = passesOf.get(origin);
  return origin === "definition" ? "the model's definition" : `pass ${origin}${pass ? `: ${pass.description}` : ""}`;
}

function costColour(nodes) {
  const most = Math.max(...nodes.map((node) => node.price?.seconds ?? 0), 1e-12);
  return (node) => {
    const heat = node.price ? Math.max(0.08, 1 + Math.log10(node.price.seconds / most) / 4) : 0;
    return `color-mix(in srgb, var(--accent) ${Math.round(100 * Math.max(0, heat))}%, var(--shade))`;
  };
}

function showPhases() {
  show("phases", report.phases.map((phase) => {
    const size = phase.passes.at(-1)?.after ?? report.phases[1]?.passes[0]?.before;
    const count = size ? `${size.nodes} nodes${size.regions ? `, ${size.regions} ${phase.name === "planned" ? "kernels" : "regions"}` : ""}` : "";
    return make("li", {}, make("button", { "aria-pressed": String(phase.name === path.phase), onclick: () => { path.phase = phase.name; showPath(); } }, phase.name, make("small", {}, count)));
  }));
}

function showPath() {
  showPhases();
  const [strip, pressed] = [byId("phases"), byId("phases").querySelector("[aria-pressed=true]")];
  strip.scrollLeft = pressed.offsetLeft - (strip.clientWidth - pressed.offsetWidth) / 2;
  const phase = report.phases.find((phase) => phase.name === path.phase);
  const programs = [...new Set(phase.views.map((view) => view.program))];
  const program = options("path-program", programs.map((name) => ({ value: name ?? "", text: name ?? "all" })), path.program);
  const views = phase.views.filter((view) => (view.program ?? "") === program);
  const name = options("path-function", views.map((view) => ({ value: view.function, text: view.calls > 1 ? `${view.function} × ${view.calls}` : view.function })), path.function);
  const view = views.find((view) => view.function === name);
  const fresh = new Set(phase.passes.map((pass) => pass.name));
  if (view) {
    const graph = report.graphs[view.graph];
    const colours = { kind: (node) => `var(--${node.kind})`, cost: costColour(graph.nodes), origin: (node) => originColour(node.origin) };
    const choose = drawGraph(view.graph, { fresh: (node) => phase.name !== "planned" && fresh.has(node.origin), colour: colours[path.colour], chosen: (number, choose) => showNode(graph, number, choose) });
    showOverview(graph, view, choose);
    showLegend(graph, phase);
  }
  byId("changes-title").textContent = phase.passes.length ? `What the passes of this phase changed, in all programs together` : "The module as the model's definition wrote it";
  const change = (of) => (pass) => pass.before[of] === pass.after[of] ? String(pass.after[of]) : `${pass.before[of]} → ${pass.after[of]}`;
  show("changes", phase.passes.length === 0 ? [] : table([
    { title: "pass", kind: "name", of: (pass) => pass.name }, { title: "", kind: "wide", of: (pass) => pass.description },
    { title: "nodes", kind: "number", of: change("nodes") }, { title: "new nodes", kind: "number", of: (pass) => pass.new_nodes ?? "" },
    { title: "dots", kind: "number", of: change("dots") }, { title: "regions", kind: "number", of: change("regions") },
  ], phase.passes));
}

function showLegend(graph, phase) {
  const swatch = (colour, text) => make("span", {}, make("i", { class: "swatch", style: `background:${colour}` }), text);
  const used = new Set(graph.nodes.map((node) => node.kind));
  const made = new Set(graph.nodes.map((node) => node.origin));
  const entries = {
    kind: Object.entries(kinds).filter(([kind]) => used.has(kind)).map(([kind, text]) => swatch(`var(--${kind})`, text)),
    cost: [swatch("var(--shade)", "free"), swatch("var(--accent)", "dearest, logarithmic over four decades")],
    origin: origins.filter((origin) => made.has(origin)).map((origin) => swatch(originColour(origin), origin)),
  }[path.colour];
  const marked = phase.passes.length && phase.name !== "planned" && graph.nodes.some((node) => phase.passes.some((pass) => pass.name === node.origin));
  show("legend", entries, marked ? swatch("var(--accent-back);outline:2px solid var(--accent)", "made in this phase") : null, make("span", {}, "drag to move; pinch, or ctrl and wheel, to zoom"));
}

// What a node costs; a launch costs what its kernel does.
function priceOf(node) {
  if (node.origin !== "plan") return node.price;
  const program = report.programs.find((program) => program.name === byId("path-program").value);
  return program?.kernels.find((kernel) => kernel.name === node.name)?.price ?? null;
}

function showOverview(graph, view, choose) {
  const seconds = sum(graph.nodes, (node) => priceOf(node)?.seconds ?? 0);
  const dear = graph.nodes.map((node, number) => ({ number, price: priceOf(node) })).filter((item) => item.price).sort((a, b) => b.price.seconds - a.price.seconds).slice(0, 6);
  const link = ({ number }) => make("button", { class: "node", onclick: () => choose(number) }, nodeName(graph, number));
  show("detail", make("h4", {}, `@${view.function}`),
    make("p", { class: "quiet" }, `${graph.nodes.length} ${graph.nodes[0]?.origin === "plan" ? "launches" : "nodes"}${graph.regions.length ? ` in ${graph.regions.length} regions` : ""}${view.calls > 1 ? `, called ${view.calls} times per step` : ""}`),
    dear.length ? make("p", {}, `Predicted: ${time(seconds)} per call. Dearest:`) : make("p", {}, "Select a node."),
    dear.length ? table([{ title: graph.nodes[0]?.origin === "plan" ? "launch" : "node", of: link }, { title: "price, bound by", kind: "number", of: (item) => make("span", {}, time(item.price.seconds), make("small", { class: "quiet" }, item.price.bound)) }], dear) : null);
}

function showNode(graph, number, choose) {
  const node = graph.nodes[number];
  const link = (index) => make("button", { class: "node", onclick: () => choose(index) }, graph.nodes[index].name === nodeName(graph, index) ? graph.nodes[index].name : `${graph.nodes[index].name} ${nodeName(graph, index)}`.slice(0, 40));
  const from = graph.edges.filter((edge) => edge[1] === number).map((edge) => edge[0]);
  const to = graph.edges.filter((edge) => edge[0] === number).map((edge) => edge[1]);
  const rows = [["computes", make("code", {}, node.text)], [node.origin === "plan" ? "waits" : "type", make("code", {}, node.ty)], ["is a", kinds[node.kind]], ["comes from", originText(node.origin)]];
  if (node.region !== null) rows.push(["kernel", make("code", {}, graph.regions[node.region].name)]);
  const price = priceOf(node);
  if (price) rows.push(["price", `${time(price.seconds)}, bound by ${price.bound}`], ["traffic", quantity(price.bytes, "B")], ["work", quantity(price.flops, "FLOP")]);
  else rows.push(["price", path.phase === "imported" || path.phase === "canonical" ? "known once there are programs with sizes" : "free: part of what uses it"]);
  if (from.length) rows.push(["of", make("span", {}, from.map(link))]);
  if (to.length) rows.push(["used by", make("span", {}, to.map(link))]);
  if (node.result) rows.push(["", "a result of the function"]);
  show("detail", make("h4", {}, node.name), make("dl", {}, rows.flatMap(([term, content]) => [make("dt", {}, term), make("dd", {}, content)])));
}

// ---- equality saturation

function showSaturation() {
  if (report.saturation.length === 0) {
    show("saturation", make("p", {}, "Equality saturation did not run for this artifact."));
  } else {
    const most = Math.max(...report.saturation.map((item) => item.nodes));
    show("saturation", report.saturation.filter((item) => Object.keys(item.fired).length).map((item) => make("div", { class: "egraph" },
      make("h4", {}, `@${item.function}`),
      make("div", { class: "growth" }, make("div", { class: "track" }, make("i", { style: `width:${100 * item.nodes_before / most}%;background:var(--map)` }), make("i", { style: `width:${100 * (item.nodes - item.nodes_before) / most}%;background:var(--accent)` })),
        make("span", {}, `${item.nodes_before} → ${item.nodes} nodes in ${item.classes} classes`)),
      make("p", { class: "quiet" }, `${item.stop} after ${item.iterations} iterations; for ${item.forms.map((form) => form.program).join(", ")}`))),
      make("p", { class: "quiet" }, `No rule applies to ${[...new Set(report.saturation.filter((item) => !Object.keys(item.fired).length).map((item) => item.forms.length === report.programs.length ? `@${item.function}` : `@${item.function} of ${item.forms.map((form) => form.program).join(", ")}`))].join("; ") || "nothing"}.`));
  }
  const count = (rule) => sum(report.saturation, (item) => item.fired[rule.name] ?? 0);
  const rules = report.rules.map((rule) => ({ ...rule, count: count(rule), class: count(rule) ? "" : "unused" })).sort((a, b) => b.count - a.count);
  show("rules", table([
    { title: "rule", kind: "name", of: (rule) => rule.name }, { title: "family", of: (rule) => rule.family },
    { title: "fired", kind: "number", of: (rule) => rule.count }, { title: "equation", kind: "wide", of: (rule) => make("code", {}, rule.equation) }, { title: "numbers", of: (rule) => rule.numerics },
  ], rules));
}

// ---- forms

function formsSection() {
  const saved = (item) => Math.max(...item.forms.map((form) => 1 - form.seconds / form.seconds_before));
  const interesting = report.saturation.filter((item) => item.forms.some((form) => form.changed)).sort((a, b) => saved(b) - saved(a));
  if (interesting.length === 0) {
    byId("forms").hidden = true;
    return;
  }
  options("forms-function", interesting.map((item, index) => ({ value: index, text: `@${item.function}` })));
  const specialized = report.phases.find((phase) => phase.name === "specialized");
  const original = (item, form) => specialized?.views.find((view) => view.program === form.program && view.function === item.function);
  const fill = () => {
    const item = interesting[Number(byId("forms-function").value)];
    const entries = item.forms.flatMap((form) => [
      { text: `${form.program}: as it came`, graph: original(item, form)?.graph, value: `before ${form.program}` },
      { text: `${form.program}: chosen`, graph: form.graph, value: `after ${form.program}` },
    ]).filter((entry) => entry.graph !== undefined);
    const lastChanged = item.forms.findLast((form) => form.changed);
    const side = (id, chosen) => {
      const pick = () => showForm(`${id}-code`, report.graphs[entries.find((entry) => entry.value === byId(id).value).graph]);
      options(id, entries, chosen);
      byId(id).onchange = pick;
      pick();
    };
    side("forms-left", `before ${lastChanged.program}`);
    side("forms-right", `after ${lastChanged.program}`);
    show("forms-prices", table([
      { title: "program", kind: "name", of: (form) => form.program }, { title: "as it came", kind: "number", of: (form) => time(form.seconds_before) },
      { title: "chosen", kind: "number", of: (form) => time(form.seconds) }, { title: "saved", kind: "number", of: (form) => form.changed ? percent(1 - form.seconds / form.seconds_before) : "unchanged" },
    ], item.forms));
  };
  byId("forms-function").onchange = fill;
  fill();
}

function showForm(id, graph) {
  const total = sum(graph.nodes, (node) => node.price?.seconds ?? 0);
  show(id, graph.nodes.filter((node) => node.text !== "parameter").map((node) => {
    const cost = node.price && node.price.seconds > total / 2000 ? `${time(node.price.seconds)} ${node.price.bound}` : "";
    const heavy = node.price && node.price.seconds > total / 20;
    return make("div", { class: `row${node.origin === "eqsat" ? " new" : ""}`, title: node.ty }, make("span", { class: "what" }, `${node.name} = ${node.text}`), make("span", { class: `cost${heavy ? " heavy" : ""}` }, cost));
  }));
}

// ---- kernels

const shown = new Set([decode, prefill].filter(Boolean).map((program) => program.name));

function rooflineSection() {
  let machine = machineOf(decode ?? prefill ?? report.programs[0]);
  const draw = () => {
    byId("roofline-lead").textContent = `Each kernel at the typical sizes of its program, as the cost model sees it on ${machine.name}. Left of the ridge at ${(Math.max(machine.matrix_flops.bf16, machine.matrix_flops.f32) / machine.memory_bandwidth).toFixed(1)} operations per byte memory is the limit, right of it arithmetic. Starting a kernel takes ${time(machine.launch_seconds)}, which keeps small ones below the roof; the larger a point, the more of its program's step it takes.`;
    show("roofline-programs", report.programs.map((program) => make("button", {
      "aria-pressed": String(shown.has(program.name)),
      onclick: () => {
        // There is one roof: a program for another machine takes the others' place.
        if (machineOf(program) !== machine) { shown.clear(); machine = machineOf(program); }
        shown.has(program.name) ? shown.delete(program.name) : shown.add(program.name);
        draw();
      },
    }, make("i", { class: "swatch", style: `background:${programColour(program.name)}` }), program.name)));
    drawRoofline(shown, machine);
  };
  draw();
  return draw;
}

// The way in which a kernel divides its work, and how much longer the other ways would take.
function dividedBy(kernel) {
  const chosen = kernel.ways.find((way) => way.chosen);
  if (!chosen) return "";
  const others = kernel.ways.filter((way) => !way.chosen).map((way) => {
    const more = 100 * (way.seconds / chosen.seconds - 1);
    return Math.abs(more) < 0.5 ? `${way.name} takes the same` : `${way.name} ${more > 0 ? "+" : "\u2212"}${Math.abs(more).toFixed(0)} %`;
  });
  return make("span", {}, make("b", {}, chosen.name), others.length ? make("span", { class: "quiet" }, `  ${others.join(", ")}`) : null);
}

function kernelsSection() {
  const entries = report.programs.map((program) => ({ value: program.name, text: `${program.name}: ${program.takes}` }));
  options("kernels-program", entries, decode?.name);
  const fill = () => {
    const program = report.programs.find((program) => program.name === byId("kernels-program").value);
    const { sizes } = program;
    const onGpus = report.gpus.map((gpu) => [gpu, gpu.programs.find((other) => other.name === program.name)]).filter(([, found]) => found);
    facts("kernels-step", [
      [time(program.seconds), `predicted: ${counted(sizes.tokens, "token")} of ${counted(sizes.sequences, "sequence")}, context ${sizes.context}`],
      [`${program.launches} / ${program.barriers}`, "launches / barriers"],
      [quantity(program.bytes, "B"), "moved"], [quantity(program.floor_bytes, "B"), "floor: weights once, cache"],
      [quantity(program.flops, "FLOP"), "computed"],
      ...onGpus.flatMap(([gpu, { launches, brackets }]) => [
        [launches, `launches on ${gpu.name}`],
        ...brackets.map((bracket) => [`${time(bracket.low_seconds)} to ${time(bracket.high_seconds)}`, `${gpu.name} on ${bracket.machine}: an estimate, never run`]),
      ]),
    ]);
    const grids = (found, kernel) => (found.kernels.find((other) => other.name === kernel.name)?.grids ?? [])
      .map((grid) => `${grid.symbol} [${grid.blocks}] × ${grid.threads}, ${quantity(grid.shared_bytes, "B")} shared`).join("; ");
    const total = (kernel) => kernel.launches * kernel.price.seconds;
    const kernels = [...program.kernels].sort((a, b) => total(b) - total(a));
    show("kernels-table", table([
      { title: "kernel", kind: "name", of: (kernel) => kernel.name }, { title: "shape", of: (kernel) => kernel.anchor },
      { title: "launches", kind: "number", of: (kernel) => kernel.launches }, { title: "each", kind: "number", of: (kernel) => time(kernel.price.seconds) },
      { title: "share", kind: "number", of: (kernel) => percent(total(kernel) / program.seconds) },
      { title: "traffic", kind: "number", of: (kernel) => quantity(kernel.price.bytes, "B") }, { title: "work", kind: "number", of: (kernel) => quantity(kernel.price.flops, "FLOP") },
      { title: "per byte", kind: "number", of: (kernel) => kernel.intensity.toFixed(2) }, { title: "bound by", of: (kernel) => kernel.price.bound },
      { title: "way, and the others", kind: "wide", of: dividedBy },
      ...report.targets.map((target) => ({ title: `code, ${target.name}`, kind: "number", of: (kernel) => kernel.code_bytes[target.name] ? quantity(kernel.code_bytes[target.name], "B") : "inlined" })),
      ...onGpus.map(([gpu, found]) => ({ title: `grids, ${gpu.name}`, of: (kernel) => grids(found, kernel) })),
    ], kernels));
  };
  byId("kernels-program").onchange = fill;
  fill();
}

// ---- memory and time

function weightsSection() {
  const bytes = sum(report.weights, (group) => group.bytes);
  const layouts = { panels: "var(--dot)", compressed: "var(--attend)", rounded: "var(--reduce)", "row-major": "var(--weight)" };
  byId("weights-lead").textContent = `${sum(report.weights, (group) => group.count)} weights, ${quantity(bytes, "B")}, one packed copy each for all programs: ${Object.keys(layouts).map((layout) => [layout, sum(report.weights.filter((group) => group.layout === layout), (group) => group.bytes)]).filter(([, bytes]) => bytes > 0).map(([layout, bytes]) => `${quantity(bytes, "B")} in ${layout}`).join(", ")}; their elements alone are ${quantity(sum(report.weights, (group) => group.element_bytes), "B")}.`;
  bars("weights", report.weights.map((group) => ({
    name: group.name, remark: `${group.count} × ${group.dtype}[${group.shape.join(", ")}] ${group.layout}`, text: quantity(group.bytes, "B"),
    parts: [{ value: group.bytes, colour: layouts[group.layout] }],
  })));
}

function arenaSection() {
  options("arena-program", report.programs.map((program) => ({ value: program.name, text: `${program.name}: ${quantity(program.arena.bytes, "B")}` })), prefill?.name);
  const draw = () => drawArena(report.programs.find((program) => program.name === byId("arena-program").value));
  byId("arena-program").onchange = draw;
  draw();
  return draw;
}

function timeSection() {
  byId("time-lead").textContent = `The passes, run again for this page in ${time(report.timing.total_seconds)}; the lighter part is verification behind each pass, which compilation does too.`;
  bars("times", report.timing.passes.map((pass) => ({
    name: pass.name, remark: pass.phase, text: time(pass.seconds),
    parts: [{ value: pass.seconds, colour: "var(--dot)" }, { value: pass.instruments_seconds, colour: "var(--move)" }],
  })));
}

header();
for (const [id, of] of [["path-program", "program"], ["path-function", "function"], ["path-colour", "colour"]]) {
  byId(id).addEventListener("change", (event) => { path[of] = event.target.value; showPath(); });
}
showPath();
showSaturation();
formsSection();
const charts = [];
if (report.programs.length) {
  charts.push(rooflineSection());
  kernelsSection();
  charts.push(arenaSection());
}
weightsSection();
timeSection();
let width = window.innerWidth;
window.addEventListener("resize", () => {
  if (window.innerWidth === width) return;
  width = window.innerWidth;
  showPath();
  charts.forEach((draw) => draw());
});
