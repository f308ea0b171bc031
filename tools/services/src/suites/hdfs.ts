/** The WebHDFS adapter on Hadoop's own mini cluster: a NameNode and a DataNode on this machine. */
import { randomUUID } from 'node:crypto';
import { webHdfsStore } from '@vramkit/storage/webhdfs';
import { describeStore, testBytes } from '@vramkit/storage/testing';
import { describe, expect, it } from 'vitest';
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

  it('puts no token in an error', async () => {
    const delegationToken = 'a-secret-token-0123456789';
    const options = { url: 'http://127.0.0.1:1', folder: '/denied', user: { delegationToken } };
    const error = await webHdfsStore(options).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'unavailable', retryable: true });
    const stack = error instanceof Error ? error.stack : '';
    expect(`${stack}${JSON.stringify(error)}`).not.toContain(delegationToken);
  });
});
