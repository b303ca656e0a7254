/**
 * The tables of the log, as steps that are only ever added to. What a part of the log keeps for itself stands beside that part.
 */
import { AUDIT_OUTBOX_SCHEMA } from "../audit/audit.ts";
import { COUNTERS_SCHEMA } from "./counters.ts";
import { STAMP_SCHEMA } from "./cutoff-table.ts";
import { EVENT_STREAMS_SCHEMA } from "./event-streams.ts";
import { LIVING_EVENTS_SCHEMA } from "./event-table.ts";
import { FEED_LEASES_SCHEMA } from "./feed-leases.ts";
import { IDEMPOTENCY_SCHEMA } from "./idempotency-keys.ts";
import { LATENCIES_SCHEMA } from "./latencies.ts";
import { RECEIPT_LIST_SCHEMA } from "./receipt-list.ts";
import { RECEIPTS_SCHEMA } from "./receipts.ts";

export const REVOCATION_LOG_SCHEMA = [
  `CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    targets TEXT NOT NULL,
    code TEXT NOT NULL,
    reason TEXT NOT NULL,
    decided_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
  );
  CREATE TABLE deliveries (
    cluster TEXT NOT NULL,
    seq INTEGER NOT NULL,
    delivered_at INTEGER,
    attempts INTEGER NOT NULL,
    last_error TEXT,
    receipt TEXT,
    PRIMARY KEY (cluster, seq)
  ) WITHOUT ROWID;
  CREATE TABLE cursors (cluster TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE cutoffs (tid TEXT PRIMARY KEY, cutoff INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE tokens (jti TEXT PRIMARY KEY, expires_at INTEGER NOT NULL) WITHOUT ROWID;`,
  `ALTER TABLE events ADD COLUMN tid TEXT;
  ALTER TABLE events ADD COLUMN actor TEXT;
  ALTER TABLE events ADD COLUMN mode TEXT;
  ALTER TABLE events ADD COLUMN margin INTEGER;
  ALTER TABLE events ADD COLUMN batch TEXT;
  CREATE INDEX events_of_batch ON events (batch) WHERE batch IS NOT NULL;
  ${IDEMPOTENCY_SCHEMA}
  ${AUDIT_OUTBOX_SCHEMA}`,
  `ALTER TABLE events ADD COLUMN hits_nobody INTEGER NOT NULL DEFAULT 0;
  ${EVENT_STREAMS_SCHEMA}`,
  `${LIVING_EVENTS_SCHEMA}
  ${FEED_LEASES_SCHEMA}
  ${RECEIPTS_SCHEMA}`,
  STAMP_SCHEMA,
  RECEIPT_LIST_SCHEMA,
  COUNTERS_SCHEMA,
  LATENCIES_SCHEMA,
];
