// What can go wrong, in words for somebody who knows no HTTP, with what to do about it.

import { element } from "./elements.js";
import { sentence } from "./numbers.js";

// By the last part of a problem's `type`. The service's own detail is shown below.
const PLAIN = {
  "image-undecodable": "This file is not an image that can be read. It may be damaged, or no image at all. Try another one.",
  "image-unsupported": "This image format is not supported. Save it as JPEG or PNG and try again.",
  "image-too-large": "This image has too many pixels. A smaller copy of it will do just as well.",
  "image-over-limit": "This image is too large or too complicated. A smaller copy of it will do just as well.",
  "decoder-unavailable": "The service cannot read this kind of image at the moment. Please try again shortly.",
  "image-unusable": "This image cannot be used. Please try another one.",
  "malformed-request": "The file is empty or did not arrive whole. Please look at it, and try again.",
  "body-too-large": "This file is too large. A smaller copy of the image will do just as well.",
  "body-timeout": "Sending the file took too long. Please try again, or send a smaller one.",
  "unsupported-media-type": "This kind of file is not accepted. Please choose an image.",
  "unauthorised": "This service wants a key. Whoever runs it can give you one.",
  "scope-forbidden": "The key does not allow this. Ask whoever runs the service for one that may classify images.",
  "rate-limited": "These were too many images in a short time. Please try again shortly.",
  "overloaded": "The service is very busy at the moment. Please try again shortly.",
  "not-ready": "The service is not ready yet. Please try again shortly.",
  "deadline-passed": "The answer took too long. Please try again.",
  "invalid-parameter": "The service now runs another model, which has no such class. Please load this page anew.",
  "not-acceptable": "This service cannot draw pictures. The numbers can be saved as JSON.",
  "drawing-unavailable": "The picture cannot be drawn at the moment. Please try again shortly.",
  "internal-error": "Something went wrong in the service. It is not your fault; please try again.",
};

// A failure that can be shown: `plain` says what and what to do, `detail` is the service's own word.
export class Failure extends Error {
  constructor(plain, detail, { slug = "", status = 0, retryAfter = null, document = null } = {}) {
    super(plain);
    Object.assign(this, { plain, detail, slug, status, retryAfter, document });
  }

  // Whether it is worth asking again by itself: the service said so, or whatever stands before it did.
  get passes() {
    return this.status === 429 || this.status === 503;
  }

  shown() {
    return [element("strong", {}, this.plain), element("small", {}, this.detail)];
  }
}

// As long as one would say it: a minute more or less is of no matter after an hour.
function duration(seconds) {
  if (seconds < 7200) return `${Math.ceil(seconds / 60)} minutes`;
  return seconds < 172_800 ? `${Math.ceil(seconds / 3600)} hours` : `${Math.ceil(seconds / 86_400)} days`;
}

export function unreachable() {
  const plain = "The service could not be reached, or it closed the connection. Please check that it runs, and try again.";
  return new Failure(plain, "If this happens again with one image only, the file may be too large.");
}

// An answer that is no success. What stands between the browser and the service may give it, and then in no JSON.
export function failureOf({ status, text, requestId, retryAfter }) {
  const problem = parsed(text) ?? { title: "The service cannot answer at the moment.", detail: `Answered with status ${status}` };
  const slug = String(problem.type ?? "").split("/").pop();
  const reference = status >= 500 && requestId ? ` Reference: ${requestId}.` : "";
  const plain = PLAIN[slug] ?? sentence(String(problem.title ?? "this did not work"));
  const later = retryAfter > 60 ? ` It asks to come back in ${duration(retryAfter)}.` : "";
  const detail = `${sentence(String(problem.detail ?? problem.title ?? "the service says no more"))}${later}${reference}`;
  return new Failure(plain, detail, { slug, status, retryAfter, document: problem });
}

// The JSON object that a text is, or null.
export function parsed(text) {
  try {
    const found = JSON.parse(text);
    return found !== null && typeof found === "object" && !Array.isArray(found) ? found : null;
  } catch {
    return null;
  }
}
