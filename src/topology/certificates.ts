import { readFileSync } from 'node:fs';
import { InterlockError, messageOf } from '../errors.js';
import type { Tls } from './store-schema.js';

/**
 * What the PEM files of a store's `tls` hold. They are read anew each time: they are renewed while Interlock runs.
 * @throws InterlockError BadInput: a file cannot be read
 */
export function certificatesOf({ ca, cert, key }: Tls): { ca: string; cert?: string; key?: string } {
  return {
    ca: pem('ca', ca),
    ...(cert !== undefined && { cert: pem('cert', cert) }),
    ...(key !== undefined && { key: pem('key', key) }),
  };
}

function pem(field: string, file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new InterlockError('BadInput', `tls.${field}: ${file} cannot be read: ${messageOf(error)}`, {
      cause: error,
      details: { field: `tls.${field}`, value: file },
    });
  }
}
