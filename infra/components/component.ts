import { InterlockError } from '../../src/errors.js';
import { installPackages } from './apt.js';
import type { Progress } from './step.js';

/** Something that the lab or the tests run and that npm does not bring. One file per component. */
export interface Component<T> {
  name: string;
  /** Where it is, or null when this machine does not have it yet. Looks, changes nothing. */
  find: () => Promise<T | null>;
  /** Packages of the distribution that it, or its installation, lacks on this machine. */
  packages: () => string[];
  /** Brings what is no package. May be interrupted anywhere and called again. */
  install: (progress: Progress) => Promise<void>;
}

/** Finds it, or brings it first. */
export async function ensure<T>(component: Component<T>, progress: Progress): Promise<T> {
  const found = await component.find();
  if (found !== null) return found;
  await installPackages(component.packages(), progress);
  await component.install(progress);
  const installed = await component.find();
  if (installed === null) {
    throw new InterlockError('NeedsOperator', `${component.name} was installed and still cannot be found`);
  }
  return installed;
}

/** Brings all that are missing: the distribution's packages in one go, then the others at the same time. */
export async function ensureAll(
  components: readonly Component<unknown>[],
  progress: Progress,
): Promise<void> {
  const found = await Promise.all(components.map((component) => component.find()));
  const missing = components.filter((_, index) => found[index] === null);
  if (missing.length === 0) return;
  progress(`missing on this machine: ${missing.map((component) => component.name).join(', ')}`);
  await installPackages([...new Set(missing.flatMap((component) => component.packages()))], progress);
  const results = await Promise.allSettled(missing.map((component) => ensure(component, progress)));
  const failed = results.find((result) => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}
