/**
 * Fetches a model file from the Hugging Face hub over HTTPS, for machines without pip.
 *
 * The revision is a commit, so the file behind the address does not change. The response is
 * written as it arrives; more bytes than expected end the transfer, and so does half a minute
 * without any.
 */
import { VramError } from '@vramkit/core';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import type { ModelSource } from './source.js';

const STALL_MS = 30_000;

/** A source that asks the hub at `origin`. Default: the public hub. */
export function hubSource(origin = 'https://huggingface.co'): ModelSource {
  return {
    name: 'hub',
    async fetch(model, { staging, onProgress, signal }) {
      const { repository, revision, path } = model.hub;
      const url = new URL(`/${repository}/resolve/${revision}/${path}`, origin);
      const stall = new AbortController();
      const either = signal === undefined ? stall.signal : AbortSignal.any([signal, stall.signal]);
      let timer = setTimeout(() => stall.abort(), STALL_MS);
      const target = join(staging, 'hub.part');
      const file = await open(target, 'w');
      try {
        const response = await fetch(url, { signal: either });
        if (!response.ok || response.body === null) {
          throw new VramError('not-found', `${url.href} answered ${response.status}`, {
            context: { url: url.href, status: response.status },
          });
        }
        const reader = response.body.getReader();
        let doneBytes = 0;
        for (;;) {
          const { done, value: chunk } = await reader.read();
          if (done) break;
          clearTimeout(timer);
          timer = setTimeout(() => stall.abort(), STALL_MS);
          doneBytes += chunk.byteLength;
          if (doneBytes > model.sizeBytes) {
            throw new VramError('corrupt-data', `${url.href} sends more than ${model.sizeBytes} B`);
          }
          await file.writeFile(chunk);
          onProgress(doneBytes, model.sizeBytes, 'download');
        }
        return target;
      } catch (cause) {
        throw failure(url, cause, { signal, stalled: stall.signal.aborted });
      } finally {
        clearTimeout(timer);
        await file.close();
      }
    },
  };
}

function failure(
  url: URL,
  cause: unknown,
  state: { signal: AbortSignal | undefined; stalled: boolean },
): VramError {
  if (state.signal?.aborted === true) {
    return new VramError('aborted', 'the caller aborted the fetch', { cause });
  }
  if (cause instanceof VramError) return cause;
  const what = state.stalled ? `sent nothing for ${STALL_MS / 1000} s` : 'cannot be reached';
  return new VramError('not-found', `${url.href} ${what}`, {
    cause,
    context: { url: url.href },
    retryable: true,
  });
}
