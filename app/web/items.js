// The images of this visit, in order of arrival, and what has become of each. Sends a few at a time, one request an image.
// Knows nothing of what is shown: it tells of each change by an event.

import { post } from "./service.js";

const AT_ONCE = 4; // requests under way; more would only wait in the service's queue

// An item: {id, file, name, state, progress, note, answer, timings, failure, control, explanations}. Its state is one of
// waiting, sending (progress 0 to 1), looking, later (note says for how long), done, failed, cancelled.
export class Items extends EventTarget {
  #items = [];
  #next = 1;
  #under = 0;

  get all() {
    return this.#items;
  }

  find(id) {
    return this.#items.find((item) => item.id === id) ?? null;
  }

  add(files) {
    const added = files.map(({ file, name }) => ({
      id: this.#next++, file, name, state: "waiting", progress: 0, note: "", explanations: new Map(),
    }));
    this.#items.push(...added);
    this.#tell("added", { added });
    this.#pump();
    return added;
  }

  remove(item) {
    item.control?.abort();
    const index = this.#items.indexOf(item);
    this.#items.splice(index, 1);
    this.#tell("removed", { item, index });
  }

  clear() {
    const gone = this.#items;
    this.#items = []; // before anybody is told: else the last but one would be followed by the last, shown at length
    for (const item of gone) item.control?.abort();
    for (const item of gone) this.#tell("removed", { item, index: 0 });
  }

  cancel(item) {
    item.control?.abort();
    this.#change(item, { state: "cancelled" });
  }

  again(items) {
    for (const item of items) this.#change(item, { state: "waiting", failure: null, progress: 0, note: "" });
    this.#pump();
  }

  #pump() {
    while (this.#under < AT_ONCE) {
      const item = this.#items.find(({ state }) => state === "waiting");
      if (!item) return;
      this.#under += 1;
      this.#classify(item).finally(() => {
        this.#under -= 1;
        this.#pump();
      });
    }
  }

  async #classify(item) {
    const control = (item.control = new AbortController());
    const change = (values) => { if (item.control === control) this.#change(item, values); };
    const heard = {
      progress: (part) => change(part < 1 ? { state: "sending", progress: part } : { state: "looking", progress: 1 }),
      waiting: (seconds, { plain }) => change({ state: "later", note: `${plain.split(". ")[0]}. Trying again in ${seconds} s.` }),
      asking: () => change({ state: "later", note: "Waiting for the key." }),
    };
    change({ state: "sending", progress: 0 });
    try {
      const { data, timings } = await post("classify", item.file, { signal: control.signal, heard });
      change({ state: "done", answer: data, timings });
    } catch (error) {
      if (error.name === "AbortError") change({ state: "cancelled" });
      else if (error.plain) change({ state: "failed", failure: error });
      else throw error;
    } finally {
      if (item.control === control) item.control = null;
    }
  }

  #change(item, values) {
    Object.assign(item, values);
    this.#tell("changed", { item });
  }

  #tell(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}

export const busy = (item) => ["waiting", "sending", "looking", "later"].includes(item.state);
export const retriable = (item) => ["failed", "cancelled"].includes(item.state);

// What stands below an image while there is no ranking yet.
export function stateText(item) {
  const texts = {
    waiting: "Waiting for its turn.",
    sending: `Sending, ${Math.round(item.progress * 100)} %`,
    looking: "Looking at it …",
    later: item.note,
    done: "No class scored high enough.",
    failed: item.failure?.plain ?? "",
    cancelled: "Cancelled.",
  };
  const best = item.answer?.predictions[0];
  return item.state === "done" && best ? best.label : texts[item.state];
}
