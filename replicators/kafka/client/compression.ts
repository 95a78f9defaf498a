import { gunzipSync, gzipSync } from 'node:zlib';
import { InterlockError } from '../../../src/errors.js';

/** By the number that a batch has in its attributes. */
export function decompress(codec: number, bytes: Buffer): Buffer {
  switch (codec) {
    case 1:
      return gunzipSync(bytes);
    default:
      throw new InterlockError(
        'LinkStopped',
        `records are compressed by codec ${codec}, which is not known here`,
      );
  }
}

/** As gzip. */
export function compress(bytes: Buffer): { codec: number; payload: Buffer } {
  return { codec: 1, payload: gzipSync(bytes, { level: 1 }) };
}
