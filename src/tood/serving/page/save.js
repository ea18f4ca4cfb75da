// What is downloaded: of all pictures what the filters show.

import { shown } from "./panel.js";

export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function jsonBlob(content) {
  return new Blob([JSON.stringify(content, null, 1)], { type: "application/json" });
}

export function saveJson(items, models, filter) {
  const pictures = items.map((item) => ({
    name: item.name,
    results: models
      .filter((model) => item.answers.has(model.name))
      .map((model) => {
        const result = item.answers.get(model.name);
        return { model: model.name, width: result.width, height: result.height, detections: shown(result, filter) };
      }),
  }));
  download(jsonBlob({ threshold: filter.threshold, hidden: [...filter.hidden], pictures }), "detections.json");
}

// As a COCO dataset, which tools for labels read: boxes are x, y, width, height. Of the first model.
export function coco(items, model, filter) {
  const images = [];
  const annotations = [];
  for (const item of items) {
    const result = item.answers.get(model.name);
    if (!result) continue;
    images.push({ id: images.length + 1, file_name: item.name, width: result.width, height: result.height });
    for (const one of shown(result, filter)) {
      const [left, top, right, bottom] = one.box;
      const [width, height] = [right - left, bottom - top];
      annotations.push({
        id: annotations.length + 1,
        image_id: images.length,
        category_id: one.label + 1,
        bbox: [left, top, width, height].map((value) => Number(value.toFixed(3))),
        area: Number((width * height).toFixed(3)),
        iscrowd: 0,
        score: one.score,
      });
    }
  }
  const categories = model.classes.map((kind, label) => ({ id: label + 1, name: kind.name }));
  return { images, annotations, categories };
}

export function saveCoco(items, model, filter) {
  download(jsonBlob(coco(items, model, filter)), "coco.json");
}

// What the panels show, side by side.
export async function savePicture(canvases, name) {
  const whole = document.createElement("canvas");
  whole.width = canvases.reduce((sum, canvas) => sum + canvas.width, 0);
  whole.height = Math.max(...canvases.map((canvas) => canvas.height));
  const pen = whole.getContext("2d");
  let left = 0;
  for (const canvas of canvases) {
    if (canvas.width) pen.drawImage(canvas, left, 0);
    left += canvas.width;
  }
  const blob = await new Promise((done) => whole.toBlob(done, "image/png"));
  download(blob, `${name.replace(/\.[^.]*$/, "")}-detections.png`);
}
