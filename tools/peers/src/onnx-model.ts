/**
 * Writes the few parts of an ONNX model that a chain of products needs, in the encoding of protocol
 * buffers: pure.
 *
 * Field numbers are those of onnx.proto3. A field is a key (number * 8 + wire type) and its value:
 * a varint (type 0), or bytes with their length before them (type 2). Numbers here are below 2^53.
 */

/** ONNX's numbers of element types. */
export const ELEMENT_TYPES = { f32: 1, u8: 2 } as const;

/** A constant tensor. */
export interface OnnxTensor {
  readonly name: string;
  readonly type: keyof typeof ELEMENT_TYPES;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** A node; attributes are integers. */
export interface OnnxNode {
  readonly operator: string;
  /** Empty for the standard operators. */
  readonly domain: string;
  readonly inputs: readonly string[];
  readonly output: string;
  readonly attributes: Readonly<Record<string, number>>;
}

/** A graph with one input and one output, both f32. */
export interface OnnxGraph {
  readonly nodes: readonly OnnxNode[];
  readonly constants: readonly OnnxTensor[];
  readonly input: { readonly name: string; readonly shape: readonly number[] };
  readonly output: { readonly name: string; readonly shape: readonly number[] };
}

function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  return Uint8Array.of(...bytes, rest);
}

function number(field: number, value: number): Uint8Array {
  return Buffer.concat([varint(field * 8), varint(value)]);
}

function bytes(field: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  return Buffer.concat([varint(field * 8 + 2), varint(length), ...parts]);
}

function text(field: number, value: string): Uint8Array {
  return bytes(field, Buffer.from(value));
}

function tensor({ name, type, shape, bytes: data }: OnnxTensor): Uint8Array {
  const dims = shape.map((extent) => number(1, extent));
  return bytes(5, ...dims, number(2, ELEMENT_TYPES[type]), text(8, name), bytes(9, data));
}

function node({ operator, domain, inputs, output, attributes }: OnnxNode): Uint8Array {
  const integer = 2;
  return bytes(
    1,
    ...inputs.map((name) => text(1, name)),
    text(2, output),
    text(4, operator),
    ...Object.entries(attributes).map(([name, value]) =>
      bytes(5, text(1, name), number(3, value), number(20, integer)),
    ),
    text(7, domain),
  );
}

function value(field: number, name: string, shape: readonly number[]): Uint8Array {
  const extents = shape.map((extent) => bytes(1, number(1, extent)));
  const type = bytes(1, number(1, ELEMENT_TYPES.f32), bytes(2, ...extents));
  return bytes(field, text(1, name), bytes(2, type));
}

/** A complete model file. */
export function writeOnnxModel(graph: OnnxGraph): Uint8Array {
  const irVersion = 10;
  const opsets = [
    bytes(8, text(1, ''), number(2, 21)),
    bytes(8, text(1, 'com.microsoft'), number(2, 1)),
  ];
  const body = bytes(
    7,
    ...graph.nodes.map(node),
    text(2, 'products'),
    ...graph.constants.map(tensor),
    value(11, graph.input.name, graph.input.shape),
    value(12, graph.output.name, graph.output.shape),
  );
  return Buffer.concat([number(1, irVersion), body, ...opsets]);
}
