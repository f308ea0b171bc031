/**
 * One side of the benchmark of file gets, in a process of its own: `file-gets SIDE FOLDER`. For a
 * line with a size and a count it gets so many blobs of that size and answers with milliseconds.
 *
 * A process of its own, because what one side leaves to the allocator decides how fast the other
 * gets memory: a loop that takes new chunks is up to twice as fast beside a store than alone.
 */
import { createReadStream } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { checksummedStore, posixStore, readBlob } from '@vramkit/storage';
import type { BlobStore } from '@vramkit/storage';
import { LineProcess } from './line-process.js';
import type { Measure } from './measure.js';
import { mebibyte } from './storage-data.js';

/**
 * Who gets, and how: chunks to keep, chunks whose memory is used again, or the blob in one array;
 * with calls of Node, by `read` into new buffers or into one, with a hash of each or without, by a
 * stream, by `readFile`.
 */
export type GetSide = keyof typeof getters;

/** What a side is asked for. */
export interface GetRequest {
  readonly sizeBytes: number;
  readonly count: number;
}

const chunkBytes = 4 * mebibyte;

/** Where the blobs are, and the file of one that a plain loop reads. */
export function placeOf(folder: string): { store: string; plain: string } {
  return { store: join(folder, 'store'), plain: folder };
}

/** The name of a blob. */
export function blobName({ sizeBytes }: Pick<GetRequest, 'sizeBytes'>, index: number): string {
  return `${sizeBytes}-${index}`;
}

async function openHash(): Promise<(chunk: Buffer) => unknown> {
  const { default: xxhash } = await import('xxhash-addon');
  return xxhash.XXHash3.hash;
}

type Getter = (name: string, sizeBytes: number) => Promise<number>;

interface LoopOptions {
  /** Reads into it. Default: into a new buffer for each chunk. */
  readonly one?: Buffer;
  readonly hash?: (chunk: Buffer) => unknown;
}

async function readLoop(path: string, sizeBytes: number, options: LoopOptions): Promise<number> {
  const { one, hash } = options;
  const file = await open(path, 'r');
  let total = 0;
  while (total < sizeBytes) {
    const length = Math.min(chunkBytes, sizeBytes - total);
    const chunk = one ?? Buffer.allocUnsafeSlow(length);
    const { bytesRead } = await file.read(chunk, 0, length);
    hash?.(chunk.subarray(0, bytesRead));
    total += bytesRead;
  }
  await file.close();
  return total;
}

async function countBytes(chunks: AsyncIterable<Uint8Array>): Promise<number> {
  let total = 0;
  for await (const chunk of chunks) total += chunk.length;
  return total;
}

async function openStore(folder: string): Promise<BlobStore> {
  return checksummedStore(await posixStore({ folder: placeOf(folder).store }));
}

const getters = {
  async kept(folder) {
    const store = await openStore(folder);
    return (name) => countBytes(store.get(name));
  },
  async lent(folder) {
    const store = await openStore(folder);
    return (name) => countBytes(store.get(name, { lend: true }));
  },
  async whole(folder) {
    const store = await openStore(folder);
    return async (name) => (await readBlob(store, name)).length;
  },
  'fs.read, new buffers': async (folder) => (name, size) => readLoop(join(folder, name), size, {}),
  async 'fs.read, new buffers, xxh3'(folder) {
    const hash = await openHash();
    return (name, size) => readLoop(join(folder, name), size, { hash });
  },
  async 'fs.read, one buffer'(folder) {
    const one = Buffer.alloc(chunkBytes);
    return (name, size) => readLoop(join(folder, name), size, { one });
  },
  async 'fs.read, one buffer, xxh3'(folder) {
    const [one, hash] = [Buffer.alloc(chunkBytes), await openHash()];
    return (name, size) => readLoop(join(folder, name), size, { one, hash });
  },
  'fs.createReadStream': async (folder) => (name) =>
    countBytes(createReadStream(join(folder, name))),
  'fs.readFile': async (folder) => async (name) => (await readFile(join(folder, name))).length,
} satisfies Record<string, (folder: string) => Promise<Getter>>;

/** Starts a side; its figures are MiB/s. */
export function startGets(side: GetSide, folder: string) {
  const script = fileURLToPath(import.meta.url);
  const loader = ['--conditions=@vramkit/source', '--import', import.meta.resolve('tsx')];
  const process = new LineProcess({ args: [...loader, script, side, folder] });
  return {
    measure:
      (request: GetRequest): Measure =>
      async () => {
        const { ms } = (await process.ask(request, 60)) as { ms: number }; // as below
        return (request.sizeBytes * request.count) / mebibyte / (ms / 1000);
      },
    dispose: () => process.dispose(),
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [side, folder = ''] = process.argv.slice(2);
  const get = await getters[side as GetSide](folder); // the parent is above
  for await (const line of createInterface({ input: process.stdin })) {
    const request = JSON.parse(line) as GetRequest; // from the parent
    const begin = performance.now();
    for (let index = 0; index < request.count; index += 1) {
      const got = await get(blobName(request, index), request.sizeBytes);
      if (got !== request.sizeBytes) throw new Error(`${got} B of ${request.sizeBytes} B`);
    }
    process.stdout.write(`${JSON.stringify({ ms: performance.now() - begin })}\n`);
  }
}
