import { gunzipSync, gzipSync } from 'node:zlib';
import { decompress as unframed } from 'fzstd';
import { InterlockError, messageOf } from '../../../src/errors.js';
import { unlz4 } from './codecs/lz4.js';
import { damaged } from './codecs/output.js';
import { unsnappy } from './codecs/snappy.js';

const GZIP = 1;

/** @param codec by the number that a batch has in its attributes */
export function decompress(codec: number, bytes: Buffer): Buffer {
  switch (codec) {
    case GZIP:
      return gunzipSync(bytes);
    case 2:
      return unsnappy(bytes);
    case 3:
      return unlz4(bytes);
    case 4:
      return unzstd(bytes);
    default:
      throw new InterlockError(
        'LinkStopped',
        `a batch is compressed by codec ${codec}, which is not known here`,
      );
  }
}

/** By gzip, which Node has: it is fast enough where the lowest level is asked for, and every client reads it. */
export function compress(bytes: Buffer): { codec: number; payload: Buffer } {
  return { codec: GZIP, payload: gzipSync(bytes, { level: 1 }) };
}

/** Node 20 has no Zstandard of its own. Checksums are left to the batch's. */
function unzstd(bytes: Buffer): Buffer {
  try {
    const plain = unframed(bytes);
    return Buffer.from(plain.buffer, plain.byteOffset, plain.byteLength);
  } catch (error) {
    throw damaged('Zstandard', messageOf(error));
  }
}
