// A function's graph: laid out in layers, regions around their nodes, moved and zoomed with the pointer.
const LABEL_LENGTH = 30;
// Room for a region's name above its nodes.
const HEADING = 14;

// Single constants are written into the nodes that use them: as nodes they would tie everything together.
const folded = (node) => node.text.startsWith("const ") && !node.text.startsWith("const [") && !node.result;

const shorten = (text) => text.length > LABEL_LENGTH ? `${text.slice(0, 12)}…${text.slice(text.length - LABEL_LENGTH + 13)}` : text;

function label(node) {
  if (node.kind === "input") return node.name;
  if (node.kind === "weight") return node.text.replace(/^weight "?|"$/g, "");
  if (node.text.startsWith("const ")) return node.text.slice(6);
  if (node.origin === "plan") return node.name;
  const word = node.text.split(" ")[0];
  const attributes = node.text.match(/\{(.*)\}$/);
  return attributes && ["reduce", "kv_write", "slice"].includes(word)
    ? `${word} ${attributes[1].replace(/^.*(op|part|range) = ([^,]*).*$/, "$2")}` : word;
}

// The weights that a node is made of, by the names of their modules; null if anything else goes into it.
function weightsOf(graph, index) {
  const node = graph.nodes[index];
  if (node.kind === "weight") return [node.text.replace(/^weight "?\/?|"$/g, "").replace(/\.weight$/, "").split(".").at(-1)];
  const operands = graph.edges.filter(([, to]) => to === index).map(([from]) => weightsOf(graph, from));
  return ["move", "map", "dot"].includes(node.kind) && operands.length && operands.every((names) => names) ? operands.flat() : null;
}

// A product is called by its weights, and by how its kernel divides the work; so is attention.
function nodeName(graph, index) {
  const node = graph.nodes[index];
  const by = node.text.match(/by = (\w+)/)?.[1];
  if (node.origin === "plan") return label(node);
  if (node.kind === "attend") return by ? `attend by ${by}` : "attend";
  if (node.kind !== "dot") return label(node);
  const operand = graph.edges.filter(([, to]) => to === index).at(-1);
  const weights = operand ? weightsOf(graph, operand[0]) : null;
  return [by ?? "dot", weights ? [...new Set(weights)].join("+") : ""].join(" ").trim();
}

// Labels with the constants among the operands.
function labels(graph) {
  const texts = graph.nodes.map((node, index) => nodeName(graph, index));
  for (const [from, to] of graph.edges) {
    if (folded(graph.nodes[from])) texts[to] += ` ${Number(Number(graph.nodes[from].text.slice(6)).toPrecision(4))}`;
  }
  return texts.map(shorten);
}

// Where a weight or parameter is drawn: beside its users if they are in one region.
function onlyRegion(graph, index) {
  const regions = new Set(graph.edges.filter(([from]) => from === index).map(([, to]) => graph.nodes[to].region));
  return regions.size === 1 ? [...regions][0] : null;
}

function layout(graph) {
  const drawing = new vendor.dagre.graphlib.Graph({ compound: true });
  drawing.setGraph({ rankdir: "TB", nodesep: 16, ranksep: graph.regions.length ? 34 : 26, marginx: 16, marginy: 16 });
  drawing.setDefaultEdgeLabel(() => ({}));
  graph.regions.forEach((region, index) => drawing.setNode(`r${index}`, {}));
  const texts = labels(graph);
  graph.nodes.forEach((node, index) => {
    if (folded(node)) return;
    const characters = Math.max(texts[index].length * 7.4, shorten(node.ty).length * 6.2);
    drawing.setNode(String(index), { width: characters + 22, height: 38 });
    const region = node.region ?? onlyRegion(graph, index);
    if (region !== null) drawing.setParent(String(index), `r${region}`);
  });
  graph.edges.filter(([from]) => !folded(graph.nodes[from])).forEach(([from, to]) => drawing.setEdge(String(from), String(to)));
  vendor.dagre.layout(drawing);
  return drawing;
}

const layouts = new Map();

// Draws a graph; `chosen` hears the index of a node that is selected.
function drawGraph(index, { fresh, colour, chosen }) {
  const graph = report.graphs[index];
  if (!layouts.has(index)) layouts.set(index, layout(graph));
  const drawing = layouts.get(index);
  const svg = vendor.select("#graph");
  svg.selectAll("*").remove();
  const defs = svg.append("defs");
  defs.append("marker").attr("id", "arrow").attr("viewBox", "0 0 8 8").attr("refX", 7).attr("refY", 4).attr("markerWidth", 6).attr("markerHeight", 6).attr("orient", "auto")
    .append("path").attr("d", "M0,0L8,4L0,8z").attr("fill", "var(--quiet)");
  const world = svg.append("g");

  const regions = world.selectAll(".region").data(graph.regions).join("g").attr("class", "region");
  const box = (item, number) => drawing.node(`r${number}`);
  regions.append("rect").attr("x", (item, n) => box(item, n).x - box(item, n).width / 2).attr("y", (item, n) => box(item, n).y - box(item, n).height / 2 - HEADING)
    .attr("width", (item, n) => box(item, n).width).attr("height", (item, n) => box(item, n).height + HEADING);
  regions.append("text").attr("x", (item, n) => box(item, n).x - box(item, n).width / 2 + 10).attr("y", (item, n) => box(item, n).y - box(item, n).height / 2 + 16 - HEADING)
    .text((item) => `${item.name}: ${item.anchor}`);

  const path = vendor.line().x((point) => point.x).y((point) => point.y).curve(vendor.curveBasis);
  const edges = world.selectAll(".edge").data(graph.edges.filter(([from]) => !folded(graph.nodes[from]))).join("path").attr("class", "edge").attr("marker-end", "url(#arrow)")
    .attr("d", ([from, to]) => path(drawing.edge(String(from), String(to)).points));

  const texts = labels(graph);
  const drawn = graph.nodes.map((node, number) => ({ node, number, place: drawing.node(String(number)) })).filter((item) => item.place);
  const nodes = world.selectAll(".node").data(drawn).join("g")
    .attr("class", ({ node }) => `node${fresh(node) ? " new" : ""}`)
    .attr("transform", ({ place }) => `translate(${place.x},${place.y})`);
  const width = ({ place }) => place.width;
  nodes.append("rect").attr("class", "box").attr("rx", 7).attr("x", (item) => -width(item) / 2).attr("y", -19).attr("width", width).attr("height", 38);
  nodes.append("rect").attr("class", "tag").attr("rx", 3).attr("x", (item) => -width(item) / 2 + 4).attr("y", -14).attr("width", 5).attr("height", 28).style("fill", ({ node }) => colour(node)).style("stroke", "none");
  nodes.append("text").attr("class", "op").attr("x", (item) => -width(item) / 2 + 15).attr("y", -3).text(({ number }) => texts[number]);
  nodes.append("text").attr("class", "ty").attr("x", (item) => -width(item) / 2 + 15).attr("y", 11).text(({ node }) => shorten(node.ty));

  const choose = (number) => {
    nodes.classed("chosen", (item) => item.number === number);
    edges.classed("chosen", ([from, to]) => from === number || to === number);
    const { place } = drawn.find((item) => item.number === number) ?? {};
    const [px, py] = place ? transform.apply([place.x, place.y]) : [wide / 2, high / 2];
    if (px < 20 || px > wide - 20 || py < 20 || py > high - 20) at(transform.k, place.x, place.y);
    chosen(number, choose);
  };
  nodes.on("click", (event, item) => choose(item.number));

  const size = drawing.graph();
  let transform = vendor.zoomIdentity;
  const zoom = vendor.zoom().scaleExtent([0.03, 4])
    .filter((event) => event.type !== "wheel" || event.ctrlKey || event.metaKey)
    .on("zoom", (event) => {
      transform = event.transform;
      world.attr("transform", transform);
    });
  svg.call(zoom);
  const [wide, high] = [svg.node().clientWidth || 800, svg.node().clientHeight || 500];
  const at = (scale, x, y) => svg.call(zoom.transform, vendor.zoomIdentity.translate(wide / 2 - x * scale, high / 2 - y * scale).scale(scale));
  // The whole width from the top if that is readable; else what the phase made, or the middle.
  const scale = Math.min(1.1, Math.max(0.72, wide / size.width));
  const focus = drawn.find(({ node }) => fresh(node) && node.kind === "dot") ?? drawn.find(({ node }) => fresh(node));
  const top = Math.min(size.height / 2, high / 2 / scale - 4);
  const first = graph.regions.length ? drawing.node("r0").x : drawn[0].place.x;
  if (graph.regions.length || !focus) at(scale, wide > size.width * scale ? size.width / 2 : first, top);
  else at(scale, wide > size.width * scale ? size.width / 2 : focus.place.x, Math.max(top, Math.min(focus.place.y, size.height - top)));
  byId("zoom-in").onclick = () => svg.call(zoom.scaleBy, 1.4);
  byId("zoom-out").onclick = () => svg.call(zoom.scaleBy, 1 / 1.4);
  byId("zoom-fit").onclick = () => at(Math.min(wide / size.width, high / size.height) * 0.97, size.width / 2, size.height / 2);
  return choose;
}
