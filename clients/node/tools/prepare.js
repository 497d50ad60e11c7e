// Builds dist when npm installs or packs this folder. If an app installs the folder by its path, npm makes a link and
// installs nothing in here: so what the build needs is installed first.
'use strict';
const { execFileSync } = require('node:child_process');
const path = require('node:path');

function builds() {
  try {
    return require.resolve('typescript/bin/tsc') && require.resolve('@msgpack/msgpack');
  } catch {
    return false;
  }
}

if (!builds()) {
  const env = { ...process.env };
  for (const name of Object.keys(env)) { // settings of the npm that runs this: they are about the app
    if (/^npm_config_(global|location|local_prefix|prefix|omit|include|production|dry_run|save.*|workspace.*)$/i.test(name)) {
      delete env[name];
    }
  }
  execFileSync(process.execPath, [process.env.npm_execpath, 'ci', '--include=dev', '--ignore-scripts', '--no-audit', '--no-fund'], {
    cwd: path.join(__dirname, '..'), env, stdio: 'inherit',
  });
}
require('./build.js');
