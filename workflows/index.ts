/** The workflows that a control worker registers. */
export { planSwitch, switchover } from './switchover.js';
export { replicator } from './replicator.js';
export { verification } from './verification.js';
export { ddlChange } from './ddl-change.js';
