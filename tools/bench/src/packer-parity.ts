/**
 * Parity of the packer with ONNX Runtime and with ggml (llama.cpp): `npm run parity:packer`. Ends
 * with code 1 where it does not hold.
 *
 * - A matrix is packed, repacked for MatMulNBits and multiplied by onnxruntime-node; the same one
 *   is multiplied here. An asymmetric minimum is an f16 here and an integer times the scale there:
 *   what that changes is computed in f64 and taken off, and all that is left is float error.
 * - Blocks of every type that ggml quantizes, from random weights of several sizes, are dequantized
 *   by both: the values are equal bit for bit.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createGpu } from '@vramkit/adapter';
import { Batch, createTensor, f16ToF32, openDevice, Uploader } from '@vramkit/core';
import {
  createMatrix,
  dequantize,
  GGML_TYPES,
  matmul,
  matMulNBitsValues,
  matrixValues,
  quantizeMatrix,
  rtn,
  toMatMulNBits,
  type GroupChoice,
  type RtnConvention,
} from '@vramkit/packer';
import { decodeBytes, encodeBytes } from '../../peers/src/product-protocol.js';
import { installPeers } from './peers.js';
import { ProductPeer } from './product-peer.js';

const rows = 96;
const columns = 512;
const xRows = 5;

interface ParityCase {
  readonly bits: 2 | 4 | 8;
  readonly groupSize: GroupChoice;
  readonly convention: RtnConvention;
}

const cases = ([2, 4, 8] as const).flatMap((bits) =>
  ([16, 32, 128] as const).flatMap((groupSize) =>
    (['asymmetric', 'symmetric-full'] as const).map((convention): ParityCase => ({
      bits,
      groupSize,
      convention,
    })),
  ),
);

/** Our product on the device. */
async function ourProduct(
  matrix: ReturnType<typeof quantizeMatrix>,
  xData: Float32Array,
): Promise<Float32Array> {
  const { gpu } = await createGpu();
  using device = await openDevice({ gpu });
  const { format, groupSize } = matrix.layout;
  using weights = createMatrix(device, { rows, columns, format, groupSize, label: 'weights' });
  using uploader = new Uploader(device, { method: 'write-buffer' });
  await weights.upload(uploader, 0, matrix);
  const tensor = (label: string, shape: readonly number[]) =>
    createTensor(device, { dtype: 'f32', shape, kind: 'activations', label });
  using x = tensor('x', [xRows, columns]);
  using y = tensor('y', [xRows, rows]);
  x.write(xData);
  const batch = new Batch(device, 'parity');
  matmul(batch, { x, xRows, weights, y });
  batch.submit();
  return await y.readFloats();
}

/** What the products of two sets of weights differ by, in f64. */
function minimumProduct(theirs: Float32Array, ours: Float32Array, x: Float32Array): Float64Array {
  return Float64Array.from({ length: xRows * rows }, (_, at) => {
    const [m, n] = [Math.floor(at / rows), at % rows];
    let sum = 0;
    for (let k = 0; k < columns; k++) {
      const w = n * columns + k;
      sum += ((theirs[w] ?? 0) - (ours[w] ?? 0)) * (x[m * columns + k] ?? 0);
    }
    return sum;
  });
}

/** Whether our values of ggml's own blocks are those of ggml, for every type. */
async function compareBlocks(peer: ProductPeer): Promise<boolean> {
  const folder = await mkdtemp(join(tmpdir(), 'vramkit-parity-'));
  const [input, output, blocks] = ['in', 'out', 'blocks'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  const count = 64 * 256;
  // Groups from 1e-6 to 1e3, so that small scales are there too.
  const values = Float32Array.from(
    { length: count },
    (_, i) => Math.sin(i * 12.9898) * 10 ** ((i >> 8) % 10) * 1e-6,
  );
  let holds = true;
  try {
    await writeFile(input, new Uint8Array(values.buffer));
    for (const type of GGML_TYPES.filter((each) => each.startsWith('Q'))) {
      const name = type.toLowerCase().replace('_k', '_K');
      await peer.ask('quantize', { type: name, rows: 64, columns: 256, input, output, blocks });
      const ours = new Uint32Array(
        dequantize(type, Uint8Array.from(await readFile(blocks))).buffer,
      );
      const theirs = new Uint32Array(Uint8Array.from(await readFile(output)).buffer);
      const apart = theirs.filter((bits, i) => bits !== ours[i]).length;
      const equal = ours.length === count && theirs.length === count && apart === 0;
      console.log(`ggml ${type}: ${count} values, ${equal ? 'equal' : `${apart} DIFFER`}`);
      holds &&= equal;
    }
  } finally {
    await rm(folder, { recursive: true });
  }
  return holds;
}

async function compare(peer: ProductPeer, { bits, groupSize, convention }: ParityCase) {
  const values = Float32Array.from({ length: rows * columns }, (_, i) => Math.sin(i * 12.9898));
  const quantizer = rtn({ convention });
  const matrix = quantizeMatrix(values, { name: 'w', rows, columns, bits, groupSize, quantizer });
  const xData = Float32Array.from({ length: xRows * columns }, (_, i) => Math.cos(i * 0.7));
  const packed = toMatMulNBits(matrix);
  const answer = await peer.ask('matMulNBits', {
    backend: 'cpu',
    ...{ rows, columns, bits, groupSize: packed.groupSize, xRows },
    codes: encodeBytes(packed.codes),
    scales: encodeBytes(Float32Array.from(packed.scales, f16ToF32)),
    ...(packed.zeroPoints && { zeroPoints: encodeBytes(packed.zeroPoints) }),
    x: encodeBytes(xData),
  });
  const theirs = new Float32Array(decodeBytes(answer.y).buffer);
  const ours = await ourProduct(matrix, xData);
  const rounded = minimumProduct(matMulNBitsValues(packed), matrixValues(matrix), xData);
  // Sums of products of magnitude 1 in f32.
  const tolerance = columns * 2 ** -22;
  let worst = ours.length === theirs.length ? 0 : Infinity;
  theirs.forEach((y, i) => {
    worst = Math.max(worst, Math.abs(y - (rounded[i] ?? NaN) - (ours[i] ?? NaN)));
  });
  const holds = worst <= tolerance;
  const verdict = holds ? 'within' : 'OUTSIDE';
  console.log(
    `MatMulNBits ${bits} bits, groups of ${groupSize}, ${convention}: largest difference` +
      ` ${worst.toExponential(2)} of ${tolerance.toExponential(2)}, ${verdict}`,
  );
  return holds;
}

await installPeers((line) => console.log(line));
await using peer = new ProductPeer('onnxruntime');
let passed = true;
for (const each of cases) passed = (await compare(peer, each)) && passed;
await using blocks = new ProductPeer('ggml');
passed = (await compareBlocks(blocks)) && passed;
console.log(passed ? '\nparity holds' : '\nparity does NOT hold');
await peer.dispose();
await blocks.dispose();
// Dawn keeps the process alive for as long as its entry point is reachable.
process.exit(passed ? 0 : 1);
