/** Decodes with ONNX Runtime Web on the page's own device; `window.decode` is called from outside. */
import { adoptDevice } from '@vramkit/core';
import { compareDecoding } from '../src/decode.js';

// Installed on demand, so it has no place that tools could look it up at.
const ORT = '/runtimes/onnxruntime-web/dist/';
const ort = await import(`${ORT}ort.webgpu.min.mjs`);
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = ORT;

window.decode = async (options) => {
  const model = new Uint8Array(await (await fetch('/model.onnx')).arrayBuffer());
  const adapter = await navigator.gpu.requestAdapter();
  const gpuDevice = await adapter.requestDevice();
  const device = adoptDevice(gpuDevice);
  try {
    const comparison = await compareDecoding(ort, device, { ...options, model });
    await device.settle();
    return comparison;
  } finally {
    device.dispose();
  }
};
