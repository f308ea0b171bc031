/**
 * Finds and opens a GPU for this workspace: hardware, lavapipe or SwiftShader, with no setup; and
 * reads the command lines of its small programs.
 *
 * The default export is what a `package.json` names as `"vramkit": { "gpu": "@vramkit/adapter" }`.
 */
export { createGpu, createGpu as default } from './create-gpu.js';
export type { CreateGpuOptions, OpenedGpu } from './create-gpu.js';
export { parseFlags, parseWhole } from './parse-flags.js';
export { programOptions } from './program-options.js';
export { adapterNames, surveyAdapters, usableAdapters } from './survey.js';
export type { AdapterName, AdapterReport } from './survey.js';
export { thisMachine } from './vulkan-drivers.js';
export type { Machine } from './vulkan-drivers.js';
