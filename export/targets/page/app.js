// The page: loads the network, takes an image by drop, by choice or from the webcam, and shows its depth.

import { serviceWorker } from "./isolation.js";
import { Network } from "./network.js";
import { factsInWords, megabytes, summaryOf, unitOf } from "./units.js";
import { View } from "./view.js";
import { Webcam } from "./webcam.js";

// Larger photos are made smaller first: the network sees less anyway, and a phone's memory is small.
const MAX_SIDE_PX = 2048;
// Pixels as they are in the file, as all other programs read them.
const AS_STORED = { colorSpaceConversion: "none", premultiplyAlpha: "none" };

const element = (id) => document.getElementById(id);
const webcam = new Webcam();
let network, view;
let request = 0; // the number of the last image asked for; an answer that comes after a later request is not shown

function state(name) {
  document.body.dataset.state = name;
}

function fail(error) {
  element("error").textContent = error.message;
  element("error").hidden = false;
}

async function json(name) {
  const response = await fetch(name).catch(() => null);
  if (!response?.ok) throw new Error(`${name} is missing on the server; export again, and copy the whole folder`);
  return response.json();
}

async function load() {
  await serviceWorker();
  const [facts, page] = await Promise.all([json("model.json"), json("page.json")]);
  const unit = unitOf(facts);
  element("summary").textContent = summaryOf(facts);
  view = new View(facts, unit, page.colormaps);
  for (const name of Object.keys(page.colormaps)) element("colormap").add(new Option(name));
  view.choose(element("colormap").value);
  network = await Network.load(page, facts, (loaded, total) => {
    element("progress").value = loaded / total;
    element("loaded").textContent = loaded < total ? `Loading the model: ${megabytes(loaded)} of ${megabytes(total)}` : "Preparing the model";
  });
  for (const [name, words] of Object.entries(factsInWords(facts, unit, page, network))) {
    const term = Object.assign(document.createElement("dt"), { textContent: name });
    element("facts").append(term, Object.assign(document.createElement("dd"), { textContent: words }));
  }
  element("model").open = matchMedia("(min-width: 800px)").matches;
  state("ready");
}

const loaded = load().catch((error) => {
  state("error");
  fail(error);
});

// The pixels of an image or a video's frame, which is shown on the left.
function pixels(source, width, height) {
  const canvas = element("image");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(source, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

// Decoded upright; `reduced` is its size before, where that was too large.
async function decode(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, AS_STORED);
  } catch {
    throw new Error(`${file.name} is not an image that this browser can read; choose a JPEG or PNG file`);
  }
  const { width, height } = bitmap;
  const share = MAX_SIDE_PX / Math.max(width, height);
  if (share >= 1) return { bitmap, reduced: null };
  bitmap.close();
  const size = { resizeWidth: Math.max(1, Math.round(width * share)), resizeHeight: Math.max(1, Math.round(height * share)) };
  return { bitmap: await createImageBitmap(file, { ...AS_STORED, ...size, resizeQuality: "high" }), reduced: `${width} × ${height}` };
}

async function showFile(file) {
  stopWebcam();
  await loaded;
  if (!network) return; // the page still shows why
  element("error").hidden = true;
  const number = ++request;
  try {
    const { bitmap, reduced } = await decode(file);
    if (number !== request) return;
    state("busy");
    const predicted = await network.run(pixels(bitmap, bitmap.width, bitmap.height));
    bitmap.close();
    if (number !== request) return;
    view.show(predicted);
    if (reduced) element("size").textContent += ` (made smaller from ${reduced})`;
    tellSpeed(predicted.ms, 1000 / predicted.ms);
  } catch (error) {
    if (number !== request) return;
    fail(error);
  }
  state("ready");
}

async function showWebcam() {
  await loaded;
  if (!network) return;
  element("error").hidden = true;
  request++;
  state("ready"); // an image that was being computed is not waited for
  element("webcam").textContent = "Stop webcam";
  element("webcam").setAttribute("aria-pressed", "true");
  try {
    await webcam.start(
      (video) => network.run(pixels(video, video.videoWidth, video.videoHeight)),
      (predicted, perSecond) => {
        view.show(predicted);
        tellSpeed(predicted.ms, perSecond);
      },
    );
  } catch (error) {
    fail(error);
    stopWebcam();
  }
}

function stopWebcam() {
  webcam.stop();
  element("webcam").textContent = "Start webcam";
  element("webcam").setAttribute("aria-pressed", "false");
}

function tellSpeed(ms, perSecond) {
  element("speed").textContent = `${ms.toFixed(0)} ms per frame · ${perSecond.toFixed(1)} frames/s`;
}

element("choose").addEventListener("click", () => element("file").click());
element("welcome").addEventListener("click", () => element("file").click());
element("file").addEventListener("change", ({ target }) => {
  if (target.files.length) showFile(target.files[0]);
  target.value = ""; // so that the same file can be chosen again
});
element("colormap").addEventListener("change", ({ target }) => view.choose(target.value));
element("webcam").addEventListener("click", () => (webcam.session ? stopWebcam() : showWebcam()));

addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("dragging"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  const [file] = event.dataTransfer.files;
  if (file) showFile(file);
  else fail(new Error("what was dropped is no file; save the image first, then drop that file"));
});
