// The half of an explanation that says where: the photograph under its class activation map, with opacity and choice of class.

import { legend, mapTable, paint } from "./activation.js";
import { classChoice } from "./classes.js";
import { drawn, element } from "./elements.js";
import { showWhole } from "./thumbnails.js";

const OPACITY = 70; // percent, at first

export class Where {
  node;
  #image = element("img", { alt: "", hidden: true });
  #canvas = element("canvas", { role: "img" });
  #frames = drawn("svg", { class: "frames", "aria-hidden": "true", preserveAspectRatio: "none" });
  #placeholder = element("p", { class: "note", hidden: true });
  #picture = element("div", { class: "picture mapped" }, this.#image, this.#canvas, this.#frames);
  #slider = element("input", { type: "range", id: "opacity", min: 0, max: 100, step: 5, value: OPACITY });
  #legend = element("div", { class: "legend" });
  #choice = element("div", { class: "choice" });
  #table = element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "The map as numbers" });
  #release = () => {};

  constructor() {
    this.#slider.addEventListener("input", () => this.#see());
    this.node = element("section", { class: "where", "aria-labelledby": "where-heading" },
      element("h3", { id: "where-heading" }, "Where the evidence lies"), this.#picture, this.#placeholder,
      element("div", { class: "opacity" }, element("label", { for: "opacity" }, "Opacity of the map"), this.#slider),
      this.#legend, this.#choice, element("details", {}, element("summary", {}, "The map as numbers"), this.#table));
  }

  // The photograph and the choice, once an item; `pick(index)` asks for another class.
  open(item, { predictions, image, class_activation: activation, scale_sweep: sweep }, labels, pick) {
    this.close();
    this.#release = showWhole(item.file, item.name, this.#image, this.#placeholder, image);
    this.#image.alt = ""; // the canvas over it says what there is to see
    this.#picture.style.setProperty("aspect-ratio", `${image.width} / ${image.height}`);
    this.#picture.style.setProperty("--ratio", `${image.width / image.height}`);
    this.#frames.setAttribute("viewBox", `0 0 ${image.width} ${image.height}`);
    this.#frames.replaceChildren(...sweep.map(({ box: { left, top, right, bottom } }, look) => drawn("rect", {
      class: `look-${look}`, x: left, y: top, width: right - left, height: bottom - top, "vector-effect": "non-scaling-stroke",
    })));
    this.#choice.replaceChildren(...classChoice({ predictions, chosen: activation.index, labels, pick }));
    this.#see();
  }

  show(activation, image) {
    paint(this.#canvas, activation, image);
    this.#canvas.setAttribute("aria-label", `Where the evidence for ${activation.label} lies; the numbers are below`);
    this.#legend.replaceChildren(...legend(activation));
    this.#table.replaceChildren(mapTable(activation));
    this.mark(activation.index);
  }

  // Shows which class is chosen; a list in which a keyboard moves along is left alone.
  mark(index) {
    for (const radio of this.#choice.querySelectorAll("input[type=radio]")) radio.checked = Number(radio.value) === index;
    const list = this.#choice.querySelector("select");
    if (list && list !== document.activeElement) list.value = String(index);
  }

  busy(is) {
    this.#picture.setAttribute("aria-busy", String(is));
  }

  // Shows the part of the image that the network saw at a scale; null shows none.
  light(look) {
    [...this.#frames.children].forEach((frame, i) => frame.classList.toggle("lit", i === look));
  }

  close() {
    this.#release();
    this.#release = () => {};
  }

  #see() {
    this.#canvas.style.setProperty("opacity", this.#slider.value / 100);
    this.#slider.setAttribute("aria-valuetext", `${this.#slider.value} percent`);
  }
}
