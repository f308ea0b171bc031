/** The WebHDFS adapter on Hadoop's own mini cluster: a NameNode and a DataNode on this machine. */
import { randomUUID } from 'node:crypto';
import { webHdfsStore } from '@vramkit/storage/webhdfs';
import { describeStore, testBytes } from '@vramkit/storage/testing';
import { describe, expect, it, vi } from 'vitest';
import { giantBytes, serviceVariable } from '../environment.js';
import { expectOpens } from '../by-address.js';

const url = serviceVariable('HDFS_WEBHDFS_URL');
const user = { name: serviceVariable('HDFS_USER') };

describeStore(
  'WebHDFS',
  async () => {
    const folder = `/vramkit/${randomUUID()}`;
    return {
      store: await webHdfsStore({ url, folder, user }),
      other: await webHdfsStore({ url, folder, user }),
      reopen: () => webHdfsStore({ url, folder, user }),
    };
  },
  { describe, it, expect },
  { pageKeys: 64, raceRounds: 4, seeds: [1], steps: 50, giantBytes },
);

const ONE = new Uint8Array(1);

/** Has something happen after each answer; gives what ends that. */
function afterAnswers(happen: (address: URL) => void | Promise<void>): () => void {
  const { fetch } = globalThis;
  const spy = vi.spyOn(globalThis, 'fetch').mockImplementation(async (input, init) => {
    const answer = await fetch(input, init);
    await happen(new URL(String(input)));
    return answer;
  });
  return () => spy.mockRestore();
}

describe('WebHDFS', () => {
  it('is opened by its address', () =>
    expectOpens(`webhdfs://${user.name}@${new URL(url).host}/vramkit/by-address`));

  it('leaves no temporary file of a failed put', async () => {
    const folder = `/vramkit/${randomUUID()}`;
    const store = await webHdfsStore({ url, folder, user });
    async function* failing(): AsyncGenerator<Uint8Array> {
      yield testBytes(3 * 2 ** 20);
      throw new RangeError('no more');
    }
    await expect(store.put('a', failing())).rejects.toBeInstanceOf(RangeError);
    const address = `${url}/webhdfs/v1${folder}/.vramkit-tmp?op=LISTSTATUS&user.name=${user.name}`;
    const answer = (await (await fetch(address)).json()) as {
      FileStatuses: { FileStatus: unknown[] };
    };
    expect(answer.FileStatuses.FileStatus).toEqual([]);
  });

  it.each(['DELETE', 'MKDIRS'])('has folders of a %s not answered block no key', async (cut) => {
    const store = await webHdfsStore({ url, folder: `/vramkit/${randomUUID()}`, user });
    await store.put('a/b/c', ONE);
    const stop = afterAnswers((address) => {
      if (address.searchParams.get('op') === cut) throw new TypeError('the connection was cut');
    });
    const call = cut === 'DELETE' ? store.delete('a/b/c') : store.put('d/e', ONE);
    await expect(call).rejects.toMatchObject({ code: 'unavailable' });
    stop();
    const key = cut === 'DELETE' ? 'a' : 'd';
    await store.put(key, ONE, { condition: 'absent' });
    expect(await store.head(key)).toMatchObject({ sizeBytes: 1 });
    await expect(store.put(`${key}/b`, ONE)).rejects.toMatchObject({ code: 'invalid-argument' });
  });

  it('leaves a folder with a file where it is, and its key taken', async () => {
    const store = await webHdfsStore({ url, folder: `/vramkit/${randomUUID()}`, user });
    await store.put('a/b/c', ONE);
    await expect(store.put('a', ONE)).rejects.toMatchObject({ code: 'invalid-argument' });
    expect(await store.head('a/b/c')).toMatchObject({ sizeBytes: 1 });
  });

  it('removes no file that takes the name of a folder which a delete has emptied', async () => {
    const store = await webHdfsStore({ url, folder: `/vramkit/${randomUUID()}`, user });
    await store.put('a/b', ONE);
    const stop = afterAnswers(async ({ pathname, searchParams }) => {
      if (!pathname.endsWith('/a') || searchParams.get('op') !== 'GETFILESTATUS') return;
      stop(); // the delete knows of the folder, and goes on once the file is there
      await store.put('a', ONE);
    });
    await store.delete('a/b');
    stop();
    expect(await store.head('a')).toMatchObject({ sizeBytes: 1 });
  });

  it('puts no token in an error', async () => {
    const delegationToken = 'a-secret-token-0123456789';
    const options = { url: 'http://127.0.0.1:1', folder: '/denied', user: { delegationToken } };
    const error = await webHdfsStore(options).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'unavailable', retryable: true });
    const stack = error instanceof Error ? error.stack : '';
    expect(`${stack}${JSON.stringify(error)}`).not.toContain(delegationToken);
  });
});
