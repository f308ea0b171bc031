/** Killed writers and a killed server, on PostgreSQL. */
import { describeFaults } from '../faults.js';

const target = { service: 'pg', folder: 'PG_UP_DIR', processes: ['pid'] } as const;
describeFaults('PostgreSQL', {
  kind: 'pg',
  rounds: ['once', 'twice', 'a third time'].map((when) => ({
    ...target,
    what: `postgres ${when}`,
  })),
});
