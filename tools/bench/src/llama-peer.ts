/**
 * llama.cpp as a peer: the typed end of `tools/peers/src/llama.ts`.
 */
import { fileURLToPath } from 'node:url';
import type {
  LlamaCall,
  LlamaCalls,
  LlamaOpen,
  LlamaOpened,
  LlamaReply,
} from '../../peers/src/protocol.js';
import { LineProcess } from './line-process.js';

/** Seconds a request may take unless the caller says otherwise. */
const usualLimitSeconds = 600;

/** A running llama.cpp with one model. */
export class LlamaPeer {
  readonly #process: LineProcess;
  /** What it says about itself. */
  readonly opened: LlamaOpened;

  /** Use {@link openLlama}. */
  constructor(process: LineProcess, opened: LlamaOpened) {
    this.#process = process;
    this.opened = opened;
  }

  /**
   * Asks for one thing.
   * @throws Error where llama.cpp fails, dies, or takes longer than `limitSeconds`.
   */
  ask<Name extends LlamaCall>(
    call: Name,
    request: LlamaCalls[Name]['request'],
    limitSeconds: number = usualLimitSeconds,
  ): Promise<LlamaCalls[Name]['answer']> {
    return askProcess(this.#process, call, request, limitSeconds);
  }

  /** Ends the process. */
  async dispose(): Promise<void> {
    await this.#process.dispose();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }
}

async function askProcess<Name extends LlamaCall>(
  process: LineProcess,
  call: Name,
  request: LlamaCalls[Name]['request'],
  limitSeconds: number,
): Promise<LlamaCalls[Name]['answer']> {
  // The process answers by the types of protocol.ts, which both ends share.
  const reply = (await process.ask({ call, request }, limitSeconds)) as LlamaReply;
  if ('error' in reply) throw new Error(`llama.cpp, ${call}: ${reply.error}`);
  return reply.answer as LlamaCalls[Name]['answer'];
}

/**
 * Starts llama.cpp and loads a model. The peers must be installed.
 *
 * With the Vulkan backend it uses the driver that this process's environment points the Vulkan
 * loader at; `softwareDriver` lets it take a driver that runs on the CPU, which it skips
 * otherwise.
 * @throws Error where it does not start, load or fit.
 */
export async function openLlama(
  open: LlamaOpen,
  options: { readonly softwareDriver?: boolean } = {},
): Promise<LlamaPeer> {
  const script = fileURLToPath(new URL('../../peers/src/llama.ts', import.meta.url));
  const process = new LineProcess({
    args: ['--import', import.meta.resolve('tsx'), script],
    ...(options.softwareDriver === true ? { env: { GGML_VK_VISIBLE_DEVICES: '0' } } : {}),
  });
  try {
    return new LlamaPeer(process, await askProcess(process, 'open', open, usualLimitSeconds));
  } catch (error) {
    await process.dispose();
    throw error;
  }
}
