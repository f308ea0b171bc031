/** A small Llama and Mixtral runtime: the part of "another runtime" in the examples. */
export {
  BatchEngine,
  createBatchEngine,
  type BatchEngineOptions,
  type EngineMetrics,
} from './batching/batch-engine.js';
export { measureKvRoom, type KvRoom } from './batching/kv-room.js';
export type { FinishReason, Generation, GenerationOptions } from './batching/generation.js';
export { ForwardPass } from './forward.js';
export type { StepInput, StepSequence } from './step-input.js';
export { generate, score, type GenerateOptions } from './generate.js';
export { KvEviction } from './kv-eviction.js';
export {
  modelFingerprint,
  openKvStore,
  type OpenKvStoreOptions,
} from './kv-store/open-kv-store.js';
export type { KvBlockStore, KvStoreOptions } from './kv-store/prefix-store.js';
export { parseBytes } from './byte-size.js';
export {
  EXPERT_FLAGS,
  EXPERT_HELP,
  expertStats,
  parseExpertCaching,
  type ExpertCaching,
  type LowBitCopies,
} from './experts/expert-caching.js';
export { loadModel, type LoadModelOptions } from './load-model.js';
export { openModelFile, type ModelConfig, type ModelFile, type ModelTensor } from './model-file.js';
export { Sampler, type SamplingOptions } from './sampler.js';
export {
  createSession,
  InferenceSession,
  type RunOptions,
  type Sequence,
  type SessionOptions,
} from './session.js';
export type { ChatMessage } from './chat-template.js';
export {
  openSession,
  type OpenedSession,
  type OpenSessionOptions,
} from './streaming/open-session.js';
export { loadTokenizer, type Tokenizer } from './tokenizer.js';
export type { LanguageModel, LayerWeights } from './weights.js';
