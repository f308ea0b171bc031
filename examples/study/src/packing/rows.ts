/**
 * The rows of the tables: what is stored how. Rows that decide most come first, so that a study
 * that is stopped early has them.
 */
import {
  gptq,
  hqq,
  optRtn,
  rtn,
  signRound,
  type CodeBits,
  type GroupChoice,
  type Quantizer,
} from '@vramkit/packer';
import type { ReplaceableModel } from './replaceable-model.js';
import {
  compactWidths,
  ggmlRow,
  isMixture,
  keptRow,
  kMeansRow,
  knapsackRow,
  lossSources,
  mixedWidths,
  scoreNames,
  uniformRow,
  widthsAndGroups,
  type RowSources,
  type StudyRow,
} from './study-row.js';

/** Bits a weight that mixed rows with compact factors are held to. */
const COMPACT_TARGETS = [2.5, 3, 2.75, 3.5];

/** Bits a weight that mixed rows are held to: those of uniform rows. */
function targetsOf(model: ReplaceableModel): number[] {
  return isMixture(model) ? [2.5, 3, 3.25, 4.5] : [3, 3.5];
}

/** One width by the quantizers that search nothing, or a group alone. */
function otherQuantizers(sources: RowSources): StudyRow[] {
  const quantizers = [
    rtn(),
    rtn({ convention: 'symmetric-full' }),
    hqq(),
    optRtn({ convention: 'symmetric' }),
  ];
  return ([4, 3, 2, 8] as const).flatMap((bits) =>
    quantizers.map((quantizer) => uniformRow(sources, bits, 64, quantizer)),
  );
}

/** Steps of signRound: those of AutoRound's light recipe. */
const STEPS = 50;
/** At 8 bits a step changes more codes and takes three times as long, with nothing left to gain. */
const STEPS_OF_8_BITS = 10;

/** Rows of the quantizers that see activations: one width, and widths by what was measured. */
function calibratedRows(sources: RowSources): StudyRow[] {
  const quantizers = [gptq(), signRound({ iterations: STEPS })];
  const few = [gptq(), signRound({ iterations: STEPS_OF_8_BITS })];
  const plain = ([3, 2, 4, 8] as const).flatMap((bits) =>
    (bits === 8 ? few : quantizers).map((quantizer) => uniformRow(sources, bits, 64, quantizer)),
  );
  const compact = COMPACT_SIZES.flatMap(([bits, size]) =>
    quantizers.map((quantizer) => keptRow(sources, bits, size, quantizer, 'compact')),
  );
  const names = ['imatrix error', 'outputError', 'weightError', 'measured loss'];
  const mixed = quantizers.flatMap((quantizer) => compactMixed(sources, names, quantizer));
  return [...plain, ...compact, ...mixed];
}

/** Widths and groups of uniform rows with compact factors: 4.5, 2.5, 3.5, 3, 2.25 and 3.25 bits. */
const COMPACT_SIZES: readonly (readonly [CodeBits, GroupChoice])[] = [
  [4, 32],
  [2, 32],
  [3, 32],
  [2, 16],
  [2, 64],
  [3, 64],
];

/** Mixed rows with compact factors, by these losses. */
function compactMixed(
  sources: RowSources,
  names: readonly string[],
  quantizer?: Quantizer,
): StudyRow[] {
  const losses = lossSources(sources, 'compact').filter(([name]) => names.includes(name));
  return COMPACT_TARGETS.flatMap((target) =>
    losses.map(([name, lossOf]) => {
      const row = knapsackRow(sources, name, target, lossOf, compactWidths(), quantizer);
      return { ...row, name: `${row.name}, compact` };
    }),
  );
}

/** Rows with compact factors: those that decide first, the others, and those by measured loss. */
function compactRows(sources: RowSources): Record<'uniform' | 'mixed' | 'measured', StudyRow[]> {
  const byMagnitude = optRtn({ emphasis: 'magnitude' });
  const uniform = [optRtn(), byMagnitude, hqq()].flatMap((quantizer) =>
    COMPACT_SIZES.map(([bits, size]) => keptRow(sources, bits, size, quantizer, 'compact')),
  );
  const names = ['imatrix error', 'outputError', 'weightError', ...scoreNames(sources.model)];
  return {
    uniform,
    mixed: [
      ...compactMixed(sources, names),
      ...compactMixed(sources, ['mopeq', 'activationFrequency'], byMagnitude),
    ],
    measured: compactMixed(sources, ['measured loss']),
  };
}

/** All rows of a model. */
export function studyRows(sources: RowSources): StudyRow[] {
  const { model } = sources;
  const mixture = isMixture(model);
  const searched = ([2, 3, 4] as const).map((bits) => keptRow(sources, bits, 64));
  const finer = ([2, 3, 4] as const).map((bits) => keptRow(sources, bits, 32));
  const coarse = mixture ? ([2, 3, 4] as const) : [];
  const coarser = coarse.map((bits) => keptRow(sources, bits, 128));
  const types = ['q4_0', 'q4_1', 'q4_K', 'q3_K', 'q2_K'].map((type) => ggmlRow(sources, type));
  const byMagnitude = optRtn({ emphasis: 'magnitude' });
  const emphasized = (
    [
      [2, 64],
      [2, 32],
      [3, 64],
      [4, 64],
    ] as const
  ).map(([bits, groupSize]) => keptRow(sources, bits, groupSize, byMagnitude));
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
  const eight = keptRow(sources, 8, 64);
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
    ...otherQuantizers(sources),
    ...plain.filter((row) => !decides(row)),
    ...finer.slice(1),
    ...mixed.filter(isMeasured),
    ...compact.measured,
    ...grouped,
    eight,
    ...calibratedRows(sources),
  ];
}
