/**
 * The widths of `vramkit pack`: one for all, by rules, or by measured errors to a target.
 *
 * For a target every tensor is quantized at every width; errors that were measured before are not
 * measured again. No more than one tensor is in memory at any time.
 */
import { fail } from '@vramkit/core';
import {
  allocateBits,
  applyRules,
  bytesForBits,
  knapsackAllocator,
  matrixBytes,
  measureUnit,
  packedMatrixLayout,
  PackThreads,
  planModel,
  ruleFor,
  sourceValues,
  unitDigest,
  widthsOf,
  type AllocationUnit,
  type CodeBits,
  type MatrixLayout,
  type ModelPlan,
  type SourceTensor,
  type TensorPlan,
  type WidthChoice,
} from '@vramkit/packer';
import type { Progress } from '../progress.js';
import { formatTime, openScores, type Importance } from './pack-inputs.js';
import { isKept, type PackRequest } from './pack-options.js';

const WIDTHS: readonly CodeBits[] = [2, 3, 4, 8];

/** A request, and what was read for it. */
export interface Work extends PackRequest {
  readonly importance: Importance | undefined;
}

/** The plan of a request with a width for each tensor that is packed. */
export function planWith(
  request: Work,
  tensors: readonly SourceTensor[],
  widthOf: (name: string) => CodeBits,
): ModelPlan {
  const { quantizer, groupSize, factors } = request;
  return planModel(tensors, {
    plan: ({ name, shape }): TensorPlan => {
      if (isKept(request, name, shape)) return 'keep';
      const importance = request.importance?.of(name, shape[1] ?? 0);
      return { bits: widthOf(name), groupSize, factors, quantizer, importance };
    },
    allowRequantize: request.requantize,
    unevenGroups: 'smaller',
    notes: { packedBy: 'vramkit pack' },
  });
}

/** What the plan makes of a tensor at each width. */
type Layouts = readonly (readonly [bits: CodeBits, layout: MatrixLayout])[];

/** Bytes and errors of a tensor at each width; errors that `scores` lacks are measured first. */
async function choicesOf(
  request: Work,
  tensor: SourceTensor,
  layouts: Layouts,
  scores: Map<string, number>,
  threads: PackThreads | undefined,
): Promise<WidthChoice[]> {
  const { name } = tensor;
  const [rows = 0, columns = 0] = tensor.shape;
  const { quantizer, factors } = request;
  const importance = request.importance?.of(name, columns);
  const own = { name, rows, columns, values: await sourceValues(tensor), importance };
  const unit = { id: name, layer: -1, tensors: [own] };
  const widths = [];
  for (const [bits, layout] of layouts) {
    const groupSize = layout.groupSize === columns ? 'row' : layout.groupSize;
    // The plan chose one of the group sizes, or the whole row.
    const how = { bits, quantizer, factors, groupSize: groupSize as 32 | 'row' };
    // Named only where it is not the default, so that scores of before still count.
    const named = [bits, quantizer.name, groupSize, ...(factors === 'f16' ? [] : [factors])];
    widths.push({ how, layout, key: await unitDigest(unit, JSON.stringify(named)) });
  }
  const missing = widths.filter(({ key }) => !scores.has(key));
  const hows = missing.map(({ how }) => how);
  const errors = threads
    ? await threads.measure(own, hows)
    : hows.map((how) => measureUnit(unit, how));
  errors.forEach((error, i) => scores.set(missing[i]?.key ?? '', error));
  return widths.map(({ how: { bits }, layout, key }) => {
    const error = scores.get(key) ?? fail('invariant', `no error of '${name}' at ${bits} bits`);
    return { bits, sizeBytes: matrixBytes(layout), error };
  });
}

/** Error and bytes of every tensor at every width. */
async function measure(
  request: Work,
  tensors: readonly SourceTensor[],
  progress: Progress,
): Promise<AllocationUnit[]> {
  const packed = tensors.filter(({ name, shape }) => !isKept(request, name, shape));
  const plans = WIDTHS.map((bits) => {
    const { layout } = planWith(request, packed, () => bits);
    const layouts = layout.tensors.map(
      (tensor) => [tensor.name, packedMatrixLayout(tensor)] as const,
    );
    return [bits, new Map(layouts)] as const;
  });
  const units: AllocationUnit[] = [];
  const kept = await openScores(request.scores);
  const { workers } = request;
  const threads = workers > 1 ? new PackThreads({ workers }) : undefined;
  const start = performance.now();
  let [doneBytes, leftBytes] = [0, packed.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)];
  try {
    for (const [index, tensor] of packed.entries()) {
      const msLeft = doneBytes === 0 ? 0 : ((performance.now() - start) * leftBytes) / doneBytes;
      const left = doneBytes === 0 ? '' : `, ${formatTime(msLeft)} left`;
      progress.part(index, packed.length, `measuring${left}  ${tensor.name}`);
      doneBytes += tensor.sizeBytes;
      leftBytes -= tensor.sizeBytes;
      const { name, shape } = tensor;
      const layouts = plans.flatMap(([bits, own]): Layouts => {
        const layout = own.get(name);
        return layout === undefined ? [] : [[bits, layout]];
      });
      const choices = await choicesOf(request, tensor, layouts, kept.scores, threads);
      const weights = shape.reduce((product, extent) => product * extent, 1);
      units.push({ id: name, layer: -1, weights, score: 0, choices });
    }
  } finally {
    await threads?.dispose();
  }
  await kept.save();
  return units;
}

/**
 * Checks a target before anything is measured.
 * @throws VramError `invalid-argument` with the least bits that the narrowest widths take.
 */
function checkTarget(request: Work, tensors: readonly SourceTensor[], targetBits: number): void {
  const narrowest = (name: string): CodeBits => ruleFor(request.rules, name)?.bits ?? 2;
  const packed = tensors.filter(({ name, shape }) => !isKept(request, name, shape));
  let [bytes, weights] = [0, 0];
  for (const tensor of planWith(request, packed, narrowest).layout.tensors) {
    const layout = packedMatrixLayout(tensor);
    if (layout === undefined) continue;
    bytes += matrixBytes(layout);
    weights += layout.rows * layout.columns;
  }
  if (bytes <= Math.floor((weights * targetBits) / 8)) return;
  const least = (Math.ceil((8e3 * bytes) / weights) / 1e3).toFixed(3);
  fail(
    'invalid-argument',
    `--target-bits ${targetBits} cannot be reached: scales counted, these matrices take at least ` +
      `${least} bits a weight`,
    { targetBits, leastBits: Number(least) },
  );
}

/** The width of each tensor that is packed: by rules, or by measured errors for a target. */
export async function chooseWidths(
  request: Work,
  tensors: readonly SourceTensor[],
  progress: Progress,
): Promise<(name: string) => CodeBits> {
  const { targetBits, rules, bits } = request;
  if (targetBits === undefined) return (name) => ruleFor(rules, name)?.bits ?? bits;
  checkTarget(request, tensors, targetBits);
  const units = applyRules(await measure(request, tensors, progress), rules);
  const budgetBytes = bytesForBits(units, targetBits);
  const widths = widthsOf(allocateBits(units, knapsackAllocator({ budgetBytes })));
  return (name) => widths.get(name) ?? bits;
}
