-- When an id was met, so that it can be forgotten; what was met before this goes with its event.
ALTER TABLE seen ADD COLUMN at INTEGER NOT NULL DEFAULT 0;
