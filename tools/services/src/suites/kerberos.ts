/**
 * The WebHDFS adapter with a delegation token, on an HDFS that lets in only whom its KDC knows: the
 * NameNode and the DataNode check the token of each request.
 */
import { randomUUID } from 'node:crypto';
import { inspect } from 'node:util';
import { describeStore } from '@vramkit/storage/testing';
import { webHdfsStore } from '@vramkit/storage/webhdfs';
import { describe, expect, it } from 'vitest';
import { serviceVariable } from '../environment.js';

const url = serviceVariable('HDFS_WEBHDFS_URL');
const delegationToken = serviceVariable('HDFS_DELEGATION_TOKEN');

describeStore(
  'WebHDFS with a delegation token',
  async () => {
    const folder = `/vramkit/${randomUUID()}`;
    const open = () => webHdfsStore({ url, folder, user: { delegationToken } });
    return { store: await open(), other: await open(), reopen: open };
  },
  { describe, it, expect },
  { pageKeys: 20, raceRounds: 2, seeds: [1], steps: 30 },
);

describe('HDFS with Kerberos', () => {
  it.each([
    ['a name alone', { name: 'me' }],
    ['a token that was changed', { delegationToken: changed(delegationToken) }],
  ])('refuses %s, and no error has the token', async (_, user) => {
    const error = await webHdfsStore({ url, folder: '/x', user }).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'access-denied', retryable: false });
    const text = `${inspect(error, { depth: 10, showHidden: true })}${JSON.stringify(error)}`;
    for (const secret of Object.values(user)) {
      if (secret.length > 10) expect(text).not.toContain(secret);
    }
  });
});

/** A token whose signature does not fit. */
function changed(token: string): string {
  const bytes = Buffer.from(token, 'base64url');
  const at = 40;
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  return bytes.toString('base64url');
}
