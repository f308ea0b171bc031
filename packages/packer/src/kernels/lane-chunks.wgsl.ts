/**
 * The inner part of a product of several rows whose lanes each own columns of the result: WGSL
 * statements. Beside lane-tile.wgsl.ts, it suits wide lanes and drivers that optimise.
 *
 * A step is a loop over chunks of eight elements. On a CPU that loop is what makes it fast:
 * unrolled, a step outgrows the instruction cache. The lanes share the loads of a chunk of all rows
 * of x and get each element by broadcast. Weights are decoded once for all rows, and as many sums
 * are formed at a time as registers hold.
 *
 * The text uses `row`, the first row of x, and `subgroupLane`; otherwise the names of
 * lane-tile.wgsl.ts.
 */
import type { LaneTileParams } from './lane-tile.wgsl.js';
import {
  COMPONENTS,
  loadStep,
  quadValue,
  range,
  selectEight,
  weightStep,
  type WeightStep,
} from './weight-step.wgsl.js';

/** Sums that are formed at a time. */
const REGISTER_SUMS = 16;

/** Statements that load step `k` of column n's weights. */
function stepWeights(step: WeightStep, n: number): string[] {
  const prepared = range(step.quads).flatMap((quad) => step.prepare(`c${n}`, quad));
  return [...loadStep(step, `c${n}`, `w${n} + k`), ...prepared];
}

/** Statements that make chunk `i` of column n's weights the step `q<n>`; dense ones are loaded. */
function chunkWeights(step: WeightStep, chunk: WeightStep, n: number): string[] {
  if (step.groups === 0) {
    const prepared = range(chunk.quads).flatMap((quad) => chunk.prepare(`q${n}`, quad));
    const at = `w${n} * ${step.elements / chunk.elements}u + i`;
    return [...loadStep(chunk, `q${n}`, at), ...prepared];
  }
  const factors = step.groups === 1 ? `c${n}_g0` : `select(c${n}_g0, c${n}_g1, i > 1u)`;
  return [...selectEight(step, `c${n}`, `q${n}`, 'i'), `let q${n}_g0 = ${factors};`];
}

/** Statements that add the products of a chunk: the loaded vectors of x are `v<load>`. */
function chunkProducts(params: LaneTileParams, step: WeightStep, chunk: WeightStep): string[] {
  const { lanes, tileRows, tileOutputs } = params;
  const rows = range(tileRows);
  const atOnce = Math.max(1, Math.floor(REGISTER_SUMS / tileRows));
  const broadcast = (m: number, e: number): string => {
    const vector = m * chunk.quads + (e >> 2);
    const value = `v${Math.floor(vector / lanes)}.${COMPONENTS[e % 4]}`;
    return `let x${m}_${e} = subgroupBroadcast(${value}, ${vector % lanes}u);`;
  };
  return range(Math.ceil(tileOutputs / atOnce)).flatMap((block) => {
    const outputs = range(tileOutputs).slice(block * atOnce, (block + 1) * atOnce);
    const lines = outputs.flatMap((n) => chunkWeights(step, chunk, n));
    for (const quad of range(chunk.quads)) {
      for (const n of outputs) {
        lines.push(`let d${n}_${quad} = ${quadValue(chunk, `q${n}`, quad)};`);
      }
      for (const i of range(4)) {
        const e = 4 * quad + i;
        if (block === 0) lines.push(...rows.map((m) => broadcast(m, e)));
        for (const n of outputs) {
          const weight = `d${n}_${quad}.${COMPONENTS[i]}`;
          lines.push(...rows.map((m) => `a${m}_${n} += ${weight} * x${m}_${e};`));
        }
      }
    }
    return lines;
  });
}

/** The loop over all `steps` of k; dense weights have no steps, only chunks. */
export function accumulateChunks(params: LaneTileParams): string {
  const { lanes, tileRows, tileOutputs } = params;
  const step = weightStep(params);
  const dense = step.groups === 0;
  // No more than one load of dense weights.
  const most = params.format === 'f32' ? 4 : 8;
  const chunk = weightStep({ ...params, stepElements: Math.min(most, step.elements) });
  const chunks = step.elements / chunk.elements;
  const loads = range(Math.ceil((tileRows * chunk.quads) / lanes));
  const at = dense ? 'i' : `(k * ${chunks}u + i)`;
  const bases = loads.map((load) => {
    const vector = `(lane + ${load * lanes}u)`;
    const xRow = `min(row + ${vector} / ${chunk.quads}u, uniforms.xRows - 1u)`;
    const start = `${xRow} * uniforms.steps * ${step.quads}u + ${vector} % ${chunk.quads}u`;
    return `  let b${load} = uniforms.xBase + ${start};`;
  });
  const vectors = loads.map((load) => `let v${load} = x[b${load} + ${at} * ${chunk.quads}u];`);
  const body = [...vectors, ...chunkProducts(params, step, chunk)];
  const loop = (count: string): string => `for (var i = 0u; i < ${count}; i++) {
${body.map((line) => `      ${line}`).join('\n')}
    }`;
  const steps = `for (var k = 0u; k < steps; k++) {
${range(tileOutputs)
  .flatMap((n) => stepWeights(step, n))
  .map((line) => `    ${line}`)
  .join('\n')}
    ${loop(`${chunks}u`)}
  }`;
  return /* wgsl */ `
  let lane = subgroupLane % ${lanes}u;
${bases.join('\n')}
  ${dense ? loop(`steps * ${chunks}u`) : steps}`;
}
