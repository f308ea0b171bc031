/**
 * Other runtimes' products as peers: the typed end of `tools/peers/src/product-protocol.ts`.
 */
import { fileURLToPath } from 'node:url';
import type {
  ProductCall,
  ProductCalls,
  ProductFormat,
  ProductReply,
} from '../../peers/src/product-protocol.js';
import { LineProcess } from './line-process.js';
import type { Measure } from './measure.js';

/** The runtimes, by the name of their script. */
export type ProductRuntime = 'onnxruntime' | 'tensorflow' | 'ggml';

/** Seconds a request may take: compiling shaders on a software driver takes minutes. */
const usualLimitSeconds = 240;

/** A running process of one runtime. */
export class ProductPeer {
  readonly #process: LineProcess;
  readonly #runtime: ProductRuntime;

  constructor(runtime: ProductRuntime) {
    const script = fileURLToPath(new URL(`../../peers/src/${runtime}.ts`, import.meta.url));
    const tsx = import.meta.resolve('tsx');
    this.#runtime = runtime;
    this.#process = new LineProcess({
      args: ['--conditions=@vramkit/source', '--import', tsx, script],
      // ggml skips drivers that run on the CPU otherwise.
      env: { GGML_VK_VISIBLE_DEVICES: '0' },
    });
  }

  /**
   * Asks for one thing.
   * @throws Error where the runtime fails, dies, or takes longer than `limitSeconds`.
   */
  async ask<Name extends ProductCall>(
    call: Name,
    request: ProductCalls[Name]['request'],
    limitSeconds = usualLimitSeconds,
  ): Promise<ProductCalls[Name]['answer']> {
    // The process answers by the types of product-protocol.ts, which both ends share.
    const reply = (await this.#process.ask({ call, request }, limitSeconds)) as ProductReply;
    if ('error' in reply) throw new Error(`${this.#runtime}, ${call}: ${reply.error}`);
    return reply.answer as ProductCalls[Name]['answer'];
  }

  /** Ends the process. */
  async dispose(): Promise<void> {
    await this.#process.dispose();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }
}

/** A product to measure. */
export interface ProductCase {
  readonly format: ProductFormat;
  readonly rows: number;
  readonly size: number;
}

/** One runtime on one backend. */
export interface ProductSide {
  readonly name: string;
  readonly runtime: ProductRuntime;
  readonly backend: 'cpu' | 'gpu';
}

/** A run should take this long, so that its start and end no longer count. */
const runSeconds = 0.1;

/**
 * Starts a runtime and gives a measure of its GFLOP/s; the caller disposes the peer.
 * @throws Error where the runtime does not run here or takes too long to start.
 */
export async function startProduct(
  side: ProductSide,
  { format, rows, size }: ProductCase,
): Promise<{ readonly peer: ProductPeer; readonly measure: Measure }> {
  const peer = new ProductPeer(side.runtime);
  try {
    // Single rows are chained, so that copies in and out count little.
    const layers = rows === 1 ? 4 : 1;
    await peer.ask('open', { backend: side.backend, format, rows, size, layers });
    const { seconds: once } = await peer.ask('run', { count: 1 });
    const count = Math.min(1000, Math.ceil(runSeconds / once));
    const flops = 2 * rows * size * size * layers * count;
    const measure: Measure = async () => flops / (await peer.ask('run', { count })).seconds / 1e9;
    return { peer, measure };
  } catch (error) {
    await peer.dispose();
    throw error;
  }
}
