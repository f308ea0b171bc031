/**
 * `vramkit pack`: weights of a model file in 2, 3, 4 or 8 bits, to one width or to a byte target.
 *
 * With a target, every tensor is quantized at every width first and the knapsack chooses; no more
 * than one tensor is in memory at any time. A run that was stopped goes on with `--resume`: a
 * journal beside the part lists what was written, for the same plan.
 */
import { createHash } from 'node:crypto';
import { appendFile, readFile, rm, writeFile } from 'node:fs/promises';
import {
  allocateBits,
  applyRules,
  bytesForBits,
  fileSink,
  knapsackAllocator,
  matrixBytes,
  measureUnit,
  packedMatrixLayout,
  packModel,
  planModel,
  ruleFor,
  sourceValues,
  unmatchedRules,
  unitDigest,
  widthsOf,
  type AllocationUnit,
  type CodeBits,
  type ModelPlan,
  type SourceTensor,
  type TensorPlan,
  type WidthChoice,
} from '@vramkit/packer';
import type { Command, OptionValues, Terminal } from '../command-line.js';
import { createProgress, type Progress } from '../progress.js';
import { openModelSource } from './model-source.js';
import { formatTime, openImportance, openScores, type Importance } from './pack-inputs.js';
import { isKept, parsePackRequest, type PackRequest } from './pack-options.js';

const WIDTHS: readonly CodeBits[] = [2, 3, 4, 8];

/** A request, and what was read for it. */
interface Work extends PackRequest {
  readonly importance: Importance | undefined;
}

function planWith(
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

/** Error and bytes of every tensor at every width. */
async function measure(
  request: Work,
  tensors: readonly SourceTensor[],
  progress: Progress,
): Promise<AllocationUnit[]> {
  const packed = tensors.filter(({ name, shape }) => !isKept(request, name, shape));
  const sizes = WIDTHS.map((bits) => {
    const { layout } = planWith(request, packed, () => bits);
    return new Map(layout.tensors.map((tensor) => [tensor.name, packedMatrixLayout(tensor)]));
  });
  const units: AllocationUnit[] = [];
  const kept = await openScores(request.scores);
  const start = performance.now();
  let [doneBytes, leftBytes] = [0, packed.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)];
  for (const [index, tensor] of packed.entries()) {
    const msLeft = doneBytes === 0 ? 0 : ((performance.now() - start) * leftBytes) / doneBytes;
    const left = doneBytes === 0 ? '' : `, ${formatTime(msLeft)} left`;
    progress.part(index, packed.length, `measuring${left}  ${tensor.name}`);
    doneBytes += tensor.sizeBytes;
    leftBytes -= tensor.sizeBytes;
    const values = await sourceValues(tensor);
    const { name } = tensor;
    const [rows = 0, columns = 0] = tensor.shape;
    const importance = request.importance?.of(name, columns);
    const unit = { id: name, layer: -1, tensors: [{ name, rows, columns, values, importance }] };
    const choices: WidthChoice[] = [];
    for (const [i, bits] of WIDTHS.entries()) {
      const layout = sizes[i]?.get(name);
      const groupSize = layout?.groupSize === columns ? 'row' : layout?.groupSize;
      const { quantizer, factors } = request;
      // The plan chose one of the group sizes, or the whole row.
      const how = { bits, quantizer, factors, groupSize: groupSize as 32 | 'row' };
      // Named only where it is not the default, so that scores of before still count.
      const named = [bits, quantizer.name, groupSize, ...(factors === 'f16' ? [] : [factors])];
      const key = await unitDigest(unit, JSON.stringify(named));
      const error = kept.scores.get(key) ?? measureUnit(unit, how);
      kept.scores.set(key, error);
      choices.push({ bits, sizeBytes: layout === undefined ? 0 : matrixBytes(layout), error });
    }
    units.push({ id: name, layer: -1, weights: rows * columns, score: 0, choices });
  }
  await kept.save();
  return units;
}

async function chooseWidths(
  request: Work,
  tensors: readonly SourceTensor[],
  progress: Progress,
): Promise<(name: string) => CodeBits> {
  const { targetBits, rules, bits } = request;
  if (targetBits === undefined) return (name) => ruleFor(rules, name)?.bits ?? bits;
  const units = applyRules(await measure(request, tensors, progress), rules);
  const budgetBytes = bytesForBits(units, targetBits);
  const widths = widthsOf(allocateBits(units, knapsackAllocator({ budgetBytes })));
  return (name) => widths.get(name) ?? bits;
}

/** A digest of the plan, so that a journal of another one is not taken for this one's. */
function planDigest(plan: ModelPlan, request: Work): string {
  const { tensors, sizeBytes } = plan.layout;
  const sources = plan.tensors.map(({ name, type, sizeBytes: bytes }) => [name, type, bytes]);
  const text = JSON.stringify([
    request.model,
    request.importance?.digest,
    sizeBytes,
    sources,
    tensors,
  ]);
  return createHash('sha256').update(text).digest('hex');
}

/** Checksums of the tensors that an interrupted run of the same plan has written. */
async function readJournal(path: string, digest: string): Promise<Map<string, string>> {
  const text = await readFile(path, 'utf8').catch(() => '');
  const [first, ...lines] = text.split('\n');
  const done = new Map<string, string>();
  if (first !== digest) return done;
  for (const line of lines) {
    // The last line may have been cut; a tensor without its checksum is written again.
    const [, checksum, name] = /^([0-9a-f]{64}) (".*")$/.exec(line) ?? [];
    if (checksum !== undefined && name !== undefined)
      // The journal's own line: a name as JSON text.
      done.set(JSON.parse(name) as string, checksum);
  }
  return done;
}

/** What a packed file holds; plain data. */
interface PackSummary {
  readonly tensors: number;
  /** How many tensors have which format. */
  readonly formats: Readonly<Record<string, number>>;
  readonly sizeBytes: number;
  /** Of packed tensors alone, everything counted; absent where none is. */
  readonly bitsPerPackedWeight?: number;
}

function summarize(plan: ModelPlan): PackSummary {
  let bytes = 0;
  let weights = 0;
  const formats: Record<string, number> = {};
  for (const tensor of plan.layout.tensors) {
    const { format } = tensor.storage;
    formats[format] = (formats[format] ?? 0) + 1;
    const layout = packedMatrixLayout(tensor);
    if (layout === undefined) continue;
    bytes += matrixBytes(layout);
    weights += layout.rows * layout.columns;
  }
  const { tensors, sizeBytes } = plan.layout;
  const bits = weights === 0 ? {} : { bitsPerPackedWeight: (8 * bytes) / weights };
  return { tensors: tensors.length, formats, sizeBytes, ...bits };
}

function formatSummary({ tensors, formats, sizeBytes, bitsPerPackedWeight: bits }: PackSummary) {
  const counts = Object.entries(formats).map(([format, count]) => `${count} ${format}`);
  const packed = bits === undefined ? 'none packed' : `${bits.toFixed(3)} bits a packed weight`;
  return `${tensors} tensors (${counts.join(', ')}), ${sizeBytes} B, ${packed}\n`;
}

async function run(options: OptionValues, terminal: Terminal): Promise<number> {
  const asked = parsePackRequest(options);
  const warn = (message: string): void => terminal.err(`vramkit: ${message}\n`);
  const progress = createProgress(terminal);
  const importance =
    asked.imatrix === undefined ? undefined : await openImportance(asked.imatrix, warn);
  const request = { ...asked, importance };
  const source = await openModelSource(request.model);
  try {
    const names = source.tensors.map(({ name }) => name);
    for (const { match } of unmatchedRules(request.rules, names)) {
      warn(`the rule '${match}' matches no tensor`);
    }
    if (importance !== undefined) sayUnknown(importance, request, source.tensors, warn);
    const widthOf = await chooseWidths(request, source.tensors, progress);
    const plan = planWith(request, source.tensors, widthOf);
    if (!request.dryRun) await write(request, plan, progress);
    progress.end();
    const what = summarize(plan);
    const report = { ok: true, dryRun: request.dryRun, file: request.out, ...what };
    const json = `${JSON.stringify(report, null, 2)}\n`;
    terminal.out(options['json'] === true ? json : formatSummary(what));
    return 0;
  } finally {
    progress.end();
    await source.close();
  }
}

/** Says how many matrices the importance matrix does not have. */
function sayUnknown(
  importance: Importance,
  request: PackRequest,
  tensors: readonly SourceTensor[],
  warn: (message: string) => void,
): void {
  const packed = tensors.filter(({ name, shape }) => !isKept(request, name, shape));
  const without = packed.filter(({ name, shape }) => {
    return importance.of(name, shape[1] ?? 0) === undefined;
  });
  if (without.length === 0) return;
  const [first] = without;
  const names = without.length === 1 ? `'${first?.name}'` : `'${first?.name}' and others`;
  warn(`${without.length} of ${packed.length} matrices have no importance: ${names}`);
}

async function write(request: Work, plan: ModelPlan, progress: Progress): Promise<void> {
  const journal = `${request.out}.part.journal`;
  const digest = planDigest(plan, request);
  const done = request.resume ? await readJournal(journal, digest) : new Map<string, string>();
  const sink = await fileSink(request.out, { resume: done.size > 0 });
  try {
    if (done.size === 0) await writeFile(journal, `${digest}\n`);
    await packModel(plan, sink, {
      done,
      onProgress: async ({ tensor, checksum, doneBytes, totalBytes, msLeft }) => {
        await appendFile(journal, `${checksum} ${JSON.stringify(tensor)}\n`);
        progress.part(doneBytes, totalBytes, `${formatTime(msLeft)} left  ${tensor}`);
      },
    });
    await rm(journal);
  } finally {
    await sink.close();
  }
}

/** The command. */
export const pack: Command = {
  name: 'pack',
  summary: 'pack the weights of a model file into 2, 3, 4 or 8 bits',
  options: {
    model: { type: 'string', value: 'PATH', summary: 'GGUF or safetensors file, or a folder' },
    out: { type: 'string', value: 'FILE', summary: 'the packed safetensors file to write' },
    bits: { type: 'string', value: 'BITS', summary: 'width of matrices: 2, 3, 4 (default) or 8' },
    'target-bits': {
      type: 'string',
      value: 'BITS',
      summary: 'choose widths by measured error, for at most so many bits a packed weight',
    },
    group: {
      type: 'string',
      value: 'SIZE',
      summary: 'weights that share a scale: 16, 32, 64 (default), 128 or row; compact: 32',
    },
    factors: {
      type: 'string',
      value: 'FORMAT',
      summary: 'scale and minimum of a group: f16, 32 bits (default), or compact, 16 bits',
    },
    quantizer: {
      type: 'string',
      value: 'NAME',
      summary: 'rtn, rtn-symmetric, optRtn (default), optRtn-symmetric or hqq',
    },
    rules: {
      type: 'string',
      value: 'LIST',
      summary: 'PATTERN=BITS, comma-separated; a name, a glob or a /regular expression/',
    },
    keep: {
      type: 'string',
      value: 'LIST',
      summary: 'names and globs to leave as they are (default: norms, embeddings, head, routers)',
    },
    imatrix: {
      type: 'string',
      value: 'FILE',
      summary: 'importance of columns, as llama-imatrix writes it; weighs errors',
    },
    scores: {
      type: 'string',
      value: 'FILE',
      summary: 'keep measured errors here, and measure only what changed (with --target-bits)',
    },
    requantize: { type: 'boolean', summary: 'also pack tensors that are quantized already' },
    'dry-run': { type: 'boolean', summary: 'say what would be written, and its exact size' },
    resume: { type: 'boolean', summary: 'go on with a run that was stopped' },
    json: { type: 'boolean', summary: 'print what was written as JSON' },
  },
  examples: [
    ['vramkit pack --model in.gguf --out out.safetensors --bits 3', 'all matrices in 3 bits'],
    ['vramkit pack --model in.gguf --out out.safetensors --factors compact', '4.5 bits a weight'],
    ['vramkit pack --model . --out out.safetensors --target-bits 3 --dry-run', 'sizes, no file'],
  ],
  run,
};
