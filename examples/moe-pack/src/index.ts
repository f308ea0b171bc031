/** Packing a mixture-of-experts model: units, calibration, allocation, packed file, quality. */
export { calibrate, type Calibration } from './calibrate.js';
export { meanLoss } from './evaluate.js';
export { packWith, type PackedModel } from './pack-with.js';
export { measureErrors, scoreAsError, scoreUnits, toAllocationUnits } from './score-units.js';
export { openMoeModel, type MoeModel } from './moe-model.js';
