/**
 * What an operator does with a Redis that has lost data: it stays closed until then.
 * @param link the inbound one, as a person would know it
 */
export function howToReopen({ dc, store }: { dc: string; store: string }, link = 'its inbound link'): string {
  return `Copy it again (\`interlock replicate resync\` of ${link}); what ${dc} itself owned is then in the other data center only: compare, and put it back. Then: \`interlock rules reassert --dc ${dc} --accept-loss redis/${store}\``;
}
