import type { LabDc } from '../options.js';
import type { LabContext } from '../part.js';

export function gatewayNames(lab: Pick<LabContext, 'state'>): string[] {
  return Array.from({ length: lab.state.shape.gatewaysPerDc }, (_, index) => `gateway-${index + 1}`);
}

export function gatewayPort(dc: LabDc, gateway: string): string {
  return `${dc}.${gateway}`;
}

export function gatewayAdminPort(dc: LabDc, gateway: string): string {
  return `${dc}.${gateway}.admin`;
}
