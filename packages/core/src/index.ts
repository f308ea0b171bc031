export * from './assert.js';
export * from './dtype.js';
export * from './errors.js';
