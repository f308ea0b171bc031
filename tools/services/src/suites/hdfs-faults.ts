/** Killed writers and killed servers, on HDFS. */
import { describeFaults } from '../faults.js';

const target = { service: 'hdfs', folder: 'HDFS_UP_DIR' } as const;
describeFaults('WebHDFS', {
  kind: 'webhdfs',
  rounds: [
    { ...target, what: 'the NameNode', processes: ['namenode'] },
    { ...target, what: 'the DataNode', processes: ['datanode'] },
    { ...target, what: 'both', processes: ['namenode', 'datanode'], isLong: true },
  ],
  chaosSteps: 50, // files of HDFS take their time
});
