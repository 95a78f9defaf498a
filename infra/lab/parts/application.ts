import type { LabDc } from '../options.js';

export function instancePort(application: string, dc: LabDc, index: number): string {
  return `${dc}.${application}.${index}`;
}
