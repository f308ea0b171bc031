/** Killed writers and a killed server, on PostgreSQL. */
import { describeFaults } from '../faults.js';

const target = { service: 'pg', folder: 'PG_UP_DIR', processes: ['pid'] } as const;
describeFaults('PostgreSQL', {
  kind: 'pg',
  rounds: [
    { ...target, what: 'postgres' },
    { ...target, what: 'postgres, a second time', isLong: true },
    { ...target, what: 'postgres, by an immediate stop', signal: 'SIGQUIT' },
  ],
});
