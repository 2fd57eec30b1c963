// Pictures of files, upright: whole for one image, small for many. What the browser cannot show gets a placeholder that says so,
// since the service may well read it.

import { element } from "./elements.js";
import { upright } from "./upright.js";

const SIDE = 240; // pixels of a small one; a bitmap of the whole photograph would be held for each
const AT_ONCE = 2;
const USUAL = /\.(jpe?g|png|webp|gif|bmp|avif)$/i;

const small = new WeakMap(); // file -> promise of a Blob, or null
const waiting = [];
let under = 0;

export function extension(name) {
  return /\.([a-z0-9]{1,5})$/i.exec(name)?.[1].toUpperCase() ?? "";
}

// Shows the file in the image, or else the placeholder; the latter also where it does not come out in the proportions of `as`,
// {width, height}, if given. Gives back what frees the memory.
export function showWhole(file, name, image, placeholder, as = null) {
  let url = "";
  let wanted = true;
  const instead = (text) => {
    image.hidden = true;
    placeholder.hidden = false;
    placeholder.textContent = text;
  };
  image.hidden = false;
  placeholder.hidden = true;
  image.onload = () => {
    if (as && !alike(image, as)) instead("No photograph: this browser shows this file otherwise than the service saw it.");
  };
  image.onerror = () => {
    const kind = USUAL.test(name) ? "" : `${extension(name)} `; // of a usual kind it is the file that is at fault
    instead(`No preview: this browser cannot show this ${kind}file.`.replace("  ", " "));
  };
  image.alt = `Preview of ${name}`;
  upright(file).catch(() => file).then((shown) => { // what cannot be turned, or read, the image itself will complain of
    if (!wanted) return;
    url = URL.createObjectURL(shown);
    image.src = url;
  });
  return () => {
    wanted = false;
    image.onload = image.onerror = null;
    image.removeAttribute("src");
    if (url) URL.revokeObjectURL(url);
  };
}

// In proportion, but for a pixel and two in a hundred: it may be smaller here.
function alike({ naturalWidth, naturalHeight }, { width, height }) {
  const off = Math.abs(naturalWidth * height - naturalHeight * width);
  return off <= 0.02 * naturalWidth * height + Math.max(width, height);
}

// Fills the place with a small picture once it is made.
export async function showSmall(file, name, place) {
  if (!small.has(file)) small.set(file, queued(() => make(file)));
  const blob = await small.get(file);
  if (!blob) {
    place.replaceChildren(element("span", { class: "no-picture" }, extension(name) || "no preview"));
    return;
  }
  const url = URL.createObjectURL(blob);
  const image = element("img", { alt: "", src: url, on: { load: () => URL.revokeObjectURL(url) } });
  place.replaceChildren(image);
}

// A few at a time, so that five hundred photographs are not all decoded at once.
function queued(job) {
  return new Promise((resolve) => {
    waiting.push(() => job().catch(() => null).then(resolve));
    run();
  });
}

function run() {
  while (under < AT_ONCE && waiting.length) {
    under += 1;
    waiting.shift()().finally(() => {
      under -= 1;
      run();
    });
  }
}

async function make(file) {
  const bitmap = await createImageBitmap(await upright(file));
  const scale = Math.min(1, SIDE / Math.min(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
  const canvas = element("canvas", { width, height });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff"; // where the picture is transparent, as in the service
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  return new Promise((resolve) => { canvas.toBlob(resolve, "image/jpeg", 0.85); });
}
