-- What SCIM says of a principal beyond its names, as JSON in SCIM's own terms.
ALTER TABLE principals ADD COLUMN details TEXT NOT NULL DEFAULT '{}';

-- Whatever is a principal's is looked for when the principal goes.
CREATE INDEX members_by_member ON members (member_id);
CREATE INDEX tokens_by_principal ON tokens (principal_id);
CREATE INDEX grants_by_principal ON grants (principal_id);
CREATE INDEX secret_acls_by_principal ON secret_acls (principal_id);
