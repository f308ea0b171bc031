/** Connections that end in the middle: what was read must never pass for all there is. */
import { createServer, connect, type AddressInfo } from 'node:net';
import { readBlob, retriedStore, type BlobStore } from '@vramkit/storage';
import { testBytes } from '@vramkit/storage/testing';
import { expect } from 'vitest';

/** A port that passes on to another one. */
export interface CuttingProxy extends Disposable {
  readonly port: number;
  /** Bytes from the server after which a connection ends. */
  limitBytes: number;
  /** Ends one connection where the client sends `text`: instead of it, or of the answer to it. */
  cutOnce: { readonly text: string; readonly moment: 'request' | 'answer' } | undefined;
}

/** Opens a proxy on loopback that cuts nothing yet. */
export async function cuttingProxy(targetPort: number): Promise<CuttingProxy> {
  const proxy: CuttingProxy & { port: number } = {
    port: 0,
    limitBytes: Infinity,
    cutOnce: undefined,
    [Symbol.dispose]: () => void server.close(),
  };
  const server = createServer((near) => {
    const far = connect(targetPort, '127.0.0.1');
    const end = (): void => {
      near.destroy();
      far.destroy();
    };
    let passed = 0;
    let isLast = false;
    near.on('data', (data) => {
      const { cutOnce } = proxy;
      if (cutOnce !== undefined && data.includes(cutOnce.text)) {
        proxy.cutOnce = undefined;
        isLast = true;
        if (cutOnce.moment === 'request') return end();
      }
      far.write(data);
    });
    far.on('data', (data) => {
      passed += data.length;
      if (passed <= proxy.limitBytes && !isLast) near.write(data);
      else end();
    });
    for (const socket of [near, far]) socket.on('error', end).on('close', end);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  proxy.port = (server.address() as AddressInfo).port;
  return proxy;
}

/** A read over connections that are cut fails typed, and goes on through the retry layer. */
export async function expectWholeReads(store: BlobStore, proxy: CuttingProxy): Promise<void> {
  const key = 'cut/blob';
  const bytes = testBytes(20 * 2 ** 20);
  await store.put(key, bytes);
  proxy.limitBytes = 7 * 2 ** 20;
  await expect(readBlob(store, key)).rejects.toMatchObject({
    code: 'unavailable',
    retryable: true,
  });
  const retried = retriedStore(store, { random: Math.random, baseDelayMs: 1 });
  expect(Buffer.compare(await readBlob(retried, key), bytes)).toBe(0);
  proxy.limitBytes = Infinity;
  await retried.delete(key);
}
