-- Which entities were asked before the one that answered, and what they failed of: `NAME=STATUS, ...`.
ALTER TABLE usage ADD COLUMN passed_over TEXT;
