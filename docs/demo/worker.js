// Runs the models, away from the page, so that it stays responsive. In: {ort, model, pixels, height, width, side};
// out: {share} now and then, and at the end {pixels} or {failed, memory}. Pixels are RGBA bytes.
import { inTiles } from "./tiles.js";

let runtime;
const sessions = {};

async function load(ort, file) {
  if (!runtime) {
    runtime = await import(new URL("ort.wasm.min.mjs", ort)).catch(() => {
      throw new Error(`onnxruntime-web is missing: ${ort} has no ort.wasm.min.mjs`);
    });
    runtime.env.wasm.wasmPaths = ort;
    if (!self.crossOriginIsolated) runtime.env.wasm.numThreads = 1; // threads need headers that most hosts do not send
  }
  return (sessions[file] ??= await runtime.InferenceSession.create(file, { executionProviders: ["wasm"] }));
}

function fromPixels(pixels, channels) {
  const gray = (r, g, b) => (19595 * r + 38470 * g + 7471 * b + 32768) >> 16; // as Pillow does it
  const data = new Uint8Array((pixels.length / 4) * channels);
  for (let i = 0, to = 0; i < pixels.length; i += 4) {
    if (channels === 1) data[to++] = gray(pixels[i], pixels[i + 1], pixels[i + 2]);
    else for (let c = 0; c < 3; c++) data[to++] = pixels[i + c];
  }
  return data;
}

function toPixels(data, channels) {
  const pixels = new Uint8ClampedArray((data.length / channels) * 4).fill(255);
  for (let i = 0; i < data.length / channels; i++) {
    for (let c = 0; c < 3; c++) pixels[4 * i + c] = data[i * channels + (channels === 1 ? 0 : c)];
  }
  return pixels;
}

onmessage = async ({ data: { ort, model, pixels, height, width, side } }) => {
  try {
    const session = await load(ort, model.file);
    const translate = async (bytes, tall, wide) => {
      const image = new runtime.Tensor("uint8", bytes, [1, tall, wide, model.channels_in]);
      return (await session.run({ image })).translation.data;
    };
    const image = { data: fromPixels(pixels, model.channels_in), height, width };
    const progress = share => postMessage({ share });
    const translated = await inTiles(translate, image, model.channels_in, model.channels_out, side, progress);
    const made = toPixels(translated.data, model.channels_out);
    postMessage({ pixels: made }, [made.buffer]);
  } catch (error) {
    // The runtime throws the bare address of a C++ exception where an allocation fails.
    const memory = typeof error === "number" || /alloc|memory/i.test(error.message ?? error);
    postMessage({ failed: String(error.message ?? error), memory });
  }
};
