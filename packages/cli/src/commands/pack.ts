/**
 * `vramkit pack`: weights of a model file in 2, 3, 4 or 8 bits, to one width or to a byte target.
 *
 * Widths are chosen first (pack-widths.ts), then one tensor after the other is packed. A run that
 * was stopped goes on with `--resume`: a journal beside the part lists what was written, for the
 * same plan. It survives a kill at any point, so that a signal needs to wait for nothing.
 */
import { createHash } from 'node:crypto';
import { appendFile, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { constants } from 'node:os';
import {
  fileSink,
  matrixBytes,
  packedMatrixLayout,
  packModel,
  unmatchedRules,
  type ModelPlan,
  type SourceTensor,
} from '@vramkit/packer';
import type { Command, OptionValues, Terminal } from '../command-line.js';
import { createProgress, type Progress } from '../progress.js';
import { openModelSource } from './model-source.js';
import { checkOutput, checkSource, sayGrowth } from './pack-checks.js';
import { formatTime, openImportance, type Importance } from './pack-inputs.js';
import { isKept, parsePackRequest, type PackRequest } from './pack-options.js';
import { chooseWidths, planWith, type Work } from './pack-widths.js';

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

/**
 * Checksums of the tensors that a stopped run of the same plan has written; `warn` is told where
 * there is no such run.
 */
async function readJournal(
  out: string,
  digest: string,
  warn: (message: string) => void,
): Promise<Map<string, string>> {
  const text = await readFile(`${out}.part.journal`, 'utf8').catch(() => undefined);
  const part = await stat(`${out}.part`).catch(() => undefined);
  const done = new Map<string, string>();
  if (text === undefined || part === undefined) {
    warn(`no run of ${out} was stopped: this one starts from the beginning`);
    return done;
  }
  const [first, ...lines] = text.split('\n');
  if (first !== digest) {
    warn(`the stopped run of ${out} had another model or other options: this one starts over`);
    return done;
  }
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
  /** Of tensors that are quantized, everything counted; absent where none is. */
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
    if (layout === undefined || plan.plans.get(tensor.name) === 'keep') continue;
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
    checkSource(source, request);
    await checkOutput(request, source);
    const names = source.tensors.map(({ name }) => name);
    for (const { match } of unmatchedRules(request.rules, names)) {
      warn(`the rule '${match}' matches no tensor`);
    }
    if (importance !== undefined) sayUnknown(importance, request, source.tensors, warn);
    const widthOf = await chooseWidths(request, source.tensors, progress);
    const plan = planWith(request, source.tensors, widthOf);
    sayGrowth(plan, warn);
    if (!request.dryRun) await write(request, plan, progress, warn);
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

/** Ends the process with the usual exit code of a signal, and says how to go on. */
function stopOnSignals(progress: Progress, warn: (message: string) => void): () => void {
  const stop = (signal: NodeJS.Signals): void => {
    progress.end();
    warn('stopped; the same command with --resume goes on');
    process.exit(128 + constants.signals[signal]);
  };
  const signals = ['SIGINT', 'SIGTERM'] as const;
  for (const signal of signals) process.on(signal, stop);
  return () => {
    for (const signal of signals) process.off(signal, stop);
  };
}

async function write(
  request: Work,
  plan: ModelPlan,
  progress: Progress,
  warn: (message: string) => void,
): Promise<void> {
  const { out } = request;
  const journal = `${out}.part.journal`;
  const digest = planDigest(plan, request);
  const none = new Map<string, string>();
  const done = request.resume ? await readJournal(out, digest, warn) : none;
  const sink = await fileSink(out, { resume: done.size > 0 });
  const release = stopOnSignals(progress, warn);
  try {
    if (done.size === 0) await writeFile(journal, `${digest}\n`);
    await packModel(plan, sink, {
      done,
      workers: request.workers,
      onProgress: async ({ tensor, checksum, doneBytes, totalBytes, msLeft }) => {
        await appendFile(journal, `${checksum} ${JSON.stringify(tensor)}\n`);
        progress.part(doneBytes, totalBytes, `${formatTime(msLeft)} left  ${tensor}`);
      },
    });
    await rm(journal);
  } finally {
    release();
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
      summary: 'names and globs not to quantize (default: norms, embeddings, head, routers)',
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
    workers: {
      type: 'string',
      value: 'COUNT',
      summary: 'threads that quantize; 1: none (default: one for each core, at most 8)',
    },
    requantize: { type: 'boolean', summary: 'also pack tensors that are quantized already' },
    'dry-run': { type: 'boolean', summary: 'say what would be written, and its exact size' },
    resume: { type: 'boolean', summary: 'go on with a run that was stopped' },
    json: { type: 'boolean', summary: 'print what was written as JSON' },
  },
  examples: [
    ['vramkit pack --model . --out out.safetensors --bits 3', 'all matrices in 3 bits'],
    ['vramkit pack --model in.gguf --out out.safetensors --requantize', 'a quantized GGUF again'],
    ['vramkit pack --model . --out out.safetensors --factors compact', '4.5 bits a weight'],
    ['vramkit pack --model . --out out.safetensors --target-bits 3 --dry-run', 'sizes, no file'],
  ],
  run,
};
