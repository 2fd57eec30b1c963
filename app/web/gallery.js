// Several images as a grid, with results as they come; counts, retries, removal and exports.

import { download } from "./downloads.js";
import { at, button, element, hide, say } from "./elements.js";
import { csv, json } from "./exports.js";
import { busy, retriable, stateText } from "./items.js";
import { count, percent } from "./numbers.js";
import { showSmall } from "./thumbnails.js";

export class Gallery {
  #items;
  #open;
  #tiles = new Map(); // item -> its parts
  #stale = new Set(); // items whose tile waits for the next frame
  #asked = false;
  #told = ""; // why something waits, as last said
  #near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries.filter((entry) => entry.isIntersecting)) {
      if (isIntersecting) this.#near.unobserve(target);
      const item = this.#items.find(Number(target.dataset.item));
      if (item) showSmall(item.file, item.name, target);
    }
  }, { rootMargin: "300px" });

  // `open(item)` shows one at length.
  constructor(items, open) {
    this.#items = items;
    this.#open = open;
    items.addEventListener("added", ({ detail: { added } }) => {
      at("tiles").append(...added.map((item) => this.#tile(item)));
      this.#count();
    });
    items.addEventListener("changed", ({ detail: { item } }) => this.#later(item));
    items.addEventListener("removed", ({ detail: { item, index } }) => this.#gone(item, index));
    at("stop").addEventListener("click", () => items.all.filter(busy).reverse().forEach((item) => items.cancel(item)));
    at("retry-all").addEventListener("click", () => items.again(items.all.filter(retriable)));
    at("clear").addEventListener("click", () => {
      items.clear();
      at("file").focus();
    });
    at("save-csv").addEventListener("click", () => download(csv(items.all), "classified.csv", "text/csv;charset=utf-8"));
    at("save-json").addEventListener("click", () => download(json(items.all), "classified.json", "application/json"));
  }

  focus(item) {
    (this.#tiles.get(item)?.open ?? at("gallery-heading")).focus();
  }

  #tile(item) {
    const parts = {
      picture: element("span", { class: "thumbnail", "data-item": item.id }),
      label: element("span", { class: "label" }),
      score: element("span", { class: "score" }),
      bar: element("i"),
    };
    const bar = element("span", { class: "bar", "aria-hidden": "true" }, parts.bar);
    parts.open = element("button", { type: "button", class: "open", on: { click: () => this.#open(item) } }, parts.picture,
      element("span", { class: "name" }, item.name), element("span", { class: "said" }, parts.label, parts.score), bar);
    const remove = button("\u00D7", () => this.#items.remove(item), { class: "remove", "aria-label": `Remove ${item.name}` });
    parts.node = element("li", { class: "tile" }, parts.open, remove);
    this.#tiles.set(item, parts);
    this.#near.observe(parts.picture);
    this.#fill(item, parts);
    return parts.node;
  }

  #fill(item, { node, label, score, bar }) {
    const best = item.answer?.predictions[0];
    node.dataset.state = item.state;
    label.textContent = stateText(item);
    score.textContent = best ? percent(best.score) : "";
    bar.style.setProperty("width", `${(best?.score ?? (busy(item) ? item.progress : 0)) * 100}%`);
  }

  #gone(item, index) {
    const { node, picture } = this.#tiles.get(item);
    const focused = node.contains(document.activeElement);
    this.#near.unobserve(picture);
    this.#tiles.delete(item);
    this.#stale.delete(item);
    node.remove();
    const next = this.#items.all[Math.min(index, this.#items.all.length - 1)];
    if (focused) next ? this.#tiles.get(next).node.querySelector(".remove").focus() : at("file").focus();
    this.#count();
  }

  // Many changes come between two frames; each tile is filled once for all of them.
  #later(item) {
    this.#stale.add(item);
    if (this.#asked) return;
    this.#asked = true;
    requestAnimationFrame(() => {
      this.#asked = false;
      for (const each of this.#stale) if (this.#tiles.has(each)) this.#fill(each, this.#tiles.get(each));
      this.#stale.clear();
      this.#count();
    });
  }

  #count() {
    const all = this.#items.all;
    const of = (state) => all.filter((item) => item.state === state).length;
    const [done, failed, cancelled, left] = [of("done"), of("failed"), of("cancelled"), all.filter(busy).length];
    const words = [`${done} of ${count(all.length, "image")} done`];
    if (failed) words.push(`${failed} failed`);
    if (cancelled) words.push(`${cancelled} cancelled`);
    const later = all.find(({ state }) => state === "later");
    at("counts").textContent = `${words.join(", ")}.${later ? ` ${later.note}` : ""}`;
    at("gallery-progress").value = all.length ? 1 - left / all.length : 0;
    at("gallery-progress").hidden = !left;
    hide(at("stop"), !left, at("gallery-heading"));
    hide(at("retry-all"), !all.some(retriable), at("gallery-heading"));
    this.#tell(all, left, later);
  }

  // Once at the end; on the way only what is new, not the counts again with every image.
  #tell(all, left, later) {
    if (!left) this.#told = "";
    if (all.length < 2) return;
    if (!left) say(at("counts").textContent);
    else if (later && later.note !== this.#told) say(this.#told = later.note);
  }
}
