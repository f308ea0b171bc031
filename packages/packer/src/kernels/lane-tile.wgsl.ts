/**
 * The inner part of a product whose lanes each own columns of the result: WGSL statements.
 *
 * A tile is `tileRows` rows of x by `tileOutputs` rows of weights for each invocation. Every load
 * fetches something different in every lane: a lane loads one vector of four of each row of x, and
 * all lanes get each of them by broadcast. On devices whose lanes are those of a CPU's vector unit,
 * a load costs one instruction sequence per lane, however alike the addresses are, and a broadcast
 * costs one.
 *
 * The text uses `lane`; per tile row m, `x<m>`: the first vector of the row in `x`; per tile output
 * n, `w<n>`: the first step of the row of weights; per pair the accumulator `a<m>_<n>`. Variables
 * instead of arrays, because drivers keep an indexed array in memory.
 *
 * A group is summed as `scale * sum(code * x) + minimum * sum(x)`.
 */
import {
  COMPONENTS,
  loadStep,
  quadFactors,
  range,
  weightStep,
  type StorageParams,
  type WeightStep,
} from './weight-step.wgsl.js';

/** Tile of one invocation. */
export interface LaneTileParams extends StorageParams {
  /** Lanes that share loads of x, a power of two; at most the device's smallest subgroup. */
  readonly lanes: number;
  /** Rows of x of one invocation. */
  readonly tileRows: number;
  /** Columns of the result of one invocation. */
  readonly tileOutputs: number;
}

/** Lanes in use: no more than the step has vectors. */
function sharingLanes(params: LaneTileParams, step: WeightStep): number {
  return Math.min(params.lanes, step.quads);
}

/** Declarations of the accumulators. */
export function declareAccumulators({ tileRows, tileOutputs }: LaneTileParams): string {
  const names = range(tileRows).flatMap((m) => range(tileOutputs).map((n) => `a${m}_${n}`));
  return names.map((name) => `  var ${name} = 0.0;`).join('\n');
}

/** Loads of x for one step: `v<m>_<load>` scaled for the codes, `p<m>_<load>` each vector's sum. */
function loadActivations(params: LaneTileParams, step: WeightStep): string[] {
  const lanes = sharingLanes(params, step);
  const lines: string[] = [];
  for (const m of range(params.tileRows)) {
    for (const load of range(step.quads / lanes)) {
      const v = `v${m}_${load}`;
      const at = `x[x${m} + k * ${step.quads}u + ${load * lanes}u + lane]`;
      if (step.groups === 0) lines.push(`let ${v} = ${at};`);
      else {
        lines.push(`let r${m}_${load} = ${at};`, `let ${v} = r${m}_${load} * factors;`);
        const parts = COMPONENTS.map((c) => `r${m}_${load}.${c}`).join(' + ');
        lines.push(`let p${m}_${load} = ${parts};`);
      }
    }
  }
  return lines;
}

/** The sum of row m of x over the quads of a group, as an expression. */
function groupSum(lanes: number, m: number, first: number, count: number): string {
  if (count <= lanes) {
    const load = Math.floor(first / lanes);
    return range(count)
      .map((i) => `subgroupBroadcast(p${m}_${load}, ${(first + i) % lanes}u)`)
      .join(' + ');
  }
  const loads = range(count / lanes).map((i) => `p${m}_${first / lanes + i}`);
  return range(lanes)
    .map((i) => `subgroupBroadcast(${loads.join(' + ')}, ${i}u)`)
    .join(' + ');
}

/** Statements that add the products of one quad to the sums `<sum><m>_<n>`. */
function quadProducts(params: LaneTileParams, step: WeightStep, quad: number): string[] {
  const lanes = sharingLanes(params, step);
  const rows = range(params.tileRows);
  const outputs = range(params.tileOutputs);
  const sum = step.groups === 0 ? 'a' : 'd';
  const lines = outputs.flatMap((n) => step.prepare(`c${n}`, quad));
  for (const i of range(4)) {
    for (const m of rows) {
      const own = `v${m}_${Math.floor(quad / lanes)}.${COMPONENTS[i]}`;
      const value = lanes === 1 ? own : `subgroupBroadcast(${own}, ${quad % lanes}u)`;
      lines.push(`let x${m}_${quad}_${i} = ${value};`);
    }
    for (const n of outputs) {
      const q = `q${n}_${quad}_${i}`;
      lines.push(`let ${q} = ${step.element(`c${n}`, 4 * quad + i)};`);
      for (const m of rows) lines.push(`${sum}${m}_${n} += ${q} * x${m}_${quad}_${i};`);
    }
  }
  return lines;
}

/** The loop over all `steps` of k. */
export function accumulateTile(params: LaneTileParams): string {
  const step = weightStep(params);
  const lanes = sharingLanes(params, step);
  const rows = range(params.tileRows);
  const outputs = range(params.tileOutputs);
  const lines = outputs.flatMap((n) => loadStep(step, `c${n}`, `w${n} + k`));
  lines.push(...loadActivations(params, step));
  if (step.groups === 0) {
    for (const quad of range(step.quads)) lines.push(...quadProducts(params, step, quad));
  }
  const perGroup = step.quads / step.groups;
  for (const group of range(step.groups)) {
    lines.push('{');
    for (const m of rows) for (const n of outputs) lines.push(`var d${m}_${n} = 0.0;`);
    for (const i of range(perGroup)) {
      lines.push(...quadProducts(params, step, group * perGroup + i));
    }
    for (const m of rows) {
      lines.push(`let u${m} = ${groupSum(lanes, m, group * perGroup, perGroup)};`);
      for (const n of outputs) {
        const g = `c${n}_g${group}`;
        lines.push(`a${m}_${n} += ${g}.x * d${m}_${n} + ${g}.y * u${m};`);
      }
    }
    lines.push('}');
  }
  const body = lines.map((line) => `    ${line}`).join('\n');
  return `${laneSetup(step, lanes)}\n  for (var k = 0u; k < steps; k++) {\n${body}\n  }`;
}

/** `lane`, and `factors` that undo the exponents of the codes; alike for all vectors of a lane. */
function laneSetup(step: WeightStep, lanes: number): string {
  if (lanes === 1) return '  let lane = 0u;';
  const lane = `  let lane = subgroupLane % ${lanes}u;`;
  if (step.groups === 0) return lane;
  const even = quadFactors(step, 0);
  const odd = quadFactors(step, 1);
  return `${lane}\n  let factors = select(${even}, ${odd}, (lane & 1u) == 1u);`;
}
