/** Of the last fence, in database 0 of the source. */
export const MARKER_KEY = 'interlock:marker';
/** A marker of nobody: the last fence's stays where it is. */
export const PASSAGE_KEY = 'interlock:passage';

/** A marker is never longer. */
export const MARKER_BYTES = 64 * 1024;

export interface Marker {
  id: string;
  workflowId: string;
  runId: string;
}

/** What a fence has written into the marker's key; null: something else is there. */
export function markerOf(value: Buffer): Marker | null {
  try {
    const { id, workflowId, runId } = JSON.parse(value.toString()) as Record<string, unknown>;
    if (typeof id === 'string' && typeof workflowId === 'string' && typeof runId === 'string')
      return { id, workflowId, runId };
  } catch {
    // Somebody else's value: whoever waits for a marker is told nothing by it.
  }
  return null;
}
