// The page: pictures come in, each is sent to each chosen model once, sliders and boxes act on what came back.

import { Frames } from "./media.js";
import { Panel, shown } from "./panel.js";
import { saveCoco, saveJson, savePicture } from "./save.js";
import { detect, models as askModels, useKey } from "./server.js";

const $ = (id) => document.getElementById(id);

const page = {
  models: [],
  items: [], // {name, blob, answers: Map of model name to result, troubles: Map of model name to what went wrong}
  current: null, // the item that is shown
  picture: null, // its pixels, as the browser decodes them; null if it cannot
  panels: [],
  filter: { threshold: 0.3, hidden: new Set() },
  moving: false,
  failures: 0, // frames in a row that were not answered
};

// After a frame that was not answered the next one is asked for later, each time twice as late, in milliseconds.
const [FIRST_WAIT, LONGEST_WAIT] = [1000, 30_000];

const frames = new Frames(showFrame, () => {
  setMoving(false);
  draw();
});

function chosen() {
  const names = [$("first").value, $("second").value].filter(Boolean);
  return names.map((name) => page.models.find((model) => model.name === name)).filter(Boolean);
}

function newItem(name, blob) {
  return { name, blob, answers: new Map(), troubles: new Map() };
}

function problem(text) {
  $("problem").textContent = text;
}

// --- pictures -------------------------------------------------------------------------------------------------

async function add(files) {
  problem("");
  const list = [...files];
  const video = list.find((file) => file.type.startsWith("video/"));
  if (video) {
    await play(() => frames.file(video, video.name));
    return;
  }
  if (!list.length) return;
  stopMoving();
  const items = list.map((file, number) => newItem(file.name || `pasted ${page.items.length + number + 1}`, file));
  page.items.push(...items);
  await select(items[0]);
  if (!page.models.length) await start(); // the server did not answer, or wanted a key
  else for (const item of items) await ask(item);
}

async function select(item) {
  page.current = item;
  const picture = item ? await createImageBitmap(item.blob).catch(() => null) : null;
  if (page.current !== item) return; // another one was chosen meanwhile
  page.picture = picture;
  listPictures();
  draw();
}

async function ask(item) {
  await Promise.all(
    chosen().map(async (model) => {
      if (item.answers.has(model.name)) return;
      item.troubles.delete(model.name);
      try {
        item.answers.set(model.name, await detect(item.blob, model.name));
      } catch (trouble) {
        item.troubles.set(model.name, trouble.message);
        if (trouble.status === 401) wantKey();
        problem(troubleOf(item));
        listPictures();
      }
      if (item === page.current) draw();
    }),
  );
}

function troubleOf(item) {
  const [told] = item?.troubles.values() ?? [];
  // The server, which is told no name, calls it "picture".
  return told ? `${item.name}: ${told.replace(/^picture: /, "")}` : "";
}

async function askAll() {
  for (const item of page.items) await ask(item);
}

function listPictures() {
  const list = $("pictures");
  list.hidden = page.items.length < 2 || page.moving;
  list.replaceChildren(
    ...page.items.map((item) => {
      const entry = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = item.troubles.size ? `⚠ ${item.name}` : item.name;
      button.title = item.name;
      if (item === page.current) button.setAttribute("aria-current", "true");
      button.addEventListener("click", async () => {
        problem(troubleOf(item));
        await select(item);
        list.querySelector("[aria-current]")?.focus();
      });
      entry.append(button);
      return entry;
    }),
  );
  $("clear").disabled = !page.items.length;
}

function clear() {
  stopMoving();
  page.items = [];
  problem("");
  select(null);
}

// --- moving pictures --------------------------------------------------------------------------------------------

async function play(start) {
  problem("");
  page.items = [];
  page.failures = 0;
  setMoving(true);
  await select(null);
  try {
    await start();
  } catch (error) {
    setMoving(false);
    draw();
    problem(`It cannot be played: ${error.message}`);
  }
}

async function showFrame(canvas, blob, name) {
  const item = newItem(name, blob);
  await ask(item);
  if (!page.moving) return;
  page.items = [item];
  page.current = item;
  page.picture = canvas;
  $("pause").hidden = false;
  draw();
  if (!item.troubles.size) {
    page.failures = 0;
    problem("");
    return;
  }
  const wait = Math.min(FIRST_WAIT * 2 ** page.failures, LONGEST_WAIT);
  page.failures += 1;
  await new Promise((done) => setTimeout(done, wait));
}

function setMoving(moving) {
  page.moving = moving;
  $("webcam").textContent = moving ? "Stop" : "Start webcam";
  $("pause").hidden = true; // until there is a frame
  $("pause").textContent = "Pause";
  listPictures();
}

function stopMoving() {
  if (!page.moving) return;
  frames.stop();
  setMoving(false);
  draw();
}

// --- what is shown ----------------------------------------------------------------------------------------------

function setPanels() {
  page.panels = chosen().map((model, number) => new Panel(model, number ? "right" : "left"));
  $("panels").replaceChildren(...page.panels.map((panel) => panel.figure));
  listClasses();
  draw();
}

function draw() {
  const item = page.current;
  const counts = []; // of each model that answered
  let refused = 0;
  for (const panel of page.panels) {
    const result = item?.answers.get(panel.model.name);
    panel.figure.hidden = !item;
    const refusal = item?.troubles.has(panel.model.name);
    if (item) panel.draw(page.picture, result, page.filter, item.name, refusal);
    if (refusal) refused += 1;
    if (!result) continue;
    const of = page.panels.length > 1 ? ` (${panel.model.name})` : "";
    counts.push(`${shown(result, page.filter).length} of ${result.detections.length}${of}`);
  }
  const answered = counts.length;
  for (const id of ["save-json", "save-coco", "save-picture"]) $(id).disabled = !answered;
  if (!page.models.length) return;
  $("status").textContent = !item
    ? page.moving
      ? "Waiting for the first frame…"
      : "Choose a picture, drop one, or paste one."
    : answered + refused < page.panels.length
      ? `Looking at ${item.name}…`
      : answered
        ? `${item.name}: ${counts.join(" and ")} objects shown.`
        : `${item.name}: not looked at.`;
  countClasses();
}

function listClasses() {
  const kinds = new Map();
  for (const model of chosen()) for (const kind of model.classes) kinds.set(kind.name, kind.colour);
  $("class-list").replaceChildren(
    ...[...kinds].map(([name, colour]) => {
      const label = document.createElement("label");
      const box = document.createElement("input");
      box.type = "checkbox";
      box.value = name;
      box.checked = !page.filter.hidden.has(name);
      box.addEventListener("change", () => {
        if (box.checked) page.filter.hidden.delete(name);
        else page.filter.hidden.add(name);
        draw();
      });
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = colour;
      const count = document.createElement("span");
      count.className = "count";
      label.append(box, swatch, document.createTextNode(name), count);
      return label;
    }),
  );
}

// Of two models both numbers, where either found something.
function countClasses() {
  const found = page.panels.map((panel) =>
    (page.current?.answers.get(panel.model.name)?.detections ?? []).filter((one) => one.score >= page.filter.threshold),
  );
  for (const label of $("class-list").children) {
    const kind = label.querySelector("input").value;
    const counts = found.map((list) => list.filter((one) => one.name === kind).length);
    label.querySelector(".count").textContent = counts.some(Boolean) ? counts.join(" | ") : "";
  }
}

function setAllClasses(on) {
  for (const box of $("class-list").querySelectorAll("input")) {
    box.checked = on;
    if (on) page.filter.hidden.delete(box.value);
    else page.filter.hidden.add(box.value);
  }
  draw();
}

// --- start ------------------------------------------------------------------------------------------------------

function wantKey() {
  const dialog = $("key-dialog");
  if (!dialog.open) dialog.showModal();
}

async function start() {
  try {
    page.models = await askModels();
  } catch (trouble) {
    if (trouble.status === 401) {
      $("status").textContent = "A key is needed.";
      wantKey();
    } else {
      $("status").textContent = "";
      problem(trouble.message);
    }
    return;
  }
  problem("");
  const option = (text, value) => Object.assign(document.createElement("option"), { textContent: text, value });
  const before = chosen().map((model) => model.name);
  $("first").replaceChildren(...page.models.map((model) => option(model.name, model.name)));
  $("second").replaceChildren(option("nothing", ""), ...page.models.map((model) => option(model.name, model.name)));
  if (before[0]) $("first").value = before[0];
  if (before[1]) $("second").value = before[1];
  setPanels();
  if (!page.moving) await askAll();
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").setAttribute("aria-pressed", String(theme === "dark"));
}

for (const id of ["first", "second"]) {
  $(id).addEventListener("change", () => {
    setPanels();
    if (!page.moving) askAll();
  });
}
$("threshold").addEventListener("input", () => {
  page.filter.threshold = Number($("threshold").value);
  $("threshold-told").textContent = page.filter.threshold.toFixed(2);
  draw();
});
$("files").addEventListener("change", async () => {
  const files = [...$("files").files];
  $("files").value = "";
  await add(files);
});
$("all").addEventListener("click", () => setAllClasses(true));
$("none").addEventListener("click", () => setAllClasses(false));
$("clear").addEventListener("click", clear);
$("webcam").addEventListener("click", () => (page.moving ? stopMoving() : play(() => frames.webcam())));
$("pause").addEventListener("click", () => {
  $("pause").textContent = frames.pause() ? "Go on" : "Pause";
});
$("save-json").addEventListener("click", () => saveJson(page.items, chosen(), page.filter));
$("save-coco").addEventListener("click", () => saveCoco(page.items, chosen()[0], page.filter));
$("save-picture").addEventListener("click", () =>
  savePicture(page.panels.map((panel) => panel.canvas), page.current.name),
);
$("key-form").addEventListener("submit", () => {
  useKey($("key").value);
  start();
});
addEventListener("resize", draw);
document.addEventListener("paste", (event) => add(event.clipboardData.files));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  add(event.dataTransfer.files);
});
$("theme").addEventListener("click", () => {
  const theme = $("theme").getAttribute("aria-pressed") === "true" ? "light" : "dark";
  localStorage.setItem("theme", theme);
  setTheme(theme);
});
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
setTheme(localStorage.getItem("theme") ?? (dark ? "dark" : "light"));
start();
