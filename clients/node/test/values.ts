type Json = Record<string, any>; // eslint-disable-line @typescript-eslint/no-explicit-any

function msgpackOf(v: unknown): unknown {
  if (Array.isArray(v)) {
    return v.map(msgpackOf);
  }
  if (typeof v !== 'object' || v === null) {
    return v;
  }
  const m = v as Json;
  if (typeof m['$bin'] === 'string') {
    return Buffer.from(m['$bin'], 'hex');
  }
  if (typeof m['$time'] === 'string') {
    return new Date(m['$time']);
  }
  if (typeof m['$int'] === 'string') {
    return integerOf(m['$int']);
  }
  return Object.fromEntries(Object.entries(m).map(([k, e]) => [k, msgpackOf(e)]));
}

export function integerOf(s: string): number | bigint {
  const n = Number(s);
  return Number.isSafeInteger(n) ? n : BigInt(s);
}

/** Returns a value of the manifest. */
export function valueOf(v: Json): unknown {
  if ('of' in v) {
    return (v['of'] as string).repeat(v['count'] as number);
  }
  if ('text' in v) {
    return v['text'];
  }
  if ('bin' in v) {
    return Buffer.from(v['bin'] as string, 'hex');
  }
  return 'int' in v ? integerOf(v['int'] as string) : msgpackOf(v['msgpack']);
}
