// A model's facts in words, and its depths in the best unit that is known.

const TRAININGS = { mono: "a single moving camera", stereo: "stereo pairs", "mono+stereo": "a moving stereo camera" };

// How to show a depth: `factor` brings the graph's unit to the one that is shown, which is `short` where there is little room.
export function unitOf(facts) {
  if (facts.output === "depth_m") return { factor: 1, about: "", name: "m", short: "m" };
  if (facts.metric_factor !== null) return { factor: facts.metric_factor, about: "", name: "m", short: "m" };
  if (facts.median_ratio !== null) return { factor: facts.median_ratio, about: "about ", name: "m", short: "m" };
  return { factor: 1, about: "", name: "relative units", short: "" };
}

// The depth at a value of the graph's output, in the unit shown.
export function depthOf(value, facts, unit) {
  return (facts.output === "inv_depth" ? 1 / value : value) * unit.factor;
}

export function threeDigits(number) {
  return number >= 100 ? number.toFixed(0) : number.toPrecision(3);
}

export function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

export function summaryOf(facts) {
  return `ResNet-${facts.num_layers}, ${facts.width_px} × ${facts.height_px}, ${facts.precision}`;
}

export function factsInWords(facts, unit, page, network) {
  const threads = network.threads === 1 ? "one thread" : `${network.threads} threads`;
  const factor = facts.output === "depth_m" ? facts.metric_factor : unit.factor; // the range is in the network's unit
  const range = [facts.min_depth, facts.max_depth].map((depth) => threeDigits(depth * factor));
  return {
    Network: `ResNet-${facts.num_layers}, ${megabytes(page.files["model.onnx"].bytes)}, ${facts.precision}`,
    "Sees images at": `${facts.width_px} × ${facts.height_px} pixels`,
    "Learnt from": TRAININGS[facts.training] ?? facts.training,
    Distances: distances(facts, unit),
    Range: `${range[0]} to ${range[1]} ${unit.name}`,
    "Runs on": network.backend === "webgpu" ? "the graphics processor (WebGPU)" : `the processor (WebAssembly, ${threads})`,
    Checked: `depths within ${Math.max(100 * network.worst, 0.01).toFixed(2)} % of onnxruntime's where the page was made`,
    Licence: facts.licence || "not stated",
    Source: facts.source || "not stated",
  };
}

function distances(facts, unit) {
  if (unit.name !== "m") return "up to an unknown factor: only their ratios mean something";
  if (unit.about) return "metres by the median of an evaluation; another camera may need another factor";
  return "metres";
}
