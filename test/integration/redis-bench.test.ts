import { it } from 'vitest';
import { RedisRig } from '../bench/redis/rig.js';

it('a link that has nothing to apply is found to be there', async () => {
  const rig = new RedisRig();
  try {
    await rig.up();
    await rig.catchUp(rig.ours);
    await rig.ours.detach();
    await rig.requireEqual();
  } finally {
    await rig.down();
  }
});
