/** The services, what each needs of Debian, and the scripts that start and stop it. */
import type { Service } from './service.js';

/** Name of a service, of its scripts and of its suites. */
export type ServiceName = 'pg' | 'ceph' | 'hdfs' | 'kerberos';

/** All of them, in the order of their start; `kerberos` is HDFS that asks for tickets. */
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
  kerberos: {
    name: 'hdfs',
    programs: ['java', 'mvn', 'krb5kdc', 'kadmin.local', 'kinit', 'curl'],
    packages: [
      ...['openjdk-17-jre-headless', 'maven', 'curl'],
      ...['krb5-kdc', 'krb5-admin-server', 'krb5-user'],
    ],
    environment: { HDFS_UP_KERBEROS: '1' },
    isOnDemand: true,
  },
};
