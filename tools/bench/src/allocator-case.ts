/** One case of the allocator benchmark, in a process of its own: `NAME BLOCKS UNITS`, JSON out. */
import { measureCase } from './allocator.bench.js';

const [name = '', blockCount, units] = process.argv.slice(2);
console.log(JSON.stringify(await measureCase(name, Number(blockCount), Number(units))));
