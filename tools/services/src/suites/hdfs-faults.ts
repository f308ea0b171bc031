/** Killed writers and killed servers (NameNode and DataNode are one process here), on HDFS. */
import { describeFaults } from '../faults.js';

const target = { service: 'hdfs', folder: 'HDFS_UP_DIR', processes: ['pid'] } as const;
describeFaults('WebHDFS', {
  kind: 'webhdfs',
  rounds: [{ ...target, what: 'NameNode and DataNode' }],
});
