/** Faults of a service and of its clients: killed writers, killed servers. */
import { describe, expect, it } from 'vitest';
import { isVramError } from '@vramkit/core';
import { retriedStore } from '@vramkit/storage';
import { chaosWalk } from './chaos-walk.js';
import {
  checkpointsOf,
  saveSteps,
  stepName,
  stepTensors,
  verifyLatest,
} from './checkpoint-steps.js';
import { isLongRun, killCount, killWriters } from './kill-writers.js';
import { killService, restartService, type KillTarget } from './kill-service.js';
import { killAtEachStep, moments } from './put-steps.js';
import { openStore, type StoreKind } from './stores.js';

/** Options of {@link describeFaults}. */
export interface FaultOptions {
  readonly kind: StoreKind;
  /** What is killed, one round each. */
  readonly rounds: readonly KillTarget[];
  /** Operations of the walk with faults. Default: 250. */
  readonly chaosSteps?: number;
}

/** Registers the fault tests of a service. */
export function describeFaults(name: string, options: FaultOptions): void {
  const { kind, chaosSteps } = options;
  const rounds = options.rounds.filter(({ isLong = false }) => isLongRun || !isLong);
  describe(name, () => {
    it(`has a whole checkpoint after each of ${killCount} killed writers`, async () => {
      const report = await killWriters(kind, `kills-${process.pid}`, killCount);
      console.log(`${name}: ${JSON.stringify(report)}`);
      expect(report).toMatchObject({ kills: killCount, wrong: [] });
    }, 2_400_000);

    it.each([true, false])(
      'outlives a fault in every tenth call, retried: %s',
      async (isRetried) => {
        const { store, close } = await openStore(kind, `chaos-${process.pid}`);
        const prefix = `chaos-${process.pid}/`;
        const report = await chaosWalk(store, prefix, isRetried, chaosSteps);
        await close();
        expect(report.wrong).toEqual([]);
        expect(report.failed > 0).toBe(!isRetried);
      },
    );

    for (const moment of moments) {
      it(`has the old bytes or the new ones, killed ${moment} any step of a put`, async () => {
        const report = await killAtEachStep(kind, `steps-${moment}-${process.pid}`, moment);
        console.log(`${name}, ${moment}: ${JSON.stringify(report)}`);
        expect(report.wrong).toEqual([]);
        expect(report.steps).toBeGreaterThan(2);
      }, 600_000);
    }

    for (const [round, target] of rounds.entries()) {
      it(`has a whole checkpoint after its servers were killed: ${target.what}`, async () => {
        const place = `servers-${process.pid}`;
        let open = await openStore(kind, place);
        const prefix = `servers-${process.pid}/`;
        const before = await verifyLatest(checkpointsOf(open.store, prefix));
        const saving = saveSteps(checkpointsOf(open.store, prefix), before + 1).catch(
          (error: unknown) => error,
        );
        // In the middle of the save after one that is complete.
        const newest = async () => (await checkpointsOf(open.store, prefix).list()).at(-1) ?? '';
        while ((await newest()) < stepName(before + 1)) {
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
        await new Promise((resolve) => setTimeout(resolve, 30 + 40 * round));
        await killService(target);
        const error = await saving;
        await open.close();
        restartService(target);
        expect(isVramError(error) && error.retryable, String(error)).toBe(true);
        open = await openStore(kind, place);
        // A server that is back may break the first calls: its peers hold dead connections.
        const retried = retriedStore(open.store, { random: Math.random });
        const checkpoints = checkpointsOf(retried, prefix);
        const after = await verifyLatest(checkpoints);
        expect(after).toBeGreaterThan(before);
        console.log(`${name}, ${target.what} killed: step ${before}, then ${after}`);
        // And it goes on.
        const next = stepTensors(after + 1);
        await checkpoints.save(stepName(after + 1), next, { metadata: { step: after + 1 } });
        expect(await verifyLatest(checkpoints)).toBe(after + 1);
        await open.close();
      }, 300_000);
    }
  });
}
