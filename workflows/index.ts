/** The workflows that a control worker registers. */
export { switchover } from './switchover.js';
