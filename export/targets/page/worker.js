// onnxruntime-web, apart from the page.

// A graphics processor is trusted whose output differs from onnxruntime's on a processor by less than this share at every checked pixel.
const TOLERANCE = 0.01;

let ort, session, percentile;

addEventListener("message", async ({ data }) => {
  try {
    const answer = data.kind === "open" ? await open(data) : await run(data.image);
    postMessage(answer, answer.values ? [answer.values.buffer] : []);
  } catch (error) {
    postMessage({ error: error.message ?? String(error) });
  }
});

async function open(asked) {
  percentile = asked.percentile;
  ort = await import(`./${asked.module}`);
  ort.env.wasm.wasmBinary = asked.program.buffer;
  ort.env.wasm.numThreads = asked.threads;
  ort.env.logLevel = "error";
  session = await ort.InferenceSession.create(asked.model, {
    executionProviders: [{ name: asked.backend, forceCpuNodeNames: asked.onProcessor }],
  });
  // The first run is slow, whatever the backend; so it also serves as a check.
  const values = await infer(checkFrame(asked.check), asked.check.height_px, asked.check.width_px);
  const errors = asked.check.places.map((place, i) => Math.abs(values[place] / asked.check.values[i] - 1));
  const worst = errors.every(Number.isFinite) ? Math.max(...errors) : Infinity;
  if (asked.backend !== "wasm" && worst > TOLERANCE) throw new Error(`differs by ${(100 * worst).toPrecision(2)} % from onnxruntime`);
  return { worst };
}

// `values` are the graph's output, (h,w); `low` and `high` the ends of its colours, as inverse depth; `ms` the time all this took.
async function run(image) {
  const start = performance.now();
  const values = await infer(withoutAlpha(image.data), image.height, image.width);
  const inverse = session.outputNames[0] === "inv_depth" ? Float32Array.from(values) : Float32Array.from(values, (depth) => 1 / depth);
  inverse.sort();
  return { values, low: inverse[0], high: atPercentile(inverse), ms: performance.now() - start };
}

async function infer(pixels, height, width) {
  const output = await session.run({ image: new ort.Tensor("uint8", pixels, [1, height, width, 3]) });
  const tensor = output[session.outputNames[0]];
  const values = await tensor.getData();
  tensor.dispose();
  return values;
}

function withoutAlpha(rgba) {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    rgb[to++] = rgba[from];
    rgb[to++] = rgba[from + 1];
    rgb[to++] = rgba[from + 2];
  }
  return rgb;
}

// Between the two nearest values, as numpy does it.
function atPercentile(sorted) {
  const place = (percentile / 100) * (sorted.length - 1);
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
}

// The stripes for which the check's values were computed: `check_frame` in export/web.py.
function checkFrame({ height_px: height, width_px: width }) {
  const pixels = new Uint8Array(height * width * 3);
  let to = 0;
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let c = 0; c < 3; c++) pixels[to++] = Math.abs(255 - ((x * (c + 1) + y * (3 - c)) % 510));
  return pixels;
}
