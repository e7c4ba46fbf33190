// Image files as pixels, the way `mbv2det predict` reads them.

const THUMBNAIL_WIDTH = 220;

// The pixels as stored, turned by the camera's orientation tag. Colours are not converted to those
// of the screen: the network has seen images without that.
export async function decode(blob) {
  const bitmap = await createImageBitmap(blob, {
    colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation: "from-image",
  });
  const canvas = canvasOf(bitmap.width, bitmap.height);
  canvas.getContext("2d", { willReadFrequently: true }).drawImage(bitmap, 0, 0);
  bitmap.close();
  return canvas;
}

export function pixelsOf(canvas) {
  return canvas.getContext("2d", { willReadFrequently: true })
    .getImageData(0, 0, canvas.width, canvas.height);
}

export function canvasOf(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

export function thumbnail(canvas) {
  const scale = Math.min(1, THUMBNAIL_WIDTH / canvas.width);
  const small = canvasOf(
    Math.max(1, Math.round(canvas.width * scale)), Math.max(1, Math.round(canvas.height * scale)),
  );
  const context = small.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(canvas, 0, 0, small.width, small.height);
  return small.toDataURL("image/jpeg", 0.8);
}

// Saves a canvas or a text as a file of the visitor.
export async function save(content, name) {
  const blob = content instanceof HTMLCanvasElement
    ? await new Promise(resolve => content.toBlob(resolve, "image/png"))
    : new Blob([content], { type: "application/json" });
  const link = Object.assign(document.createElement("a"), {
    href: URL.createObjectURL(blob), download: name,
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
