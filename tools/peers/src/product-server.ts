/**
 * The loop of a process that answers `product-protocol.ts` on standard input and output.
 */
import { createInterface } from 'node:readline';
import type {
  ProductCall,
  ProductCalls,
  ProductReply,
  ProductRequest,
} from './product-protocol.js';

/** What a runtime can do; what it leaves out is refused by name. */
export type ProductHandlers = {
  readonly [Name in ProductCall]?: (
    request: ProductCalls[Name]['request'],
  ) => Promise<ProductCalls[Name]['answer']>;
};

async function answer(handlers: ProductHandlers, line: ProductRequest): Promise<unknown> {
  // The name of the call fixes the type of its request, which TypeScript does not follow here.
  const handler = handlers[line.call] as ((request: unknown) => Promise<unknown>) | undefined;
  if (handler === undefined) throw new Error(`this runtime has no ${line.call}`);
  return handler(line.request);
}

/** Answers line by line until the input ends, then ends the process. */
export async function serveProducts(handlers: ProductHandlers): Promise<void> {
  for await (const text of createInterface({ input: process.stdin })) {
    let reply: ProductReply;
    try {
      // Only this workspace writes these lines, by the types of product-protocol.ts.
      reply = { answer: await answer(handlers, JSON.parse(text) as ProductRequest) };
    } catch (error) {
      reply = { error: error instanceof Error ? error.message : String(error) };
    }
    process.stdout.write(`${JSON.stringify(reply)}\n`);
  }
  // Threads of a runtime would keep the process alive.
  process.exit(0);
}

/** Seconds of `count` runs of `once`. */
export async function timeRuns(count: number, once: () => Promise<void>): Promise<number> {
  const start = performance.now();
  for (let run = 0; run < count; run += 1) await once();
  return (performance.now() - start) / 1000;
}
