const table = Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) {
    n = n & 1 ? n >>> 1 ^ 0xedb88320 : n >>> 1;
  }
  return n;
});

/** Returns the CRC-32 of bytes. zlib has it only in later versions of Node. */
export function crc32(bytes: Uint8Array): number {
  let c = ~0;
  for (const b of bytes) {
    c = table[(c ^ b) & 0xff]! ^ c >>> 8;
  }
  return ~c >>> 0;
}
