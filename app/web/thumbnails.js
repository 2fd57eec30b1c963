// Pictures of files: whole for one image, small for many. A browser turns them as their EXIF orientation says, both in an <img>
// and in a bitmap. What it cannot show gets a placeholder that says so, since the service may well read it.

import { element } from "./elements.js";

const SIDE = 240; // pixels of a small one; a bitmap of the whole photograph would be held for each
const AT_ONCE = 2;

const small = new WeakMap(); // file -> promise of a Blob, or null
const waiting = [];
let under = 0;

export function extension(name) {
  return /\.([a-z0-9]{1,5})$/i.exec(name)?.[1].toUpperCase() ?? "";
}

// Shows the file in the image, or else the placeholder. Gives back what frees the memory.
export function showWhole(file, name, image, placeholder) {
  const url = URL.createObjectURL(file);
  image.hidden = false;
  placeholder.hidden = true;
  image.onerror = () => {
    image.hidden = true;
    placeholder.hidden = false;
    placeholder.textContent = `No preview: this browser cannot show this ${extension(name)} file.`.replace("  ", " ");
  };
  image.alt = `Preview of ${name}`;
  image.src = url;
  return () => {
    image.onerror = null;
    image.removeAttribute("src");
    URL.revokeObjectURL(url);
  };
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
  const bitmap = await createImageBitmap(file);
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
