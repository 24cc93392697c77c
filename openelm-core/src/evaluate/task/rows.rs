//! Rows of a data set: files of Parquet, JSON and lines of JSON.

use std::{fs::File, path::Path};

use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::{Field, Row},
};
use serde_json::{Map, Value};

use crate::{
    caught,
    documents::parquet_pages,
    error::{Error, Result},
    json::check_depth,
    text_file,
};

/// Largest file in bytes, and largest unpacked page.
const MAX_FILE: u64 = 1 << 30;
const MAX_PAGE: i64 = 256 << 20;
/// Largest unpacked values of a Parquet file, in bytes: text, and about the memory of a value and a
/// row.
const MAX_VALUES: usize = 256 << 20;
const VALUE: usize = 64;
const ROW: usize = 256;
/// Rows of a Parquet file that are unpacked at once.
const ROWS: usize = 16;
/// Deepest nesting of a value.
const MAX_DEPTH: usize = 64;

/// A row.
pub(super) type Columns = Map<String, Value>;

/// Reads the rows of `path`, at most `limit`.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Data`] if it is malformed.
pub(super) fn read(path: &Path, limit: usize) -> Result<Vec<Columns>> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("parquet") => {
            let file = File::open(path).map_err(Error::io(path))?;
            caught::catch(|| parquet_rows(file, limit))
                .unwrap_or_else(|| Err("not a valid parquet file".into()))
                .map_err(|problem| Error::data(path, None, problem))
        }
        _ => json_rows(path, limit),
    }
}

/// Rows of an array of objects, or of a file with an object per line.
fn json_rows(path: &Path, limit: usize) -> Result<Vec<Columns>> {
    let wrong = |problem| Error::data(path, None, problem);
    let text = text_file::read(path, MAX_FILE, wrong)?;
    if text.trim_start().starts_with('[') {
        check_depth(text.as_bytes()).map_err(wrong)?;
        let rows: Result<Vec<Columns>, _> = serde_json::from_str(&text);
        let mut rows = rows.map_err(|error| {
            Error::data(path, error.line(), problem("an array of objects", &error))
        })?;
        rows.truncate(limit);
        return Ok(rows);
    }
    let lines = text.lines().enumerate();
    let lines = lines
        .filter(|(_, line)| !line.trim().is_empty())
        .take(limit);
    let rows = lines.map(|(number, line)| {
        let wrong = |problem| Error::data(path, number + 1, problem);
        check_depth(line.as_bytes()).map_err(wrong)?;
        serde_json::from_str(line).map_err(|error| wrong(problem("a JSON object", &error)))
    });
    rows.collect()
}

/// The problem of text that is not `expected`, with its column.
fn problem(expected: &str, error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    format!("column {}: not {expected}: {text}", error.column())
}

fn parquet_rows(file: File, limit: usize) -> Result<Vec<Columns>, String> {
    let malformed = |error| format!("not a valid parquet file: {error}");
    let pages = file.try_clone().map_err(|error| error.to_string())?;
    let reader = SerializedFileReader::new(file).map_err(malformed)?;
    for group in reader.metadata().row_groups() {
        for column in group.columns() {
            let (start, length) = column.byte_range();
            parquet_pages::check(&pages, start, length, MAX_PAGE)?;
        }
    }
    let rows = reader.get_row_iter(None).map_err(malformed)?;
    let rows = rows.with_batch_size(ROWS);
    let mut left = MAX_VALUES;
    rows.take(limit)
        .map(|row| columns(row.map_err(malformed)?, 0, &mut left))
        .collect()
}

/// The columns of a row, whose size is taken from `left`.
fn columns(row: Row, depth: usize, left: &mut usize) -> Result<Columns, String> {
    take(left, ROW)?;
    let columns = row.into_columns().into_iter();
    columns
        .map(|(name, field)| Ok((name, value(&field, depth, left)?)))
        .collect()
}

fn take(left: &mut usize, bytes: usize) -> Result<(), String> {
    let most = MAX_VALUES >> 20;
    let rest = left.checked_sub(bytes);
    *left = rest.ok_or_else(|| format!("expected at most {most} MiB of values, found more"))?;
    Ok(())
}

/// The value of a field, whose size is taken from `left`.
fn value(field: &Field, depth: usize, left: &mut usize) -> Result<Value, String> {
    let text = match field {
        Field::Str(text) => text.len(),
        Field::Bytes(bytes) => bytes.len(),
        _ => 0,
    };
    take(left, text + VALUE)?;
    if depth > MAX_DEPTH {
        return Err(format!(
            "expected at most {MAX_DEPTH} nested values, found more"
        ));
    }
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(flag) => Value::from(*flag),
        Field::Byte(number) => Value::from(*number),
        Field::Short(number) => Value::from(*number),
        Field::Int(number) | Field::Date(number) | Field::TimeMillis(number) => {
            Value::from(*number)
        }
        Field::Long(number)
        | Field::TimeMicros(number)
        | Field::TimestampMillis(number)
        | Field::TimestampMicros(number) => Value::from(*number),
        Field::UByte(number) => Value::from(*number),
        Field::UShort(number) => Value::from(*number),
        Field::UInt(number) => Value::from(*number),
        Field::ULong(number) => Value::from(*number),
        Field::Float16(number) => Value::from(f32::from(*number)),
        Field::Float(number) => Value::from(*number),
        Field::Double(number) => Value::from(*number),
        Field::Str(text) => Value::from(text.as_str()),
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => Value::from(text),
            // Images and the like, which no question uses.
            Err(_) => Value::Null,
        },
        Field::Group(row) => Value::Object(columns(row.clone(), depth + 1, left)?),
        Field::ListInternal(list) => {
            let items = list.elements().iter();
            Value::Array(
                items
                    .map(|item| value(item, depth + 1, left))
                    .collect::<Result<_, _>>()?,
            )
        }
        Field::MapInternal(map) => {
            let entries = map.entries().iter().map(|(key, item)| {
                let Field::Str(key) = key else {
                    return Err("expected a map with keys of text".to_owned());
                };
                Ok((key.clone(), value(item, depth + 1, left)?))
            });
            Value::Object(entries.collect::<Result<_, _>>()?)
        }
        other => return Err(format!("a value of the type {other:?} is not supported")),
    })
}
