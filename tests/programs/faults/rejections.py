"""Statements that a policy, a view, a trigger or a server rejects, by dialect."""

from rows import CANARY
from shop.db.config.backend import DIALECT

ROLE = "rejected_role"
AS_ROLE = f"SET LOCAL ROLE {ROLE}"


def raised(code, message="rejected"):
    """What a function of PostgreSQL, or a trigger, raises."""
    raising = f"RAISE EXCEPTION '{message}' USING ERRCODE = '{code}'"
    return [f"DO $$ BEGIN {raising}; END $$"]


def signal(number, message="rejected"):
    """What a procedure of MySQL, or a trigger, signals."""
    items = f"MYSQL_ERRNO = {number}, MESSAGE_TEXT = '{message}'"
    return [f"SIGNAL SQLSTATE '45000' SET {items}"]


OF_DIALECT = {
    "postgresql": {
        "policy": [AS_ROLE, "INSERT INTO own_parcels VALUES (-1)"],
        "policy, update": [AS_ROLE, "UPDATE own_parcels SET id = -1"],
        "privilege": [AS_ROLE, "INSERT INTO parcels (id) VALUES (7)"],
        "view": ["INSERT INTO small_parcels VALUES (7)"],
        "trigger": ["INSERT INTO checked_parcels VALUES (:value)"],
        "42501": raised("42501"),
        "key twice": [
            "INSERT INTO own_parcels VALUES (8), (8)"
            " ON CONFLICT (id) DO UPDATE SET id = excluded.id"
        ],
        "rows for one": ["SELECT (SELECT id FROM own_parcels)"],
        **{code: raised(code) for code in ("58030", "25P04")},
    },
    "mysql": {
        "view": ["INSERT INTO small_parcels VALUES (7)"],
        "trigger": signal(1644, CANARY),
        "cast": ["SELECT CAST(:value AS SIGNED)"],
        "file": signal(
            1290,
            "The server is running with the --secure-file-priv option so it cannot"
            " execute this statement",
        ),
        **{
            f"{number}": signal(number)
            for number in (1114, 1038, 1135, 1637, 1047, 1030, 3157, 3685, 3699)
        },
    },
    "sqlite": {"trigger": ["INSERT INTO checked_parcels VALUES (:value)"]},
}
REJECTIONS = OF_DIALECT[DIALECT]
VIEW = (
    "DROP VIEW IF EXISTS small_parcels",
    "CREATE VIEW small_parcels AS SELECT id FROM parcels WHERE id < 1"
    " WITH CHECK OPTION",
)
CHECKED = (
    "DROP TABLE IF EXISTS checked_parcels",
    "CREATE TABLE checked_parcels (name TEXT)",
)
SETUP = {
    "postgresql": (
        *VIEW,
        *CHECKED,
        "CREATE OR REPLACE FUNCTION reject() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'no %', NEW.name; END $$",
        "CREATE TRIGGER reject BEFORE INSERT ON checked_parcels FOR EACH ROW"
        " EXECUTE FUNCTION reject()",
        "DROP TABLE IF EXISTS own_parcels",
        "CREATE TABLE own_parcels (id int PRIMARY KEY)",
        "INSERT INTO own_parcels VALUES (1), (2)",
        "ALTER TABLE own_parcels ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY own ON own_parcels USING (true) WITH CHECK (id > 0)",
        f"DO $$ BEGIN CREATE ROLE {ROLE}; EXCEPTION WHEN duplicate_object"
        " THEN NULL; END $$",
        f"GRANT ALL ON own_parcels TO {ROLE}",
    ),
    "mysql": VIEW,
    "sqlite": (
        *CHECKED,
        "CREATE TRIGGER reject BEFORE INSERT ON checked_parcels"
        f" BEGIN SELECT RAISE(ABORT, '{CANARY}'); END",
    ),
}[DIALECT]
