import * as fs from 'node:fs';
import * as path from 'node:path';
import { isPermissionDenied, permissionError } from './permission.js';
import { cacheError } from './errors.js';

/** Finds the sidecar's socket: see "A client's duties" in docs/PROTOCOL.md of the project. */
export function findSocket(explicit: string | undefined): string {
  const named = explicit || process.env['CACHESIDECAR_SOCKET'];
  if (named) {
    return named;
  }
  const uid = process.getuid?.() ?? 0;
  const folders = ['/run/cachesidecar'];
  if (process.env['XDG_RUNTIME_DIR']) {
    folders.push(path.join(process.env['XDG_RUNTIME_DIR'], 'cachesidecar'));
  }
  const shared = `/tmp/cachesidecar-${uid}`;
  folders.push(shared);
  let closed: Error | undefined;
  for (const folder of folders) {
    const socket = path.join(folder, 'cachesidecar.sock');
    try {
      if ((folder !== shared || ownFolder(folder, uid)) && isSocket(socket)) {
        return socket;
      }
    } catch (e) {
      if (!isPermissionDenied(e)) {
        throw e;
      }
      closed ??= permissionError(socket, e);
    }
  }
  if (closed !== undefined) {
    throw closed;
  }
  throw cacheError('unavailable', `no socket found in ${folders.join(', ')}: is the sidecar running? `
    + 'Start it with "cachesidecar run", or name its socket in the option socket or in $CACHESIDECAR_SOCKET');
}

function isSocket(file: string): boolean {
  return fs.statSync(file, { throwIfNoEntry: false })?.isSocket() ?? false;
}

/** Reports whether a folder is this user's own, and closed to others: in /tmp anybody can make one. */
function ownFolder(folder: string, uid: number): boolean {
  const info = fs.lstatSync(folder, { throwIfNoEntry: false });
  return info !== undefined && info.isDirectory() && info.uid === uid && (info.mode & 0o777) === 0o700;
}

const maxToken = 256; // bytes

/** Reads the token in a file, which others must not be able to read. */
export function readToken(file: string): string {
  const refuse = (why: string): Error => cacheError('unauthorized', `token file ${file}: ${why}`);
  let text: string;
  try {
    const info = fs.statSync(file);
    const mode = (info.mode & 0o777).toString(8);
    if (!info.isFile()) {
      throw refuse('it is no regular file');
    }
    if (info.uid !== 0 && info.uid !== process.geteuid?.()) {
      throw refuse(`it contains a secret and belongs to uid ${info.uid}: chown it to this process's user`);
    }
    if ((info.mode & 0o027) !== 0) {
      throw refuse(`it contains a secret and has mode 0${mode}, which lets others read or change it: chmod 0600`);
    }
    if (info.size > maxToken + 2) {
      throw refuse(`it has ${info.size} bytes: a token has at most ${maxToken}`);
    }
    text = fs.readFileSync(file, 'utf8').replace(/[\r\n]+$/, '');
  } catch (e) {
    throw e instanceof Error && 'code' in e && e.code === 'unauthorized' ? e : refuse(String(e));
  }
  if (text === '') {
    throw refuse('it is empty: write the token into it');
  }
  return text;
}
