/** Checkpoints: whole or absent, resumable, checked, read in parts, and plain safetensors files. */
import { VramError } from '@vramkit/core';
import { seededRandom } from '@vramkit/core/testing';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  chaoticStore,
  Checkpoints,
  memoryStore,
  readBlob,
  retriedStore,
  type BlobStore,
  type CheckpointTensor,
} from './index.js';
import { encodeManifest } from './checkpoint-format.js';
import { testBytes } from './testing.js';
import { wrapStore } from './layers/wrap.js';

function tensors(seed: number): CheckpointTensor[] {
  const sizes = [4, 4096, 1_500_000, 0, 3_000_000, 12];
  return sizes.map((size, index) => ({
    name: index === 1 ? '__proto__' : `layers.${index}.weight`,
    dtype: 'F32',
    shape: [size / 4],
    bytes: testBytes(size, seed + index),
  }));
}

const options = { shardBytes: 1_000_000 };

async function expectWhole(store: BlobStore, name: string, seed: number): Promise<void> {
  const checkpoints = new Checkpoints(store, options);
  const manifest = await checkpoints.open(name);
  await checkpoints.verify(manifest);
  for (const { name: tensor, bytes } of tensors(seed)) {
    expect(Buffer.compare(await checkpoints.read(manifest, tensor), bytes)).toBe(0);
  }
}

describe('checkpoints', () => {
  it('saves, lists, and loads bit for bit', async () => {
    const store = memoryStore();
    const checkpoints = new Checkpoints(store, options);
    expect(await checkpoints.latest()).toBeUndefined();
    await checkpoints.save('step-1', tensors(1), { metadata: { step: 1 } });
    await checkpoints.save('step-2', tensors(2));
    expect(await checkpoints.list()).toEqual(['step-1', 'step-2']);
    expect(await checkpoints.latest()).toMatchObject({ name: 'step-2' });
    expect(await checkpoints.open('step-1')).toMatchObject({ metadata: { step: 1 } });
    await expectWhole(store, 'step-1', 1);
    await expectWhole(store, 'step-2', 2);
  });

  it('reads any part of a tensor', async () => {
    const store = memoryStore();
    const checkpoints = new Checkpoints(store, options);
    const manifest = await checkpoints.save('a', tensors(5));
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...tensors(5)),
        fc.nat(3_000_000),
        fc.nat(3_000_000),
        async ({ name, bytes }, first, second) => {
          const [begin = 0, end = 0] = [first, second]
            .map((at) => Math.min(at, bytes.length))
            .sort((x, y) => x - y);
          const range = { offsetBytes: begin, lengthBytes: end - begin };
          const part = await checkpoints.read(manifest, name, range);
          expect(Buffer.compare(part, bytes.subarray(begin, end))).toBe(0);
        },
      ),
      { numRuns: 60, seed: 3 },
    );
    await expect(checkpoints.read(manifest, 'unknown')).rejects.toMatchObject({
      code: 'not-found',
      message: expect.stringContaining("has no tensor 'unknown'"),
      context: { tensor: 'unknown' },
    });
    const outside = { offsetBytes: 3, lengthBytes: 2 };
    await expect(checkpoints.read(manifest, 'layers.0.weight', outside)).rejects.toMatchObject({
      code: 'invalid-argument',
    });
  });

  it('is safetensors to other tools', async () => {
    const store = memoryStore();
    await new Checkpoints(store, options).save('a', tensors(1));
    const text = async (key: string) => Buffer.from(await readBlob(store, key)).toString();
    const index = JSON.parse(await text('checkpoints/a/model.safetensors.index.json')) as {
      weight_map: Record<string, string>;
    };
    expect(Object.keys(index.weight_map).length).toBeGreaterThan(3);
    for (const { name, bytes, shape } of tensors(1)) {
      const file = Object.entries(index.weight_map).find(([tensor]) => tensor === name)?.[1];
      const blob = Buffer.from(await readBlob(store, `checkpoints/a/${file}`));
      const headerBytes = Number(blob.readBigUInt64LE(0));
      const header = JSON.parse(blob.subarray(8, 8 + headerBytes).toString()) as object;
      const entry = Object.entries(header).find(([tensor]) => tensor === name)?.[1] as {
        dtype: string;
        shape: number[];
        data_offsets: [number, number];
      };
      expect([entry.dtype, entry.shape]).toEqual(['F32', shape]);
      const [begin, end] = entry.data_offsets.map((offset) => offset + 8 + headerBytes);
      expect(Buffer.compare(blob.subarray(begin, end), bytes)).toBe(0);
      const last = Math.max(
        ...Object.values(header).map((e: typeof entry) => e.data_offsets?.[1] ?? 0),
      );
      expect(8 + headerBytes + last).toBe(blob.length);
    }
  });

  it('keeps the previous one when a save stops at any put, and goes on from there', async () => {
    for (let stop = 0; ; stop += 1) {
      const memory = memoryStore();
      await new Checkpoints(memory, options).save('step-1', tensors(1));
      let puts = 0;
      const counting = (limit: number): BlobStore =>
        wrapStore(memory, {
          put: (...call) => {
            if (puts >= limit) throw new VramError('unavailable', 'stopped');
            puts += 1;
            return memory.put(...call);
          },
        });
      const save = (limit: number) =>
        new Checkpoints(counting(limit), { ...options, parallel: 1 }).save('step-2', tensors(2));
      const isDone = await save(stop).then(
        () => true,
        () => false,
      );
      const latest = await new Checkpoints(memory, options).latest();
      // The put after the manifest's writes an index for other tools.
      await expectWhole(memory, latest?.name ?? '', latest?.name === 'step-2' ? 2 : 1);
      const before = puts;
      await save(Infinity);
      await expectWhole(memory, 'step-2', 2);
      if (isDone) break;
      puts -= before;
      expect(puts).toBeLessThanOrEqual(7 - stop); // shards that were there are not sent again
    }
  });

  it('lets one of two savers of a name win, and a repeated save succeed', async () => {
    const store = memoryStore();
    const checkpoints = new Checkpoints(store, options);
    await checkpoints.save('a', tensors(1));
    await checkpoints.save('a', tensors(1));
    await expect(checkpoints.save('a', tensors(2))).rejects.toMatchObject({ code: 'conflict' });
    await expectWhole(store, 'a', 1);
    const race = [3, 4].map((seed) => new Checkpoints(store, options).save('b', tensors(seed)));
    const results = await Promise.allSettled(race);
    expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    await expectWhole(store, 'b', results[0]?.status === 'fulfilled' ? 3 : 4);
  });

  it('puts again what is damaged or missing of a save, before its end and after', async () => {
    const store = memoryStore();
    const checkpoints = new Checkpoints(store, options);
    const { shards } = await checkpoints.save('a', tensors(1));
    const damages = {
      flip: async (key: string) => {
        const bytes = await readBlob(store, key);
        bytes[500] = (bytes[500] ?? 0) ^ 1;
        await store.put(key, bytes);
      },
      cut: async (key: string) => store.put(key, (await readBlob(store, key)).subarray(0, 500)),
      remove: async (key: string) => store.delete(key),
    };
    for (const damage of Object.values(damages)) {
      for (const hasEnded of [false, true]) {
        if (!hasEnded) await store.delete('checkpoints/a/manifest.json');
        for (const { file } of shards.slice(1)) await damage(`checkpoints/a/${file}`);
        await checkpoints.save('a', tensors(1));
        await expectWhole(store, 'a', 1);
      }
    }
  });

  it('refuses other metadata under a name, and gives what is stored', async () => {
    const checkpoints = new Checkpoints(memoryStore(), options);
    const save = (step: number) => checkpoints.save('a', tensors(1), { metadata: { step } });
    await save(1);
    expect(await save(1)).toEqual(await checkpoints.open('a'));
    await expect(save(2)).rejects.toMatchObject({ code: 'conflict' });
    expect(await checkpoints.open('a')).toMatchObject({ metadata: { step: 1 } });
  });

  it('refuses metadata that are no JSON before it puts anything, and keeps a copy', async () => {
    const store = memoryStore();
    const checkpoints = new Checkpoints(store, options);
    const saving = checkpoints.save('a', tensors(1), { metadata: { step: 1n } });
    await expect(saving).rejects.toMatchObject({ code: 'invalid-argument' });
    for await (const { key } of store.list('')) expect(key).toBeUndefined();
    const metadata = { losses: [1], unknown: undefined };
    const { done } = checkpoints.begin('a', tensors(1), { metadata });
    metadata.losses.push(2);
    expect((await done).metadata).toStrictEqual({ losses: [1] });
    expect((await checkpoints.open('a')).metadata).toStrictEqual({ losses: [1] });
  });

  it('saves a copy while the tensors change', async () => {
    const store = memoryStore();
    // Buffers, because slice() of one is no copy.
    const live = tensors(1).map((tensor) => ({ ...tensor, bytes: Buffer.from(tensor.bytes) }));
    const { done } = new Checkpoints(store, options).begin('a', live);
    for (const { bytes } of live) bytes.fill(0);
    await done;
    await expectWhole(store, 'a', 1);
  });

  it('finds a flipped bit and a truncation of any blob, and names the blob', async () => {
    const random = seededRandom(9);
    const store = memoryStore();
    const checkpoints = new Checkpoints(store, options);
    const manifest = await checkpoints.save('a', tensors(1));
    const keys: string[] = [];
    for await (const { key } of store.list('')) if (!key.includes('index')) keys.push(key);
    for (const key of keys) {
      const sound = await readBlob(store, key);
      for (let round = 0; round < 12; round += 1) {
        const at = random.integer(0, sound.length - 1);
        const flipped = sound.slice();
        flipped[at] = (flipped[at] ?? 0) ^ (1 << random.integer(0, 7));
        await store.put(key, round % 3 === 0 ? sound.subarray(0, at) : flipped);
        const load = async (): Promise<void> => checkpoints.verify(await checkpoints.open('a'));
        await expect(load()).rejects.toMatchObject({ code: 'corrupt-data', context: { key } });
        // A part is checked too: no tensor is ever given with wrong bytes.
        for (const { name, bytes } of tensors(1)) {
          const read = await checkpoints.read(manifest, name).catch((error: unknown) => error);
          if (read instanceof Uint8Array) expect(Buffer.compare(read, bytes)).toBe(0);
          else expect(read).toMatchObject({ code: 'corrupt-data' });
        }
      }
      await store.put(key, sound);
    }
  });

  it('says so where a checkpoint is of another format version', async () => {
    const store = memoryStore();
    const checkpoints = new Checkpoints(store, options);
    const manifest = await checkpoints.save('a', tensors(1));
    const older = { ...manifest, formatVersion: 1 } as unknown as typeof manifest;
    await store.put('checkpoints/a/manifest.json', encodeManifest(older));
    await expect(checkpoints.open('a')).rejects.toMatchObject({ code: 'unsupported' });
  });

  it('prunes old ones and leftovers, and nothing that may be on its way', async () => {
    const store = memoryStore();
    const checkpoints = new Checkpoints(store, options);
    for (const step of [1, 2, 3, 4]) await checkpoints.save(`step-${step}`, tensors(step));
    for (const name of ['step-0', 'step-25', 'step-5']) {
      await store.put(`checkpoints/${name}/model-00001-x.safetensors`, testBytes(10));
    }
    expect(await checkpoints.prune({ keep: 2 })).toEqual(['step-1', 'step-2']);
    expect(await checkpoints.list()).toEqual(['step-3', 'step-4']);
    await expectWhole(store, 'step-3', 3);
    const names = new Set<string>();
    for await (const { key } of store.list('')) names.add(key.split('/')[1] ?? '');
    expect([...names]).toEqual(['step-3', 'step-4', 'step-5']);
  });

  it('lets a save end whose shards a prune took for leftovers', async () => {
    const memory = memoryStore();
    const other = new Checkpoints(memory, options);
    const whenManifest = (meet: () => Promise<unknown>): BlobStore =>
      wrapStore(memory, {
        put: async (...call) => {
          if (call[0] === 'checkpoints/step-1/manifest.json') await meet();
          return memory.put(...call);
        },
      });
    await other.save('step-2', tensors(2));
    const store = whenManifest(() => other.prune({ keep: 2 }));
    await new Checkpoints(store, options).save('step-1', tensors(1));
    await expectWhole(memory, 'step-1', 1);
    expect(await other.list()).toEqual(['step-1', 'step-2']);
  });

  it('deletes nothing of a save that ends while a prune looks for leftovers', async () => {
    const memory = memoryStore();
    const saver = new Checkpoints(memory, options);
    await saver.save('step-2', tensors(2));
    await memory.put('checkpoints/step-0/model-00001-x.safetensors', testBytes(10));
    await saver.save('step-1', tensors(1));
    await memory.delete('checkpoints/step-1/manifest.json'); // as if it had not ended
    const pruning = wrapStore(memory, {
      delete: async (key, ...call) => {
        // The first leftover goes: the list of all of them was made before.
        if (key.includes('step-0')) await saver.save('step-1', tensors(1));
        await memory.delete(key, ...call);
      },
    });
    await new Checkpoints(pruning, options).prune({ keep: 2 });
    await expectWhole(memory, 'step-1', 1);
    expect(await memory.head('checkpoints/step-0/model-00001-x.safetensors')).toBeUndefined();
  });

  it('does not count a checkpoint whose manifest is damaged, and saves over it', async () => {
    const store = memoryStore();
    const checkpoints = new Checkpoints(store, options);
    for (const step of [1, 2, 3]) await checkpoints.save(`step-${step}`, tensors(step));
    for (const step of [2, 3]) {
      await store.put(`checkpoints/step-${step}/manifest.json`, testBytes(50));
    }
    expect(await checkpoints.latest()).toMatchObject({ name: 'step-1' });
    expect(await checkpoints.prune({ keep: 1 })).toEqual([]);
    await expectWhole(store, 'step-1', 1);
    await checkpoints.save('step-3', tensors(4));
    await expectWhole(store, 'step-3', 4);
    expect(await checkpoints.prune({ keep: 2 })).toEqual(['step-2']);
    expect(await checkpoints.list()).toEqual(['step-1', 'step-3']);
  });

  it('orders by names, also where one is the beginning of another', async () => {
    const checkpoints = new Checkpoints(memoryStore(), options);
    const names = ['v1', 'v1-b', 'v1.1', 'v10'];
    for (const [seed, name] of names.entries()) await checkpoints.save(name, tensors(seed));
    expect(await checkpoints.list()).toEqual(names);
    expect(await checkpoints.latest()).toMatchObject({ name: 'v10' });
    expect(await checkpoints.prune({ keep: 2 })).toEqual(['v1', 'v1-b']);
    expect(await checkpoints.prune({ keep: 1 })).toEqual(['v1.1']);
    expect(await checkpoints.list()).toEqual(['v10']);
  });

  it('saves and loads through 10 % of failing calls', async () => {
    const memory = memoryStore();
    const { uniform: random } = seededRandom(21);
    const failing = chaoticStore(memory, { random, failureRate: 0.1 });
    const store = retriedStore(failing, { random, tries: 20, baseDelayMs: 0, maxDelayMs: 1 });
    for (const seed of [1, 2, 3]) {
      await new Checkpoints(store, options).save(`step-${seed}`, tensors(seed));
      await expectWhole(store, `step-${seed}`, seed);
    }
  });

  it('refuses tensors that do not fit their shape, and names that could leave', async () => {
    const checkpoints = new Checkpoints(memoryStore());
    const bad = { name: 'a', dtype: 'F32', shape: [3], bytes: testBytes(11) };
    const shapes = [[-2, -2], [0.5, 8], [NaN]].map((shape) => {
      return { ...bad, dtype: 'U8', shape, bytes: testBytes(4) };
    });
    const others = [{ ...bad, dtype: 'F33' }, { ...bad, name: '__metadata__' }, ...shapes];
    for (const tensor of [bad, ...others]) {
      await expect(checkpoints.save('a', [tensor])).rejects.toMatchObject({
        code: 'invalid-argument',
      });
    }
    const good = { ...bad, bytes: testBytes(12) };
    await expect(checkpoints.save('a', [good, good])).rejects.toThrow('one name');
    for (const name of ['..', 'a/b', '', '.vramkit']) {
      await expect(checkpoints.save(name, [good])).rejects.toMatchObject({
        code: 'invalid-argument',
      });
    }
  });
});
