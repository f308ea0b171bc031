/**
 * One row of the tables: a way of storing all packed matrices of a model, by one width, by widths
 * that an allocator chooses, or by a type of llama.cpp.
 */
import {
  bytesForBits,
  kMeansAllocator,
  knapsackAllocator,
  optRtn,
  type Allocator,
  type CodeBits,
  type FactorFormat,
  type GroupChoice,
  type Quantizer,
} from '@vramkit/packer';
import type { ProductPeer } from '@vramkit/bench';
import {
  allocationUnits,
  chooseWidths,
  lossByScore,
  mopeqScores,
  type Losses,
  type LossOf,
  type MeasuredErrors,
} from './allocation.js';
import type { ModelInputs } from './inputs.js';
import type { Replaceable, ReplaceableModel } from './replaceable-model.js';
import { packed, packedOnce, storedByGgml, widthName, type Stored, type Width } from './stored.js';

/** One way of storing all packed matrices of a model. */
export interface StudyRow {
  readonly name: string;
  readonly kind: 'uniform' | 'mixed' | 'llama.cpp';
  readonly quantizer: string;
  /** The bits a weight that a mixed row was held to. */
  readonly target?: number;
  readonly store: (tensor: Replaceable) => Promise<Stored>;
}

/** What rows are made of. */
export interface RowSources {
  readonly model: ReplaceableModel;
  readonly inputs: ModelInputs;
  readonly peer: ProductPeer;
  readonly folder: string;
  /**
   * {@link MeasuredErrors} of {@link widthsAndGroups}, or of {@link compactWidths}; measured when
   * first asked for.
   */
  readonly errors: (factors: FactorFormat) => Promise<MeasuredErrors>;
  /** How much the loss of the calibration windows rises with a unit alone at 2 bits. */
  readonly sensitivity: () => Promise<ReadonlyMap<string, number>>;
}

/** Whether the model has experts. */
export const isMixture = ({ model }: ReplaceableModel): boolean => model.config.experts > 0;

/** Widths that units choose from. Rows of SmolLM2 are 576 long: no whole groups of 128. */
export function mixedWidths(model: ReplaceableModel): Width[] {
  if (!isMixture(model)) return ([2, 3, 4] as const).map((bits) => ({ bits, groupSize: 64 }));
  return ([2, 3, 4, 8] as const).map((bits) => ({ bits, groupSize: 128 }));
}

/** Widths and groups that units choose from. */
export function widthsAndGroups(model: ReplaceableModel): Width[] {
  if (!isMixture(model)) return mixedWidths(model);
  return [...mixedWidths(model), { bits: 2, groupSize: 32 }, { bits: 3, groupSize: 32 }];
}

/** Widths with compact factors that units choose from. */
export function compactWidths(): Width[] {
  return ([2, 3, 4] as const).flatMap((bits) =>
    ([64, 32] as const).map((groupSize): Width => ({ bits, groupSize, factors: 'compact' })),
  );
}

/** A row of one width. */
export function uniformRow(
  { inputs }: RowSources,
  bits: CodeBits,
  groupSize: GroupChoice,
  quantizer: Quantizer,
): StudyRow {
  return {
    name: `${bits} bits, groups of ${groupSize}`,
    kind: 'uniform',
    quantizer: quantizer.name,
    store: async (tensor) => {
      const moments = quantizer.needs === 'moments' ? await inputs.momentsOf(tensor) : undefined;
      return packed(tensor, { bits, groupSize }, quantizer, moments);
    },
  };
}

/** A row of one width whose matrices are kept, because mixed rows store them so too. */
export function keptRow(
  sources: RowSources,
  bits: CodeBits,
  groupSize: GroupChoice,
  quantizer = optRtn(),
  factors: FactorFormat = 'f16',
): StudyRow {
  const suffix = factors === 'f16' ? '' : `, ${factors}`;
  return {
    name: `${bits} bits, groups of ${groupSize}${suffix}`,
    kind: 'uniform',
    quantizer: quantizer.name,
    store: (tensor) => storeOnce(sources, tensor, { bits, groupSize, factors }, quantizer),
  };
}

async function storeOnce(
  { folder, inputs }: RowSources,
  tensor: Replaceable,
  width: Width,
  quantizer: Quantizer,
): Promise<Stored> {
  const moments = quantizer.needs === 'moments' ? () => inputs.momentsOf(tensor) : undefined;
  return packedOnce(folder, tensor, width, quantizer, moments);
}

/** A row of widths that are decided when its first matrix is asked for. */
function mixedRow(
  sources: RowSources,
  about: { readonly name: string; readonly target?: number },
  decide: () => Promise<ReadonlyMap<string, Width>>,
  quantizer = optRtn(),
): StudyRow {
  let chosen: Promise<ReadonlyMap<string, Width>> | undefined;
  return {
    ...about,
    kind: 'mixed',
    quantizer: quantizer.name,
    store: async (tensor) => {
      const width = (await (chosen ??= decide())).get(tensor.unit);
      if (width === undefined) throw new RangeError(`no width for ${tensor.unit}`);
      return storeOnce(sources, tensor, width, quantizer);
    },
  };
}

type Scores = ReadonlyMap<string, number>;

/** The scores of a model by name: frequency means nothing where every token uses every unit. */
async function scoresOf({ model, inputs }: RowSources): Promise<[string, Scores][]> {
  const mopeq = mopeqScores(model);
  const counts = await inputs.counts();
  if (counts === undefined) return [['mopeq', mopeq]];
  const frequency = new Map([...counts].map(([id, count]) => [id, Math.max(1, count)]));
  const hybrid = new Map([...mopeq].map(([id, score]) => [id, score * (frequency.get(id) ?? 1)]));
  return [
    ['mopeq', mopeq],
    ['activationFrequency', frequency],
    ['hybrid', hybrid],
  ];
}

/** The scores that a model has. */
export function scoreNames(model: ReplaceableModel): string[] {
  return isMixture(model) ? ['mopeq', 'activationFrequency', 'hybrid'] : ['mopeq'];
}

async function scoreOf(sources: RowSources, name: string): Promise<Scores> {
  const found = (await scoresOf(sources)).find(([each]) => each === name);
  if (found === undefined) throw new RangeError(`no score ${name}`);
  return found[1];
}

/** Losses by their source: scores, and what is measured. */
export function lossSources(
  sources: RowSources,
  factors: FactorFormat = 'f16',
): [string, () => Promise<LossOf>][] {
  const measured = (part: keyof Losses) => async (): Promise<LossOf> => {
    const errors = await sources.errors(factors);
    return (unit, width) => errors[unit]?.[widthName(width)]?.[part] ?? NaN;
  };
  const narrowest = widthName(mixedWidths(sources.model)[0] ?? { bits: 2, groupSize: 64 });
  return [
    ['imatrix error', measured('columns')],
    ['outputError', measured('outputs')],
    ['weightError', measured('weights')],
    ...scoreNames(sources.model).map((name): [string, () => Promise<LossOf>] => [
      name,
      async () => lossByScore(await sources.errors(factors), await scoreOf(sources, name)),
    ]),
    [
      'measured loss',
      async () => {
        const errors = await sources.errors(factors);
        // Rises were measured at this width.
        const bases = await sources.errors('f16');
        const rises = await sources.sensitivity();
        return (unit, width) => {
          const base = bases[unit]?.[narrowest]?.weights ?? NaN;
          const own = errors[unit]?.[widthName(width)]?.weights ?? NaN;
          return ((rises.get(unit) ?? NaN) * own) / base;
        };
      },
    ],
  ];
}

/** A row of widths by a knapsack over what each loses. */
export function knapsackRow(
  sources: RowSources,
  name: string,
  target: number,
  lossOf: () => Promise<LossOf>,
  widths: readonly Width[],
  quantizer = optRtn(),
): StudyRow {
  const decide = async (): Promise<ReadonlyMap<string, Width>> => {
    const units = allocationUnits(sources.model, widths, await lossOf());
    const allocator = knapsackAllocator({ budgetBytes: bytesForBits(units, target) });
    return chooseWidths(units, widths, allocator);
  };
  return mixedRow(sources, { name: `${name}, knapsack`, target }, decide, quantizer);
}

/** A row of widths by clusters of a score. */
export function kMeansRow(sources: RowSources, score: string, scope: 'layer' | 'model'): StudyRow {
  const widths = mixedWidths(sources.model);
  return mixedRow(sources, { name: `${score}, k-means by ${scope}` }, async () => {
    const scores = await scoreOf(sources, score);
    const units = allocationUnits(sources.model, widths, () => 0, scores);
    const allocator: Allocator = kMeansAllocator({ scope });
    return chooseWidths(units, widths, allocator);
  });
}

/** A row of a type of llama.cpp. */
export function ggmlRow({ peer, folder }: RowSources, type: string): StudyRow {
  return {
    name: type.toUpperCase(),
    kind: 'llama.cpp',
    quantizer: 'ggml',
    store: (tensor) => storedByGgml(peer, folder, tensor, type),
  };
}
