/**
 * `vramkit store`: blobs of any store by its address, for scripts and for a look.
 *
 * An address may hold a password, so that messages name the store's own name. A file appears under
 * its name when it is whole.
 */
import { createReadStream } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { fail } from '@vramkit/core';
import type { BlobInfo, BlobStore, OwnedBlobStore } from '@vramkit/storage';
import { openStore } from '@vramkit/storage/store-url';
import { UsageError, type Command, type OptionValues, type Terminal } from '../command-line.js';
import { formatBytes } from '../doctor/format.js';
import { createProgress, type Progress } from '../progress.js';
import { checkFolder, inputBytes, outputFile } from './store-paths.js';

/** Imports a driver from the folder that the command was called in. */
export async function loadDriver(name: string): Promise<unknown> {
  const { resolve } = createRequire(join(process.cwd(), 'package.json'));
  return import(pathToFileURL(resolve(name)).href);
}

/** One call: what the verb needs. */
interface Call {
  readonly store: BlobStore;
  readonly args: readonly string[];
  readonly options: OptionValues;
  readonly terminal: Terminal;
  readonly progress: Progress;
  /** Opens the store that a copy goes to. */
  readonly openOther: (address: string) => Promise<BlobStore>;
}

interface Verb {
  /** Arguments after the address. */
  readonly usage: string;
  readonly least: number;
  readonly most: number;
  /** Gives what `--json` prints, or nothing where output is bytes, and the exit code. */
  readonly run: (call: Call) => Promise<{ readonly report?: object; readonly code?: 1 }>;
}

function line({ key, sizeBytes, version }: BlobInfo): string {
  return `${String(sizeBytes).padStart(14)}  ${key}  ${version}\n`;
}

/** Chunks as they pass, with progress. */
async function* counted(
  chunks: AsyncIterable<Uint8Array>,
  { progress, total, name }: { progress: Progress; total: number; name: string },
): AsyncGenerator<Uint8Array, void, undefined> {
  let done = 0;
  for await (const chunk of chunks) {
    yield chunk;
    done += chunk.length;
    progress.part(done, total, `${formatBytes(done)} of ${formatBytes(total)}  ${name}`);
  }
}

async function found({ store }: Call, key: string): Promise<BlobInfo> {
  const info = await store.head(key);
  return info ?? fail('not-found', `${store.name} has no blob '${key}'`, { key });
}

/** Blobs of a key, or of a prefix with `--recursive`. */
async function* chosen(call: Call, key: string): AsyncGenerator<BlobInfo, void, undefined> {
  if (call.options['recursive'] !== true) yield await found(call, key);
  else yield* call.store.list(key);
}

async function list({ store, args: [prefix = ''], options, terminal }: Call) {
  const blobs: BlobInfo[] = [];
  let sizeBytes = 0;
  for await (const blob of store.list(prefix)) {
    sizeBytes += blob.sizeBytes;
    if (options['json'] === true) blobs.push(blob);
    else terminal.out(line(blob));
  }
  return { report: { blobs, sizeBytes } };
}

async function get(call: Call) {
  const { store, args, terminal, progress } = call;
  const [key = '', path] = args;
  const info = await found(call, key);
  const how = { progress, total: info.sizeBytes, name: key };
  const chunks = counted(store.get(key, { version: info.version }), how);
  if (path === undefined) {
    for await (const chunk of chunks) await terminal.bytes(chunk);
    return {};
  }
  const output = await outputFile(path);
  try {
    for await (const chunk of chunks) await output.file.appendFile(chunk);
    await output.commit();
  } finally {
    await output.discard();
  }
  return { report: { blob: info, file: path } };
}

async function put({ store, args, options, terminal, progress }: Call) {
  const [key = '', path] = args;
  const sizeBytes = path === undefined ? undefined : await inputBytes(path);
  const input = path === undefined ? terminal.input : createReadStream(path);
  const body = counted(input, { progress, total: sizeBytes ?? 0, name: key });
  const condition = options['if-absent'] === true ? ('absent' as const) : undefined;
  const blob = await store.put(key, body, { sizeBytes, condition });
  if (options['json'] !== true) terminal.out(line(blob));
  return { report: { blob } };
}

async function head({ store, args: [key = ''], options, terminal }: Call) {
  const blob = await store.head(key);
  if (options['json'] !== true) {
    if (blob === undefined) terminal.err(`vramkit: ${store.name} has no blob '${key}'\n`);
    else terminal.out(line(blob));
  }
  return { report: { blob: blob ?? null }, ...(blob === undefined ? { code: 1 as const } : {}) };
}

async function remove(call: Call) {
  const { store, args, options, terminal } = call;
  const [key = ''] = args;
  const removed: string[] = [];
  const all = options['recursive'] === true;
  const keys: string[] = [];
  if (all) for await (const blob of store.list(key)) keys.push(blob.key);
  else keys.push(key);
  for (const each of keys) {
    await store.delete(each);
    removed.push(each);
    call.progress.part(removed.length, keys.length, each);
  }
  if (options['json'] !== true && all) terminal.out(`${removed.length} blobs removed\n`);
  return { report: { removed } };
}

async function copy(call: Call) {
  const { args, store, options, terminal, progress } = call;
  const [key = '', address = '', target = key] = args;
  const other = await call.openOther(address);
  const copied: BlobInfo[] = [];
  // Listed to its end first: a copy below the same key would be listed, and copied, again.
  const blobs: BlobInfo[] = [];
  for await (const blob of chosen(call, key)) blobs.push(blob);
  for (const { key: from, sizeBytes, version } of blobs) {
    const to = target + from.slice(key.length);
    const body = counted(store.get(from, { version }), { progress, total: sizeBytes, name: from });
    copied.push(await other.put(to, body, { sizeBytes }));
  }
  progress.end();
  if (options['json'] !== true) for (const blob of copied) terminal.out(line(blob));
  return { report: { store: other.name, blobs: copied } };
}

const VERBS: Readonly<Record<string, Verb>> = {
  ls: { usage: '[PREFIX]', least: 0, most: 1, run: list },
  get: { usage: 'KEY [FILE]', least: 1, most: 2, run: get },
  put: { usage: 'KEY [FILE]', least: 1, most: 2, run: put },
  head: { usage: 'KEY', least: 1, most: 1, run: head },
  rm: { usage: 'KEY', least: 1, most: 1, run: remove },
  cp: { usage: 'KEY TO_ADDRESS [TO_KEY]', least: 2, most: 3, run: copy },
};

async function run(
  options: OptionValues,
  terminal: Terminal,
  [name = '', address = '', ...args]: readonly string[],
): Promise<number> {
  const verb = VERBS[name];
  if (verb === undefined || args.length < verb.least || args.length > verb.most) {
    throw new UsageError(`'store ${name}' takes ADDRESS ${verb?.usage ?? ''}.`);
  }
  if (name !== 'put') await checkFolder(address);
  const progress = createProgress(terminal);
  const opened: OwnedBlobStore[] = [];
  const openOne = async (where: string): Promise<BlobStore> => {
    const store = await openStore(where, { load: loadDriver, random: Math.random });
    opened.push(store);
    return store;
  };
  try {
    const store = await openOne(address);
    const call = { store, args, options, terminal, progress, openOther: openOne };
    const { report, code = 0 } = await verb.run(call);
    progress.end();
    if (options['json'] === true && report !== undefined) {
      const whole = { ok: code === 0, store: store.name, ...report };
      terminal.out(`${JSON.stringify(whole, null, 2)}\n`);
    }
    return code;
  } finally {
    progress.end();
    for (const store of opened.reverse()) await store[Symbol.asyncDispose]();
  }
}

const usages = Object.entries(VERBS).map(([name, { usage }]) => `${name} ${usage}`);

/** The command. */
export const store: Command = {
  name: 'store',
  summary: 'list, read, write, remove and copy blobs of a store',
  options: {
    recursive: { type: 'boolean', summary: 'rm, cp: every blob whose key begins with KEY' },
    'if-absent': { type: 'boolean', summary: 'put: fail where the key exists' },
    json: { type: 'boolean', summary: 'print what was done as JSON' },
  },
  arguments: [
    { name: 'VERB', summary: Object.keys(VERBS).join(', '), choices: Object.keys(VERBS) },
    {
      name: 'ADDRESS',
      summary: 'a folder, or file: sqlite: s3: rados: webhdfs: postgres:',
    },
    { name: 'KEY', summary: usages.join(', '), optional: true },
    { name: 'FILE', summary: 'get, put: a file (default: the standard streams)', optional: true },
    { name: 'TO_KEY', summary: 'cp: the key there (default: the same)', optional: true },
  ],
  examples: [
    ['vramkit store ls ./blobs weights/', 'keys that begin with weights/'],
    ['vramkit store put ./blobs a/b model.gguf', 'a file as a blob'],
    ["vramkit store cp ./blobs weights/ 's3://bucket?region=R' --recursive", 'to another store'],
  ],
  run,
};
