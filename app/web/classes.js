// The choice of a class: the predictions at hand, and every class of the model in a list that can be searched.

import { element } from "./elements.js";
import { count, percent } from "./numbers.js";

const SETTLED_MS = 250; // arrow keys run through the list; each stop would be a request
const SHOWN = 200; // of a thousand classes; the search finds the others

// `pick(index)` is called for each choice; `labels` may be empty where the model's card did not come.
export function classChoice({ predictions, chosen, labels, pick }) {
  const radios = predictions.map(({ index, label, score }) => {
    const on = { change: () => pick(index) };
    return element("label", { class: "chip" },
      element("input", { type: "radio", name: "class", value: index, checked: index === chosen, on }),
      element("span", {}, `${label} `, element("small", {}, percent(score))));
  });
  return [
    element("fieldset", { class: "chips" }, element("legend", {}, "Evidence for"), ...radios),
    labels.length > predictions.length ? otherClass({ labels, pick }) : null,
  ].filter(Boolean);
}

function otherClass({ labels, pick }) {
  const list = element("select", { id: "other-class", size: 6 });
  const found = element("p", { class: "note", role: "status" });
  const search = element("input", { type: "search", id: "class-search", autocomplete: "off", spellcheck: "false" });
  let settling = 0;
  const fill = () => {
    const wanted = search.value.trim().toLowerCase();
    const matching = labels.filter(({ label, wnid }) => label.toLowerCase().includes(wanted) || wnid === wanted);
    list.replaceChildren(...matching.slice(0, SHOWN).map(({ index, label, wnid }) =>
      element("option", { value: index }, wnid ? `${label} (${wnid})` : label)));
    const more = matching.length > SHOWN ? `, the first ${SHOWN} are shown` : "";
    found.textContent = `${count(matching.length, "class", "classes")}${more}.`;
  };
  search.addEventListener("input", fill);
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !list.options.length) return;
    list.selectedIndex = 0;
    pick(Number(list.value));
  });
  list.addEventListener("change", () => {
    clearTimeout(settling);
    const index = Number(list.value);
    settling = setTimeout(() => pick(index), SETTLED_MS);
  });
  fill();
  return element("details", { class: "other" }, element("summary", {}, `Another of the ${labels.length} classes`),
    element("label", { for: "class-search" }, "Search"), search,
    element("label", { for: "other-class" }, "Class"), list, found);
}
