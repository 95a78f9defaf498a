/**
 * The columns of an outbox table, as the SDK writes and the relay reads them. Bytes and not text, where they are the application's: they reach
 * Kafka as they were given.
 */
export const OUTBOX_COLUMNS = ['user_id', 'region', 'topic', 'event_key', 'event_value', 'headers'] as const;
export type OutboxColumn = (typeof OUTBOX_COLUMNS)[number];

/** The longest topic that Kafka takes, and the longest key of an event. */
export const TOPIC_CHARACTERS = 249;
export const KEY_BYTES = 1024;
/** Key, value and headers together: below Kafka's default of `max.message.bytes` (1 048 588), with what a record needs besides. */
export const EVENT_BYTES = 1_000_000;

/** A header of an event: its name, and its bytes in base64. */
export type StoredHeader = [name: string, value: string];

/** The statement that creates an outbox table. @param table `schema.table` */
export function outboxTable(table: string): string {
  const name = table
    .split('.')
    .map((part) => `\`${part.replaceAll('`', '``')}\``)
    .join('.');
  return `CREATE TABLE ${name} (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  user_id VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  region VARCHAR(63) CHARACTER SET ascii COLLATE ascii_bin NULL,
  topic VARCHAR(${TOPIC_CHARACTERS}) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  event_key VARBINARY(${KEY_BYTES}) NOT NULL,
  event_value LONGBLOB NULL,
  headers MEDIUMBLOB NULL,
  created_at DATETIME(6) NOT NULL,
  KEY by_age (created_at)
) ENGINE=InnoDB`;
}
