import { monotonic, wall } from './timers.js';

/**
 * A reading of both clocks, in milliseconds. mono is CLOCK_MONOTONIC: it goes on while the process is stopped, but not
 * while the machine sleeps. wall goes on then too, but can be set.
 */
export interface Reading {
  mono: number;
  wall: number;
}

/** The clocks of the process. Tests inject others. */
export interface Clock {
  mono(): number;
  wall(): number;
}

export const systemClock: Clock = { mono: monotonic, wall };

/**
 * How far the two clocks may move against each other between two readings before that counts as a pause, in
 * milliseconds.
 *
 * Node has no boot clock. A sleep of the machine shows as a jump of the wall clock against the monotonic one, and so
 * does a wall clock that is set. Neither is told apart: both drop everything. NTP moves both clocks of Linux alike, so
 * their difference stays; elsewhere it moves the wall clock by at most a tenth, and two readings that are compared
 * are seldom further apart than a quarter of the bound.
 *
 * A jump below the tolerance goes unnoticed. So a value is served only until the tolerance before the end of the bound,
 * counted by the clock that has gone further: a sleep that is not noticed is either counted by the wall clock, or was
 * hidden by a wall clock that was set back by nearly as much at the same time, and then by less than the tolerance
 * on top. Only a wall clock that is set back, while the machine sleeps, by exactly the time of the sleep is not seen.
 */
export const tolerance = 20;

const tries = 8;

/** Reads both clocks close together. */
export function read(c: Clock): Reading {
  let mono = c.mono();
  for (let i = 0; ; i++) {
    const wall = c.wall();
    const after = c.mono();
    if (after - mono <= 1 || i === tries) {
      return { mono: after, wall };
    }
    mono = after; // the process did not run in between
  }
}

/** Reports whether a clock has jumped between two readings. */
export function jumped(before: Reading, mono: number, wall: number): boolean {
  const moved = wall - before.wall - (mono - before.mono);
  return moved > tolerance || moved < -tolerance;
}

/** Returns how much time has passed since a reading, by the clock that has gone further. */
export function passed(since: Reading, mono: number, wall: number): number {
  return Math.max(mono - since.mono, wall - since.wall);
}
