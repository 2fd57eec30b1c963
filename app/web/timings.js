// Where the time of a request went: as the service says in `Server-Timing`, and as the browser saw it.

import { element } from "./elements.js";
import { milliseconds } from "./numbers.js";

const NAMES = {
  upload: "Upload",
  queue: "Queue",
  prepare: "Reading it",
  inference: "Network",
  total: "In the service",
  round: "In all",
};

// {queue, prepare, inference, total}, in ms; what is not there is left out.
export function readServerTiming(text) {
  const found = {};
  for (const [, name, value] of (text ?? "").matchAll(/([\w-]+)\s*;\s*dur=([\d.]+)/g)) found[name] = Number(value);
  return found;
}

export function timingsList(timings) {
  const shown = Object.entries(NAMES).filter(([name]) => typeof timings[name] === "number");
  return element("dl", { class: "timings" }, ...shown.map(([name, text]) =>
    element("div", { "data-phase": name }, element("dt", {}, text), element("dd", {}, milliseconds(timings[name])))));
}
