/**
 * The script of a plain page: imports the built packages as ES modules, adopts a device that the
 * page itself opened on `navigator.gpu`, and runs allocator, paged attention and a packed product.
 * Each result is compared with the same sum on the CPU. `window.outcome` holds what the page shows.
 */
import { adoptDevice, Batch, createTensor, Uploader } from '@vramkit/core';
import { BlockPool, KvCacheManager, SlotMapping, writeBlockTable } from '@vramkit/block-allocator';
import { createPagedKvCache } from '@vramkit/paged-attention';
import { createMatrix, hqq, matmul, matmulCpu, quantizeMatrix } from '@vramkit/packer';

const BLOCK_SIZE = 16;
const HEADS = 2;
const HEAD_DIM = 32;
const WIDTH = HEADS * HEAD_DIM;
const rows = [];

/** Numbers in [-1, 1) that are the same in every run. */
function numbers(count, seed) {
  return Float32Array.from({ length: count }, (_, i) => Math.sin((i + 1) * (seed + 0.7)));
}

function largestDifference(a, b) {
  if (a.length !== b.length) return Infinity;
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);
}

function report(part, what, result, passed) {
  rows.push({ part, what, result, passed });
  const row = document.querySelector('#results').insertRow();
  for (const text of [part, what, result]) row.insertCell().textContent = text;
  row.lastChild.className = passed ? 'right' : 'wrong';
}

/** Asks twice for the same 40 tokens; the second time their full blocks are shared. */
function runAllocator() {
  const manager = new KvCacheManager(new BlockPool({ blockCount: 16, blockSize: BLOCK_SIZE }));
  const prompt = Uint32Array.from({ length: 40 }, (_, token) => token);
  const step = new SlotMapping();
  const first = manager.tryAllocate(prompt, step);
  step.clear();
  const second = manager.tryAllocate(prompt, step);
  const computed = step.slots.length;
  manager.check();
  report(
    'block allocator',
    'the same 40 tokens twice, blocks of 16',
    `${manager.metrics().hitTokens} tokens shared, ${computed} to compute`,
    computed === 8 && manager.metrics().hitTokens === 32,
  );
  const table = new Uint32Array(4);
  writeBlockTable(manager.table(second), table);
  const slots = Uint32Array.from(prompt, (i) => {
    return table[Math.floor(i / BLOCK_SIZE)] * BLOCK_SIZE + (i % BLOCK_SIZE);
  });
  manager.free(first);
  return { table, slots, tokens: prompt.length };
}

/** softmax(q K^T / sqrt(d)) V of one query, in double precision. */
function attend(q, k, v, tokens) {
  return Float32Array.from({ length: WIDTH }, (_, i) => {
    const first = i - (i % HEAD_DIM);
    const logits = Array.from({ length: tokens }, (_unused, t) => {
      let sum = 0;
      for (let d = first; d < first + HEAD_DIM; d += 1) sum += q[d] * k[t * WIDTH + d];
      return sum / Math.sqrt(HEAD_DIM);
    });
    const weights = logits.map((logit) => Math.exp(logit));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return weights.reduce((sum, weight, t) => sum + weight * v[t * WIDTH + i], 0) / total;
  });
}

async function runPagedAttention(device, { table, slots, tokens }) {
  const shape = { layers: 1, kvHeads: HEADS, headDim: HEAD_DIM, blockCount: 16 };
  const cache = createPagedKvCache(device, { ...shape, blockSize: BLOCK_SIZE, dtype: 'f32' });
  const tensors = [];
  const upload = (label, dtype, data, size = data.length) => {
    const tensor = createTensor(device, { label, dtype, shape: [size], kind: 'activations' });
    tensors.push(tensor);
    tensor.write(data);
    return tensor;
  };
  const rowsOf = (range) => ({ range, rowStride: WIDTH, offset: 0 });
  const [q, k, v] = [numbers(WIDTH, 1), numbers(tokens * WIDTH, 2), numbers(tokens * WIDTH, 3)];
  const output = upload('output', 'f32', new Float32Array(WIDTH));
  const batch = new Batch(device, 'attention');
  cache.writeKv(batch, {
    layer: 0,
    tokens,
    keys: rowsOf(upload('k', 'f32', k)),
    values: rowsOf(upload('v', 'f32', v)),
    slots: upload('slots', 'u32', slots),
  });
  cache.decodeAttention(batch, {
    layer: 0,
    heads: HEADS,
    sequences: 1,
    maxLength: tokens,
    queries: rowsOf(upload('q', 'f32', q)),
    blockTables: upload('table', 'u32', table),
    tableStride: table.length,
    lengths: upload('lengths', 'u32', Uint32Array.of(tokens)),
    output: rowsOf(output),
  });
  batch.submit();
  const error = largestDifference(await output.readFloats(), attend(q, k, v, tokens));
  for (const tensor of tensors) tensor.dispose();
  cache.dispose();
  const what = `one query over ${tokens} tokens in blocks ${[...table.slice(0, 3)].join(', ')}`;
  // 40 terms of f32 below 1.
  report('paged attention', what, `differs by ${error.toExponential(1)}`, error < 1e-5);
}

async function runPackedMatmul(device) {
  const options = { name: 'w', rows: 48, columns: 128, bits: 3, groupSize: 64, quantizer: hqq() };
  const packed = quantizeMatrix(numbers(48 * 128, 4), options);
  const x = numbers(2 * 128, 5);
  const expected = new Float32Array(2 * 48);
  matmulCpu({ x, xRows: 2, weights: packed, y: expected });
  const weights = createMatrix(device, { ...packed.layout, label: 'w' });
  const uploader = new Uploader(device);
  await weights.upload(uploader, 0, packed);
  const f32 = { dtype: 'f32', kind: 'activations' };
  const input = createTensor(device, { ...f32, shape: [2, 128], label: 'x' });
  const output = createTensor(device, { ...f32, shape: [2, 48], label: 'y' });
  input.write(x);
  const batch = new Batch(device, 'product');
  matmul(batch, { x: input, xRows: 2, weights, y: output });
  batch.submit();
  const error = largestDifference(await output.readFloats(), expected);
  for (const owner of [input, output, weights, uploader]) owner.dispose();
  // 128 terms of f32 below 1.
  const what = '[2, 128] times 48 rows of 3-bit weights (HQQ)';
  report('packed matmul', what, `differs by ${error.toExponential(1)}`, error < 1e-4);
}

try {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) throw new Error('this browser offers no WebGPU adapter');
  const gpuDevice = await adapter.requestDevice();
  const device = adoptDevice(gpuDevice, { budgetBytes: 16 * 1024 * 1024 });
  const { vendor, architecture } = device.adapter;
  document.querySelector('#device').textContent = `navigator.gpu: ${vendor} ${architecture}`;
  const sequence = runAllocator();
  await runPagedAttention(device, sequence);
  await runPackedMatmul(device);
  await device.settle();
  const { peakReservedBytes } = device.memory.stats();
  device.dispose();
  const text = `At most ${(peakReservedBytes / 2 ** 20).toFixed(2)} MiB on the device at once.`;
  document.querySelector('#memory').textContent = `${text} Everything was given back.`;
  window.outcome = { rows };
} catch (error) {
  report('page', 'run to its end', String(error), false);
  window.outcome = { rows };
}
