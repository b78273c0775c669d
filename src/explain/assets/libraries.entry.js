// What the page uses of its libraries: layered graph layout, and the parts of D3 that place marks.
export { select } from "d3-selection";
export { zoom, zoomIdentity } from "d3-zoom";
export { scaleLinear, scaleLog } from "d3-scale";
export { line, curveBasis } from "d3-shape";
export { axisBottom, axisLeft } from "d3-axis";
import dagre from "@dagrejs/dagre";
export { dagre };
