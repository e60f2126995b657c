-- One text for SQLite and Postgres. Times are milliseconds since 1970; documents are JSON.

-- Every change of the control plane takes the next number, so that other processes on this store can follow.
CREATE TABLE revision (
    singleton BIGINT PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO revision (singleton, value) VALUES (1, 0);

CREATE TABLE changes (
    revision BIGINT PRIMARY KEY,
    subject TEXT NOT NULL,
    id TEXT NOT NULL
);

-- Users, service principals and groups. `origin`: `api`, or `config` for what the configuration file declares.
CREATE TABLE principals (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    display_name TEXT NOT NULL,
    active BIGINT NOT NULL,
    external_id TEXT,
    origin TEXT NOT NULL,
    created BIGINT NOT NULL,
    UNIQUE (kind, name)
);

CREATE TABLE members (
    group_id TEXT NOT NULL REFERENCES principals (id) ON DELETE CASCADE,
    member_id TEXT NOT NULL REFERENCES principals (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, member_id)
);

INSERT INTO principals (id, kind, name, display_name, active, external_id, origin, created) VALUES
    ('1', 'group', 'admins', 'admins', 1, NULL, 'built-in', 0),
    ('2', 'group', 'users', 'users', 1, NULL, 'built-in', 0),
    ('3', 'user', 'admin', 'admin', 1, NULL, 'built-in', 0);
INSERT INTO members (group_id, member_id) VALUES ('1', '3');

-- `hash` is the SHA-256 of the token, which is stored nowhere.
CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    principal_id TEXT NOT NULL REFERENCES principals (id) ON DELETE CASCADE,
    hash TEXT NOT NULL UNIQUE,
    comment TEXT NOT NULL,
    origin TEXT NOT NULL,
    created BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires BIGINT
);

CREATE TABLE endpoints (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    creator TEXT NOT NULL,
    created BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    document TEXT NOT NULL
);

-- Endpoints that the command line and the configuration file name have grants too, and no row of their own.
CREATE TABLE grants (
    endpoint_id TEXT NOT NULL,
    principal_id TEXT NOT NULL REFERENCES principals (id) ON DELETE CASCADE,
    level TEXT NOT NULL,
    origin TEXT NOT NULL,
    PRIMARY KEY (endpoint_id, principal_id)
);

CREATE TABLE secret_scopes (
    name TEXT PRIMARY KEY,
    created BIGINT NOT NULL
);

-- `sealed` is what the cipher made of the value.
CREATE TABLE secrets (
    scope TEXT NOT NULL REFERENCES secret_scopes (name) ON DELETE CASCADE,
    key TEXT NOT NULL,
    sealed TEXT NOT NULL,
    updated BIGINT NOT NULL,
    PRIMARY KEY (scope, key)
);

CREATE TABLE secret_acls (
    scope TEXT NOT NULL REFERENCES secret_scopes (name) ON DELETE CASCADE,
    principal_id TEXT NOT NULL REFERENCES principals (id) ON DELETE CASCADE,
    permission TEXT NOT NULL,
    PRIMARY KEY (scope, principal_id)
);
