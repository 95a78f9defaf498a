import { InterlockError } from '../errors.js';
import { rulesHash } from '../routing/hash.js';
import { Router } from '../routing/rules.js';
import type { RulesDocument } from './api.js';

/** Rules in force, ready to be served. */
export interface Entry extends RulesDocument {
  router: Router;
  /** The document as JSON: pushed and watched without being serialised each time. */
  json: string;
}

/**
 * The rules that a rule center serves: the highest epoch it has seen. Hazard: documents come from the store, from POST and from disk, in any
 * order. Guard: epochs only grow, and an epoch has one content.
 */
export class RuleBook {
  private entry: Entry | undefined;
  private readonly listeners = new Set<(entry: Entry) => void>();

  get current(): Entry | undefined {
    return this.entry;
  }

  /**
   * Takes a document over when it is newer; a lower one is passed over.
   * @throws InterlockError EpochConflict: the same epoch with other content.
   */
  offer(document: RulesDocument): boolean {
    const { rules, hash } = document;
    if (hash !== rulesHash(rules)) {
      throw new InterlockError(
        'Internal',
        `the hash of rules epoch ${rules.epoch} does not match their content`,
        {
          details: { epoch: rules.epoch, hash },
        },
      );
    }
    if (this.entry !== undefined) {
      if (rules.epoch === this.entry.rules.epoch && hash !== this.entry.hash) {
        throw new InterlockError(
          'EpochConflict',
          `other rules of epoch ${rules.epoch} are in force here: an epoch has one content`,
          { details: { epoch: rules.epoch, hash, inForce: this.entry.hash } },
        );
      }
      if (rules.epoch <= this.entry.rules.epoch) return false;
    }
    this.entry = { rules, hash, router: new Router(rules), json: JSON.stringify({ rules, hash }) };
    for (const listener of this.listeners) listener(this.entry);
    return true;
  }

  /** Called with each new entry, in order. Answers how to stop it. */
  onChange(listener: (entry: Entry) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}
