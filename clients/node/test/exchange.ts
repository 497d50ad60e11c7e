import * as fs from 'node:fs';
import { inspect, isDeepStrictEqual } from 'node:util';
import { Client } from '../src/index.js';
import { valueOf } from './values.js';

// Writes or reads the keys of clients/conformance/exchange_test.go, which gives the task as JSON.

type Json = Record<string, any>; // eslint-disable-line @typescript-eslint/no-explicit-any

async function main(): Promise<void> {
  const task = JSON.parse(fs.readFileSync(0, 'utf8')) as Json;
  const client = new Client({
    socket: task['socket'] as string, namespace: 'users', timeout: 10_000, connectTimeout: 10_000,
  });
  for (const e of task['entries'] as Json[]) {
    const key = e['key'] as string;
    const want = valueOf(e['value'] as Json);
    if (task['do'] === 'write') {
      await client.set(key, want, { flags: e['flags'] as number });
      continue;
    }
    const [got, item] = [await client.get(key), await client.getItem(key)];
    if (item === undefined || !isDeepStrictEqual(got, want)) {
      throw new Error(`${key}: ${inspect(got)}, want ${inspect(want)}`);
    }
    if ((item.flags & ~0xff) >>> 0 !== e['flags']) {
      throw new Error(`${key}: the flags are ${item.flags}, want ${e['flags']}`);
    }
  }
  await client.close();
}

void main();
