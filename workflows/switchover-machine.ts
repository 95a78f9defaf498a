/**
 * The switchover's states × events, total: a missing cell does not compile. What an event does in a phase is decided here and
 * nowhere else; the refusals are the words that an operator reads.
 *
 * Enforces: abort only before the point of no return is asked for (invariant 2); no way out of `compensating` and
 * `rolling-forward` but a proven end (invariant 3).
 */
export const PHASES = [
  /** Mends what an earlier run left, makes the plan. Nothing of this run is fenced. */
  'planning',
  /** Preflight, catch-up, epochs. Nothing is fenced. */
  'preparing',
  /** The fence was asked for: from here on only proof ends the run. */
  'fencing',
  'draining',
  /** The drain's time is up under the policy `extend`: waits for `extend` or `abort`; still goes on when the links arrive. */
  'drain-expired',
  /** The switch was asked for: nobody but the target knows whether the point of no return was passed. */
  'switching',
  'rolling-forward',
  'soaking',
  /** In doubt or failed: the target's answer decides between opening the source again and rolling forward. */
  'compensating',
  'ended',
] as const;
export type Phase = (typeof PHASES)[number];

/** What people (and Temporal's cancel) may ask for. */
export const REQUESTS = ['abort', 'rollback', 'finish', 'extend', 'cancel'] as const;
export type Request = (typeof REQUESTS)[number];

/** What the run itself reports. */
export const PROGRESS = [
  'planned',
  /** The fence is about to be asked for. */
  'fence',
  'fenced',
  'drain-overdue',
  'drained',
  'switched',
  /** Given up before anything was fenced. */
  'refused',
  'rollback-refused',
  /** A step behind the fence failed, was aborted, or its outcome is unknown. */
  'in-doubt',
  'already-switched',
  /** Compensated. */
  'undone',
  'rollback-undone',
  /** The units are open at the target and remote at the source. */
  'moved',
  'moved-back',
  'soak-over',
] as const;
export type Progress = (typeof PROGRESS)[number];
export type SwitchEvent = Request | Progress;

type Cell =
  /** Accepted: the phase stays, or becomes `to`. `say` is the answer to the operator. */
  | { say: string; to?: Phase }
  | { to: Phase }
  | { refuse: string }
  /** A defect when it happens. */
  | 'impossible';

const NO = 'impossible';
const to = (phase: Phase): Cell => ({ to: phase });
const refuse = (text: string): Cell => ({ refuse: text });
const say = (text: string, phase?: Phase): Cell => (phase ? { say: text, to: phase } : { say: text });

const ABORT_UNFENCED = say('Aborted: nothing was fenced.');
const ABORT_FENCED = say('Aborting: what was fenced is opened again where it was.');
const NO_ABORT_AFTER_SWITCH = refuse(
  'The switch has been asked for, it can no longer be aborted. When the soak has begun, `rollback` moves the units back.',
);
const NO_ROLLBACK_YET = refuse('Nothing has moved yet. Use `abort`.');
const NO_ROLLBACK_IN_SWITCH = refuse(
  'The switch is being completed. Use `rollback` again when the soak has begun.',
);
const NOTHING_TO_FINISH = refuse('There is nothing to finish before the soak. `abort` ends it now.');
const NO_FINISH_IN_SWITCH = refuse('The switch is being completed; the soak, which `finish` ends, follows.');
const NOTHING_TO_EXTEND = refuse('Only the drain can be extended, and it is not under way.');
const UNDOING =
  'The switchover is being undone, or its end is being proven; see `status` for what is awaited.';
const OVER = 'The switchover has ended. Start another with `interlock switch start`.';

/** What the run's own events may not be in a phase. */
const NO_PROGRESS: Record<Progress, Cell> = {
  planned: NO,
  fence: NO,
  fenced: NO,
  'drain-overdue': NO,
  drained: NO,
  switched: NO,
  refused: NO,
  'rollback-refused': NO,
  'in-doubt': NO,
  'already-switched': NO,
  undone: NO,
  'rollback-undone': NO,
  moved: NO,
  'moved-back': NO,
  'soak-over': NO,
};

const TABLE: Record<Phase, Record<SwitchEvent, Cell>> = {
  planning: {
    ...NO_PROGRESS,
    abort: ABORT_UNFENCED,
    cancel: ABORT_UNFENCED,
    rollback: NO_ROLLBACK_YET,
    finish: NOTHING_TO_FINISH,
    extend: NOTHING_TO_EXTEND,
    planned: to('preparing'),
    refused: to('ended'),
  },
  preparing: {
    ...NO_PROGRESS,
    abort: ABORT_UNFENCED,
    cancel: ABORT_UNFENCED,
    rollback: NO_ROLLBACK_YET,
    finish: NOTHING_TO_FINISH,
    extend: NOTHING_TO_EXTEND,
    fence: to('fencing'),
    refused: to('ended'),
    'rollback-refused': to('soaking'),
  },
  fencing: {
    ...NO_PROGRESS,
    abort: ABORT_FENCED,
    cancel: ABORT_FENCED,
    rollback: NO_ROLLBACK_YET,
    finish: NOTHING_TO_FINISH,
    extend: NOTHING_TO_EXTEND,
    fenced: to('draining'),
    'in-doubt': to('compensating'),
  },
  draining: {
    ...NO_PROGRESS,
    abort: ABORT_FENCED,
    cancel: ABORT_FENCED,
    rollback: NO_ROLLBACK_YET,
    finish: NOTHING_TO_FINISH,
    extend: say('Extended: the drain may take its time-out once more.'),
    'drain-overdue': to('drain-expired'),
    drained: to('switching'),
    'in-doubt': to('compensating'),
  },
  'drain-expired': {
    ...NO_PROGRESS,
    abort: ABORT_FENCED,
    cancel: ABORT_FENCED,
    rollback: NO_ROLLBACK_YET,
    finish: NOTHING_TO_FINISH,
    extend: say('Extended: the drain may take its time-out once more.', 'draining'),
    drained: to('switching'),
    'in-doubt': to('compensating'),
  },
  switching: {
    ...NO_PROGRESS,
    abort: NO_ABORT_AFTER_SWITCH,
    cancel: say('Cancel came after the switch was asked for: it goes on, and the soak gives you `rollback`.'),
    rollback: NO_ROLLBACK_IN_SWITCH,
    finish: NO_FINISH_IN_SWITCH,
    extend: NOTHING_TO_EXTEND,
    switched: to('rolling-forward'),
    'in-doubt': to('compensating'),
  },
  'rolling-forward': {
    ...NO_PROGRESS,
    abort: NO_ABORT_AFTER_SWITCH,
    cancel: say('Cancel came after the point of no return: it goes on, and the soak gives you `rollback`.'),
    rollback: NO_ROLLBACK_IN_SWITCH,
    finish: NO_FINISH_IN_SWITCH,
    extend: NOTHING_TO_EXTEND,
    moved: to('soaking'),
    'moved-back': to('ended'),
    // A late epoch behind the point of no return: the target is asked again (a reset run may have lost track of the world).
    'in-doubt': to('compensating'),
  },
  soaking: {
    ...NO_PROGRESS,
    abort: refuse('The units have moved, it can no longer be aborted. Use `rollback` to move them back.'),
    cancel: say('Finished by cancel: the soak is over.', 'ended'),
    rollback: say('Rolling back: the same flow, reversed.', 'preparing'),
    finish: say('Finished: the soak is over.', 'ended'),
    extend: NOTHING_TO_EXTEND,
    'soak-over': to('ended'),
  },
  compensating: {
    ...NO_PROGRESS,
    abort: refuse(UNDOING),
    cancel: say(UNDOING),
    rollback: refuse(UNDOING),
    finish: refuse(UNDOING),
    extend: refuse(UNDOING),
    'already-switched': to('rolling-forward'),
    undone: to('ended'),
    'rollback-undone': to('soaking'),
  },
  ended: {
    ...NO_PROGRESS,
    abort: refuse(OVER),
    cancel: say(OVER),
    rollback: refuse(`${OVER} To move the units back, start it with --from and --to exchanged.`),
    finish: refuse(OVER),
    extend: refuse(OVER),
  },
};

export type Decision = { accepted: true; phase: Phase; say: string } | { accepted: false; refusal: string };

/** What `event` does in `phase`. Throws on an event that cannot happen there: a defect of the workflow. */
export function decide(phase: Phase, event: SwitchEvent): Decision {
  const cell = TABLE[phase][event];
  if (cell === 'impossible') throw new Error(`Switchover: ${event} cannot happen while ${phase}`);
  if ('refuse' in cell) return { accepted: false, refusal: cell.refuse };
  return { accepted: true, phase: cell.to ?? phase, say: 'say' in cell ? cell.say : '' };
}
