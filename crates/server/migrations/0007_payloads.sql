-- What was asked and answered, of endpoints that keep an inference table: one row a request, with the columns of such a table.
CREATE TABLE payloads (
    databricks_request_id TEXT PRIMARY KEY,
    client_request_id TEXT,
    request_time BIGINT NOT NULL,
    status_code BIGINT NOT NULL,
    sampling_fraction DOUBLE PRECISION NOT NULL,
    execution_duration_ms BIGINT NOT NULL,
    request TEXT,
    response TEXT,
    logging_error_codes TEXT NOT NULL,
    served_entity_id TEXT NOT NULL,
    requester TEXT NOT NULL,
    endpoint_id TEXT NOT NULL
);
CREATE INDEX payloads_by_endpoint ON payloads (endpoint_id, request_time, databricks_request_id);
CREATE INDEX payloads_by_time ON payloads (request_time);
