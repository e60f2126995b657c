-- A known text, sealed with the key of the secrets: whoever cannot open it has another key.
CREATE TABLE secrets_check (
    singleton BIGINT PRIMARY KEY,
    sealed TEXT NOT NULL
);
