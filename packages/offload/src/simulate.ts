/**
 * Runs a list of operations on a described machine, in simulated time.
 *
 * Discrete events over lanes. Each lane works on its operations in order; on a machine with a
 * single queue, upload, download and gpu take turns, and so do Adam and casts where they share the
 * host's threads; the operation listed first goes first.
 * Operations that run at the same time slow each other where together they want more host memory
 * traffic, or more cores, than there is: each then runs at the share that is left (a fluid model,
 * exact for constant demands). A calibrated machine has two measured factors instead: how the
 * operations of the queue slow each other, and how host and queue do.
 *
 * Host traffic per parameter: Adam reads p, g, m, v and writes p, m, v (28 B); a cast reads 4 and
 * writes 2; what a link moves is read or written once. Write-allocate traffic is not counted.
 *
 * What it gets wrong: demands are constant within an operation, caches do not exist but in measured
 * costs, and without those a lane's rate does not depend on the size of its operations beyond a
 * fixed latency.
 */
import { assertArgument, assertInvariant } from '@vramkit/core';
import { checkMachine, costOf, type Contention, type CostName, type Machine } from './machine.js';
import { LANES, type Lane, type Operation } from './schedule.js';

/** When an operation ran, milliseconds from the start. */
export interface Span {
  readonly startMs: number;
  readonly endMs: number;
}

/** What a simulation found. */
export interface Simulation {
  readonly totalMs: number;
  /** One per operation, in the same order. */
  readonly spans: readonly Span[];
  /** Time in which each lane had an operation under way. */
  readonly busyMs: Readonly<Record<Lane, number>>;
}

/**
 * Time that model work takes, milliseconds per parameter; only operations of an iteration need it.
 */
export interface ModelTimes {
  readonly forwardMsPerParam: number;
  readonly backwardMsPerParam: number;
}

/** Bytes of host memory that one parameter of an operation reads and writes. */
function hostBytes({ kind, lane, params, bytes }: Operation): number {
  if (lane === 'cpu-adam') return 28 * params;
  if (kind === 'cast' || kind === 'upcast') return 6 * params;
  return bytes;
}

function costName({ lane, kind }: Operation, isResident: boolean): CostName | undefined {
  if (kind === 'adam') {
    if (lane !== 'gpu') return 'adam';
    return isResident ? 'residentAdam' : 'gpuAdam';
  }
  if (kind === 'cast' || kind === 'push') return kind;
  if (kind === 'stage-in') return 'stageIn';
  return kind === 'stage-out' ? 'stageOut' : undefined;
}

/** Milliseconds of an operation that has the machine to itself. */
function aloneMs(
  operation: Operation,
  machine: Machine,
  isResident: boolean,
  times: ModelTimes | undefined,
): number {
  const { lane, kind, params, bytes } = operation;
  const name = costName(operation, isResident);
  const curve = name === undefined ? undefined : machine.curves?.[name];
  if (curve !== undefined) return costOf(curve, params);
  const seconds = (): number => {
    if (kind === 'forward') return (params * (times?.forwardMsPerParam ?? 0)) / 1e3;
    if (kind === 'backward') return (params * (times?.backwardMsPerParam ?? 0)) / 1e3;
    if (kind === 'upcast') return params / machine.upcastParamsPerSecond;
    if (kind === 'cast') return params / machine.castParamsPerSecond;
    if (lane === 'upload') return bytes / machine.uploadBytesPerSecond;
    if (lane === 'download') return bytes / machine.downloadBytesPerSecond;
    return (
      params / (lane === 'gpu' ? machine.gpuAdamParamsPerSecond : machine.cpuAdamParamsPerSecond)
    );
  };
  return machine.latencyMs[lane] + seconds() * 1e3;
}

/** Subgroups that are staged in, so that they are not resident. */
function stagedIn(operations: readonly Operation[]): ReadonlySet<number> {
  const staged = operations.filter(({ kind }) => kind === 'stage-in');
  return new Set(staged.map(({ subgroup }) => subgroup));
}

interface Running {
  readonly id: number;
  readonly lane: Lane;
  /** Share of the operation that is left, 1 at its start. */
  left: number;
  /** Shares per millisecond when nothing slows it. */
  readonly speed: number;
  /** Host memory traffic at that speed, bytes per millisecond. */
  readonly traffic: number;
  readonly cores: number;
}

const ON_QUEUE: readonly Lane[] = ['upload', 'download', 'gpu'];
const ON_THREADS: readonly Lane[] = ['cpu-adam', 'cast'];

/** Lanes that take turns on a machine. */
function turns({ queue, hostThreads, contention }: Machine): (readonly Lane[])[] {
  return [
    ...(queue === 'single' && contention === undefined ? [ON_QUEUE] : []),
    ...(hostThreads === 'shared' ? [ON_THREADS] : []),
  ];
}

/**
 * Times `operations` on `machine`. Time O(operations x lanes).
 * @throws VramError `invalid-argument` for a machine that `checkMachine` rejects, or operations
 * that wait for later ones.
 */
export function simulate(
  operations: readonly Operation[],
  machine: Machine,
  times?: ModelTimes,
): Simulation {
  checkMachine(machine);
  const spans = new Array<Span | undefined>(operations.length);
  const starts = new Array<number>(operations.length).fill(0);
  const busyMs = { 'cpu-adam': 0, cast: 0, upload: 0, download: 0, gpu: 0 };
  const queues = LANES.map((lane) => ({
    lane,
    ids: operations.flatMap((operation, id) => (operation.lane === lane ? [id] : [])),
    next: 0,
  }));
  operations.forEach(({ after }, id) => {
    assertArgument(!after.some((each) => each >= id), `operation ${id} waits for a later one`);
  });
  const staged = stagedIn(operations);
  const exclusive = turns(machine);
  const running: Running[] = [];
  let now = 0;
  const startReady = (): void => {
    const ready = queues
      .filter(({ lane }) => !running.some((each) => each.lane === lane))
      .map((queue) => ({ queue, id: queue.ids[queue.next] ?? Infinity }))
      .filter(({ id }) => operations[id]?.after.every((each) => spans[each] !== undefined))
      .sort((a, b) => a.id - b.id);
    for (const { queue, id } of ready) {
      const operation = operations[id];
      if (operation === undefined) continue;
      const isTaken = exclusive.some(
        (lanes) => lanes.includes(queue.lane) && running.some(({ lane }) => lanes.includes(lane)),
      );
      if (isTaken) continue;
      const isResident = !staged.has(operation.subgroup);
      const alone = Math.max(1e-9, aloneMs(operation, machine, isResident, times));
      starts[id] = now;
      queue.next += 1;
      running.push({
        id,
        lane: queue.lane,
        left: 1,
        speed: 1 / alone,
        traffic: hostBytes(operation) / alone,
        cores: machine.cores?.used[queue.lane] ?? 0,
      });
    }
  };
  for (let done = 0; done < operations.length;) {
    startReady();
    assertInvariant(running.length > 0, `nothing can run after ${done} operations`);
    const speeds = actualSpeeds(running, machine);
    const stepMs = Math.min(...running.map(({ left }, at) => left / (speeds[at] ?? 1)));
    now += stepMs;
    running.forEach((each, at) => {
      each.left -= stepMs * (speeds[at] ?? 1);
      busyMs[each.lane] += stepMs;
    });
    for (let at = running.length - 1; at >= 0; at--) {
      const each = running[at];
      if (each === undefined || each.left > 1e-9) continue;
      spans[each.id] = { startMs: starts[each.id] ?? 0, endMs: now };
      running.splice(at, 1);
      done += 1;
    }
  }
  const totalMs = operations.length > 0 ? now + (machine.endMs ?? 0) : 0;
  return { totalMs, spans: spans.filter((span) => span !== undefined), busyMs };
}

function actualSpeeds(running: readonly Running[], machine: Machine): number[] {
  if (machine.contention !== undefined) return byContention(running, machine.contention);
  const wantedCores = running.reduce((sum, { cores }) => sum + cores, 0);
  const coreShare = Math.min(1, (machine.cores?.available ?? Infinity) / Math.max(1, wantedCores));
  const byCores = running.map(({ speed, cores }) => speed * (cores > 0 ? coreShare : 1));
  const traffic = running.reduce(
    (sum, each, at) => sum + (each.traffic * (byCores[at] ?? 0)) / each.speed,
    0,
  );
  const perMs = machine.hostBytesPerSecond / 1e3;
  const share = traffic > perMs ? perMs / traffic : 1;
  return byCores.map((speed, at) => speed * ((running[at]?.traffic ?? 0) > 0 ? share : 1));
}

function byContention(running: readonly Running[], contention: Contention): number[] {
  const onQueue = running.filter(({ lane }) => ON_QUEUE.includes(lane)).length;
  const isShared = onQueue > 0 && onQueue < running.length;
  const own = 1 + (contention.queue - 1) * Math.max(0, onQueue - 1);
  const shared = isShared ? contention.host : 1;
  return running.map(({ speed, lane }) => speed / (shared * (ON_QUEUE.includes(lane) ? own : 1)));
}
