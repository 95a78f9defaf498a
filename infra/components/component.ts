import { InterlockError } from '../../src/errors.js';

/** Something that the lab or the tests run and that npm does not bring. One file per component. */
export interface Component<T> {
  name: string;
  /** Where it is, or null when this machine does not have it yet. Looks, changes nothing. */
  find: () => Promise<T | null>;
  /** Brings it. May be interrupted anywhere and called again. */
  install: (progress: Progress) => Promise<void>;
}

/** One line about what is being done, for stderr. */
export type Progress = (line: string) => void;

/** Finds it, or brings it first. */
export async function ensure<T>(component: Component<T>, progress: Progress): Promise<T> {
  const found = await component.find();
  if (found !== null) return found;
  await component.install(progress);
  const installed = await component.find();
  if (installed === null) {
    throw new InterlockError('NeedsOperator', `${component.name} was installed and still cannot be found`);
  }
  return installed;
}
