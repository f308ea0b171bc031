/**
 * Runs the rows of one model that have no result yet: stores every matrix, puts what is left of it
 * on the device, and reads the texts.
 */
import { mkdir, readdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ProductPeer } from '@vramkit/bench';
import { throwIfAborted, type VramDevice } from '@vramkit/core';
import { loadTokenizer, openModelFile } from '@vramkit/example-runtime';
import { resolveModel } from '@vramkit/models';
import { optRtn, type FactorFormat } from '@vramkit/packer';
import type { StudyDocument } from '../documents.js';
import { kept, measureErrors } from './allocation.js';
import { denseInputs } from './dense-inputs.js';
import { expertInputs } from './expert-inputs.js';
import { openReplaceable, type ReplaceableModel } from './replaceable-model.js';
import { studyRows } from './rows.js';
import { measureSensitivity } from './sensitivity.js';
import { packedOnce } from './stored.js';
import {
  compactWidths,
  isMixture,
  mixedWidths,
  widthsAndGroups,
  type StudyRow,
} from './study-row.js';
import { studyTexts, type StudyTexts, type TextPart, type TextSizes } from './texts.js';

/** Mean loss of one window, nats. */
export interface WindowLoss {
  readonly part: TextPart;
  readonly text: string;
  readonly loss: number;
}

/** What a row costs. */
export interface RowResult {
  readonly model: string;
  readonly driver: string;
  readonly tokens: number;
  /** Place in the order of rows; the unchanged weights are -1. */
  readonly order: number;
  readonly name: string;
  readonly kind: StudyRow['kind'] | 'reference';
  readonly quantizer: string;
  readonly target?: number;
  /** Bits of each packed weight, everything counted; `null` for the weights of the file. */
  readonly bitsPerWeight: number | null;
  readonly mse: number;
  /** `null` without error. */
  readonly sqnrDb: number | null;
  readonly windows: readonly WindowLoss[];
}

/** Options of {@link runPacking}. */
export interface PackingRun {
  readonly folder: string;
  /** Which rows, by their names. */
  readonly only: RegExp;
  readonly driver: string;
  readonly log: (line: string) => void;
  readonly signal: AbortSignal;
}

/** Tokens by model: bytes are tokens of tiny-moe, and cost less than a word. */
export function textSizes(modelName: string): TextSizes {
  return modelName === 'tiny-moe'
    ? { tokens: 257, textWindows: 8, documentWindows: 1 }
    : { tokens: 65, textWindows: 2, documentWindows: 1, calibrationWindows: 16 };
}

const fileOf = (name: string): string => `${name.replaceAll(/[^\w.]+/g, '-')}.json`;

/** Runs what is missing; results appear one by one. */
export async function runPacking(
  device: VramDevice,
  modelName: string,
  documents: readonly StudyDocument[],
  options: PackingRun,
): Promise<void> {
  const { path } = await resolveModel(modelName);
  const file = await openModelFile(path);
  const tokenizer = await loadTokenizer(file).finally(() => file.close());
  const sizes = textSizes(modelName);
  const texts = await studyTexts(tokenizer, documents, sizes);
  using model = await openReplaceable(device, path);
  await using peer = new ProductPeer('ggml');
  const folder = join(options.folder, modelName);
  const work = join(folder, 'stored');
  await mkdir(join(folder, 'rows'), { recursive: true });
  const inputs = isMixture(model)
    ? expertInputs(model, texts.calibration)
    : denseInputs(model, texts.calibration, work);
  const restore = async (): Promise<void> => {
    for (const tensor of model.tensors) await model.write(tensor, tensor.values);
  };
  const errors = (factors: FactorFormat) =>
    kept(join(folder, factors === 'f16' ? 'errors.json' : `errors-${factors}.json`), async () => {
      options.log(`measuring the errors of every width with ${factors} factors`);
      await restore();
      const widths = factors === 'f16' ? widthsAndGroups(model) : compactWidths();
      return measureErrors(model, inputs, widths, (t, w) => packedOnce(work, t, w, optRtn()));
    });
  const sensitivity = async () => {
    const found = await kept(join(folder, 'sensitivity.json'), async () => {
      options.log('measuring what every unit costs alone');
      await restore();
      const narrowest = mixedWidths(model)[0] ?? { bits: 2, groupSize: 64 };
      // Of many windows a few: the model reads them again for every part.
      const { calibrationWindows = 1 } = sizes;
      const step = calibrationWindows === 1 ? 1 : 2 * calibrationWindows;
      const windows = texts.calibration.filter((_, i) => i % step === 0);
      return measureSensitivity(model, windows, narrowest, work, options.signal);
    });
    return new Map(Object.entries(found));
  };
  const rows = studyRows({ model, inputs, peer, folder: work, errors, sensitivity });
  const done = new Set(await readdir(join(folder, 'rows')));
  const runner = { model, modelName, texts, folder, options, restore };
  if (!done.has('reference.json')) await runRow(runner, undefined, -1);
  for (const [order, row] of rows.entries()) {
    if (done.has(fileOf(rowName(row))) || !options.only.test(rowName(row))) continue;
    throwIfAborted(options.signal);
    await runRow(runner, row, order);
  }
}

function rowName({ name, quantizer, target }: StudyRow): string {
  return [quantizer, name, target].filter((part) => part !== undefined).join(' ');
}

interface Runner {
  readonly model: ReplaceableModel;
  readonly modelName: string;
  readonly texts: StudyTexts;
  readonly folder: string;
  readonly options: PackingRun;
  readonly restore: () => Promise<void>;
}

async function runRow(runner: Runner, row: StudyRow | undefined, order: number): Promise<void> {
  const { model, modelName, texts, folder, options } = runner;
  const start = performance.now();
  let [noise, signal, weights, bytes] = [0, 0, 0, 0];
  // Calibration that a row asks for has to see the weights of the file: all is stored before
  // anything is replaced.
  await runner.restore();
  const replaced: Float32Array[] = [];
  for (const tensor of row === undefined ? [] : model.tensors) {
    throwIfAborted(options.signal);
    const stored = await row?.store(tensor);
    if (stored === undefined) continue;
    tensor.values.forEach((value, i) => {
      noise += ((stored.values[i] ?? NaN) - value) ** 2;
      signal += value * value;
    });
    weights += tensor.values.length;
    bytes += stored.bytes;
    replaced.push(stored.values);
  }
  for (const [i, values] of replaced.entries()) {
    const tensor = model.tensors[i];
    if (tensor !== undefined) await model.write(tensor, values);
  }
  const losses = await model.losses(texts.evaluation.map(({ ids }) => ids));
  const result: RowResult = {
    model: modelName,
    driver: options.driver,
    tokens: texts.evaluation.reduce((sum, { ids }) => sum + ids.length - 1, 0),
    order,
    ...(row === undefined
      ? { name: 'reference', kind: 'reference', quantizer: '-' }
      : { name: row.name, kind: row.kind, quantizer: row.quantizer }),
    ...(row?.target !== undefined && { target: row.target }),
    bitsPerWeight: row === undefined ? null : (8 * bytes) / weights,
    mse: row === undefined ? 0 : noise / weights,
    sqnrDb: noise > 0 ? 10 * Math.log10(signal / noise) : null,
    windows: texts.evaluation.map(({ part, text }, i) => ({ part, text, loss: losses[i] ?? NaN })),
  };
  const path = join(folder, 'rows', row === undefined ? 'reference.json' : fileOf(rowName(row)));
  await writeFile(`${path}.part`, JSON.stringify(result));
  await rename(`${path}.part`, path);
  const mean = losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
  const seconds = ((performance.now() - start) / 1000).toFixed(0);
  const what = row === undefined ? 'reference' : rowName(row);
  const bits = result.bitsPerWeight?.toFixed(3) ?? 'all';
  options.log(`${modelName}: ${what}: ${bits} bits, ${Math.exp(mean).toFixed(3)}, ${seconds} s`);
}
