/**
 * The control schema `interlock` of every MySQL store. It is in the binlog (links read ownership and markers from it in band)
 * and is never replicated as data. Valid on MySQL 8.0 and MariaDB 10.11.
 *
 * unit_state   who may write a unit here. An absent row means no.
 * marker       records that Interlock writes into this store's own stream; a link that meets one has seen all before it.
 * link_checkpoint  the transaction table: the first row that a link writes in each transaction it applies here. It breaks loops
 *              (the reverse link drops transactions that begin with it) and is the checkpoint.
 * link_unit    the owners of the source's units as of the link's checkpoint, as read from the source's stream.
 * dc_read_only  one row: whether this server's `read_only` is wanted for the whole data center (see read-only.ts).
 * link_copy    the tables that a link still copies into this store, each with how far it is; done ones stay until the next copy.
 * copy_watermark  one row per link that copies out of this store: changes of rows that were read between two watermarks are in the stream.
 * conflict     rows that a link into this store did not find as its source had them, with all images, and which of them was kept.
 * quarantine   transactions that a link could not apply here, whole; those that are too large for a row, in quarantine_part.
 * ddl_step  the statements that `interlock ddl apply` runs here, and how far each is: a link into this store waits for what is under way.
 * rules, report, verification  only in use in the control store.
 */
export const CONTROL_SCHEMA = 'interlock';

export const CONTROL_TABLES: Readonly<Record<string, string>> = {
  unit_state: `CREATE TABLE IF NOT EXISTS interlock.unit_state (
    unit VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    state ENUM('open','write_disabled','remote') NOT NULL,
    owner VARCHAR(63) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    epoch BIGINT UNSIGNED NOT NULL,
    mapping_version BIGINT UNSIGNED NOT NULL,
    server VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    holder_workflow VARCHAR(255) CHARACTER SET utf8mb4 NULL,
    holder_run VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL
  ) ENGINE=InnoDB`,
  marker: `CREATE TABLE IF NOT EXISTS interlock.marker (
    id VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    workflow_id VARCHAR(255) CHARACTER SET utf8mb4 NOT NULL,
    run_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    epoch BIGINT UNSIGNED NOT NULL,
    created_at DATETIME(6) NOT NULL
  ) ENGINE=InnoDB`,
  link_checkpoint: `CREATE TABLE IF NOT EXISTS interlock.link_checkpoint (
    link VARCHAR(191) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    generation BIGINT UNSIGNED NOT NULL,
    position MEDIUMTEXT CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    source_server VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    marker VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NULL,
    seq BIGINT UNSIGNED NOT NULL,
    updated_at DATETIME(6) NOT NULL
  ) ENGINE=InnoDB`,
  link_unit: `CREATE TABLE IF NOT EXISTS interlock.link_unit (
    link VARCHAR(191) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    unit VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    state ENUM('open','write_disabled','remote') NOT NULL,
    owner VARCHAR(63) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    epoch BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (link, unit)
  ) ENGINE=InnoDB`,
  dc_read_only: `CREATE TABLE IF NOT EXISTS interlock.dc_read_only (
    id TINYINT UNSIGNED NOT NULL PRIMARY KEY,
    wanted TINYINT UNSIGNED NOT NULL,
    settled TINYINT UNSIGNED NOT NULL,
    epoch BIGINT UNSIGNED NOT NULL,
    server VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    holder_workflow VARCHAR(255) CHARACTER SET utf8mb4 NOT NULL,
    holder_run VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
  ) ENGINE=InnoDB`,
  link_copy: `CREATE TABLE IF NOT EXISTS interlock.link_copy (
    link VARCHAR(191) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    name VARCHAR(129) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    purpose ENUM('fill','merge','resync') NOT NULL,
    state ENUM('waiting','copying','done') NOT NULL,
    last_key MEDIUMTEXT CHARACTER SET utf8mb4 NULL,
    estimated BIGINT UNSIGNED NOT NULL,
    compared BIGINT UNSIGNED NOT NULL,
    written BIGINT UNSIGNED NOT NULL,
    removed BIGINT UNSIGNED NOT NULL,
    kept BIGINT UNSIGNED NOT NULL,
    max_rows_per_second INT UNSIGNED NULL,
    updated_at DATETIME(6) NOT NULL,
    PRIMARY KEY (link, name)
  ) ENGINE=InnoDB`,
  copy_watermark: `CREATE TABLE IF NOT EXISTS interlock.copy_watermark (
    link VARCHAR(191) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    generation BIGINT UNSIGNED NOT NULL,
    seq BIGINT UNSIGNED NOT NULL,
    edge ENUM('low','high') NOT NULL
  ) ENGINE=InnoDB`,
  conflict: `CREATE TABLE IF NOT EXISTS interlock.conflict (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    link VARCHAR(191) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    gtid VARCHAR(191) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    name VARCHAR(129) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    row_key MEDIUMTEXT CHARACTER SET utf8mb4 NOT NULL,
    unit VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL,
    kind ENUM('exists','missing','differs','not-owned') NOT NULL,
    policy VARCHAR(255) CHARACTER SET utf8mb4 NOT NULL,
    kept ENUM('source','target') NOT NULL,
    state ENUM('open','wanted','resolved') NOT NULL,
    images LONGTEXT CHARACTER SET utf8mb4 NOT NULL,
    created_at DATETIME(6) NOT NULL,
    resolved_at DATETIME(6) NULL,
    KEY open_ones (link, state)
  ) ENGINE=InnoDB`,
  quarantine: `CREATE TABLE IF NOT EXISTS interlock.quarantine (
    id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    link VARCHAR(191) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    gtid VARCHAR(191) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    reason TEXT CHARACTER SET utf8mb4 NOT NULL,
    tries INT UNSIGNED NOT NULL,
    passed TINYINT UNSIGNED NOT NULL,
    state ENUM('open','retry','applied','discarded') NOT NULL,
    units MEDIUMTEXT CHARACTER SET utf8mb4 NOT NULL,
    changes LONGTEXT CHARACTER SET utf8mb4 NOT NULL,
    created_at DATETIME(6) NOT NULL,
    changed_at DATETIME(6) NOT NULL,
    UNIQUE KEY one (link, gtid),
    KEY open_ones (link, state)
  ) ENGINE=InnoDB`,
  quarantine_part: `CREATE TABLE IF NOT EXISTS interlock.quarantine_part (
    quarantine BIGINT UNSIGNED NOT NULL,
    part INT UNSIGNED NOT NULL,
    body MEDIUMBLOB NOT NULL,
    PRIMARY KEY (quarantine, part)
  ) ENGINE=InnoDB`,
  ddl_step: `CREATE TABLE IF NOT EXISTS interlock.ddl_step (
    change_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    seq INT UNSIGNED NOT NULL,
    name VARCHAR(129) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    statement MEDIUMTEXT CHARACTER SET utf8mb4 NOT NULL,
    dropped TEXT CHARACTER SET utf8mb4 NULL,
    state ENUM('planned','running','executed','done','failed') NOT NULL,
    algorithm VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NULL,
    updated_at DATETIME(6) NOT NULL,
    PRIMARY KEY (change_id, seq)
  ) ENGINE=InnoDB`,
  rules: `CREATE TABLE IF NOT EXISTS interlock.rules (
    epoch BIGINT UNSIGNED NOT NULL PRIMARY KEY,
    document LONGTEXT CHARACTER SET utf8mb4 NOT NULL,
    hash CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    reason VARCHAR(1024) CHARACTER SET utf8mb4 NOT NULL,
    created_at DATETIME(6) NOT NULL
  ) ENGINE=InnoDB`,
  report: `CREATE TABLE IF NOT EXISTS interlock.report (
    run_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    document LONGTEXT CHARACTER SET utf8mb4 NOT NULL,
    created_at DATETIME(6) NOT NULL
  ) ENGINE=InnoDB`,
  verification: `CREATE TABLE IF NOT EXISTS interlock.verification (
    run_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    document LONGTEXT CHARACTER SET utf8mb4 NOT NULL,
    created_at DATETIME(6) NOT NULL
  ) ENGINE=InnoDB`,
};
