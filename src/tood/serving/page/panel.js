// One model's view of a picture: the picture with boxes, and the same as a table.

export function shown(result, filter) {
  if (!result) return [];
  return result.detections.filter((one) => one.score >= filter.threshold && !filter.hidden.has(one.name));
}

function textColour(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#000000" : "#ffffff";
}

export class Panel {
  constructor(model, number) {
    this.model = model;
    this.figure = document.createElement("figure");
    this.figure.dataset.model = model.name;
    this.caption = document.createElement("figcaption");
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("role", "img");
    this.canvas.width = this.canvas.height = 0;
    const details = document.createElement("details");
    const summary = document.createElement("summary");
    summary.textContent = "Objects as a table";
    const frame = document.createElement("div");
    frame.className = "table";
    frame.tabIndex = 0;
    frame.setAttribute("role", "region");
    frame.setAttribute("aria-label", `Objects that ${model.name} found, ${number}`);
    const table = document.createElement("table");
    const head = table.createTHead().insertRow();
    for (const title of ["Class", "Score", "Left", "Top", "Right", "Bottom"]) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = title;
      head.append(cell);
    }
    this.body = table.createTBody();
    frame.append(table);
    details.append(summary, frame);
    details.addEventListener("toggle", () => this.#fillTable());
    this.details = details;
    this.figure.append(this.caption, this.canvas, details);
    this.rows = [];
  }

  // Draws a picture (null: one that the browser cannot show) and what of a result the filter lets through.
  // `refused`: the server gave no result and will give none.
  draw(picture, result, filter, name, refused) {
    const found = shown(result, filter);
    this.rows = found;
    const [width, height] = picture
      ? [picture.width, picture.height]
      : [result?.width ?? 0, result?.height ?? 0];
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    const pen = this.canvas.getContext("2d");
    pen.clearRect(0, 0, width, height);
    if (picture) pen.drawImage(picture, 0, 0, width, height);
    if (result) this.#boxes(pen, found, width / result.width, height / result.height, width);
    const count = `${found.length} ${found.length === 1 ? "object" : "objects"}`;
    const without = refused ? "not looked at" : "looking…";
    this.caption.textContent = `${this.model.name}: ${result ? count : without}`;
    this.canvas.setAttribute("aria-label", result ? this.#inWords(name, found, count) : `${name}: ${without}`);
    this.canvas.dataset.shown = found.length;
    this.details.hidden = !result;
    this.#fillTable();
  }

  #boxes(pen, found, scaleX, scaleY, width) {
    // Lines and letters of one size on the screen, however large the picture.
    const scale = width / (this.canvas.clientWidth || Math.min(width, 800));
    const line = 2.5 * scale;
    const size = 14 * scale;
    pen.lineWidth = line;
    pen.font = `${size}px system-ui, sans-serif`;
    pen.textBaseline = "bottom";
    // The best ones last, on top.
    for (const one of [...found].reverse()) {
      const colour = this.model.classes[one.label]?.colour ?? "#0072b2";
      const [left, top, right, bottom] = one.box.map((value, at) => value * (at % 2 ? scaleY : scaleX));
      pen.strokeStyle = colour;
      pen.strokeRect(left, top, right - left, bottom - top);
      const text = `${one.name} ${one.score.toFixed(2)}`;
      const wide = pen.measureText(text).width + line * 3;
      // Within the picture, beyond which a box may reach.
      const at = Math.max(top, size * 1.3);
      const start = Math.max(0, Math.min(left - line / 2, width - wide));
      pen.fillStyle = colour;
      pen.fillRect(start, at - size * 1.3, wide, size * 1.3);
      pen.fillStyle = textColour(colour);
      pen.fillText(text, start + line * 1.5, at - size * 0.1);
    }
  }

  #inWords(name, found, count) {
    const counts = new Map();
    for (const one of found) counts.set(one.name, (counts.get(one.name) ?? 0) + 1);
    const parts = [...counts].map(([kind, number]) => `${number} ${kind}`);
    return `${name}: ${this.model.name} shows ${count}${parts.length ? `, ${parts.join(", ")}` : ""}`;
  }

  #fillTable() {
    if (!this.details.open) return;
    this.body.replaceChildren(
      ...this.rows.map((one) => {
        const row = document.createElement("tr");
        for (const text of [one.name, one.score.toFixed(3), ...one.box.map((value) => value.toFixed(1))]) {
          row.insertCell().textContent = text;
        }
        return row;
      }),
    );
  }
}
