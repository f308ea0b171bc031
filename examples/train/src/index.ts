/** Training with offloaded optimizer state: the model, its plan, a run, its checkpoints. */
export { MODEL_SHAPES, parameterSpecs, type ModelShape, type ParameterSpec } from './byte-model.js';
export { checkpointsIn, type RunCheckpoints } from './checkpointing.js';
export { parameterCount } from './parameters.js';
export { choosePlan, stateBytes } from './plan.js';
export { readMobyDick } from './text.js';
export { closeTfjs, openTfjs, type Tf } from './tfjs.js';
export { train, type TrainedStep, type TrainOptions } from './trainer.js';
