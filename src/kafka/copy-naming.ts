import type { DcId } from '../routing/units.js';

/** What a link calls its copies, where the topology does not say it. */
export const DEFAULT_NAMING = '{from}.{topic}';

/** What the copy of another data center's topic is called. */
export function copyName(naming: string, from: DcId, topic: string): string {
  return naming.replace('{from}', () => from).replace('{topic}', () => topic);
}
