import type { ActivityName } from './model.js';

export type Moment = ['before' | 'after', ActivityName];

/** Every point at which somebody may come in between, and whether the switch can still be stopped there. */
export const BEFORE_THE_SWITCH: Moment[] = [
  ['before', 'findHeld'],
  ['after', 'findHeld'],
  ['after', 'makePlan'],
  ['before', 'preflight'],
  ['after', 'catchUp'],
  ['before', 'nextEpoch'],
  ['after', 'gatewayTotals'],
  ['before', 'writeDisable'],
  ['after', 'writeDisable'],
];
export const FROM_THE_SWITCH: Moment[] = [
  ['before', 'switchTarget'],
  ['after', 'switchTarget'],
  ['before', 'handOverSource'],
  ['after', 'handOverSource'],
  ['before', 'confirm'],
  ['after', 'postCheck'],
];
export const IN_COMPENSATION: Moment[] = [
  ['before', 'raiseTarget'],
  ['after', 'raiseTarget'],
  ['before', 'reopenSource'],
  ['after', 'reopenSource'],
];
