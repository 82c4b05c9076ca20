-- Where a delivery stands in the line of its key; NULL without a key, and once it has left the line. What is given up
-- leaves it too, unless it is to block those behind it.
ALTER TABLE delivery ADD COLUMN turn INTEGER;
ALTER TABLE delivery ADD COLUMN block INTEGER;
-- When a dead letter was settled by hand, and the event with the corrected body; without one it was dropped.
ALTER TABLE delivery ADD COLUMN settled INTEGER;
ALTER TABLE delivery ADD COLUMN corrected INTEGER;

UPDATE delivery SET turn = seq WHERE key IS NOT NULL AND status IN (0, 1, 2, 3);
DROP INDEX delivery_key;
CREATE INDEX delivery_key ON delivery (target, key, turn) WHERE turn IS NOT NULL;
