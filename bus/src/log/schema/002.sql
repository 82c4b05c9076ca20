-- The steps of a run.
CREATE INDEX delivery_run ON delivery (run) WHERE run IS NOT NULL;

-- What is unended and has a key: the next of a key is found without a look at the others.
CREATE INDEX delivery_key ON delivery (target, key, seq) WHERE key IS NOT NULL AND status IN (0, 1, 2, 3);
