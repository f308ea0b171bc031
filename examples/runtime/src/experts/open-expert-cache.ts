/**
 * The cache of one layer's experts: its widths, what a budget holds of each, and where copies of
 * few bits come from.
 */
import { isVramError, throwIfAborted, VramError } from '@vramkit/core';
import type { Uploader, VramDevice } from '@vramkit/core';
import {
  affineMatrixFormat,
  createExpertCache,
  matrixBytes,
  matrixLayout,
  planExpertSlots,
  type ExpertCache,
  type ExpertDemand,
  type ExpertWidth,
  type MatrixFormat,
  type MatrixRows,
} from '@vramkit/packer';
import { joinRows } from '../matrix-rows.js';
import type { ModelTensor } from '../model-file.js';
import type { ExpertCaching, LowBitCopies } from './expert-caching.js';
import { LOW_BIT_GROUP, lowBitCopy } from './low-bit-copies.js';

/** What {@link openExpertCache} works from. */
export interface LayerExperts {
  /** Name in errors, traces and memory reports. */
  readonly label: string;
  /** Gate, up and down of each expert. */
  readonly experts: readonly (readonly ModelTensor[])[];
  /** The widths that they are stored in, with the number of experts as slots. */
  readonly widths: readonly ExpertWidth[];
  /** The width of each expert, as an index. */
  readonly widthOf: readonly number[];
  /** Layers that share the budget. */
  readonly layers: number;
  readonly expertsPerToken: number;
  readonly caching: ExpertCaching;
  /** Reads whole tensors as the device stores them. */
  readonly read: (parts: readonly ModelTensor[], format: MatrixFormat) => Promise<MatrixRows[]>;
  /** Stops between copies. */
  readonly signal?: AbortSignal;
}

/**
 * Makes a cache with no expert resident; the caller disposes it.
 * @throws VramError `out-of-memory` where the budget is below a slot of each width in each layer,
 * with what the whole model needs; `aborted`.
 */
export async function openExpertCache(
  device: VramDevice,
  uploader: Uploader,
  layer: LayerExperts,
): Promise<ExpertCache> {
  const { label, experts, widths, widthOf, caching, read } = layer;
  const { policy, lowBit } = caching;
  const [gate, up, down] = experts[0] ?? [];
  if (gate === undefined || up === undefined || down === undefined) {
    throw new RangeError(`'${label}' has no experts`);
  }
  const matrices = [
    { rowsPerExpert: gate.rows + up.rows, columns: gate.columns },
    { rowsPerExpert: down.rows, columns: down.columns },
  ];
  const stored = widths.map(({ slots: count, ...width }) => ({ ...width, count }));
  const copies = lowBit === undefined ? [] : await copiesOf(layer, lowBit);
  if (lowBit !== undefined) {
    const format = affineMatrixFormat(lowBit.bits);
    stored.push({ format, groupSize: LOW_BIT_GROUP, count: 0 });
  }
  const demands = stored.map(({ count, ...width }) => ({
    experts: count,
    ...(count === 0 && { atLeast: layer.expertsPerToken }),
    slotBytes: matrices.reduce((sum, { rowsPerExpert: rows, columns }) => {
      return sum + matrixBytes(matrixLayout({ ...width, rows, columns }));
    }, 0),
  }));
  const slots = slotsOf(demands, layer);
  return createExpertCache(device, uploader, {
    label,
    widthOf,
    matrices,
    widths: stored.map(({ count: _, ...width }, i) => ({ ...width, slots: slots[i] ?? 0 })),
    policy,
    ...(lowBit && { lowBit: { width: widths.length, below: lowBit.below } }),
    read: async (expert, width) => {
      const format = widths[width]?.format;
      if (format === undefined) return copies[expert] ?? [];
      const rows = await read(experts[expert] ?? [], format);
      return [joinRows(rows.slice(0, 2)), joinRows(rows.slice(2))];
    },
  });
}

/** Slots of each width; what is missing is said for the model, as the budget is. */
function slotsOf(demands: readonly ExpertDemand[], { layers, caching }: LayerExperts): number[] {
  const { budgetBytes } = caching;
  try {
    return planExpertSlots(demands, Math.floor(budgetBytes / layers));
  } catch (error) {
    if (!isVramError(error, 'out-of-memory')) throw error;
    const neededBytes = layers * Number(error.context['neededBytes']);
    const least = `the experts of ${layers} layers need a budget of ${neededBytes} B at least`;
    throw new VramError('out-of-memory', `${least}: a slot of each width in each`, {
      context: { kind: 'weights', neededBytes, budgetBytes },
      cause: error,
    });
  }
}

/** Gate with up, and down, of each expert in few bits. */
async function copiesOf(
  { experts, signal }: LayerExperts,
  { bits }: LowBitCopies,
): Promise<(readonly MatrixRows[])[]> {
  const copies: (readonly MatrixRows[])[] = [];
  for (const own of experts) {
    throwIfAborted(signal);
    const gateUp = await lowBitCopy(own.slice(0, 2), bits, signal);
    copies.push([gateUp, await lowBitCopy(own.slice(2), bits, signal)]);
  }
  return copies;
}
