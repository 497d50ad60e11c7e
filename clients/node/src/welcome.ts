import { Malformed, type Reader } from './reader.js';

/** What the sidecar has sent about itself. */
export interface Welcome {
  /** The version of the protocol that the sidecar has chosen. */
  version: number;
  node: string;
  server: string;
  features: string[];
  epoch: bigint;
  hash: { name: string; seed: bigint; partitions: number };
  limits: { value: number };
}

export type Fields = Record<string, unknown>;

/** Returns a map's field as a number below 2^53; 0 if it is missing. */
export function numberOf(m: Fields, name: string): number {
  const n = m[name] ?? 0;
  if (typeof n !== 'number' && typeof n !== 'bigint') {
    throw new Malformed(`the sidecar's answer is malformed: ${name} is no number`);
  }
  return Number(n);
}

export function bigOf(m: Fields, name: string): bigint {
  numberOf(m, name);
  return BigInt((m[name] ?? 0) as number);
}

/** Reads a map. */
export function mapOf(v: unknown): Fields {
  if (typeof v !== 'object' || v === null || Array.isArray(v)) {
    throw new Malformed('the sidecar\'s answer is malformed: a map is missing');
  }
  return v as Fields;
}

/** Reads the answer to HELLO. */
export function readWelcome(r: Reader): Welcome {
  const m = mapOf(r.rest());
  const hash = mapOf(m['hash'] ?? {});
  const features = m['features'];
  return {
    version: numberOf(m, 'v') || 1,
    node: String(m['node']),
    server: String(m['server']),
    features: Array.isArray(features) ? features.map(String) : [],
    epoch: bigOf(m, 'epoch'),
    hash: { name: String(hash['name']), seed: bigOf(hash, 'seed'), partitions: numberOf(hash, 'partitions') },
    limits: { value: numberOf(mapOf(m['limits'] ?? {}), 'value') },
  };
}
