// The half of an explanation that says which: the kernels each unit chose, drawn over depth, at the scales that are switched on.

import { AttentionChart, kernelName, limitOf, mark } from "./attention.js";
import { drawn, element } from "./elements.js";
import { percent, plain, sentence } from "./numbers.js";
import { unitCard, unitTable } from "./unit.js";

export class Which {
  node;
  #scales = [];
  #chosen = 0;
  #light;
  #words = element("p", { class: "note" });
  #honest = element("p", { class: "honest" });
  #switches = element("fieldset", { class: "chips scales" });
  #host = element("div", { class: "chart" });
  #chart = new AttentionChart(this.#host);
  #whole = element("input", { type: "checkbox", id: "whole" });
  #range = element("span", { class: "note" });
  #unit = element("div", { class: "unit" });
  #table = element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Kernel attention as numbers" });

  // `light(look)` shows on the photograph what a scale saw.
  constructor(light) {
    this.#light = light;
    this.#whole.addEventListener("change", () => this.#draw());
    this.node = element("section", { class: "which", "aria-labelledby": "which-heading" },
      element("h3", { id: "which-heading" }, "Which kernels it chose"), this.#words, this.#switches, this.#host,
      element("p", { class: "below" }, this.#range,
        element("label", { class: "tick" }, this.#whole, " Whole range, \u22121 to 1")),
      this.#unit, this.#honest, element("details", {}, element("summary", {}, "The same as a table"), this.#table));
  }

  open({ scale_sweep: sweep, comparable_to_paper: comparable, comparable_reason: reason }) {
    this.#scales = sweep.map(({ scale, kernel_attention: units, predictions }, look) =>
      ({ scale, units, predictions, look, shown: true }));
    const { units } = this.#scales[0];
    this.#chosen = Math.min(this.#chosen, units.length - 1);
    this.#words.textContent = words(units[0].kernel_sizes);
    const told = comparable ? "These numbers can be read as in the paper" : "These numbers cannot be compared with the paper's";
    this.#honest.textContent = sentence(`${told}: ${reason}`);
    const switches = this.#scales.map((each) => this.#switch(each));
    this.#switches.replaceChildren(element("legend", {}, "The centre enlarged"), ...switches);
    this.#table.replaceChildren(unitTable(this.#scales));
    this.#draw();
  }

  #switch(each) {
    const best = each.predictions[0];
    const change = () => {
      each.shown = input.checked;
      this.#draw();
    };
    const input = element("input", { type: "checkbox", checked: true, value: each.scale, on: { change } });
    const sample = drawn("svg", { class: `sample line look-${each.look}`, width: 30, height: 14, "aria-hidden": "true" },
      drawn("polyline", { points: "0,7 30,7" }), mark(each.look, 15, 7, 4));
    const lit = () => this.#light(each.look);
    const dark = () => this.#light(null);
    return element("label", { class: "chip", on: { pointerenter: lit, pointerleave: dark, focusin: lit, focusout: dark } },
      input, element("span", {}, sample, ` ${each.scale.toFixed(1)}\u00D7 `,
        best ? element("small", {}, `${best.label} ${percent(best.score)}`) : null));
  }

  #draw() {
    const given = { scales: this.#scales, whole: this.#whole.checked, chosen: this.#chosen, choose: (i) => this.#choose(i) };
    const limit = limitOf(this.#scales, given.whole);
    this.#range.textContent = limit === 1 ? "The axis shows the whole of what is possible."
      : `The axis runs from ${plain(-limit)} to ${plain(limit)}, of ${plain(-1, 0)} to 1 that are possible.`;
    this.#chart.draw(given);
    this.#unit.replaceChildren(...unitCard(this.#scales, this.#chosen));
  }

  #choose(i) {
    if (i === this.#chosen) return;
    this.#chosen = i;
    this.#chart.choose(i);
    this.#unit.replaceChildren(...unitCard(this.#scales, i));
  }
}

function words(sizes) {
  const [small, large] = [kernelName(sizes[0]), kernelName(sizes.at(-1))];
  const many = sizes.length === 2 ? "two" : String(sizes.length);
  return `Each unit looks through kernels of ${many} sizes and weighs them anew for every image. Above 0 it leans to ${large}, `
    + `below to ${small}. This depends on the image, not on a class, and says nothing of where.`;
}
