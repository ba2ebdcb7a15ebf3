// Three linked planes of a patient: CT, structures, colour wash and isodoses, cut from volumes in the browser.
//
// `showSlices(root, data)` fills an element; it takes what radplan.report.volume.slice_data gives and returns
// {slice(plane, index), quantity(name), state()}. Nothing is fetched.

const PLANES = [
  { name: "axial", fixed: 2, across: 0, up: 1, flip: false, ends: ["R", "L", "A", "P"] },
  { name: "coronal", fixed: 1, across: 0, up: 2, flip: true, ends: ["R", "L", "S", "I"] },
  { name: "sagittal", fixed: 0, across: 1, up: 2, flip: true, ends: ["A", "P", "S", "I"] },
];

async function unpacked(text, kind) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new kind(await new Response(stream).arrayBuffer());
}

function element(tag, parent, attributes = {}, text = "") {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  parent.appendChild(made);
  return made;
}

// World coordinate of a voxel, and the fractional index of a world coordinate, along axis 0 x, 1 y, 2 z.
const world = (grid, axis, index) => grid.origin[axis] + index * grid.spacing[axis];
const index = (grid, axis, value) => (value - grid.origin[axis]) / grid.spacing[axis];
const count = (grid, axis) => grid.shape[2 - axis];
const stride = (grid, axis) => [1, grid.shape[2], grid.shape[2] * grid.shape[1]][axis];

// Trilinear samples of a volume on the pixels of a plane of the display grid; 0 beyond its voxels.
function cut(values, grid, display, plane, at) {
  const columns = count(display, plane.across), rows = count(display, plane.up);
  const out = new Float32Array(columns * rows);
  const terms = (axis, value) => {
    const place = index(grid, axis, value), last = count(grid, axis) - 1;
    if (place < -0.5 || place > last + 0.5) return null;
    const low = Math.min(Math.max(Math.floor(place), 0), Math.max(last - 1, 0));
    const share = Math.min(Math.max(place - low, 0), 1);
    const step = last > 0 ? stride(grid, axis) : 0;
    return [low * stride(grid, axis), step, share];
  };
  const deep = terms(plane.fixed, at);
  if (deep === null) return out;
  const across = Array.from({ length: columns }, (_, c) => terms(plane.across, world(display, plane.across, c)));
  for (let row = 0; row < rows; row++) {
    const up = terms(plane.up, world(display, plane.up, row));
    if (up === null) continue;
    for (let column = 0; column < columns; column++) {
      const side = across[column];
      if (side === null) continue;
      const base = deep[0] + up[0] + side[0];
      const line = (start) => values[start] * (1 - side[2]) + values[start + side[1]] * side[2];
      const sheet = (start) => line(start) * (1 - up[2]) + line(start + up[1]) * up[2];
      out[row * columns + column] = sheet(base) * (1 - deep[2]) + sheet(base + deep[1]) * deep[2];
    }
  }
  return out;
}

// Line segments where values cross a level: marching squares on pixel centres, as [x1, y1, x2, y2, ...] in pixels.
function crossings(values, columns, rows, level) {
  const lines = [];
  const edge = (a, b) => (level - a) / (b - a);
  for (let y = 0; y + 1 < rows; y++) {
    for (let x = 0; x + 1 < columns; x++) {
      const i = y * columns + x;
      const a = values[i], b = values[i + 1], c = values[i + columns + 1], d = values[i + columns];
      const code = (a >= level) | ((b >= level) << 1) | ((c >= level) << 2) | ((d >= level) << 3);
      if (code === 0 || code === 15) continue;
      const top = () => [x + edge(a, b), y], right = () => [x + 1, y + edge(b, c)];
      const bottom = () => [x + edge(d, c), y + 1], left = () => [x, y + edge(a, d)];
      const pairs = {
        1: [left, top], 14: [left, top], 2: [top, right], 13: [top, right], 4: [right, bottom], 11: [right, bottom],
        8: [bottom, left], 7: [bottom, left], 3: [left, right], 12: [left, right], 6: [top, bottom], 9: [top, bottom],
        5: [left, top, right, bottom], 10: [top, right, bottom, left],
      }[code];
      for (let k = 0; k < pairs.length; k += 2) lines.push(...pairs[k](), ...pairs[k + 1]());
    }
  }
  return lines;
}

async function decoded(data) {
  const quantities = [];
  for (const given of data.quantities) {
    const raw = await unpacked(given.values, Uint16Array);
    quantities.push({ ...given, cube: Float32Array.from(raw, (v) => v * given.step) });
  }
  const kinds = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array };
  return {
    ct: await unpacked(data.ct, Uint8Array),
    masks: await unpacked(data.masks, kinds[data.mask_bytes]),
    quantities,
  };
}

function nearest(values, display, plane, at, of) {
  const columns = count(display, plane.across), rows = count(display, plane.up);
  const out = new Float32Array(columns * rows);
  const start = at * stride(display, plane.fixed);
  for (let row = 0; row < rows; row++) {
    let here = start + row * stride(display, plane.up);
    for (let column = 0; column < columns; column++, here += stride(display, plane.across)) {
      out[row * columns + column] = of(values[here]);
    }
  }
  return out;
}

class Viewer {
  constructor(root, data, volumes) {
    this.data = data;
    this.volumes = volumes;
    this.at = [0, 1, 2].map((axis) => Math.min(
      Math.max(Math.round(index(data, axis, data.center[axis])), 0), count(data, axis) - 1));
    this.hidden = new Set();
    this.wash = 0.45;
    this.chosen = 0;
    this.lastDraw = 0;
    root.textContent = "";
    root.classList.add("radplan-slices");
    this.frame(root);
    this.drawAll();
  }

  frame(root) {
    const bar = element("div", root, { class: "controls" });
    const choice = element("select", bar, { "aria-label": "quantity shown" });
    this.volumes.quantities.forEach((q, k) => element("option", choice, { value: k }, `${q.title} [${q.unit}]`));
    choice.addEventListener("change", () => { this.chosen = Number(choice.value); this.legend(); this.drawAll(); });
    const label = element("label", bar, {}, "colour wash ");
    const wash = element("input", label, { type: "range", min: 0, max: 100, value: 100 * this.wash });
    wash.addEventListener("input", () => { this.wash = wash.value / 100; this.drawAll(); });
    this.readout = element("span", bar, { class: "readout" });
    const views = element("div", root, { class: "views" });
    this.panels = PLANES.map((plane) => this.panel(views, plane));
    this.keys = element("div", root, { class: "keys" });
    this.legend();
  }

  panel(parent, plane) {
    const size = [plane.across, plane.up].map((axis) => count(this.data, axis) * this.data.spacing[axis]);
    const box = element("figure", parent, { class: `view ${plane.name}`, style: `flex: ${size[0]} 1 0` });
    const caption = element("figcaption", box);
    const canvas = element("canvas", box, { role: "img", "aria-label": `${plane.name} plane` });
    const slider = element("input", box, {
      type: "range", min: 0, max: count(this.data, plane.fixed) - 1, step: 1, value: this.at[plane.fixed],
      "aria-label": `${plane.name} slice`,
    });
    slider.addEventListener("input", () => this.slice(plane.name, Number(slider.value)));
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.slice(plane.name, this.at[plane.fixed] + Math.sign(event.deltaY));
    }, { passive: false });
    canvas.addEventListener("click", (event) => {
      const [across, up] = this.pixel(plane, canvas, event);
      this.at[plane.across] = across;
      this.at[plane.up] = up;
      this.drawAll();
    });
    canvas.addEventListener("mousemove", (event) => this.tell(plane, canvas, event));
    const scale = Math.min(560 / size[0], 560 / size[1]);
    canvas.width = Math.round(size[0] * scale);
    canvas.height = Math.round(size[1] * scale);
    return { plane, canvas, caption, slider };
  }

  pixel(plane, canvas, event) {
    const box = canvas.getBoundingClientRect();
    const clip = (share, axis) => Math.min(Math.max(Math.floor(share * count(this.data, axis)), 0), count(this.data, axis) - 1);
    const up = (event.clientY - box.top) / box.height;
    return [clip((event.clientX - box.left) / box.width, plane.across), clip(plane.flip ? 1 - up : up, plane.up)];
  }

  tell(plane, canvas, event) {
    const [across, up] = this.pixel(plane, canvas, event);
    const here = [...this.at];
    here[plane.across] = across;
    here[plane.up] = up;
    const flat = here.reduce((sum, k, axis) => sum + k * stride(this.data, axis), 0);
    const [low, high] = this.data.window;
    const hu = low + this.volumes.ct[flat] / 255 * (high - low);
    const q = this.volumes.quantities[this.chosen];
    const column = count(this.data, plane.across) * up + across;
    const panel = this.panels.find((entry) => entry.plane === plane);
    const xyz = here.map((k, axis) => world(this.data, axis, k).toFixed(1)).join(", ");
    this.readout.textContent = `(${xyz}) mm · ${hu.toFixed(0)} HU · ${panel.dose[column].toFixed(2)} ${q.unit}`;
  }

  legend() {
    this.keys.textContent = "";
    const q = this.volumes.quantities[this.chosen];
    for (const level of q.levels) {
      element("span", this.keys, { class: "key", style: `border-color:${level.color}` }, level.label);
    }
    for (const structure of this.data.structures) {
      const label = element("label", this.keys, { class: "key", style: `border-color:${structure.color}` });
      const tick = element("input", label, { type: "checkbox" });
      tick.checked = !this.hidden.has(structure.name);
      tick.addEventListener("change", () => {
        this.hidden[tick.checked ? "delete" : "add"](structure.name);
        this.drawAll();
      });
      element("span", label, {}, structure.name);
    }
  }

  slice(name, value) {
    const plane = PLANES.find((entry) => entry.name === name);
    this.at[plane.fixed] = Math.min(Math.max(value, 0), count(this.data, plane.fixed) - 1);
    this.drawAll();
  }

  drawAll() {
    const begun = performance.now();
    this.panels.forEach((panel) => this.draw(panel));
    this.lastDraw = performance.now() - begun;
  }

  draw(panel) {
    const { plane, canvas } = panel;
    const columns = count(this.data, plane.across), rows = count(this.data, plane.up), at = this.at[plane.fixed];
    const position = world(this.data, plane.fixed, at);
    const key = `${at}|${this.chosen}`;
    if (panel.key !== key) {
      panel.key = key;
      panel.gray = nearest(this.volumes.ct, this.data, plane, at, (v) => v);
      const q = this.volumes.quantities[this.chosen];
      panel.dose = cut(q.cube, q, this.data, plane, position);
      panel.isodoses = q.levels.map((level) => crossings(panel.dose, columns, rows, level.value));
      panel.outlines = this.data.structures.map((structure) => crossings(
        nearest(this.volumes.masks, this.data, plane, at, (v) => (v >>> structure.bit) & 1), columns, rows, 0.5));
      panel.body = nearest(this.volumes.masks, this.data, plane, at, (v) => this.data.body_bit < 0 ? 1 : (v >>> this.data.body_bit) & 1);
    }
    this.paint(panel, columns, rows);
    panel.slider.value = at;
    panel.caption.textContent = `${plane.name}, ${"xyz"[plane.fixed]} = ${position.toFixed(1)} mm`;
    this.overlay(panel, canvas, columns, rows);
  }

  paint(panel, columns, rows) {
    const q = this.volumes.quantities[this.chosen];
    const pixels = new ImageData(columns, rows);
    for (let row = 0; row < rows; row++) {
      const target = (panel.plane.flip ? rows - 1 - row : row) * columns;
      for (let column = 0; column < columns; column++) {
        const from = row * columns + column, to = 4 * (target + column);
        const gray = panel.gray[from], value = panel.dose[from];
        const shown = value >= q.wash_from && panel.body[from] ? this.wash : 0;
        const tone = 3 * Math.min(255, Math.max(0, Math.round(value / q.top * 255)));
        for (let k = 0; k < 3; k++) pixels.data[to + k] = gray * (1 - shown) + this.data.palette[tone + k] * shown;
        pixels.data[to + 3] = 255;
      }
    }
    const small = new OffscreenCanvas(columns, rows);
    small.getContext("2d").putImageData(pixels, 0, 0);
    const context = panel.canvas.getContext("2d");
    context.imageSmoothingEnabled = true;
    context.drawImage(small, 0, 0, panel.canvas.width, panel.canvas.height);
  }

  overlay(panel, canvas, columns, rows) {
    const context = canvas.getContext("2d"), plane = panel.plane;
    const sx = canvas.width / columns, sy = canvas.height / rows;
    const px = (x) => (x + 0.5) * sx, py = (y) => plane.flip ? canvas.height - (y + 0.5) * sy : (y + 0.5) * sy;
    const stroke = (lines, color, width) => {
      context.beginPath();
      for (let k = 0; k < lines.length; k += 4) {
        context.moveTo(px(lines[k]), py(lines[k + 1]));
        context.lineTo(px(lines[k + 2]), py(lines[k + 3]));
      }
      context.strokeStyle = color;
      context.lineWidth = width;
      context.stroke();
    };
    this.volumes.quantities[this.chosen].levels.forEach((level, k) => stroke(panel.isodoses[k], level.color, 1.3));
    this.data.structures.forEach((structure, k) => {
      if (this.hidden.has(structure.name)) return;
      stroke(panel.outlines[k], "rgba(0,0,0,0.8)", 3.4);
      stroke(panel.outlines[k], structure.color, 2);
    });
    const x = px(this.at[plane.across]), y = py(this.at[plane.up]);
    context.strokeStyle = "rgba(255,255,255,0.35)";
    context.lineWidth = 1;
    context.strokeRect(x, -1, 0, canvas.height + 2);
    context.strokeRect(-1, y, canvas.width + 2, 0);
    context.fillStyle = "#ffffff";
    context.font = "14px sans-serif";
    context.textAlign = "center";
    const [left, right, top, bottom] = plane.ends;
    const middle = [canvas.width / 2, canvas.height / 2 + 5];
    context.fillText(left, 10, middle[1]);
    context.fillText(right, canvas.width - 10, middle[1]);
    context.fillText(top, middle[0], 15);
    context.fillText(bottom, middle[0], canvas.height - 5);
  }
}

export async function showSlices(root, data) {
  const viewer = new Viewer(root, data, await decoded(data));
  return {
    slice: (plane, value) => viewer.slice(plane, value),
    quantity: (k) => { viewer.chosen = k; viewer.legend(); viewer.drawAll(); },
    state: () => ({ at: [...viewer.at], milliseconds: viewer.lastDraw, quantity: viewer.chosen, shape: data.shape }),
  };
}
