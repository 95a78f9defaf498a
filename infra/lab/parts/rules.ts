import { openAllStores } from '../../../src/fence/connect.js';
import { initialise } from '../../../src/fence/init.js';
import { initialRules } from '../../../src/topology/derive.js';
import { loadTopology, resolveSecret } from '../../../src/topology/load.js';
import { grantFenceCheck } from './mysql.js';
import { taskPart } from '../part.js';
import type { LabContext, Part } from '../part.js';

export const RULES_PART = 'rules';

/** Schema `interlock`, rules of epoch 1 and unit states, where they are missing: what `interlock rules init` does. */
export function rulesPart(lab: LabContext, stores: readonly string[]): Part {
  return taskPart({
    name: RULES_PART,
    dependsOn: stores,
    run: async () => {
      const { topology } = await loadTopology(lab.files.topology());
      const all = openAllStores(topology, resolveSecret);
      try {
        await initialise(all, initialRules(topology), () => undefined);
      } finally {
        await Promise.all([...all.values()].map((dc) => dc.close()));
      }
      await grantFenceCheck(lab);
    },
  });
}
