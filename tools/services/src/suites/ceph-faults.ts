/** Killed writers and killed servers, on Ceph: through its gateway, and through librados. */
import { CreateBucketCommand } from '@aws-sdk/client-s3';
import { beforeAll } from 'vitest';
import { describeFaults } from '../faults.js';
import { bucket, s3Client } from '../stores.js';

beforeAll(async () => {
  const client = await s3Client();
  await client.send(new CreateBucketCommand({ Bucket: bucket }));
  client.destroy();
});

const target = { service: 'ceph', folder: 'CEPH_UP_DIR' } as const;
describeFaults('S3 on Ceph', {
  kind: 's3',
  rounds: [
    { ...target, what: 'the gateway', processes: ['rgw'] },
    { ...target, what: 'OSD and gateway', processes: ['osd.0', 'rgw'], isLong: true },
    { ...target, what: 'everything', processes: ['rgw', 'osd.0', 'mon'] },
  ],
});

describeFaults('RADOS', {
  kind: 'rados',
  rounds: [
    { ...target, what: 'the OSD', processes: ['osd.0'] },
    { ...target, what: 'OSD and monitor', processes: ['osd.0', 'mon'], isLong: true },
  ],
});
