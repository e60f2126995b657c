-- How much of a limit or a budget is used within one of its windows, in milliseconds since 1970. Several servers on one Postgres
-- count here; one alone on SQLite counts in memory, and keeps here what has to survive it.
CREATE TABLE counters (
    name TEXT NOT NULL,
    window_start BIGINT NOT NULL,
    window_end BIGINT NOT NULL,
    used BIGINT NOT NULL,
    PRIMARY KEY (name, window_start)
);
CREATE INDEX counters_by_end ON counters (window_end);
