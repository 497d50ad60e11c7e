// Measures Node clients against each other; benchmarks/README.md says what and how.
//
// Inputs are the arguments, with the sockets of servers that run. Output is one JSON object a line: first the
// versions, then the calls and seconds of each side of each case. A value that differs from the one that was set ends
// the program with an error.

import { createRequire } from "node:module";
import { performance } from "node:perf_hooks";
import { parseArgs } from "node:util";

import Ioredis from "ioredis";
import { createClient } from "redis";

import { Client } from "../../clients/node/dist/index.mjs";

const OURS = "sidecar, socket", NEAR = "sidecar, near cache";
const NODE_REDIS = "node-redis", IOREDIS = "ioredis", IOREDIS_AUTO = "ioredis, auto-pipelining", MAP = "Map";
const WARM_PASSES = 20; // over all keys, until a cache in the process has them
const BLOCK = 16; // calls between two looks at the clock

const numbers = ["entries", "key-size", "value-size", "turns", "turn", "warm-up", "round", "tasks"];
const { values: text } = parseArgs({
  options: Object.fromEntries(["sidecar", "redis", ...numbers].map((name) => [name, { type: "string" }])),
});
const a = Object.fromEntries(Object.entries(text).map(([k, v]) => [k, numbers.includes(k) ? Number(v) : v]));

const gcd = (x, y) => (y === 0 ? x : gcd(y, x % y));
let step = Math.floor(a.entries * 0.618) | 1;
while (gcd(step, a.entries) !== 1) step++;
const order = Array.from({ length: a.entries }, (_, i) => (i * step) % a.entries);
const keys = order.map((i) => String(i).padStart(a["key-size"], "0"));
const values = order.map((i) => (i.toString(16) + ".").padEnd(a["value-size"], "v").slice(0, a["value-size"]));

/** Compares what a side answered for the keys from the first on. */
function check(side, got, first = 0) {
  got.forEach((value, n) => {
    if (value !== values[first + n])
      throw new Error(`${side}: ${keys[first + n]} is ${value}, want ${values[first + n]}`);
  });
}

/** Lets the sides take turns, each time beginning with another one, and prints what they did. */
async function play(name, sides) {
  for (const s of sides) Object.assign(s, { calls: 0, seconds: 0 });
  for (let turn = 0; turn < a.turns; turn++) {
    for (let i = 0; i < sides.length; i++) {
      const s = sides[(a.round + turn + i) % sides.length];
      await s.run(a["warm-up"]);
      const [calls, ms] = await s.run(a.turn);
      s.calls += calls;
      s.seconds += ms / 1000;
    }
  }
  for (const s of sides)
    console.log(JSON.stringify({ case: name, side: s.name, calls: s.calls, seconds: s.seconds }));
}

/** GETs, one after the other. The comparing of values is not in the time. */
function gets(name, get) {
  return { name, run: async (ms) => {
    let calls = 0, took = 0;
    while (took < ms || calls === 0) {
      const got = new Array(keys.length);
      const began = performance.now();
      for (let i = 0; i < keys.length; i++) got[i] = await get(keys[i]);
      took += performance.now() - began;
      calls += keys.length;
      check(name, got);
    }
    return [calls, took];
  } };
}

/** SETs, one after the other. The reading back is not in the time. */
function sets(name, put, get) {
  return { name, run: async (ms) => {
    let calls = 0, took = 0;
    while (took < ms || calls === 0) {
      const began = performance.now();
      for (let i = 0; i < keys.length; i++) await put(keys[i], values[i]);
      took += performance.now() - began;
      calls += keys.length;
    }
    check(name, [await get(keys[0])]);
    return [calls, took];
  } };
}

/** GETs by some loops at once, each in another place of the order. */
function tasked(name, get) {
  const blocks = Math.floor(keys.length / BLOCK);
  const task = async (n, end) => {
    let calls = 0;
    for (let at = Math.floor((n * blocks) / a.tasks); calls === 0 || performance.now() < end; at++) {
      const first = (at % blocks) * BLOCK, got = [];
      for (let i = 0; i < BLOCK; i++) got.push(await get(keys[first + i]));
      check(name, got, first);
      calls += BLOCK;
    }
    return calls;
  };
  return { name, run: async (ms) => {
    const began = performance.now();
    const calls = await Promise.all(Array.from({ length: a.tasks }, (_, n) => task(n, began + ms)));
    return [calls.reduce((x, y) => x + y), performance.now() - began];
  } };
}

const ours = new Client({ socket: a.sidecar, namespace: "socket" });
const near = new Client({ socket: a.sidecar, namespace: "near", nearCache: { bytes: 64 << 20 } });
const nodeRedis = await createClient({ socket: { path: a.redis } }).connect();
const ioredis = new Ioredis({ path: a.redis });
const auto = new Ioredis({ path: a.redis, enableAutoPipelining: true });

const require = createRequire(import.meta.url);
console.log(JSON.stringify({ versions: {
  node: process.versions.node,
  "node-redis": require("redis/package.json").version,
  ioredis: require("ioredis/package.json").version,
} }));

const get = (client) => (key) => client.get(key);
const put = (client) => (key, value) => client.set(key, value);
for (const client of [ours, near, nodeRedis]) {
  for (let i = 0; i < keys.length; i++) await client.set(keys[i], values[i]);
}
const three = [[OURS, ours], [NODE_REDIS, nodeRedis], [IOREDIS, ioredis]];
await play("get", three.map(([name, client]) => gets(name, get(client))));
await play("set", three.map(([name, client]) => sets(name, put(client), get(client))));
await play("tasks", [...three, [IOREDIS_AUTO, auto]].map(([name, client]) => tasked(name, get(client))));

for (let n = 0; n < WARM_PASSES; n++) for (const key of keys) await near.get(key);
const map = new Map(keys.map((key, i) => [key, values[i]]));
await play("hits", [gets(NEAR, get(near)), gets(MAP, async (key) => map.get(key)), gets(NODE_REDIS, get(nodeRedis))]);

await Promise.all([ours.close(), near.close(), nodeRedis.close(), ioredis.quit(), auto.quit()]);
