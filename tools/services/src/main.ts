/**
 * Runs the conformance and fault tests of the storage adapters against real services on loopback:
 *
 *     npm run test:services                 every service that this machine can have
 *     npm run test:services -- pg ceph      some of them; 'local' is what needs no service
 *     npm run test:services -- pg -t killed vitest's own options come after the names
 *
 * Each service is installed where it is missing (as root on Debian 12, from Debian and Maven),
 * started in a folder of its own, and stopped whatever comes of the tests. A service that cannot be
 * had is said aloud and left out; `VRAMKIT_REQUIRE_SERVICES=pg,ceph,hdfs` makes that an error.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { missingClients } from './clients.js';
import { install, startService, stopService } from './service.js';
import { SERVICES, type ServiceName } from './service-list.js';

const HELP = `usage: npm run test:services -- [SERVICE...] [options of vitest]

  SERVICE   pg, ceph, hdfs, local (what needs no service); kerberos only where it is named

  npm run test:services -- pg -t killed    one service, tests by name`;

const folder = join(import.meta.dirname, '..');
const words = process.argv.slice(2);
if (words.includes('--help')) {
  console.log(HELP);
  process.exit(0);
}
const firstOption = words.findIndex((word) => word.startsWith('-'));
const asked = firstOption < 0 ? words : words.slice(0, firstOption);
const options = firstOption < 0 ? [] : words.slice(firstOption);
const names = Object.keys(SERVICES) as ServiceName[]; // the keys of the record
const unknown = asked.filter((name) => ![...names, 'local'].includes(name));
if (unknown.length > 0) {
  console.error(`unknown: ${unknown.join(', ')}; services are ${names.join(', ')}, and local`);
  process.exit(2);
}
const chosen = names.filter((name) =>
  asked.length === 0 ? SERVICES[name].isOnDemand !== true : asked.includes(name),
);
if (chosen.includes('kerberos') && chosen.includes('hdfs')) {
  console.error('kerberos is hdfs with tickets: name one of them');
  process.exit(2);
}
const required = (process.env['VRAMKIT_REQUIRE_SERVICES'] ?? '').split(',').filter(Boolean);

if (missingClients(folder).length > 0) {
  console.log(`services: installing ${missingClients(folder).join(', ')} into tools/services`);
  const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';
  const args = ['ci', '--prefix', folder, '--ignore-scripts', '--loglevel=error'];
  const { status } = spawnSync(npm, args, { stdio: 'inherit' });
  if (status !== 0) process.exit(1);
}

const state = mkdtempSync(join(tmpdir(), 'vramkit-services-'));
// PostgreSQL runs as a user of its own, who must get to its folder.
chmodSync(state, 0o755);
const environment: Record<string, string> = {};
const started: ServiceName[] = [];
const left: string[] = [];
let code = 0;

function stopAll(): void {
  for (const name of started.splice(0).reverse()) stopService(SERVICES[name], join(state, name));
  rmSync(state, { recursive: true, force: true });
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    stopAll();
    process.exit(1);
  });
}

try {
  for (const name of chosen) {
    const problem = install(SERVICES[name]);
    if (problem !== undefined) {
      left.push(`${name}: ${problem}`);
      continue;
    }
    started.push(name);
    Object.assign(environment, startService(SERVICES[name], join(state, name)));
  }
  const suites = chosen.filter((name) => started.includes(name)).map((name) => `suites/${name}`);
  if (asked.length === 0 || asked.includes('local')) suites.push('suites/local');
  const vitest = join(folder, '../../node_modules/vitest/vitest.mjs');
  const config = join(folder, 'vitest.config.ts');
  const args = [vitest, 'run', '--root', folder, '--config', config, ...suites, ...options];
  if (suites.length > 0) {
    const env = { ...process.env, ...environment };
    code = spawnSync(process.execPath, args, { stdio: 'inherit', env }).status ?? 1;
  }
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  code = 1;
} finally {
  stopAll();
}
for (const reason of left) console.log(`services: NOT TESTED, ${reason}`);
if (required.some((name) => left.some((reason) => reason.startsWith(`${name}:`)))) code = 1;
process.exit(code);
