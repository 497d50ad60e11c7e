// The numbers of the protocol: see docs/PROTOCOL.md of the project.

/** The versions of the protocol that this client speaks. */
export const versions: readonly number[] = [1];

/** The ops that this client sends. */
export const Op = {
  hello: 1,
  ping: 2,
  get: 3,
  mget: 4,
  set: 5,
  delete: 6,
  touch: 7,
  incr: 8,
  lease: 9,
  fill: 10,
  flush: 11,
  stats: 12,
  members: 13,
  watch: 15,
  leaving: 23,
  hits: 25,
  metaget: 26,
} as const;

/** Statuses; from 16 on a status is an error. */
export const Status = {
  ok: 0,
  miss: 1,
  lease: 2,
  stale: 3,
  exists: 4,
  notStored: 5,
  firstError: 16,
  timeout: 21,
  busy: 22,
} as const;

/** The bits of a request's options. */
export const Bit = {
  fresh: 1,
  noLoad: 2,
  staleOk: 4,
  ackAll: 8,
  soft: 16,
  cluster: 32,
  all: 64,
  attest: 128,
  abandon: 256,
  create: 1 << 14,
  unsigned: 1 << 15,
  down: 1 << 16,
  touch: 1 << 18,
  cacheOnly: 1 << 22,
  quiet: 1 << 23,
} as const;

/** The conditions of SET. */
export const Mode = { set: 0, add: 1, replace: 2, swap: 3, append: 4, prepend: 5 } as const;

/** Why there is no value. */
export const Why = { notCached: 0, absent: 1, degraded: 2 } as const;

export const limits = {
  key: 1024, // bytes
  keys: 1024, // of one MGET or DELETE
  hits: 2 ** 30, // of one kind in one report
  ttl: 365 * 24 * 3600 * 1000, // ms
  timeout: 3600 * 1000, // ms
  answer: 32 << 20, // bytes: above an answer to MGET, or the largest value
} as const;

const opNames = new Map<number, string>(Object.entries(Op).map(([name, op]) => [op, name]));

export const opName = (op: number): string => opNames.get(op) ?? `op ${op}`;
