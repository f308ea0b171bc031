/**
 * Every KV policy on tiny-moe: one prompt, forked for each, within its budget to the end; and what
 * the session measures for them against its definition.
 */
import { createGpu } from '@vramkit/adapter';
import { Batch, countersSince, createTensor, openDevice, type VramDevice } from '@vramkit/core';
import { compareArrays } from '@vramkit/core/testing';
import {
  averageRotation,
  full,
  h2o,
  kvPolicy,
  KV_POLICY_NAMES,
  receivedAttention,
  rotateQueries,
  scored,
} from '@vramkit/eviction';
import { measureTokens } from '@vramkit/eviction/testing';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { generate, score } from './generate.js';
import { inverseFrequencies, rope, writeRotations } from './kernels/rope.cpu.js';
import { loadModel } from './load-model.js';
import { openModelFile } from './model-file.js';
import { createSession, type InferenceSession } from './session.js';
import type { LanguageModel } from './weights.js';
import { queryKeyValueWidth } from './workspace.js';

const folder = new URL('../../../tools/models/tiny-moe/', import.meta.url);
const blockSize = 16;
const budgetTokens = 96;
const text = new TextEncoder().encode(
  'The whale is the largest animal that has ever lived. It breathes air, and feeds its young. ',
);
const tokens = (count: number): Uint32Array =>
  Uint32Array.from({ length: count }, (_, i) => text[i % text.length] ?? 32);
const policies = KV_POLICY_NAMES.map((name) => kvPolicy(name, { budgetTokens, blockSize }));

let device: VramDevice;
let model: LanguageModel;
let session: InferenceSession;
beforeAll(async () => {
  const { gpu } = await createGpu();
  device = await openDevice({ gpu });
  const file = await openModelFile(folder.pathname);
  try {
    model = await loadModel(device, file, { floats: 'f32' });
  } finally {
    await file.close();
  }
  session = createSession(device, model, { kvTokens: 1024, kvDtype: 'f32' });
});
afterAll(() => {
  session.dispose();
  model.dispose();
  device.dispose();
});

it('one prompt serves forks under every policy, each within its budget', async () => {
  const before = device.memory.stats().liveBytes;
  const trunk = session.create(full({ blockSize }), policies);
  await session.prefill(trunk, tokens(260));
  const held = session.sequences.table(trunk.id).cachedTokenCount;
  for (const policy of policies) {
    const fork = await session.fork(trunk, policy);
    const table = session.sequences.table(fork.id);
    const most = Math.min(policy.budgetTokens, held) + blockSize - 1;
    expect([policy.name, table.cachedTokenCount <= most]).toEqual([policy.name, true]);
    const losses = await score(session, fork, tokens(60));
    expect([policy.name, losses.every(Number.isFinite)]).toEqual([policy.name, true]);
    if (policy.budgetTokens < Infinity) {
      expect(table.cachedTokenCount).toBeLessThanOrEqual(budgetTokens + blockSize - 1);
      expect(table.tokenCount).toBe(260 + 59);
    }
    session.free(fork);
    expect(session.sequences.table(trunk.id).cachedTokenCount).toBe(held);
  }
  session.free(trunk);
  expect(device.memory.stats().liveBytes - before).toBeLessThan(2 ** 22);
  session.sequences.check();
});

it('sequences generate within the budget and one block, and create nothing', async () => {
  const mostBytes = (budgetTokens / blockSize + 1) * session.cache.bytesPerBlock;
  for (const name of ['pagedEviction', 'h2o', 'snapKv', 'keyDiff']) {
    const sequence = session.create(kvPolicy(name, { budgetTokens, blockSize }));
    await session.prefill(sequence, tokens(200));
    let count = 0;
    let created = { ...device.counters };
    for await (const token of generate(session, sequence, { maxTokens: 90, stopIds: [] })) {
      expect(token).toBeLessThan(model.config.vocabularySize);
      expect(session.kvBytes(sequence)).toBeLessThanOrEqual(mostBytes);
      count += 1;
      // Every range that sums can be in, and every gather of blocks, was in use by then.
      if (count === 70) created = { ...device.counters };
    }
    expect(count).toBe(90);
    const since = countersSince(created, device.counters);
    expect([name, since.buffersCreated, since.pipelinesCreated]).toEqual([name, 0, 0]);
    const { cachedTokenCount } = session.sequences.table(sequence.id);
    expect(cachedTokenCount).toBeLessThanOrEqual(budgetTokens + blockSize - 1);
    session.free(sequence);
  }
});

it('block scores that are reduced on the device are those of the policy', async () => {
  const declared = policies.filter(({ blockMean }) => blockMean !== undefined);
  expect(declared.map(({ name }) => name)).toEqual(
    expect.arrayContaining(['pagedEviction', 'inverseKeyNorm', 'valueNorm', 'keyDiff', 'h2o']),
  );
  const { layers, kvHeads } = session.cache.layout;
  for (const policy of declared) {
    const { blockMean, name } = policy;
    const sequence = session.create({ ...policy, mustEvict: () => false });
    await session.prefill(sequence, tokens(6 * blockSize));
    await score(session, sequence, tokens(2 * blockSize + 1));
    const table = session.sequences.table(sequence.id);
    const { cachedTokenCount, tokenCount } = table;
    const slots = Uint32Array.from({ length: cachedTokenCount }, (_, i) => table.slotAt(i));
    const held = {
      ...{ tokenCount: cachedTokenCount, layers, kvHeads, positions: table.positions.slice() },
      ...(await session.cache.readNorms(slots)),
      ...(await sequence.eviction.measures.describe(policy, slots, tokenCount)),
    };
    const expected = policy.scoreBlocks(held);
    if (blockMean === undefined) continue;
    const means = await sequence.eviction.measures.blockMeans(blockMean, policy, slots, tokenCount);
    const actual = means.map((mean) => blockMean.factor * mean);
    compareArrays(actual, expected, { absolute: 1e-6, epsilon: 1e-5, label: name });
    session.free(sequence);
  }
});

it('a policy that names what it may not is stopped; the sequence goes on', async () => {
  const sound = kvPolicy('pagedEviction', { budgetTokens, blockSize });
  const reason = 'capacity';
  // Protected, foreign, not there, no block at all.
  for (const victim of [0, 6, 99, -1, 0.5, NaN]) {
    const bad = { ...sound, selectVictim: () => ({ victim, reason, score: 0 }) as const };
    const sequence = session.create(bad);
    await session.prefill(sequence, tokens(budgetTokens));
    const table = session.sequences.table(sequence.id);
    await expect(score(session, sequence, tokens(blockSize + 1))).rejects.toMatchObject({
      code: 'invariant',
    });
    expect([table.cachedTokenCount, table.blocks.length]).toEqual([budgetTokens + blockSize, 7]);
    session.sequences.check();
    const fork = await session.fork(sequence, sound);
    expect(session.sequences.table(fork.id).cachedTokenCount).toBe(budgetTokens);
    session.free(sequence);
    session.free(fork);
  }
  const keeps = { ...sound, selectTokens: () => Uint32Array.from({ length: 90 }, (_, i) => i + 6) };
  const sequence = session.create(keeps);
  await expect(session.prefill(sequence, tokens(200))).rejects.toMatchObject({ code: 'invariant' });
  expect(session.sequences.table(sequence.id).cachedTokenCount).toBe(200);
  session.free(sequence);
});

it('norms that are not finite are an error at each decision, and change nothing', async () => {
  const { layers, kvHeads, headDim } = session.cache.layout;
  const width = kvHeads * headDim;
  const size = { dtype: 'f32', shape: [width], kind: 'activations', label: 'bad key' } as const;
  using bad = createTensor(device, size);
  bad.write(new Float32Array(width).fill(NaN));
  using slots = createTensor(device, { ...size, dtype: 'u32', shape: [1] });
  for (const name of ['pagedEviction', 'keyDiff', 'lagKv']) {
    const sequence = session.create(kvPolicy(name, { budgetTokens, blockSize }));
    await session.prefill(sequence, tokens(budgetTokens + blockSize - 1));
    const table = session.sequences.table(sequence.id);
    session.sequences.append(sequence.id, 1);
    slots.write(Uint32Array.of(table.slotAt(budgetTokens + 3)));
    const batch = new Batch(device, 'bad key');
    const rows = { range: bad, rowStride: width, offset: 0 };
    session.cache.writeKv(batch, { layer: layers - 1, keys: rows, values: rows, slots, tokens: 1 });
    batch.submit();
    for (let attempt = 0; attempt < 2; attempt++) {
      await expect(sequence.eviction.afterAppend()).rejects.toMatchObject({
        code: 'invalid-argument',
      });
      expect(table.cachedTokenCount).toBe(budgetTokens + blockSize);
    }
    await expect(session.fork(sequence, sequence.eviction.policy)).rejects.toMatchObject({
      code: 'invalid-argument',
    });
    session.free(sequence);
    session.sequences.check();
  }
});

it('a fork under a policy that was not measured for is refused, and nothing changes', async () => {
  const trunk = session.create(full({ blockSize }));
  await session.prefill(trunk, tokens(120));
  const { freeCount } = session.sequences.pool;
  await expect(session.fork(trunk, h2o({ budgetTokens, blockSize }))).rejects.toMatchObject({
    code: 'unsupported',
  });
  expect(session.sequences.pool.freeCount).toBe(freeCount);
  session.free(trunk);
});

it('measures what a policy needs as it is defined', async () => {
  const { config } = model;
  const { layers, heads, kvHeads, headDim } = config;
  const count = 77;
  const layer = layers - 1;
  const needs = scored('all', receivedAttention(Infinity), { budgetTokens: 512, blockSize });
  const window = (attentionQueries: number) => ({ ...needs, attentionQueries });
  const windows = [1, 20, Infinity].map(window);
  const expecting = kvPolicy('expectedAttention', { budgetTokens: 512, blockSize });
  const sequence = session.create(full({ blockSize }), [...windows, expecting]);
  await session.prefill(sequence, tokens(count));
  const table = session.sequences.table(sequence.id);
  const slots = Uint32Array.from({ length: count }, (_, i) => table.slotAt(i));
  const { measures } = sequence.eviction;
  // Rows of the last layer are still in place: rotated queries, keys, values.
  const width = queryKeyValueWidth(config);
  const rows = await session.forward.workspace.queryKeyValue.readFloats();
  const queries = new Float32Array(count * heads * headDim);
  for (let i = 0; i < count; i++) {
    queries.set(rows.subarray(i * width, i * width + heads * headDim), i * heads * headDim);
  }
  const positions = Uint32Array.from({ length: count }, (_, i) => i);
  const plain = {
    ...{ layers: 1, kvHeads, headDim, positions, ...(await session.cache.readKv(layer, slots)) },
    ...{ queryHeads: heads, queryPositions: positions, queries },
  };
  const lastLayer = (values: Float32Array | undefined): Float32Array =>
    Float32Array.from({ length: count * kvHeads }, (_, i) => {
      const [token, head] = [Math.floor(i / kvHeads), i % kvHeads];
      return values?.[(token * layers + layer) * kvHeads + head] ?? Number.NaN;
    });
  for (const policy of windows) {
    const { attention } = await measures.describe(policy, slots, count);
    const expected = measureTokens(plain, policy.attentionQueries).attention ?? [];
    compareArrays(lastLayer(attention), expected, { absolute: 1e-4, epsilon: 1e-4 });
  }
  const alike = await session.cache.readKeySimilarity(slots);
  const similarity = measureTokens(plain, 1).keySimilarity ?? [];
  compareArrays(lastLayer(alike), similarity, { absolute: 1e-5 });

  // The same queries before their rotation: turned back by the negative angle.
  const frequencies = inverseFrequencies(headDim, config.ropeTheta, config.ropeScaling);
  const rotations = new Float32Array(count * headDim);
  writeRotations(positions, frequencies, rotations);
  for (let i = 1; i < rotations.length; i += 2) rotations[i] = -(rotations[i] ?? 0);
  const shape = { tokens: count, heads, headDim, rowStride: heads * headDim };
  rope(queries, rotations, shape, config.ropeStyle);
  const mean = new Float32Array(layers * heads * headDim);
  for (let i = 4 * heads * headDim; i < queries.length; i++) {
    const to = layer * heads * headDim + (i % (heads * headDim));
    mean[to] = (mean[to] ?? 0) + (queries[i] ?? 0) / (count - 4);
  }
  const covariance = new Float32Array(mean.length * headDim);
  const span = { start: count, count: 512 };
  const average = averageRotation(frequencies, span);
  const expected = rotateQueries({ heads, mean, covariance }, average, config.ropeStyle);
  const { queries: actual } = await measures.describe(expecting, slots, count);
  const from = layer * heads * headDim;
  compareArrays(actual?.mean.subarray(from) ?? [], expected.mean.subarray(from), {
    absolute: 1e-4,
  });
  session.free(sequence);
});
