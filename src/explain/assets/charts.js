// The charts: kernels under the machine's roof, and the arena over a step.

// Ticks of a logarithmic axis at powers of ten, with prefixes.
function logAxis(make, scale) {
  const [low, high] = scale.domain().map(Math.log10);
  const powers = [];
  for (let power = Math.ceil(low); power <= Math.floor(high); power += 1) powers.push(10 ** power);
  return make(scale).tickValues(powers).tickFormat((value) => value >= 1 ? quantity(value, "").replace(".00", "").replace(".0 ", " ") : String(value));
}

function drawRoofline(shown) {
  const svg = vendor.select("#roof");
  svg.selectAll("*").remove();
  const [wide, high] = [svg.node().clientWidth, svg.node().clientHeight];
  const edge = { left: 52, right: 16, top: 30, bottom: 44 };
  const points = report.programs.filter((program) => shown.has(program.name)).flatMap((program) =>
    program.kernels.filter((kernel) => kernel.launches > 0 && kernel.intensity > 0).map((kernel) => ({
      program, kernel, x: kernel.intensity, y: kernel.unit_flops / kernel.price.seconds,
      share: kernel.launches * kernel.price.seconds / program.seconds,
    })));
  const { memory_bandwidth: bandwidth, matrix_flops: matrix, vector_flops: vector } = report.machine;
  const top = Math.max(matrix.bf16, matrix.f32);
  const ridge = top / bandwidth;
  const x = vendor.scaleLog().domain([Math.min(0.1, ...points.map((point) => point.x)) / 1.6, Math.max(10 * ridge, ...points.map((point) => point.x)) * 1.6]).range([edge.left, wide - edge.right]);
  const y = vendor.scaleLog().domain([Math.min(bandwidth * 0.05, ...points.map((point) => point.y)) / 2, top * 2.2]).range([high - edge.bottom, edge.top]);
  const roofAt = (intensity, peak) => Math.min(peak, intensity * bandwidth);

  const horizontal = logAxis(vendor.axisBottom, x);
  const vertical = logAxis(vendor.axisLeft, y);
  svg.append("g").selectAll("line").data(horizontal.tickValues()).join("line").attr("class", "grid").attr("x1", x).attr("x2", x).attr("y1", edge.top).attr("y2", high - edge.bottom);
  svg.append("g").selectAll("line").data(vertical.tickValues()).join("line").attr("class", "grid").attr("y1", y).attr("y2", y).attr("x1", edge.left).attr("x2", wide - edge.right);
  svg.append("g").attr("transform", `translate(0,${high - edge.bottom})`).call(horizontal);
  svg.append("g").attr("transform", `translate(${edge.left},0)`).call(vertical);
  svg.append("text").attr("class", "title").attr("x", wide - edge.right).attr("y", high - 8).attr("text-anchor", "end").text("operations per byte of memory traffic");

  svg.append("text").attr("class", "title").attr("x", 2).attr("y", 16).text("operations per second");

  const [first, last] = x.domain();
  const roof = (peak) => vendor.line()([first, peak / bandwidth, last].map((intensity) => [x(intensity), y(roofAt(intensity, peak))]));
  const ceilings = [...new Set([matrix.bf16, matrix.f32])].filter((peak) => peak !== top).concat(vector);
  svg.selectAll(".ceiling").data(ceilings).join("path").attr("class", "ceiling").attr("d", roof);
  svg.append("path").attr("class", "roof").attr("d", roof(top));
  const middle = first * (ridge / first) ** 0.22;
  const slope = Math.atan2(y(roofAt(middle * 2, top)) - y(roofAt(middle, top)), x(middle * 2) - x(middle)) * 180 / Math.PI;
  svg.append("text").attr("transform", `translate(${x(middle)},${y(roofAt(middle, top)) - 8}) rotate(${slope})`).attr("text-anchor", "middle").text(`memory ${quantity(bandwidth, "B/s")}`);
  svg.append("text").attr("x", wide - edge.right - 4).attr("y", y(top) - 24).attr("text-anchor", "end").attr("class", "note").text(`matrix products ${quantity(top, "FLOP/s")}`);
  svg.append("text").attr("x", wide - edge.right - 4).attr("y", y(vector) + 15).attr("text-anchor", "end").attr("class", "note").text(`elementwise ${quantity(vector, "FLOP/s")}`);

  points.sort((a, b) => b.share - a.share);
  const radius = (point) => 3.5 + 17 * Math.sqrt(point.share);
  const marks = svg.append("g").selectAll("circle").data(points).join("circle").attr("class", "point").attr("cx", (point) => x(point.x)).attr("cy", (point) => y(point.y)).attr("r", radius).style("fill", (point) => programColour(point.program.name));
  tooltip(marks, (point) => `${point.kernel.name} (${point.program.name})
${percent(point.share)} of the step, ${point.kernel.launches} launches of ${time(point.kernel.price.seconds)}
${quantity(point.kernel.price.bytes, "B")}, ${quantity(point.kernel.price.flops, "FLOP")}: ${point.x.toFixed(2)} per byte
bound by ${point.kernel.price.bound}, ${percent(point.y / roofAt(point.x, point.kernel.peak))} of its roof`);
  // Names of what matters, where there is room for them.
  const named = points.filter((point) => point.share > 0.03);
  const disc = (point) => ({ left: x(point.x) - radius(point), right: x(point.x) + radius(point), top: y(point.y) - radius(point), bottom: y(point.y) + radius(point) });
  const taken = named.map(disc);
  svg.selectAll(".note").each(function () {
    const { x: left, y: top, width, height } = this.getBBox();
    taken.push({ left, right: left + width, top, bottom: top + height });
  });
  for (const point of named) {
    const width = point.kernel.name.length * 6.7;
    const { left, right, top: above, bottom } = disc(point);
    const [cx, cy] = [x(point.x), y(point.y)];
    const at = (start, base) => ({ left: start, right: start + width, top: base - 10, bottom: base + 3 });
    const places = [at(right + 3, cy + 4), at(left - 3 - width, cy + 4)];
    for (const lines of [0, 1, 2]) places.push(at(cx - width / 2, bottom + 14 + 14 * lines), at(cx - width / 2, above - 6 - 14 * lines));
    const free = (place) => place.left > edge.left && place.right < wide && place.top > edge.top && place.bottom < high - edge.bottom
      && taken.every((other) => place.left > other.right || place.right < other.left || place.top > other.bottom || place.bottom < other.top);
    const place = places.find(free);
    if (!place) continue;
    taken.push(place);
    svg.append("text").attr("class", "label").attr("x", place.left).attr("y", place.bottom - 3).text(point.kernel.name);
  }
}

function drawArena(program) {
  const svg = vendor.select("#arena");
  svg.selectAll("*").remove();
  const { arena } = program;
  const [wide, high] = [svg.node().clientWidth, svg.node().clientHeight];
  const edge = { left: 66, right: 10, top: 34, bottom: 24 };
  const x = vendor.scaleLinear().domain([0, Math.max(1, arena.launches.length)]).range([edge.left, wide - edge.right]);
  const y = vendor.scaleLinear().domain([0, Math.max(1, arena.bytes)]).range([high - edge.bottom, edge.top]);
  svg.append("g").attr("transform", `translate(${edge.left},0)`).call(vendor.axisLeft(y).ticks(6).tickFormat((value) => quantity(value, "B").replace(/\.0+ /, " ")));
  const functions = svg.append("g").selectAll("g").data(arena.functions).join("g");
  functions.append("line").attr("class", "ceiling").attr("x1", (item) => x(item.first)).attr("x2", (item) => x(item.first)).attr("y1", 8).attr("y2", high - edge.bottom);
  functions.append("text").attr("class", "label").attr("x", (item) => x(item.first) + 3)
    .attr("y", (item, n) => n % 2 ? 29 : 15)
    .text((item) => item.calls > 1 ? `${item.name} × ${item.calls}` : item.name);
  const writers = [...new Set(arena.buffers.map((buffer) => buffer.writer))];
  const palette = ["dot", "reduce", "weight", "attend", "cache", "input", "gather", "map"];
  const rects = svg.append("g").selectAll("rect").data(arena.buffers).join("rect").attr("class", "buffer").attr("rx", 3)
    .attr("x", (buffer) => x(buffer.first)).attr("width", (buffer) => Math.max(2, x(buffer.last + 1) - x(buffer.first)))
    .attr("y", (buffer) => y(buffer.offset + buffer.bytes)).attr("height", (buffer) => Math.max(1.5, y(buffer.offset) - y(buffer.offset + buffer.bytes)))
    .style("fill", (buffer) => `var(--${palette[writers.indexOf(buffer.writer) % palette.length]})`);
  tooltip(rects, (buffer) => `written by ${buffer.writer}
${quantity(buffer.bytes, "B")} at ${buffer.offset}
${buffer.first === buffer.last ? `during ${arena.launches[buffer.first]}` : `from ${arena.launches[buffer.first]} to ${arena.launches[buffer.last]}`}`);
  const roomy = arena.buffers.filter((buffer) => x(buffer.last + 1) - x(buffer.first) > buffer.writer.length * 6.7 + 8 && y(buffer.offset) - y(buffer.offset + buffer.bytes) > 15);
  svg.append("g").selectAll("text").data(roomy).join("text").attr("class", "label").attr("pointer-events", "none")
    .attr("x", (buffer) => x(buffer.first) + 5).attr("y", (buffer) => y(buffer.offset + buffer.bytes) + 13).text((buffer) => buffer.writer);
  svg.append("text").attr("x", wide - edge.right).attr("y", high - 6).attr("text-anchor", "end").text(`${arena.launches.length} launches, each function once`);
}
