/**
 * ggml, the tensor library of llama.cpp, as a peer of products and of quantizers: `node --import
 * tsx tools/peers/src/ggml.ts`, lines as in `product-protocol.ts`.
 *
 * The library is the one that node-llama-cpp carries, called straight through its C interface, so
 * that a product is measured and not a model. `gpu` is its Vulkan backend, which takes the driver
 * that the environment names; `cpu` runs in one thread. 4 bits are its type q4_0.
 */
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import koffi from 'koffi';
import {
  chainActivations,
  chainWeights,
  type ProductOpen,
  type QuantizeRequest,
} from './product-protocol.js';
import { serveProducts, timeRuns } from './product-server.js';

/** Numbers of ggml's types. */
const TYPES: Readonly<Record<string, number>> = {
  f32: 0,
  q4_0: 2,
  q4_1: 3,
  q5_0: 6,
  q5_1: 7,
  q8_0: 8,
  q2_K: 10,
  q3_K: 11,
  q4_K: 12,
  q5_K: 13,
  q6_K: 14,
};

/** Kinds of device in `ggml_backend_dev_type`. */
const DEVICES = { cpu: 0, gpu: 1 } as const;

/** Address of something that ggml owns. */
type Pointer = unknown;

/** The package of node-llama-cpp's binaries for this machine, with the Vulkan ones. */
function binaryFolder(): string {
  const require = createRequire(import.meta.url);
  const main = dirname(dirname(require.resolve('node-llama-cpp')));
  const name = `${process.platform}-${process.arch}-vulkan`;
  return join(main, '..', '@node-llama-cpp', name, 'bins', name);
}

function openLibrary() {
  const folder = binaryFolder();
  const named = (start: string): string =>
    join(folder, readdirSync(folder).find((file) => file.startsWith(start)) ?? start);
  const base = koffi.load(named('libggml-base.'));
  const all = koffi.load(named('libggml.'));
  koffi.struct('InitParams', { size: 'size_t', buffer: 'void *', noAlloc: 'bool' });
  const loadAll = all.func('void ggml_backend_load_all_from_path(const char *folder)');
  loadAll(folder);
  return {
    deviceByType: all.func('void *ggml_backend_dev_by_type(int type)'),
    description: base.func('const char *ggml_backend_dev_description(void *device)'),
    startDevice: base.func('void *ggml_backend_dev_init(void *device, const char *params)'),
    init: base.func('void *ggml_init(InitParams params)'),
    tensor: base.func('void *ggml_new_tensor_2d(void *context, int type, int64 a, int64 b)'),
    multiply: base.func('void *ggml_mul_mat(void *context, void *weights, void *x)'),
    graph: base.func('void *ggml_new_graph(void *context)'),
    expand: base.func('void ggml_build_forward_expand(void *graph, void *result)'),
    allocate: base.func('void *ggml_backend_alloc_ctx_tensors(void *context, void *backend)'),
    set: base.func('void ggml_backend_tensor_set(void *t, const void *data, size_t at, size_t n)'),
    get: base.func('void ggml_backend_tensor_get(void *t, void *data, size_t at, size_t n)'),
    compute: base.func('int ggml_backend_graph_compute(void *backend, void *graph)'),
    registryOf: base.func('void *ggml_backend_dev_backend_reg(void *device)'),
    procAddress: base.func('void *ggml_backend_reg_get_proc_address(void *reg, const char *name)'),
    rowSize: base.func('size_t ggml_row_size(int type, int64 columns)'),
    quantize: base.func(
      'size_t ggml_quantize_chunk(int type, const void *source, void *target, ' +
        'int64 start, int64 rows, int64 columns, const void *importance)',
    ),
    dequantizer: (type: string) =>
      base.func(`void dequantize_row_${type}(const void *source, void *target, int64 count)`),
  };
}

const ggml = openLibrary();
const setThreads = koffi.proto('void SetThreads(void *backend, int count)');

function quantizeRows(
  type: string,
  values: Float32Array,
  rows: number,
  columns: number,
): Uint8Array {
  const number = TYPES[type];
  if (number === undefined) throw new Error(`no type ${type} here`);
  const stored = new Uint8Array(rows * Number(ggml.rowSize(number, columns)));
  ggml.quantize(number, values, stored, 0, rows, columns, null);
  return stored;
}

function startBackend(kind: 'cpu' | 'gpu'): { backend: Pointer; name: string } {
  const device: Pointer = ggml.deviceByType(DEVICES[kind]);
  if (device === null) throw new Error(`ggml finds no ${kind}`);
  const backend: Pointer = ggml.startDevice(device, null);
  if (backend === null) throw new Error(`ggml does not start the ${kind}`);
  if (kind === 'cpu') {
    const address: Pointer = ggml.procAddress(
      ggml.registryOf(device),
      'ggml_backend_set_n_threads',
    );
    // koffi knows the function by the type that is named here.
    (koffi.decode(address, setThreads) as (backend: Pointer, count: number) => void)(backend, 1);
  }
  return { backend, name: String(ggml.description(device)) };
}

let chain: (() => Promise<void>) | undefined;

async function open({ backend: kind, format, rows, size, layers }: ProductOpen): Promise<string> {
  const { backend, name } = startBackend(kind);
  const context: Pointer = ggml.init({ size: 1 << 20, buffer: null, noAlloc: true });
  const type = format === 'f32' ? 'f32' : 'q4_0';
  const weights: Pointer = ggml.tensor(context, TYPES[type] ?? 0, size, size);
  const x: Pointer = ggml.tensor(context, 0, size, rows);
  let y: Pointer = x;
  for (let layer = 0; layer < layers; layer += 1) y = ggml.multiply(context, weights, y);
  const graph: Pointer = ggml.graph(context);
  ggml.expand(graph, y);
  if (ggml.allocate(context, backend) === null) throw new Error('ggml has no memory');
  const dense = chainWeights(size);
  const stored =
    type === 'f32' ? new Uint8Array(dense.buffer) : quantizeRows(type, dense, size, size);
  ggml.set(weights, stored, 0, stored.byteLength);
  const activations = chainActivations(rows, size);
  const result = new Float32Array(rows * size);
  chain = async () => {
    ggml.set(x, activations, 0, activations.byteLength);
    const status = Number(ggml.compute(backend, graph));
    if (status !== 0) throw new Error(`ggml ends with ${status}`);
    ggml.get(y, result, 0, result.byteLength);
    if (!Number.isFinite(result[0])) throw new Error('the result is not finite');
  };
  await chain();
  return `ggml of node-llama-cpp, ${name}`;
}

function quantizeFile(request: QuantizeRequest): number {
  const { type, rows, columns, input, output, blocks } = request;
  const bytes = Uint8Array.from(readFileSync(input));
  const stored = quantizeRows(type, new Float32Array(bytes.buffer), rows, columns);
  const values = new Float32Array(rows * columns);
  ggml.dequantizer(type)(stored, values, values.length);
  writeFileSync(output, new Uint8Array(values.buffer));
  if (blocks !== undefined) writeFileSync(blocks, stored);
  return stored.byteLength;
}

await serveProducts({
  open: async (request) => ({ version: await open(request) }),
  run: async ({ count }) => {
    if (chain === undefined) throw new Error('run came before open');
    return { seconds: await timeRuns(count, chain) };
  },
  quantize: async (request) => ({ sizeBytes: quantizeFile(request) }),
});
