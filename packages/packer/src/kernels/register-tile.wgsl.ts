/**
 * The inner part of products whose invocations each own a tile of the result: WGSL statements.
 *
 * A tile is `tileRows` rows of x by `tileOutputs` rows of weights. The text names, per tile row m,
 * `x<m>`: the first vector of the row in `x`; per tile output n, `w<n>`: the first step of the weight
 * row; per pair the accumulator `a<m>_<n>`. Arrays are avoided because drivers keep an indexed array in
 * memory, not in registers.
 */
import { weightStep, type StorageParams } from './codes.wgsl.js';

/** Tile of one invocation. */
export interface RegisterTile {
  /** Rows of x of one invocation. */
  readonly tileRows: number;
  /** Columns of the result of one invocation. */
  readonly tileOutputs: number;
}

/** `[0, 1, ..., count - 1]`. */
export const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** Declarations of the accumulators. */
export function declareAccumulators({ tileRows, tileOutputs }: RegisterTile): string {
  const names = range(tileRows).flatMap((m) => range(tileOutputs).map((n) => `a${m}_${n}`));
  return names.map((name) => `  var ${name} = 0.0;`).join('\n');
}

/** The loop over all `steps` of k. */
export function accumulateTile(params: StorageParams & RegisterTile): string {
  const step = weightStep(params);
  const rows = range(params.tileRows);
  const outputs = range(params.tileOutputs);
  const lines: string[] = [];
  for (const n of outputs) {
    for (const l of range(step.loads)) {
      const index = step.loads === 1 ? `w${n} + k` : `(w${n} + k) * ${step.loads}u + ${l}u`;
      lines.push(`let c${n}_${l} = codes[${index}];`);
    }
    if (!step.isAffine) continue;
    lines.push(`let s${n} = unpack2x16float(scales[w${n} + k]);`);
    for (const m of rows) lines.push(`var d${m}_${n} = 0.0;`);
  }
  if (step.isAffine) for (const m of rows) lines.push(`var t${m} = vec4<f32>();`);
  const quads = step.elements / 4;
  const sum = step.isAffine ? 'd' : 'a';
  for (const q of range(quads)) {
    for (const m of rows) {
      lines.push(`let x${m}_${q} = x[x${m} + k * ${quads}u + ${q}u];`);
      if (step.isAffine) lines.push(`t${m} += x${m}_${q};`);
    }
    for (const n of outputs) {
      const loads = range(step.loads).map((l) => `c${n}_${l}`);
      lines.push(`let q${n}_${q} = ${step.quad(loads, q)};`);
      for (const m of rows) lines.push(`${sum}${m}_${n} += dot(q${n}_${q}, x${m}_${q});`);
    }
  }
  if (step.isAffine) {
    for (const m of rows) {
      lines.push(`let u${m} = t${m}.x + t${m}.y + t${m}.z + t${m}.w;`);
      for (const n of outputs) lines.push(`a${m}_${n} += s${n}.x * d${m}_${n} + s${n}.y * u${m};`);
    }
  }
  const body = lines.map((line) => `    ${line}`).join('\n');
  return `  for (var k = 0u; k < steps; k++) {\n${body}\n  }`;
}
