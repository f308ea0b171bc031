/** The report of `vramkit doctor`: plain data, as `--json` prints it. */
import type { Advice } from './advice.js';
import type { Measurements } from './measure.js';

/** The machine around the adapter. */
export interface MachineReport {
  readonly platform: string;
  readonly arch: string;
  /** Runtime and its version. */
  readonly runtime: string;
  /** Processor as it names itself. */
  readonly processor: string;
  /** Logical processors. */
  readonly processorCount: number;
  /** Memory of the host, bytes. */
  readonly memoryBytes: number;
}

/** The adapter that a program gets. */
export interface AdapterReport {
  /** Name that the gpu module gives it, else 'gpu' or 'software'. */
  readonly name: string;
  /** Driver as it describes itself. */
  readonly driver: string;
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  /** Whether the processor runs the shaders. */
  readonly software: boolean;
  /** Graphics interface below WebGPU on this platform. */
  readonly backend: string;
  /** What implements WebGPU. */
  readonly implementation: string;
  /** Where it was found: `navigator.gpu`, a gpu module's name, or `npm webgpu`. */
  readonly source: string;
}

/** Report on a working adapter. */
export interface DoctorReport {
  readonly ok: true;
  /** Version of this package. */
  readonly vramkit: string;
  readonly machine: MachineReport;
  readonly adapter: AdapterReport;
  /** Every limit of the adapter, by its WebGPU name. */
  readonly limits: Readonly<Record<string, number>>;
  /** Every feature of the adapter, by its WebGPU name. */
  readonly features: readonly string[];
  readonly measured: Measurements;
}

/** Report on a machine where no adapter works. */
export interface DoctorFailure {
  readonly ok: false;
  /** Version of this package. */
  readonly vramkit: string;
  readonly machine: MachineReport;
  /** What went wrong; `code` is a `VramErrorCode`, or 'unknown'. */
  readonly error: { readonly code: string; readonly message: string };
  /** What to do, in order. */
  readonly advice: readonly Advice[];
}
