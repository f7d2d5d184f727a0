// The network, in a worker of its own: the page answers while it computes.

// More threads than this cost more than they bring.
const MAX_THREADS = 8;

export class Network {
  // Loads the model and the fastest backend that computes it rightly. `progress(loaded, total)` is given bytes.
  static async load(page, facts, progress) {
    const candidates = await backends(facts);
    const size = (backend) => page.files["model.onnx"].bytes + page.files[page.backends[backend].program].bytes;
    const model = await download("model.onnx", page.files["model.onnx"], (loaded) => progress(loaded, size(candidates[0])));
    let failure;
    for (const backend of candidates) {
      const network = new Network(backend);
      try {
        await network.open(page, model, (loaded) => progress(model.length + loaded, size(backend)));
        return network;
      } catch (error) {
        console.warn(`${backend}: ${error.message}`);
        network.worker.terminate();
        failure = error;
      }
    }
    throw failure;
  }

  constructor(backend) {
    this.backend = backend;
    this.threads = threads();
    this.worker = new Worker("worker.js", { type: "module" });
    this.last = Promise.resolve();
  }

  async open(page, model, progress) {
    const { module, program } = page.backends[this.backend];
    const content = await download(program, page.files[program], progress);
    const { worst } = await this.ask({
      kind: "open", backend: this.backend, threads: this.threads, module, program: content, model, check: page.check,
      onProcessor: page.on_processor, percentile: page.bright_percentile,
    });
    this.worst = worst;
  }

  // {values, low, high, ms} of an ImageData: see worker.js.
  run(image) {
    return this.ask({ kind: "run", image }, [image.data.buffer]);
  }

  // One question after the other.
  ask(question, moved) {
    const answer = this.last.then(() => this.exchange(question, moved));
    this.last = answer.catch(() => {});
    return answer;
  }

  exchange(question, moved = []) {
    return new Promise((resolve, reject) => {
      this.worker.onmessage = ({ data }) => (data.error === undefined ? resolve(data) : reject(new Error(data.error)));
      this.worker.onerror = (event) => reject(new Error(event.message || "the worker cannot be loaded"));
      this.worker.postMessage(question, moved);
    });
  }
}

// Graphics first, where there is a real graphics processor that can do it: none has the operators of int8, and not all have fp16.
async function backends(facts) {
  if (facts.precision === "int8") return ["wasm"];
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" }).catch(() => null);
  if (!adapter || adapter.info?.isFallbackAdapter) return ["wasm"];
  if (facts.precision === "fp16" && !adapter.features.has("shader-f16")) return ["wasm"];
  return ["webgpu", "wasm"];
}

function threads() {
  if (!crossOriginIsolated) return 1;
  const cores = navigator.hardwareConcurrency || 1;
  return Math.min(MAX_THREADS, cores > 4 ? Math.ceil(cores / 2) : cores);
}

// The bytes of a file, of which `bytes` are expected.
async function download(name, { bytes, hash }, progress) {
  const content = new Uint8Array(bytes);
  let end = 0;
  for await (const chunk of chunks(name, hash)) {
    if (end + chunk.length > bytes) throw new Error(`${name} is longer than it was when it was exported; copy the whole folder again`);
    content.set(chunk, end);
    progress((end += chunk.length));
  }
  if (end < bytes) throw new Error(`${name} ends early; reload the page, or copy the whole folder again`);
  return content;
}

async function* chunks(name, hash) {
  const response = await fetch(`${name}?${hash}`).catch(() => null);
  if (!response) throw new Error(`${name} cannot be loaded: no connection; is the server still running?`);
  if (!response.ok) throw new Error(`${name} is missing on the server (${response.status}); export again, and copy the whole folder`);
  const reader = response.body.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) yield part.value;
}
