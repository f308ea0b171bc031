// npm `@huggingface/gguf` reads the same metadata and tensors out of valid files as our own reader.
import { gguf } from '@huggingface/gguf';
import { cachedModelPath } from '@vramkit/models';
import { fileSource, readGguf } from '@vramkit/packer';
import { buildGguf } from '@vramkit/packer/testing';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';

const smollm2 = await cachedModelPath('smollm2');
if (smollm2 === undefined) {
  console.log('skipped: SmolLM2 is not in the cache; npm run fetch -w @vramkit/models -- smollm2');
}
const root = await mkdtemp(join(tmpdir(), 'vramkit-gguf-oracle-'));
afterAll(() => rm(root, { recursive: true }));

/** Their value in our terms: arrays without a type of element, 64-bit numbers where exact. */
function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  if (ArrayBuffer.isView(value)) return Array.from(value as Uint8Array, plain);
  return Array.isArray(value) ? value.map(plain) : value;
}

async function compare(path: string): Promise<number> {
  const source = await fileSource(path);
  const ours = await readGguf(source);
  await source.close();
  const theirs = await gguf(path, { allowLocalFile: true });
  const { version, tensor_count, kv_count, ...pairs } = theirs.metadata;
  expect(ours.version).toBe(version);
  expect(ours.metadata.entries.size).toBe(Number(kv_count));
  expect(ours.tensors.size).toBe(Number(tensor_count));
  expect(
    Object.fromEntries([...ours.metadata.entries].map(([key, each]) => [key, plain(each)])),
  ).toEqual(Object.fromEntries(Object.entries(pairs).map(([key, each]) => [key, plain(each)])));
  expect(ours.dataOffset).toBe(Number(theirs.tensorDataOffset));
  const entries = [...ours.tensors.values()].map(({ name, shape, offset }) => ({
    name,
    shape: shape.toReversed(),
    offset: offset - ours.dataOffset,
  }));
  expect(entries).toEqual(
    theirs.tensorInfos.map(({ name, shape, offset }) => ({
      name,
      shape: shape.map(Number),
      offset: Number(offset),
    })),
  );
  return ours.tensors.size;
}

describe('@huggingface/gguf as an oracle', () => {
  it('agrees on a file with every kind of value', async () => {
    const path = join(root, 'a.gguf');
    const metadata = {
      'general.architecture': 'llama',
      a: [...Array(3000).keys()].map((i) => `token ${i} é`),
      b: Int32Array.of(-1, 2 ** 30),
      c: Float32Array.of(0.1, -3),
      d: Uint8Array.of(0, 255),
      e: true,
      f: 0.1 + 0.2,
      g: 2n ** 62n + 1n,
    };
    const tensor = (name: string, type: 'F32' | 'Q4_K', shape: number[], sizeBytes: number) => ({
      name,
      type,
      shape,
      bytes: new Uint8Array(sizeBytes),
    });
    const tensors = [tensor('x', 'Q4_K', [2, 3, 256], 864), tensor('y', 'F32', [5], 20)];
    await writeFile(path, buildGguf({ metadata, tensors }));
    expect(await compare(path)).toBe(2);
  });

  it.skipIf(smollm2 === undefined)('agrees on SmolLM2', async () => {
    expect(await compare(smollm2 ?? '')).toBe(272);
  });
});
