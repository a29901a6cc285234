use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use glta_data::Item;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};

use super::forgotten::{Forgotten, Person};
use super::lock::lock;
use crate::{Error, Result};

/// Version of the tables, stored in SQLite's `user_version`.
const FORM: i64 = 1;

const TABLES: &str = "
CREATE TABLE interactions (
  number INTEGER PRIMARY KEY,
  user TEXT NOT NULL,
  item TEXT NOT NULL,
  time INTEGER,
  received INTEGER NOT NULL,
  key TEXT NOT NULL UNIQUE
) STRICT;
CREATE INDEX interactions_by_user ON interactions (user);
CREATE TABLE items (
  id TEXT PRIMARY KEY,
  fields TEXT NOT NULL,
  received INTEGER NOT NULL
) STRICT;
CREATE TABLE forgotten (person BLOB PRIMARY KEY, received INTEGER NOT NULL) STRICT;
CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
INSERT INTO settings VALUES ('salt', randomblob(16));
";

/// An interaction of a user with an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Raw user id.
    pub user: String,
    /// Raw item id.
    pub item: String,
    /// Time in seconds since 1970; `None` if it is unknown.
    pub time: Option<i64>,
    /// Id of the interaction, chosen by the sender. An interaction with a known id is not stored
    /// again. Two interactions without ids are the same if their users, items and times are equal.
    pub id: Option<String>,
}

impl Event {
    fn key(&self) -> String {
        match &self.id {
            Some(id) => format!("id {id}"),
            None => format!("of {:?}", (&self.user, &self.item, self.time)),
        }
    }
}

/// The writes of a service in an SQLite file: interactions, items and deleted users.
///
/// A service opens the journal for writing. [`Journal::read`] opens it for a fit, also while a
/// service runs.
///
/// ```no_run
/// use glta_serve::Journal;
///
/// let journal = Journal::read("runs/shop.journal.sqlite")?;
/// for event in journal.interactions()? {
///     println!("{} {} {:?}", event.user, event.item, event.time);
/// }
/// assert!(!journal.is_forgotten("ann"));
/// # Ok::<(), glta_serve::Error>(())
/// ```
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    connection: Connection,
    forgotten: Forgotten,
    _lock: Option<File>,
}

impl Journal {
    /// Opens a journal for reading.
    ///
    /// # Errors
    /// Returns [`Error::Journal`] if the file does not exist or is not a journal.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let failed = |e| failed(path, e);
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.pragma_update(None, "query_only", true).map_err(failed)?;
        Self::opened(path, connection, None)
    }

    /// Opens a journal for writing, and creates it if it does not exist.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        let Some(lock) = lock(path).map_err(io)? else {
            return Err(Error::Journal {
                path: path.to_owned(),
                problem: "another service writes to it; each service needs its own journal".into(),
            });
        };
        let failed = |e| failed(path, e);
        let connection = Connection::open(path).map_err(failed)?;
        // With these settings readers never wait for the writer, a commit is on disk when it
        // returns, and deleted data are overwritten.
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        connection.pragma_update(None, "secure_delete", true).map_err(failed)?;
        let version: i64 = version(&connection).map_err(failed)?;
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(failed)?;
        if version == 0 && tables == 0 {
            connection
                .execute_batch(&format!("BEGIN; {TABLES} PRAGMA user_version = {FORM}; COMMIT;"))
                .map_err(failed)?;
        }
        Self::opened(path, connection, Some(lock))
    }

    fn opened(path: &Path, connection: Connection, lock: Option<File>) -> Result<Self> {
        let failed = |e| failed(path, e);
        connection.busy_timeout(std::time::Duration::from_secs(10)).map_err(failed)?;
        let version = version(&connection).map_err(failed)?;
        if version != FORM {
            let problem = match version {
                0 => "it is not the journal of a service".to_owned(),
                other => format!("it has version {other}, but this program reads version {FORM}"),
            };
            return Err(Error::Journal { path: path.to_owned(), problem });
        }
        let salt = connection
            .query_row("SELECT value FROM settings WHERE name = 'salt'", [], |row| row.get(0))
            .map_err(failed)?;
        let forgotten: Vec<Person> = {
            let mut rows = connection.prepare("SELECT person FROM forgotten").map_err(failed)?;
            let all = rows.query_map([], |row| row.get(0)).map_err(failed)?;
            all.collect::<rusqlite::Result<_>>().map_err(failed)?
        };
        let forgotten = Forgotten::new(salt, forgotten);
        Ok(Self { path: path.to_owned(), connection, forgotten, _lock: lock })
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns all interactions in the order of their arrival. An interaction without a time gets
    /// the time of its arrival.
    ///
    /// # Errors
    /// Returns [`Error::Journal`] for a damaged file.
    pub fn interactions(&self) -> Result<Vec<Event>> {
        let query = "SELECT user, item, coalesce(time, received), key FROM interactions
                     ORDER BY number";
        self.rows(query, |row| {
            let key: String = row.get(3)?;
            let id = key.strip_prefix("id ").map(str::to_owned);
            Ok(Event { user: row.get(0)?, item: row.get(1)?, time: row.get(2)?, id })
        })
    }

    /// Returns the items that were added or changed, by raw id, with their last fields.
    ///
    /// # Errors
    /// Returns [`Error::Journal`] for a damaged file.
    pub fn items(&self) -> Result<BTreeMap<String, Item>> {
        let rows: Vec<(String, String)> =
            self.rows("SELECT id, fields FROM items", |row| Ok((row.get(0)?, row.get(1)?)))?;
        let item = |(id, fields): (String, String)| {
            let item = serde_json::from_str(&fields).map_err(|e| Error::Journal {
                path: self.path.clone(),
                problem: format!("item {id}: {e}"),
            })?;
            Ok((id, item))
        };
        rows.into_iter().map(item).collect()
    }

    /// Returns whether the user was deleted, so that data about the user from before the deletion
    /// must be left out. The interactions of the user in the journal are later than the deletion.
    pub fn is_forgotten(&self, user: &str) -> bool {
        self.forgotten.contains(user)
    }

    pub(crate) fn forgotten(&self) -> &Forgotten {
        &self.forgotten
    }

    fn rows<T>(
        &self,
        query: &str,
        row: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let failed = |e| failed(&self.path, e);
        let mut rows = self.connection.prepare(query).map_err(failed)?;
        let all = rows.query_map([], row).map_err(failed)?;
        all.collect::<rusqlite::Result<_>>().map_err(failed)
    }

    /// Runs `work` in one transaction, which is on disk when the method returns.
    pub(crate) fn commit<T>(
        &mut self,
        work: impl FnOnce(&mut Rows<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let path = self.path.clone();
        let failed = |e| failed(&path, e);
        let (done, forgotten) = {
            let transaction = self.connection.transaction().map_err(failed)?;
            let (known, forgotten) = (&self.forgotten, Vec::new());
            let mut rows = Rows { transaction, known, forgotten, now: now() };
            let done = work(&mut rows).map_err(failed)?;
            let Rows { transaction, forgotten, .. } = rows;
            transaction.commit().map_err(failed)?;
            (done, forgotten)
        };
        if !forgotten.is_empty() {
            self.forgotten.extend(forgotten);
            // Truncate the write-ahead log, because deleted data would remain in it.
            let truncated =
                self.connection
                    .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
            if !matches!(truncated, Ok(0)) {
                tracing::warn!(
                    "{}: deleted data will be overwritten by a later write",
                    self.path.display()
                );
            }
        }
        Ok(done)
    }
}

/// The tables of the journal within a transaction.
pub(crate) struct Rows<'a> {
    transaction: Transaction<'a>,
    known: &'a Forgotten,
    forgotten: Vec<Person>,
    now: i64,
}

/// The result of adding an interaction.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Added {
    New,
    /// The interaction is already stored.
    Known,
    /// The id of the interaction belongs to a different interaction.
    Taken,
}

impl Rows<'_> {
    pub(crate) fn add(&mut self, event: &Event) -> rusqlite::Result<Added> {
        let key = event.key();
        let insert = "INSERT INTO interactions (user, item, time, received, key)
                      VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (key) DO NOTHING";
        let Event { user, item, time, .. } = event;
        let mut insert = self.transaction.prepare_cached(insert)?;
        if insert.execute(params![user, item, time, self.now, key])? == 1 {
            return Ok(Added::New);
        }
        let same = "SELECT user = ?2 AND item = ?3 AND time IS ?4 FROM interactions WHERE key = ?1";
        let mut same = self.transaction.prepare_cached(same)?;
        let same = same.query_row(params![key, user, item, time], |row| row.get(0)).optional()?;
        Ok(if same == Some(true) { Added::Known } else { Added::Taken })
    }

    pub(crate) fn put(&mut self, item: &Item) -> rusqlite::Result<()> {
        let fields = serde_json::to_string(item)
            .map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
        let put = "INSERT OR REPLACE INTO items (id, fields, received) VALUES (?1, ?2, ?3)";
        self.transaction.prepare_cached(put)?.execute(params![item.raw_id, fields, self.now])?;
        Ok(())
    }

    pub(crate) fn forget(&mut self, user: &str) -> rusqlite::Result<()> {
        self.transaction.execute("DELETE FROM interactions WHERE user = ?1", [user])?;
        let person = self.known.person(user);
        let put = "INSERT OR REPLACE INTO forgotten (person, received) VALUES (?1, ?2)";
        self.transaction.execute(put, params![person, self.now])?;
        self.forgotten.push(person);
        Ok(())
    }

    /// Runs `work`, and rolls back its changes if it returns `false`.
    pub(crate) fn whole(
        &mut self,
        work: impl FnOnce(&mut Self) -> rusqlite::Result<bool>,
    ) -> rusqlite::Result<()> {
        self.transaction.execute_batch("SAVEPOINT part")?;
        if !work(self)? {
            self.transaction.execute_batch("ROLLBACK TO part")?;
        }
        self.transaction.execute_batch("RELEASE part")
    }
}

/// Returns the default path of a model's journal, which is next to the model's folder or link.
pub(crate) fn path_for(model: &Path) -> std::io::Result<PathBuf> {
    let absolute = std::path::absolute(model)?;
    let beside = match (absolute.file_name(), absolute.parent()) {
        (Some(_), Some(_)) => absolute,
        _ => absolute.canonicalize()?,
    };
    let mut name = beside.file_name().unwrap_or_default().to_owned();
    name.push(".journal.sqlite");
    Ok(beside.with_file_name(name))
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

fn failed(path: &Path, error: rusqlite::Error) -> Error {
    Error::Journal { path: path.to_owned(), problem: error.to_string() }
}
