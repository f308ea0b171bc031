/**
 * One side of the benchmark of file gets, in a process of its own: `file-gets SIDE FOLDER`. For a
 * line with a size and a count it gets so many blobs of that size and answers with milliseconds.
 *
 * A process of its own, because what one side leaves to the allocator decides how fast the other
 * gets memory: a loop that takes new chunks is up to twice as fast beside a store than alone.
 */
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { checksummedStore, posixStore } from '@vramkit/storage';
import { LineProcess } from './line-process.js';
import type { Measure } from './measure.js';
import { mebibyte } from './storage-data.js';

/** Who gets, and whether chunks are kept or their memory is used again. */
export type GetSide = `${'ours' | 'plain'}, ${'kept' | 'lent'}`;

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

async function plainGet(path: string, sizeBytes: number, one?: Buffer): Promise<number> {
  const file = await open(path, 'r');
  let total = 0;
  while (total < sizeBytes) {
    const length = Math.min(chunkBytes, sizeBytes - total);
    const chunk = one ?? Buffer.allocUnsafeSlow(length);
    total += (await file.read(chunk, 0, length)).bytesRead;
  }
  await file.close();
  return total;
}

async function getterOf(side: GetSide, folder: string) {
  const { store: storeFolder, plain } = placeOf(folder);
  const lend = side.endsWith('lent');
  if (side.startsWith('plain')) {
    const one = lend ? Buffer.alloc(chunkBytes) : undefined;
    return (name: string, sizeBytes: number) => plainGet(join(plain, name), sizeBytes, one);
  }
  const store = checksummedStore(await posixStore({ folder: storeFolder }));
  return async (name: string): Promise<number> => {
    let total = 0;
    for await (const chunk of store.get(name, { lend })) total += chunk.length;
    return total;
  };
}

/** Starts a side; its figures are MiB/s. */
export function startGets(side: GetSide, folder: string) {
  const script = fileURLToPath(import.meta.url);
  const loader = ['--conditions=@vramkit/source', '--import', import.meta.resolve('tsx')];
  const process = new LineProcess({
    args: [...loader, script, side, folder],
  });
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
  const get = await getterOf(side as GetSide, folder); // the parent is above
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
