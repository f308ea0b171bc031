/**
 * A tiny ONNX decoder step with K and V as plain tensors in and out, as exported models have them.
 *
 * Each layer appends the token's rows to `past_key.N` and `past_value.N`, gives the result as
 * `present_key.N` and `present_value.N`, and attends over it; what it attended to is added to the
 * token and goes on to the next layer. There are no weights: what is shown is memory, and without
 * weights the result can be computed by hand.
 */
import { requireRuntime } from './runtimes.js';

/** Shape of the step. */
export interface DecoderShape {
  readonly layers: number;
  readonly heads: number;
  readonly headDim: number;
}

/** The part of onnx.proto3 that is written here. */
const SCHEMA = `
syntax = "proto3";
message Attribute { string name = 1; int64 i = 3; int32 type = 20; }
message Node {
  repeated string input = 1; repeated string output = 2; string op_type = 4;
  repeated Attribute attribute = 5; string domain = 7;
}
message Tensor {
  repeated int64 dims = 1; int32 data_type = 2; string name = 8; bytes raw_data = 9;
}
message Dim { oneof value { int64 dim_value = 1; string dim_param = 2; } }
message Shape { repeated Dim dim = 1; }
message TensorType { int32 elem_type = 1; Shape shape = 2; }
message Type { TensorType tensor_type = 1; }
message Value { string name = 1; Type type = 2; }
message Graph {
  repeated Node node = 1; string name = 2; repeated Tensor initializer = 5;
  repeated Value input = 11; repeated Value output = 12;
}
message Opset { string domain = 1; int64 version = 2; }
message Model { int64 ir_version = 1; Graph graph = 7; repeated Opset opset_import = 8; }
`;

/** The part of protobufjs that is used. */
interface Protobuf {
  parse(
    schema: string,
    options: { readonly keepCase: true },
  ): {
    readonly root: {
      lookupType(name: string): {
        fromObject(value: object): object;
        encode(message: object): { finish(): Uint8Array };
      };
    };
  };
}

const FLOAT = 1;
const INT64 = 7;

function value(name: string, dims: readonly (number | string)[]): object {
  const dim = dims.map((extent) =>
    typeof extent === 'number' ? { dim_value: extent } : { dim_param: extent },
  );
  return { name, type: { tensor_type: { elem_type: FLOAT, shape: { dim } } } };
}

function node(op_type: string, input: string[], output: string[], extra: object = {}): object {
  return { op_type, input, output, ...extra };
}

/** The integer attributes of a node. */
function integers(attributes: Readonly<Record<string, number>>): object[] {
  return Object.entries(attributes).map(([name, i]) => ({ name, i, type: 2 }));
}

/**
 * `x` and the rows so far to the next `x`: softmax(K x) V, unscaled, each head by itself. Products
 * and sums instead of MatMul, whose many variants take a software driver long to compile.
 */
function decoderLayer(layer: number): object[] {
  const [x, keys, values] = [`x.${layer}`, `present_key.${layer}`, `present_value.${layer}`];
  const named = (name: string): string => `${name}.${layer}`;
  const attribute = (of: Readonly<Record<string, number>>): object => ({ attribute: integers(of) });
  return [
    node('Concat', [named('past_key'), x], [keys], attribute({ axis: 2 })),
    node('Concat', [named('past_value'), x], [values], attribute({ axis: 2 })),
    node('Mul', [x, keys], [named('products')]),
    node(
      'ReduceSum',
      [named('products'), 'elements'],
      [named('logits')],
      attribute({ keepdims: 0 }),
    ),
    node('Softmax', [named('logits')], [named('weights')], attribute({ axis: 2 })),
    node('Unsqueeze', [named('weights'), 'elements'], [named('column')]),
    node('Mul', [named('column'), values], [named('weighted')]),
    node(
      'ReduceSum',
      [named('weighted'), 'tokens'],
      [named('attended')],
      attribute({ keepdims: 1 }),
    ),
    node('Add', [x, named('attended')], [`x.${layer + 1}`]),
  ];
}

/** A constant of one axis. */
function axis(name: string, index: number): object {
  const raw_data = new Uint8Array(BigInt64Array.of(BigInt(index)).buffer);
  return { name, dims: [1], data_type: INT64, raw_data };
}

/** A complete model file: inputs `x.0`, `past_*`; outputs `x.LAYERS`, `present_*`. */
export function decoderModel({ layers, heads, headDim }: DecoderShape): Uint8Array {
  const protobuf = requireRuntime('protobufjs') as Protobuf; // Typed above, for what is used.
  const type = protobuf.parse(SCHEMA, { keepCase: true }).root.lookupType('Model');
  const row = [1, heads, 1, headDim];
  const indices = Array.from({ length: layers }, (_, layer) => layer);
  const kv = (name: string): object[] =>
    indices.flatMap((layer) => [
      value(`${name}_key.${layer}`, [1, heads, name, headDim]),
      value(`${name}_value.${layer}`, [1, heads, name, headDim]),
    ]);
  const graph = {
    name: 'decoder step',
    node: indices.flatMap((layer) => decoderLayer(layer)),
    initializer: [axis('tokens', 2), axis('elements', 3)],
    input: [value('x.0', row), ...kv('past')],
    output: [value(`x.${layers}`, row), ...kv('present')],
  };
  const model = { ir_version: 10, graph, opset_import: [{ domain: '', version: 21 }] };
  return type.encode(type.fromObject(model)).finish();
}
