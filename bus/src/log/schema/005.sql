-- What was deployed of each function, numbered from 1. Its code is in the data folder, in the folder `code`.
CREATE TABLE version (
    function    TEXT NOT NULL,
    number      INTEGER NOT NULL,
    id          TEXT NOT NULL,      -- as attempts have it
    code        TEXT NOT NULL,
    config      TEXT NOT NULL,      -- what its instances are started with, JSON
    bytes       INTEGER NOT NULL,
    deployed    INTEGER NOT NULL,
    note        TEXT,               -- what became of it
    PRIMARY KEY (function, number)
) WITHOUT ROWID;
CREATE UNIQUE INDEX version_id ON version (function, id);

-- Where an alias of a function leads, when it was moved by hand or by a deploy.
CREATE TABLE alias (
    function    TEXT NOT NULL,
    name        TEXT NOT NULL,
    route       TEXT NOT NULL,      -- JSON
    PRIMARY KEY (function, name)
) WITHOUT ROWID;
