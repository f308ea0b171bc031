/** The services, what each needs of Debian, and the scripts that start and stop it. */
import type { Service } from './service.js';

/** Name of a service, of its scripts and of its suites. */
export type ServiceName = 'pg' | 'ceph' | 'hdfs';

/** All of them, in the order in which they are started. */
export const SERVICES: Readonly<Record<ServiceName, Service>> = {
  pg: { name: 'pg', programs: ['pg_config'], packages: ['postgresql'], environment: {} },
  ceph: {
    name: 'ceph',
    programs: ['ceph-mon', 'ceph-osd', 'ceph-mds', 'ceph-fuse', 'radosgw', 'rados'],
    packages: ['ceph-mon', 'ceph-osd', 'ceph-mds', 'ceph-fuse', 'radosgw', 'ceph-common'],
    environment: { CEPH_UP_FS: '1' },
  },
  hdfs: {
    name: 'hdfs',
    programs: ['java', 'mvn'],
    packages: ['openjdk-17-jre-headless', 'maven'],
    environment: {},
  },
};
