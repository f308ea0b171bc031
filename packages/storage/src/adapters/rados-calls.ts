/**
 * The calls of librados that the store uses, over the caller's copy of npm `koffi`.
 *
 * Each call that waits runs on a thread of libuv's pool, of which there are `UV_THREADPOOL_SIZE`
 * (4 by default): that many are in flight at once. What a call reads and writes is held here until
 * it has ended, because native code holds only addresses. Results of a read operation are written
 * when it is run, so they go to buffers, never to koffi's `_Out_` values.
 *
 * The prototypes are those of librados 2 (Ceph 12 and newer); sources: its header and manual.
 */
import { fail, VramError, type VramErrorCode } from '@vramkit/core';

interface KoffiFunction {
  (...values: unknown[]): unknown;
  async(...values: unknown[]): unknown;
}

/** The part of the module `koffi` that the store uses. */
export interface Koffi {
  load(path: string): { func(prototype: string): KoffiFunction };
}

const PROTOTYPES = {
  create:
    'int rados_create2(_Out_ void **cluster, const char *name, const char *user, uint64_t flags)',
  readConfig: 'int rados_conf_read_file(void *cluster, const char *path)',
  configure: 'int rados_conf_set(void *cluster, const char *option, const char *value)',
  connect: 'int rados_connect(void *cluster)',
  shutdown: 'void rados_shutdown(void *cluster)',
  openPool: 'int rados_ioctx_create(void *cluster, const char *pool, _Out_ void **io)',
  setNamespace: 'void rados_ioctx_set_namespace(void *io, const char *name)',
  closePool: 'void rados_ioctx_destroy(void *io)',
  writeFull: 'int rados_write_full(void *io, const char *name, const void *bytes, size_t length)',
  remove: 'int rados_remove(void *io, const char *name)',
  stat: 'int rados_stat(void *io, const char *name, _Out_ uint64_t *size, _Out_ int64_t *time)',
  readOne: 'int rados_read(void *io, const char *name, void *to, size_t length, uint64_t at)',
  beginRead: 'void *rados_create_read_op()',
  addRead:
    'void rados_read_op_read(void *op, uint64_t at, size_t size, void *to, void *got, void *code)',
  read: 'int rados_read_op_operate(void *op, void *io, const char *name, int flags)',
  endRead: 'void rados_release_read_op(void *op)',
  beginWrite: 'void *rados_create_write_op()',
  addCreate: 'void rados_write_op_create(void *op, int exclusive, const char *category)',
  addExists: 'void rados_write_op_assert_exists(void *op)',
  addCompare:
    'void rados_write_op_cmpext(void *op, const void *bytes, size_t size, uint64_t at, void *code)',
  addWriteFull: 'void rados_write_op_write_full(void *op, const void *bytes, size_t length)',
  addAppend: 'void rados_write_op_append(void *op, const void *bytes, size_t length)',
  addRemove: 'void rados_write_op_remove(void *op)',
  write: 'int rados_write_op_operate(void *op, void *io, const char *name, void *time, int flags)',
  endWrite: 'void rados_release_write_op(void *op)',
  openList: 'int rados_nobjects_list_open(void *io, _Out_ void **list)',
  next:
    'int rados_nobjects_list_next(void *list, _Out_ const char **name, _Out_ const char **key, ' +
    '_Out_ const char **space)',
  closeList: 'void rados_nobjects_list_close(void *list)',
} as const;

type CallName = keyof typeof PROTOTYPES;

const ENOENT = -2;
const EEXIST = -17;
/** A comparison that differs at byte i of the extent is this minus i. */
const MAX_ERRNO = -4095;

/** What must hold of an object for a write to happen. */
export type RadosCondition = 'absent' | { readonly begins: Uint8Array } | undefined;

/** Bytes of an object. */
export interface RadosRange {
  readonly offset: number;
  readonly length: number;
  /** Where they go; at least `length` long. Default: new memory. */
  readonly into?: Uint8Array | undefined;
}

/** One namespace of a pool. */
export class RadosPool {
  readonly #cluster: RadosCluster;
  readonly #io: unknown;

  constructor(cluster: RadosCluster, io: unknown) {
    this.#cluster = cluster;
    this.#io = io;
  }

  /**
   * Reads ranges of an object as they are at one moment; those that go over its end are cut.
   * @returns `undefined` where there is no such object.
   */
  async read(name: string, ranges: readonly RadosRange[]): Promise<Uint8Array[] | undefined> {
    const cluster = this.#cluster;
    const parts = ranges.map(({ length, into }) => into ?? Buffer.allocUnsafeSlow(length));
    const counts = Buffer.alloc(16 * ranges.length);
    const op = cluster.now('beginRead');
    try {
      ranges.forEach(({ offset, length }, index) => {
        const got = counts.subarray(16 * index, 16 * index + 8);
        const result = counts.subarray(16 * index + 8, 16 * index + 16);
        cluster.now('addRead', op, offset, length, parts[index], got, result);
      });
      const code = await cluster.wait('read', [op, this.#io, name, 0], [parts, counts]);
      if (code === ENOENT) return undefined;
      cluster.check(`reading '${name}'`, code);
    } finally {
      cluster.now('endRead', op);
    }
    return parts.map(({ buffer, byteOffset }, i) => {
      return new Uint8Array(buffer, byteOffset, Number(counts.readBigUInt64LE(16 * i)));
    });
  }

  /**
   * Fills `into` from byte `at` on, by one call; gives what of it there was.
   * @returns `undefined` where there is no such object.
   */
  async readOne(name: string, at: number, into: Uint8Array): Promise<Uint8Array | undefined> {
    const code = await this.#cluster.wait('readOne', [this.#io, name, into, into.length, at]);
    if (code === ENOENT) return undefined;
    this.#cluster.check(`reading '${name}'`, code);
    return into.subarray(0, code);
  }

  /** Replaces an object by parts in a row; whether the condition held. */
  async write(
    name: string,
    parts: readonly Uint8Array[],
    condition: RadosCondition,
  ): Promise<boolean> {
    return this.#change(name, condition, (op) => {
      this.#cluster.now('addWriteFull', op, parts[0], parts[0]?.length ?? 0);
      for (const part of parts.slice(1)) this.#cluster.now('addAppend', op, part, part.length);
    });
  }

  /** Removes an object under a condition; whether it held. */
  removeIf(name: string, condition: RadosCondition): Promise<boolean> {
    return this.#change(name, condition, (op) => void this.#cluster.now('addRemove', op));
  }

  async #change(
    name: string,
    condition: RadosCondition,
    add: (op: unknown) => void,
  ): Promise<boolean> {
    const cluster = this.#cluster;
    const op = cluster.now('beginWrite');
    try {
      if (condition === 'absent') cluster.now('addCreate', op, 1, null);
      else if (condition !== undefined) {
        const { begins } = condition;
        cluster.now('addExists', op);
        cluster.now('addCompare', op, begins, begins.length, 0, null);
      }
      add(op);
      const code = await cluster.wait('write', [op, this.#io, name, null, 0]);
      if (condition !== undefined && (code === ENOENT || code === EEXIST || code <= MAX_ERRNO)) {
        return false;
      }
      cluster.check(`writing '${name}'`, code);
      return true;
    } finally {
      cluster.now('endWrite', op);
    }
  }

  /** Replaces an object whatever it is. */
  async writeFull(name: string, bytes: Uint8Array): Promise<void> {
    const code = await this.#cluster.wait('writeFull', [this.#io, name, bytes, bytes.length]);
    this.#cluster.check(`writing '${name}'`, code);
  }

  /** Removes an object; a missing one is no error. */
  async remove(name: string): Promise<void> {
    const code = await this.#cluster.wait('remove', [this.#io, name]);
    if (code !== ENOENT) this.#cluster.check(`removing '${name}'`, code);
  }

  /** When an object was written, in seconds by its OSD; `undefined` where there is none. */
  async writtenAt(name: string): Promise<number | undefined> {
    const time = [0];
    const code = await this.#cluster.wait('stat', [this.#io, name, [0], time]);
    if (code === ENOENT) return undefined;
    this.#cluster.check(`looking at '${name}'`, code);
    return Number(time[0]);
  }

  /** Names of all objects of the namespace, in no order. Reads every name of the pool. */
  async *names(): AsyncGenerator<string, void, undefined> {
    const cluster = this.#cluster;
    const list: unknown[] = [null];
    cluster.check('listing', await cluster.wait('openList', [this.#io, list]));
    cluster.openLists.add(list[0]);
    try {
      for (;;) {
        const name: unknown[] = [null];
        const code = await cluster.wait('next', [list[0], name, [null], [null]]);
        if (code === ENOENT) return;
        cluster.check('listing', code);
        yield String(name[0]);
      }
    } finally {
      cluster.closeList(list[0]);
    }
  }

  close(): void {
    this.#cluster.now('closePool', this.#io);
  }
}

/** A connection to a cluster. */
export class RadosCluster {
  readonly name: string;
  /** Lists that are being read: native memory of this connection. */
  readonly openLists = new Set<unknown>();
  readonly #functions: Readonly<Record<CallName, KoffiFunction>>;
  /** Calls under way, each with what it reads and writes. */
  readonly #held = new Map<unknown, Promise<number>>();
  #handle: unknown;
  #isClosed = false;

  /** @throws VramError `not-found` where the library is missing or older than Ceph 12. */
  constructor(koffi: Koffi, library: string, name: string) {
    this.name = name;
    try {
      const loaded = koffi.load(library);
      const entries = Object.entries(PROTOTYPES).map(
        ([call, prototype]) => [call, loaded.func(prototype)] as const,
      );
      // Object.entries forgets the names; every one of the record is there.
      this.#functions = Object.fromEntries(entries) as Record<CallName, KoffiFunction>;
    } catch (cause) {
      throw new VramError('not-found', `librados (${library}) cannot be loaded; install it`, {
        context: { library },
        cause,
      });
    }
  }

  /** Connects as `client.<user>`, with settings over those of the file. */
  async connect(
    user: string,
    configFile: string,
    settings: Readonly<Record<string, string>>,
  ): Promise<void> {
    const handle: unknown[] = [null];
    this.check('opening it', Number(this.now('create', handle, 'ceph', `client.${user}`, 0)));
    [this.#handle] = handle;
    this.check(
      'reading the configuration',
      Number(this.now('readConfig', this.#handle, configFile)),
    );
    for (const [option, value] of Object.entries(settings)) {
      this.check(option, Number(this.now('configure', this.#handle, option, value)));
    }
    this.check('connecting', await this.wait('connect', [this.#handle]));
  }

  /** A namespace of a pool. @throws VramError `not-found` for a missing pool. */
  pool(pool: string, namespace: string): RadosPool {
    const io: unknown[] = [null];
    this.check(`opening pool '${pool}'`, Number(this.now('openPool', this.#handle, pool, io)));
    this.now('setNamespace', io[0], namespace);
    return new RadosPool(this, io[0]);
  }

  /** Lets no call begin from now on, and waits for those that are under way. */
  async drain(): Promise<void> {
    this.#isClosed = true;
    await Promise.allSettled(this.#held.values());
    for (const list of this.openLists) this.closeList(list);
  }

  /** Gives a list back, once. */
  closeList(list: unknown): void {
    if (this.openLists.delete(list)) this.now('closeList', list);
  }

  /** Ends the connection; pools must have been closed. */
  close(): void {
    if (this.#handle !== undefined) this.now('shutdown', this.#handle);
    this.#handle = undefined;
  }

  /** A call that does not wait. */
  now(call: CallName, ...values: unknown[]): unknown {
    return this.#functions[call](...values);
  }

  /** A call on another thread; `kept` stays where it is until it has ended. */
  async wait(call: CallName, values: readonly unknown[], kept?: unknown): Promise<number> {
    // Native code would use what was given back.
    if (this.#isClosed) fail('disposed', `${this.name} was disposed`, { store: this.name });
    const inUse = { values, kept };
    const running = new Promise<number>((resolve, reject) => {
      const end = (error: unknown, result: unknown): void => {
        if (error instanceof Error) reject(error);
        else resolve(Number(result));
      };
      this.#functions[call].async(...values, end);
    });
    this.#held.set(inUse, running);
    try {
      return await running;
    } finally {
      this.#held.delete(inUse);
    }
  }

  /** @throws VramError where a call answered with an error number. */
  check(doing: string, code: number): void {
    if (code >= 0) return;
    const errorCode = BY_ERRNO[-code] ?? 'unavailable';
    throw new VramError(errorCode, `${this.name}, ${doing}: error ${-code} of librados`, {
      context: { store: this.name, errno: -code },
      retryable: errorCode === 'unavailable' || errorCode === 'timeout',
    });
  }
}

const BY_ERRNO: Readonly<Record<number, VramErrorCode>> = {
  1: 'access-denied',
  2: 'not-found',
  13: 'access-denied',
  22: 'invalid-argument',
  28: 'storage-full',
  110: 'timeout',
  122: 'storage-full',
};
