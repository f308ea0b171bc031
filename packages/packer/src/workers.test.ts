// Checklist 22: packModel gives the same file whatever the number of threads that share the rows,
// and ends in the same way.
import { spawnWorker, type HostWorker, type SpawnWorker } from '@vramkit/core';
import { describe, expect, it } from 'vitest';
import { bytesSource } from './formats/byte-source.js';
import { memorySink } from './formats/file-sink.js';
import { readSafetensors } from './formats/safetensors.js';
import { sourceTensors } from './formats/weight-source.js';
import type { CodeBits, FactorFormat } from './matrix-layout.js';
import { packModel, planModel, type PackModelOptions, type TensorPlan } from './pack-model.js';
import { PackThreads } from './pack-threads.js';
import { quantizeMatrix } from './quantize-matrix.js';
import { gptq } from './quantizers/gptq.js';
import { hqq } from './quantizers/hqq.js';
import { activationMoments } from './quantizers/moments.js';
import { optRtn } from './quantizers/opt-rtn.js';
import type { Quantizer } from './quantizers/quantizer.js';
import { rtn } from './quantizers/rtn.js';
import { signRound } from './quantizers/sign-round.js';
import { measureUnit } from './scorers/output-error.js';
import { buildSafetensors } from './testing/build-safetensors.js';

const COLUMNS = 64;
const BITS: readonly CodeBits[] = [2, 3, 4, 8];
const FACTORS: readonly FactorFormat[] = ['f16', 'compact'];

/** Numbers around zero whose columns differ in size. */
const floats = (count: number, seed: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => Math.sin((i + seed) * 12.9898) / (1 + (i % 7)));

const moments = activationMoments(floats(3 * COLUMNS * COLUMNS, 5), COLUMNS);
const QUANTIZERS: readonly Quantizer[] = [
  rtn(),
  rtn({ convention: 'symmetric-full' }),
  rtn({ convention: 'symmetric-restricted' }),
  optRtn(),
  optRtn({ convention: 'symmetric' }),
  optRtn({ emphasis: 'magnitude' }),
  hqq({ iterations: 5 }),
  gptq(),
  gptq({ damping: 0.1 }),
  gptq({ order: 'power' }),
  signRound({ iterations: 4 }),
];

interface Input {
  readonly name: string;
  readonly rows: number;
  readonly values?: Float32Array;
  readonly plan: TensorPlan;
}

async function planOf(inputs: readonly Input[]) {
  const built = inputs.map(({ name, rows, values }, i) => {
    const data = values ?? floats(rows * COLUMNS, 100 * i);
    return {
      name,
      type: 'F32',
      shape: [rows, COLUMNS],
      bytes: new Uint8Array(Float32Array.from(data).buffer),
    };
  });
  const source = bytesSource('in', buildSafetensors(built));
  const tensors = sourceTensors(source, (await readSafetensors(source)).tensors.values());
  const plans = new Map(inputs.map(({ name, plan }) => [name, plan]));
  return planModel(tensors, { plan: ({ name }) => plans.get(name) ?? 'keep' });
}

async function packed(inputs: readonly Input[], options: PackModelOptions): Promise<Uint8Array> {
  const sink = memorySink('out');
  await packModel(await planOf(inputs), sink, options);
  return sink.bytes();
}

/** Threads that are counted; `change` may put another in place of one. */
function watched(change: (worker: HostWorker, index: number) => HostWorker = (worker) => worker) {
  const counts = { started: 0, ended: 0 };
  const spawn: SpawnWorker = (program) => {
    const worker = spawnWorker(program);
    const terminate = async (): Promise<void> => {
      await worker.terminate();
      counts.ended++;
    };
    return change({ ...worker, terminate }, counts.started++);
  };
  return { counts, spawn };
}

/** What a call is refused with. */
async function refusal(call: Promise<unknown>) {
  const error: unknown = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof Error)) throw new Error('nothing was refused');
  const { code, context, retryable } = error as Error & Record<string, unknown>;
  return { name: error.name, message: error.message, code, context, retryable };
}

const one: TensorPlan = { bits: 4, quantizer: optRtn() };

describe('checklist 22: threads', () => {
  it.each(QUANTIZERS.map((quantizer, i) => ({ name: `${quantizer.name} (${i})`, quantizer })))(
    'one, two and three give the bytes of none: $name',
    async ({ quantizer }) => {
      const importance = floats(COLUMNS, 9).map(Math.abs);
      const inputs = BITS.flatMap((bits) =>
        FACTORS.map((factors, i) => ({
          name: `w${bits}${factors}`,
          rows: 1 + 13 * (bits - 2) + 7 * i,
          plan: { bits, factors, quantizer, moments, ...(i === 1 && { importance }) },
        })),
      );
      const expected = await packed([...inputs, { name: 'kept', rows: 3, plan: 'keep' }], {});
      for (const workers of [1, 2, 3]) {
        const { counts, spawn } = watched();
        const all: Input[] = [...inputs, { name: 'kept', rows: 3, plan: 'keep' }];
        expect(await packed(all, { workers, spawn })).toEqual(expected);
        const threads = workers === 1 ? 0 : workers;
        expect(counts).toEqual({ started: threads, ended: threads });
      }
    },
  );

  it('a quantizer of a user stays on this thread, also one made of ours', async () => {
    const plain = rtn();
    let calls = 0;
    const own: Quantizer = {
      ...plain,
      quantize: (input) => {
        calls++;
        return plain.quantize({ ...input, values: input.values.map((value) => -value) });
      },
    };
    const inputs: Input[] = [
      { name: 'own', rows: 5, plan: { bits: 4, quantizer: own } },
      { name: 'ours', rows: 5, plan: one },
    ];
    const { counts, spawn } = watched();
    expect(await packed(inputs, { workers: 2, spawn })).toEqual(await packed(inputs, {}));
    expect(calls).toBe(2);
    expect(counts.started).toBe(2);
    const none = watched();
    await packed(inputs.slice(0, 1), { workers: 2, spawn: none.spawn });
    expect(none.counts.started).toBe(0);
  });

  it('onMatrix keeps what it is given: matrix and weights are of that tensor', async () => {
    const inputs = ['a', 'b', 'c'].map((name, i) => ({ name, rows: 9 - i, plan: one }));
    const collect = async (workers: number) => {
      const seen: unknown[] = [];
      const onMatrix: PackModelOptions['onMatrix'] = (...all) => void seen.push(all);
      await packed(inputs, { workers, onMatrix });
      return seen;
    };
    expect(await collect(2)).toEqual(await collect(0));
  });

  it('goes on from what an interrupted run wrote', async () => {
    const inputs = ['a', 'b', 'c'].map((name) => ({ name, rows: 9, plan: one }));
    const plan = await planOf(inputs);
    const [done, sink, stop] = [
      new Map<string, string>(),
      memorySink('out'),
      new AbortController(),
    ];
    const { counts, spawn } = watched();
    const onProgress: PackModelOptions['onProgress'] = ({ tensor, checksum }) => {
      done.set(tensor, checksum);
      stop.abort('enough');
    };
    const options = { workers: 2, spawn, onProgress };
    const first = packModel(plan, sink, { ...options, signal: stop.signal });
    await expect(first).rejects.toMatchObject({ code: 'aborted', cause: 'enough' });
    expect(counts).toEqual({ started: 2, ended: 2 });
    expect([...done.keys()]).toEqual(['a']);
    await packModel(plan, sink, { ...options, done });
    expect(sink.bytes()).toEqual(await packed(inputs, {}));
  });
});

describe('checklist 22: threads without a file', () => {
  it('measure what this thread measures, by weights, importance and outputs', async () => {
    const importance = floats(COLUMNS, 9).map(Math.abs);
    const threads = new PackThreads({ workers: 2 });
    try {
      for (const [rows, extra] of [
        [3, {}],
        [9, { importance }],
        [7, { moments }],
        [2, { moments, importance }],
      ] as const) {
        const values = floats(rows * COLUMNS, rows);
        const tensor = { name: 'w', rows, columns: COLUMNS, values, ...extra };
        const options = [...QUANTIZERS, { ...rtn() }].flatMap((quantizer, i) =>
          'moments' in extra || quantizer.needs === 'nothing'
            ? BITS.map((bits) => ({ bits, quantizer, factors: FACTORS[i % 2] }))
            : [],
        );
        const unit = { id: 'w', layer: -1, tensors: [tensor] };
        const expected = options.map((each) => measureUnit(unit, each));
        expect(await threads.measure(tensor, options)).toEqual(expected);
        const ours = options.slice(0, -BITS.length);
        expect(await threads.measure(tensor, ours)).toEqual(expected.slice(0, -BITS.length));
      }
    } finally {
      await threads.dispose();
    }
  });

  it('take one matrix at a time, of any size, until they are ended', async () => {
    const { counts, spawn } = watched();
    const threads = new PackThreads({ workers: 3, spawn });
    const options = (rows: number) =>
      ({ name: 'w', rows, columns: COLUMNS, bits: 3, quantizer: gptq(), moments }) as const;
    for (const rows of [2, 40, 1]) {
      const values = floats(rows * COLUMNS, rows);
      const expected = quantizeMatrix(values, options(rows));
      expect(await threads.quantize(values, options(rows))).toEqual(expected);
    }
    const values = floats(40 * COLUMNS, 3);
    const first = threads.quantize(values, options(40));
    const second = threads.quantize(floats(40 * COLUMNS, 4), options(40));
    await expect(second).rejects.toMatchObject({ code: 'invalid-argument' });
    expect(await first).toEqual(quantizeMatrix(values, options(40)));
    // Moments that changed in place are other moments.
    const changed = moments.slice();
    const own = { ...options(40), moments: changed };
    expect(await threads.quantize(values, own)).toEqual(
      await threads.quantize(values, options(40)),
    );
    changed[0] = 10 * (changed[0] ?? 0);
    expect(await threads.quantize(values, own)).toEqual(quantizeMatrix(values, own));
    await threads.dispose();
    await threads.dispose();
    const late = threads.quantize(values, options(40));
    await expect(late).rejects.toMatchObject({ code: 'disposed' });
    expect(counts.started).toBe(3);
    expect(() => new PackThreads({ workers: 0 })).toThrow(/invalid-argument/);
  });

  it('let the process end while they have nothing to do', async () => {
    const active = (): number =>
      process.getActiveResourcesInfo().filter((name) => name === 'MessagePort').length;
    const before = active();
    const threads = new PackThreads({ workers: 2 });
    expect(active()).toBe(before);
    const options = { name: 'w', rows: 4, columns: COLUMNS, bits: 4 } as const;
    const job = threads.quantize(floats(4 * COLUMNS, 1), options);
    expect(active()).toBe(before + 2);
    await job;
    expect(active()).toBe(before);
    await threads.dispose();
  });
});

describe('checklist 22: what threads refuse', () => {
  const big = floats(40 * COLUMNS, 1);
  // Two rows whose scales f16 cannot hold: the first is the one to be named.
  big[13 * COLUMNS] = 1e9;
  big[39 * COLUMNS] = 2e9;
  const nothing = new Float64Array(COLUMNS * COLUMNS).fill(NaN);
  const indefinite = moments.slice();
  indefinite[3 * COLUMNS + 3] = -1e9;
  it.each([
    ['a scale above f16', { bits: 4, quantizer: optRtn() }, big],
    ['moments of NaN', { bits: 4, quantizer: gptq(), moments: nothing }, undefined],
    ['moments without a root', { bits: 4, quantizer: gptq(), moments: indefinite }, undefined],
    ['no moments', { bits: 4, quantizer: signRound() }, undefined],
    [
      'weights of NaN',
      { bits: 4, quantizer: rtn() },
      big.map((value, i) => (i > 70 ? NaN : value)),
    ],
    ['importance', { bits: 4, quantizer: rtn(), importance: floats(3, 1) }, undefined],
  ] as const)('%s, as this thread does', async (_, plan, values) => {
    const inputs = [{ name: 'w', rows: 40, plan, ...(values && { values }) }];
    const expected = await refusal(packed(inputs, {}));
    expect(expected.name).toBe('VramError');
    for (const workers of [2, 3]) {
      const { counts, spawn } = watched();
      expect(await refusal(packed(inputs, { workers, spawn }))).toEqual(expected);
      expect(counts).toEqual({ started: workers, ended: workers });
    }
  });

  it('an abort ends a matrix that would take minutes', async () => {
    const stop = new AbortController();
    const { counts, spawn } = watched((worker) => ({
      ...worker,
      post: (message) => {
        worker.post(message);
        // The abort comes when the threads have the matrix.
        if (JSON.stringify(message).includes('"rows"')) queueMicrotask(() => stop.abort());
      },
    }));
    const plan = { bits: 4, quantizer: signRound({ iterations: 1e9 }), moments } as const;
    const inputs = [{ name: 'w', rows: 4, plan }];
    const packing = packed(inputs, { workers: 2, spawn, signal: stop.signal });
    await expect(packing).rejects.toMatchObject({ code: 'aborted' });
    expect(counts).toEqual({ started: 2, ended: 2 });
  });

  it('a thread that dies, at work or before, is worker-lost', async () => {
    for (const kind of ['start', 'rows']) {
      const { counts, spawn } = watched((worker, index) => ({
        ...worker,
        post: (message) => {
          worker.post(message);
          const { kind: found } = message as { readonly kind: string };
          if (index === 1 && found === kind) void worker.terminate();
        },
      }));
      const plan = { bits: 4, quantizer: signRound({ iterations: 1e5 }), moments } as const;
      const packing = packed([{ name: 'w', rows: 9, plan }], { workers: 2, spawn });
      await expect(packing).rejects.toMatchObject({ code: 'worker-lost', retryable: true });
      expect(counts).toEqual({ started: 2, ended: 3 });
    }
  });

  it('numbers of threads that are none', async () => {
    for (const workers of [-1, 1.5, NaN]) {
      const packing = packed([{ name: 'w', rows: 1, plan: one }], { workers });
      await expect(packing).rejects.toMatchObject({ code: 'invalid-argument' });
    }
  });
});
