/**
 * Which store suits a workload, and why: rules over what a store guarantees, and a ranking of the
 * adapters by them.
 *
 * Mental model: a workload has needs (what must hold, or the store is no choice) and wants (what
 * makes one better than another). {@link judgeStore} holds a store's capabilities against the
 * needs, whichever store it is; {@link recommendStore} ranks the adapters by what is known of the
 * systems behind them: consistency, metadata, fault tolerance. Each verdict comes with its reasons,
 * because a ranking without them cannot be argued with; docs/guides/choosing-a-store.md has the
 * survey.
 *
 * Pure. What it gets wrong: it knows systems, not installations. A slow disk, a far gateway or a
 * full name node is for `vramkit doctor --store` to find.
 */
import { checkInteger } from '@vramkit/core';
import type { StoreCapabilities } from './blob-store.js';

/** What a store is for. */
export type WorkloadKind = 'checkpoint' | 'weights' | 'kv-tier' | 'index';

/** All kinds, in the order in which they are reported. */
export const WORKLOADS: readonly WorkloadKind[] = ['checkpoint', 'weights', 'kv-tier', 'index'];

/** A system that is there already, or can be run. */
export type StoreSystem =
  'local disk' | 'lustre' | 'cephfs' | 'ceph' | 's3' | 'hdfs' | 'cockroachdb' | 'postgresql';

/** A workload; see {@link recommendStore}. */
export interface StoreWorkload {
  readonly kind: WorkloadKind;
  /** Machines that read and write it. */
  readonly machines: number;
  /** Bytes of a usual blob. Default: 1 GiB of a checkpoint or weights, 1 MiB of the KV tier. */
  readonly blobBytes?: number;
  /** Blobs at a time. Default: 100. */
  readonly blobCount?: number;
  /** Systems that can be used. Default: all. */
  readonly systems?: readonly StoreSystem[];
}

/** The adapters, as their factories are called. */
export type AdapterName =
  'posixStore' | 'sqliteStore' | 's3Store' | 'radosStore' | 'webHdfsStore' | 'cockroachStore';

/** An adapter on a system, and what speaks for and against it. */
export interface StoreAdvice {
  readonly adapter: AdapterName;
  readonly system: StoreSystem;
  /** Higher is better; comparable within one call only. */
  readonly score: number;
  readonly reasons: readonly string[];
}

/** Whether a store can carry a workload. */
export interface StoreVerdict {
  readonly workload: WorkloadKind;
  readonly suits: boolean;
  readonly reasons: readonly string[];
}

const MIB = 2 ** 20;
const MANY_BLOBS = 10_000;

/**
 * Holds what a store guarantees against what each workload needs.
 * @param capabilities Of an open store, so that what was probed counts.
 */
export function judgeStore(capabilities: StoreCapabilities): StoreVerdict[] {
  const { durability, createIfAbsent, compareAndSwap, maxBlobBytes } = capabilities;
  const lasting = durability !== 'none';
  const keep = lasting ? [] : ['nothing outlives the process'];
  const small = maxBlobBytes < 2 ** 32 ? [`a blob has at most ${maxBlobBytes} B`] : [];
  const race = createIfAbsent
    ? ['of two savers of one name exactly one wins']
    : ['two savers of one name overwrite each other: no create-if-absent'];
  const verdicts: Record<WorkloadKind, StoreVerdict> = {
    checkpoint: {
      workload: 'checkpoint',
      suits: lasting && maxBlobBytes >= 2 ** 32,
      reasons: [...keep, ...small, ...race],
    },
    weights: {
      workload: 'weights',
      suits: maxBlobBytes >= 2 ** 32,
      reasons: [...small, 'ranges are read in parallel, all of one version'],
    },
    'kv-tier': {
      workload: 'kv-tier',
      suits: true,
      reasons: ['blocks never change, and a lost one is computed again', ...keep],
    },
    index: {
      workload: 'index',
      suits: lasting && compareAndSwap,
      reasons: compareAndSwap
        ? ['compare-and-swap: no update is lost', ...keep]
        : ['no compare-and-swap: two writers lose updates'],
    },
  };
  return WORKLOADS.map((kind) => verdicts[kind]);
}

/** A system as the rules see it. */
interface Trait {
  readonly adapter: AdapterName;
  readonly system: StoreSystem;
  /** Whether several machines see the same blobs. */
  readonly shared: boolean;
  /** Whether bytes go past any one server. */
  readonly parallelData: boolean;
  /** How well it takes many small blobs, from 0 to 2. */
  readonly smallBlobs: 0 | 1 | 2;
  readonly transactions: boolean;
  /** Most bytes that a blob of it should have. */
  readonly sensibleBytes: number;
  readonly consistency: string;
  readonly faults: string;
  readonly metadata: string;
}

const DISK = {
  consistency: 'one kernel decides; a rename is atomic',
  faults: 'the bytes are as safe as this disk',
} as const;
const RAFT = {
  consistency: 'serialisable transactions',
  metadata: 'in the same ranges as the data',
} as const;

const TRAITS: readonly Trait[] = [
  {
    adapter: 'posixStore',
    system: 'local disk',
    ...{ shared: false, parallelData: false, smallBlobs: 1, transactions: false },
    sensibleBytes: Infinity,
    ...DISK,
    metadata: 'a file and a name per blob',
  },
  {
    adapter: 'sqliteStore',
    system: 'local disk',
    ...{ shared: false, parallelData: false, smallBlobs: 2, transactions: true },
    sensibleBytes: 64 * MIB,
    ...DISK,
    metadata: 'one file, a row per blob',
  },
  {
    adapter: 'posixStore',
    system: 'lustre',
    ...{ shared: true, parallelData: true, smallBlobs: 0, transactions: false },
    sensibleBytes: Infinity,
    consistency: 'POSIX through distributed locks',
    faults: 'servers fail over in pairs; copies are the business of the disks below',
    metadata: 'a round trip to a metadata server per file: many small files are slow',
  },
  {
    adapter: 'posixStore',
    system: 'cephfs',
    ...{ shared: true, parallelData: true, smallBlobs: 1, transactions: false },
    sensibleBytes: Infinity,
    consistency: 'POSIX through capabilities that a metadata server hands out',
    faults: 'objects are replicated; a standby metadata server replays the journal',
    metadata: 'a metadata server, in memory and journalled',
  },
  {
    adapter: 'radosStore',
    system: 'ceph',
    ...{ shared: true, parallelData: true, smallBlobs: 2, transactions: false },
    sensibleBytes: Infinity,
    consistency: 'strong per object: the primary copy orders its operations',
    faults: 'replicas recover from their logs; monitors need a majority',
    metadata: 'none to ask: clients compute where an object is; listing reads all names',
  },
  {
    adapter: 's3Store',
    system: 'ceph',
    ...{ shared: true, parallelData: true, smallBlobs: 1, transactions: false },
    sensibleBytes: Infinity,
    consistency: 'strong per object; which conditions are honoured is asked',
    faults: 'as RADOS below; gateways keep no state',
    metadata: 'a bucket index, ordered for listing',
  },
  {
    adapter: 's3Store',
    system: 's3',
    ...{ shared: true, parallelData: true, smallBlobs: 1, transactions: false },
    sensibleBytes: Infinity,
    consistency: 'read after write; which conditions are honoured is asked',
    faults: 'the service replicates',
    metadata: 'the service keeps it; every call is a request over the network',
  },
  {
    adapter: 'webHdfsStore',
    system: 'hdfs',
    ...{ shared: true, parallelData: true, smallBlobs: 0, transactions: false },
    sensibleBytes: Infinity,
    consistency: 'one writer per file; a rename is atomic',
    faults: 'three copies of each block; a standby name node takes over',
    metadata: 'every file is an entry in the memory of one name node: few and large',
  },
  {
    adapter: 'cockroachStore',
    system: 'cockroachdb',
    ...{ shared: true, parallelData: true, smallBlobs: 2, transactions: true },
    sensibleBytes: 64 * MIB,
    ...RAFT,
    faults: 'a majority of each range goes on',
  },
  {
    adapter: 'cockroachStore',
    system: 'postgresql',
    ...{ shared: true, parallelData: false, smallBlobs: 2, transactions: true },
    sensibleBytes: 64 * MIB,
    consistency: RAFT.consistency,
    metadata: 'rows beside the data',
    faults: 'one server; a standby has what was shipped to it',
  },
];

/**
 * Ranks the adapters for a workload, the best first; those that cannot carry it are left out.
 * @throws VramError `invalid-argument` where a number is no count.
 */
export function recommendStore(workload: StoreWorkload): StoreAdvice[] {
  const { kind, systems, blobCount = 100 } = workload;
  const large = kind === 'checkpoint' || kind === 'weights';
  const blobBytes = workload.blobBytes ?? (large ? 2 ** 30 : kind === 'index' ? 256 : MIB);
  checkInteger('machines', workload.machines, 1);
  checkInteger('blobBytes', blobBytes);
  checkInteger('blobCount', blobCount);
  const asked = { ...workload, blobBytes, blobCount };
  return TRAITS.filter(({ system }) => systems?.includes(system) ?? true)
    .filter((trait) => carries(trait, asked))
    .map((trait) => rate(trait, asked))
    .sort((a, b) => b.score - a.score);
}

type Asked = StoreWorkload & { readonly blobBytes: number; readonly blobCount: number };

/** Whether nothing rules an adapter out. */
function carries({ shared, transactions, sensibleBytes }: Trait, asked: Asked): boolean {
  if (asked.machines > 1 && !shared) return false;
  if (asked.kind === 'index' && !transactions) return false;
  return asked.blobBytes <= sensibleBytes;
}

function rate(trait: Trait, { kind, machines, blobBytes, blobCount }: Asked): StoreAdvice {
  const reasons: string[] = [];
  let score = 0;
  const count = (points: number, reason: string): void => {
    score += points;
    reasons.push(reason);
  };
  const isSmall = blobBytes < 4 * MIB;
  if (!isSmall && machines > 1 && trait.parallelData) count(3, 'bytes go past any one server');
  if (!isSmall && trait.transactions) count(-2, 'large blobs are cut into rows');
  if (isSmall || blobCount > MANY_BLOBS) count(2 * trait.smallBlobs, trait.metadata);
  if (machines === 1 && !trait.shared) count(3, 'nothing to run: it is on this machine');
  if (kind === 'index') count(3, 'several keys change at once, and races are decided');
  if (kind !== 'index' && trait.adapter === 'posixStore') {
    count(1, 'other tools read the files as they are');
  }
  if (kind !== 'kv-tier') count(trait.shared ? 1 : 0, trait.faults);
  count(0, trait.consistency);
  return { adapter: trait.adapter, system: trait.system, score, reasons };
}
