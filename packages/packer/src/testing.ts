/**
 * What tests of programs that read model files need: small files built in memory.
 */
export {
  buildGguf,
  type BuildGgufOptions,
  type BuildGgufTensor,
  type BuildGgufValue,
} from './testing/build-gguf.js';
export { buildSafetensors, type BuildSafetensorsTensor } from './testing/build-safetensors.js';
