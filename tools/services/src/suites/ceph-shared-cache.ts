/** The shared prefix cache with blobs in Ceph, without a gateway. */
import { describeSharedCache } from '../shared-cache-kills.js';

describeSharedCache('rados');
