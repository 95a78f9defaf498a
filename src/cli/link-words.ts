import type { LinkAlert } from '../../replicators/core/alerts.js';
import type { CopyProgress, KafkaLinkStatus } from '../../replicators/core/contract.js';
import type { LinkReport } from '../../workers/link-report.js';

/** What `replicate status` says of a link below the table. */
export function linkWords({
  link,
  status: live,
  error,
  next,
  alerts,
}: LinkReport & { alerts: LinkAlert[] }): string {
  const lines = ['', link];
  if (live) {
    const { checkpointAgeMs: age, droppedForeign, binlog } = live;
    lines.push(
      `  applied ${live.position || '–'}`,
      `  source  ${live.sourcePosition || '–'}`,
      `  checkpoint ${age === null ? 'not written yet' : `written ${seconds(age)} ago`}; dropped ${droppedForeign} transactions of the other side`,
    );
    if (binlog?.file != null)
      lines.push(
        `  needs ${binlog.file}, which ${binlog.retentionMs === 0 ? 'the source does not remove by itself' : `the source keeps for ${seconds(binlog.retentionMs)}`}`,
      );
    if (live.kafka) lines.push(...kafkaWords(live.kafka));
    if (live.mends) lines.push(`  ${live.mends} keys are taken from the source again`);
    const leftOut = [
      ...(live.filtered ? [`${live.filtered} commands and copied keys by filters and policy`] : []),
      ...(live.lateDeletions ? [`${live.lateDeletions} deletions of what the source did not own`] : []),
    ];
    if (leftOut.length > 0) lines.push(`  left out: ${leftOut.join(', ')}`);
    if (live.copy) lines.push(`  ${copyWords(live.copy)}`);
  }
  for (const { alert, summary } of alerts) lines.push(`  ALERT ${alert}: ${summary}`);
  if (error) lines.push(`  ${error.code}: ${error.message}`);
  if (next !== null) lines.push(`  next: ${next}`);
  return lines.join('\n');
}

export function copyWords(copy: CopyProgress): string {
  const { tables, tablesDone, table: name, comparedRows, estimatedRows, writtenRows } = copy;
  const counts = [
    `${writtenRows} rows written`,
    ...(copy.removedRows > 0 ? [`${copy.removedRows} removed`] : []),
    ...(copy.keptRows > 0 ? [`${copy.keptRows} differ and are not the source's: left as they are`] : []),
  ];
  if (tablesDone === tables)
    return `copied ${tables} tables: ${comparedRows} rows looked at, ${counts.join(', ')}`;
  const eta = copy.etaSeconds === null ? '' : `, about ${copy.etaSeconds} s left`;
  return `copying ${name ?? ''} (${tablesDone} of ${tables} tables done): ${comparedRows} of about ${estimatedRows} rows, ${copy.rowsPerSecond} rows/s${eta}; ${counts.join(', ')}`;
}

function kafkaWords(kafka: KafkaLinkStatus): string[] {
  const { topics, partitions, lagRecords, behind, deleted, gaps, late, groupPositions: groups } = kafka;
  const lines = [
    `  ${topics} topics, ${partitions} partitions, ${lagRecords} records behind; positions of groups: ${groups.translated} translated, ${groups.own + groups.active} their own`,
  ];
  for (const { topic, partition, lagRecords: records, lagMs } of behind.slice(0, 5))
    lines.push(`  ${topic}-${partition}: ${records} records, ${lagMs} ms behind`);
  for (const { topic, partition, from, to } of gaps)
    lines.push(
      `  ${topic}-${partition}: the source had removed ${from} to ${to - 1} before they were copied`,
    );
  for (const { topic, partition, from } of late)
    lines.push(
      `  ${topic}-${partition}: copied from ${from} on, what was before was gone when the link saw it`,
    );
  if (deleted.length > 0) lines.push(`  deleted at the source, their copies stay: ${deleted.join(', ')}`);
  if (groups.error !== null) lines.push(`  positions of groups: ${groups.error}`);
  return lines;
}

function seconds(ms: number): string {
  return `${Math.round(ms / 1000)} s`;
}
