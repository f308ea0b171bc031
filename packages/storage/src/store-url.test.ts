/** What an address that cannot be opened leaves behind: nothing. */
import { describe, expect, it } from 'vitest';
import { openStore } from './store-url.js';

describe('openStore', () => {
  it('closes a database that cannot be a store', async () => {
    let closed = 0;
    class Damaged {
      prepare(): never {
        throw Object.assign(new Error('damaged'), { code: 'SQLITE_NOTADB' });
      }
      close(): void {
        closed += 1;
      }
    }
    const load = (): Promise<unknown> => Promise.resolve({ default: Damaged });
    const opened = openStore('sqlite:///a.db', { load, random: Math.random });
    await expect(opened).rejects.toMatchObject({ code: 'corrupt-data' });
    expect(closed).toBe(1);
  });
});
