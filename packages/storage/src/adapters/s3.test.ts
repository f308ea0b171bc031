/** What a real service rarely does: answers without a version, and passing failures. */
import { describe, expect, it } from 'vitest';
import { readBlob } from '../read-blob.js';
import { testBytes } from '../testing.js';
import { s3Store, type S3Client, type S3Sdk } from './s3.js';

/** An error as the SDK throws it. */
function serviceError(name: string, httpStatusCode: number): Error {
  return Object.assign(new Error(name), { name, $metadata: { httpStatusCode } });
}

type Answer = () => object;

/** A client that answers by the name of the command, and the commands that it was sent. */
function scripted(answers: Readonly<Record<string, Answer>>) {
  const sent: string[] = [];
  const sdk = new Proxy(
    {},
    {
      get: (_, name) =>
        class {
          readonly name = String(name).replace('Command', '');
          readonly middlewareStack = { add: () => undefined };
        },
    },
  ) as S3Sdk; // every command that the store makes
  const client: S3Client = {
    send: (command: { name: string }, options) => {
      sent.push(command.name);
      const answer = answers[command.name] ?? (() => ({ ETag: '"tag"' }));
      return new Promise((resolve, reject) => {
        const answered = answer();
        // As the SDK does it: the service has done it, and nobody hears of it.
        if (options?.abortSignal?.aborted === true) reject(new Error('aborted'));
        else resolve(answered);
      });
    },
  };
  return { sdk, client, sent, bucket: 'bucket' };
}

describe('s3', () => {
  it('keeps an upload that is complete when its version cannot be asked', async () => {
    let isOpen = false;
    const failing = (): object => {
      if (isOpen) throw serviceError('AccessDenied', 403);
      return { ETag: '"tag"', ContentLength: 1 };
    };
    const { sent, ...options } = scripted({
      HeadObject: failing,
      CreateMultipartUpload: () => ({ UploadId: '1' }),
      CompleteMultipartUpload: () => ({}),
    });
    const partBytes = 5 * 2 ** 20;
    const store = await s3Store({ ...options, partBytes });
    isOpen = true;
    const put = store.put('a', testBytes(partBytes + 1));
    await expect(put).rejects.toMatchObject({
      code: 'unavailable',
      retryable: true,
      cause: { code: 'access-denied' },
    });
    expect(sent).toContain('CompleteMultipartUpload');
    expect(sent).not.toContain('AbortMultipartUpload');
  });

  it.each([
    ['InternalError', 500, 'unavailable', false],
    ['InvalidPart', 400, 'unsupported', true],
  ])('after %s of a completion, ends the upload only where it is known', async (...row) => {
    const [name, status, code, isEnded] = row;
    const { sent, ...options } = scripted({
      CreateMultipartUpload: () => ({ UploadId: '1' }),
      CompleteMultipartUpload: () => {
        throw serviceError(name, status);
      },
    });
    const partBytes = 5 * 2 ** 20;
    const store = await s3Store({ ...options, partBytes });
    const put = store.put('a', testBytes(partBytes + 1));
    await expect(put).rejects.toMatchObject({ code });
    expect(sent.includes('AbortMultipartUpload')).toBe(isEnded);
  });

  it.each([
    ['CreateMultipartUpload', true],
    ['UploadPart', true],
    ['CompleteMultipartUpload', false], // it may be complete
  ])('aborted in %s, ends the upload: %s', async (step, isEnded) => {
    const controller = new AbortController();
    const { sent, ...options } = scripted({
      CreateMultipartUpload: () => ({ UploadId: '1' }),
      [step]: () => {
        controller.abort();
        return { UploadId: '1', ETag: '"tag"' };
      },
    });
    const partBytes = 5 * 2 ** 20;
    const store = await s3Store({ ...options, partBytes });
    const put = store.put('a', testBytes(partBytes + 1), { signal: controller.signal });
    await expect(put).rejects.toMatchObject({ code: 'aborted' });
    expect(sent.includes('AbortMultipartUpload')).toBe(isEnded);
  });

  it('lists no object whose name is no key, such as the folders of consoles', async () => {
    const names = ['a/', 'a//b', 'a/../b', '.vramkit-probe/x', 'a/b'];
    const pages = [names.map((Key) => ({ Key, Size: 1, ETag: '"tag"' })), []];
    const store = await s3Store(scripted({ ListObjectsV2: () => ({ Contents: pages.shift() }) }));
    const keys: string[] = [];
    for await (const { key } of store.list('')) keys.push(key);
    expect(keys).toEqual(['a/b']);
  });

  it('gives no empty range of a blob that has grown since it was asked for', async () => {
    const store = await s3Store(
      scripted({
        GetObject: () => {
          throw serviceError('InvalidRange', 416);
        },
        HeadObject: () => ({ ETag: '"tag"', ContentLength: 20 }),
      }),
    );
    const range = { offsetBytes: 10, lengthBytes: 4 };
    await expect(readBlob(store, 'a', range)).rejects.toMatchObject({ code: 'conflict' });
    expect(await readBlob(store, 'a', { offsetBytes: 20 })).toHaveLength(0);
  });

  it.each([
    ['RequestTimeout', 400, 'unavailable'],
    ['IncompleteBody', 400, 'unavailable'],
    ['BadDigest', 400, 'unavailable'],
    ['XAmzContentSHA256Mismatch', 400, 'unavailable'], // a signed body that changed on the way
    ['SlowDown', 503, 'unavailable'],
    ['ThrottlingException', 400, 'unavailable'],
    ['InvalidArgument', 400, 'unsupported'],
    ['AccessDenied', 403, 'access-denied'],
  ])('says of %s with status %i: %s', async (name, status, code) => {
    let isOpen = false;
    const { sdk, client, bucket } = scripted({
      PutObject: () => {
        if (isOpen) throw serviceError(name, status);
        return { ETag: '"tag"' };
      },
    });
    const store = await s3Store({ sdk, client, bucket });
    isOpen = true;
    const retryable = code === 'unavailable';
    await expect(store.put('a', testBytes(1))).rejects.toMatchObject({ code, retryable });
  });
});
