// Pictures that a file says are turned, where the service heeds it and browsers do not: WebP with EXIF, and JPEG, PNG or WebP
// with XMP alone. What browsers turn by themselves (JPEG, PNG and AVIF with EXIF) is left to them.

import { element } from "./elements.js";

const SIDE = 1600; // pixels of the longer side of a picture that is turned here: enough to look at
const TAG = 0x0112; // orientation: EXIF 2.32, section 4.6.4
const XMP_ORIENTATION = /tiff:Orientation(?:="|>)([0-9])/;
const XMP_JPEG = /^http:.{14}\/xap\/1\.0\/\0/; // the name of the segment: XMP, part 3, section 1.1.3
const XMP_PNG = "XML:com.adobe.xmp\0";
// By orientation: a transform (a, b, c, d, e, f as of a canvas) of the stored unit square into the upright one.
const TURNS = [, , [-1, 0, 0, 1, 1, 0], [-1, 0, 0, -1, 1, 1], [1, 0, 0, -1, 0, 1],
  [0, 1, 1, 0, 0, 0], [0, 1, -1, 0, 1, 0], [0, -1, -1, 0, 1, 1], [0, -1, 1, 0, 0, 1]];

// The file itself, or where no browser would turn it, a picture of it that is upright.
export async function upright(file) {
  const turn = unheeded(new Uint8Array(await file.arrayBuffer()));
  if (turn === 1) return file;
  const bitmap = await createImageBitmap(file, { imageOrientation: "none" });
  const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
  const stored = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
  const [width, height] = turn > 4 ? [stored[1], stored[0]] : stored;
  const canvas = element("canvas", { width, height });
  const context = canvas.getContext("2d");
  const [a, b, c, d, e, f] = TURNS[turn];
  context.setTransform(a * width, b * height, c * width, d * height, e * width, f * height);
  context.drawImage(bitmap, 0, 0, 1, 1);
  bitmap.close();
  return new Promise((resolve) => { canvas.toBlob((blob) => resolve(blob ?? file)); });
}

// The orientation, 1 to 8, that the service reads out of these bytes and a browser does not heed; 1 where there is none.
export function unheeded(bytes) {
  const { exif, xmp, heeded } = metadata(bytes);
  const found = exif ? exifOrientation(exif) : null;
  if (found !== null) return heeded ? 1 : valid(found);
  return valid(Number(XMP_ORIENTATION.exec(xmp ? latin(xmp) : "")?.[1]));
}

const valid = (found) => (found >= 1 && found <= 8 ? found : 1);
const latin = (bytes) => new TextDecoder("latin1").decode(bytes);
const viewOf = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function metadata(bytes) {
  try {
    if (bytes[0] === 0xff && bytes[1] === 0xd8) return { ...ofJpeg(bytes), heeded: true };
    if (latin(bytes.subarray(0, 8)) === "\u2030PNG\r\n\u001a\n") return { ...ofPng(bytes), heeded: true };
    if (latin(bytes.subarray(0, 4)) === "RIFF" && latin(bytes.subarray(8, 12)) === "WEBP") return ofWebp(bytes);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // it ends too soon: what was to come tells nothing
  }
  return {};
}

function ofJpeg(bytes) {
  const view = viewOf(bytes);
  const found = {};
  for (let at = 2; at + 4 <= bytes.length && bytes[at] === 0xff;) {
    const marker = bytes[at + 1];
    if (marker === 0xff) { at += 1; continue; } // filled up
    if (marker === 0xda || marker === 0xd9) break; // the picture
    const end = at + 2 + view.getUint16(at + 2);
    const body = bytes.subarray(at + 4, end);
    if (marker === 0xe1 && latin(body.subarray(0, 6)) === "Exif\0\0") found.exif ??= body;
    if (marker === 0xe1 && XMP_JPEG.test(latin(body.subarray(0, 32)))) found.xmp = body;
    at = end;
  }
  return found;
}

function ofPng(bytes) {
  const view = viewOf(bytes);
  const found = {};
  for (let at = 8; at + 8 <= bytes.length;) {
    const kind = latin(bytes.subarray(at + 4, at + 8));
    const body = bytes.subarray(at + 8, at + 8 + view.getUint32(at));
    if (kind === "eXIf") found.exif = body;
    if (kind === "iTXt" && latin(body.subarray(0, XMP_PNG.length)) === XMP_PNG) found.xmp = body; // packed ones are rare
    at += 12 + body.length;
  }
  return found;
}

function ofWebp(bytes) {
  const view = viewOf(bytes);
  const found = {};
  for (let at = 12; at + 8 <= bytes.length;) {
    const size = view.getUint32(at + 4, true);
    const kind = latin(bytes.subarray(at, at + 4));
    if (kind === "EXIF") found.exif ??= bytes.subarray(at + 8, at + 8 + size);
    if (kind === "XMP ") found.xmp ??= bytes.subarray(at + 8, at + 8 + size);
    at += 8 + size + (size & 1);
  }
  return found;
}

// What the tag says, or null where there is none.
function exifOrientation(block) {
  let exif = block;
  for (let i = 0; i < 2 && latin(exif.subarray(0, 6)) === "Exif\0\0"; i += 1) exif = exif.subarray(6);
  const order = latin(exif.subarray(0, 2));
  if (order !== "II" && order !== "MM") return null;
  const [view, little] = [viewOf(exif), order === "II"];
  try {
    const first = view.getUint32(4, little);
    for (let i = 0; i < view.getUint16(first, little); i += 1) {
      const entry = first + 2 + 12 * i;
      if (view.getUint16(entry, little) !== TAG) continue;
      const kind = view.getUint16(entry + 2, little);
      if (kind === 3) return view.getUint16(entry + 8, little);
      if (kind === 4) return view.getUint32(entry + 8, little);
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  return null;
}
