/**
 * Where optimizer state lives and when it moves: plans as plain JSON, a simulator that times them
 * on a described machine, and an executor that runs them.
 */
export {
  ADAM_STEP_NAMES,
  adamStep,
  completeAdam,
  type AdamOptions,
  type AdamStep,
} from './adam/adam.js';
export { adamKernel, quadWorkgroups, type AdamKernelParams } from './adam/adam.wgsl.js';
export { adamCpu, type AdamState } from './adam/adam.cpu.js';
export {
  calibrate,
  isCalibrationOf,
  machineAt,
  mergeCalibrations,
  type CalibrateOptions,
  type Calibration,
  type CalibrationSubject,
} from './calibrate.js';
export type { RigPlan, TimedOperation } from './calibration-rig.js';
export type { SizeContention, SizeTimes } from './fit-costs.js';
export type { HostRates } from './calibrate-host.js';
export {
  stateFromTensors,
  stateToTensors,
  type StateMetadata,
  type StateTensor,
} from './checkpoint.js';
export type { CalibratedRate } from './fit-rate.js';
export { spawnWorker, type HostWorker, type SpawnWorker } from '@vramkit/core';
export { HostPool, type HostJob, type HostKernel, type HostPoolOptions } from './host-pool.js';
export { buildIteration, type Iteration, type IterationOptions } from './iteration.js';
export { warmupCosine, type LearningRate, type WarmupCosineOptions } from './learning-rate.js';
export type { LossScale, LossScaleOptions } from './loss-scale.js';
export {
  checkMachine,
  costOf,
  perLane,
  rankShare,
  type Contention,
  type CostCurve,
  type CostName,
  type Machine,
} from './machine.js';
export {
  createOptimizer,
  OffloadedOptimizer,
  type OptimizerState,
  type StepResult,
} from './optimizer.js';
export type { OptimizerOptions } from './optimizer-options.js';
export {
  auto,
  type AutoOptions,
  type AutoPlan,
  type Budgets,
  type MissingBytes,
} from './planners/auto.js';
export {
  deepOptimizerStates,
  type DeepOptimizerStatesOptions,
} from './planners/deep-optimizer-states.js';
export { gpuOnly } from './planners/gpu-only.js';
export { twinFlow, type Residents, type TwinFlowOptions } from './planners/twin-flow.js';
export { zeroOffload, type ZeroOffloadOptions } from './planners/zero-offload.js';
export { A100_NODE, H100_NODE } from './published-machines.js';
export {
  checkSchedule,
  LANES,
  SUBGROUP_GRANULE,
  type Lane,
  type MemoryFootprint,
  type Operation,
  type OperationKind,
  type Schedule,
  type Site,
  type StateDType,
  type StateLayout,
  type Subgroup,
} from './schedule.js';
export { simulate, type ModelTimes, type Simulation, type Span } from './simulate.js';
export { bestStride, periodMsPerParam } from './stride.js';
export type { PassBound, Shares } from './placement/cost.js';
export {
  PLACED_KINDS,
  PLACEMENT_TIERS,
  streamingBytes,
  type InferenceMachine,
  type InferenceModel,
  type InferenceWorkload,
  type PerTier,
  type PlacedKind,
  type PlacementBudgets,
  type PlacementTier,
  type Streaming,
} from './placement/inference.js';
export {
  planPlacement,
  type Placement,
  type PlacementOptions,
  type PlacementResult,
  type PlacementShortfall,
} from './placement/plan-placement.js';
