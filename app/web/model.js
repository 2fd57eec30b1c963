// The card of each model: what it is, what it was trained on, how accurate it is, on what it runs and why.

import { at, element } from "./elements.js";
import { plain, sentence } from "./numbers.js";
import { models, pause, waitOf } from "./service.js";

const ACCURACY = { top1: "Accuracy, best guess right", top5: "Accuracy, among the best five" };

let known = [];
let asking = false;

const cardOf = (digest) => known.find((model) => model.digest === digest);

// The classes of the model with this digest; none until it is known.
export const knownLabels = ({ digest }) => cardOf(digest)?.labels ?? [];

// An answer names the model that gave it: where that is none of those on the cards, the service has another one by now.
export function notice({ digest }) {
  if (known.length && !cardOf(digest)) showModels();
}

export async function showModels() {
  if (asking) return;
  asking = true;
  try {
    await askUntilKnown();
  } finally {
    asking = false;
  }
}

async function askUntilKnown() {
  for (;;) {
    try {
      known = await models();
      at("models").replaceChildren(...known.map(card));
      return;
    } catch (error) {
      if (!error.plain) throw error;
      at("models").replaceChildren(element("p", { class: "muted" }, error.plain));
      if (error.status === 403) return; // it will not know this page better in a moment
      await pause(waitOf(error)); // a service that is still loading its model, too
    }
  }
}

function card(model) {
  const facts = element("dl", { class: "model" });
  const add = (name, value, reason = "") => facts.append(element("div", {}, element("dt", {}, name),
    element("dd", {}, value, reason ? element("small", {}, reason) : null)));
  add("Name", model.name);
  add("Architecture", model.variant, `${plain(model.parameters / 1e6, 1)} million parameters, ${plain(model.gmacs)} billion `
    + "multiplications an image");
  for (const [name, value] of Object.entries(model.accuracy)) add(accuracyName(name), `${Number(value).toFixed(2)} %`);
  add("Runs on", model.device.value, because(model.device));
  add("Engine", model.engine.value, because(model.engine));
  add("Arithmetic", model.dtype.value, because(model.dtype));
  if (model.images_per_second !== null) {
    add("Speed", `${Math.round(model.images_per_second)} images a second`, "the network alone, at its start");
  }
  if (model.licence) add("Licence of the weights", model.licence);
  add("Weights", model.checkpoint, `${model.digest.slice(0, 19)}…`);
  const names = model.labels.map((each) => each.label).join(", ");
  const described = model.description ? element("p", { class: "description" }, sentence(model.description)) : null;
  return element("article", {}, described, facts,
    element("details", {}, element("summary", {}, "What is done to an image first"),
      element("p", {}, model.preprocess.description)),
    element("details", {}, element("summary", {}, `The ${model.labels.length} classes it knows`),
      element("p", { class: "names", tabindex: 0, role: "region", "aria-label": "Classes" }, names)));
}

// Who chose it is of no matter here.
const because = ({ reason }) => reason.replace(/^auto: /, "");

function accuracyName(key) {
  return ACCURACY[key] ?? `Accuracy, ${key.replace(/^top1_/, "best guess right, ").replaceAll("_", " ")}`;
}
