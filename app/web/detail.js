// One image at length: its preview, what has become of it, the ranking, the timings, the request as a line, and why.

import { curlLine } from "./curl.js";
import { stem } from "./downloads.js";
import { at, button, element, hide, say } from "./elements.js";
import { busy, retriable, stateText } from "./items.js";
import * as keys from "./key.js";
import { bytes, percent } from "./numbers.js";
import { ranking } from "./ranking.js";
import { address } from "./service.js";
import { showWhole } from "./thumbnails.js";
import { timingsList } from "./timings.js";
import { Why } from "./why.js";

export class Detail {
  #items;
  #item = null;
  #release = () => {};
  #why;
  #shown = ""; // state that the ranking was last drawn for

  constructor(items, labels) {
    this.#items = items;
    this.#why = new Why(at("why"), { labels, close: () => this.#closeWhy() });
    at("cancel").addEventListener("click", () => {
      items.cancel(this.#item);
      at("again").focus(); // the button that had the focus has gone
    });
    at("again").addEventListener("click", () => {
      items.again([this.#item]);
      at("detail-heading").focus();
    });
    at("ask-why").addEventListener("click", () => {
      if (at("why").hidden) this.#openWhy();
      else this.#closeWhy();
    });
    items.addEventListener("changed", ({ detail: { item } }) => { if (item === this.#item) this.#draw(); });
  }

  get item() {
    return this.#item;
  }

  open(item, { focus }) {
    this.close();
    this.#item = item;
    at("detail").hidden = false;
    at("detail-heading").textContent = item.name;
    this.#release = showWhole(item.file, item.name, at("preview"), at("no-preview"));
    this.#draw();
    if (focus) at("detail-heading").focus();
  }

  close() {
    this.#why.close();
    at("ask-why").setAttribute("aria-expanded", "false");
    this.#release();
    this.#release = () => {};
    this.#item = null;
    this.#shown = "";
    at("detail").hidden = true;
  }

  #openWhy() {
    at("ask-why").setAttribute("aria-expanded", "true");
    this.#why.open(this.#item);
    this.#drawLines();
  }

  #closeWhy() {
    this.#why.close();
    at("ask-why").setAttribute("aria-expanded", "false");
    at("ask-why").focus();
    this.#drawLines();
  }

  #draw() {
    const item = this.#item;
    const under = busy(item);
    at("result").setAttribute("aria-busy", String(under));
    hide(at("under-way"), !under, at("detail-heading"));
    at("progress").hidden = item.state !== "sending";
    at("progress").value = item.progress;
    at("state").textContent = stateText(item);
    at("again").hidden = !retriable(item);
    if (this.#shown === item.state) return;
    this.#shown = item.state;
    const { answer, failure, file } = item;
    const size = answer ? `, ${answer.image.width} × ${answer.image.height} pixels, ${answer.image.format}` : "";
    at("facts").textContent = `${bytes(file.size)}${size}`;
    const best = answer?.predictions[0];
    at("ranking").replaceChildren(...(answer ? ranking(answer.predictions) : []));
    at("no-class").hidden = !answer || Boolean(best);
    at("ask-why").hidden = !answer;
    at("timings").replaceChildren(...(answer ? [timingsList(item.timings)] : []));
    at("problem").replaceChildren(...(failure ? failure.shown() : []));
    if (item.state === "cancelled") at("problem").replaceChildren(element("strong", {}, "Cancelled."));
    this.#drawLines();
    if (item.state === "later" || item.state === "looking") say(stateText(item));
    if (best) say(`Most likely ${best.label}, ${percent(best.score)}.`);
  }

  #drawLines() {
    const { answer, name } = this.#item;
    at("request").hidden = !answer;
    const file = name.split("/").pop();
    const key = Boolean(keys.current());
    const lines = [["Classify", curlLine(address("classify"), file, { key })]];
    if (!at("why").hidden) {
      lines.push(["Explain", curlLine(address("explain"), file, { key })]);
      lines.push(["Figure", curlLine(address("explain"), file, { key, accept: "image/png", save: `${stem(file)}-figure.png` })]);
    }
    at("lines").replaceChildren(...lines.map(([title, line]) => copyLine(title, line)));
  }
}

function copyLine(title, line) {
  const code = element("code", {}, line);
  const copy = button("Copy", async () => {
    try {
      await navigator.clipboard.writeText(line);
      say("Copied.");
      copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code); // no clipboard without https: then by hand
      copy.textContent = "Selected: press Ctrl+C";
    }
  }, { "aria-label": `Copy the line: ${title}` });
  return element("div", { class: "line-to-copy" },
    element("pre", { tabindex: 0, role: "region", "aria-label": `Line: ${title}` }, code), copy);
}
