// Builds dist: CommonJS with its types, and the ESM entry beside it, which names the same objects, so that a program
// that loads both has one client. "build.js test" builds the tests as well, into build.
'use strict';
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const root = path.join(__dirname, '..');
const tsc = (project) => execFileSync(process.execPath, [require.resolve('typescript/bin/tsc'), '-p', project], {
  cwd: root, stdio: 'inherit',
});

fs.rmSync(path.join(root, 'dist'), { recursive: true, force: true });
tsc('tsconfig.json');
const names = Object.keys(require(path.join(root, 'dist/index.js'))).sort();
fs.writeFileSync(path.join(root, 'dist/index.mjs'),
  `import cjs from './index.js';\n\nexport const { ${names.join(', ')} } = cjs;\n`);
fs.writeFileSync(path.join(root, 'dist/index.d.mts'), "export * from './index.js';\n");
if (process.argv[2] === 'test') {
  fs.rmSync(path.join(root, 'build'), { recursive: true, force: true });
  tsc('tsconfig.test.json');
}
