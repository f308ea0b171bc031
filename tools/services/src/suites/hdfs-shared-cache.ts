/** The shared prefix cache with blobs in HDFS. */
import { describeSharedCache } from '../shared-cache-kills.js';

describeSharedCache('webhdfs');
