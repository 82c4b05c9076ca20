-- The log of one node. Times are microseconds since 1970, ids are 16-byte UUIDs unless they came from outside.

CREATE TABLE identity (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id  BLOB NOT NULL
);

-- What happened, byte for byte.
CREATE TABLE event (
    seq         INTEGER PRIMARY KEY,
    id          NOT NULL,           -- BLOB: made here, time-ordered; TEXT: foreign, found through `seen`
    source      TEXT NOT NULL,
    type        TEXT NOT NULL,
    time        INTEGER NOT NULL,
    subject     TEXT,
    trigger     TEXT,
    key         TEXT,               -- what order_by picked out
    meta        TEXT,               -- the other attributes and the trigger's facts, JSON
    data        BLOB,               -- NULL once retention took the body
    hash        BLOB,               -- first 16 bytes of the body's SHA-256
    correlation,
    causation,
    hop         INTEGER NOT NULL,
    received    INTEGER NOT NULL
);
-- Only ids made here are indexed: they arrive in order, which makes the index half as dear.
CREATE UNIQUE INDEX event_id ON event (id) WHERE typeof(id) = 'blob';

-- One event for one target, in one generation.
CREATE TABLE delivery (
    seq         INTEGER PRIMARY KEY,
    born        INTEGER NOT NULL,   -- milliseconds and salt of its id
    event       INTEGER NOT NULL,
    target      TEXT NOT NULL,
    trigger     TEXT,               -- the binding it follows from
    format      INTEGER NOT NULL,   -- the payload's shape, decided when it was matched
    generation  INTEGER NOT NULL,
    publication INTEGER NOT NULL,
    status      INTEGER NOT NULL,
    reason      TEXT,               -- why it is dead
    attempts    INTEGER NOT NULL DEFAULT 0,
    retry_at    INTEGER,
    ended       INTEGER,
    key         TEXT,
    run         INTEGER,
    step        TEXT,
    replay      INTEGER
);
CREATE INDEX delivery_event ON delivery (event);
-- Only what is unended: these stay as small as the backlog.
CREATE INDEX delivery_open ON delivery (target, seq) WHERE status IN (0, 1, 2);
CREATE INDEX delivery_due ON delivery (retry_at) WHERE status = 3;
CREATE INDEX delivery_dead ON delivery (seq) WHERE status IN (11, 12);

-- One execution of a delivery. id = delivery << 12 | n, so a delivery's attempts lie together without an index.
CREATE TABLE attempt (
    id          INTEGER PRIMARY KEY,
    born        INTEGER NOT NULL,
    invocation  BLOB,               -- shared by the attempts of one batch
    node        TEXT NOT NULL,
    version     TEXT,
    started     INTEGER,
    queue_us    INTEGER,
    start_us    INTEGER,
    init_us     INTEGER,
    run_us      INTEGER,
    cold        INTEGER,            -- 0 warm, 1 partial, 2 cold
    outcome     TEXT,               -- NULL while it is open
    output      BLOB,
    error       TEXT,               -- JSON {kind, message}
    log         TEXT,               -- the last lines of stdout and stderr
    ended       INTEGER
);

-- One execution of a pipeline.
CREATE TABLE run (
    seq         INTEGER PRIMARY KEY,
    born        INTEGER NOT NULL,
    pipeline    TEXT NOT NULL,
    event       INTEGER NOT NULL,
    delivery    INTEGER,
    status      INTEGER NOT NULL,
    state       TEXT,
    started     INTEGER NOT NULL,
    ended       INTEGER
);
CREATE INDEX run_delivery ON run (delivery);

-- A named job that delivers a fixed set of events again.
CREATE TABLE replay (
    seq         INTEGER PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    reason      TEXT,
    selection   TEXT NOT NULL,      -- what was asked for, JSON
    target      TEXT,               -- NULL: each delivery's own
    hold        INTEGER NOT NULL,
    status      INTEGER NOT NULL,
    total       INTEGER NOT NULL,
    created     INTEGER NOT NULL,
    ended       INTEGER
);

-- What a trigger remembers, written with the events it goes with: the inventory of watched files, the last cron slot.
CREATE TABLE mark (
    trigger     TEXT NOT NULL,
    key         TEXT NOT NULL,
    value       TEXT NOT NULL,
    PRIMARY KEY (trigger, key)
) WITHOUT ROWID;

-- The foreign ids that were met before.
CREATE TABLE seen (
    id          TEXT NOT NULL,
    scope       TEXT NOT NULL,
    hash        BLOB NOT NULL,
    event       INTEGER NOT NULL,
    PRIMARY KEY (id, scope)
) WITHOUT ROWID;
