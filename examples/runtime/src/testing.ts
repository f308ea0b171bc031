/** What tests of other examples need: small models of seeded weights. */
export { writeSeededDense } from './testing/seeded-dense.js';
