import type { LabDc } from '../options.js';

/** The port at which programs of `reader` reach a port of the other DC. */
export function wanPort(reader: LabDc, port: string): string {
  return `wan.${reader}.${port}`;
}
