// What beams deliver, seen from the source: fluence of bixels, spots of layers, or leaves and jaws of control points.
//
// `showBeams(root, beams)` fills an element; beams are as radplan.report.delivered gives them. Nothing is fetched.

function child(tag, parent, attributes = {}, text = "") {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  parent.appendChild(made);
  return made;
}

const SIZE = 300;

function heat(share) {
  const stops = [[253, 231, 37], [94, 201, 98], [33, 145, 140], [59, 82, 139], [68, 1, 84]];
  const place = Math.min(Math.max(share, 0), 1) * (stops.length - 1), low = Math.min(Math.floor(place), stops.length - 2);
  const mixed = stops[low].map((v, k) => Math.round(v + (stops[low + 1][k] - v) * (place - low)));
  return `rgb(${mixed.join(",")})`;
}

function scaled(canvas, view) {
  const [x1, x2, y1, y2] = view, scale = SIZE / Math.max(x2 - x1, y2 - y1);
  canvas.width = Math.max(40, Math.round((x2 - x1) * scale));
  canvas.height = Math.max(40, Math.round((y2 - y1) * scale));
  const x = (v) => (v - x1) * scale, y = (v) => canvas.height - (v - y1) * scale;
  return { context: canvas.getContext("2d"), scale, x, y };
}

function drawBoxes(canvas, beam, weights, positions) {
  const { context, scale, x, y } = scaled(canvas, beam.view);
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  const top = Math.max(...weights, 1e-12), side = beam.width * scale;
  positions.forEach(([px, py], k) => {
    context.fillStyle = weights[k] > 0 ? heat(weights[k] / top) : "#eeeeee";
    if (beam.kind === "bixels") {
      context.fillRect(x(px) - side / 2, y(py) - side / 2, side + 0.5, side + 0.5);
    } else {
      context.beginPath();
      context.arc(x(px), y(py), Math.max(1, side / 2 * Math.sqrt(weights[k] / top)), 0, 2 * Math.PI);
      context.fill();
    }
  });
  return top;
}

function drawLeaves(canvas, beam, point) {
  const { context, scale, x, y } = scaled(canvas, beam.view);
  const [x1, x2, y1, y2] = beam.view;
  context.fillStyle = "#fff3d6";
  context.fillRect(0, 0, canvas.width, canvas.height);
  const box = (left, right, low, high) => {
    context.fillRect(x(left), y(high), (right - left) * scale, (high - low) * scale);
    context.strokeRect(x(left), y(high), (right - left) * scale, (high - low) * scale);
  };
  context.fillStyle = "#8fa8c9";
  context.strokeStyle = "#5b7291";
  context.lineWidth = 0.5;
  (point.leaves || []).forEach(([first, second], k) => {
    const low = beam.edges[k], high = beam.edges[k + 1];
    if (beam.axis === "x") { box(x1, Math.max(first, x1), low, high); box(Math.min(second, x2), x2, low, high); }
    else { box(low, high, y1, Math.max(first, y1)); box(low, high, Math.min(second, y2), y2); }
  });
  context.strokeStyle = "#e0a800";
  context.lineWidth = 2;
  const [jx, jy] = [point.jaws_x || [x1, x2], point.jaws_y || [y1, y2]];
  context.strokeRect(x(jx[0]), y(jy[1]), (jx[1] - jx[0]) * scale, (jy[1] - jy[0]) * scale);
}

function panel(root, beam) {
  const box = child("figure", root, { class: "beam" });
  child("figcaption", box, {}, beam.title);
  const canvas = child("canvas", box, { role: "img", "aria-label": beam.title });
  const told = child("p", box, { class: "told" });
  const frames = beam.kind === "leaves" ? beam.points : beam.layers;
  const draw = (k) => {
    const frame = frames[k];
    if (beam.kind === "leaves") { drawLeaves(canvas, beam, frame); told.textContent = frame.label; return; }
    const top = drawBoxes(canvas, beam, frame.weights, frame.positions);
    told.textContent = `${frame.label}; darkest ${top.toPrecision(3)} ${beam.unit}`;
  };
  if (frames.length > 1) {
    const slider = child("input", box, { type: "range", min: 0, max: frames.length - 1, value: 0, "aria-label": "step" });
    slider.addEventListener("input", () => draw(Number(slider.value)));
  }
  draw(0);
  return { title: beam.title, frames: frames.length, draw };
}

export function showBeams(root, beams) {
  root.textContent = "";
  root.classList.add("radplan-beams");
  return beams.map((beam) => panel(root, beam));
}
