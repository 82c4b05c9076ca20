//! What the log says, in words and as a sum.

use std::hash::{DefaultHasher, Hash};

use rusqlite::{Connection, types::ValueRef};

/// What the log says, for people.
pub(super) fn show(connection: &Connection) {
    let deliveries = "SELECT 'delivery ' || seq || ' of event ' || event || ' to ' || target || ' status ' || status || \
                      ' reason ' || coalesce(reason, '-') || ' attempts ' || attempts || ' key ' || coalesce(key, '-') || \
                      ' step ' || coalesce(run || ' ' || step, '-') FROM delivery ORDER BY seq";
    let attempts = "SELECT 'attempt ' || (id & 4095) || ' of ' || (id >> 12) || ' ' || coalesce(outcome, 'open') \
                    FROM attempt ORDER BY id";
    for sql in [deliveries, attempts] {
        let mut statement = connection.prepare(sql).unwrap();
        let lines = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        lines.for_each(|line| println!("{}", line.unwrap()));
    }
}

/// Adds all that a table holds to the sum.
pub(super) fn sum_table(connection: &Connection, table: &str, sum: &mut DefaultHasher) {
    let mut statement = connection.prepare_cached(&format!("SELECT * FROM {table} ORDER BY 1, 2")).unwrap();
    let columns = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        for column in 0..columns {
            match row.get_ref(column).unwrap() {
                ValueRef::Null => 0.hash(sum),
                ValueRef::Integer(number) => number.hash(sum),
                ValueRef::Real(number) => number.to_bits().hash(sum),
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.hash(sum),
            }
        }
    }
}
