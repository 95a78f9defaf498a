import { describe, expect, it } from 'vitest';
import { UNKNOWN_LAG } from '../../replicators/core/attempts.js';
import { StatusTracker } from '../../replicators/core/status.js';
import { linkWords } from '../../src/cli/link-words.js';

describe('replicate status', () => {
  const words = (of: Partial<StatusTracker>): string => {
    const link = 'redis/cache:dc-a>dc-b';
    const tracker = Object.assign(new StatusTracker(link), of);
    const status = tracker.snapshot(UNKNOWN_LAG);
    return linkWords({ link, workflow: 'running', status, error: null, next: null, alerts: [] });
  };

  it('says what a Redis link left out', () => {
    expect(words({ filtered: 3, lateDeletions: 2 })).toContain(
      '  left out: 3 commands and copied keys by filters and policy, 2 deletions of what the source did not own',
    );
    expect(words({ filtered: 0, lateDeletions: 0 })).not.toContain('left out');
    expect(words({})).not.toContain('left out');
  });
});
