// The charts: kernels under the machine's roof, and the arena over a step.

// Ticks of a logarithmic axis at powers of ten, with prefixes.
function logAxis(make, scale) {
  const [low, high] = scale.domain().map(Math.log10);
  const powers = [];
  for (let power = Math.ceil(low); power <= Math.floor(high); power += 1) powers.push(10 ** power);
  return make(scale).tickValues(powers).tickFormat((value) => value >= 1 ? quantity(value, "").replace(".00", "").replace(".0 ", " ") : String(value));
}

// `shown` are programs for one machine.
function drawRoofline(shown, machine) {
  const svg = vendor.select("#roof");
  svg.selectAll("*").remove();
  const [wide, high] = [svg.node().clientWidth, svg.node().clientHeight];
  const edge = { left: 52, right: 16, top: 30, bottom: 44 };
  const points = report.programs.filter((program) => shown.has(program.name)).flatMap((program) =>
    program.kernels.filter((kernel) => kernel.launches > 0 && kernel.intensity > 0).map((kernel) => ({
      program, kernel, x: kernel.intensity, y: kernel.unit_flops / kernel.price.seconds,
      share: kernel.launches * kernel.price.seconds / program.seconds,
    })));
  const { memory_bandwidth: bandwidth, matrix_flops: matrix, vector_flops: vector } = machine;
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
  // Units with the same peak share a line.
  const units = [[matrix.bf16, "bf16 products"], [matrix.f32, "f32 products"], [vector, "elementwise"]];
  const peaks = [...new Set(units.map(([peak]) => peak))];
  svg.selectAll(".ceiling").data(peaks.filter((peak) => peak !== top)).join("path").attr("class", "ceiling").attr("d", roof);
  svg.append("path").attr("class", "roof").attr("d", roof(top));
  for (const peak of peaks) {
    const names = units.filter(([of]) => of === peak).map(([, name]) => name);
    const lines = wide < 600 ? [...names.slice(0, -1), `${names.at(-1)} ${quantity(peak, "FLOP/s")}`] : [`${names.join(", ")} ${quantity(peak, "FLOP/s")}`];
    const start = y(peak) + (peak === top ? -10 - 14 * lines.length : 15);
    lines.forEach((line, n) => svg.append("text").attr("x", wide - edge.right - 4).attr("y", start + 14 * n).attr("text-anchor", "end").attr("class", "note").text(line));
  }

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
  const overlaps = (place, other) => place.left <= other.right && other.left <= place.right && place.top <= other.bottom && other.top <= place.bottom;
  // The memory's speed stands along the slope, where no point is.
  const speed = `memory ${quantity(bandwidth, "B/s")}`;
  const slope = Math.atan2(y(2 * bandwidth) - y(bandwidth), x(2) - x(1));
  const [across, up] = [speed.length * 3.3 * Math.cos(slope), speed.length * 3.3 * Math.abs(Math.sin(slope)) + 7];
  const along = [0.22, 0.4, 0.55, 0.7, 0.85].map((part) => {
    const intensity = first * (ridge / first) ** part;
    const [cx, cy] = [x(intensity), y(intensity * bandwidth) - 9];
    return { cx, cy, left: cx - across, right: cx + across, top: cy - up, bottom: cy + up - 7 };
  });
  const beside = along.find((place) => place.left > edge.left && taken.every((other) => !overlaps(place, other))) ?? along[0];
  taken.push(beside);
  svg.append("text").attr("transform", `translate(${beside.cx},${beside.cy}) rotate(${slope * 180 / Math.PI})`).attr("text-anchor", "middle").text(speed);
  // No name crosses the roof.
  for (let px = edge.left; px < wide - edge.right; px += 6) {
    const py = y(roofAt(x.invert(px), top));
    taken.push({ left: px - 3, right: px + 3, top: py - 2, bottom: py + 2 });
  }
  for (const point of named) {
    const width = point.kernel.name.length * 6.7;
    const { left, right, top: above, bottom } = disc(point);
    const [cx, cy] = [x(point.x), y(point.y)];
    const at = (start, base) => ({ left: start, right: start + width, top: base - 10, bottom: base + 3 });
    const places = [at(right + 3, cy + 4), at(left - 3 - width, cy + 4)];
    for (const lines of [0, 1, 2]) places.push(at(cx - width / 2, bottom + 14 + 14 * lines), at(cx - width / 2, above - 6 - 14 * lines));
    // A name on the other side of the roof belongs to a point only if it is right beside it.
    const astray = (place) => place.bottom < y(roofAt(x.invert((place.left + place.right) / 2), top)) && place.bottom < cy - radius(point) - 8;
    const free = (place) => !astray(place) && place.left > edge.left && place.right < wide && place.top > edge.top && place.bottom < high - edge.bottom
      && taken.every((other) => !overlaps(place, other));
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
  const edge = { left: 66, right: 10, top: 46, bottom: 24 };
  const x = vendor.scaleLinear().domain([0, Math.max(1, arena.launches.length)]).range([edge.left, wide - edge.right]);
  const y = vendor.scaleLinear().domain([0, Math.max(1, arena.bytes)]).range([high - edge.bottom, edge.top]);
  svg.append("g").attr("transform", `translate(${edge.left},0)`).call(vendor.axisLeft(y).ticks(6).tickFormat((value) => quantity(value, "B").replace(/\.0+ /, " ")));
  const functions = svg.append("g").selectAll("g").data(arena.functions).join("g");
  functions.append("line").attr("class", "ceiling").attr("x1", (item) => x(item.first)).attr("x2", (item) => x(item.first)).attr("y1", 8).attr("y2", high - edge.bottom);
  // Names of functions take the first line that is free where they begin; the last ones end at the edge.
  const heading = (item) => item.calls > 1 ? `${item.name} × ${item.calls}` : item.name;
  const ends = [0, 0, 0];
  const headings = arena.functions.map((item) => {
    const width = 6.7 * heading(item).length;
    const left = Math.min(x(item.first) + 3, wide - width - 2);
    const line = Math.max(0, ends.findIndex((end) => end <= left));
    ends[line] = left + width + 6;
    return { text: heading(item), left, line };
  });
  functions.data(headings).append("text").attr("class", "label").attr("x", (item) => item.left).attr("y", (item) => 12 + 13 * item.line).text((item) => item.text);
  const writers = [...new Set(arena.buffers.map((buffer) => buffer.writer))];
  const palette = ["dot", "reduce", "weight", "attend", "cache", "input", "gather", "map"];
  const rects = svg.append("g").selectAll("rect").data(arena.buffers).join("rect").attr("class", "buffer").attr("rx", 3)
    .attr("x", (buffer) => x(buffer.first)).attr("width", (buffer) => Math.max(2, x(buffer.last + 1) - x(buffer.first)))
    .attr("y", (buffer) => y(buffer.offset + buffer.bytes)).attr("height", (buffer) => Math.max(1.5, y(buffer.offset) - y(buffer.offset + buffer.bytes)))
    .style("fill", (buffer) => `var(--${palette[writers.indexOf(buffer.writer) % palette.length]})`);
  tooltip(rects, (buffer) => `written by ${buffer.writer}
${quantity(buffer.bytes, "B")} at ${buffer.offset}
${buffer.first === buffer.last ? `during ${arena.launches[buffer.first]}` : `from ${arena.launches[buffer.first]} to ${arena.launches[buffer.last]}`}`);
  // What is drawn later covers what is below it, so that its name comes first.
  const taken = [];
  const roomy = [...arena.buffers].reverse().filter((buffer) => {
    const [left, top] = [x(buffer.first), y(buffer.offset + buffer.bytes)];
    const right = left + buffer.writer.length * 6.7 + 8;
    const fits = x(buffer.last + 1) > right && y(buffer.offset) - top > 15;
    const covered = taken.some((other) => left < other.right && other.left < right && Math.abs(top - other.top) < 14);
    if (fits && !covered) taken.push({ left, right, top });
    return fits && !covered;
  });
  svg.append("g").selectAll("text").data(roomy).join("text").attr("class", "label").attr("pointer-events", "none")
    .attr("x", (buffer) => x(buffer.first) + 5).attr("y", (buffer) => y(buffer.offset + buffer.bytes) + 13).text((buffer) => buffer.writer);
  svg.append("text").attr("x", wide - edge.right).attr("y", high - 6).attr("text-anchor", "end").text(`${arena.launches.length} launches, each function once`);
}
