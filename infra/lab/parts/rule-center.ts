import type { LabDc } from '../options.js';

export function ruleCenterPort(dc: LabDc): string {
  return `${dc}.rule-center`;
}
