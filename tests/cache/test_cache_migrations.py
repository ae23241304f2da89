"""Stores of older formats are brought to the present one: whole or not at all, once, whatever is killed meanwhile."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from golden_store import FORMATS, restore

from cache import migrations
from cache.database import Database
from cache.digest import Digest
from cache.errors import StoreVersionError
from cache.migrations import SCHEMA_VERSION
from cache.snapshots import EMPTY
from cache.store import Store

PROJECT = str(Path(__file__).resolve().parents[2])
TOP = "sha256:06ea1cec7147f93f7e4d74bc1ec22004ae5bcc555f3a2c3c9bcc70bfbbb38bd4"
KEY = "aac2c0cfee4cc7c66885a87589b65d62892a58257c853ab8d9eab25e20df4286"


def layout(path: Path) -> list[tuple[str, str, str]]:
    """The tables, columns and indexes of a database."""
    with sqlite3.connect(path) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = [
            (name, *map(str, row[1:3])) for name in names for row in connection.execute(f"PRAGMA table_info({name})")
        ]
        found += [
            ("index", row[0], "") for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")
        ]
    connection.close()
    return sorted(found)


@pytest.mark.parametrize("version", FORMATS)
def test_a_golden_store_is_upgraded_and_keeps_what_it_had(tmp_path, version):
    root = restore(version, tmp_path / "store")
    with Store.open(str(root)) as store:
        record = store.records.get(KEY)
        assert record is not None
        snapshot = store.snapshots.get(record.chain_id)
        assert snapshot is not None
        one, two = reversed(store.snapshots.lower_dirs(snapshot))
        assert Path(one, "one").read_text() == "one\n"
        assert Path(two, "sub/two").read_text() == "two\n"
        image = store.images.get("docker.io/library/golden:1")
        assert image is not None
        assert store.blobs.read(Digest(image.manifest_digest))
        assert store.layers.blob(snapshot.layers[0])[1] == snapshot.layers[0].diff_id
        active = store.snapshots.prepare(snapshot)
        Path(active.upper_dir, "new").write_text("new")
        assert len(store.snapshots.commit(active).layers) == 3
    assert Store.open(str(root)).database.rows("PRAGMA user_version") == [(SCHEMA_VERSION,)]


@pytest.mark.parametrize("version", FORMATS)
def test_an_upgraded_database_is_laid_out_as_a_new_one(tmp_path, version):
    Store.open(str(restore(version, tmp_path / "old"))).close()
    Store.open(str(tmp_path / "new")).close()
    assert layout(tmp_path / "old/index.db") == layout(tmp_path / "new/index.db")


def test_a_step_that_fails_leaves_the_old_format(tmp_path, monkeypatch):
    root = restore(1, tmp_path / "store")
    before = layout(root / "index.db")
    broken = (*migrations.MIGRATIONS, "CREATE TABLE extra (a);\nINSERT INTO no_such_table VALUES (1);\n")
    monkeypatch.setattr(migrations, "MIGRATIONS", broken)
    with pytest.raises(Exception, match="no_such_table"):
        Store.open(str(root))
    assert layout(root / "index.db") == before
    monkeypatch.undo()
    Store.open(str(root)).close()


KILLED = """
import os, signal, sys
from cache.database import Database
from cache.store import Store
left = int(sys.argv[2])
write = Database.write
def fatal(self, *arguments):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(self, *arguments)
Database.write = fatal
Store.open(sys.argv[1]).close()
print("done")
"""


def test_a_kill_at_any_statement_of_an_upgrade_leaves_a_store_that_opens(tmp_path):
    for point in range(100):
        root = restore(1, tmp_path / str(point))
        done = subprocess.run(
            [sys.executable, "-c", KILLED, root, str(point)], cwd=PROJECT, capture_output=True, check=False
        )
        with sqlite3.connect(root / "index.db") as connection:
            assert connection.execute("PRAGMA user_version").fetchone()[0] in (1, SCHEMA_VERSION)
        connection.close()
        with Store.open(str(root)) as store:
            assert store.snapshots.get(TOP) is not None
        if b"done" in done.stdout:
            break
    assert 2 < point < 99


def test_several_processes_upgrade_a_store_once(tmp_path):
    root = restore(1, tmp_path / "store")
    code = "import sys; from cache.store import Store; s = Store.open(sys.argv[1]); s.memo.put(sys.argv[2], b'x')"
    words = [sys.executable, "-c", code, str(root)]
    children = [subprocess.Popen([*words, str(n)], cwd=PROJECT, stderr=subprocess.PIPE) for n in range(6)]
    assert [child.communicate()[1] for child in children] == [b""] * 6
    with Store.open(str(root)) as store:
        assert all(store.memo.get(str(number)) for number in range(6))


def test_a_newer_format_is_refused_and_not_touched(tmp_path):
    with Store.open(str(tmp_path / "store")) as store:
        store.database.write(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
        store.snapshots.commit(store.snapshots.prepare(EMPTY))
    before = layout(tmp_path / "store/index.db")
    with pytest.raises(StoreVersionError) as caught:
        Store.open(str(tmp_path / "store"))
    assert "newer pybuild" in str(caught.value.hint)
    assert layout(tmp_path / "store/index.db") == before


def test_an_old_database_is_not_upgraded_where_it_cannot_be_written(tmp_path):
    root = restore(1, tmp_path / "store")
    with pytest.raises(StoreVersionError, match="older"):
        Database(str(root / "index.db"), is_read_only=True)


def test_a_new_database_can_give_pages_back(tmp_path):
    with Store.open(str(tmp_path / "store")) as store:
        assert store.database.rows("PRAGMA auto_vacuum") == [(2,)]
        assert store.database.rows("PRAGMA journal_mode") == [("wal",)]
