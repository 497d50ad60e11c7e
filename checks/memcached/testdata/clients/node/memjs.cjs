// Shows that memjs, which has the binary protocol alone, gets an error and does not hang, against the
// server HOST:PORT.
'use strict';
const c = require('memjs').Client.create(process.argv[2], { timeout: 1, retries: 0, logger: { log() {} } });
c.set('k', 'v', { expires: 60 }).then(
  () => console.log('stored'),
  (e) => console.log('refused', e.message),
).finally(() => c.close());
