// Why an image was ranked as it was: asks POST /explain, and shows where the evidence lies and which kernels were chosen.

import { download, stem } from "./downloads.js";
import { button, element, say } from "./elements.js";
import { milliseconds } from "./numbers.js";
import { post } from "./service.js";
import { Where } from "./where.js";
import { Which } from "./which.js";

export const explainPath = (index) => (index === null ? "explain" : `explain?class_index=${index}`);

export class Why {
  #host;
  #labels;
  #item = null;
  #index = null; // of the class asked for; null: the first prediction
  #control = null;
  #heading = element("h2", { tabindex: -1, id: "why-heading" }, "Why?");
  #state = element("p", { class: "muted", role: "status" });
  #problem = element("div", { class: "problem", role: "alert" });
  #again = button("Try again", () => this.#ask(this.#index));
  #where = new Where();
  #which = new Which((look) => this.#where.light(look));
  #pair = element("div", { class: "why-pair", hidden: true }, this.#where.node, this.#which.node);
  #tools = element("div", { class: "tools", hidden: true },
    button("Save the figure", () => this.#save("figure", "")),
    button("Save the photograph with its map", () => this.#save("map", "picture=overlay")),
    button("Save as JSON", () => this.#saveJson()));

  // `labels()` gives the model's classes, `close()` is called by the button.
  constructor(host, { labels, close }) {
    this.#host = host;
    this.#labels = labels;
    this.#again.hidden = true;
    host.setAttribute("role", "region");
    host.setAttribute("aria-labelledby", "why-heading");
    const top = element("div", { class: "heading" }, this.#heading, button("Close", close));
    host.append(top, this.#state, this.#problem, this.#again, this.#pair, this.#tools);
  }

  open(item) {
    this.#item = item;
    this.#host.hidden = false;
    this.#pair.hidden = this.#tools.hidden = true;
    this.#heading.textContent = "Why?";
    this.#heading.focus();
    this.#ask(null);
  }

  close() {
    this.#control?.abort();
    this.#host.hidden = true;
    this.#where.close();
    this.#item = null;
  }

  async #ask(index) {
    const item = this.#item;
    this.#control?.abort();
    const mine = (this.#control = new AbortController());
    this.#index = index;
    this.#problem.replaceChildren();
    this.#again.hidden = true;
    this.#where.busy(true);
    try {
      const kept = item.explanations.get(index) ?? (await this.#explanation(item, index, mine.signal));
      if (mine.signal.aborted) return;
      item.explanations.set(index, kept);
      this.#show(item, kept);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!error.plain) throw error;
      this.#fail(error);
    }
    this.#where.busy(false);
  }

  #explanation(item, index, signal) {
    this.#state.textContent = "Looking into it …";
    return post(explainPath(index), item.file, { signal, heard: {
      waiting: (seconds) => { this.#state.textContent = `The service is busy. Trying again in ${seconds} s.`; },
    } });
  }

  #show(item, { data, timings }) {
    const fresh = this.#pair.hidden;
    const activation = data.class_activation;
    this.#heading.textContent = `Why ${activation.label}?`;
    const took = timings.total === undefined ? "" : ` Explained in ${milliseconds(timings.total)}.`;
    this.#state.textContent = `Three looks at the image: as it is, and with its centre enlarged.${took}`;
    this.#pair.hidden = this.#tools.hidden = false;
    if (fresh) {
      this.#where.open(item, data, this.#labels(), (index) => this.#ask(index));
      this.#which.open(data);
    }
    this.#where.show(activation, data.image);
    say(`The map shows the evidence for ${activation.label}.`);
  }

  #fail(failure) {
    this.#state.textContent = "";
    this.#problem.replaceChildren(...failure.shown());
    this.#again.hidden = false;
  }

  async #save(what, query) {
    const { name, file } = this.#item;
    const path = [explainPath(this.#index), query].filter(Boolean).join(this.#index === null ? "?" : "&");
    this.#problem.replaceChildren();
    say("Drawing …");
    try {
      const heard = { waiting: (seconds) => say(`The service is busy. Trying again in ${seconds} s.`) };
      const { data } = await post(path, file, { accept: "image/png", heard });
      say("Saved.");
      download(data, `${stem(name)}-${what}.png`);
    } catch (error) {
      if (!error.plain) throw error;
      this.#problem.replaceChildren(...error.shown());
    }
  }

  #saveJson() {
    const { data } = this.#item.explanations.get(this.#index);
    download(`${JSON.stringify(data, null, 2)}\n`, `${stem(this.#item.name)}-explanation.json`, "application/json");
  }
}
