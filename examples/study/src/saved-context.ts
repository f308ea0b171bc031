/**
 * The keys and values of a context on disk, so that a document is read by the model once: later
 * stages, other block sizes and restarted studies take them from here.
 *
 * One file of f32, layer by layer, keys before values, `[tokens, kvHeads, headDim]` each. What is
 * measured of queries is not in it, so policies that need attention read the context anew. Norms
 * are computed again where K and V are written; those of a 16-bit cache are of the rounded values.
 */
import { open, rename, type FileHandle } from 'node:fs/promises';
import { Batch, createTensor, writeRange } from '@vramkit/core';
import type { KvPolicy } from '@vramkit/eviction';
import type { InferenceSession, Sequence } from '@vramkit/example-runtime';

/** Whether a context without measures serves a policy. */
export function isServedBySaved(policy: KvPolicy): boolean {
  return policy.needs.every((need) => need !== 'attention' && need !== 'queries');
}

/** Writes what a sequence that has dropped nothing holds. */
export async function saveContext(
  path: string,
  session: InferenceSession,
  sequence: Sequence,
): Promise<void> {
  const table = session.sequences.table(sequence.id);
  const slots = Uint32Array.from({ length: table.cachedTokenCount }, (_, i) => table.slotAt(i));
  const file = await open(`${path}.part`, 'w');
  try {
    for (let layer = 0; layer < session.model.config.layers; layer++) {
      const { keys, values } = await session.cache.readKv(layer, slots);
      await file.writeFile(new Uint8Array(keys.buffer, keys.byteOffset, keys.byteLength));
      await file.writeFile(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    }
  } finally {
    await file.close();
  }
  await rename(`${path}.part`, path);
}

/**
 * A new sequence under `policy` with `tokens` tokens from the file.
 * @returns `undefined` where there is no file.
 */
export async function restoreContext(
  path: string,
  session: InferenceSession,
  policy: KvPolicy,
  tokens: number,
): Promise<Sequence | undefined> {
  const file = await open(path, 'r').catch(() => undefined);
  if (file === undefined) return undefined;
  try {
    const sequence = session.create(policy);
    const { slots } = session.sequences.append(sequence.id, tokens);
    await writeLayers(file, session, slots);
    return sequence;
  } finally {
    await file.close();
  }
}

async function writeLayers(
  file: FileHandle,
  session: InferenceSession,
  slots: Uint32Array,
): Promise<void> {
  const { device, cache } = session;
  const { layers, kvHeads, headDim } = session.model.config;
  const width = kvHeads * headDim;
  const tokens = slots.length;
  const rows = { dtype: 'f32', shape: [tokens, width], kind: 'staging' } as const;
  using keys = createTensor(device, { ...rows, label: 'saved keys' });
  using values = createTensor(device, { ...rows, label: 'saved values' });
  const list = { dtype: 'u32', shape: [tokens], kind: 'staging' } as const;
  using slotList = createTensor(device, { ...list, label: 'slots of saved tokens' });
  writeRange(device, slotList, slots);
  for (let layer = 0; layer < layers; layer++) {
    for (const target of [keys, values]) {
      const bytes = new Uint8Array(tokens * width * 4);
      await file.read(bytes, 0, bytes.length);
      writeRange(device, target, bytes);
    }
    const batch = new Batch(device, 'saved context');
    const part = (range: typeof keys) => ({ range, rowStride: width, offset: 0 });
    const written = { layer, keys: part(keys), values: part(values), slots: slotList, tokens };
    cache.writeKv(batch, written);
    batch.submit();
  }
  await device.settle();
}
