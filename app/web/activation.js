// The class activation map over a photograph: an overlay canvas in the photograph's own proportions, and its legend.
// The map's values stay as they are; they only become colours, by a scale that the legend names.

import { colouring } from "./colours.js";
import { element } from "./elements.js";
import { plain } from "./numbers.js";

const UNSEEN = [20, 28, 30, 130];
const SIDE = 480; // pixels of the overlay's longer side: the map has a handful of cells, the browser enlarges smoothly

export function range(map) {
  const values = map.flat();
  return { low: Math.min(...values), high: Math.max(...values) };
}

// Between the centres of cells linearly, and beyond the outermost centres level: nothing is above or below what was computed.
export function sample(map, u, v) {
  const rows = map.length, columns = map[0].length;
  const x = Math.min(columns - 1, Math.max(0, u * columns - 0.5));
  const y = Math.min(rows - 1, Math.max(0, v * rows - 0.5));
  const left = Math.floor(x), top = Math.floor(y);
  const right = Math.min(columns - 1, left + 1), bottom = Math.min(rows - 1, top + 1);
  const upper = map[top][left] + (map[top][right] - map[top][left]) * (x - left);
  const lower = map[bottom][left] + (map[bottom][right] - map[bottom][left]) * (x - left);
  return upper + (lower - upper) * (y - top);
}

// Paints the map where its box lies in the upright image of `width` x `height`; the rest, which the network never saw, is dim.
export function paint(canvas, { map, box }, { width, height }) {
  const scale = SIDE / Math.max(width, height);
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  const { low, high } = range(map);
  const scaleOf = colouring(low, high);
  for (let y = 0; y < canvas.height; y += 1) {
    for (let x = 0; x < canvas.width; x += 1) {
      const u = ((x + 0.5) / canvas.width * width - box.left) / (box.right - box.left);
      const v = ((y + 0.5) / canvas.height * height - box.top) / (box.bottom - box.top);
      const inside = u >= 0 && u <= 1 && v >= 0 && v <= 1;
      pixels.data.set(inside ? scaleOf.of(sample(map, u, v)) : UNSEEN, (y * canvas.width + x) * 4);
    }
  }
  context.putImageData(pixels, 0, 0);
}

export function legend({ map, logit, bias, label }) {
  const { low, high } = range(map);
  const scale = colouring(low, high);
  const stops = Array.from({ length: 33 }, (_, i) => {
    const [red, green, blue, alpha] = scale.of(scale.low + (scale.high - scale.low) * i / 32);
    return `rgb(${red.toFixed(0)} ${green.toFixed(0)} ${blue.toFixed(0)} / ${(alpha / 255).toFixed(3)})`;
  });
  const gradient = `linear-gradient(to right, ${stops.join(", ")})`;
  const strip = element("div", { class: "strip", "aria-hidden": "true", style: { "background-image": gradient } });
  const ends = [scale.low, ...(scale.low < 0 ? [0] : []), scale.high].map((value) => element("span", {}, plain(value)));
  const mean = plain(logit - bias);
  return [
    strip, element("div", { class: "ends" }, ...ends),
    element("p", { class: "note" }, `Evidence for ${label}, from ${plain(low)} to ${plain(high)}. `
      + `Its mean, ${mean}, and the class's own bias, ${plain(bias)}, make the score before softmax, ${plain(logit)}.`
      + (low < 0 ? " Blue speaks against the class." : "")),
  ];
}

export function mapTable({ map, label }) {
  const heads = map[0].map((_, i) => element("th", { scope: "col" }, `Column ${i + 1}`));
  const rows = map.map((row, i) => element("tr", {}, element("th", { scope: "row" }, `Row ${i + 1}`),
    ...row.map((value) => element("td", {}, plain(value, 3)))));
  return element("table", {}, element("caption", {}, `Evidence for ${label} in each part of what the network saw`),
    element("thead", {}, element("tr", {}, element("td", {}), ...heads)), element("tbody", {}, ...rows));
}
