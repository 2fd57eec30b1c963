// The page for people, put together: images come in, are sent to /classify, and are shown one at length or many as a grid.
// It knows the public API only. Text from the service is set as text, never as markup.

import { Detail } from "./detail.js";
import { at } from "./elements.js";
import { Gallery } from "./gallery.js";
import { connectIntake } from "./intake.js";
import { Items } from "./items.js";
import { connectKey } from "./key.js";
import { knownLabels, notice, showModels } from "./model.js";

const items = new Items();
const detail = new Detail(items, labelsOf);
const gallery = new Gallery(items, (item) => open(item, { focus: true, record: true }));

// Of the model of an explanation, which may be newer than what is known.
function labelsOf(model) {
  notice(model);
  return knownLabels(model);
}

// What is shown is one image or the grid; opening one from the grid can be undone by the browser's way back.
function open(item, { focus, record }) {
  // One entry above the grid's, however many are opened one after the other: so "All images" and the way back agree.
  if (record) history[history.state?.item ? "replaceState" : "pushState"]({ item: item.id }, "");
  detail.open(item, { focus });
  arrange();
}

function showAll({ focus }) {
  const last = detail.item;
  detail.close();
  arrange();
  if (focus) gallery.focus(last);
}

function arrange() {
  const several = items.all.length > 1;
  at("gallery").hidden = !several || detail.item !== null;
  at("between").hidden = !several;
  document.body.classList.toggle("filled", items.all.length > 0);
  if (!several || !detail.item) return;
  const place = items.all.indexOf(detail.item);
  at("position").textContent = `${place + 1} of ${items.all.length}`;
  at("previous").disabled = place === 0;
  at("next").disabled = place === items.all.length - 1;
}

function step(by) {
  const next = items.all[items.all.indexOf(detail.item) + by];
  if (!next) return;
  history.replaceState({ item: next.id }, "");
  open(next, { focus: true, record: false });
}

items.addEventListener("removed", () => {
  if (detail.item && !items.all.includes(detail.item)) detail.close();
  const focus = at("gallery").contains(document.activeElement); // which is about to be hidden
  if (items.all.length === 1 && !detail.item) open(items.all[0], { focus, record: false });
  arrange();
});
items.addEventListener("changed", ({ detail: { item } }) => { if (item.state === "done") notice(item.answer.model); });
at("back").addEventListener("click", () => {
  if (!leaveEntry()) showAll({ focus: true });
});
at("previous").addEventListener("click", () => step(-1));
at("next").addEventListener("click", () => step(1));
addEventListener("popstate", ({ state }) => {
  const item = items.find(state?.item);
  if (item) open(item, { focus: true, record: false });
  else if (items.all.length > 1 && detail.item) showAll({ focus: true });
});

// Goes back where the entry is one of ours, and so leaves no dead one behind. Whether it does.
function leaveEntry() {
  if (!history.state?.item) return false;
  history.back();
  return true;
}

connectIntake((files) => {
  const focus = at("detail").contains(document.activeElement); // something pasted: what is open goes
  const added = items.add(files);
  if (added.length === 1) {
    open(added[0], { focus, record: items.all.length > 1 });
  } else {
    showAll({ focus });
    leaveEntry();
  }
});
connectKey();
showModels();
