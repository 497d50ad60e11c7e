import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { test } from 'node:test';

// The modules import each other in one direction. An import of types alone counts too.

const src = path.join(__dirname, '../../src');
const names = fs.readdirSync(src).map((file) => path.basename(file, '.ts'));
const open = new Set<string>(); // modules that lead to no circle

function imports(name: string): string[] {
  const text = fs.readFileSync(path.join(src, `${name}.ts`), 'utf8');
  return [...text.matchAll(/\b(?:from|import)\s*\(?\s*'\.\/([^']+)\.js'/g)].map(([, other]) => other!);
}

/** Returns the circle at the end of a way from module to module. */
function circle(way: readonly string[]): readonly string[] | undefined {
  const last = way.at(-1)!;
  if (way.indexOf(last) < way.length - 1) {
    return way.slice(way.indexOf(last));
  }
  const found = open.has(last) ? undefined : imports(last).map((next) => circle([...way, next])).find(Boolean);
  if (found === undefined) {
    open.add(last);
  }
  return found;
}

test('no module imports itself, by however many others', () => {
  assert.ok(imports('index').includes('client'), 'the imports were read');
  assert.equal(names.map((name) => circle([name])?.join(' > ')).find(Boolean), undefined);
});
