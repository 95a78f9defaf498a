import { createRequire } from 'node:module';
import type { History } from '@temporalio/common/lib/proto-utils.js';

interface ProtoJson {
  fromJson(type: object, json: unknown, options: { ignoreUnknownFields: boolean }): unknown;
  toJson(type: object, message: unknown): unknown;
}

// Hazard: `historyToJSON` and `historyFromJSON` of @temporalio/common answer "type must be a Type" when npm has installed protobufjs once
// for it and once for @temporalio/proto, as it does here. The copy that made the types is the one that knows them.
const common = createRequire(createRequire(import.meta.url).resolve('@temporalio/common'));
const proto = createRequire(common.resolve('@temporalio/proto'));
const protoJson = proto('protobufjs/ext/protojson') as ProtoJson;
const root = common('@temporalio/proto') as { lookupType(name: string): object };
const historyType = root.lookupType('temporal.api.history.v1.History');

/** A history from the JSON of Temporal's tools (`temporal workflow show --output json`). Throws for other JSON. */
export function historyFromJson(json: unknown): History {
  return protoJson.fromJson(historyType, json, { ignoreUnknownFields: true }) as History;
}

/** A history as the JSON of Temporal's tools. */
export function historyToJson(history: History): { events: unknown[] } {
  return protoJson.toJson(historyType, history) as { events: unknown[] };
}
