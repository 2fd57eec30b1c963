// One selective-kernel unit in words and bars: its name, place and channels, and at each scale its difference and shares.

import { element } from "./elements.js";
import { kernelName } from "./attention.js";
import { percent, plain, signed } from "./numbers.js";

// `scales` as the chart has them.
export function unitCard(scales, i) {
  const { unit, module, channels, kernel_sizes: sizes } = scales[0].units[i];
  const shown = scales.filter((each) => each.shown);
  return [
    element("p", { class: "unit-name" }, element("strong", {}, unit), " ", element("code", {}, module), ` ${channels} channels`),
    element("p", { class: "kernels" }, ...sizes.map((size, k) =>
      element("span", { class: `key-of kernel-${k}` }, kernelName(size)))),
    element("div", { class: "unit-scales" }, ...shown.map((each) => atScale(each, each.units[i]))),
    shown.length ? null : element("p", { class: "muted" }, "Every scale is switched off."),
  ].filter(Boolean);
}

function atScale({ scale }, unit) {
  const { mean_attention: shares, attention_difference: difference, mean_kernel_size: size, kernel_sizes: sizes } = unit;
  const parts = shares.map((share, k) => element("i", { class: `kernel-${k}`, style: { width: `${share * 100}%` } }));
  const said = shares.map((share, k) => `${kernelName(sizes[k])} ${percent(share)}`).join(", ");
  return element("dl", { class: "unit-scale" },
    element("div", {}, element("dt", {}, "Scale"), element("dd", {}, `${scale.toFixed(1)}\u00D7`)),
    element("div", {}, element("dt", {}, "Difference"), element("dd", { "data-difference": difference }, signed(difference))),
    element("div", { class: "shares" }, element("dt", {}, "Shares"),
      element("dd", {}, element("span", { class: "stack", "aria-hidden": "true" }, ...parts), element("small", {}, said))),
    element("div", {}, element("dt", {}, "Mean kernel"), element("dd", {}, plain(size))));
}

// The same numbers for every unit, for those who would rather read than look.
export function unitTable(scales) {
  const [{ units }] = scales;
  const sizes = units[0].kernel_sizes;
  const heads = ["Unit", "Module", "Channels", ...scales.map(({ scale }) => `Difference at ${scale.toFixed(1)}\u00D7`),
    ...sizes.map((size) => `Share of ${kernelName(size)}`), "Mean kernel size"];
  const rows = units.map((unit, i) => element("tr", {}, element("th", { scope: "row" }, unit.unit), ...[
    unit.module, unit.channels, ...scales.map((each) => signed(each.units[i].attention_difference, 4)),
    ...unit.mean_attention.map((share) => share.toFixed(4)), plain(unit.mean_kernel_size, 3),
  ].map((text) => element("td", {}, String(text)))));
  return element("table", {},
    element("caption", {}, "Kernel attention of every unit; shares and mean kernel size at scale 1.0"),
    element("thead", {}, element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)))),
    element("tbody", {}, ...rows));
}
