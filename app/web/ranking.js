// The best classes as bars with their labels and scores.

import { element } from "./elements.js";
import { percent } from "./numbers.js";

export function ranking(predictions) {
  return predictions.map((prediction) => {
    const wnid = prediction.wnid ? element("small", {}, prediction.wnid) : null;
    const filled = element("i", { style: { width: `${prediction.score * 100}%` } });
    return element("li", {},
      element("span", { class: "label" }, prediction.label, wnid ? " " : null, wnid),
      element("span", { class: "score" }, percent(prediction.score)),
      element("span", { class: "bar", "aria-hidden": "true" }, filled)); // the score beside it says the same
  });
}
