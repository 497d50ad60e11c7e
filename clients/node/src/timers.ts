import { performance } from 'node:perf_hooks';
import * as timers from 'node:timers';

/**
 * The timers and the clocks as they were when this module was loaded. Tests that replace them meanwhile (jest, sinon)
 * would else leave calls without an end, also after they have put them back.
 */
export const { setTimeout, clearTimeout, setImmediate } = timers;
export const { nextTick } = process;
export const monotonic = performance.now.bind(performance); // ms
export const wall = Date.now; // ms
