/** Models by name: where they come from and where they are kept. */
export { cacheDirectory } from './cache.js';
export {
  cachedModelPath,
  MODEL_NAMES,
  resolveModel,
  type ResolvedModel,
  type ResolveModelOptions,
} from './resolve-model.js';
export type { FetchContext, ModelProgress, ModelSource } from './source.js';
export type { RemoteModel } from './catalog.js';
