// Why an image was ranked as it was: asks POST /explain, and shows where the evidence lies and which kernels were chosen.

import { download, stem } from "./downloads.js";
import { button, element, hide, say } from "./elements.js";
import { milliseconds } from "./numbers.js";
import { post } from "./service.js";
import { Where } from "./where.js";
import { Which } from "./which.js";

export const explainPath = (index) => (index === null ? "explain" : `explain?class_index=${index}`);

export class Why {
  #host;
  #labels;
  #item = null;
  #index = null; // of the class last asked for, for another try; null: the first prediction
  #shown = null; // {index, data}: what is shown, and so what is saved
  #visit = new AbortController(); // from open to close: what was begun for one image says nothing of the next
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

  // `labels(model)` gives a model's classes, `close()` is called by the button.
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
    this.#visit.abort();
    this.#visit = new AbortController();
    this.#item = item;
    this.#shown = null;
    this.#host.hidden = false;
    this.#pair.hidden = this.#tools.hidden = true;
    this.#heading.textContent = "Why?";
    this.#heading.focus();
    this.#ask(null);
  }

  close() {
    this.#visit.abort();
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
    hide(this.#again, true, this.#heading);
    this.#where.busy(true);
    try {
      const kept = item.explanations.get(index) ?? (await this.#explanation(item, index, mine.signal));
      if (mine.signal.aborted) return;
      this.#show(item, index, kept);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!error.plain) throw error;
      if (mine.signal.aborted) return;
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

  #show(item, index, kept) {
    const { data, timings } = kept;
    const swapped = this.#shown && this.#shown.data.model.digest !== data.model.digest;
    const fresh = this.#pair.hidden || swapped;
    if (swapped) item.explanations.clear(); // they are another model's
    item.explanations.set(index, kept);
    this.#shown = { index, data };
    const activation = data.class_activation;
    this.#heading.textContent = `Why ${activation.label}?`;
    const took = timings.total === undefined ? "" : ` Explained in ${milliseconds(timings.total)}.`;
    const other = data.model.digest === item.answer.model.digest ? ""
      : " By another model than the ranking above: the service has changed it since.";
    this.#state.textContent = `Three looks at the image: as it is, and with its centre enlarged.${took}${other}`;
    this.#pair.hidden = this.#tools.hidden = false;
    if (fresh) {
      const { signal } = this.#visit;
      const pick = (wanted) => { if (!signal.aborted) this.#ask(wanted); }; // the list asks a moment later
      this.#where.open(item, data, this.#labels(data.model), pick);
      this.#which.open(data);
    }
    this.#where.show(activation, data.image);
    say(`The map shows the evidence for ${activation.label}.`);
  }

  #fail(failure) {
    this.#state.textContent = "";
    this.#problem.replaceChildren(...failure.shown());
    this.#again.hidden = false;
    if (this.#shown) this.#where.mark(this.#shown.data.class_activation.index);
  }

  async #save(what, query) {
    const { name, file } = this.#item;
    const { index } = this.#shown;
    const { signal } = this.#visit;
    const path = [explainPath(index), query].filter(Boolean).join(index === null ? "?" : "&");
    this.#problem.replaceChildren();
    say("Drawing …");
    try {
      const heard = { waiting: (seconds) => say(`The service is busy. Trying again in ${seconds} s.`) };
      const { data } = await post(path, file, { accept: "image/png", heard, signal });
      if (signal.aborted) return;
      say("Saved.");
      download(data, `${stem(name)}-${what}.png`);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!error.plain) throw error;
      if (!signal.aborted) this.#problem.replaceChildren(...error.shown());
    }
  }

  #saveJson() {
    download(`${JSON.stringify(this.#shown.data, null, 2)}\n`, `${stem(this.#item.name)}-explanation.json`, "application/json");
  }
}
