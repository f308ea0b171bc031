/**
 * Parity of the packer with ONNX Runtime: `npm run parity:packer`. Ends with code 1 where it does
 * not hold.
 *
 * A matrix is packed, repacked for MatMulNBits and multiplied by onnxruntime-node; the same matrix
 * is multiplied here. An asymmetric minimum is an f16 here and an integer times the scale there, so
 * its products may differ by 2^-11 of the sum of their minimums' terms; all else is float error.
 */
import { createGpu } from '@vramkit/adapter';
import { Batch, createTensor, f16ToF32, openDevice, Uploader } from '@vramkit/core';
import {
  createMatrix,
  matmul,
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
  const sumOfX = xData.reduce((sum, x) => Math.max(sum, Math.abs(x)), 0) * columns;
  // Products of magnitude 1 in f32, plus what a rounded minimum may add.
  const tolerance = columns * 2 ** -22 + (convention === 'asymmetric' ? sumOfX * 2 ** -11 : 0);
  let worst = ours.length === theirs.length ? 0 : Infinity;
  theirs.forEach((y, i) => (worst = Math.max(worst, Math.abs(y - (ours[i] ?? NaN)))));
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
console.log(passed ? '\nparity holds' : '\nparity does NOT hold');
await peer.dispose();
// Dawn keeps the process alive for as long as its entry point is reachable.
process.exit(passed ? 0 : 1);
