import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { type CacheError, cacheError } from './errors.js';

/** Returns the error of a socket that this process may not open: which group may, and how to get into it. */
export function permissionError(socket: string, cause: unknown): CacheError {
  return cacheError('unavailable', `cannot connect to the sidecar at ${socket}: permission denied: ${remedy(socket)}`,
    cause);
}

/** Reports whether an error says that this process may not. */
export function isPermissionDenied(e: unknown): boolean {
  return (e as NodeJS.ErrnoException).code === 'EACCES';
}

/** Says what keeps this process from a socket, a folder or the file itself, and what to do. */
function remedy(socket: string): string {
  const folder = folders(socket).find((dir) => !searchable(dir));
  const bit = folder === undefined ? 0o020 : 0o010;
  const advice = folder === undefined
    ? 'give it to the group of its apps (socket_group and socket_mode; SocketGroup= and SocketMode= of a socket unit)'
    : `let all search it: chmod a+x ${folder}`;
  let info: fs.Stats;
  try {
    info = fs.statSync(folder ?? socket);
  } catch (e) {
    return String(e);
  }
  const group = groupName(info.gid);
  const within = info.gid === process.getegid?.() || (process.getgroups?.() ?? []).includes(info.gid);
  const mode = (info.mode & 0o777).toString(8).padStart(4, '0');
  const what = folder === undefined ? 'the socket' : `the folder ${folder}`;
  const of = `${what} belongs to group ${group} and has mode ${mode}`;
  if ((info.mode & bit) === 0 || info.gid === 0 && !within) { // no user should become root for it
    return `${of}: ${advice}`;
  }
  if (within) {
    return `${of}, and this process is in that group: look at its owner, access lists and security modules`;
  }
  const user = userName();
  return `${of}, and user ${user} is not in it: usermod -aG ${group} ${user}, and start this program anew from a new `
    + `login, since a process has its groups from its start${folder === undefined ? '' : `; or ${advice}`}`;
}

/** Returns the folders on the way to a file, the outermost first. */
function folders(file: string): string[] {
  const list: string[] = [];
  for (let dir = path.dirname(path.resolve(file)); list[0] !== dir; dir = path.dirname(dir)) {
    list.unshift(dir);
  }
  return list;
}

function searchable(dir: string): boolean {
  try {
    fs.accessSync(dir, fs.constants.X_OK);
    return true;
  } catch (e) {
    return !isPermissionDenied(e);
  }
}

/** Returns the name of a group, or its number. */
function groupName(gid: number): string {
  try {
    const line = fs.readFileSync('/etc/group', 'utf8').split('\n').find((l) => l.split(':')[2] === String(gid));
    return line?.split(':')[0] || String(gid);
  } catch {
    return String(gid);
  }
}

function userName(): string {
  try {
    return os.userInfo().username;
  } catch {
    return String(process.geteuid?.());
  }
}
