/**
 * Packing: a width for each expert by the scores of MoPEQ, so that the whole file is within a byte
 * target; what the file loses beside the checkpoint that it was made of.
 */
import { fail, type VramDevice } from '@vramkit/core';
import {
  measureErrors,
  meanLoss,
  openMoeModel,
  packWith,
  scoreAsError,
  scoreUnits,
  toAllocationUnits,
  type MoeModel,
} from '@vramkit/example-moe-pack';
import {
  allocateBits,
  bytesForBits,
  knapsackAllocator,
  mopeq,
  optRtn,
  planModel,
  rtn,
  widthsOf,
  type AllocationUnit,
  type CodeBits,
} from '@vramkit/packer';
import { join } from 'node:path';

const WIDTHS: readonly CodeBits[] = [2, 3, 4, 8];
const GROUP_SIZE = 64;

/** Bits for each weight of the experts, or bytes of the whole file. */
export type PackTarget = { readonly bits: number } | { readonly fileBytes: number };

/** What the packed model is beside the unpacked one. */
export interface PackFigures {
  readonly targetBytes: number;
  readonly fileBytes: number;
  readonly expertBytes: number;
  /** True bits for each weight of the experts: codes, scales and minimums. */
  readonly bitsPerWeight: number;
  /** Experts of each width. */
  readonly widths: Readonly<Record<string, number>>;
  readonly sqnrDb: number;
  readonly unpackedBytes: number;
  /** Mean loss over held-out text, nats a byte. */
  readonly unpackedLoss: number;
  readonly loss: number;
}

type Widths = ReadonlyMap<string, CodeBits>;

/** Bytes of the file with these widths; no weight is read. */
export function plannedBytes(model: MoeModel, widths: Widths): number {
  const plan = planModel(model.tensors, {
    plan: ({ name }) => {
      const bits = widths.get(model.unitOf.get(name) ?? '');
      return bits === undefined ? 'keep' : { bits, groupSize: GROUP_SIZE, quantizer: optRtn() };
    },
  });
  return plan.layout.sizeBytes;
}

/** Units of the allocator: what each width costs, and the scores of MoPEQ as errors. */
export async function scoredUnits(model: MoeModel): Promise<AllocationUnit[]> {
  const how = { widths: WIDTHS, groupSize: GROUP_SIZE } as const;
  const scores = await scoreUnits(model, mopeq());
  // How errors fall with the width is that of the first expert, for all.
  const first = { ...model, experts: model.experts.slice(0, 1) };
  const errors = await measureErrors(first, { ...how, quantizer: rtn() });
  return scoreAsError(toAllocationUnits(model, { ...how, scores, errors }), scores);
}

function bytesOf(units: readonly AllocationUnit[], widths: Widths): number {
  const of = ({ id, choices }: AllocationUnit): number =>
    choices.find(({ bits }) => bits === widths.get(id))?.sizeBytes ?? 0;
  return units.reduce((sum, unit) => sum + of(unit), 0);
}

/** Bytes that the target stands for, and those that are no experts'. */
function targetOf(model: MoeModel, units: readonly AllocationUnit[], target: PackTarget) {
  const least: Widths = new Map(units.map(({ id }) => [id, 2]));
  const leastBytes = plannedBytes(model, least);
  const rest = leastBytes - bytesOf(units, least);
  const targetBytes =
    'fileBytes' in target ? target.fileBytes : rest + bytesForBits(units, target.bits);
  if (targetBytes < leastBytes) {
    const what = `the packed model takes ${leastBytes} B at least, not ${targetBytes}`;
    fail('invalid-argument', what, { targetBytes, leastBytes });
  }
  return { targetBytes, leastBytes, rest };
}

/**
 * Says whether a target can be met; sizes alone decide.
 * @throws VramError `invalid-argument` with the least bytes that the packed model takes.
 */
export function checkTarget(model: MoeModel, target: PackTarget): void {
  const how = { widths: WIDTHS, groupSize: GROUP_SIZE } as const;
  targetOf(model, toAllocationUnits(model, { ...how, scores: [], errors: [] }), target);
}

/** The widths whose file is within the target. @throws VramError as {@link checkTarget}. */
export function chooseWidths(
  model: MoeModel,
  units: readonly AllocationUnit[],
  target: PackTarget,
): { readonly widths: Widths; readonly targetBytes: number } {
  const { targetBytes, leastBytes, rest } = targetOf(model, units, target);
  // The header names the widths, so its size depends on them, by a few bytes.
  for (let spare = 0; ; spare += 64) {
    const budgetBytes = Math.max(leastBytes - rest, targetBytes - rest - spare);
    const widths = widthsOf(allocateBits(units, knapsackAllocator({ budgetBytes })));
    if (plannedBytes(model, widths) <= targetBytes) return { widths, targetBytes };
  }
}

/** Packs the model in `folder` into `folder/packed` and compares both on `windows`. */
export async function packStage(
  device: VramDevice,
  folder: string,
  options: { readonly target: PackTarget; readonly windows: readonly Uint32Array[] },
): Promise<{ readonly folder: string; readonly figures: PackFigures }> {
  const { target, windows } = options;
  const model = await openMoeModel(folder);
  try {
    const units = await scoredUnits(model);
    const { widths, targetBytes } = chooseWidths(model, units, target);
    const how = { widths, groupSize: GROUP_SIZE, quantizer: optRtn() } as const;
    const packed = await packWith(model, join(folder, 'packed'), how);
    const counts = WIDTHS.map((bits) => [
      String(bits),
      [...widths.values()].filter((each) => each === bits).length,
    ]);
    const figures: PackFigures = {
      targetBytes,
      fileBytes: packed.fileBytes,
      expertBytes: bytesOf(units, widths),
      bitsPerWeight: packed.bitsPerWeight,
      widths: Object.fromEntries(counts) as Record<string, number>,
      sqnrDb: packed.sqnrDb,
      unpackedBytes: model.tensors.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
      unpackedLoss: await meanLoss(device, folder, windows),
      loss: await meanLoss(device, packed.folder, windows),
    };
    return { folder: packed.folder, figures };
  } finally {
    await model.close();
  }
}
