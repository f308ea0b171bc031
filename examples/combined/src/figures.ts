/** The figures of a run as tables: the same on the terminal and on the page. */
import { formatTable } from '@vramkit/bench';
import { MEMORY_KINDS } from '@vramkit/core';
import type { ReportTable } from '@vramkit/trace';
import type { CombinedReport } from './pipeline.js';
import type { ServeFigures } from './serve-stage.js';

/** Bytes for people, in binary units. */
export function mebibytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(2)} MiB`;
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
const loss = (nats: number): string => nats.toFixed(4);

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? NaN;
}

/** The peak of each stage, and what it was made of. */
function stageTable({ stages, gpuBudgetBytes }: CombinedReport): ReportTable {
  const kinds = MEMORY_KINDS.filter((kind) => stages.some(({ byKind }) => byKind[kind] > 0));
  return {
    title: 'Device memory by stage',
    header: ['stage', 's', 'peak', 'of budget', ...kinds],
    rows: stages.map(({ name, startMs, endMs, peakBytes, byKind }) => [
      name,
      ((endMs - startMs) / 1e3).toFixed(1),
      mebibytes(peakBytes),
      percent(peakBytes / gpuBudgetBytes),
      ...kinds.map((kind) => (byKind[kind] / 2 ** 20).toFixed(2)),
    ]),
  };
}

/** The checkpoint that was trained, and the packed model of it. */
function modelTable({ firstLoss, pack, checkpoint }: CombinedReport): ReportTable {
  return {
    title: 'The model, on text that was held out',
    header: ['weights', 'bytes', 'bits a weight of experts', 'loss, nats a byte'],
    rows: [
      ['before training', '', '16', loss(firstLoss)],
      [`checkpoint ${checkpoint.name}`, String(pack.unpackedBytes), '16', loss(pack.unpackedLoss)],
      ['packed', String(pack.fileBytes), pack.bitsPerWeight.toFixed(3), loss(pack.loss)],
    ],
  };
}

/** Both processes that serve. */
function serveTable({ cold, warm }: CombinedReport): ReportTable {
  const row = (name: string, figures: ServeFigures): string[] => {
    const { experts } = figures;
    return [
      name,
      `${figures.restoredTokens} of ${figures.promptTokens}`,
      `${median(figures.firstTokenMs).toFixed(0)} ms`,
      figures.tokensPerSecond.toFixed(1),
      percent(experts.hits / (experts.hits + experts.misses)),
      String(experts.evictions),
      mebibytes(experts.loadedBytes),
    ];
  };
  return {
    title: 'Serving',
    header: [
      ...['process', 'prompts restored', 'first token, median', 'tokens/s', 'expert hits'],
      ...['experts evicted', 'experts read'],
    ],
    rows: [row('first, nothing stored', cold), row('second, from the store', warm)],
  };
}

/** The long text under each policy. */
function evictionTable({ warm }: CombinedReport): ReportTable {
  return {
    title: 'A long text with and without eviction',
    header: ['policy', 'tokens held', 'K/V', 'loss of what follows', 'tokens/s'],
    rows: warm.policies.map((policy) => [
      policy.policy,
      String(policy.heldTokens),
      mebibytes(policy.kvBytes),
      loss(policy.loss),
      policy.tokensPerSecond.toFixed(1),
    ]),
  };
}

/** All tables of a run. */
export function reportTables(report: CombinedReport): ReportTable[] {
  return [stageTable(report), modelTable(report), serveTable(report), evictionTable(report)];
}

/** What the run was, in facts. */
export function reportFacts(report: CombinedReport): Record<string, string> {
  const { train, pack, warm } = report;
  const widths = Object.entries(pack.widths).map(([bits, count]) => `${count} of ${bits} bits`);
  const text = (ids: readonly number[]): string => new TextDecoder().decode(Uint8Array.from(ids));
  return {
    driver: report.driver,
    budget: `${mebibytes(report.gpuBudgetBytes)}, peak ${mebibytes(report.peakBytes)}`,
    store: report.storeName,
    training:
      `${train.steps.length} steps of ${train.bytesPerStep} bytes behind step ` +
      `${train.firstStep}, ${train.parameterCount} parameters, ${train.planner}`,
    'optimizer state':
      `${mebibytes(train.stateBytes)}, of which at most ${mebibytes(train.deviceBytes)} on the ` +
      'device with staging',
    packing: `target ${pack.targetBytes} B; experts: ${widths.join(', ')}`,
    'experts on the device':
      `${mebibytes(warm.experts.budgetBytes)} of ` + mebibytes(pack.expertBytes),
    'a prompt ends with': JSON.stringify(report.question),
    'and is answered': JSON.stringify(text(warm.answers[0] ?? [])),
  };
}

/** The tables for a terminal. */
export function summary(report: CombinedReport): string {
  return reportTables(report)
    .map(({ title, header, rows }) => {
      // The bench's tables have a column for marks behind the first.
      const marked = [header, ...rows].map(([first = '', ...rest]) => [first, '', ...rest]);
      return `${title}\n${formatTable(marked)}`;
    })
    .join('\n\n');
}
