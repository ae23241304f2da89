"""The format of `index.db`, step by step: what `user_version` N has that N - 1 had not.

A step is only ever added at the end, and adds (tables, columns with a default, indexes): a program that still has the
database open goes on with what it knows. All missing steps are one transaction, so a crash leaves the old format or the
new one. Knows no connection.
"""

from __future__ import annotations

_FIRST = """
CREATE TABLE layers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    state TEXT NOT NULL,
    lease TEXT NOT NULL DEFAULT '',
    diff_id TEXT NOT NULL DEFAULT '',
    content_digest TEXT NOT NULL DEFAULT '',
    size INTEGER NOT NULL DEFAULT 0,
    entries INTEGER NOT NULL DEFAULT 0,
    tree INTEGER NOT NULL DEFAULT 0,
    boot_id TEXT NOT NULL DEFAULT '',
    portable INTEGER NOT NULL DEFAULT 0,
    imported INTEGER NOT NULL DEFAULT 0,
    blob_digest TEXT NOT NULL DEFAULT '',
    blob_type TEXT NOT NULL DEFAULT '',
    blob_size INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX layers_diff_id ON layers (diff_id);
CREATE TABLE snapshots (
    chain_id TEXT PRIMARY KEY,
    parent TEXT NOT NULL,
    layer_id INTEGER NOT NULL,
    created_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX snapshots_layer ON snapshots (layer_id);
CREATE INDEX snapshots_parent ON snapshots (parent);
CREATE TABLE layer_blobs (
    diff_id TEXT NOT NULL,
    compression TEXT NOT NULL,
    level INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    forced INTEGER NOT NULL,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    blob_diff_id TEXT NOT NULL,
    PRIMARY KEY (diff_id, compression, level, epoch, forced)
) WITHOUT ROWID;
CREATE TABLE records (
    key TEXT PRIMARY KEY,
    chain_id TEXT NOT NULL,
    manifest BLOB NOT NULL,
    created_ns INTEGER NOT NULL,
    seconds REAL NOT NULL,
    used_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE images (
    name TEXT NOT NULL,
    manifest_digest TEXT NOT NULL,
    config_digest TEXT NOT NULL,
    created_ns INTEGER NOT NULL
);
CREATE UNIQUE INDEX images_name ON images (name) WHERE name <> '';
CREATE UNIQUE INDEX images_unnamed ON images (manifest_digest) WHERE name = '';
CREATE TABLE memo (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    value BLOB NOT NULL
);
CREATE TABLE file_digests (
    root TEXT PRIMARY KEY,
    used_ns INTEGER NOT NULL,
    content BLOB NOT NULL
);
"""

_USE = """
ALTER TABLE layers ADD COLUMN disk_size INTEGER NOT NULL DEFAULT -1;
CREATE INDEX records_chain ON records (chain_id);
CREATE TABLE cache_mounts (
    digest TEXT NOT NULL,
    number INTEGER NOT NULL,
    id TEXT NOT NULL,
    created_ns INTEGER NOT NULL,
    used_ns INTEGER NOT NULL,
    PRIMARY KEY (digest, number)
) WITHOUT ROWID;
"""
"""What layers take on the disk (-1: not measured yet), which id a cache mount has and when it was used."""

_NOTES = """
CREATE TABLE key_notes (
    key TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    project TEXT NOT NULL,
    stage TEXT NOT NULL,
    keyword TEXT NOT NULL,
    operation TEXT NOT NULL,
    parent TEXT NOT NULL,
    made_ns INTEGER NOT NULL,
    notes BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX key_notes_operation ON key_notes (operation, kind, made_ns);
CREATE INDEX key_notes_parent ON key_notes (parent, kind, made_ns);
CREATE INDEX key_notes_place ON key_notes (project, stage, keyword, kind, made_ns);
CREATE TRIGGER key_notes_go AFTER DELETE ON records BEGIN DELETE FROM key_notes WHERE key = OLD.key; END;
CREATE TABLE file_lists (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    digest TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    content BLOB NOT NULL
);
"""
"""What explains a key that has no record: notes on former records, and the lists of files that they read."""

_VERSIONS = """
CREATE TABLE image_versions (
    name TEXT NOT NULL,
    number INTEGER NOT NULL,
    manifest_digest TEXT NOT NULL,
    config_digest TEXT NOT NULL,
    since_ns INTEGER NOT NULL,
    parent INTEGER NOT NULL,
    PRIMARY KEY (name, number)
) WITHOUT ROWID;
ALTER TABLE images ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
"""
"""What names of images meant before, and which of that each means now (0: something that is not in the list)."""

MIGRATIONS = (_FIRST, _USE, _NOTES, _VERSIONS)
"""`MIGRATIONS[n]` makes version n + 1 of version n; version 0 is an empty file."""

SCHEMA_VERSION = len(MIGRATIONS)
"""What this program reads and writes."""


def steps(version: int) -> list[str]:
    """The statements that bring a database of `version` to SCHEMA_VERSION, in order."""
    texts = MIGRATIONS[version:]
    return [statement.strip() for text in texts for statement in text.split(";\n") if statement.strip()]
