/**
 * A strict reader of Chrome traces: what viewers forgive and draw wrong is an error here.
 */
import { fail } from '@vramkit/core';

/** Rounding of microseconds to a thousandth. */
const SLACK = 0.002;

/**
 * Checks a trace as parsed from JSON: fields and their types, times that are finite and not
 * negative, named processes and threads, spans of a thread that nest, counters that rise in time.
 * @throws VramError `corrupt-data` naming the first event that is wrong, by index.
 */
export function checkChromeTrace(trace: unknown): void {
  const { traceEvents, displayTimeUnit } = record(trace, 'the trace');
  if (displayTimeUnit !== 'ms') fail('corrupt-data', 'displayTimeUnit must be ms');
  if (!Array.isArray(traceEvents)) fail('corrupt-data', 'traceEvents must be an array');
  const named = new Set<unknown>();
  const open = new Map<number, { startUs: number; endUs: number }[]>();
  let counterUs = 0;
  traceEvents.forEach((each: unknown, index) => {
    const where = `event ${index}`;
    const event = record(each, where);
    const [ts, pid, tid] = ['ts', 'pid', 'tid'].map((name) => count(event[name], where, name));
    if (typeof event['name'] !== 'string' || event['name'] === '') bad(where, 'has no name');
    if (tid === undefined || ts === undefined || pid === undefined) return;
    switch (event['ph']) {
      case 'M':
        if (typeof record(event['args'], where)['name'] === 'string') named.add(tid);
        break;
      case 'C':
        if (ts + SLACK < counterUs) bad(where, 'goes back in time');
        counterUs = ts;
        for (const [name, value] of Object.entries(record(event['args'], where))) {
          count(value, where, name);
        }
        break;
      case 'X': {
        if (!named.has(tid)) bad(where, `is on thread ${tid}, which has no name`);
        const endUs = ts + count(event['dur'], where, 'dur');
        const stack = open.get(tid) ?? [];
        while (stack.length > 0 && (stack.at(-1)?.endUs ?? 0) <= ts + SLACK) stack.pop();
        const parent = stack.at(-1);
        if (parent !== undefined && endUs > parent.endUs + SLACK) bad(where, 'does not nest');
        stack.push({ startUs: ts, endUs });
        open.set(tid, stack);
        break;
      }
      default:
        bad(where, `has phase ${String(event['ph'])}`);
    }
  });
}

function bad(where: string, what: string): never {
  return fail('corrupt-data', `${where} ${what}`);
}

function record(value: unknown, where: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return bad(where, 'is not an object');
  }
  // An object that is no array is a record of unknown values.
  return value as Record<string, unknown>;
}

function count(value: unknown, where: string, name: string): number {
  if (typeof value !== 'number' || !Number.isFinite(value) || value < 0) {
    return bad(where, `has ${name} ${String(value)}`);
  }
  return value;
}
