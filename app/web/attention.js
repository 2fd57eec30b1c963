// Kernel attention per unit over depth as a drawing: the attention difference at each scale as a line and, where there are more
// than two kernels, their shares as stacked bars below. Values are drawn as they are; the axis is symmetric about 0.

import { drawn } from "./elements.js";
import { MINUS, percent, plain, signed } from "./numbers.js";

const LIMITS = [0.25, 0.5, 1]; // of the axis: the first that holds every value, so that the drawing says the same for most images
const LEFT = 50, RIGHT = 10, TOP = 14, LINES = 240, GAP = 26, SHARES = 110, BOTTOM = 40;
const STEP = 15; // pixels that a unit's number needs

// `draw` takes {scales: [{scale, units, shown, look}], whole, chosen, choose(i)}; `look` numbers the line's colour and mark.
export class AttentionChart {
  #host;
  #place = null;
  #given = null;
  #width = 0;

  constructor(host) {
    this.#host = host;
    new ResizeObserver(() => {
      if (this.#given && host.clientWidth !== this.#width) this.draw(this.#given);
    }).observe(host);
  }

  draw(given) {
    this.#given = given;
    this.#width = this.#host.clientWidth;
    if (!this.#width) return; // hidden: the observer comes back
    const place = (this.#place = placed(given, this.#width));
    const focused = this.#host.contains(document.activeElement);
    this.#host.replaceChildren(drawn("svg", { width: place.width, height: place.height },
      ...stages(place), ...axis(place), ...(place.shares ? sharesAxis(place) : []),
      columns(place, (event) => this.#moved(event)), drawn("g", { class: "plotted", "aria-hidden": "true" })));
    this.choose(given.chosen);
    if (focused) this.#option(this.#place.chosen)?.focus();
  }

  // Marks a unit without drawing the rest anew, which would take what has the focus out of the page.
  choose(i) {
    if (!this.#place) return;
    this.#given.chosen = this.#place.chosen = i;
    for (const option of this.#host.querySelectorAll("[role=option]")) {
      const chosen = option === this.#option(i);
      option.setAttribute("aria-selected", String(chosen));
      option.setAttribute("tabindex", chosen ? "0" : "-1");
    }
    const place = this.#place;
    this.#host.querySelector(".plotted").replaceChildren(...(place.shares ? stacks(place) : []), ...lines(place));
  }

  #option(i) {
    return this.#host.querySelectorAll("[role=option]")[i];
  }

  #moved(event) {
    const options = [...this.#host.querySelectorAll("[role=option]")];
    const [here, last] = [options.indexOf(event.target), options.length - 1]; // the pointer may have chosen another meanwhile
    const to = { ArrowLeft: here - 1, ArrowUp: here - 1, ArrowRight: here + 1, ArrowDown: here + 1, Home: 0, End: last };
    if (!(event.key in to)) return;
    event.preventDefault();
    options[Math.min(last, Math.max(0, to[event.key]))].focus(); // which chooses it
  }
}

// The smallest of a few limits that holds every value of every scale, shown or not, so that switching one moves nothing.
export function limitOf(scales, whole) {
  const largest = Math.max(0, ...scales.flatMap(({ units }) => units.map((unit) => Math.abs(unit.attention_difference))));
  return whole ? 1 : LIMITS.find((limit) => largest <= limit) ?? 1;
}

export function kernelName(size) {
  return `${size}\u00D7${size}`;
}

function placed(given, width) {
  const { units } = given.scales[0];
  const step = (width - LEFT - RIGHT) / units.length;
  const limit = limitOf(given.scales, given.whole);
  const shares = units.some((unit) => unit.kernel_sizes.length > 2);
  const sharesTop = TOP + LINES + GAP;
  const floor = shares ? sharesTop + SHARES : TOP + LINES;
  return {
    ...given, units, step, limit, shares, width, sharesTop, floor, height: floor + BOTTOM,
    x: (i) => LEFT + (i + 0.5) * step,
    y: (value) => TOP + LINES / 2 - (value / limit) * (LINES / 2),
  };
}

const word = (x, y, text, attributes = {}) => drawn("text", { x, y, "aria-hidden": "true", ...attributes }, text);

// A band for each stage, which is what the name says before the last number: SK_3_4 is the fourth unit of SK_3.
function stages({ units, x, step, floor }) {
  const found = [];
  units.forEach(({ unit }, i) => {
    const name = unit.replace(/_\d+$/, "");
    if (found.at(-1)?.name === name) found.at(-1).last = i;
    else found.push({ name, first: i, last: i });
  });
  const every = Math.max(1, Math.ceil(STEP / step));
  return found.flatMap(({ name, first, last }, n) => [
    drawn("rect", { class: n % 2 ? "band" : "band odd", x: x(first) - step / 2, y: TOP, width: (last - first + 1) * step,
      height: floor - TOP }),
    word((x(first) + x(last)) / 2, floor + 33, name, { class: "stage", "text-anchor": "middle" }),
    ...Array.from({ length: last - first + 1 }, (_, k) => k).filter((k) => k % every === 0)
      .map((k) => word(x(first + k), floor + 16, String(k + 1), { "text-anchor": "middle" })),
  ]);
}

function axis({ limit, y, width, units }) {
  const sizes = units[0].kernel_sizes;
  const ticks = [-limit, -limit / 2, 0, limit / 2, limit];
  return [
    ...ticks.flatMap((value) => [
      drawn("line", { class: value === 0 ? "zero" : "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
      word(LEFT - 6, y(value) + 4, value === 0 ? "0" : signed(value, Math.abs(value) < 0.25 ? 3 : 2), { "text-anchor": "end" }),
    ]),
    word(LEFT + 6, y(limit) + 14, `\u2191 more ${kernelName(sizes.at(-1))}`, { class: "side" }),
    word(LEFT + 6, y(-limit) - 7, `\u2193 more ${kernelName(sizes[0])}`, { class: "side" }),
  ];
}

function sharesAxis({ sharesTop, width }) {
  return [0, 0.5, 1].flatMap((part) => {
    const y = sharesTop + SHARES * (1 - part);
    return [drawn("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }),
      word(LEFT - 6, y + 4, `${part * 100} %`, { "text-anchor": "end" })];
  });
}

// What the pointer and the keyboard meet: a list of units of which one is chosen.
function columns({ units, scales, x, step, floor, choose }, keydown) {
  const options = units.map((unit, i) => drawn("g", {
    role: "option", "aria-label": spoken(i, scales), on: { pointerenter: () => choose(i), focus: () => choose(i) },
  }, drawn("rect", { class: "column", x: x(i) - step / 2, y: TOP, width: step, height: floor - TOP })));
  return drawn("g", {
    role: "listbox", "aria-orientation": "horizontal", "aria-label": "Units in network order", on: { keydown },
  }, ...options);
}

function spoken(i, scales) {
  const unit = scales[0].units[i];
  const differences = scales.filter(({ shown }) => shown)
    .map(({ scale, units }) => `${signed(units[i].attention_difference).replace(MINUS, "minus ")} at ${scale.toFixed(1)} times`);
  const shares = unit.mean_attention.map((share, k) => `${kernelName(unit.kernel_sizes[k])} ${percent(share)}`);
  return `${unit.unit}, ${unit.module}, ${unit.channels} channels. Difference ${differences.join(", ")}. `
    + `Shares ${shares.join(", ")}.`;
}

function lines({ scales, x, y, chosen }) {
  return scales.filter(({ shown }) => shown).reverse().map(({ units, look }) => {
    const points = units.map((unit, i) => [x(i), y(unit.attention_difference)]);
    return drawn("g", { class: `line look-${look}` },
      drawn("polyline", { points: points.map((point) => point.map((each) => plain(each, 1)).join(",")).join(" ") }),
      ...points.map(([px, py], i) => mark(look, px, py, i === chosen ? 6.5 : 4)));
  });
}

// Told apart by shape as well as by colour.
export function mark(look, x, y, r) {
  if (look === 0) return drawn("circle", { cx: x, cy: y, r });
  if (look === 1) return drawn("rect", { x: x - r * 0.9, y: y - r * 0.9, width: r * 1.8, height: r * 1.8 });
  return drawn("path", { d: `M${x},${y - r * 1.2} L${x + r * 1.1},${y + r * 0.8} L${x - r * 1.1},${y + r * 0.8} Z` });
}

function stacks({ scales, x, step, sharesTop, chosen }) {
  const { units } = scales.find(({ shown }) => shown) ?? scales[0];
  const width = Math.min(step * 0.8, 34);
  return units.flatMap((unit, i) => {
    let top = sharesTop + SHARES;
    return unit.mean_attention.map((share, k) => {
      top -= share * SHARES;
      return drawn("rect", {
        class: `share kernel-${k}${i === chosen ? " chosen" : ""}`, x: x(i) - width / 2, y: top, width, height: share * SHARES,
      });
    });
  });
}
