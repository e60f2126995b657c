-- Who used what: one row a request. The columns are those of `system.serving.endpoint_usage`, and a few more. The key is made
-- by the server; `request_id` is what the caller's header or the log calls the request, and may repeat.
CREATE TABLE usage (
    databricks_request_id TEXT PRIMARY KEY,
    request_id TEXT NOT NULL,
    client_request_id TEXT,
    request_time BIGINT NOT NULL,
    execution_duration_ms BIGINT NOT NULL,
    status_code BIGINT NOT NULL,
    requester TEXT NOT NULL,
    requester_id TEXT NOT NULL,
    endpoint_id TEXT NOT NULL,
    endpoint_name TEXT NOT NULL,
    served_entity_id TEXT NOT NULL,
    served_entity_name TEXT NOT NULL,
    input_token_count BIGINT NOT NULL,
    output_token_count BIGINT NOT NULL,
    input_character_count BIGINT,
    output_character_count BIGINT,
    request_streaming BIGINT NOT NULL,
    usage_context TEXT NOT NULL
);
CREATE INDEX usage_by_time ON usage (request_time, databricks_request_id);
CREATE INDEX usage_by_endpoint ON usage (endpoint_id, request_time);
CREATE INDEX usage_by_requester ON usage (requester_id, request_time);

-- What has answered, version by version: the columns of `system.serving.served_entities` that this server has something for.
CREATE TABLE served_entities (
    served_entity_id TEXT NOT NULL,
    endpoint_config_version BIGINT NOT NULL,
    change_time BIGINT NOT NULL,
    endpoint_delete_time BIGINT,
    endpoint_id TEXT NOT NULL,
    endpoint_name TEXT NOT NULL,
    served_entity_name TEXT NOT NULL,
    entity_type TEXT NOT NULL,
    entity_name TEXT NOT NULL,
    entity_version TEXT,
    task TEXT,
    created_by TEXT NOT NULL,
    external_model_config TEXT,
    foundation_model_config TEXT,
    PRIMARY KEY (served_entity_id, endpoint_config_version)
);
CREATE INDEX served_entities_by_endpoint ON served_entities (endpoint_id);
