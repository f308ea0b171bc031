// Checklist 22: the same file whatever the number of worker threads that share the rows.
import { Worker } from 'node:worker_threads';
import { expect, it } from 'vitest';
import { bytesSource } from './formats/byte-source.js';
import { memorySink } from './formats/file-sink.js';
import { PackedWriter } from './formats/packed-file.js';
import { readSafetensors } from './formats/safetensors.js';
import { sourceTensors } from './formats/weight-source.js';
import { sampleFloats } from './kernels/sample-matrix.js';
import type { CodeBits, FactorFormat } from './matrix-layout.js';
import { packModel, planModel } from './pack-model.js';
import { hqq } from './quantizers/hqq.js';
import { optRtn } from './quantizers/opt-rtn.js';
import { rtn } from './quantizers/rtn.js';
import { buildSafetensors } from './testing/build-safetensors.js';

/** Packages of the workspace from their sources. */
const CONDITION = '--conditions=@vramkit/source';
const QUANTIZERS = { rtn, optRtn, hqq };
const ROWS = 13;
const COLUMNS = 96;

interface Case {
  readonly name: string;
  readonly quantizer: keyof typeof QUANTIZERS;
  readonly bits: CodeBits;
  readonly factors: FactorFormat;
}
const CASES: readonly Case[] = [
  { name: 'a', quantizer: 'rtn', bits: 4, factors: 'f16' },
  { name: 'b', quantizer: 'optRtn', bits: 2, factors: 'compact' },
  { name: 'c', quantizer: 'hqq', bits: 3, factors: 'compact' },
];
const valuesOf = (seed: number): Float32Array => sampleFloats(ROWS * COLUMNS, seed + 51);

/** A thread that packs the rows it is sent; modules cannot be given as functions. */
const PROGRAM = `
const { parentPort, workerData } = require('node:worker_threads');
const packer = import('tsx/esm/api').then(({ register }) => {
  register();
  return import(workerData.packer);
});
parentPort.on('message', async ({ values, quantizer, ...options }) => {
  const { quantizeMatrix, ...rest } = await packer;
  const rows = values.length / options.columns;
  const matrix = quantizeMatrix(values, { ...options, rows, quantizer: rest[quantizer]() });
  parentPort.postMessage([matrix.codes, matrix.scales]);
});`;

type Words = readonly [codes: Uint32Array, scales: Uint32Array];

function packedBy(worker: Worker, request: object): Promise<Words> {
  return new Promise((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
    worker.postMessage(request);
  });
}

const joined = (parts: readonly Uint32Array[]): Uint8Array =>
  new Uint8Array(Uint32Array.from(parts.flatMap((part) => [...part])).buffer);

async function plan() {
  const inputs = CASES.map(({ name }, i) => {
    const bytes = new Uint8Array(valuesOf(i).buffer);
    return { name, type: 'F32', shape: [ROWS, COLUMNS], bytes };
  });
  const source = bytesSource('in', buildSafetensors(inputs));
  const tensors = sourceTensors(source, (await readSafetensors(source)).tensors.values());
  return planModel(tensors, {
    plan: ({ name }) => {
      const found = CASES.find((each) => each.name === name);
      if (found === undefined) return 'keep';
      const { quantizer, bits, factors } = found;
      return { bits, factors, quantizer: QUANTIZERS[quantizer]() };
    },
  });
}

async function packedWith(count: number): Promise<Uint8Array> {
  const packer = new URL('./index.ts', import.meta.url).href;
  const options = { eval: true, workerData: { packer }, execArgv: [CONDITION] };
  const workers = Array.from({ length: count }, () => new Worker(PROGRAM, options));
  try {
    const sink = memorySink('out');
    const writer = new PackedWriter(sink, (await plan()).layout);
    for (const [i, { name, ...how }] of CASES.entries()) {
      const values = valuesOf(i);
      const parts = await Promise.all(
        workers.map((worker, w) => {
          const [first, end] = [w, w + 1].map((part) => Math.floor((ROWS * part) / count));
          const own = values.slice((first ?? 0) * COLUMNS, (end ?? 0) * COLUMNS);
          return packedBy(worker, { ...how, name, columns: COLUMNS, values: own });
        }),
      );
      const sections = [parts.map(([codes]) => codes), parts.map(([, scales]) => scales)];
      await writer.write(name, sections.map(joined));
    }
    await writer.finish();
    return sink.bytes();
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
}

it('checklist 22: one, two and three workers give the file of packModel', async () => {
  const sink = memorySink('out');
  await packModel(await plan(), sink);
  for (const count of [1, 2, 3]) expect(await packedWith(count)).toEqual(sink.bytes());
}, 60_000);
