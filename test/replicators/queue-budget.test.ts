import { expect, it } from 'vitest';
import { QueueBudget } from '../../replicators/mysql/queue-budget.js';

const MB = 1024 * 1024;

it('keeps all links of all threads of a process within 64 MB', () => {
  for (const threads of [1, 2, 8]) {
    const budgets = Array.from({ length: threads }, () => Object.assign(new QueueBudget(), { threads }));
    const sum = (links: number): number => budgets.reduce((all, budget) => all + links * budget.share(), 0);
    const leave = budgets.map((budget) => budget.join());
    expect(budgets[0]!.share()).toBe(Math.min(8 * MB, (64 * MB) / threads));
    for (let links = 2; links <= 50; links++) {
      for (const budget of budgets) budget.join();
      expect(sum(links)).toBeLessThanOrEqual(64 * MB + 1);
    }
    for (const one of leave) one();
    expect(sum(49)).toBeCloseTo(64 * MB);
  }
});
