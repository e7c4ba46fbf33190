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
  })).reverse(); // the best on top
  boxes.forEach(row => drawBox(context, row, unit));
  boxes.forEach(row => drawTag(context, row, unit));
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

function drawBox(context, { box: [left, top, right, bottom], colour }, unit) {
  context.lineJoin = "round";
  for (const [width, style] of [[4, "rgb(0 0 0 / 35%)"], [2.4, css(colour)]]) {
    context.lineWidth = width * unit;
    context.strokeStyle = style;
    context.strokeRect(left, top, right - left, bottom - top);
  }
}

// Above the box, or inside it where there is no space above; always within the picture.
function drawTag(context, { box: [left, top], colour, tag }, unit) {
  context.font = `600 ${13 * unit}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const width = context.measureText(tag).width + 10 * unit;
  const height = 20 * unit;
  const x = Math.max(0, Math.min(left - unit, context.canvas.width - width));
  const y = top >= height ? top - height : top;
  context.fillStyle = css(colour);
  context.beginPath();
  context.roundRect(x, y, width, height, 3 * unit);
  context.fill();
  const [red, green, blue] = colour;
  context.fillStyle = 0.3 * red + 0.6 * green + 0.1 * blue > 120 ? "#111" : "#fff";
  context.fillText(tag, x + 5 * unit, y + height / 2 + unit / 2);
}
