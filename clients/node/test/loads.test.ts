import assert from 'node:assert/strict';
import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks';
import { test, type TestContext } from 'node:test';
import { Client, type ClientOptions } from '../src/index.js';
import { hit, type Request, Server, until } from './server.js';

// getOrSet: who asks, who loads, and what becomes of the tokens.

interface Scene {
  server: Server;
  client: Client;
  leases: Request[];
  fills: Request[];
}

async function start(t: TestContext, o: ClientOptions = {}, filled: [number, unknown] = [0, 5]): Promise<Scene> {
  const leases: Request[] = [];
  const fills: Request[] = [];
  const server = await Server.start(t, (q) => {
    if (q.op === 3) {
      q.conn.answer(q.id, 1, 0);
    } else if (q.op === 9) {
      leases.push(q);
    } else if (q.op === 10) {
      fills.push(q);
      q.conn.answer(q.id, ...filled);
    }
  });
  const client = new Client({ socket: server.path, timeout: 20_000, connectTimeout: 20_000, ...o });
  t.after(() => client.close());
  return { server, client, leases, fills };
}

const token = Buffer.from('token');
const grant = (q: Request): void => q.conn.answer(q.id, 2, token, 5000);
const abandoned = (q: Request): boolean => q.body[6] === 256 && q.body[3] === null;

test('callers share a LEASE that was not sent when they came, and no other', async (t) => {
  const { client, leases, fills } = await start(t);
  let loads = 0;
  const load = (): { n: number } => ({ n: ++loads });
  const first = client.getOrSet('k', load);
  await until('the first LEASE', () => leases.length === 1);
  const later = [client.getOrSet('k', load), client.getOrSet<{ n: number }>('k', load), client.getOrSet('k', load)];
  await client.getItem('k'); // all have missed by now
  assert.equal(leases.length, 1);
  grant(leases[0]!);
  assert.deepEqual(await first, { n: 1 });
  await until('the second LEASE', () => leases.length === 2);
  grant(leases[1]!);
  const values = await Promise.all(later);
  assert.deepEqual(values, [{ n: 2 }, { n: 2 }, { n: 2 }]);
  assert.notEqual(values[0], values[1], 'each caller has a value of its own');
  assert.deepEqual([loads, leases.length, fills.length], [2, 2, 2]);
  assert.deepEqual(Buffer.from(fills[0]!.body[2] as Uint8Array), token);
});

test('a token goes back: after a failure, an absence, an abort, a long load, and close', async (t) => {
  const { client, leases, fills } = await start(t, { loadTimeout: 50 });
  const cases: [string, () => Promise<unknown>, object | undefined][] = [
    ['a failure', () => client.getOrSet('k', () => { throw new RangeError('no'); }), { name: 'RangeError' }],
    ['a rejection', () => client.getOrSet('k', () => Promise.reject(new RangeError('no'))), { name: 'RangeError' }],
    ['an absence', () => client.getOrSet('k', () => undefined), undefined],
    ['a value that cannot be stored', () => client.getOrSet('k', () => new Map()), { name: 'TypeError' }],
    ['a long load', () => client.getOrSet('k', () => new Promise(() => {})), { code: 'timeout' }],
    ['an abort', () => {
      const a = new AbortController();
      const load = (): Promise<never> => {
        queueMicrotask(() => a.abort());
        return new Promise(() => {});
      };
      return client.getOrSet('k', load, { signal: a.signal });
    }, { name: 'AbortError' }],
  ];
  for (const [name, call, want] of cases) {
    const n = leases.length;
    const result = call();
    const done = want === undefined ? result : assert.rejects(result, want, name);
    await until('a LEASE', () => leases.length === n + 1);
    grant(leases[n]!);
    await done;
    await until(`the token after ${name}`, () => fills.length === n + 1);
    assert.ok(abandoned(fills[n]!), `${name}: ${JSON.stringify(fills[n]!.body)}`);
  }
  const n = leases.length;
  let signal: AbortSignal | undefined;
  const last = client.getOrSet('k', (_, c) => new Promise(() => { signal = c.signal; }));
  const rejected = assert.rejects(last, { code: 'closed' });
  await until('a LEASE', () => leases.length === n + 1);
  grant(leases[n]!);
  await until('the load', () => signal !== undefined);
  await client.close();
  await rejected;
  assert.ok(signal!.aborted);
  await until('the token after close', () => fills.length === n + 1);
  assert.ok(abandoned(fills[n]!));
});

test('a token that comes after its caller has left goes back', async (t) => {
  const { client, leases, fills } = await start(t);
  const a = new AbortController();
  const call = client.getOrSet('k', () => 1, { signal: a.signal });
  await until('a LEASE', () => leases.length === 1);
  a.abort();
  await assert.rejects(call, { name: 'AbortError' });
  grant(leases[0]!);
  await until('the token', () => fills.length === 1);
  assert.ok(abandoned(fills[0]!));
});

test('a load goes on while one of its callers waits', async (t) => {
  const { client, leases } = await start(t);
  const block = client.getOrSet('k', () => 0);
  await until('a LEASE', () => leases.length === 1);
  const a = new AbortController();
  let began = 0;
  let end = (): void => {};
  const load = (): Promise<number> => new Promise((resolve) => {
    began++;
    end = (): void => resolve(7);
  });
  const leaves = client.getOrSet('k', load, { signal: a.signal });
  const stays = client.getOrSet('k', load);
  await client.getItem('k'); // both have missed by now
  grant(leases[0]!);
  await block;
  await until('the next LEASE', () => leases.length === 2);
  grant(leases[1]!);
  await until('the load', () => began === 1);
  a.abort();
  await assert.rejects(leaves, { name: 'AbortError' });
  end();
  assert.equal(await stays, 7);
});

test('without a sidecar the loader runs, unless failOpen is false', async (t) => {
  const { server, client, leases } = await start(t, { timeout: 2000 });
  await server.stop();
  assert.equal(await client.getOrSet('k', () => 'loaded'), 'loaded');
  await assert.rejects(client.get('k'), { code: 'unavailable' });
  const closed = new Client({ socket: server.path, failOpen: false });
  t.after(() => closed.close());
  await assert.rejects(closed.getOrSet('k', () => 'loaded'), { code: 'unavailable' });
  assert.equal(leases.length, 0);
});

test('the FILL goes over the connection by which the token came, or not at all', async (t) => {
  const { client, leases, fills, server } = await start(t);
  let end = (): void => {};
  let began = false;
  const call = client.getOrSet('k', () => new Promise((resolve) => {
    began = true;
    end = (): void => resolve('v');
  }));
  await until('a LEASE', () => leases.length === 1);
  grant(leases[0]!);
  await until('the load', () => began);
  server.peers[0]!.socket.destroy();
  await until('another connection', () => client.getItem('k').then(() => server.peers.length === 2));
  end();
  assert.equal(await call, 'v');
  await client.getItem('k');
  assert.equal(fills.length, 0);
});

test('a connection that leaves takes the FILL still', async (t) => {
  const { client, leases, fills, server } = await start(t);
  let end = (): void => {};
  let began = false;
  const call = client.getOrSet('k', () => new Promise((resolve) => {
    began = true;
    end = (): void => resolve('v');
  }));
  await until('a LEASE', () => leases.length === 1);
  grant(leases[0]!);
  await until('the load', () => began);
  server.leaving[0]!.conn.answer(server.leaving[0]!.id, 0);
  await until('another connection', () => client.getItem('k').then(() => server.peers.length === 2));
  assert.ok(!server.peers[0]!.ended);
  end();
  assert.equal(await call, 'v');
  assert.equal(fills[0]!.conn, server.peers[0]);
  await until('the end', () => server.peers[0]!.ended);
});

test('maxLoads bounds the keys that are loaded', async (t) => {
  const { client } = await start(t, { maxLoads: 2 });
  const calls = ['a', 'b', 'c'].map((k) => client.getOrSet(k, () => 1));
  await assert.rejects(calls[2]!, { code: 'busy' });
  const rest = Promise.allSettled(calls);
  await client.close();
  await rest;
});

test('another process loads: the caller waits in steps, then loads itself', async (t) => {
  const { client, leases } = await start(t, { timeout: 1000, waitTimeout: 2000 });
  const call = client.getOrSet('k', () => 'mine');
  for (let i = 0; i < 2; i++) {
    await until('a LEASE', () => leases.length === i + 1);
    leases[i]!.conn.answer(leases[i]!.id, 21, 'another loads');
  }
  assert.equal(await call, 'mine');
  const second = client.getOrSet('k', () => 'mine');
  await until('a LEASE', () => leases.length === 3);
  leases[2]!.conn.answer(...hit(leases[2]!.id, 'theirs'));
  assert.equal(await second, 'theirs');
});

test('a value whose token is no longer good is returned, and loaded again next time', async (t) => {
  const { client, leases, fills } = await start(t, {}, [5, 'the token is no longer good']);
  for (const value of ['first', 'second']) {
    const n = leases.length;
    const call = client.getOrSet('k', () => value);
    await until('a LEASE', () => leases.length === n + 1);
    grant(leases[n]!);
    assert.equal(await call, value);
  }
  assert.equal(fills.length, 2);
});

const own = { code: 'bad_request', message: /loader of "k" asks getOrSet for its own key: let it return/ };

/** Grants each LEASE as it comes. */
async function granting(t: TestContext): Promise<Client> {
  const server = await Server.start(t, (q) => {
    if (q.op === 3) {
      q.conn.answer(q.id, 1, 0);
    } else if (q.op === 9) {
      grant(q);
    } else {
      q.conn.answer(q.id, 0, 5);
    }
  });
  const client = new Client({ socket: server.path, timeout: 20_000, connectTimeout: 20_000 });
  t.after(() => client.close());
  return client;
}

test('a loader that asks for its own key gets an error, however it asks', { timeout: 20_000 }, async (t) => {
  const client = await granting(t);
  const again = (): Promise<unknown> => client.getOrSet('k', () => 1);
  const ways: [string, () => unknown][] = [
    ['directly', again],
    ['with options of its own', () => client.getOrSet('k', () => 1, { fresh: true, staleOk: true })],
    ['by an awaited helper', async () => {
      await new Promise((resolve) => setTimeout(resolve, 1));
      return again();
    }],
    ['among others', () => Promise.all([client.get('k'), client.getOrSet('other', () => 2), again()])],
    ['by a view', () => client.inNamespace('users').inNamespace('default').getOrSet('k', () => 1)],
    ['after a write of the key', () => client.set('k', 1).then(again)],
    ['within the loader of another key', () => client.getOrSet('other', again)],
  ];
  for (const [name, load] of ways) {
    await assert.rejects(client.getOrSet('k', load), own, name);
  }
  const users = client.inNamespace('users');
  await assert.rejects(users.getOrSet('k', () => users.getOrSet('k', () => 1)), own);
  const bytes = (): Promise<unknown> => client.getOrSet(Buffer.from('k'), bytes);
  await assert.rejects(bytes(), { code: 'bad_request' });
});

test('a loader may ask for other keys, and what it leaves running for its own', { timeout: 20_000 }, async (t) => {
  const client = await granting(t);
  let later: (() => Promise<unknown>) | undefined;
  let left: Promise<unknown> | undefined;
  const value = client.getOrSet('k', () => {
    later = AsyncResource.bind(() => client.getOrSet('k', () => 8));
    left = new Promise((resolve) => setTimeout(resolve, 50)).then(() => client.getOrSet('k', () => 9));
    return client.getOrSet('other', () => client.inNamespace('users').getOrSet('k', () => 7));
  });
  assert.equal(await value, 7);
  assert.equal(await later!(), 8);
  assert.equal(await left, 9);
  await assert.rejects(client.getOrSet('k', () => { throw new RangeError('no'); }), RangeError);
  assert.equal(await client.getOrSet('k', () => 10), 10);
});

test('a loader runs in the context of its caller, also if it has waited for another load', async (t) => {
  const { client, leases } = await start(t);
  const user = new AsyncLocalStorage<string>();
  const load = (): string | undefined => user.getStore();
  const first = user.run('a', () => client.getOrSet('k', load));
  await until('the first LEASE', () => leases.length === 1);
  const second = user.run('b', () => client.getOrSet('k', load));
  await client.getItem('k'); // it has missed by now
  grant(leases[0]!);
  assert.equal(await first, 'a');
  await until('the second LEASE', () => leases.length === 2);
  grant(leases[1]!);
  assert.equal(await second, 'b');
});
