// The network as the page sees it: one call for one image, answered by the worker.

const MOST_THREADS = 4; // as ONNX Runtime: more gain little, and phones have slow cores

export class Engine {
  #worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  #waiting = new Map();
  #calls = 0;

  constructor() {
    this.#worker.onmessage = ({ data: { id, answer, error } }) => {
      const { resolve, reject } = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error === undefined) resolve(answer);
      else reject(new Error(error));
    };
    this.#worker.onerror = event => {
      event.preventDefault();
      const error = new Error(event.message || "the network's worker cannot be started");
      this.#waiting.forEach(({ reject }) => reject(error));
      this.#waiting.clear();
    };
  }

  // description: content of model.json; network: ArrayBuffer of the ONNX file.
  load(description, network, threads) {
    return this.#ask("load", { description, network, threads }, [network]);
  }

  // image: ImageData. Its pixels are copied, so that it can be used on.
  run({ data, width, height }) {
    return this.#ask("run", { pixels: data, width, height }, []);
  }

  close() {
    this.#worker.terminate();
  }

  #ask(kind, request, transfer) {
    const id = this.#calls++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, kind, ...request }, transfer);
    });
  }
}

// Threads need memory that they share, which browsers give to isolated pages alone.
export function possibleThreads() {
  if (!crossOriginIsolated) return 1;
  return Math.max(1, Math.min(MOST_THREADS, navigator.hardwareConcurrency || 1));
}
