// Pictures of predictions: tinted masks with outlines between labels, boxes with tags.
import { canvasOf } from "./images.js";

export const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;

// Draws a prediction on a canvas that has the shape of the image, at any resolution.
// unit: pixels of the canvas for one pixel of the page, which sizes lines and text.
export function drawPrediction(canvas, image, shown, opacity, unit) {
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  if (shown.tint && opacity > 0) {
    context.globalAlpha = opacity;
    context.imageSmoothingEnabled = false;
    context.drawImage(shown.tint, 0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = true;
    context.globalAlpha = 1;
  }
  const scale = canvas.width / image.width;
  const boxes = shown.detections.map(({ box, colour, tag }) => ({
    colour, tag, box: box.map(value => value * scale),
  }));
  boxes.toReversed().forEach(row => drawBox(context, row, unit)); // the best on top
  const taken = []; // by tags; the best chooses first
  boxes.forEach(row => drawTag(context, row, unit, taken));
}

// A canvas with the colour of each pixel's label; labels without a colour are transparent.
export function tintOf(mask, width, height, colours) {
  const canvas = canvasOf(width, height);
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const words = new Uint32Array(pixels.data.buffer);
  const palette = Uint32Array.from(colours, colour => (colour ? word(colour) : 0));
  const white = word([255, 255, 255]);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const colour = palette[mask[at]];
      const border = (x > 0 && palette[mask[at - 1]] !== colour)
        || (y > 0 && palette[mask[at - width]] !== colour);
      words[at] = border ? white : colour;
    }
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function word([red, green, blue]) {
  return new Uint32Array(Uint8Array.of(red, green, blue, 255).buffer)[0];
}

// A light line around a dark one, and the reverse: a box is seen on any picture.
function drawBox(context, { box: [left, top, right, bottom], colour }, unit) {
  context.lineJoin = "round";
  const halo = isLight(colour) ? "rgb(0 0 0 / 40%)" : "rgb(255 255 255 / 75%)";
  for (const [width, style] of [[4.4, halo], [2.4, css(colour)]]) {
    context.lineWidth = width * unit;
    context.strokeStyle = style;
    context.strokeRect(left, top, right - left, bottom - top);
  }
}

function drawTag(context, { box, colour, tag }, unit, taken) {
  context.font = `600 ${13 * unit}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const size = { width: context.measureText(tag).width + 10 * unit, height: 20 * unit };
  const place = freePlace(box, size, context.canvas, taken);
  taken.push(place);
  context.fillStyle = css(colour);
  context.beginPath();
  context.roundRect(place.x, place.y, size.width, size.height, 3 * unit);
  context.fill();
  context.fillStyle = isLight(colour) ? "#111" : "#fff";
  context.fillText(tag, place.x + 5 * unit, place.y + size.height / 2 + unit / 2);
}

// Above the box, inside it or below it: the first place within the picture that no other tag has.
function freePlace([left, top, , bottom], { width, height }, canvas, taken) {
  const x = Math.max(0, Math.min(left, canvas.width - width));
  const places = [top - height, top, bottom - height, bottom]
    .filter(y => y >= 0 && y + height <= canvas.height)
    .map(y => ({ x, y, width, height }));
  const free = place => !taken.some(other => meet(place, other));
  return places.find(free) ?? places[0] ?? { x, y: Math.max(0, top), width, height };
}

function meet(a, b) {
  return a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;
}

function isLight([red, green, blue]) {
  return 0.3 * red + 0.6 * green + 0.1 * blue > 120;
}
