/**
 * The rows of the tables: what is stored how. Rows that decide most come first, so that a study
 * that is stopped early has them.
 */
import {
  bytesForBits,
  gptq,
  hqq,
  kMeansAllocator,
  knapsackAllocator,
  optRtn,
  rtn,
  signRound,
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

const isMixture = ({ model }: ReplaceableModel): boolean => model.config.experts > 0;

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
export function compactWidths(model: ReplaceableModel): Width[] {
  const sizes = isMixture(model) ? ([64, 32] as const) : ([32] as const);
  return ([2, 3, 4] as const).flatMap((bits) =>
    sizes.map((groupSize): Width => ({ bits, groupSize, factors: 'compact' })),
  );
}

/** Bits a weight that mixed rows with compact factors are held to. */
function compactTargets(model: ReplaceableModel): number[] {
  return isMixture(model) ? [2.5, 3, 2.75, 3.5] : [3, 3.5];
}

/** Bits a weight that mixed rows are held to: those of uniform rows. */
function targetsOf(model: ReplaceableModel): number[] {
  return isMixture(model) ? [2.5, 3, 3.25, 4.5] : [3, 3.5];
}

function uniformRow(
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

function searchedRow(
  { folder }: RowSources,
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
    store: (tensor) => packedOnce(folder, tensor, { bits, groupSize, factors }, quantizer),
  };
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
      return packedOnce(sources.folder, tensor, width, quantizer);
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

function scoreNames(model: ReplaceableModel): string[] {
  return isMixture(model) ? ['mopeq', 'activationFrequency', 'hybrid'] : ['mopeq'];
}

async function scoreOf(sources: RowSources, name: string): Promise<Scores> {
  const found = (await scoresOf(sources)).find(([each]) => each === name);
  if (found === undefined) throw new RangeError(`no score ${name}`);
  return found[1];
}

/** Losses by their source: scores, and what is measured. */
function lossSources(
  sources: RowSources,
  factors: FactorFormat = 'f16',
): [string, () => Promise<LossOf>][] {
  const measured = (part: 'weights' | 'outputs') => async (): Promise<LossOf> => {
    const errors = await sources.errors(factors);
    return (unit, width) => errors[unit]?.[widthName(width)]?.[part] ?? NaN;
  };
  const narrowest = widthName(mixedWidths(sources.model)[0] ?? { bits: 2, groupSize: 64 });
  return [
    [sources.inputs.byColumn ? 'imatrix error' : 'outputError', measured('outputs')],
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

function knapsackRow(
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

function kMeansRow(sources: RowSources, score: string, scope: 'layer' | 'model'): StudyRow {
  const widths = mixedWidths(sources.model);
  return mixedRow(sources, { name: `${score}, k-means by ${scope}` }, async () => {
    const scores = await scoreOf(sources, score);
    const units = allocationUnits(sources.model, widths, () => 0, scores);
    const allocator: Allocator = kMeansAllocator({ scope });
    return chooseWidths(units, widths, allocator);
  });
}

function ggmlRow({ peer, folder }: RowSources, type: string): StudyRow {
  return {
    name: type.toUpperCase(),
    kind: 'llama.cpp',
    quantizer: 'ggml',
    store: (tensor) => storedByGgml(peer, folder, tensor, type),
  };
}

/** One width by the quantizers that mixed rows do not use. */
function otherQuantizers(sources: RowSources): Record<'others' | 'calibrated', StudyRow[]> {
  const mixture = isMixture(sources.model);
  const others = ([4, 3, 2, 8] as const).flatMap((bits) => {
    const quantizers = [rtn(), rtn({ convention: 'symmetric-full' }), hqq()];
    if (mixture || bits < 8) quantizers.push(optRtn({ convention: 'symmetric' }));
    return quantizers.map((quantizer) => uniformRow(sources, bits, 64, quantizer));
  });
  const calibrated = ([3, 2, 4] as const).flatMap((bits) => {
    // One pass of signRound over a dense model takes hours of one core.
    const quantizers = mixture ? [gptq(), signRound({ iterations: 50 })] : [gptq()];
    return quantizers.map((quantizer) => uniformRow(sources, bits, 64, quantizer));
  });
  return { others, calibrated };
}

/** Rows with compact factors: those that decide first, the others, and those by measured loss. */
function compactRows(sources: RowSources): Record<'uniform' | 'mixed' | 'measured', StudyRow[]> {
  const { model } = sources;
  const byMagnitude = optRtn({ emphasis: 'magnitude' });
  const sizes: [CodeBits, GroupChoice][] = [
    [4, 32],
    [2, 32],
    [3, 32],
    [2, 16],
  ];
  const uniform = [optRtn(), byMagnitude, hqq()].flatMap((quantizer) =>
    sizes.map(([bits, size]) => searchedRow(sources, bits, size, quantizer, 'compact')),
  );
  const widths = compactWidths(model);
  const losses = lossSources(sources, 'compact');
  const named = (names: readonly string[], quantizer?: Quantizer): StudyRow[] =>
    compactTargets(model).flatMap((target) =>
      losses
        .filter(([name]) => names.includes(name))
        .map(([name, lossOf]) => {
          const row = knapsackRow(sources, name, target, lossOf, widths, quantizer);
          return { ...row, name: `${row.name}, compact` };
        }),
    );
  const names = losses.map(([name]) => name).filter((name) => name !== 'measured loss');
  return {
    uniform,
    mixed: [...named(names), ...named(['mopeq', 'activationFrequency'], byMagnitude)],
    measured: named(['measured loss']),
  };
}

/** All rows of a model. */
export function studyRows(sources: RowSources): StudyRow[] {
  const { model } = sources;
  const mixture = isMixture(model);
  const searched = ([2, 3, 4] as const).map((bits) => searchedRow(sources, bits, 64));
  const finer = ([2, 3, 4] as const).map((bits) => searchedRow(sources, bits, 32));
  const coarse = mixture ? ([2, 3, 4] as const) : [];
  const coarser = coarse.map((bits) => searchedRow(sources, bits, 128));
  const types = ['q4_0', 'q4_1', 'q4_K', 'q3_K', 'q2_K'].map((type) => ggmlRow(sources, type));
  const byMagnitude = optRtn({ emphasis: 'magnitude' });
  const emphasized = (
    [
      [2, 64],
      [2, 32],
      [3, 64],
      [4, 64],
    ] as const
  ).map(([bits, groupSize]) => searchedRow(sources, bits, groupSize, byMagnitude));
  const losses = lossSources(sources);
  const mixed = targetsOf(model).flatMap((target) =>
    losses.map(([name, lossOf]) => knapsackRow(sources, name, target, lossOf, mixedWidths(model))),
  );
  const grouped = (mixture ? targetsOf(model) : []).flatMap((target) =>
    losses
      .filter(([name]) => name === 'outputError' || name === 'measured loss')
      .map(([name, lossOf]) => {
        const title = `${name} over widths and groups`;
        return knapsackRow(sources, title, target, lossOf, widthsAndGroups(model));
      }),
  );
  const mixedByMagnitude = targetsOf(model)
    .slice(0, 2)
    .flatMap((target) =>
      losses
        .filter(([name]) => name === 'mopeq' || name === 'activationFrequency')
        .map(([name, lossOf]) =>
          knapsackRow(sources, name, target, lossOf, mixedWidths(model), byMagnitude),
        ),
    );
  const clusters = scoreNames(model).flatMap((score) =>
    (['layer', 'model'] as const).map((scope) => kMeansRow(sources, score, scope)),
  );
  const { others, calibrated } = otherQuantizers(sources);
  const eight = searchedRow(sources, 8, 64);
  const isMeasured = ({ name }: StudyRow): boolean => name.startsWith('measured');
  const [first = 0, second = 0] = targetsOf(model);
  const decides = ({ target = 0 }: StudyRow): boolean => target === first || target === second;
  const plain = mixed.filter((row) => !isMeasured(row));
  const compact = compactRows(sources);
  return [
    ...searched,
    ...compact.uniform,
    ...finer.slice(0, 1),
    ...types,
    ...emphasized,
    ...coarser,
    ...plain.filter(decides),
    ...compact.mixed,
    ...mixedByMagnitude,
    ...clusters,
    ...others,
    ...plain.filter((row) => !decides(row)),
    ...finer.slice(1),
    ...mixed.filter(isMeasured),
    ...compact.measured,
    ...grouped,
    eight,
    ...calibrated,
  ];
}
