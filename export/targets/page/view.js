// The image, its depth in colours beside it, and the depth under the pointer.

import { depthOf, threeDigits } from "./units.js";

const TINY = 1.2e-38; // keeps a picture of one value finite; the least normal float32
const MARGIN_PX = 16; // between a point and its reading

export class View {
  constructor(facts, unit, colormaps) {
    this.facts = facts;
    this.unit = unit;
    this.colormaps = Object.fromEntries(Object.entries(colormaps).map(([name, text]) => [name, bytes(text)]));
    this.element = (id) => document.getElementById(id);
    this.image = this.element("image");
    this.depth = this.element("depth");
    for (const canvas of [this.image, this.depth]) {
      canvas.addEventListener("pointermove", (event) => this.point(event));
      canvas.addEventListener("pointerdown", (event) => this.point(event));
      canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && this.unpoint());
    }
    addEventListener("scroll", () => this.unpoint(), { passive: true });
  }

  // `predicted` {values, low, high} at the network's size, of an image of width x height that stands in the canvas already.
  show(predicted) {
    this.predicted = predicted;
    this.element("welcome").hidden = true;
    this.element("panels").hidden = false;
    const { width, height } = this.image;
    this.element("panels").style.setProperty("--ratio", width / height);
    this.element("size").textContent = `${width} × ${height}`;
    this.colour();
    if (this.at) this.read();
  }

  choose(colormap) {
    this.colormap = colormap;
    if (this.predicted) this.colour();
  }

  // As `engine.pictures.colour_disp`: from the least inverse depth to its 95th percentile, near is bright.
  colour() {
    const { values, low, high } = this.predicted;
    const { height_px: height, width_px: width, output } = this.facts;
    const scale = 256 / Math.max(high - low, TINY);
    const picture = new ImageData(width, height);
    const indices = Float32Array.from(values, output === "inv_depth" ? (v) => (v - low) * scale : (v) => (1 / v - low) * scale);
    paint(picture.data, indices, this.colormaps[this.colormap]);
    this.depth.width = width;
    this.depth.height = height;
    this.depth.getContext("2d").putImageData(picture, 0, 0);
    const strip = new ImageData(256, 1);
    paint(strip.data, Float32Array.from({ length: 256 }, (_, i) => i), this.colormaps[this.colormap]);
    this.element("scale").getContext("2d").putImageData(strip, 0, 0);
    const inWords = (inverse) => {
      const depth = depthOf(output === "inv_depth" ? inverse : 1 / inverse, this.facts, this.unit);
      return `${this.unit.about}${threeDigits(depth)} ${this.unit.short}`;
    };
    this.element("far").textContent = `far ${inWords(low)}`;
    this.element("near").textContent = `near ${inWords(high)}`;
  }

  point(event) {
    this.pointed = event.currentTarget;
    const box = this.pointed.getBoundingClientRect();
    const inside = (share) => Math.min(Math.max(share, 0), 1 - 1e-6);
    this.at = { x: inside((event.clientX - box.left) / box.width), y: inside((event.clientY - box.top) / box.height) };
    if (this.predicted) this.read();
  }

  unpoint() {
    this.at = null;
    this.element("reading").hidden = true;
    this.element("panels").classList.remove("pointed");
  }

  read() {
    const { height_px: height, width_px: width } = this.facts;
    const value = this.predicted.values[Math.floor(this.at.y * height) * width + Math.floor(this.at.x * width)];
    const depth = depthOf(value, this.facts, this.unit);
    this.element("value").value = depth;
    this.element("value").textContent = `${this.unit.about}${threeDigits(depth)}`;
    this.element("unit").textContent = this.unit.name;
    for (const cross of document.querySelectorAll(".cross")) {
      cross.style.left = `${100 * this.at.x}%`;
      cross.style.top = `${100 * this.at.y}%`;
    }
    this.element("panels").classList.add("pointed");
    const reading = this.element("reading");
    reading.hidden = false;
    // Above the pointer, where a finger does not hide it, and inside the window.
    const box = this.pointed.getBoundingClientRect();
    const [x, y] = [box.left + this.at.x * box.width, box.top + this.at.y * box.height];
    const left = Math.min(Math.max(x - reading.offsetWidth / 2, 4), innerWidth - reading.offsetWidth - 4);
    const above = y - reading.offsetHeight - MARGIN_PX;
    reading.style.translate = `${left}px ${above < 4 ? y + MARGIN_PX : above}px`;
  }
}

// Colours of `indices`, 0 to 256 along a table of 256 colours; those outside take the ends' colours.
function paint(rgba, indices, table) {
  for (let i = 0; i < indices.length; i++) {
    const from = 3 * Math.min(Math.max(Math.floor(indices[i]), 0), 255);
    rgba[4 * i] = table[from];
    rgba[4 * i + 1] = table[from + 1];
    rgba[4 * i + 2] = table[from + 2];
    rgba[4 * i + 3] = 255;
  }
}

function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}
